//! `load supervision`: actors of some devices are killed, and others must not notice.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde::Serialize;

use super::ack::Round;
use super::crowd::Crowd;
use super::fleet::{Fleet, Sample};
use super::measure::Spread;
use super::order::{Order, Until, Writing};
use super::report::{Section, figure, spread};
use super::{Settings, Workspace, note, pause};

/// Devices that are connected, and whose actors are killed.
pub(super) const VICTIMS: usize = 1_000;
/// Devices that write meanwhile.
pub(super) const WRITERS: usize = 64;
/// Updates in a second of all writers together, if nobody says otherwise: a rate that the machine
/// keeps up with, so that latency is not the length of a queue.
pub(super) const RATE: f64 = 1_000.0;
/// Kills in a second.
const KILLS_PER_SECOND: u32 = 100;
/// How long the brain rests between two measurements.
const REST: Duration = Duration::from_millis(500);
/// What the writers' p99 may come to, beside a run without kills.
const TARGET: f64 = 1.25;
/// No victim is to be quarantined: that would be an end of its crashes.
pub(super) const SETTINGS: &str = "[supervision.device.intensity]\nrestarts = 1000000\n\
     [supervision.device.backoff]\nimmediate = 1000000\n\
     [supervision.shard.budget.distinct]\nchildren = 1000000\nwithin_ms = 1000\n";

/// One round without kills and one with.
#[derive(Debug, Serialize)]
struct Pair {
    calm: Round,
    killing: Round,
    kills: u64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    victims: usize,
    writers: usize,
    rate: f64,
    /// Restarts that the tree counts at the end.
    restarts: u64,
    /// Connections of victims that were lost.
    lost: u64,
    p99_ratio: Spread,
    p50_ratio: Spread,
    pairs: Vec<Pair>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let devices = settings.devices_or(VICTIMS);
    note(format!("supervision: {WRITERS} devices write, {devices} have their actors killed"));
    let mut plan = settings.fleet(workspace, devices, false);
    plan.settings = SETTINGS.to_owned();
    let mut victims = Fleet::start(&plan)?;
    plan.devices = WRITERS;
    let mut writers = victims.others(&plan)?;
    victims.connect()?;
    // Each has a state to come back to.
    victims.write(1)?;
    victims.wait(Until::Stored)?;
    writers.connect()?;
    let rate = if settings.rate > 0.0 { settings.rate } else { RATE };
    let each = rate / WRITERS as f64;
    writers.tell(&Order::Write(Writing { in_flight: 4, rate: each, updates: None }))?;
    pause(Duration::from_secs(1));
    let mut pairs = Vec::new();
    for number in 0..settings.rounds {
        note(format!("supervision: round {}", number + 1));
        // What comes first may have the better of it: they take turns.
        let (calm, killing) = if number % 2 == 0 {
            let calm = measure(&victims, &mut writers, settings)?;
            (calm, under_kills(&victims, &mut writers, settings)?)
        } else {
            let killing = under_kills(&victims, &mut writers, settings)?;
            (measure(&victims, &mut writers, settings)?, killing)
        };
        let (killing, kills) = killing;
        pairs.push(Pair { calm, killing, kills });
    }
    writers.tell(&Order::Rest)?;
    writers.wait(Until::Stored)?;
    let lost = victims.sample()?.counts.iter().map(|counts| counts.lost).sum();
    let ratio = |field: fn(&Round) -> u64| {
        Spread::of(pairs.iter().map(|pair| field(&pair.killing) as f64 / field(&pair.calm) as f64))
    };
    let outcome = Outcome {
        victims: devices,
        writers: WRITERS,
        rate,
        restarts: restarts(&victims)?,
        lost,
        p99_ratio: ratio(|round| round.latency.p99_us),
        p50_ratio: ratio(|round| round.latency.p50_us),
        pairs,
    };
    let columns = [
        "devices killed",
        "kills/s",
        "restarts",
        "links lost",
        "calm p50 ms",
        "calm p99 ms",
        "killing p50 ms",
        "killing p99 ms",
        "p50 ratio",
        "p99 ratio",
    ];
    let about = format!(
        "{WRITERS} devices write {} updates/s in all while the actors of {devices} other connected \
         devices are killed, one after the other; {} rounds of {} s with and without, interleaved, \
         plain links, medians.",
        figure(rate),
        settings.rounds,
        settings.seconds,
    );
    let met = if outcome.p99_ratio.median <= TARGET { "met" } else { "missed" };
    let verdict = format!(
        "Target: the writers' p99 at most {TARGET} of that without kills, {met} with {}.",
        spread(&outcome.p99_ratio)
    );
    let rows = vec![row(&outcome, settings)];
    Ok(Section::new("supervision", about, &columns, rows, &outcome)?.with_notes([verdict]))
}

/// What a crowd gets acknowledged in a round from now.
pub(super) fn measure(
    fleet: &Fleet,
    writers: &mut Crowd,
    settings: &Settings,
) -> anyhow::Result<Round> {
    measure_for(fleet, writers, settings.round_time())
}

/// What a crowd gets acknowledged in some time from now.
pub(super) fn measure_for(
    fleet: &Fleet,
    writers: &mut Crowd,
    time: Duration,
) -> anyhow::Result<Round> {
    pause(REST);
    let before = Sample::of(&fleet.brain, writers)?;
    pause(time);
    Round::between(&before, &Sample::of(&fleet.brain, writers)?)
}

fn under_kills(
    fleet: &Fleet,
    writers: &mut Crowd,
    settings: &Settings,
) -> anyhow::Result<(Round, u64)> {
    let (over, kills) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    thread::scope(|scope| {
        let killer = scope.spawn({
            let (over, kills) = (over.clone(), kills.clone());
            move || kill(fleet, &over, &kills)
        });
        let round = measure(fleet, writers, settings);
        over.store(true, Ordering::Relaxed);
        let killed = killer.join().map_err(|_| anyhow::anyhow!("the killer panicked"))?;
        killed.and(round).map(|round| (round, kills.load(Ordering::Relaxed)))
    })
}

/// Kills one actor after the other at an even pace, through the API as an operator would.
fn kill(fleet: &Fleet, over: &AtomicBool, kills: &AtomicU64) -> anyhow::Result<()> {
    let paths = twins(fleet)?;
    let began = Instant::now();
    for (number, path) in (1u32..).zip(paths.iter().cycle()) {
        let due = began + Duration::from_secs(1) * number / KILLS_PER_SECOND;
        pause(due.saturating_duration_since(Instant::now()));
        if over.load(Ordering::Relaxed) {
            return Ok(());
        }
        let target = format!("/api/v1/tree/{}/kill", path.replace('/', "%2F"));
        let (status, _) = fleet.brain.call("POST", &target, None)?;
        kills.fetch_add(u64::from(status == 204), Ordering::Relaxed);
    }
    Ok(())
}

/// The paths of the victims' actors.
pub(super) fn twins(fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let nodes = fleet.brain.get("/api/v1/tree")?;
    let paths = nodes.as_array().into_iter().flatten().filter_map(|node| node["path"].as_str());
    let of_victims = paths.filter(|path| {
        let name = path.rsplit('/').next().unwrap_or_default();
        fleet.ids.iter().any(|id| id == name)
    });
    Ok(of_victims.map(str::to_owned).collect())
}

fn restarts(fleet: &Fleet) -> anyhow::Result<u64> {
    let nodes = fleet.brain.get("/api/v1/tree")?;
    let devices = nodes.as_array().into_iter().flatten().filter(|node| node["kind"] == "device");
    Ok(devices.filter_map(|node| node["restarts"].as_u64()).sum())
}

fn row(outcome: &Outcome, settings: &Settings) -> Vec<String> {
    let of = |field: &dyn Fn(&Pair) -> f64| Spread::of(outcome.pairs.iter().map(field)).median;
    let ms = |field: fn(&Pair) -> u64| figure(of(&|pair| field(pair) as f64) / 1e3);
    vec![
        outcome.victims.to_string(),
        figure(of(&|pair| pair.kills as f64 / settings.seconds)),
        outcome.restarts.to_string(),
        outcome.lost.to_string(),
        ms(|pair| pair.calm.latency.p50_us),
        ms(|pair| pair.calm.latency.p99_us),
        ms(|pair| pair.killing.latency.p50_us),
        ms(|pair| pair.killing.latency.p99_us),
        spread(&outcome.p50_ratio),
        spread(&outcome.p99_ratio),
    ]
}
