//! `load coldstart`: a brain that was killed comes back over the data of its fleet.

use serde::Serialize;

use super::ack::transport;
use super::fleet::Fleet;
use super::measure::{Spread, memory};
use super::order::{Order, Until, clock_us};
use super::report::{Section, bytes, figure, spread};
use super::{Settings, Workspace, note};

const DEVICES: usize = 1_000;
/// How many updates each device writes at first.
const UPDATES: u64 = 50;

#[derive(Debug, Serialize)]
struct Round {
    /// From the start of the process until it takes connections.
    ready_ms: f64,
    /// From there until the last device is connected again.
    connected_seconds: f64,
    /// From there until what each device wrote meanwhile is acknowledged.
    in_sync_seconds: f64,
    brain_cpu_seconds: f64,
    rss_bytes: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    devices: usize,
    tls: bool,
    data_bytes: u64,
    rounds: Vec<Round>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(DEVICES);
    let mut outcomes = Vec::new();
    for tls in settings.transports() {
        note(format!("coldstart: {devices} devices, {}", transport(tls)));
        let mut fleet = Fleet::start(&settings.fleet(workspace, devices, tls))?;
        // As many at once as there are: nobody holds them back after a crash.
        fleet.tell(&Order::Connect { at_once: devices })?;
        fleet.wait(Until::Connected)?;
        fleet.write(UPDATES)?;
        fleet.wait(Until::Stored)?;
        let rounds = (0..settings.rounds).map(|_| round(&mut fleet));
        let rounds = rounds.collect::<anyhow::Result<_>>()?;
        outcomes.push(Outcome { devices, tls, data_bytes: fleet.data_bytes()?, rounds });
    }
    let columns = [
        "devices",
        "link",
        "ready ms",
        "all connected s",
        "all in sync s",
        "brain CPU s",
        "brain RSS",
        "data",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "The brain is killed, each device writes an update, and the brain starts again over the \
         same data, with the page cache warm; {} rounds, medians.",
        settings.rounds
    );
    Section::new("coldstart", about, &columns, rows, &outcomes)
}

fn round(fleet: &mut Fleet) -> anyhow::Result<Round> {
    fleet.brain.kill()?;
    fleet.wait(Until::Disconnected)?;
    fleet.write(1)?;
    let began = clock_us();
    fleet.brain.restart()?;
    let ready = clock_us();
    let connected = fleet.wait(Until::Connected)?;
    let in_sync = fleet.wait(Until::Stored)?.max(connected);
    let after = fleet.sample()?;
    let seconds = |until: u64| until.saturating_sub(ready) as f64 / 1e6;
    Ok(Round {
        ready_ms: (ready - began) as f64 / 1e3,
        connected_seconds: seconds(connected),
        in_sync_seconds: seconds(in_sync),
        brain_cpu_seconds: after.brain.cpu.as_secs_f64(),
        rss_bytes: memory(fleet.brain_pid()?)?.resident,
    })
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    vec![
        outcome.devices.to_string(),
        transport(outcome.tls).to_owned(),
        spread(&of(|round| round.ready_ms)),
        spread(&of(|round| round.connected_seconds)),
        spread(&of(|round| round.in_sync_seconds)),
        figure(of(|round| round.brain_cpu_seconds).median),
        bytes(of(|round| round.rss_bytes as f64).median),
        bytes(outcome.data_bytes as f64),
    ]
}
