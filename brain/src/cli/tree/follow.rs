//! The tree's changes, as they happen.

use std::io::{BufRead, BufReader, Read};
use std::time::{Duration, Instant};

use actors::supervise::CrashRecord;
use serde_json::Value;
use ureq::BodyReader;

use super::{TreeView, decision, what_happened};
use crate::cli::client::Client;
use crate::cli::output::{self, Output};

/// Where the brain tells of changes.
pub(super) const PATH: &str = "/api/v1/tree/events";
/// How long a brain that is gone is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Prints events until it is interrupted, or the brain stays away.
pub(super) fn follow(
    client: &Client,
    mut events: BodyReader<'static>,
    view: &TreeView,
) -> anyhow::Result<()> {
    loop {
        print_all(events, view)?;
        eprintln!("the stream has ended; `brain crashes` tells what is missed here");
        events = again(client)?;
    }
}

/// Opens the stream again.
#[expect(clippy::disallowed_methods, reason = "a command line without a runtime")]
fn again(client: &Client) -> anyhow::Result<BodyReader<'static>> {
    let began = Instant::now();
    loop {
        std::thread::sleep(AGAIN_AFTER);
        match client.stream(PATH) {
            Ok(events) => return Ok(events),
            Err(error) if began.elapsed() > PATIENCE => return Err(error),
            Err(_) => {}
        }
    }
}

fn print_all(events: impl Read, view: &TreeView) -> anyhow::Result<()> {
    let mut name = String::new();
    // An error in the middle is an end as well.
    for line in BufReader::new(events).lines().map_while(Result::ok) {
        // https://html.spec.whatwg.org/multipage/server-sent-events.html, as far as it is sent.
        if let Some(event) = line.strip_prefix("event:") {
            name = event.trim().to_owned();
        } else if let Some(data) = line.strip_prefix("data:") {
            print(&name, &serde_json::from_str(data.trim())?, view)?;
        }
    }
    Ok(())
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
