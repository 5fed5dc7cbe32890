//! `load idle`: what it takes to connect a device, and to keep it connected.

use std::time::{Duration, Instant};

use serde::Serialize;

use super::ack::transport;
use super::fleet::{Fleet, TIME_MAX};
use super::measure::{Latency, Machine, Memory, Spread, memory};
use super::report::{Section, bytes, figure, spread};
use super::{Settings, Workspace, note, pause};

const DEVICES: usize = 5_000;
/// So many rounds' times pass until the allocator has given back what is free.
const SETTLED_AFTER: u32 = 2;
/// What a handshake has the brain sign: the transcript.
const SIGNED: f64 = 1.0;
/// What it has the brain verify: the device's certificate, its issuer's, and the transcript.
const VERIFIED: f64 = 3.0;
/// The memory of a connected device without TLS is to stay below this.
const MEMORY_BYTES_TARGET: f64 = 16.0 * 1024.0;
/// The same, once its actor is passive.
const PASSIVE_BYTES_TARGET: f64 = 8.0 * 1024.0;
/// How much more memory than before the devices the brain may keep after them.
const AFTER_TARGET: f64 = 1.2;
/// The CPU time of a connect with its handshake is to stay below this.
const CONNECT_US_TARGET: f64 = 250.0;

/// What one round measured, for each device.
#[derive(Debug, Serialize)]
struct Round {
    connects_per_second: f64,
    connect: Latency,
    connect_brain_cpu_us: f64,
    connect_client_cpu_us: f64,
    rss_bytes: f64,
    pss_bytes: f64,
    anonymous_bytes: f64,
    /// Resident, once all actors of the devices have left memory.
    passive_rss_bytes: f64,
    /// The brain's resident memory after all devices went away, over that before they came.
    rss_after_ratio: f64,
    /// Nodes of the tree that are left then beyond those before they came.
    nodes_left: i64,
    /// CPU time of the brain for a connected device in a second of silence.
    idle_brain_cpu_us_per_second: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    devices: usize,
    tls: bool,
    ed25519_us: f64,
    empty_brain: Memory,
    rounds: Vec<Round>,
}

/// Runs the scenario.
pub(super) fn run(
    settings: &Settings,
    workspace: &Workspace,
    machine: &Machine,
) -> anyhow::Result<Section> {
    let devices = settings.devices_or(DEVICES);
    let ed25519_us = SIGNED * machine.ed25519_sign_us + VERIFIED * machine.ed25519_verify_us;
    let mut outcomes = Vec::new();
    for tls in settings.transports() {
        note(format!("idle: {devices} devices, {}", transport(tls)));
        let mut plan = settings.fleet(workspace, devices, tls);
        // Time enough for all to connect before the first goes passive.
        let idle_ms = 2_000 + 6 * devices;
        plan.settings = format!(
            "[residency]\nidle_after_ms = {idle_ms}\nforget_after_ms = {}\n",
            idle_ms + 2_000
        );
        let mut fleet = Fleet::start(&plan)?;
        let mut outcome =
            Outcome { devices, tls, ed25519_us, empty_brain: Memory::default(), rounds: vec![] };
        for _ in 0..settings.rounds {
            // A fresh process: what enrolment left behind in memory would be used again.
            fleet.restart()?;
            outcome.empty_brain = memory(fleet.brain_pid()?)?;
            outcome.rounds.push(round(&mut fleet, settings, outcome.empty_brain)?);
        }
        outcomes.push(outcome);
    }
    let columns = [
        "devices",
        "link",
        "connects/s",
        "p50 ms",
        "p99 ms",
        "brain CPU µs/connect",
        "of it Ed25519 µs",
        "client CPU µs/connect",
        "RSS/device",
        "anonymous/device",
        "passive RSS/device",
        "RSS after, ratio",
        "nodes left",
        "empty brain RSS",
        "idle brain CPU µs/s",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "Devices connect, 64 at a time, and say no more than heartbeats; then their actors go \
         passive, and then they go away; {} rounds, each on a fresh brain process, medians.",
        settings.rounds
    );
    let section = Section::new("idle", about, &columns, rows, &outcomes)?;
    Ok(section.with_notes(outcomes.iter().filter_map(verdict)))
}

fn round(fleet: &mut Fleet, settings: &Settings, empty: Memory) -> anyhow::Result<Round> {
    let devices = fleet.devices as f64;
    let nodes_before = nodes(fleet)?;
    let before = fleet.sample()?;
    fleet.connect()?;
    let connected = fleet.sample()?;
    pause(settings.round_time());
    let after = fleet.sample()?;
    let full = memory(fleet.brain_pid()?)?;
    await_passive(fleet)?;
    pause(settings.round_time() * SETTLED_AFTER);
    let passive = memory(fleet.brain_pid()?)?;
    fleet.disconnect()?;
    await_forgotten(fleet)?;
    let nodes_left = nodes(fleet)? - nodes_before;
    pause(settings.round_time() * SETTLED_AFTER);
    let gone = memory(fleet.brain_pid()?)?;
    let (brain, clients) = (connected.brain - before.brain, connected.clients - before.clients);
    let idle = after.brain - connected.brain;
    let each = |full: u64, empty: u64| full.saturating_sub(empty) as f64 / devices;
    let times = connected.counts.iter().flat_map(|counts| counts.connect_us.iter().copied());
    Ok(Round {
        connects_per_second: devices / connected.since(&before).as_secs_f64(),
        connect: Latency::of(times),
        connect_brain_cpu_us: brain.cpu.as_secs_f64() * 1e6 / devices,
        connect_client_cpu_us: clients.cpu.as_secs_f64() * 1e6 / devices,
        rss_bytes: each(full.resident, empty.resident),
        pss_bytes: each(full.proportional, empty.proportional),
        anonymous_bytes: each(full.anonymous, empty.anonymous),
        passive_rss_bytes: each(passive.resident, empty.resident),
        rss_after_ratio: gone.resident as f64 / empty.resident as f64,
        nodes_left,
        idle_brain_cpu_us_per_second: idle.cpu.as_secs_f64() * 1e6
            / devices
            / after.since(&connected).as_secs_f64(),
    })
}

/// Waits until the actors of all devices have left memory.
fn await_passive(fleet: &Fleet) -> anyhow::Result<()> {
    let passive = "fleet_actor_count{kind=\"device\",status=\"passive\"}";
    until("passive", || {
        Ok(fleet.brain.metric(passive).unwrap_or_default() as usize == fleet.devices)
    })
}

/// Waits until no device has an actor.
fn await_forgotten(fleet: &Fleet) -> anyhow::Result<()> {
    until("gone", || Ok(fleet.brain.metric("fleet_twin_count")? == 0.0))
}

fn until(what: &str, reached: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let began = Instant::now();
    while !reached()? {
        anyhow::ensure!(began.elapsed() < TIME_MAX, "the actors are never all {what}");
        pause(Duration::from_millis(200));
    }
    Ok(())
}

/// How many nodes the tree has.
fn nodes(fleet: &Fleet) -> anyhow::Result<i64> {
    let text = fleet.brain.metrics()?;
    let counts = text.lines().filter(|line| line.starts_with("fleet_actor_count{"));
    let count = |line: &str| line.rsplit(' ').next().and_then(|count| count.parse::<i64>().ok());
    Ok(counts.filter_map(count).sum())
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    vec![
        outcome.devices.to_string(),
        transport(outcome.tls).to_owned(),
        spread(&of(|round| round.connects_per_second)),
        figure(of(|round| round.connect.p50_us as f64).median / 1e3),
        figure(of(|round| round.connect.p99_us as f64).median / 1e3),
        figure(of(|round| round.connect_brain_cpu_us).median),
        figure(outcome.ed25519_us),
        figure(of(|round| round.connect_client_cpu_us).median),
        bytes(of(|round| round.rss_bytes).median),
        bytes(of(|round| round.anonymous_bytes).median),
        bytes(of(|round| round.passive_rss_bytes).median),
        figure(of(|round| round.rss_after_ratio).median),
        figure(of(|round| round.nodes_left as f64).median),
        bytes(outcome.empty_brain.resident as f64),
        figure(of(|round| round.idle_brain_cpu_us_per_second).median),
    ]
}

/// The targets hold without TLS.
fn verdict(outcome: &Outcome) -> Option<String> {
    if outcome.tls {
        return None;
    }
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field)).median;
    let met = |value: f64, target: f64| if value <= target { "met" } else { "missed" };
    let (memory, cpu) = (of(|round| round.rss_bytes), of(|round| round.connect_brain_cpu_us));
    let passive = of(|round| round.passive_rss_bytes);
    let after = of(|round| round.rss_after_ratio);
    Some(format!(
        "Targets without TLS: at most {} RSS for a device, {} with {}, and {} once it is passive, \
         {} with {}; at most {} of the RSS before once all are gone, {} with {}; at most {} µs of \
         brain CPU for a connect, {} with {} µs.",
        bytes(MEMORY_BYTES_TARGET),
        met(memory, MEMORY_BYTES_TARGET),
        bytes(memory),
        bytes(PASSIVE_BYTES_TARGET),
        met(passive, PASSIVE_BYTES_TARGET),
        bytes(passive),
        figure(AFTER_TARGET),
        met(after, AFTER_TARGET),
        figure(after),
        figure(CONNECT_US_TARGET),
        met(cpu, CONNECT_US_TARGET),
        figure(cpu),
    ))
}
