//! `brain constraint`.

use std::path::PathBuf;

use anyhow::Context;
use brain::api::{ConstraintsView, WriteAnswer};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, ClientArgs};
use super::device::{print_written, resolve};
use super::output::{self, Output};
use super::tree::encode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConstraintCommand {
    /// Show what leaves of a device or a group may be, and what breaks it
    Show {
        #[command(flatten)]
        of: Of,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Set what leaves of a device or a group may be
    Set {
        #[command(flatten)]
        of: Of,
        /// A file with all constraints, in JSON
        #[arg(long, value_name = "FILE")]
        file: PathBuf,
        /// Why, for the history
        #[arg(long, default_value = "set on the command line")]
        reason: String,
        /// How to print what came of it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// Whose tree.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
pub(super) struct Of {
    /// A device: its id, the beginning of its id, or its name
    device: Option<String>,
    /// A group
    #[arg(long)]
    group: Option<String>,
}

impl Of {
    fn target(&self, client: &Client) -> anyhow::Result<String> {
        match (&self.device, &self.group) {
            (_, Some(group)) => Ok(format!("/api/v1/groups/{}/constraints", encode(group))),
            (Some(device), None) => {
                Ok(format!("/api/v1/devices/{}/constraints", resolve(client, device)?))
            }
            (None, None) => anyhow::bail!("say which device, or --group"),
        }
    }
}

/// Runs `brain constraint`.
pub(super) fn run(client: &ClientArgs, command: ConstraintCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    match command {
        ConstraintCommand::Show { of, output } => {
            let view: ConstraintsView = client.get(&of.target(&client)?)?;
            match output {
                Output::Json => println!("{}", json!(view)),
                Output::Table if view.constraints.constraints.is_empty() => {
                    println!("no constraint is set");
                }
                Output::Table => print(&view),
            }
        }
        ConstraintCommand::Set { of, file, reason, output } => {
            let unreadable = || format!("{} cannot be read", file.display());
            let text = std::fs::read_to_string(&file).with_context(unreadable)?;
            let constraints: Value = serde_json::from_str(&text).with_context(unreadable)?;
            let target = format!("{}?reason={}", of.target(&client)?, encode(&reason));
            let answer: WriteAnswer = client.call(Method::PUT, &target, Some(constraints))?;
            print_written(&answer, output);
        }
    }
    Ok(())
}

fn print(view: &ConstraintsView) {
    let rows = view.constraints.constraints.iter().map(|constraint| {
        let held = view.held.iter().filter(|(_, name)| **name == constraint.name);
        let held: Vec<_> = held.map(|(path, _)| path.clone()).collect();
        [constraint.name.clone(), json!(constraint.rule).to_string(), held.join(" ")]
    });
    println!("version {}", view.version);
    println!("{}", output::table(["constraint", "rule", "broken by"], rows));
}
