//! Entries over links that lose, repeat and break: all arrive, once, in order.

use std::time::Instant;

use protocol::history::Entry;
use protocol::session::Limits;
use protocol::wire::FRAME_BYTES_MAX;
use sim::network::{Hostility, LinkKind, Side};
use sim::world::{Complaint, Config, World};

const SEED: u64 = 2_026;
const DISCONNECTS: u64 = 20;

fn hostile() -> LinkKind {
    LinkKind::Hostile(Hostility {
        latency_ms: 5..40,
        drop_permille: 100,
        duplicate_permille: 100,
        reorder_permille: 100,
        truncate_permille: 5,
        split_permille: 5,
    })
}

/// The marks of a device's entries in the order in which the brain committed them.
fn committed(world: &World) -> Vec<u64> {
    let tree = world.store().tree(world.device(0).tree().id()).expect("the tree is there");
    let mark = |entry: &Entry| entry.provenance.reason.parse().expect("a mark");
    tree.history().map(|(_, entry)| mark(entry)).collect()
}

#[test]
fn a_hundred_thousand_entries_over_a_hostile_link_are_applied_once_and_in_order() {
    const ENTRIES: u64 = 100_000;
    let started = Instant::now();
    let config = Config { link: hostile(), impatient: true, ..Config::default() };
    let mut world = World::new(SEED, config);
    for n in 1..=ENTRIES {
        assert!(world.write(0, &format!("leaf{}", n % 5)));
        if n % 100 == 0 {
            world.run_for(50);
        }
        if n % (ENTRIES / DISCONNECTS) == 0 {
            // When something is on its way.
            while world.device(0).link().is_none() {
                world.run_for(10);
            }
            world.cut(0);
        }
    }
    assert!(world.run_until_quiet(24 * 3_600_000), "{:?}", world.check());
    let none: Vec<Complaint> = Vec::new();
    assert_eq!(world.check(), none);
    assert!(committed(&world).into_iter().eq(1..=ENTRIES), "each once, in the order of writing");
    assert!(world.fired().of("links_cut") >= DISCONNECTS);
    println!(
        "seed {SEED}: {ENTRIES} entries, {} frames, {} s of virtual time, {:.1} s of real time\n{}",
        world.network().frames(),
        world.now_ms() / 1_000,
        started.elapsed().as_secs_f64(),
        world.fired(),
    );
}

#[test]
fn a_slow_disk_keeps_the_sender_within_its_credit() {
    let limits = Limits { heartbeat_ms: 2_000, credit_bytes: 128 << 10 };
    let config = Config { limits, fsync_ms: 700..800, ..Config::default() };
    let mut world = World::new(SEED, config);
    for n in 1..=20_000 {
        world.write(0, &format!("leaf{}", n % 5));
    }
    assert!(world.run_until_quiet(3_600_000), "{:?}", world.check());
    let (peak, credit) = (world.network().peak_bytes_towards(Side::Answerer), 128 << 10);
    println!("{peak} bytes under way at most, {credit} of credit");
    assert!(peak <= credit + FRAME_BYTES_MAX, "{peak} bytes");
    assert!(committed(&world).into_iter().eq(1..=20_000), "nothing is dropped");
}

#[test]
fn a_steady_stream_of_entries_is_sealed_as_it_comes() {
    let mut world = World::new(SEED, Config::default());
    for n in 0..6_000 {
        world.write(0, &format!("leaf{}", n % 5));
        world.run_for(10);
    }
    let unsealed = world.unsealed_max();
    println!("{unsealed} entries were durable at the brain and unsigned at most");
    // 100 a second, signed within a second, and what is written while that is under way.
    assert!(unsealed <= 150, "{unsealed}");
}
