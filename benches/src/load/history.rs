//! `load history`: devices write long histories, and somebody reads them over the API.

use std::time::Duration;

use jiff::Timestamp;
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use serde::Serialize;

use super::api::Api;
use super::fleet::Fleet;
use super::measure::{Latency, usage};
use super::order::{Order, Until, Writing, clock_us};
use super::report::{self, Section, bytes, figure};
use super::{Settings, Workspace, note, pause};

const DEVICES: usize = 8;
/// How many updates each device writes, where nobody says otherwise.
const UPDATES: u64 = 20_000;
/// How many of them are on their way at once.
const IN_FLIGHT: usize = 256;
/// How many reads of a kind are timed at most.
const READS_MAX: usize = 500;

/// A way of reading a device's past.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
enum Read {
    /// The latest state.
    Latest,
    /// The state after a random commit.
    AtVersion,
    /// What the brain had committed at a random time.
    At,
    /// What had happened by a random time.
    HappenedAt,
    /// The newest hundred changes.
    NewestPage,
    /// The hundred changes before a random version.
    Page,
}

const READS: [Read; 6] =
    [Read::Latest, Read::AtVersion, Read::At, Read::HappenedAt, Read::NewestPage, Read::Page];

#[derive(Debug, Serialize)]
struct Outcome {
    read: Read,
    latency: Latency,
    brain_cpu_us: f64,
    answer_bytes: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    devices: usize,
    updates_per_device: u64,
    written_per_second: f64,
    data_bytes_per_update: f64,
    reads: Vec<Outcome>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(DEVICES);
    let updates = settings.updates.unwrap_or(UPDATES);
    note(format!("history: {devices} devices write {updates} updates each"));
    let tls = settings.transports().first().copied().unwrap_or(false);
    let mut fleet = Fleet::start(&settings.fleet(workspace, devices, tls))?;
    fleet.connect()?;
    let from = Timestamp::now();
    let began = clock_us();
    let writing = Writing { in_flight: IN_FLIGHT, rate: 0.0, updates: Some(updates) };
    fleet.tell(&Order::Write(writing))?;
    let written = fleet.wait(Until::Stored)?;
    let until = Timestamp::now();
    let total = (devices as u64 * updates) as f64;
    let mut reader = Reader {
        api: Api::of(&fleet.brain)?,
        pid: fleet.brain_pid()?,
        random: SmallRng::seed_from_u64(settings.seed),
        ids: fleet.ids.clone(),
        updates,
        times: (from.as_millisecond(), until.as_millisecond()),
    };
    // The kinds share the time of a scenario's rounds.
    let time = settings.round_time() * settings.rounds / READS.len() as u32;
    let reads = READS.into_iter().map(|read| {
        note(format!("history: reading, {}", read.name()));
        reader.time(read, time)
    });
    let results = Results {
        devices,
        updates_per_device: updates,
        written_per_second: total * 1e6 / written.saturating_sub(began).max(1) as f64,
        data_bytes_per_update: fleet.data_bytes()? as f64 / total,
        reads: reads.collect::<anyhow::Result<_>>()?,
    };
    let columns = ["read", "p50 ms", "p99 ms", "p99.9 ms", "reads", "brain CPU µs/read", "answer"];
    let rows = results.reads.iter().map(row).collect();
    let about = format!(
        "{devices} devices wrote {updates} updates each, at {} updates/s with {IN_FLIGHT} in \
         flight; they take {} on disk for each update. One reader, one call after the other.",
        figure(results.written_per_second),
        bytes(results.data_bytes_per_update),
    );
    Section::new("history", about, &columns, rows, &results)
}

struct Reader {
    api: Api,
    pid: u32,
    random: SmallRng,
    ids: Vec<String>,
    updates: u64,
    /// Between which times the devices wrote, in milliseconds since the Unix epoch.
    times: (i64, i64),
}

impl Reader {
    fn time(&mut self, read: Read, time: Duration) -> anyhow::Result<Outcome> {
        let before = usage(self.pid)?;
        let began = std::time::Instant::now();
        let (mut times, mut answered) = (Vec::new(), 0);
        while times.len() < READS_MAX && (times.is_empty() || began.elapsed() < time) {
            let path = self.path(read)?;
            let called = self.api.get(&path)?;
            times.push((called.time_us, 1));
            answered += called.body.len();
        }
        // The kernel counts CPU time in hundredths of a second.
        pause(Duration::from_millis(20));
        let used = usage(self.pid)? - before;
        let reads = times.len() as f64;
        Ok(Outcome {
            read,
            latency: Latency::of(times),
            brain_cpu_us: used.cpu.as_secs_f64() * 1e6 / reads,
            answer_bytes: answered as f64 / reads,
        })
    }

    fn path(&mut self, read: Read) -> anyhow::Result<String> {
        let id = &self.ids[self.random.random_range(0..self.ids.len())];
        let version = self.random.random_range(1..=self.updates);
        let time =
            Timestamp::from_millisecond(self.random.random_range(self.times.0..=self.times.1))?;
        Ok(match read {
            Read::Latest => format!("/devices/{id}/state"),
            Read::AtVersion => format!("/devices/{id}/state?version={version}"),
            Read::At => format!("/devices/{id}/state?at={time}"),
            Read::HappenedAt => format!("/devices/{id}/state?happened_at={time}"),
            Read::NewestPage => format!("/devices/{id}/history?limit=100"),
            Read::Page => format!("/devices/{id}/history?limit=100&before={version}"),
        })
    }
}

impl Read {
    fn name(self) -> &'static str {
        match self {
            Self::Latest => "latest state",
            Self::AtVersion => "state ?version=",
            Self::At => "state ?at=",
            Self::HappenedAt => "state ?happened_at=",
            Self::NewestPage => "newest 100 changes",
            Self::Page => "100 changes ?before=",
        }
    }
}

fn row(outcome: &Outcome) -> Vec<String> {
    let mut row = vec![outcome.read.name().to_owned()];
    row.extend(report::latency(&outcome.latency));
    row.push(outcome.latency.count.to_string());
    row.push(figure(outcome.brain_cpu_us));
    row.push(bytes(outcome.answer_bytes));
    row
}
