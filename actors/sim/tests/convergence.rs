//! Whole worlds with everything that goes wrong: afterwards all are equal and nothing promised is
//! lost.
//!
//! `SIM_SEEDS=100000` runs more seeds than the default, from 1 or from `SIM_FIRST=n` on, `SIM_SEED=n`
//! exactly the one that failed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use sim::clock::TEN_YEARS_MS;
use sim::fired::Fired;
use sim::random::Random;
use sim::world::{Complaint, Config, World};

const SEEDS: u64 = 200;
const STORM_MS: u64 = 30_000;
/// Long enough for every backoff, quarantine and timeout to pass.
const QUIET_MS: u64 = 1_800_000;

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} is a number, not {text:?}")))
}

fn run(seed: u64) -> (World, Vec<Complaint>) {
    let mut random = Random::new(seed).fork("storm");
    let devices = 1 + random.below(6) as u8;
    let groups = random.below(3) as u8;
    let mut world = World::new(seed, Config { devices, groups, ..Config::default() });
    world.storm(STORM_MS, &mut random);
    world.heal();
    world.run_until_quiet(QUIET_MS);
    let complaints = world.check();
    (world, complaints)
}

#[derive(Default)]
struct Totals {
    fired: Fired,
    devices: u64,
    entries: u64,
    writes: u64,
    failures: Vec<(u64, Vec<Complaint>)>,
}

#[test]
fn after_every_storm_all_hold_the_same_and_nothing_acknowledged_is_lost() {
    let started = Instant::now();
    let (first, last) = match number("SIM_SEED") {
        Some(seed) => (seed, seed),
        None => {
            let first = number("SIM_FIRST").unwrap_or(1);
            (first, first + number("SIM_SEEDS").unwrap_or(SEEDS) - 1)
        }
    };
    let (next, totals) = (AtomicU64::new(first), Mutex::new(Totals::default()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > last {
                        return;
                    }
                    let (world, complaints) = run(seed);
                    let mut totals = totals.lock().unwrap();
                    let (entries, writes) = world.promises();
                    totals.fired.merge(&world.fired());
                    totals.devices += world.devices() as u64;
                    totals.entries += entries;
                    totals.writes += writes;
                    if !complaints.is_empty() {
                        eprintln!("seed {seed} failed");
                        totals.failures.push((seed, complaints));
                    }
                    // A long run shows how far it is.
                    let begun = seed - first + 1;
                    if begun.is_multiple_of(1_000) {
                        eprintln!("{begun} of {} seeds", last - first + 1);
                    }
                }
            });
        }
    });
    let Totals { fired, devices, entries, writes, failures } = totals.into_inner().unwrap();
    println!(
        "seeds {first} to {last}: {devices} devices, {entries} entries and {writes} operators' \
         writes acknowledged, {:.1} s\n{fired}",
        started.elapsed().as_secs_f64(),
    );
    for (seed, complaints) in &failures {
        println!("SIM_SEED={seed} cargo test -p sim --test convergence");
        complaints.iter().for_each(|complaint| println!("    {complaint}"));
    }
    assert!(failures.is_empty(), "{} of {} seeds failed", failures.len(), last - first + 1);
    if last - first + 1 >= SEEDS {
        for kind in [
            "partitions",
            "links_half_open",
            "links_cut",
            "brain_crashes",
            "commits_lost_in_crash",
            "device_crashes",
            "entries_lost_in_device_crash",
            "device_clocks_ahead",
            "device_clocks_back",
            "brain_clock_ahead",
            "brain_clock_back",
            "clock_ahead_at_brain",
            "entries_reissued",
            "own_log_behind",
            "entries_lost_in_restore",
            "commits_refused_disk_full",
            "fsyncs_failed",
            "loads_failed",
            "sessions_fenced",
            "set_by_hand",
            "policies_set",
            "histories_pruned",
            "checkpoints_merged",
            "members_changed",
            "cuts_taken",
            "shared_trees_anew",
            "shared_trees_left",
        ] {
            assert!(fired.of(kind) > 0, "{kind} never happened: the storms show nothing about it");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let outline = |(world, complaints): (World, Vec<Complaint>)| {
        let roots: Vec<_> = (0..world.devices()).map(|n| world.device(n).tree().root()).collect();
        (roots, world.fired(), world.network().frames(), world.now_ms(), complaints)
    };
    assert_eq!(outline(run(4_711)), outline(run(4_711)));
}

fn write_leaves(world: &mut World, count: u64) {
    for n in 0..count {
        assert!(world.write(0, &format!("leaf{n}")));
    }
}

fn quiet(world: &mut World) {
    world.run_until_quiet(QUIET_MS);
    let none: Vec<Complaint> = Vec::new();
    assert_eq!(world.check(), none);
}

#[test]
fn a_partition_of_ten_minutes_with_writes_on_both_sides_heals() {
    let mut world = World::new(1, Config { devices: 2, ..Config::default() });
    world.run_for(5_000);
    (0..2).for_each(|n| world.part(n));
    for round in 0..600 {
        for n in 0..2 {
            world.write(n, &format!("leaf{}", round % 7));
            world.write_desired(n, &format!("leaf{}", round % 5));
        }
        world.run_for(1_000);
    }
    (0..2).for_each(|n| world.rejoin(n));
    quiet(&mut world);
    let (entries, writes) = world.promises();
    assert!(entries >= 1_200, "{entries}");
    assert_eq!(writes, 1_200);
}

#[test]
fn entries_dated_ten_years_ahead_are_written_again_and_none_is_lost() {
    let mut world = World::new(1, Config::default());
    write_leaves(&mut world, 10);
    world.run_for(5_000);
    world.jump_device_clock(0, TEN_YEARS_MS);
    write_leaves(&mut world, 10);
    world.run_for(5_000);
    world.set_device_clock_right(0);
    world.write(0, "after");
    quiet(&mut world);
    assert_eq!(world.fired().of("entries_reissued"), 10);
    let now_ms = world.brain_clock().true_ms();
    let latest = world.device(0).tree().logs().iter().filter(|state| state.cut.is_none());
    assert!(latest.map(|state| state.hlc.wall_ms).max() <= Some(now_ms + 60_000));
}

#[test]
fn a_clock_that_goes_back_ten_years_changes_no_order() {
    let mut world = World::new(1, Config::default());
    for round in 0..20 {
        world.write(0, "leaf");
        if round == 10 {
            world.jump_device_clock(0, -TEN_YEARS_MS);
        }
        world.run_for(100);
    }
    quiet(&mut world);
    assert_eq!(world.fired().of("entries_reissued"), 0);
    assert_eq!(world.device(0).tree().logs().len(), 1, "the log goes on");
}

/// The disk went back to just below where the log was to end, and a checkpoint says that it did.
#[test]
fn a_device_goes_on_in_another_log_where_a_checkpoint_ended_its_own() {
    let mut world = World::new(1, Config::default());
    write_leaves(&mut world, 10);
    world.run_for(5_000);
    world.back_up_device(0);
    world.jump_device_clock(0, TEN_YEARS_MS);
    write_leaves(&mut world, 3);
    world.run_for(5_000);
    world.set_device_clock_right(0);
    quiet(&mut world);
    assert_eq!(world.fired().of("logs_cut"), 1);
    (0..2).for_each(|_| {
        world.prune(0);
        world.run_for(1_000);
    });
    assert_eq!(world.fired().of("histories_pruned"), 1);
    world.restore_device(0, false);
    world.run_for(5_000);
    assert_eq!(world.fired().of("checkpoints_merged"), 1);
    assert_eq!(world.fired().of("begun_anew_from_checkpoint"), 0);
    write_leaves(&mut world, 10);
    quiet(&mut world);
    assert_eq!(world.fired().of("entries_reissued"), 3, "nothing is written above the end");
}

#[test]
fn a_device_whose_disk_went_back_gets_its_entries_from_the_brain() {
    for noticed in [true, false] {
        let mut world = World::new(1, Config::default());
        world.write(0, "before");
        world.run_for(5_000);
        world.back_up_device(0);
        write_leaves(&mut world, 10);
        world.run_for(5_000);
        world.restore_device(0, noticed);
        assert_eq!(world.fired().of("entries_lost_in_restore"), 10);
        world.run_for(5_000);
        assert!(world.write(0, "after"));
        quiet(&mut world);
        assert_eq!(world.device(0).tree().leaves().len(), 12, "noticed: {noticed}");
        assert_eq!(world.fired().of("own_log_behind"), 1);
    }
}

#[test]
fn entries_that_saw_a_log_of_which_nothing_was_taken_are_taken() {
    let mut world = World::new(1, Config::default());
    world.part(0);
    world.back_up_device(0);
    world.jump_device_clock(0, TEN_YEARS_MS);
    write_leaves(&mut world, 5);
    world.run_for(1_000);
    world.back_up_device(0);
    world.restore_device(0, true);
    world.write(0, "next-epoch");
    world.run_for(1_000);
    world.rejoin(0);
    world.run_for(20_000);
    world.set_device_clock_right(0);
    quiet(&mut world);
    assert_eq!(world.device(0).tree().leaves().len(), 6);
}

#[test]
fn what_the_brain_wrote_dated_ten_years_ahead_is_written_again() {
    let mut world = World::new(1, Config::default());
    world.run_for(1_000);
    world.jump_brain_clock(TEN_YEARS_MS);
    world.write_desired(0, "leaf");
    world.run_for(1_000);
    world.heal();
    quiet(&mut world);
}
