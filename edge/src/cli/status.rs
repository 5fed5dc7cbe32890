//! `edge status`.

use edge::config::Config;
use edge::local_api::ask_status;
use edge::presence::ModeNow;
use edge::status::Status;

use super::{Output, block_on, print_table, time};

pub(super) fn run(config: &Config, output: Output) -> anyhow::Result<()> {
    let status = block_on(1, 1, async { Ok(ask_status(&config.data_dir).await?) })?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&status)?),
        Output::Table => print_table(&rows(&status)),
    }
    Ok(())
}

fn mode(now: &ModeNow) -> String {
    format!("{} since {}: {}", now.mode.as_str(), time(now.since_ms), now.why)
}

fn rows(status: &Status) -> Vec<(&'static str, String)> {
    let none = || "-".to_owned();
    let link = if status.online { "online" } else { "offline" };
    let mut rows = vec![
        ("device", status.device_id.to_string()),
        ("name", status.name.clone().unwrap_or_else(none)),
        ("fleet", status.fleet.map_or_else(|| "not enrolled".to_owned(), |id| id.to_string())),
        ("server", status.server.clone().unwrap_or_else(none)),
        ("link", format!("{link} since {}", time(status.since_ms))),
        ("mode", status.mode.as_ref().map_or_else(|| "starting".to_owned(), mode)),
        ("queue", format!("{} entries, {} bytes", status.queue_depth, status.queue_bytes)),
        ("leaves", status.leaves.to_string()),
        ("root", status.root.clone().unwrap_or_else(none)),
        ("last error", status.last_error.clone().unwrap_or_else(none)),
        ("needs somebody", status.alert.clone().unwrap_or_else(none)),
        ("version", status.version.clone()),
    ];
    if let Some(said) = &status.retired {
        let advice = "stop the agent and run `edge enroll` to join as another device";
        rows.insert(0, ("retired", format!("{said}; {advice}")));
    }
    rows
}
