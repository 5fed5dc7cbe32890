//! `brain device`.

use std::io::IsTerminal;
use std::time::Duration;

use anyhow::{Context, bail};
use brain::api::{
    DeltaView, DeviceDetail, DeviceList, DeviceSummary, HistoryPage, Level, WriteAnswer,
};
use protocol::state::VersionedState;
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Client, ClientArgs};
use super::conflict;
use super::output::{self, Output};
use super::retire::{self, Ending};
use super::tree::encode;

const WATCH_EVERY: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Subcommand)]
pub(super) enum DeviceCommand {
    /// List the devices
    List {
        /// Those that a query means, such as 'tags/site = north and online'
        #[arg(long)]
        query: Option<String>,
        /// Those that were retired, with the version that they ended at
        #[arg(long, conflicts_with = "query")]
        retired: bool,
        #[command(flatten)]
        view: View,
    },
    /// Show the state of a device: the latest, at a version, or at a time
    Show {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// The state after this commit
        #[arg(long, conflicts_with_all = ["at", "happened_at"])]
        version: Option<u64>,
        /// What the brain had committed at this time, such as 2026-11-21T06:00:00Z
        #[arg(long, conflicts_with = "happened_at")]
        at: Option<String>,
        /// What had happened by this time, by the device's clock
        #[arg(long)]
        happened_at: Option<String>,
        #[command(flatten)]
        view: View,
    },
    /// Show the changes of a device, newest first
    History {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// How many changes at most
        #[arg(long, default_value_t = 20)]
        limit: usize,
        /// Changes before this version
        #[arg(long)]
        before: Option<u64>,
        #[command(flatten)]
        view: View,
    },
    /// Make desired/ what it was at a version or a time, as a new version
    Restore {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// What was desired after this commit
        #[arg(long, conflicts_with = "at", required_unless_present = "at")]
        version: Option<u64>,
        /// What was desired at this time, such as 2026-11-21T06:00:00Z
        #[arg(long)]
        at: Option<String>,
        /// Why, for the history
        #[arg(long, default_value = "asked on the command line")]
        reason: String,
        #[command(flatten)]
        wait: Wait,
        /// How to print what came of it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Set tags, such as location/zone=B or role=relay; PATH= removes one
    Tag {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// PATH=VALUE below tags/; the value is JSON, or text where it is not
        #[arg(required = true, value_name = "PATH=VALUE")]
        leaves: Vec<String>,
        #[command(flatten)]
        condition: Condition,
        /// Why, for the history
        #[arg(long, default_value = "set on the command line")]
        reason: String,
        /// How to print what came of it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
    /// Show what is desired of a device and not in force, and what holds it back
    Delta {
        /// Its id, the beginning of its id, or its name
        device: String,
        #[command(flatten)]
        view: View,
    },
    /// Take a device out of the fleet for good: its key opens nothing any more, and what the brain has
    /// of it is removed, but for its last version
    Retire {
        /// Its id, the beginning of its id, or its name
        device: String,
        #[command(flatten)]
        ending: Ending,
    },
    /// Set leaves below desired/, such as sense/thermal/period_ms=2000; PATH= removes one
    Set {
        /// Its id, the beginning of its id, or its name
        device: String,
        /// PATH=VALUE; the value is JSON, or text where it is not
        #[arg(required = true, value_name = "PATH=VALUE")]
        leaves: Vec<String>,
        /// Why, for the history
        #[arg(long, default_value = "set on the command line")]
        reason: String,
        #[command(flatten)]
        condition: Condition,
        #[command(flatten)]
        wait: Wait,
        /// How to print what came of it
        #[arg(long, value_enum, default_value_t)]
        output: Output,
    },
}

/// How far a change is to come before the command ends.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct Wait {
    /// How far it is to have come: on the brain's disk, on the device's, or in force there
    #[arg(long, value_enum, default_value_t)]
    wait: WaitFor,
    /// How many seconds to wait for that
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=300))]
    timeout: u64,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum)]
enum WaitFor {
    #[default]
    Stored,
    Delivered,
    Applied,
}

impl Wait {
    fn level(self) -> Level {
        match self.wait {
            WaitFor::Stored => Level::Stored,
            WaitFor::Delivered => Level::Delivered,
            WaitFor::Applied => Level::Applied,
        }
    }

    fn name(self) -> &'static str {
        match self.wait {
            WaitFor::Stored => "stored",
            WaitFor::Delivered => "delivered",
            WaitFor::Applied => "applied",
        }
    }

    /// What it adds to a request's query.
    fn query(self) -> String {
        format!("&wait={}&timeout_ms={}", self.name(), self.timeout * 1_000)
    }

    /// How much longer than usual the answer may take.
    fn longer(self) -> Duration {
        let waits = self.wait != WaitFor::Stored;
        if waits { Duration::from_secs(self.timeout) } else { Duration::ZERO }
    }

    /// Fails where it did not come as far: it stays desired all the same.
    fn check(self, answer: &WriteAnswer) -> anyhow::Result<()> {
        if answer.acknowledged >= self.level() {
            return Ok(());
        }
        let held = answer.held_by.iter().map(|(path, held)| {
            let held: Vec<_> = held.iter().map(conflict::hold).collect();
            format!("{path}: {}", held.join("; "))
        });
        let held: Vec<_> = held.collect();
        let (wanted, seconds) = (self.name(), self.timeout);
        bail!(
            "it is stored, and was not {wanted} within {seconds} s ({}); it stays desired: see `brain \
             device delta`",
            held.join(", ")
        );
    }
}

/// When to write.
#[derive(Debug, Clone, clap::Args)]
pub(super) struct Condition {
    /// Only where the state is at this version
    #[arg(long)]
    if_version: Option<u64>,
    /// Only where this query holds, such as 'reported/thermal/cpu_celsius < 70'
    #[arg(long = "if", value_name = "QUERY")]
    only_if: Option<String>,
}

impl Condition {
    /// Changes leaves, where it holds.
    pub(super) fn patch(
        &self,
        client: &Client,
        target: &str,
        reason: &str,
        wait: &str,
        body: Value,
    ) -> anyhow::Result<WriteAnswer> {
        let mut target = format!("{target}?reason={}{wait}", encode(reason));
        if let Some(query) = &self.only_if {
            target += &format!("&if={}", encode(query));
        }
        client.call_if(Method::PATCH, &target, Some(body), self.if_version)
    }
}

/// How to look at something.
#[derive(Debug, Clone, Copy, clap::Args)]
pub(super) struct View {
    /// How to print
    #[arg(long, value_enum, default_value_t)]
    pub(super) output: Output,
    /// Print again every two seconds
    #[arg(long)]
    watch: bool,
}

pub(super) fn run(client: &ClientArgs, command: DeviceCommand) -> anyhow::Result<()> {
    let client = Client::new(client)?;
    match command {
        DeviceCommand::List { retired: true, view, .. } => {
            repeat(view, || retire::list(&client, view.output))
        }
        DeviceCommand::List { query, view, .. } => {
            repeat(view, || list(&client, query.as_deref().unwrap_or_default(), view.output))
        }
        DeviceCommand::Show { device, version, at, happened_at, view } => {
            let id = resolve(&client, &device)?;
            let mut path = format!("/api/v1/devices/{id}/state");
            let time = at.map(|at| ("at", at)).or(happened_at.map(|at| ("happened_at", at)));
            let which = version.map(|version| ("version", version.to_string())).or(time);
            if let Some((name, value)) = &which {
                path += &format!("?{name}={}", encode(value));
            }
            let detail = which.is_none().then(|| format!("/api/v1/devices/{id}"));
            repeat(view, || show(&client, &path, detail.as_deref(), view.output))
        }
        DeviceCommand::History { device, limit, before, view } => {
            let id = resolve(&client, &device)?;
            let mut path = format!("/api/v1/devices/{id}/history?limit={limit}");
            if let Some(before) = before {
                path += &format!("&before={before}");
            }
            repeat(view, || history(&client, &path, view.output))
        }
        DeviceCommand::Restore { device, version, at, reason, wait, output } => {
            let id = resolve(&client, &device)?;
            let version = version.map(|version| ("version", version.to_string()));
            let (name, to) = version.or(at.map(|at| ("at", at))).context("say where to")?;
            let (to, reason) = (encode(&to), encode(&reason));
            let more = wait.query();
            let target = format!("/api/v1/devices/{id}/restore?{name}={to}&reason={reason}{more}");
            let client = client.patient(wait.longer())?;
            let answer = client.call(Method::POST, &target, None)?;
            print_written(&answer, output);
            wait.check(&answer)
        }
        DeviceCommand::Tag { device, leaves, condition, reason, output } => {
            let id = resolve(&client, &device)?;
            let body = parse_leaves("tags", &leaves)?;
            let target = format!("/api/v1/devices/{id}/tags");
            print_written(&condition.patch(&client, &target, &reason, "", body)?, output);
            Ok(())
        }
        DeviceCommand::Delta { device, view } => {
            let id = resolve(&client, &device)?;
            repeat(view, || delta(&client, &id, view.output))
        }
        DeviceCommand::Retire { device, ending } => retire::device(&client, &device, &ending),
        DeviceCommand::Set { device, leaves, reason, condition, wait, output } => {
            let id = resolve(&client, &device)?;
            let body = parse_leaves("desired", &leaves)?;
            let target = format!("/api/v1/devices/{id}/desired");
            let client = client.patient(wait.longer())?;
            let answer = condition.patch(&client, &target, &reason, &wait.query(), body)?;
            print_written(&answer, output);
            wait.check(&answer)
        }
    }
}

fn delta(client: &Client, id: &str, output: Output) -> anyhow::Result<()> {
    let delta: DeltaView = client.get(&format!("/api/v1/devices/{id}/delta"))?;
    match output {
        Output::Json => println!("{}", json!(delta)),
        Output::Table if delta.in_sync => println!("all that is desired is in force"),
        Output::Table => {
            let rows = delta.leaves.iter().map(|(path, leaf)| {
                let held = leaf.device.held_by.iter().map(conflict::hold);
                [
                    path.clone(),
                    conflict::value(leaf.desired.as_ref()),
                    conflict::value(leaf.device.applied.as_ref()),
                    held.collect::<Vec<_>>().join("; "),
                ]
            });
            let heading = ["path", "desired", "applied", "held back by"];
            println!("{}", output::table(heading, rows));
        }
    }
    Ok(())
}

fn list(client: &Client, query: &str, output: Output) -> anyhow::Result<()> {
    let devices = all_devices(client, query)?;
    match output {
        Output::Json => println!("{}", json!(devices)),
        Output::Table => {
            let heading = [
                "name",
                "id",
                "connection",
                "load",
                "temperature",
                "memory free",
                "disk free",
                "version",
                "last change",
            ];
            println!("{}", output::table(heading, devices.iter().map(row)));
        }
    }
    Ok(())
}

fn row(device: &DeviceSummary) -> [String; 9] {
    let connection = match (device.quarantined_until, device.connected_since) {
        (Some(until), _) => format!("quarantined until {}", output::time(until)),
        (None, Some(_)) => "online".to_owned(),
        (None, None) => "offline".to_owned(),
    };
    let number = |key: &str| device.summary.get(key).and_then(Value::as_f64);
    let dash = || "-".to_owned();
    let size =
        |key| number(key).map_or_else(dash, |n| format!("{:.0} MiB", n / f64::from(1 << 20)));
    let hottest = device
        .summary
        .iter()
        .filter(|(path, _)| path.ends_with("_celsius"))
        .filter_map(|(_, value)| value.as_f64())
        .reduce(f64::max);
    [
        device.name.clone(),
        device.id.short(),
        connection,
        number("machine/load1").map_or_else(dash, |load| format!("{load:.2}")),
        hottest.map_or_else(dash, |celsius| format!("{celsius:.1} °C")),
        size("machine/memory_available_bytes"),
        size("machine/disk_available_bytes"),
        device.version.to_string(),
        output::time(device.last_change),
    ]
}

pub(super) fn show(
    client: &Client,
    path: &str,
    detail: Option<&str>,
    output: Output,
) -> anyhow::Result<()> {
    let state: VersionedState = client.get(path)?;
    match output {
        Output::Json => println!("{}", json!(state)),
        Output::Table => {
            let VersionedState { version, timestamp, source, .. } = state;
            println!(
                "version {version}, committed {}, last change by {source}",
                output::time(timestamp)
            );
            if let Some(detail) = detail {
                let detail: DeviceDetail = client.get(detail)?;
                let entries = detail.entries.map(|entries| entries.to_string());
                let entries = entries.unwrap_or_else(|| "none received".to_owned());
                println!("entries since the brain's start: {entries}");
            }
            let leaves = state.state.iter();
            let rows =
                leaves.map(|(path, value)| [path.to_string(), output::value(&value.to_json())]);
            println!("{}", output::table(["path", "value"], rows));
        }
    }
    Ok(())
}

pub(super) fn history(client: &Client, path: &str, output: Output) -> anyhow::Result<()> {
    let page: HistoryPage = client.get(path)?;
    match output {
        Output::Json => println!("{}", json!(page)),
        Output::Table => {
            let rows = page.changes.iter().map(|view| {
                let delta = &view.change.delta;
                let changes = delta.changes().map(|(path, value)| match value {
                    Some(value) => format!("{path} = {}", output::value(&value.to_json())),
                    None => format!("{path} removed"),
                });
                [
                    view.change.version.to_string(),
                    output::time(view.change.timestamp),
                    view.change.source.to_string(),
                    view.principal.clone(),
                    view.change.reason.clone(),
                    changes.collect::<Vec<_>>().join("\n"),
                ]
            });
            let heading = ["version", "committed", "source", "principal", "reason", "change"];
            println!("{}", output::table(heading, rows));
            if let Some(next) = page.next {
                eprintln!("older changes: --before {next}");
            }
        }
    }
    Ok(())
}

/// The leaves below `segment` that PATH=VALUE arguments name.
pub(super) fn parse_leaves(segment: &str, leaves: &[String]) -> anyhow::Result<Value> {
    let mut body = Map::new();
    for leaf in leaves {
        let (path, text) =
            leaf.split_once('=').with_context(|| format!("{leaf:?} is not PATH=VALUE"))?;
        let value = match text {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned())),
        };
        let below = path.strip_prefix(segment).and_then(|path| path.strip_prefix('/'));
        body.insert(below.unwrap_or(path).to_owned(), value);
    }
    Ok(Value::Object(body))
}

pub(super) fn print_written(answer: &WriteAnswer, output: Output) {
    match (output, answer.entry) {
        (Output::Json, _) => println!("{}", json!(answer)),
        (Output::Table, Some(_)) => {
            println!("version {}: {} leaves changed", answer.version, answer.delta.len())
        }
        (Output::Table, None) => println!("version {}: nothing to change", answer.version),
    }
}

/// The id that a person means.
pub(super) fn resolve(client: &Client, given: &str) -> anyhow::Result<String> {
    if given.parse::<protocol::DeviceId>().is_ok() {
        return Ok(given.to_owned());
    }
    let devices = all_devices(client, "")?;
    let fits = |device: &&DeviceSummary| {
        device.name == given || (given.len() >= 4 && device.id.to_string().starts_with(given))
    };
    match devices.iter().filter(fits).collect::<Vec<_>>()[..] {
        [one] => Ok(one.id.to_string()),
        [] => bail!(
            "no device is called {given:?}; `brain device list` shows them, and with --retired those \
             that were retired"
        ),
        [..] => bail!("{given:?} fits more than one device; give more of the id"),
    }
}

fn all_devices(client: &Client, query: &str) -> anyhow::Result<Vec<DeviceSummary>> {
    let mut devices = Vec::new();
    let first = format!("/api/v1/devices?limit=1000&query={}", encode(query));
    let mut path = first.clone();
    loop {
        let page: DeviceList = client.get(&path)?;
        devices.extend(page.devices);
        match page.next {
            Some(next) => path = format!("{first}&after={next}"),
            None => return Ok(devices),
        }
    }
}

pub(super) fn repeat(
    view: View,
    mut print: impl FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    loop {
        if view.watch && view.output == Output::Table && std::io::stdout().is_terminal() {
            // Clears the screen and goes to its beginning.
            print!("\x1b[2J\x1b[H");
        }
        print()?;
        if !view.watch {
            return Ok(());
        }
        pause();
    }
}

#[expect(clippy::disallowed_methods, reason = "the command line has no runtime")]
fn pause() {
    std::thread::sleep(WATCH_EVERY);
}
