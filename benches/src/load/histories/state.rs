//! One device with a long history: states of it at random versions and times.

use std::time::{Duration, Instant};

use actors::ports::TreeNumber;
use anyhow::{Context, ensure};
use brain::store::{Store, WhichVersion};
use protocol::DeviceId;
use protocol::state::Version;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::diary::Diary;
use super::home::Home;
use super::progress::Progress;
use super::rows::Rows;
use super::scribe::Scribe;
use super::{met, now_ms};
use crate::load::api::Api;
use crate::load::measure::Spread;
use crate::load::report::{Section, bytes, figure, spread};
use crate::load::{Settings, Workspace, note};

/// How many updates come together: one by one, and as they come from a device that was away.
const TOGETHER: [u64; 2] = [1, 16];
/// How far commits lie apart.
const COMMIT_EVERY_MS: u64 = 1_000;
/// So many commits wait for the disk at once.
const UNDER_WAY_MAX: usize = 2_048;
/// The only tree.
const TREE: TreeNumber = 1;
/// A round is made of so many turns of each, so that a neighbour's load meets all alike.
const TURNS: usize = 10;
/// What of the rate of RocksDB alone the brain is to reach.
const RATIO_TARGET: f64 = 0.5;

/// A way of naming a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Named {
    Version,
    Time,
}

#[derive(Debug, Serialize)]
struct Round {
    states_per_second: f64,
    raw_per_second: f64,
    ratio: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    together: u64,
    entries: u64,
    named: Named,
    rounds: Vec<Round>,
    rows_per_state: f64,
    row_bytes_per_state: f64,
    /// Of the states that were asked for, those that the store still had in memory.
    cached_share: f64,
    http_per_second: f64,
}

/// Runs the part.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let mut outcomes = Vec::new();
    for together in TOGETHER {
        outcomes.extend(measure(settings, workspace, together)?);
    }
    let columns = [
        "updates together",
        "state at a random",
        "states/s",
        "RocksDB alone/s",
        "ratio",
        "rows",
        "row bytes",
        "from memory",
        "over HTTP/s",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "One device with {} entries, 8 leaves; one reader in the store's process, beside RocksDB \
         alone: a seek for the snapshot and one for the history, and all rows up to the version, \
         undecoded; {} rounds of {TURNS} turns each, interleaved, medians.",
        settings.entries, settings.rounds
    );
    let worst = outcomes.iter().map(|outcome| ratio(outcome).median).fold(f64::MAX, f64::min);
    let verdict = format!(
        "Target: at least {RATIO_TARGET} of the rate of RocksDB alone, {} with {}.",
        met(worst >= RATIO_TARGET),
        figure(worst),
    );
    Ok(Section::new("histories: state", about, &columns, rows, &outcomes)?.with_notes([verdict]))
}

fn measure(
    settings: &Settings,
    workspace: &Workspace,
    together: u64,
) -> anyhow::Result<[Outcome; 2]> {
    let home = Home::make(settings, workspace)?;
    let history = History::write(&home, settings, together)?;
    let mut reader = Reader {
        store: home.store()?,
        rows: Rows::open(&home.database())?,
        random: SmallRng::seed_from_u64(settings.seed),
        history,
    };
    let mut outcomes = [Named::Version, Named::Time].map(|named| Outcome {
        together,
        entries: settings.entries,
        named,
        rounds: Vec::new(),
        rows_per_state: 0.0,
        row_bytes_per_state: 0.0,
        cached_share: 0.0,
        http_per_second: 0.0,
    });
    // The kinds share a round's time, and within it the brain and RocksDB do.
    let time = settings.round_time() / (2 * TURNS) as u32;
    let mut states = 0;
    for outcome in &outcomes {
        states = reader.warm_up(outcome.named, time * 2)?;
    }
    for number in 0..settings.rounds {
        note(format!("histories: {together} together, round {}", number + 1));
        for outcome in &mut outcomes {
            reader.round(outcome, states)?;
        }
    }
    let Reader { store, rows, history, mut random } = reader;
    drop(rows);
    home.close(store)?;
    let mut brain = home.brain()?;
    brain.restart()?;
    let api = Api::of(&brain)?;
    for outcome in &mut outcomes {
        let began = Instant::now();
        let mut calls = 0;
        while calls == 0 || began.elapsed() < settings.round_time() / 2 {
            api.get(&history.path(outcome.named, &mut random)?)?;
            calls += 1;
        }
        outcome.http_per_second = f64::from(calls) / began.elapsed().as_secs_f64();
    }
    brain.stop()?;
    home.remove()?;
    Ok(outcomes)
}

/// What is known of the history without reading it.
#[derive(Debug, Clone, Copy)]
struct History {
    device: DeviceId,
    entries: u64,
    together: u64,
    from_ms: u64,
}

impl History {
    fn write(home: &Home, settings: &Settings, together: u64) -> anyhow::Result<Self> {
        let (store, entries) = (home.store()?, settings.entries);
        let span_ms = entries.div_ceil(together) * COMMIT_EVERY_MS;
        let from_ms = now_ms() - span_ms;
        let mut diary = Diary::new(&home.identity, TREE, settings.seed)?;
        let record =
            brain::store::RegistryChange::Device(Box::new(diary.record(&home.identity, from_ms)));
        store.change_registry(vec![record])?;
        let progress = Progress::of(format!("histories: entries, {together} together"), entries);
        let mut scribe = Scribe::new(&store, UNDER_WAY_MAX);
        let (mut written, mut at_ms) = (0, from_ms);
        while written < entries {
            let updates = together.min(entries - written);
            scribe.commit(diary.write(updates, at_ms)?)?;
            written += updates;
            at_ms += COMMIT_EVERY_MS;
            progress.add(updates);
        }
        scribe.finish()?;
        home.close(store)?;
        Ok(Self { device: diary.device, entries, together, from_ms })
    }

    /// A random version, and how a reader names it.
    fn pick(&self, named: Named, random: &mut SmallRng) -> (WhichVersion, Version) {
        match named {
            Named::Version => {
                let version = random.random_range(1..=self.entries);
                (WhichVersion::At(version), version)
            }
            Named::Time => {
                let commits = self.entries.div_ceil(self.together);
                let after_ms = random.random_range(0..commits * COMMIT_EVERY_MS);
                let version = (after_ms / COMMIT_EVERY_MS + 1) * self.together;
                (WhichVersion::CommittedBy(self.from_ms + after_ms), version.min(self.entries))
            }
        }
    }

    fn path(&self, named: Named, random: &mut SmallRng) -> anyhow::Result<String> {
        let which = match self.pick(named, random).0 {
            WhichVersion::CommittedBy(ms) => {
                format!("at={}", jiff::Timestamp::from_millisecond(i64::try_from(ms)?)?)
            }
            WhichVersion::At(version) => format!("version={version}"),
            other => anyhow::bail!("{other:?} is not asked for"),
        };
        Ok(format!("/devices/{}/state?{which}", self.device))
    }
}

struct Reader {
    store: Store,
    rows: Rows,
    random: SmallRng,
    history: History,
}

impl Reader {
    /// Reads for a while, and says how many states the brain reads in half of it.
    fn warm_up(&mut self, named: Named, time: Duration) -> anyhow::Result<usize> {
        let (began, mut states) = (Instant::now(), 0usize);
        while states == 0 || began.elapsed() < time {
            let picked = self.history.pick(named, &mut self.random);
            self.read(picked)?;
            self.rows.of_state(TREE, picked.1)?;
            states += 1;
        }
        Ok(states.div_ceil(2))
    }

    fn round(&mut self, outcome: &mut Outcome, states: usize) -> anyhow::Result<()> {
        let (mut brain, mut raw) = (Duration::ZERO, Duration::ZERO);
        let (mut rows, mut bytes) = (0, 0);
        let before = self.store.cache_counts();
        for turn in 0..TURNS {
            let pick = |_| self.history.pick(outcome.named, &mut self.random);
            let picked: Vec<_> = (0..states).map(pick).collect();
            // Who comes second finds the files' pages in memory.
            for is_brain in [turn % 2 == 0, turn % 2 == 1] {
                let began = Instant::now();
                if is_brain {
                    picked.iter().try_for_each(|picked| self.read(*picked))?;
                    brain += began.elapsed();
                    continue;
                }
                for (_, version) in &picked {
                    let touched = self.rows.of_state(TREE, *version)?;
                    rows += touched.rows;
                    bytes += touched.bytes;
                }
                raw += began.elapsed();
            }
        }
        let after = self.store.cache_counts();
        let all = (TURNS * states) as f64;
        let cached = (after.hits - before.hits) as f64 / all;
        let rounds = outcome.rounds.len() as f64;
        let mean = |old: f64, new: f64| (old * rounds + new) / (rounds + 1.0);
        outcome.cached_share = mean(outcome.cached_share, cached);
        outcome.rows_per_state = mean(outcome.rows_per_state, rows as f64 / all);
        outcome.row_bytes_per_state = mean(outcome.row_bytes_per_state, bytes as f64 / all);
        outcome.rounds.push(Round {
            states_per_second: all / brain.as_secs_f64(),
            raw_per_second: all / raw.as_secs_f64(),
            ratio: raw.as_secs_f64() / brain.as_secs_f64(),
        });
        Ok(())
    }

    fn read(&self, (which, version): (WhichVersion, Version)) -> anyhow::Result<()> {
        let state = self.store.state(TREE, which)?.context("the history has every version")?;
        let found = state.version;
        ensure!(found == version, "{which:?} is version {version}, not {found}");
        Ok(())
    }
}

fn ratio(outcome: &Outcome) -> Spread {
    Spread::of(outcome.rounds.iter().map(|round| round.ratio))
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    let named = match outcome.named {
        Named::Version => "version",
        Named::Time => "time",
    };
    vec![
        outcome.together.to_string(),
        named.to_owned(),
        spread(&of(|round| round.states_per_second)),
        spread(&of(|round| round.raw_per_second)),
        spread(&ratio(outcome)),
        figure(outcome.rows_per_state),
        bytes(outcome.row_bytes_per_state),
        format!("{} %", figure(outcome.cached_share * 100.0)),
        figure(outcome.http_per_second),
    ]
}
