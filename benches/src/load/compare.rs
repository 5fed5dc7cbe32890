//! `load compare`: the brain beside databases and brokers, in the same run.
//!
//! Rounds are interleaved, so that a disk or a neighbour that slows down does so for all.

mod lanes;
mod mosquitto;
mod nats;
mod ours;
mod peer;
mod postgresql;
mod raw;
mod redis;
mod rows;
mod server;

use std::fmt;
use std::time::Duration;

use clap::ValueEnum;
use serde::Serialize;

use super::measure::{Latency, Spread};
use super::report::{self, Section, bytes, figure, spread};
use super::settings::{ONE_BY_ONE, PIPELINED};
use super::{Settings, Shape, Workspace, note, pause};
use lanes::{Lane, Lanes};
use ours::Ours;
use peer::{Peer, Round};
use raw::Raw;
use rows::PerUpdate;
use server::Server;

/// A server that can run beside the brain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum PeerName {
    Redis,
    Postgresql,
    Nats,
    Mosquitto,
}

impl fmt::Display for PeerName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Redis => "redis",
            Self::Postgresql => "postgresql",
            Self::Nats => "nats",
            Self::Mosquitto => "mosquitto",
        })
    }
}

/// How long the disk rests between two rounds.
const REST: Duration = Duration::from_millis(500);

/// A system in the comparison.
struct Contestant {
    name: String,
    /// What is behind its acknowledgement.
    promise: String,
    /// How many times its rate the brain's is to be.
    target: Option<f64>,
    running: Result<Box<dyn Peer>, String>,
    rounds: Vec<Round>,
}

/// What a system came to.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    promise: String,
    target: Option<f64>,
    /// The brain's rate over this one's, round by round.
    ratio: Option<Spread>,
    /// Why there are no figures.
    absent: Option<String>,
    rounds: Vec<Round>,
}

/// What a shape came to.
#[derive(Debug, Serialize)]
struct Comparison {
    shape: Shape,
    rows_per_update: PerUpdate,
    outcomes: Vec<Outcome>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Vec<Section>> {
    anyhow::ensure!(settings.rate == 0.0, "compare goes as fast as acknowledged: leave --rate out");
    let shapes = settings.shapes().into_iter();
    shapes.map(|shape| section(&compare(settings, workspace, shape)?, settings)).collect()
}

fn compare(settings: &Settings, workspace: &Workspace, shape: Shape) -> anyhow::Result<Comparison> {
    note(format!("compare: {shape}, the brain's first round"));
    let mut ours = Ours::start(settings, workspace, shape, false)?;
    let (first, single, rows_per_update) = ours.round_with_rows(settings)?;
    let database = ours.database();
    let raw = |per_update| {
        let folder = workspace.next("raw");
        Raw::make(&folder, &database, single.clone(), per_update, shape.batch())
    };
    let each = raw(PerUpdate::one_of_each(&single))?;
    let as_written = raw(rows_per_update)?;
    let mut contestants = vec![
        Contestant::new("brain", "fsync", None, Ok(ours)),
        Contestant::new("RocksDB", "sync=true", raw_target(shape), Ok(each)),
        Contestant::new("RocksDB, the brain's rows", "sync=true", None, Ok(as_written)),
    ];
    contestants.extend(servers(settings, workspace, shape));
    contestants[0].rounds.push(first);
    for number in 1..=settings.rounds {
        for contestant in &mut contestants {
            if contestant.rounds.len() < number as usize {
                contestant.round(number, settings);
            }
        }
    }
    let ours: Vec<_> = contestants[0].rounds.iter().map(|round| round.updates_per_second).collect();
    let outcomes = contestants.into_iter().map(|contestant| contestant.outcome(&ours)).collect();
    Ok(Comparison { shape, rows_per_update, outcomes })
}

/// The servers beside the brain, or why one is not there.
fn servers(settings: &Settings, workspace: &Workspace, shape: Shape) -> Vec<Contestant> {
    let known = shape == ONE_BY_ONE || shape == PIPELINED;
    let target = |times: f64| known.then_some(times);
    let mut servers = Vec::new();
    for name in &settings.peers {
        note(format!("compare: {name} starts, and is installed first where it is missing"));
        servers.push(match name {
            PeerName::Redis => {
                let redis = redis::start(settings, workspace, shape);
                Contestant::server("Redis", "appendfsync always", target(1.7), redis)
            }
            PeerName::Postgresql => {
                let postgresql = postgresql::start(settings, workspace, shape);
                let promise = "synchronous_commit=on";
                Contestant::server("PostgreSQL", promise, target(1.7), postgresql)
            }
            PeerName::Nats => {
                let nats = nats::start(settings, workspace, shape);
                Contestant::server("NATS JetStream", "sync_interval: always", target(15.0), nats)
            }
            PeerName::Mosquitto => {
                let mosquitto = mosquitto::start(settings, workspace, shape);
                Contestant::server("mosquitto", "nothing: it never syncs", None, mosquitto)
            }
        });
    }
    servers
}

fn raw_target(shape: Shape) -> Option<f64> {
    match shape {
        ONE_BY_ONE => Some(0.7),
        PIPELINED => Some(0.6),
        _ => None,
    }
}

impl Contestant {
    fn new<P: Peer + 'static>(
        name: &str,
        promise: &str,
        target: Option<f64>,
        running: anyhow::Result<P>,
    ) -> Self {
        let running = match running {
            Ok(peer) => Ok(Box::new(peer) as Box<dyn Peer>),
            Err(error) => Err(format!("{error:#}")),
        };
        let (name, promise) = (name.to_owned(), promise.to_owned());
        Self { name, promise, target, running, rounds: Vec::new() }
    }

    /// A server, which knows its release, and by what means it keeps its promise.
    fn server<L: Lane + 'static>(
        name: &str,
        promise: &str,
        target: Option<f64>,
        running: anyhow::Result<Lanes<L>>,
    ) -> Self {
        let server = running.as_ref().ok().map(Lanes::server);
        let version = server.map(Server::version).unwrap_or_default();
        let promise =
            server.and_then(|server| server.said("promise")).unwrap_or(promise.to_owned());
        Self::new(format!("{name} {version}").trim(), &promise, target, running)
    }

    fn round(&mut self, number: u32, settings: &Settings) {
        let Ok(peer) = &mut self.running else { return };
        note(format!("compare: {}, round {number}", self.name));
        pause(REST);
        match peer.round(settings) {
            Ok(round) => self.rounds.push(round),
            Err(error) => self.running = Err(format!("{error:#}")),
        }
    }

    fn outcome(self, ours: &[f64]) -> Outcome {
        let rates = self.rounds.iter().map(|round| round.updates_per_second);
        let ratios = ours.iter().zip(rates).map(|(ours, theirs)| ours / theirs);
        let ratio = (!self.rounds.is_empty()).then(|| Spread::of(ratios));
        Outcome {
            name: self.name,
            promise: self.promise,
            target: self.target,
            ratio,
            absent: self.running.err(),
            rounds: self.rounds,
        }
    }
}

fn section(comparison: &Comparison, settings: &Settings) -> anyhow::Result<Section> {
    let Comparison { shape, rows_per_update, outcomes } = comparison;
    let columns = [
        "system",
        "acknowledges after",
        "updates/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "server CPU µs",
        "client CPU µs",
        "disk B",
        "brain ÷ it",
        "target",
    ];
    let about = format!(
        "{shape} updates in flight, {} interleaved rounds of {} s, medians (lowest – highest); \
         costs are for each update.",
        settings.rounds, settings.seconds
    );
    let rows = outcomes.iter().filter(|outcome| !outcome.rounds.is_empty()).map(row).collect();
    let absent = outcomes.iter().filter_map(|outcome| {
        let reason = outcome.absent.as_ref()?;
        Some(format!("{} is absent: {reason}", outcome.name))
    });
    let PerUpdate { trees, history, log_ends, leaves, bytes } = rows_per_update;
    let written = format!(
        "The brain wrote {} rows of trees, {} of history, {} of log ends and {} of leaves, and \
         {} bytes in all, for each update.",
        figure(*trees),
        figure(*history),
        figure(*log_ends),
        figure(*leaves),
        figure(*bytes),
    );
    let notes = std::iter::once(written).chain(absent);
    Ok(Section::new("compare", about, &columns, rows, comparison)?.with_notes(notes))
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    let latency = Latency {
        p50_us: of(|round| round.latency.p50_us as f64).median as u64,
        p99_us: of(|round| round.latency.p99_us as f64).median as u64,
        p999_us: of(|round| round.latency.p999_us as f64).median as u64,
        ..Latency::default()
    };
    let client: Vec<_> = outcome.rounds.iter().filter_map(|round| round.client_cpu_us).collect();
    let client = match client.is_empty() {
        true => "–".to_owned(),
        false => figure(Spread::of(client).median),
    };
    let mut row = vec![outcome.name.clone(), outcome.promise.clone()];
    row.push(spread(&of(|round| round.updates_per_second)));
    row.extend(report::latency(&latency));
    row.extend([
        figure(of(|round| round.server_cpu_us).median),
        client,
        bytes(of(|round| round.disk_bytes).median),
        outcome.ratio.as_ref().map_or_else(String::new, spread),
        verdict(outcome),
    ]);
    row
}

fn verdict(outcome: &Outcome) -> String {
    match (outcome.target, &outcome.ratio) {
        (Some(target), Some(ratio)) => {
            let met = if ratio.median >= target { "met" } else { "missed" };
            format!("≥ {target}: {met}")
        }
        _ => String::new(),
    }
}
