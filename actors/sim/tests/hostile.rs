//! Links that do to frames what no transport does: afterwards all are equal and nothing promised
//! is lost.
//!
//! `SIM_SEEDS=10000` runs more seeds than the default, `SIM_SEED=n` exactly the one that failed.

use sim::fired::Fired;
use sim::network::{Hostility, LinkKind};
use sim::random::Random;
use sim::world::{Complaint, Config, World};

const SEEDS: u64 = 40;
const STORM_MS: u64 = 60_000;
const QUIET_MS: u64 = 1_800_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

/// Up to 30 % of the frames are lost, and whatever else can happen to one does. Mostly it is less:
/// a handshake of seven frames must succeed now and then.
fn hostility(random: &mut Random) -> Hostility {
    let mut upto = |most: u64| {
        let most = random.below(most + 1);
        random.below(most + 1) as u32
    };
    Hostility {
        latency_ms: 5..40,
        drop_permille: upto(300),
        duplicate_permille: upto(200),
        reorder_permille: upto(200),
        truncate_permille: upto(30),
        split_permille: upto(30),
    }
}

fn run(seed: u64) -> (Fired, Vec<Complaint>) {
    let mut random = Random::new(seed).fork("hostile links");
    let devices = 1 + random.below(4) as u8;
    let link = LinkKind::Hostile(hostility(&mut random));
    let mut world =
        World::new(seed, Config { devices, link, impatient: true, ..Config::default() });
    world.storm(STORM_MS, &mut random);
    world.heal();
    world.run_until_quiet(QUIET_MS);
    let complaints = world.check();
    (world.fired(), complaints)
}

#[test]
fn over_hostile_links_nothing_acknowledged_is_lost_and_afterwards_all_hold_the_same() {
    let (first, last) = match number("SIM_SEED") {
        Some(seed) => (seed, seed),
        None => (1, number("SIM_SEEDS").unwrap_or(SEEDS)),
    };
    let (mut fired, mut failed) = (Fired::default(), 0);
    for seed in first..=last {
        let (faults, complaints) = run(seed);
        fired.merge(&faults);
        if !complaints.is_empty() {
            failed += 1;
            println!("SIM_SEED={seed} cargo test -p sim --test hostile");
            complaints.iter().for_each(|complaint| println!("    {complaint}"));
        }
    }
    println!("seeds {first} to {last}: {fired}");
    assert_eq!(failed, 0, "{failed} of {} seeds failed", last - first + 1);
    if last > first {
        for kind in ["dropped", "duplicated", "reordered", "truncated", "split"] {
            let kind = format!("frames_{kind}");
            assert!(fired.of(&kind) > 0, "{kind} never happened");
        }
    }
}
