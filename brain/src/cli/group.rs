//! `brain group`.

use std::path::PathBuf;

use brain::api::{GroupView, NewGroup, WriteAnswer};
use serde_json::json;
use ureq::http::Method;

use super::client::{Client, ClientArgs};
use super::conflict;
use super::device::{Condition, View, history, parse_leaves, print_written, repeat, resolve, show};
use super::output::{self, Output};
use super::retire::{self, Ending};
use super::tree::encode;

#[derive(Debug, clap::Subcommand)]
pub(super) enum GroupCommand {
    /// List the groups
    List {
        #[command(flatten)]
        view: View,
    },
    /// Make a group, or say anew what it is for
    Create {
        /// Its name: small letters, digits, '-', '_' and '.'
        group: String,
        /// What it is for
        #[arg(long, default_value = "")]
        description: String,
        #[command(flatten)]
        change: Change,
    },
    /// Delete a group: its members are put out, its tree is removed, but for its last version, and no
    /// other group can have its name
    Delete {
        /// The group
        group: String,
        #[command(flatten)]
        ending: Ending,
    },
    /// Make devices members of a group: they share its tree from then on
    Add {
        /// The group
        group: String,
        /// Their ids, the beginnings of their ids, or their names
        #[arg(required = true)]
        devices: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// End memberships; what the devices wrote stays
    Remove {
        /// The group
        group: String,
        /// Their ids, the beginnings of their ids, or their names
        #[arg(required = true)]
        devices: Vec<String>,
        #[command(flatten)]
        change: Change,
    },
    /// Show the tree of a group: the latest, at a version, or at a time
    Show {
        /// The group
        group: String,
        /// The state after this commit
        #[arg(long, conflicts_with = "at")]
        version: Option<u64>,
        /// What the brain had committed at this time, such as 2026-11-21T06:00:00Z
        #[arg(long)]
        at: Option<String>,
        #[command(flatten)]
        view: View,
    },
    /// Set leaves that the members share, such as gate/open=true; PATH= removes one
    Set {
        /// The group
        group: String,
        /// PATH=VALUE below shared/; the value is JSON, or text where it is not
        #[arg(required = true, value_name = "PATH=VALUE")]
        leaves: Vec<String>,
        #[command(flatten)]
        condition: Condition,
        #[command(flatten)]
        change: Change,
    },
    /// Show the changes of a group's tree, newest first
    History {
        /// The group
        group: String,
        /// How many changes at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Changes before this version
        #[arg(long)]
        before: Option<u64>,
        #[command(flatten)]
        view: View,
    },
    /// Say why leaves of a group's tree are what they are
    Why {
        /// The group
        group: String,
        /// The leaf, or the beginning of leaves up to a slash, such as shared/gate [default: all]
        path: Option<String>,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// List the conflicts of a group's tree, the latest first
    Conflicts {
        /// The group
        group: String,
        /// How many at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// How to print
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show how conflicts of a group's tree are decided, or set it
    Policy {
        /// The group
        group: String,
        /// A file with the new policy, in JSON
        #[arg(long, value_name = "FILE")]
        set: Option<PathBuf>,
        /// Why, for the history
        #[arg(long, default_value = "set on the command line")]
        reason: String,
    },
}

/// What goes with a change.
#[derive(Debug, clap::Args)]
pub(super) struct Change {
    /// Why, for the history
    #[arg(long, default_value = "set on the command line")]
    reason: String,
    /// How to print what came of it
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs `brain group`.
pub(super) fn run(client: &ClientArgs, command: GroupCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    let at = |group: &str| format!("/api/v1/groups/{}", encode(group));
    match command {
        GroupCommand::List { view } => repeat(view, || list(&client, view.output)),
        GroupCommand::Create { group, description, change } => {
            let target = format!("{}?reason={}", at(&group), encode(&change.reason));
            let body = Some(json!(NewGroup { description }));
            print_written(&client.call(Method::PUT, &target, body)?, change.output);
            Ok(())
        }
        GroupCommand::Delete { group, ending } => retire::group(client, &group, &ending),
        GroupCommand::Add { group, devices, change } => {
            set_members(&client, Method::PUT, &at(&group), &devices, &change)
        }
        GroupCommand::Remove { group, devices, change } => {
            set_members(&client, Method::DELETE, &at(&group), &devices, &change)
        }
        GroupCommand::Show { group, version, at: time, view } => {
            let mut target = format!("{}/state", at(&group));
            let which = version.map(|version| ("version", version.to_string()));
            if let Some((name, value)) = which.or(time.map(|time| ("at", time))) {
                target += &format!("?{name}={}", encode(&value));
            }
            repeat(view, || show(&client, &target, None, view.output))
        }
        GroupCommand::Set { group, leaves, condition, change } => {
            let body = parse_leaves("shared", &leaves)?;
            let target = format!("{}/shared", at(&group));
            let answer = condition.patch(&client, &target, &change.reason, "", body)?;
            print_written(&answer, change.output);
            Ok(())
        }
        GroupCommand::History { group, limit, before, view } => {
            let mut target = format!("{}/history?limit={limit}", at(&group));
            if let Some(before) = before {
                target += &format!("&before={before}");
            }
            repeat(view, || history(&client, &target, view.output))
        }
        GroupCommand::Why { group, path, output } => {
            conflict::explain(&client, format!("{}/why", at(&group)), path.as_deref(), output)
        }
        GroupCommand::Conflicts { group, limit, output } => {
            conflict::list(&client, &format!("{}/conflicts?limit={limit}", at(&group)), output)
        }
        GroupCommand::Policy { group, set, reason } => {
            let target = format!("{}/conflict-policy", at(&group));
            conflict::policy(&client, &target, set.as_ref(), &reason)
        }
    }
}

fn set_members(
    client: &Client,
    method: Method,
    group: &str,
    devices: &[String],
    change: &Change,
) -> anyhow::Result<()> {
    let ids = devices.iter().map(|device| resolve(client, device));
    for id in ids.collect::<anyhow::Result<Vec<_>>>()? {
        let target = format!("{group}/members/{id}?reason={}", encode(&change.reason));
        let answer: WriteAnswer = client.call(method.clone(), &target, None)?;
        print_written(&answer, change.output);
    }
    Ok(())
}

fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let groups: Vec<GroupView> = client.get("/api/v1/groups")?;
    match output {
        Output::Json => println!("{}", json!(groups)),
        Output::Table if groups.is_empty() => {
            println!("there is no group; `brain group create NAME` makes one");
        }
        Output::Table => {
            let rows = groups.into_iter().map(|group| {
                let online = group.members.iter().filter(|member| member.online).count();
                [
                    group.name,
                    group.description,
                    format!("{} ({online} online)", group.members.len()),
                    group.version.to_string(),
                    output::shortened(&group.root, 16),
                ]
            });
            let heading = ["group", "description", "members", "version", "root"];
            println!("{}", output::table(heading, rows));
        }
    }
    Ok(())
}
