//! `load faults`: every fault in every kind of actor while others write; and a device whose actor
//! fails whenever it comes up.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use serde::Serialize;
use serde_json::Value;

use super::ack::Round;
use super::crowd::Crowd;
use super::fleet::Fleet;
use super::measure::Spread;
use super::order::{Order, Writing};
use super::report::{Section, figure, spread};
use super::supervision::{self, RATE, SETTINGS, VICTIMS, WRITERS, measure, twins};
use super::{Settings, Workspace, note, pause};

/// What siblings' p99 may come to, beside a run without the fault.
const TARGET: f64 = 1.25;
/// An actor that is stuck for this long counts as failed.
const STUCK_AFTER_MS: u64 = 500;
/// How long all crash records may take to be on disk, and a part to be back.
const SETTLED: Duration = Duration::from_secs(20);
/// How long the one device flaps, and how often its actor is struck, where it runs.
const FLAPPING: Duration = Duration::from_secs(60);
const FLAP_EVERY: Duration = Duration::from_millis(100);

/// A fault, whom it hits, and how often.
struct Case {
    /// The node; none for the twins of connected devices, in turn.
    node: Option<&'static str>,
    fault: &'static str,
    per_second: u32,
}

const fn twin(fault: &'static str, per_second: u32) -> Case {
    Case { node: None, fault, per_second }
}

const fn part(node: &'static str) -> Case {
    Case { node: Some(node), fault: "panic", per_second: 1 }
}

/// All that leave the connections alone. One that blocks a thread or keeps it busy takes its share
/// of the machine, whatever stands around it.
const CASES: [Case; 13] = [
    twin("panic", 20),
    twin("error", 20),
    twin("hang", 20),
    twin("spin", 1),
    twin("block", 1),
    twin("grow", 2),
    twin("fail_starts", 10),
    part("brain/residency"),
    part("brain/journal"),
    part("brain/keys"),
    part("brain/enrolment"),
    part("brain/ingress/device-listener"),
    part("brain/ingress/api"),
];

/// One fault's outcome.
#[derive(Debug, Serialize)]
struct Outcome {
    node: String,
    fault: &'static str,
    /// An order that comes while the actor is away is not carried out.
    struck: u64,
    /// As the tree counts them.
    restarts: u64,
    /// As the journal has them.
    crashes_recorded: u64,
    /// Nodes that crashed beside the struck ones.
    others_crashed: u64,
    lost: u64,
    p50_ratio: Spread,
    p99_ratio: Spread,
}

/// What came of the device that flapped.
#[derive(Debug, Serialize)]
struct Flapping {
    seconds: f64,
    crashes: u64,
    /// Refused since the actor was in quarantine.
    strikes_refused: u64,
    quarantined: bool,
    running_after_release: bool,
    /// Connections of the devices that wrote meanwhile.
    lost: u64,
    p50_ratio: f64,
    p99_ratio: f64,
}

#[derive(Debug, Serialize)]
struct Results {
    devices: usize,
    faults: Vec<Outcome>,
    flapping: Flapping,
    /// Of the nodes above the devices.
    restarts_above: u64,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(VICTIMS);
    let stuck = format!("{SETTINGS}[supervision.device]\nstuck_after_ms = {STUCK_AFTER_MS}\n");
    let lenient = "[supervision.part.intensity]\nrestarts = 1000000\n\
         [supervision.root.budget.restarts]\nrestarts = 1000000\nwithin_ms = 1000\n\
         [supervision.ingress.budget.restarts]\nrestarts = 1000000\nwithin_ms = 1000\n";
    let (mut fleet, mut writers) = start(settings, workspace, devices, stuck + lenient)?;
    let mut faults = Vec::new();
    for case in &CASES {
        faults.push(case.run(&mut fleet, &mut writers, settings)?);
    }
    let nodes = fleet.brain.get("/api/v1/tree")?;
    let above = ["brain", "brain/devices", "brain/ingress"];
    let above = list(&nodes).filter(|node| above.iter().any(|path| node["path"] == *path));
    let restarts_above = above.filter_map(|node| node["restarts"].as_u64()).sum();
    drop((fleet, writers));
    // With the rules as they come.
    let (mut fleet, mut writers) = start(settings, workspace, devices, String::new())?;
    let flapping = flap(&mut fleet, &mut writers)?;
    section(settings, Results { devices, faults, flapping, restarts_above })
}

fn start(
    settings: &Settings,
    workspace: &Workspace,
    devices: usize,
    rules: String,
) -> anyhow::Result<(Fleet, Crowd)> {
    let mut plan = settings.fleet(workspace, devices, false);
    plan.settings = rules;
    let mut fleet = Fleet::start(&plan)?;
    plan.devices = WRITERS;
    let mut writers = fleet.others(&plan)?;
    fleet.connect()?;
    writers.connect()?;
    let rate = if settings.rate > 0.0 { settings.rate } else { RATE } / WRITERS as f64;
    writers.tell(&Order::Write(Writing { in_flight: 4, rate, updates: None }))?;
    pause(Duration::from_secs(1));
    Ok((fleet, writers))
}

impl Case {
    fn run(
        &self,
        fleet: &mut Fleet,
        writers: &mut Crowd,
        settings: &Settings,
    ) -> anyhow::Result<Outcome> {
        let node = self.node.unwrap_or("a device's twin");
        note(format!("faults: {} in {node}", self.fault));
        let targets = match self.node {
            Some(node) => vec![node.to_owned()],
            None => twins(fleet)?,
        };
        let since = now_ms()?;
        let restarts_before = restarts(fleet, &targets)?;
        fleet.sample()?;
        writers.counts()?;
        let (mut rounds, mut struck, mut next) = (Vec::new(), 0, 0);
        for number in 0..settings.rounds {
            // What comes first may have the better of it: they take turns.
            let calm_first = number % 2 == 0;
            let before = calm_first.then(|| measure(fleet, writers, settings)).transpose()?;
            let (faulty, strikes) = self.under(fleet, writers, settings, &targets, &mut next)?;
            struck += strikes;
            settle(fleet, &targets, since, restarts_before)?;
            let calm = before.map_or_else(|| measure(fleet, writers, settings), Ok)?;
            rounds.push((calm, faulty));
        }
        let crashes = crashes(fleet, since)?;
        let hit: BTreeSet<_> = targets.iter().map(String::as_str).collect();
        let of_hit = |path: &Value| path.as_str().is_some_and(|path| hit.contains(path));
        let crashes_recorded = crashes.iter().filter(|crash| of_hit(&crash["path"])).count() as u64;
        let lost = [fleet.sample()?.counts, writers.counts()?].concat();
        let ratio = |field: fn(&Round) -> u64| {
            Spread::of(
                rounds.iter().map(|(calm, faulty)| field(faulty) as f64 / field(calm) as f64),
            )
        };
        Ok(Outcome {
            node: node.to_owned(),
            fault: self.fault,
            struck,
            restarts: restarts(fleet, &targets)? - restarts_before,
            crashes_recorded,
            others_crashed: crashes.len() as u64 - crashes_recorded,
            lost: lost.iter().map(|counts| counts.lost).sum(),
            p50_ratio: ratio(|round| round.latency.p50_us),
            p99_ratio: ratio(|round| round.latency.p99_us),
        })
    }

    /// A round with faults at an even pace, and how many there were.
    fn under(
        &self,
        fleet: &Fleet,
        writers: &mut Crowd,
        settings: &Settings,
        targets: &[String],
        next: &mut usize,
    ) -> anyhow::Result<(Round, u64)> {
        let over = AtomicBool::new(false);
        let first = *next;
        let (round, struck) = thread::scope(|scope| {
            let striking = scope.spawn(|| {
                let (began, mut struck) = (Instant::now(), 0);
                while !over.load(Ordering::Relaxed) {
                    let target = &targets[(first + struck as usize) % targets.len()];
                    strike(fleet, target, self.fault)?;
                    struck += 1;
                    let due = began + Duration::from_secs(1) * struck / self.per_second;
                    pause(due.saturating_duration_since(Instant::now()));
                }
                anyhow::Ok(struck)
            });
            let round = measure(fleet, writers, settings);
            over.store(true, Ordering::Relaxed);
            let struck = striking.join().map_err(|_| anyhow::anyhow!("striking panicked"))?;
            anyhow::Ok((round?, struck?))
        })?;
        *next += struck as usize;
        Ok((round, u64::from(struck)))
    }
}

/// Waits until all that was struck is back, and every crash is in the journal.
fn settle(fleet: &Fleet, targets: &[String], since: u64, before: u64) -> anyhow::Result<()> {
    let began = Instant::now();
    loop {
        // The API may be the one that is away.
        let now = crashes(fleet, since).and_then(|all| Ok((all, restarts(fleet, targets)?)));
        if let Ok((recorded, restarts)) = &now
            && recorded.len() as u64 >= restarts - before
            && all_run(fleet, targets)
        {
            return Ok(());
        }
        if began.elapsed() > SETTLED {
            // The figures say what is missing.
            return now.map(drop);
        }
        pause(Duration::from_millis(100));
    }
}

fn restarts(fleet: &Fleet, targets: &[String]) -> anyhow::Result<u64> {
    let nodes = fleet.brain.get("/api/v1/tree")?;
    let hit: BTreeSet<_> = targets.iter().map(String::as_str).collect();
    let nodes = list(&nodes).filter(|node| node["path"].as_str().is_some_and(|p| hit.contains(p)));
    Ok(nodes.filter_map(|node| node["restarts"].as_u64()).sum())
}

/// Orders a fault, again if the API is the one that is away.
fn strike(fleet: &Fleet, path: &str, fault: &str) -> anyhow::Result<()> {
    let target = format!("/api/v1/tree/{}/chaos/{fault}", path.replace('/', "%2F"));
    let began = Instant::now();
    loop {
        match fleet.brain.call("POST", &target, None) {
            Ok((204, _)) => return Ok(()),
            Ok((404, said)) if said["error"].is_null() => bail!(
                "this brain takes no orders for faults: build it with `--features brain/chaos`"
            ),
            Ok((status, said)) if began.elapsed() > SETTLED => bail!("{target}: {status} {said}"),
            Err(error) if began.elapsed() > SETTLED => return Err(error),
            _ => pause(Duration::from_millis(20)),
        }
    }
}

fn all_run(fleet: &Fleet, targets: &[String]) -> bool {
    let Ok(nodes) = fleet.brain.get("/api/v1/tree") else { return false };
    let runs = |node: &&Value| node["status"] == "running" || node["status"] == "passive";
    let running: BTreeSet<_> =
        list(&nodes).filter(runs).filter_map(|n| n["path"].as_str()).collect();
    targets.iter().all(|path| running.contains(path.as_str()))
}

fn crashes(fleet: &Fleet, since_ms: u64) -> anyhow::Result<Vec<Value>> {
    let crashes = fleet.brain.get(&format!("/api/v1/crashes?limit=1000&since_ms={since_ms}"))?;
    Ok(list(&crashes).cloned().collect())
}

/// One device's actor is struck whenever it runs.
fn flap(fleet: &mut Fleet, writers: &mut Crowd) -> anyhow::Result<Flapping> {
    note(format!("faults: one device flaps for {} s", FLAPPING.as_secs()));
    let path = twins(fleet)?.into_iter().next().context("no device is there")?;
    let since = now_ms()?;
    writers.counts()?;
    let calm = supervision::measure_for(fleet, writers, FLAPPING / 2)?;
    let target = format!("/api/v1/tree/{}/chaos/panic", path.replace('/', "%2F"));
    let over = AtomicBool::new(false);
    let (flapping, strikes_refused) = thread::scope(|scope| {
        let striking = scope.spawn(|| {
            let mut refused = 0;
            while !over.load(Ordering::Relaxed) {
                let struck = fleet.brain.call("POST", &target, None);
                refused += u64::from(struck.is_ok_and(|(status, _)| status != 204));
                pause(FLAP_EVERY);
            }
            refused
        });
        let round = supervision::measure_for(fleet, writers, FLAPPING);
        over.store(true, Ordering::Relaxed);
        let refused = striking.join().map_err(|_| anyhow::anyhow!("striking panicked"))?;
        anyhow::Ok((round?, refused))
    })?;
    let listed = fleet.brain.get("/api/v1/quarantine")?;
    let quarantined = list(&listed).any(|node| node["path"] == path.as_str());
    let release = format!("/api/v1/quarantine/{}/release", path.replace('/', "%2F"));
    fleet.brain.call("POST", &release, None)?;
    let began = Instant::now();
    let targets = [path];
    while !all_run(fleet, &targets) && began.elapsed() < SETTLED {
        pause(Duration::from_millis(100));
    }
    let ratio = |field: fn(&Round) -> u64| field(&flapping) as f64 / field(&calm) as f64;
    Ok(Flapping {
        seconds: FLAPPING.as_secs_f64(),
        crashes: crashes(fleet, since)?.len() as u64,
        strikes_refused,
        quarantined,
        running_after_release: all_run(fleet, &targets),
        lost: writers.counts()?.iter().map(|counts| counts.lost).sum(),
        p50_ratio: ratio(|round| round.latency.p50_us),
        p99_ratio: ratio(|round| round.latency.p99_us),
    })
}

fn list(values: &Value) -> impl Iterator<Item = &Value> {
    values.as_array().into_iter().flatten()
}

fn now_ms() -> anyhow::Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}

fn section(settings: &Settings, results: Results) -> anyhow::Result<Section> {
    let columns = [
        "fault",
        "in",
        "ordered",
        "restarts",
        "crashes recorded",
        "of others",
        "links lost",
        "p50 ratio",
        "p99 ratio",
    ];
    let about = format!(
        "{WRITERS} devices write while faults are ordered in the actors of {} other connected \
         devices, in turn, and in the brain's parts; {} rounds of {} s with and without, \
         interleaved, plain links, medians. Ratios are of the writers' latency.",
        results.devices, settings.rounds, settings.seconds,
    );
    let row = |outcome: &Outcome| {
        vec![
            outcome.fault.to_owned(),
            outcome.node.clone(),
            outcome.struck.to_string(),
            outcome.restarts.to_string(),
            outcome.crashes_recorded.to_string(),
            outcome.others_crashed.to_string(),
            outcome.lost.to_string(),
            spread(&outcome.p50_ratio),
            spread(&outcome.p99_ratio),
        ]
    };
    let missed = results.faults.iter().filter(|outcome| outcome.p99_ratio.median > TARGET);
    let missed: Vec<_> = missed.map(|o| format!("{} in {}", o.fault, o.node)).collect();
    let verdict = match missed.as_slice() {
        [] => "met by all".to_owned(),
        missed => format!("missed by {}", missed.join(", ")),
    };
    let Flapping { seconds, crashes, quarantined, running_after_release, lost, .. } =
        results.flapping;
    let notes = [
        format!("Target: the writers' p99 at most {TARGET} of that without the fault, {verdict}."),
        format!("The supervisors above the devices restarted {} times.", results.restarts_above),
        format!(
            "A device whose actor fails whenever it runs, for {seconds} s, by the rules as they \
             come: {crashes} crashes, in quarantine at the end: {quarantined}, running after \
             `quarantine release`: {running_after_release}; the others lost {lost} links, their \
             p50 was {} of that before, their p99 {}.",
            figure(results.flapping.p50_ratio),
            figure(results.flapping.p99_ratio),
        ),
    ];
    let rows = results.faults.iter().map(row).collect();
    Ok(Section::new("faults", about, &columns, rows, &results)?.with_notes(notes))
}
