//! A brain that starts over the data of many devices, beside RocksDB that opens the same files.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::fill::{Filling, fill};
use super::home::Home;
use super::{met, now_ms};
use crate::load::database::{self, forget_pages};
use crate::load::fleet::process;
use crate::load::measure::{Memory, Spread, memory};
use crate::load::report::{Section, bytes, figure, spread};
use crate::load::{Settings, Workspace, note, pause};

/// How many entries a short history has.
const SHORT: u64 = 4;
/// How many times fewer devices have histories so many times longer.
const LONGER: u64 = 100;
const EVERY_MS: u64 = 10_000;
/// When a brain's memory is looked at, after it is ready.
const MEMORY_AFTER: Duration = Duration::from_secs(2);
/// How many times the time of RocksDB alone a start may take.
const RATIO_TARGET: f64 = 1.2;

/// How long RocksDB takes to open, and the brain to be ready over the same files.
#[derive(Debug, Clone, Copy, Serialize)]
struct Times {
    open_ms: f64,
    ready_ms: f64,
}

#[derive(Debug, Serialize)]
struct Round {
    /// With the files' pages in memory.
    warm: Times,
    /// With the files' pages only on disk.
    cold: Times,
    memory: Memory,
}

#[derive(Debug, Serialize)]
struct Outcome {
    trees: u64,
    entries_each: u64,
    data_bytes: u64,
    rounds: Vec<Round>,
}

/// Runs the part.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let trees = settings.trees;
    let kinds = [(trees, SHORT), (trees / LONGER, SHORT * LONGER), (0, 0)];
    let outcomes = kinds.map(|(trees, entries)| measure(settings, workspace, trees, entries));
    let outcomes = outcomes.into_iter().collect::<anyhow::Result<Vec<_>>>()?;
    let columns = [
        "devices × entries",
        "data",
        "RocksDB opens ms",
        "brain ready ms",
        "ratio",
        "cold: opens ms",
        "cold: ready ms",
        "cold: ratio",
        "RSS",
        "anonymous",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "A brain process starts, and answers that it is ready, over a database that is at rest; \
         RocksDB opens the same files in the bench's process, with the same options. With the \
         files in the page cache, and (cold) without. {} rounds, interleaved, medians; memory \
         {} s after the start.",
        settings.rounds,
        MEMORY_AFTER.as_secs(),
    );
    let ratio = outcomes.first().map(|outcome| ratio(outcome, |round| round.warm).median);
    let ratio = ratio.unwrap_or_default();
    let verdict = format!(
        "Target: ready within {RATIO_TARGET} times what RocksDB takes to open, {} with {}.",
        met(ratio <= RATIO_TARGET),
        figure(ratio),
    );
    Ok(Section::new("histories: start", about, &columns, rows, &outcomes)?.with_notes([verdict]))
}

fn measure(
    settings: &Settings,
    workspace: &Workspace,
    trees: u64,
    entries_each: u64,
) -> anyhow::Result<Outcome> {
    let home = Home::make(settings, workspace)?;
    let from_ms = now_ms() - entries_each * EVERY_MS;
    let filling = Filling { trees, entries_each, from_ms, every_ms: EVERY_MS };
    fill(&home, filling, settings.seed)?;
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        note(format!("histories: starts over {trees} devices, round {}", number + 1));
        let (cold, _) = round(&home, number, true)?;
        let (warm, memory) = round(&home, number, false)?;
        rounds.push(Round { warm, cold, memory });
    }
    let outcome = Outcome { trees, entries_each, data_bytes: home.data_bytes()?, rounds };
    home.remove()?;
    Ok(outcome)
}

/// Opens and starts once each, in turns that begin with another each round.
fn round(home: &Home, number: u32, is_cold: bool) -> anyhow::Result<(Times, Memory)> {
    let (mut times, mut memory) = (Times { open_ms: 0.0, ready_ms: 0.0 }, Memory::default());
    for turn in 0..2 {
        if is_cold {
            forget_pages(&home.database())?;
        }
        if (number + turn).is_multiple_of(2) {
            let began = Instant::now();
            let db = database::open(&home.database())?;
            times.open_ms = began.elapsed().as_secs_f64() * 1e3;
            drop(db);
        } else {
            (times.ready_ms, memory) = start(home, is_cold)?;
        }
    }
    Ok((times, memory))
}

/// Starts the brain; how long until it is ready, and what it takes a while later.
fn start(home: &Home, is_cold: bool) -> anyhow::Result<(f64, Memory)> {
    let mut brain = home.brain()?;
    let began = Instant::now();
    brain.restart()?;
    brain.wait_ready()?;
    let ready_ms = began.elapsed().as_secs_f64() * 1e3;
    let mut taken = Memory::default();
    if !is_cold {
        pause(MEMORY_AFTER);
        taken = memory(process(&brain)?)?;
    }
    brain.stop()?;
    Ok((ready_ms, taken))
}

fn ratio(outcome: &Outcome, of: fn(&Round) -> Times) -> Spread {
    let ratios = outcome.rounds.iter().map(|round| of(round).ready_ms / of(round).open_ms);
    Spread::of(ratios)
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    vec![
        format!("{} × {}", outcome.trees, outcome.entries_each),
        bytes(outcome.data_bytes as f64),
        spread(&of(|round| round.warm.open_ms)),
        spread(&of(|round| round.warm.ready_ms)),
        spread(&ratio(outcome, |round| round.warm)),
        spread(&of(|round| round.cold.open_ms)),
        spread(&of(|round| round.cold.ready_ms)),
        spread(&ratio(outcome, |round| round.cold)),
        bytes(of(|round| round.memory.resident as f64).median),
        bytes(of(|round| round.memory.anonymous as f64).median),
    ]
}
