//! `brain fleet`.

use std::io::{BufRead, BufReader};

use brain::api::FleetLine;

use super::client::{Client, ClientArgs};
use super::output::{self, Output};
use super::tree::encode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum FleetCommand {
    /// Print the states of devices, now or at a time, one a line, as they are read
    State {
        /// Those that a query means, such as 'tags/site = north' [default: all]
        #[arg(long)]
        query: Option<String>,
        /// What the brain had committed at this time, such as 2026-11-21T06:00:00Z
        #[arg(long)]
        at: Option<String>,
        /// What had happened by this time, by the devices' clocks
        #[arg(long, conflicts_with = "at")]
        happened_at: Option<String>,
        /// Leaves to show beside name and version; JSON has all of them
        #[arg(long = "leaf", value_name = "PATH")]
        leaves: Vec<String>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Runs `brain fleet`.
pub(super) fn run(client: &ClientArgs, command: FleetCommand) -> anyhow::Result<()> {
    let FleetCommand::State { query, at, happened_at, leaves, output } = command;
    let client = Client::new(client)?;
    let asked = [("query", query), ("at", at), ("happened_at", happened_at)];
    let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let asked: Vec<_> = asked.map(|(name, value)| format!("{name}={}", encode(&value))).collect();
    let target = format!("/api/v1/fleet/state?{}", asked.join("&"));
    let lines = BufReader::new(client.stream(&target)?).lines();
    if output == Output::Table {
        let columns = ["DEVICE", "NAME", "VERSION", "COMMITTED"].map(str::to_owned);
        println!("{}", [&columns[..], &leaves[..]].concat().join("\t"));
    }
    for line in lines {
        let line = line?;
        match output {
            Output::Json => println!("{line}"),
            Output::Table => println!("{}", row(&serde_json::from_str(&line)?, &leaves)),
        }
    }
    Ok(())
}

/// A line for people and for cut(1): it is printed before the next is known.
fn row(line: &FleetLine, leaves: &[String]) -> String {
    let value = |path: &String| {
        let path = protocol::state::Path::new(path).ok();
        let value = path.and_then(|path| line.state.get(&path));
        value.map_or_else(|| "-".to_owned(), |value| output::value(&value.to_json()))
    };
    let mut cells = vec![
        line.device.to_string(),
        line.name.clone(),
        line.version.to_string(),
        match &line.error {
            Some(error) => format!("cannot be read: {}", error.message),
            None => output::time(line.timestamp),
        },
    ];
    cells.extend(leaves.iter().map(value));
    cells.join("\t")
}
