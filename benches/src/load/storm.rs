//! `load storm`: all devices lose their connections, and all come back at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::ack::transport;
use super::crowd::Crowd;
use super::fleet::Fleet;
use super::measure::{Latency, Spread, memory};
use super::order::{Order, Until, Writing, clock_us};
use super::report::{Section, bytes, figure, spread};
use super::{Settings, Workspace, note, pause};

const DEVICES: usize = 2_000;
/// How many updates each device writes at first, so that it has a state to come back to.
const UPDATES: u64 = 20;
/// Devices that keep their connections, and write all the time.
const STAYERS: usize = 100;
/// Their updates in a second, each.
const STAYERS_RATE: f64 = 5.0;
/// How often the brain's memory is looked at meanwhile.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the brain has to notice that all connections are gone.
const NOTICE: Duration = Duration::from_secs(1);

#[derive(Debug, Serialize)]
struct Round {
    /// From the word to the last handshake's end.
    connected_seconds: f64,
    /// From the word until what each device wrote meanwhile is acknowledged.
    in_sync_seconds: f64,
    connects_per_second: f64,
    connect: Latency,
    /// With the update that each device brings.
    brain_cpu_us_per_device: f64,
    /// Attempts that failed and were made again.
    failed_attempts: u64,
    rss_bytes: u64,
    /// The most that was resident during the storm.
    rss_peak_bytes: u64,
    /// Of updates of devices that stayed, before and during the storm.
    stayers_before: Latency,
    stayers: Latency,
}

#[derive(Debug, Serialize)]
struct Outcome {
    devices: usize,
    tls: bool,
    rounds: Vec<Round>,
    /// From SIGTERM, with all connected, to the end of the process.
    stop_seconds: f64,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(DEVICES);
    let mut outcomes = Vec::new();
    for tls in settings.transports() {
        note(format!("storm: {devices} devices, {}", transport(tls)));
        let mut plan = settings.fleet(workspace, devices, tls);
        let mut fleet = Fleet::start(&plan)?;
        plan.devices = STAYERS.min(devices);
        let mut stayers = fleet.others(&plan)?;
        stayers.connect()?;
        stayers.tell(&Order::Write(Writing { in_flight: 4, rate: STAYERS_RATE, updates: None }))?;
        fleet.connect()?;
        fleet.write(UPDATES)?;
        fleet.wait(Until::Stored)?;
        let rounds = (0..settings.rounds).map(|_| round(&mut fleet, &mut stayers));
        let rounds = rounds.collect::<anyhow::Result<_>>()?;
        let stopping = Instant::now();
        let ended = fleet.brain.stop()?;
        anyhow::ensure!(ended.success(), "the brain ended with {ended}");
        let stop_seconds = stopping.elapsed().as_secs_f64();
        outcomes.push(Outcome { devices, tls, rounds, stop_seconds });
    }
    let columns = [
        "devices",
        "link",
        "all connected s",
        "all in sync s",
        "connects/s",
        "p50 ms",
        "p99 ms",
        "brain CPU µs/device",
        "failed attempts",
        "brain RSS",
        "peak RSS",
        "stayers' p99 ms before",
        "during",
        "stop s",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "All devices drop, each writes an update, and all connect at once, while {STAYERS} others \
         stay and write {STAYERS_RATE} updates a second each; {} rounds, medians. At the end the \
         brain is asked to stop.",
        settings.rounds
    );
    Section::new("storm", about, &columns, rows, &outcomes)
}

fn round(fleet: &mut Fleet, stayers: &mut Crowd) -> anyhow::Result<Round> {
    fleet.disconnect()?;
    pause(NOTICE);
    fleet.write(1)?;
    stayers.counts()?;
    pause(NOTICE);
    let stayers_before = latency(stayers)?;
    let watch = Peak::watch(fleet.brain_pid()?);
    let before = fleet.sample()?;
    let began = clock_us();
    fleet.tell(&Order::Connect { at_once: fleet.devices })?;
    let connected = fleet.wait(Until::Connected)?;
    let in_sync = fleet.wait(Until::Stored)?.max(connected);
    let stayers = latency(stayers)?;
    let rss_peak_bytes = watch.end();
    let after = fleet.sample()?;
    let devices = fleet.devices as f64;
    let seconds = |until: u64| until.saturating_sub(began) as f64 / 1e6;
    let times = after.counts.iter().flat_map(|counts| counts.connect_us.iter().copied());
    Ok(Round {
        connected_seconds: seconds(connected),
        in_sync_seconds: seconds(in_sync),
        connects_per_second: devices / seconds(connected),
        connect: Latency::of(times),
        brain_cpu_us_per_device: (after.brain - before.brain).cpu.as_secs_f64() * 1e6 / devices,
        failed_attempts: after.counts.iter().map(|counts| counts.lost).sum(),
        rss_bytes: memory(fleet.brain_pid()?)?.resident,
        rss_peak_bytes,
        stayers_before,
        stayers,
    })
}

/// Of what was acknowledged since the last time.
fn latency(crowd: &mut Crowd) -> anyhow::Result<Latency> {
    let counts = crowd.counts()?;
    let lost: u64 = counts.iter().map(|counts| counts.lost).sum();
    anyhow::ensure!(lost == 0, "{lost} devices that were to stay lost their connections");
    Ok(Latency::of(counts.iter().flat_map(|counts| counts.latency_us.iter().copied())))
}

/// Looks at a process's memory again and again.
struct Peak {
    over: Arc<AtomicBool>,
    looking: JoinHandle<u64>,
}

impl Peak {
    fn watch(pid: u32) -> Self {
        let over = Arc::new(AtomicBool::new(false));
        let looking = thread::spawn({
            let over = over.clone();
            move || {
                let mut peak = 0;
                while !over.load(Ordering::Relaxed) {
                    peak = peak.max(memory(pid).map_or(0, |memory| memory.resident));
                    pause(LOOK_EVERY);
                }
                peak
            }
        });
        Self { over, looking }
    }

    /// The most that it was.
    fn end(self) -> u64 {
        self.over.store(true, Ordering::Relaxed);
        self.looking.join().unwrap_or_default()
    }
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    vec![
        outcome.devices.to_string(),
        transport(outcome.tls).to_owned(),
        spread(&of(|round| round.connected_seconds)),
        spread(&of(|round| round.in_sync_seconds)),
        figure(of(|round| round.connects_per_second).median),
        figure(of(|round| round.connect.p50_us as f64).median / 1e3),
        figure(of(|round| round.connect.p99_us as f64).median / 1e3),
        figure(of(|round| round.brain_cpu_us_per_device).median),
        figure(of(|round| round.failed_attempts as f64).median),
        bytes(of(|round| round.rss_bytes as f64).median),
        bytes(of(|round| round.rss_peak_bytes as f64).median),
        figure(of(|round| round.stayers_before.p99_us as f64).median / 1e3),
        figure(of(|round| round.stayers.p99_us as f64).median / 1e3),
        figure(outcome.stop_seconds),
    ]
}
