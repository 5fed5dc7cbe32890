//! `brain why` and `brain conflict`.

use std::path::PathBuf;

use anyhow::Context;
use brain::api::{ConflictView, PolicyView, WriteAnswer};
use brain::why::{Change, Hold, Why};
use serde_json::{Value, json};
use ureq::http::Method;

use super::client::{Client, ClientArgs};
use super::device::resolve;
use super::output::{self, Output};
use super::tree::encode;

#[derive(Debug, clap::Args)]
pub(super) struct WhyArgs {
    /// Its id, the beginning of its id, or its name
    device: String,
    /// The leaf, or the beginning of leaves up to a slash, such as desired/fan [default: all]
    path: Option<String>,
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

#[derive(Debug, clap::Subcommand)]
pub(super) enum ConflictCommand {
    /// List the conflicts of a device, the latest first
    List {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show a conflict with its sides and its end
    Show {
        /// Its id, as the list shows it
        id: String,
    },
    /// Show how conflicts of a device are decided, or set it
    Policy {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// A file with the new policy, in JSON
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
        /// Why, for the history
        #[arg(long, default_value = "set on the command line")]
        reason: String,
    },
}

/// Runs `brain why`.
pub(super) fn why(client: &ClientArgs, args: &WhyArgs) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let id = resolve(&client, &args.device)?;
    let target = format!("/api/v1/devices/{id}/why");
    explain(&client, target, args.path.as_deref(), args.output)
}

/// Prints why leaves of a tree are what they are.
pub(super) fn explain(
    client: &Client,
    mut target: String,
    path: Option<&str>,
    output: Output,
) -> anyhow::Result<()> {
    if let Some(path) = path {
        target += &format!("?path={}", encode(path));
    }
    let leaves: Vec<Why> = client.get(&target)?;
    match (output, leaves.as_slice()) {
        (Output::Json, _) => println!("{}", json!(leaves)),
        (Output::Table, [leaf]) => print_leaf(leaf),
        (Output::Table, leaves) => {
            let heading = ["path", "value", "source", "principal", "reason", "when", "note"];
            println!("{}", output::table(heading, leaves.iter().map(row)));
        }
    }
    Ok(())
}

fn row(leaf: &Why) -> [String; 7] {
    let of = |of: fn(&Change) -> String| leaf.set_by.as_ref().map_or_else(|| "-".to_owned(), of);
    let held = leaf.device.iter().flat_map(|device| &device.held_by).map(hold);
    let conflict = leaf.conflict.as_ref().map(|_| "conflict".to_owned());
    [
        leaf.path.to_string(),
        value(leaf.value.as_ref()),
        of(|change| change.source.to_string()),
        of(|change| change.principal.clone()),
        of(|change| change.reason.clone()),
        of(|change| output::time(change.committed)),
        conflict.into_iter().chain(held).collect::<Vec<_>>().join("; "),
    ]
}

fn print_leaf(leaf: &Why) {
    println!("{} = {}", leaf.path, value(leaf.value.as_ref()));
    leaf.causes.iter().for_each(|cause| println!("  from {cause}"));
    if let Some(change) = &leaf.set_by {
        print_change("set by", change);
    }
    if let Some(change) = &leaf.before {
        println!("before that: {}", value(change.value.as_ref()));
        print_change("set by", change);
    }
    if let Some(conflict) = &leaf.conflict {
        let missing = if conflict.policy_missing { ", which is not here" } else { "" };
        println!(
            "in conflict {}: decided by {}, version {} of the policy{missing}",
            conflict.id, conflict.strategy, conflict.policy
        );
        if conflict.waits_for_a_person {
            println!("  a person has yet to decide: write the leaf, which settles it");
        }
        for side in &conflict.sides {
            println!("  side: {}", value(side.value.as_ref()));
            print_change("  by", side);
        }
    }
    if let Some(device) = &leaf.device {
        match device.in_force {
            true => println!("the device has applied it"),
            false => println!("the device has applied {}", value(device.applied.as_ref())),
        }
        for held in &device.held_by {
            println!("  held back: {}", hold(held));
            if let Hold::ApplyError { causes, .. } = held {
                causes.iter().for_each(|cause| println!("    from {cause}"));
            }
        }
    }
}

fn print_change(label: &str, change: &Change) {
    let Change { principal, source, reason, entry, version, committed, author, .. } = change;
    println!("  {label} {principal} ({source}): {reason}");
    println!("    at {}, version {version}", output::time(*committed));
    println!("    entry {entry} by key {}", author.short());
}

/// What keeps a device from what is desired, for people.
pub(super) fn hold(hold: &Hold) -> String {
    match hold {
        Hold::Offline => "the device is offline".to_owned(),
        Hold::Quarantined { remaining_ms } => {
            format!("its actor is quarantined for {}", output::duration(*remaining_ms))
        }
        Hold::Override { until: Some(until), .. } => {
            format!("an override at the device holds until {}", output::time(*until))
        }
        Hold::Override { until: None, .. } => "an override at the device holds".to_owned(),
        Hold::ApplyError { message, .. } => format!("the device could not apply it: {message}"),
        Hold::Constraint { name } => format!("constraint {name:?} does not allow it"),
        Hold::Conflict { id } => format!("conflict {id} waits for a person"),
        Hold::Physical { measured } => {
            format!("the hardware reports {}", value(Some(measured)))
        }
        Hold::UnderWay => "it is on its way".to_owned(),
    }
}

/// A leaf's value, for people.
pub(super) fn value(value: Option<&protocol::state::Value>) -> String {
    value.map_or_else(|| "(gone)".to_owned(), |value| output::value(&value.to_json()))
}

/// Runs `brain conflict`.
pub(super) fn run(client: &ClientArgs, command: ConflictCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    match command {
        ConflictCommand::List { device, limit, output } => {
            let id = resolve(&client, &device)?;
            list(&client, &format!("/api/v1/devices/{id}/conflicts?limit={limit}"), output)?;
        }
        ConflictCommand::Show { id } => {
            let conflict: ConflictView =
                client.get(&format!("/api/v1/conflicts/{}", encode(&id)))?;
            println!("{}", serde_json::to_string_pretty(&conflict)?);
        }
        ConflictCommand::Policy { device, set, reason } => {
            let id = resolve(&client, &device)?;
            let target = format!("/api/v1/devices/{id}/conflict-policy");
            policy(&client, &target, set.as_ref(), &reason)?;
        }
    }
    Ok(())
}

/// Shows the policy of a tree, or sets it.
pub(super) fn policy(
    client: &Client,
    target: &str,
    set: Option<&PathBuf>,
    reason: &str,
) -> anyhow::Result<()> {
    match set {
        Some(file) => set_policy(client, target, file, reason)?,
        None => {
            let policy: PolicyView = client.get(target)?;
            println!("{}", serde_json::to_string_pretty(&policy)?);
        }
    }
    Ok(())
}

fn set_policy(client: &Client, target: &str, file: &PathBuf, reason: &str) -> anyhow::Result<()> {
    let unreadable = || format!("{} cannot be read", file.display());
    let text = std::fs::read_to_string(file).with_context(unreadable)?;
    let policy: Value = serde_json::from_str(&text).with_context(unreadable)?;
    let target = format!("{target}?reason={}", encode(reason));
    let answer: WriteAnswer = client.call(Method::PUT, &target, Some(policy))?;
    eprintln!("set with version {} of the tree", answer.version);
    Ok(())
}

/// Prints the conflicts of a tree.
pub(super) fn list(client: &Client, target: &str, output: Output) -> anyhow::Result<()> {
    let conflicts: Vec<ConflictView> = client.get(target)?;
    if output == Output::Json {
        println!("{}", json!(conflicts));
        return Ok(());
    }
    if conflicts.is_empty() {
        println!("no conflict has come up");
        return Ok(());
    }
    let heading = ["conflict", "type", "path", "sides", "status", "by", "result", "when"];
    let rows = conflicts.into_iter().map(|ConflictView { conflict, resolution, .. }| {
        let sides = conflict.states.iter().map(|state| value(state.value.as_ref()));
        let (by, result) = match &resolution {
            Some(end) => (end.strategy.clone(), value(end.result.as_ref())),
            None => ("-".to_owned(), "-".to_owned()),
        };
        [
            conflict.id.to_string(),
            name(&json!(conflict.kind)),
            conflict.path.to_string(),
            sides.collect::<Vec<_>>().join(" | "),
            name(&json!(conflict.status)),
            by,
            result,
            output::time(conflict.timestamp),
        ]
    });
    println!("{}", output::table(heading, rows));
    Ok(())
}

fn name(json: &Value) -> String {
    json.as_str().unwrap_or_default().replace('_', " ")
}
