//! `load ack`: devices write, the brain acknowledges what is on its disk.

use std::time::Duration;

use serde::Serialize;

use super::fleet::{Fleet, Sample};
use super::measure::{Latency, Spread};
use super::order::{Counts, Order, Until, Writing};
use super::report::{self, Section, bytes, figure, spread};
use super::{Settings, Shape, Workspace, note, pause};

/// What one round measured. Costs are for each acknowledged update.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Round {
    pub(super) updates_per_second: f64,
    pub(super) latency: Latency,
    pub(super) brain_cpu_us: f64,
    pub(super) client_cpu_us: f64,
    pub(super) wire_up_bytes: f64,
    pub(super) wire_down_bytes: f64,
    pub(super) frame_up_bytes: f64,
    pub(super) frame_down_bytes: f64,
    pub(super) frames_up: f64,
    pub(super) disk_bytes: f64,
    pub(super) store_bytes: f64,
    pub(super) fsyncs: f64,
    pub(super) updates_per_fsync: f64,
}

impl Round {
    /// What happened between two samples.
    pub(super) fn between(before: &Sample, after: &Sample) -> anyhow::Result<Self> {
        let total = |field: fn(&Counts) -> u64| after.counts.iter().map(field).sum::<u64>() as f64;
        let updates = total(|counts| counts.stored);
        anyhow::ensure!(updates > 0.0, "no update was acknowledged: {}", errors(after));
        let rates =
            before.counts.iter().zip(&after.counts).map(|(before, after)| {
                after.stored as f64 * 1e6 / (after.at_us - before.at_us) as f64
            });
        let (brain, clients) = (after.brain - before.brain, after.clients - before.clients);
        let store = after.store - before.store;
        let latencies = after.counts.iter().flat_map(|counts| counts.latency_us.iter().copied());
        Ok(Self {
            updates_per_second: rates.sum(),
            latency: Latency::of(latencies),
            brain_cpu_us: brain.cpu.as_secs_f64() * 1e6 / updates,
            client_cpu_us: clients.cpu.as_secs_f64() * 1e6 / updates,
            wire_up_bytes: total(|counts| counts.wire_sent) / updates,
            wire_down_bytes: total(|counts| counts.wire_received) / updates,
            frame_up_bytes: total(|counts| counts.frame_bytes_sent) / updates,
            frame_down_bytes: total(|counts| counts.frame_bytes_received) / updates,
            frames_up: total(|counts| counts.frames_sent) / updates,
            disk_bytes: brain.written_bytes as f64 / updates,
            store_bytes: store.bytes as f64 / updates,
            fsyncs: store.syncs as f64 / updates,
            updates_per_fsync: store.entries as f64 / (store.syncs as f64).max(1.0),
        })
    }
}

/// The rounds of one shape.
#[derive(Debug, Serialize)]
struct Result_ {
    shape: Shape,
    tls: bool,
    rounds: Vec<Round>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let mut results = Vec::new();
    for tls in settings.transports() {
        for shape in settings.shapes() {
            note(format!("ack: {shape}, {}", transport(tls)));
            let mut fleet = Fleet::start(&settings.fleet(workspace, shape.devices, tls))?;
            fleet.connect()?;
            let rounds = rounds(&mut fleet, settings, shape)?;
            results.push(Result_ { shape, tls, rounds });
        }
    }
    let columns = [
        "devices × in flight",
        "link",
        "updates/s",
        "p50 ms",
        "p99 ms",
        "p99.9 ms",
        "brain CPU µs",
        "client CPU µs",
        "wire up B",
        "wire down B",
        "disk B",
        "fsyncs",
    ];
    let rows = results.iter().map(row).collect();
    let rate = match settings.rate {
        0.0 => "as fast as acknowledged".to_owned(),
        rate => format!("{} updates/s in all", figure(rate)),
    };
    let about = format!(
        "One-leaf updates, {rate}; {} rounds of {} s, medians; costs are for each update.",
        settings.rounds, settings.seconds
    );
    Section::new("ack", about, &columns, rows, &results)
}

/// Lets connected devices write, and measures.
fn rounds(fleet: &mut Fleet, settings: &Settings, shape: Shape) -> anyhow::Result<Vec<Round>> {
    begin(fleet, settings, shape)?;
    let mut rounds = Vec::new();
    for _ in 0..settings.rounds {
        rounds.push(round(fleet, settings.round_time())?);
    }
    end(fleet)?;
    Ok(rounds)
}

/// Lets the devices write, and waits until that is in full swing.
pub(super) fn begin(fleet: &mut Fleet, settings: &Settings, shape: Shape) -> anyhow::Result<()> {
    let Shape { devices, in_flight } = shape;
    let rate = settings.rate / devices as f64;
    fleet.tell(&Order::Write(Writing { in_flight, rate, updates: None }))?;
    pause(settings.round_time().min(Duration::from_secs(1)));
    Ok(())
}

/// Measures for a while.
pub(super) fn round(fleet: &mut Fleet, time: Duration) -> anyhow::Result<Round> {
    let before = fleet.sample()?;
    pause(time);
    let after = fleet.sample()?;
    let lost: u64 = after.counts.iter().map(|counts| counts.lost).sum();
    anyhow::ensure!(lost == 0, "{lost} connections were lost: {}", errors(&after));
    Round::between(&before, &after)
}

/// Ends the writing, and waits until all of it is acknowledged.
pub(super) fn end(fleet: &mut Fleet) -> anyhow::Result<()> {
    fleet.tell(&Order::Rest)?;
    fleet.wait(Until::Stored).map(drop)
}

/// What links run over, for tables.
pub(super) fn transport(tls: bool) -> &'static str {
    if tls { "TLS" } else { "plain" }
}

fn errors(sample: &Sample) -> String {
    let errors = sample.counts.iter().filter_map(|counts| counts.last_error.clone());
    let errors: Vec<_> = errors.collect();
    if errors.is_empty() { "no error is known".to_owned() } else { errors.join("; ") }
}

fn row(result: &Result_) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(result.rounds.iter().map(field));
    let latency = Latency {
        p50_us: of(|round| round.latency.p50_us as f64).median as u64,
        p99_us: of(|round| round.latency.p99_us as f64).median as u64,
        p999_us: of(|round| round.latency.p999_us as f64).median as u64,
        ..Latency::default()
    };
    let mut row = vec![result.shape.to_string(), transport(result.tls).to_owned()];
    row.push(spread(&of(|round| round.updates_per_second)));
    row.extend(report::latency(&latency));
    row.extend([
        figure(of(|round| round.brain_cpu_us).median),
        figure(of(|round| round.client_cpu_us).median),
        figure(of(|round| round.wire_up_bytes).median),
        figure(of(|round| round.wire_down_bytes).median),
        bytes(of(|round| round.disk_bytes).median),
        figure(of(|round| round.fsyncs).median),
    ]);
    row
}
