//! The tree's changes, as they happen.

use std::io::{BufRead, BufReader, Read};

use actors::supervise::CrashRecord;
use anyhow::bail;
use serde_json::Value;

use super::{TreeView, decision, what_happened};
use crate::cli::output::{self, Output};

/// Prints events until the brain ends the stream.
pub(super) fn follow(events: impl Read, view: &TreeView) -> anyhow::Result<()> {
    let mut name = String::new();
    for line in BufReader::new(events).lines() {
        let line = line?;
        // https://html.spec.whatwg.org/multipage/server-sent-events.html, as far as it is sent.
        if let Some(event) = line.strip_prefix("event:") {
            name = event.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data:") {
            print(&name, &serde_json::from_str(data.trim())?, view)?;
        }
    }
    bail!("the brain has ended the stream; is it being restarted?")
}

fn print(name: &str, data: &Value, view: &TreeView) -> anyhow::Result<()> {
    let shown = name == "missed" || view.shows(data["path"].as_str(), data["kind"].as_str());
    if !shown {
        return Ok(());
    }
    if view.output == Output::Json {
        let mut line = data.clone();
        line["event"] = name.into();
        println!("{line}");
        return Ok(());
    }
    match name {
        "crash" => {
            let crash: CrashRecord = serde_json::from_value(data.clone())?;
            let handling = crash.message.as_ref().map(|message| format!(" at {message}"));
            println!(
                "{}  {}  crashed{}: {} -> {}",
                output::time_of_day(crash.at_ms),
                crash.path,
                handling.unwrap_or_default(),
                what_happened(&crash),
                decision(&crash),
            );
        }
        "status" => {
            let status = data["status"].as_str().unwrap_or("gone");
            let at_ms = data["at_ms"].as_u64().unwrap_or_default();
            let path = output::value(&data["path"]);
            println!(
                "{}  {path}  {status} (life {})",
                output::time_of_day(at_ms),
                data["incarnation"]
            );
        }
        _ => println!("{} changes were too many to show", data["missed"]),
    }
    Ok(())
}
