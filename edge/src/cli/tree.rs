//! `edge tree` and `edge crashes`.

use actors::supervise::CrashRecord;
use edge::config::Config;
use edge::local_api::ask;
use serde_json::Value;

use super::{Output, block_on, print_list, time};

/// Prints the agent's parts.
pub(super) fn tree(config: &Config, output: Output) -> anyhow::Result<()> {
    let nodes: Vec<Value> = block_on(1, 1, async { Ok(ask(&config.data_dir, "/tree").await?) })?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&nodes)?),
        Output::Table => {
            let heading = ["path", "kind", "status", "life", "restarts", "queue", "last crash"];
            print_list(heading, nodes.iter().map(row));
        }
    }
    Ok(())
}

/// Prints what failed.
pub(super) fn crashes(config: &Config, output: Output) -> anyhow::Result<()> {
    let asked = async { Ok(ask(&config.data_dir, "/crashes").await?) };
    let crashes: Vec<CrashRecord> = block_on(1, 1, asked)?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&crashes)?),
        Output::Table if crashes.is_empty() => println!("nothing has crashed"),
        Output::Table => {
            let heading = ["time", "path", "lived ms", "handling", "what happened", "decision"];
            print_list(heading, crashes.into_iter().map(crash));
        }
    }
    Ok(())
}

fn row(node: &Value) -> [String; 7] {
    let text = |key: &str| node[key].as_str().unwrap_or("-").to_owned();
    let number = |key: &str| node[key].as_u64().unwrap_or_default();
    let fault = &node["last_crash"]["fault"];
    let crash = fault["message"].as_str().or(fault["fault"].as_str()).unwrap_or("-");
    [
        text("path"),
        text("kind"),
        text("status"),
        number("incarnation").to_string(),
        number("restarts").to_string(),
        format!("{}/{}", number("depth"), number("capacity")),
        crash.to_owned(),
    ]
}

fn crash(crash: CrashRecord) -> [String; 6] {
    let decision = match crash.delay_ms {
        Some(delay) => format!("{} after {delay} ms", crash.decision),
        None => crash.decision,
    };
    [
        time(crash.at_ms),
        crash.path,
        crash.uptime_ms.to_string(),
        crash.message.unwrap_or_else(|| "-".to_owned()),
        match crash.location {
            Some(location) => format!("{} ({location})", crash.text),
            None => crash.text,
        },
        decision,
    ]
}
