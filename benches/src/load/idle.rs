//! `load idle`: what it takes to connect a device, and to keep it connected.

use serde::Serialize;

use super::ack::transport;
use super::fleet::Fleet;
use super::measure::{Latency, Machine, Memory, Spread, memory};
use super::report::{Section, bytes, figure, spread};
use super::{Settings, Workspace, note, pause};

const DEVICES: usize = 5_000;
/// What a handshake has the brain sign: the transcript.
const SIGNED: f64 = 1.0;
/// What it has the brain verify: the device's certificate, its issuer's, and the transcript.
const VERIFIED: f64 = 3.0;
/// The memory of a connected device without TLS is to stay below this.
const MEMORY_BYTES_TARGET: f64 = 16.0 * 1024.0;
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
        let mut fleet = Fleet::start(&settings.fleet(workspace, devices, tls))?;
        let mut outcome =
            Outcome { devices, tls, ed25519_us, empty_brain: Memory::default(), rounds: vec![] };
        for _ in 0..settings.rounds {
            // A fresh process: what enrolment left behind in memory would be used again.
            fleet.restart()?;
            outcome.empty_brain = memory(fleet.brain_pid()?)?;
            outcome.rounds.push(round(&mut fleet, settings, outcome.empty_brain)?);
            fleet.disconnect()?;
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
        "empty brain RSS",
        "idle brain CPU µs/s",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "Devices connect, 64 at a time, and say no more than heartbeats; {} rounds, each on a \
         fresh brain process, medians.",
        settings.rounds
    );
    let section = Section::new("idle", about, &columns, rows, &outcomes)?;
    Ok(section.with_notes(outcomes.iter().filter_map(verdict)))
}

fn round(fleet: &mut Fleet, settings: &Settings, empty: Memory) -> anyhow::Result<Round> {
    let devices = fleet.devices as f64;
    let before = fleet.sample()?;
    fleet.connect()?;
    let connected = fleet.sample()?;
    pause(settings.round_time());
    let after = fleet.sample()?;
    let full = memory(fleet.brain_pid()?)?;
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
        idle_brain_cpu_us_per_second: idle.cpu.as_secs_f64() * 1e6
            / devices
            / after.since(&connected).as_secs_f64(),
    })
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
    Some(format!(
        "Targets without TLS: at most {} RSS for a device, {} with {}; at most {} µs of brain CPU \
         for a connect, {} with {} µs.",
        bytes(MEMORY_BYTES_TARGET),
        met(memory, MEMORY_BYTES_TARGET),
        bytes(memory),
        figure(CONNECT_US_TARGET),
        met(cpu, CONNECT_US_TARGET),
        figure(cpu),
    ))
}
