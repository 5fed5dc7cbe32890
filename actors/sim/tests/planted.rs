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
