//! `load tracing`: what it costs that one update of a hundred is traced.
//!
//! Five brains take turns, round by round: one without a collector, one that could trace and is sent
//! nothing to trace, and three that trace one update in a hundred, with a collector that answers,
//! one that is not there, and one that takes its time. None of them may slow the devices down.

mod collector;

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use serde::Serialize;

use super::ack::{self, Round};
use super::fleet::Fleet;
use super::measure::Spread;
use super::report::{Section, figure, spread};
use super::{Settings, Shape, Workspace, note, pause};
use collector::{Collector, Manner};

/// The share of updates that is traced.
const SHARE: f64 = 0.01;
/// How long the disk rests between two rounds.
const REST: Duration = Duration::from_millis(500);
/// What tracing may cost of the updates in a second.
const TARGET: f64 = 0.97;

/// A brain with its devices.
struct Variant {
    name: &'static str,
    traces: bool,
    fleet: Fleet,
    collector: Option<Collector>,
    rounds: Vec<Round>,
}

/// What became of one.
#[derive(Debug, Serialize)]
struct Outcome {
    name: &'static str,
    shape: Shape,
    /// Its rate over that of the brain without traces, round by round.
    ratio: Spread,
    /// Its CPU time for an update over that one's.
    cpu_ratio: Spread,
    /// What the collector was sent, in bytes of bodies; none where there is none.
    collected_bytes: Option<u64>,
    rounds: Vec<Round>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let mut outcomes = Vec::new();
    for shape in settings.shapes() {
        outcomes.extend(compare(settings, workspace, shape)?);
    }
    let columns = [
        "devices × in flight",
        "traces",
        "updates/s",
        "ratio to none",
        "brain CPU µs",
        "CPU ratio",
        "p99 ms",
        "collected KiB",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "One update in {:.0} is traced from the device on; {} rounds of {} s, interleaved, plain \
         links, medians. At least {TARGET} of the rate without traces is the target.",
        1.0 / SHARE,
        settings.rounds,
        settings.seconds,
    );
    Section::new("tracing", about, &columns, rows, &outcomes)
}

fn compare(
    settings: &Settings,
    workspace: &Workspace,
    shape: Shape,
) -> anyhow::Result<Vec<Outcome>> {
    let start = |name, endpoint: Option<SocketAddr>, collector, traced_share| {
        let mut plan = settings.fleet(workspace, shape.devices, false);
        plan.otlp_endpoint = endpoint;
        plan.traced_share = traced_share;
        let mut fleet = Fleet::start(&plan)?;
        fleet.connect()?;
        anyhow::Ok(Variant {
            name,
            traces: traced_share > 0.0,
            fleet,
            collector,
            rounds: Vec::new(),
        })
    };
    let collected = |name, manner, traced_share| {
        let collector = Collector::start(manner)?;
        start(name, Some(collector.address()), Some(collector), traced_share)
    };
    let mut variants = [
        start("none", None, None, 0.0)?,
        collected("0 %, a collector", Manner::Prompt, 0.0)?,
        collected("1 %, collected", Manner::Prompt, SHARE)?,
        start("1 %, no collector", Some(unused_address()?), None, SHARE)?,
        collected("1 %, slow collector", Manner::Slow, SHARE)?,
    ];
    for number in 1..=settings.rounds {
        // What one leaves to its disk falls on the next: each round begins with another.
        let first = number as usize % variants.len();
        let (after, before) = variants.split_at_mut(first);
        for variant in before.iter_mut().chain(after) {
            pause(REST);
            note(format!("tracing: {shape}, {}, round {number}", variant.name));
            ack::begin(&mut variant.fleet, settings, shape)?;
            let round = ack::round(&mut variant.fleet, settings.round_time());
            ack::end(&mut variant.fleet)?;
            variant.rounds.push(round?);
        }
    }
    let none = variants[0].rounds.clone();
    let outcomes = variants.into_iter().map(|variant| variant.outcome(shape, &none));
    outcomes.collect()
}

impl Variant {
    fn outcome(mut self, shape: Shape, none: &[Round]) -> anyhow::Result<Outcome> {
        let prompt = self.collector.as_ref().is_some_and(Collector::is_prompt);
        if prompt {
            // What the brain still has of them goes out at its end.
            self.fleet.brain.stop()?;
        }
        let over = |field: fn(&Round) -> f64| {
            Spread::of(self.rounds.iter().zip(none).map(|(ours, none)| field(ours) / field(none)))
        };
        let collected_bytes = self.collector.as_ref().map(Collector::bytes);
        anyhow::ensure!(
            !(prompt && self.traces) || collected_bytes > Some(0),
            "the collector was sent nothing"
        );
        Ok(Outcome {
            name: self.name,
            shape,
            ratio: over(|round| round.updates_per_second),
            cpu_ratio: over(|round| round.brain_cpu_us),
            collected_bytes,
            rounds: self.rounds,
        })
    }
}

/// An address of this machine where nobody listens.
fn unused_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

fn row(outcome: &Outcome) -> Vec<String> {
    let of = |field: fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field));
    vec![
        outcome.shape.to_string(),
        outcome.name.to_owned(),
        spread(&of(|round| round.updates_per_second)),
        spread(&outcome.ratio),
        figure(of(|round| round.brain_cpu_us).median),
        spread(&outcome.cpu_ratio),
        figure(of(|round| round.latency.p99_us as f64).median / 1e3),
        outcome.collected_bytes.map_or_else(String::new, |bytes| figure(bytes as f64 / 1024.0)),
    ]
}
