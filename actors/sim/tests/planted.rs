//! Bugs put in on purpose: a check that does not notice them is worth nothing.

use sim::store::Bug;
use sim::world::{Complaint, Config, World};

/// A busy world whose brain crashes again and again.
fn complaints(bug: Option<Bug>) -> Vec<Complaint> {
    let config = Config { devices: 2, bug, fsync_ms: 50..60, ..Config::default() };
    let mut world = World::new(5, config);
    for round in 0..60 {
        for n in 0..2 {
            world.write(n, &format!("leaf{}", round % 5));
            world.write_desired(n, &format!("leaf{}", round % 3));
        }
        world.run_for(190);
        if round % 10 == 9 {
            // Into the time between a commit and its fsync.
            while world.store().queued() == 0 && world.now_ms() < 100_000 {
                world.write_desired(0, "late");
                world.run_for(1);
            }
            world.run_for(30);
            world.crash_brain(0, 100, false);
            world.run_for(5_000);
        }
    }
    world.heal();
    world.run_until_quiet(600_000);
    world.check()
}

#[test]
fn a_sound_store_gives_no_complaint() {
    assert_eq!(complaints(None), Vec::<Complaint>::new());
}

#[test]
fn a_store_that_acknowledges_before_it_syncs_is_noticed() {
    let complaints = complaints(Some(Bug::AcknowledgesBeforeSync));
    let lost = |complaint: &Complaint| {
        matches!(complaint, Complaint::AckedLost { .. } | Complaint::WriteLost { .. })
    };
    assert!(complaints.iter().any(lost), "{complaints:?}");
}

#[test]
fn a_store_that_forgets_commits_is_noticed() {
    let complaints = complaints(Some(Bug::ForgetsCommits));
    let wrong = |complaint: &Complaint| matches!(complaint, Complaint::Store(_));
    assert!(complaints.iter().any(wrong), "{complaints:?}");
}

/// A world whose links deliver every fifth frame twice.
#[cfg(feature = "planted-faults")]
fn complaints_over_links_that_repeat() -> Vec<Complaint> {
    use sim::network::{Hostility, LinkKind};

    let link = LinkKind::Hostile(Hostility {
        latency_ms: 5..40,
        drop_permille: 0,
        duplicate_permille: 200,
        reorder_permille: 0,
        truncate_permille: 0,
        split_permille: 0,
    });
    let mut world =
        World::new(7, Config { devices: 2, link, impatient: true, ..Config::default() });
    for round in 0..100 {
        for n in 0..2 {
            world.write(n, &format!("leaf{}", round % 5));
            world.write_desired(n, &format!("leaf{}", round % 3));
        }
        world.run_for(100);
    }
    assert!(world.fired().of("frames_duplicated") > 50, "{}", world.fired());
    world.heal();
    world.run_until_quiet(60_000);
    world.check()
}

/// A world in which a device's clock is ten years ahead for a while, with writes both ways.
#[cfg(feature = "planted-faults")]
fn complaints_about_a_clock_ten_years_ahead() -> Vec<Complaint> {
    let mut world = World::new(7, Config::default());
    world.write(0, "before");
    world.run_for(5_000);
    world.jump_device_clock(0, sim::clock::TEN_YEARS_MS);
    for n in 0..10 {
        world.write(0, &format!("leaf{n}"));
        world.run_for(500);
        world.write_desired(0, &format!("leaf{n}"));
    }
    world.heal();
    world.write(0, "after");
    world.run_until_quiet(60_000);
    world.check()
}

#[cfg(feature = "planted-faults")]
mod in_the_protocol {
    use protocol::planted::{Fault, plant};
    use sim::fleet;
    use sim::store::Violation;

    use super::*;

    #[test]
    fn an_entry_taken_twice_is_noticed() {
        assert_eq!(complaints_over_links_that_repeat(), []);
        let complaints = {
            let _planted = plant(Fault::DedupOff);
            complaints_over_links_that_repeat()
        };
        // Broken: each entry is applied once, in the order of its log.
        let again = |complaint: &Complaint| {
            matches!(complaint, Complaint::Store(Violation::Sequence { expected, found, .. })
                if found < expected)
        };
        assert!(complaints.iter().any(again), "{complaints:?}");
    }

    #[test]
    fn a_clock_that_takes_others_along_is_noticed() {
        assert_eq!(complaints_about_a_clock_ten_years_ahead(), []);
        let complaints = {
            let _planted = plant(Fault::ClockBoundOff);
            complaints_about_a_clock_ten_years_ahead()
        };
        // Broken: what is dated more than 60 s ahead is not taken, and nobody's clock follows it.
        for author in [fleet::device_key(1).public(), fleet::brain_key().public()] {
            let ahead = |complaint: &Complaint| matches!(complaint, Complaint::DatedAhead { log, .. } if log.author == author);
            assert!(complaints.iter().any(ahead), "{author:?} in {complaints:?}");
        }
    }
}
