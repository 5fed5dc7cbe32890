//! `load compare`: the brain beside databases and brokers, in the same run.
//!
//! Rounds are interleaved, so that a disk or a neighbour that slows down does so for all.

mod ours;
mod peer;
mod raw;
mod rows;

use std::time::Duration;

use serde::Serialize;

use super::measure::{Latency, Spread};
use super::report::{self, Section, bytes, figure, spread};
use super::settings::{ONE_BY_ONE, PIPELINED};
use super::{Settings, Shape, Workspace, note, pause};
use ours::Ours;
use peer::{Peer, Round};
use raw::Raw;
use rows::PerUpdate;

/// How long the disk rests between two rounds.
const REST: Duration = Duration::from_millis(500);

/// A system in the comparison.
struct Contestant {
    name: String,
    promise: &'static str,
    /// How many times its rate the brain's is to be.
    target: Option<f64>,
    running: Result<Box<dyn Peer>, String>,
    rounds: Vec<Round>,
}

/// What a system came to.
#[derive(Debug, Serialize)]
struct Outcome {
    name: String,
    promise: &'static str,
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
        Contestant::new("brain", "fsync before the acknowledgement", None, Ok(ours)),
        Contestant::new("RocksDB", "sync=true, rows for each update", raw_target(shape), Ok(each)),
        Contestant::new("RocksDB as written", "sync=true, the brain's rows", None, Ok(as_written)),
    ];
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
        promise: &'static str,
        target: Option<f64>,
        running: anyhow::Result<P>,
    ) -> Self {
        let running = match running {
            Ok(peer) => Ok(Box::new(peer) as Box<dyn Peer>),
            Err(error) => Err(format!("{error:#}")),
        };
        Self { name: name.to_owned(), promise, target, running, rounds: Vec::new() }
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
    let mut row = vec![outcome.name.clone(), outcome.promise.to_owned()];
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
