//! `load fanout`: an operator tells every device something, over the API.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use serde::Serialize;
use serde_json::json;

use super::ack::transport;
use super::api::Api;
use super::fleet::Fleet;
use super::measure::{Latency, Spread};
use super::order::clock_us;
use super::report::{Section, figure, spread};
use super::{Settings, Workspace, note};

const DEVICES: usize = 1_000;
/// How many calls are made at once.
const CALLERS: usize = 16;

#[derive(Debug, Serialize)]
struct Round {
    /// From the first call until the last device holds what it was told.
    all_told_seconds: f64,
    writes_per_second: f64,
    /// A call, from its beginning to its answer: the write is on disk.
    call: Latency,
    /// From the beginning of a call until its device holds the value.
    told: Latency,
    brain_cpu_us: f64,
    fsyncs: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    devices: usize,
    tls: bool,
    rounds: Vec<Round>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(DEVICES);
    let mut outcomes = Vec::new();
    for tls in settings.transports() {
        note(format!("fanout: {devices} devices, {}", transport(tls)));
        let mut fleet = Fleet::start(&settings.fleet(workspace, devices, tls))?;
        fleet.connect()?;
        let rounds = (1..=settings.rounds).map(|number| round(&mut fleet, number.into()));
        let rounds = rounds.collect::<anyhow::Result<_>>()?;
        outcomes.push(Outcome { devices, tls, rounds });
    }
    let columns = [
        "devices",
        "link",
        "all told s",
        "writes/s",
        "call p50 ms",
        "call p99 ms",
        "told p50 ms",
        "told p99 ms",
        "brain CPU µs/write",
        "fsyncs/write",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "One leaf of each device's desired state is written over the API, {CALLERS} calls at a \
         time; {} rounds, medians.",
        settings.rounds
    );
    Section::new("fanout", about, &columns, rows, &outcomes)
}

fn round(fleet: &mut Fleet, number: i64) -> anyhow::Result<Round> {
    let before = fleet.sample()?;
    let began = clock_us();
    let calls = call_all(fleet, number)?;
    let called = clock_us();
    let told = fleet.told(number)?;
    let after = fleet.sample()?;
    let devices = fleet.devices as f64;
    let store = after.store - before.store;
    let last = told.iter().copied().max().unwrap_or_default();
    let delays = calls.iter().map(|call| {
        let delay = told[call.device].saturating_sub(call.began_us);
        (delay, 1)
    });
    Ok(Round {
        all_told_seconds: last.saturating_sub(began) as f64 / 1e6,
        writes_per_second: devices * 1e6 / (called - began) as f64,
        call: Latency::of(calls.iter().map(|call| (call.time_us, 1))),
        told: Latency::of(delays),
        brain_cpu_us: (after.brain - before.brain).cpu.as_secs_f64() * 1e6 / devices,
        fsyncs: store.syncs as f64 / devices,
    })
}

struct Call {
    device: usize,
    began_us: u64,
    time_us: u64,
}

/// Calls for each device once.
fn call_all(fleet: &Fleet, number: i64) -> anyhow::Result<Vec<Call>> {
    let next = AtomicUsize::new(0);
    let body = json!({ "bench/number": number });
    let caller = |api: Api| {
        let mut calls = Vec::new();
        loop {
            let device = next.fetch_add(1, Ordering::Relaxed);
            let Some(id) = fleet.ids.get(device) else { return anyhow::Ok(calls) };
            let began_us = clock_us();
            let called = api.patch(&format!("/devices/{id}/desired"), &body)?;
            calls.push(Call { device, began_us, time_us: called.time_us });
        }
    };
    thread::scope(|scope| {
        let callers = (0..CALLERS).map(|_| {
            let api = Api::of(&fleet.brain)?;
            Ok(scope.spawn(|| caller(api)))
        });
        let callers = callers.collect::<anyhow::Result<Vec<_>>>()?;
        let mut calls = Vec::with_capacity(fleet.devices);
        for caller in callers {
            calls.extend(caller.join().map_err(|_| anyhow::anyhow!("a caller panicked"))??);
        }
        Ok(calls)
    })
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    let milliseconds = |field: fn(&Round) -> f64| figure(of(field).median / 1e3);
    vec![
        outcome.devices.to_string(),
        transport(outcome.tls).to_owned(),
        spread(&of(|round| round.all_told_seconds)),
        spread(&of(|round| round.writes_per_second)),
        milliseconds(|round| round.call.p50_us as f64),
        milliseconds(|round| round.call.p99_us as f64),
        milliseconds(|round| round.told.p50_us as f64),
        milliseconds(|round| round.told.p99_us as f64),
        figure(of(|round| round.brain_cpu_us).median),
        figure(of(|round| round.fsyncs).median),
    ]
}
