//! `brain device retire`, `brain group delete`, and what is left of them.

use std::io::{IsTerminal, stdin};
use std::time::Duration;

use anyhow::bail;
use brain::api::{DeviceList, TombstoneView};
use serde_json::json;
use ureq::http::Method;

use super::client::Client;
use super::device::resolve;
use super::output::{self, Output};
use super::tree::encode;

/// How much longer than usual it may take to put all members out of a group.
const LONGER: Duration = Duration::from_secs(270);

/// What goes with the end of a device or of a group.
#[derive(Debug, clap::Args)]
pub(super) struct Ending {
    /// Why: it is told to whoever asks later
    #[arg(long)]
    reason: String,
    /// Do not ask again
    #[arg(long)]
    yes: bool,
    /// How to print what is left
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Retires the device that a person means.
pub(super) fn device(client: &Client, given: &str, ending: &Ending) -> anyhow::Result<()> {
    let id = resolve(client, given)?;
    let what = format!("device {id} leaves the fleet for good, and what is kept of it is removed");
    end(client, &format!("/api/v1/devices/{id}"), &what, ending)
}

/// Deletes a group.
pub(super) fn group(client: Client, name: &str, ending: &Ending) -> anyhow::Result<()> {
    let what = format!(
        "group {name} ends for its members, what is kept of it is removed, and no other group can \
         have its name"
    );
    end(&client.patient(LONGER)?, &format!("/api/v1/groups/{}", encode(name)), &what, ending)
}

/// Prints what is left of devices that were retired.
pub(super) fn list(client: &Client, output: Output) -> anyhow::Result<()> {
    let mut retired = Vec::new();
    let first = "/api/v1/devices?retired=true&limit=1000";
    let mut path = first.to_owned();
    loop {
        let page: DeviceList = client.get(&path)?;
        retired.extend(page.retired);
        match page.next {
            Some(next) => path = format!("{first}&after={next}"),
            None => break,
        }
    }
    match output {
        Output::Json => println!("{}", json!(retired)),
        Output::Table if retired.is_empty() => println!("no device was retired"),
        Output::Table => {
            let heading = ["name", "id", "version", "retired", "by", "reason"];
            println!("{}", output::table(heading, retired.into_iter().map(row)));
        }
    }
    Ok(())
}

fn end(client: &Client, target: &str, what: &str, ending: &Ending) -> anyhow::Result<()> {
    if !ending.yes && stdin().is_terminal() {
        ask(what)?;
    }
    let target = format!("{target}?reason={}", encode(&ending.reason));
    let left: TombstoneView = client.call(Method::DELETE, &target, None)?;
    match ending.output {
        Output::Json => println!("{}", json!(left)),
        Output::Table => {
            let TombstoneView { id, name, version, key, .. } = left;
            match key {
                Some(_) => println!("{name} ({id}) is retired, at version {version}"),
                None => println!("group {name} is deleted, at version {version}"),
            }
        }
    }
    Ok(())
}

fn ask(what: &str) -> anyhow::Result<()> {
    eprint!("{what}. Go on? [y/N] ");
    let mut answer = String::new();
    stdin().read_line(&mut answer)?;
    if !["y", "yes"].contains(&answer.trim().to_lowercase().as_str()) {
        bail!("nothing was changed; --yes goes on without asking");
    }
    Ok(())
}

fn row(left: TombstoneView) -> [String; 6] {
    let TombstoneView { id, name, version, retired, principal, reason, .. } = left;
    let id = output::shortened(&id, 8);
    [name, id, version.to_string(), output::time(retired), principal, reason]
}
