//! Trees that several devices and the brain write: what one of them has lost holds up nobody.

use sim::clock::TEN_YEARS_MS;
use sim::fleet::Whose;
use sim::world::{Complaint, Config, World};

const GROUP: u8 = 1;
const QUIET_MS: u64 = 600_000;

/// A world whose devices are all in one group, and know it.
fn world(devices: u8) -> World {
    let mut world = World::new(1, Config { devices, groups: GROUP, ..Config::default() });
    for n in 0..usize::from(devices) {
        assert!(world.set_member(n, GROUP, true));
    }
    world.run_for(10_000);
    world
}

fn write_leaves(world: &mut World, n: usize, count: u64) {
    for leaf in 0..count {
        assert!(world.write_shared(n, GROUP, &format!("leaf{leaf}")));
    }
}

fn quiet(world: &mut World) {
    world.run_until_quiet(QUIET_MS);
    let none: Vec<Complaint> = Vec::new();
    assert_eq!(world.check(), none);
}

fn leaves(world: &World, n: usize) -> usize {
    let tree = world.device(n).tree_of(Whose::Group(GROUP)).expect("it is a member");
    tree.state().keys().filter(|path| path.below("shared").is_some()).count()
}

#[test]
fn what_members_write_apart_is_the_same_everywhere_afterwards() {
    let mut world = world(3);
    (0..3).for_each(|n| world.part(n));
    for round in 0..100 {
        for n in 0..3 {
            world.write_shared(n, GROUP, &format!("leaf{}", round % 7));
        }
        world.write_to_group(GROUP, &format!("leaf{}", round % 5));
        world.run_for(500);
    }
    (0..3).for_each(|n| world.rejoin(n));
    quiet(&mut world);
    assert_eq!((0..3).map(|n| leaves(&world, n)).collect::<Vec<_>>(), [7, 7, 7]);
}

/// The brain has entries that their author had not signed when its disk went back.
#[test]
fn what_a_member_lost_unsigned_reaches_the_others() {
    for noticed in [true, false] {
        let mut world = world(2);
        write_leaves(&mut world, 0, 1);
        world.run_for(5_000);
        world.back_up_device(0);
        write_leaves(&mut world, 0, 4);
        world.run_for(300);
        world.restore_device(0, noticed);
        world.write_to_group(GROUP, "after");
        quiet(&mut world);
        assert_eq!(leaves(&world, 1), 5, "noticed: {noticed}");
    }
}

/// A log ends by its author's word, which the author then loses with its disk.
#[test]
fn a_member_gets_a_log_back_that_it_had_ended() {
    let mut world = world(2);
    write_leaves(&mut world, 0, 1);
    world.run_for(5_000);
    world.back_up_device(0);
    write_leaves(&mut world, 0, 3);
    world.run_for(500);
    world.jump_device_clock(0, TEN_YEARS_MS);
    write_leaves(&mut world, 0, 5);
    world.run_for(10_000);
    world.set_device_clock_right(0);
    assert_eq!(world.fired().of("logs_cut"), 1);
    world.restore_device(0, true);
    quiet(&mut world);
    assert_eq!(leaves(&world, 0), 5);
}

#[test]
fn entries_that_saw_a_members_log_of_which_nothing_was_taken_are_taken() {
    let mut world = world(2);
    world.part(0);
    world.jump_device_clock(0, TEN_YEARS_MS);
    write_leaves(&mut world, 0, 5);
    world.run_for(1_000);
    world.back_up_device(0);
    world.restore_device(0, true);
    assert!(world.write_shared(0, GROUP, "next-epoch"));
    world.run_for(1_000);
    world.rejoin(0);
    world.run_for(20_000);
    world.set_device_clock_right(0);
    quiet(&mut world);
    assert_eq!(leaves(&world, 1), 6);
}

/// The brain wrote something, one member took it and wrote having seen it, and another's clock made
/// the brain write it again.
#[test]
fn what_a_member_saw_of_a_log_that_ended_since_holds_up_nothing() {
    let mut world = world(2);
    world.part(1);
    world.write_to_group(GROUP, "by-brain");
    world.run_for(5_000);
    world.part(0);
    write_leaves(&mut world, 0, 3);
    world.jump_brain_clock(-TEN_YEARS_MS);
    world.jump_device_clock(1, -TEN_YEARS_MS);
    world.rejoin(1);
    world.run_for(20_000);
    world.brain_clock().set_right();
    world.set_device_clock_right(1);
    world.rejoin(0);
    quiet(&mut world);
    assert_eq!((0..2).map(|n| leaves(&world, n)).collect::<Vec<_>>(), [4, 4]);
}

#[test]
fn who_is_put_out_while_away_and_taken_in_again_agrees_with_the_others() {
    let mut world = world(3);
    write_leaves(&mut world, 0, 3);
    world.run_for(5_000);
    world.part(0);
    write_leaves(&mut world, 0, 6);
    world.set_member(0, GROUP, false);
    write_leaves(&mut world, 1, 4);
    world.run_for(5_000);
    world.set_member(0, GROUP, true);
    world.run_for(1_000);
    world.rejoin(0);
    quiet(&mut world);
    assert!(world.write_shared(0, GROUP, "again"));
    quiet(&mut world);
    assert_eq!((0..3).map(|n| leaves(&world, n)).collect::<Vec<_>>(), [5, 5, 5]);
    assert!(world.fired().of("cuts_taken") > 0);
}

/// A cut takes the values of leaves, and the power fails before the tree has come anew.
#[test]
fn a_tree_that_lacks_values_comes_anew_also_after_a_crash() {
    let mut world = world(2);
    write_leaves(&mut world, 0, 3);
    world.run_for(5_000);
    world.part(0);
    write_leaves(&mut world, 0, 6);
    world.run_for(1_000);
    world.set_member(0, GROUP, false);
    world.run_for(1_000);
    world.set_member(0, GROUP, true);
    world.run_for(1_000);
    world.rejoin(0);
    while world.fired().of("shared_trees_left") == 0 {
        world.run_for(1);
    }
    world.crash_device(0, false);
    world.write_to_group(GROUP, "meanwhile");
    quiet(&mut world);
    assert_eq!((0..2).map(|n| leaves(&world, n)).collect::<Vec<_>>(), [4, 4]);
    assert!(world.fired().of("shared_trees_anew") > 0);
}
