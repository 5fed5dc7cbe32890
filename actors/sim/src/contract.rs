//! What every tree store does, whatever is below it.
//!
//! [`check`] panics with the rule that does not hold. It needs a fresh store of its own and
//! leaves two trees in it.

use std::sync::mpsc;
use std::time::Duration;

use actors::device::{BrainAuthor, Twin};
use actors::ports::{CommitError, TreeCommit, TreeStore};
use protocol::clock::ClockQuality;
use protocol::history::{Genesis, Provenance, TreeKind};
use protocol::keys::Keypair;
use protocol::session::Now;
use protocol::state::{Path, StateSource, Value};
use protocol::{DeviceId, FleetId};

/// A commit takes no longer than this, on a slow disk and a busy machine.
const COMMIT_TIME_MAX: Duration = Duration::from_secs(30);
/// More than one read returns, more than one snapshot apart.
const ENTRIES: u64 = 600;

/// Checks the rules of [`TreeStore`] for a device's tree in the fleet `fleet`.
///
/// # Panics
/// If the store breaks one of them.
pub fn check(store: &impl TreeStore, fleet: FleetId) {
    a_new_tree_is_empty(store, fleet);
    commits_are_answered_in_order_and_stay(store, fleet);
    a_range_is_bounded_and_never_empty_before_the_end(store, fleet);
    each_loading_has_its_own_generation(store, fleet);
    trees_do_not_mix(store, fleet);
}

fn genesis(fleet: FleetId, device: DeviceId) -> Genesis {
    Genesis { kind: TreeKind::Device, fleet, name: device.to_string() }
}

const FIRST: DeviceId = DeviceId([0xC1; 16]);
const SECOND: DeviceId = DeviceId([0xC2; 16]);

fn twin(store: &impl TreeStore, fleet: FleetId, device: DeviceId) -> Twin {
    let keypair = Keypair::from_seed(&[0xC0; 32]);
    let brain = BrainAuthor { brains: [keypair.public()].into(), keypair, epoch: 7 };
    let loaded = store.load(&genesis(fleet, device)).expect("a sound store loads");
    Twin::new(device, Vec::new(), brain, loaded)
}

fn write(twin: &mut Twin, n: u64) -> TreeCommit {
    let path = Path::new(&format!("desired/leaf{}", n % 7)).expect("a valid path");
    let provenance = Provenance::new(StateSource::Operator, "test:contract", "");
    let value = Some(Value::from(n as i64));
    let now = Now { wall_ms: 1_000 + n, mono_ms: n, quality: ClockQuality::Synchronised };
    let written = twin.write(vec![(path, value)], provenance, now);
    written.expect("the brain may write desired").expect("a new value is a change").commit
}

/// Queues commits and returns their results in the order in which they came.
fn commit_all(
    store: &impl TreeStore,
    commits: Vec<TreeCommit>,
) -> Vec<(usize, Result<(), CommitError>)> {
    let (sender, results) = mpsc::channel();
    let count = commits.len();
    for (n, commit) in commits.into_iter().enumerate() {
        let sender = sender.clone();
        let done = move |result| sender.send((n, result)).unwrap_or_default();
        store.commit(commit, Box::new(done));
    }
    let next = |_| results.recv_timeout(COMMIT_TIME_MAX).expect("every commit is answered");
    (0..count).map(next).collect()
}

fn a_new_tree_is_empty(store: &impl TreeStore, fleet: FleetId) {
    let loaded = store.load(&genesis(fleet, FIRST)).expect("a sound store loads");
    assert_eq!(loaded.record.version, 0, "a new tree has no version");
    assert!(loaded.leaves.is_empty() && loaded.record.logs.is_empty(), "a new tree is empty");
    let range = store.range(loaded.number, 0, 0, 1_000).expect("an empty range reads");
    assert_eq!(range, [], "a new tree has no history");
}

fn commits_are_answered_in_order_and_stay(store: &impl TreeStore, fleet: FleetId) {
    let mut twin = twin(store, fleet, FIRST);
    let commits = (0..ENTRIES).map(|n| write(&mut twin, n)).collect();
    let results = commit_all(store, commits);
    let expected: Vec<_> = (0..results.len()).map(|n| (n, Ok(()))).collect();
    assert_eq!(results, expected, "commits are answered in the order in which they were queued");
    let loaded = store.load(&genesis(fleet, FIRST)).expect("a sound store loads");
    assert_eq!(loaded.number, twin.number(), "a tree keeps its number");
    assert_eq!(loaded.record.version, ENTRIES, "every commit is there");
    assert_eq!(loaded.record.logs, twin.tree().logs(), "the row is the last commit's");
    assert_eq!(loaded.leaves, *twin.tree().leaves(), "the leaves are the last commit's");
}

fn a_range_is_bounded_and_never_empty_before_the_end(store: &impl TreeStore, fleet: FleetId) {
    let loaded = store.load(&genesis(fleet, FIRST)).expect("a sound store loads");
    let mut after = 0;
    while after < ENTRIES {
        let entries = store.range(loaded.number, 0, after, 2_000).expect("a range reads");
        assert!(!entries.is_empty(), "there is an entry after {after}");
        for (id, entry) in entries {
            assert_eq!(entry.seq, after + 1, "a range has no gap");
            assert_eq!(entry.id(), id, "an entry comes with its id");
            after = entry.seq;
        }
    }
    assert_eq!(after, ENTRIES, "a range ends where the log does");
    let one = store.range(loaded.number, 0, 3, 0).expect("a range reads");
    assert!(one.first().is_some_and(|(_, entry)| entry.seq == 4), "one entry comes at least");
    let none = store.range(loaded.number, 0, ENTRIES, 1_000).expect("a range reads");
    assert_eq!(none, [], "nothing comes after the last entry");
    let none = store.range(loaded.number, 99, 0, 1_000).expect("a range reads");
    assert_eq!(none, [], "an unknown log has no entries");
}

fn each_loading_has_its_own_generation(store: &impl TreeStore, fleet: FleetId) {
    let load = || store.load(&genesis(fleet, FIRST)).expect("a sound store loads").generation;
    let (first, second) = (load(), load());
    assert!(second > first, "a later loading has a higher generation");
}

fn trees_do_not_mix(store: &impl TreeStore, fleet: FleetId) {
    let mut second = twin(store, fleet, SECOND);
    let commit = write(&mut second, 1);
    assert!(commit_all(store, vec![commit]).iter().all(|(_, result)| result.is_ok()));
    let first = store.load(&genesis(fleet, FIRST)).expect("a sound store loads");
    assert_ne!(first.number, second.number(), "two trees have two numbers");
    assert_eq!(first.record.version, ENTRIES, "one tree's commit is not another's");
    let range = store.range(second.number(), 0, 0, 1_000).expect("a range reads");
    assert_eq!(range.len(), 1, "one tree's history is not another's");
}
