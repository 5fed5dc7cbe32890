//! `brain fleet`.

use std::io::{BufRead, BufReader};

use brain::api::FleetLine;
use protocol::DeviceId;
use protocol::state::{State, Value};
use serde::Serialize;

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
    /// Print in which mode devices work and which others they see, as they last said
    Mesh {
        /// Those that a query means, such as 'group = north' [default: all]
        #[arg(long)]
        query: Option<String>,
        /// What they had said by this time, such as 2026-11-21T06:00:00Z
        #[arg(long)]
        at: Option<String>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// What a device says of its links.
#[derive(Debug, PartialEq, Serialize)]
struct MeshLine {
    device: DeviceId,
    name: String,
    mode: Option<String>,
    why: Option<String>,
    /// The devices that it is connected to.
    sees: Vec<String>,
    /// Those that it shares a group with and is not connected to.
    misses: Vec<String>,
}

impl MeshLine {
    fn of(line: &FleetLine) -> Self {
        let state: &State = &line.state;
        let text = |path| {
            let path = protocol::state::Path::new(path).ok()?;
            state.get(&path).and_then(|value| Some(value.to_json().as_str()?.to_owned()))
        };
        let (mut sees, mut misses) = (Vec::new(), Vec::new());
        for (path, value) in state {
            let peer =
                path.below("reported/peers").and_then(|rest| rest.strip_suffix("/connected"));
            let Some(peer) = peer else { continue };
            let list = if *value == Value::from(true) { &mut sees } else { &mut misses };
            list.push(peer.to_owned());
        }
        Self {
            device: line.device,
            name: line.name.clone(),
            mode: text("reported/mode/name"),
            why: text("reported/mode/why"),
            sees,
            misses,
        }
    }
}

/// Runs `brain fleet`.
pub(super) fn run(client: &ClientArgs, command: FleetCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let (leaves, asked, output) = match command {
        FleetCommand::State { query, at, happened_at, leaves, output } => {
            (leaves, [("query", query), ("at", at), ("happened_at", happened_at)], output)
        }
        FleetCommand::Mesh { query, at, output } => {
            return mesh(&client, [("query", query), ("at", at)], output);
        }
    };
    let lines = stream(&client, asked)?;
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

/// The states that were asked for, a line each.
fn stream<const N: usize>(
    client: &Client,
    asked: [(&str, Option<String>); N],
) -> anyhow::Result<impl Iterator<Item = std::io::Result<String>>> {
    let asked = asked.into_iter().filter_map(|(name, value)| Some((name, value?)));
    let asked: Vec<_> = asked.map(|(name, value)| format!("{name}={}", encode(&value))).collect();
    let target = format!("/api/v1/fleet/state?{}", asked.join("&"));
    Ok(BufReader::new(client.stream(&target)?).lines())
}

fn mesh(client: &Client, asked: [(&str, Option<String>); 2], output: Output) -> anyhow::Result<()> {
    let lines = stream(client, asked)?;
    let lines: Vec<MeshLine> = lines
        .map(|line| Ok(MeshLine::of(&serde_json::from_str(&line?)?)))
        .collect::<anyhow::Result<_>>()?;
    match output {
        Output::Json => println!("{}", serde_json::to_string(&lines)?),
        Output::Table => {
            let none = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
            let names: std::collections::BTreeMap<_, _> =
                lines.iter().map(|line| (line.device.to_string(), line.name.clone())).collect();
            let named = |ids: &[String]| {
                let shown = ids.iter().map(|id| names.get(id).unwrap_or(id).as_str());
                shown.collect::<Vec<_>>().join(", ")
            };
            let rows = lines.iter().map(|line| {
                let (mode, why) = (none(&line.mode), none(&line.why));
                [line.name.clone(), mode, why, named(&line.sees), named(&line.misses)]
            });
            let heading = ["device", "mode", "why", "sees", "does not see"];
            println!("{}", output::table(heading, rows));
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

#[cfg(test)]
mod tests {
    use protocol::state::Path;

    use super::*;

    #[test]
    fn what_a_device_sees_is_read_off_its_leaves() {
        let leaves = [
            ("reported/mode/name", Value::from("autonomous")),
            ("reported/mode/why", Value::from("the brain has not been reached for 10 s")),
            ("reported/peers/aa/connected", Value::from(true)),
            ("reported/peers/bb/connected", Value::from(false)),
            ("reported/thermal/cpu_celsius", Value::from(50)),
        ];
        let state: State = leaves
            .into_iter()
            .map(|(path, value)| (Path::new(path).expect("a path"), value))
            .collect();
        let line = FleetLine {
            device: DeviceId([1; 16]),
            name: "crane".into(),
            version: 7,
            timestamp: 0,
            source: None,
            root: None,
            state,
            error: None,
        };
        let line = MeshLine::of(&line);
        assert_eq!(line.mode.as_deref(), Some("autonomous"));
        assert_eq!((line.sees, line.misses), (vec!["aa".to_owned()], vec!["bb".to_owned()]));
    }
}
