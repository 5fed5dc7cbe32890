//! The states of a whole fleet at a time, over the API.

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::fill::{Filling, fill};
use super::home::Home;
use super::{met, now_ms};
use crate::load::api::{Api, Lined};
use crate::load::measure::Spread;
use crate::load::report::{Section, bytes, figure, spread};
use crate::load::{Settings, Workspace, note};

const DEVICES: usize = 10_000;
/// How many entries each has.
const ENTRIES: u64 = 50;
/// How far they lie apart.
const EVERY_MS: u64 = 60_000;
/// When the first line is to be there, in milliseconds.
const FIRST_MS_TARGET: f64 = 200.0;

#[derive(Debug, Serialize)]
struct Round {
    first_line_ms: f64,
    devices_per_second: f64,
    line_bytes: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    states: &'static str,
    devices: u64,
    rounds: Vec<Round>,
}

/// Runs the part.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(DEVICES) as u64;
    let outcomes = measure(settings, workspace, devices)?;
    let columns = ["states", "devices", "first line ms", "devices/s", "a line"];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "{devices} devices of {ENTRIES} entries each; all their states as a stream of lines, at \
         another random time of their histories each round, and the latest; {} rounds, medians.",
        settings.rounds
    );
    let [at, _] = &outcomes;
    let first = Spread::of(at.rounds.iter().map(|round| round.first_line_ms)).median;
    let verdict = format!(
        "Target: the first line of a time within {FIRST_MS_TARGET} ms, {} with {}.",
        met(first <= FIRST_MS_TARGET),
        figure(first),
    );
    Ok(Section::new("histories: fleet", about, &columns, rows, &outcomes)?.with_notes([verdict]))
}

fn measure(
    settings: &Settings,
    workspace: &Workspace,
    devices: u64,
) -> anyhow::Result<[Outcome; 2]> {
    let home = Home::make(settings, workspace)?;
    let from_ms = now_ms() - ENTRIES * EVERY_MS;
    let filling = Filling { trees: devices, entries_each: ENTRIES, from_ms, every_ms: EVERY_MS };
    fill(&home, filling, settings.seed)?;
    let mut brain = home.brain()?;
    brain.restart()?;
    let api = Api::of(&brain)?;
    let mut random = SmallRng::seed_from_u64(settings.seed);
    let outcome = |states| Outcome { states, devices, rounds: Vec::new() };
    let mut outcomes = [outcome("at a time"), outcome("the latest")];
    // The first of each finds nothing in memory, and is not counted.
    for number in 0..=settings.rounds {
        note(format!("histories: the fleet's states, round {number}"));
        let at_ms = i64::try_from(random.random_range(from_ms..filling.until_ms()))?;
        let at = format!("/fleet/state?at={}", jiff::Timestamp::from_millisecond(at_ms)?);
        for (outcome, path) in outcomes.iter_mut().zip([at.as_str(), "/fleet/state"]) {
            let lined = api.lines(path)?;
            let lines = lined.lines;
            anyhow::ensure!(lines == devices, "{path} has {lines} lines, not {devices}");
            if number > 0 {
                outcome.rounds.push(Round::of(&lined));
            }
        }
    }
    brain.stop()?;
    home.remove()?;
    Ok(outcomes)
}

impl Round {
    fn of(lined: &Lined) -> Self {
        Self {
            first_line_ms: lined.first_us as f64 / 1e3,
            devices_per_second: lined.lines as f64 * 1e6 / lined.all_us.max(1) as f64,
            line_bytes: lined.bytes as f64 / lined.lines.max(1) as f64,
        }
    }
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    vec![
        outcome.states.to_owned(),
        outcome.devices.to_string(),
        spread(&of(|round| round.first_line_ms)),
        spread(&of(|round| round.devices_per_second)),
        bytes(of(|round| round.line_bytes).median),
    ]
}
