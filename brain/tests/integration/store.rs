//! The store: versions, times, snapshots, damage.

use std::path::Path as FsPath;
use std::sync::Arc;

use actors::device::{BrainAuthor, CutAnswer, Twin};
use actors::ports::{CommitError, LoadedTree, TreeCommit, TreeStore};
use brain::store::{OpenError, Store, StoreConfig, WhichVersion};
use protocol::clock::ClockQuality;
use protocol::history::{Cut, Genesis, Provenance, TreeKind};
use protocol::keys::Keypair;
use protocol::session::Now;
use protocol::state::{Path, State, StateSource};
use protocol::{DeviceId, FleetId};

use crate::harness::count;

pub(crate) const FLEET: FleetId = FleetId([1; 16]);
const DEVICE: DeviceId = DeviceId([2; 16]);

pub(crate) fn open(folder: &FsPath) -> Store {
    Store::open(config(folder), FLEET, false).expect("the store opens")
}

pub(crate) fn config(folder: &FsPath) -> StoreConfig {
    StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(folder.join("store")) }
}

pub(crate) fn twin(store: &Store, epoch: u64) -> Twin {
    let keypair = Keypair::from_seed(&[3; 32]);
    let brains = [keypair.public()].into();
    let genesis = Genesis { kind: TreeKind::Device, fleet: FLEET, name: DEVICE.to_string() };
    let loaded: LoadedTree = store.load(&genesis).expect("loads");
    Twin::new(DEVICE, Vec::new(), BrainAuthor { keypair, epoch, brains }, loaded)
}

pub(crate) fn at(ms: u64) -> Now {
    Now { wall_ms: ms, mono_ms: ms, quality: ClockQuality::Synchronised }
}

pub(crate) fn commit(store: &Store, commit: TreeCommit) -> Result<(), CommitError> {
    let (done, wait) = std::sync::mpsc::channel();
    store.commit(commit, Box::new(move |result| done.send(result).expect("somebody waits")));
    wait.recv().expect("an answer")
}

/// Writes `desired/count = n` at time `n * 10`.
pub(crate) fn write(store: &Store, twin: &mut Twin, n: u64) -> State {
    let changes = vec![(Path::new("desired/count").expect("valid"), Some(count(n)))];
    let provenance = Provenance::new(StateSource::Operator, "user:test", "counting");
    let written = twin.write(changes, provenance, at(n * 10)).expect("allowed").expect("a change");
    assert_eq!(written.version, n);
    commit(store, written.commit).expect("durable");
    twin.tree().state()
}

#[test]
fn every_version_and_time_gives_the_state_saved_then_also_after_a_restart() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut twin = twin(&store, 1);
    let number = twin.number();
    // With snapshots in between to start from.
    let states: Vec<State> = (1..=300).map(|n| write(&store, &mut twin, n)).collect();
    store.shut_down();
    drop(store);
    let store = open(folder.path());
    let read =
        |which| store.state(number, which).expect("reads").map(|at| (at.version, at.state.clone()));
    for (version, state) in (1..).zip(&states) {
        let expected = Some((version, state.clone()));
        assert_eq!(read(WhichVersion::At(version)), expected);
        assert_eq!(read(WhichVersion::CommittedBy(version * 10 + 9)), expected);
        assert_eq!(read(WhichVersion::HappenedBy(version * 10)), expected);
    }
    assert_eq!(read(WhichVersion::Latest), Some((300, states[299].clone())));
    assert_eq!(read(WhichVersion::At(301)), None);
    assert_eq!(read(WhichVersion::CommittedBy(9)), Some((0, State::new())));
    let snapshots = store.snapshots(number).expect("reads");
    assert!((4..=18).contains(&snapshots.len()), "{snapshots:?}");
    assert!(snapshots[0].size_bytes > 0 && !snapshots[0].on_demand);
}

#[test]
fn a_version_that_a_cut_made_is_read_like_any_other_and_the_past_stays() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut first = twin(&store, 1);
    let number = first.number();
    let states: Vec<State> = (1..=3).map(|n| write(&store, &mut first, n)).collect();
    let key = Keypair::from_seed(&[3; 32]);
    let entries = store.range(number, 0, 0, usize::MAX).expect("reads");
    let (second_id, second) = &entries[1];
    let cut = Cut::seal(&key, first.tree().id(), second.log, 2, *second_id);
    let CutAnswer::Below(cut) = first.take_cut(cut) else { panic!("entry 3 is above it") };
    let cut = *cut;
    let mut refold = first.cut_below(cut);
    entries.iter().for_each(|(_, entry)| refold.take(first.tree(), entry));
    let refolded = first.refolded(refold, at(40));
    commit(&store, refolded).expect("durable");
    let mut next = twin(&store, 2);
    assert_eq!((next.version(), next.tree().state()), (4, states[1].clone()));
    let last = write(&store, &mut next, 5);
    let read = |which| {
        let at = store.state(number, which).expect("reads").expect("exists");
        (at.version, at.state.clone())
    };
    let versions = [&states[0], &states[1], &states[2], &states[1], &last];
    for (version, state) in (1..).zip(versions) {
        assert_eq!(read(WhichVersion::At(version)), (version, state.clone()));
        assert_eq!(read(WhichVersion::CommittedBy(version * 10 + 9)), (version, state.clone()));
    }
    assert_eq!(read(WhichVersion::HappenedBy(45)).1, states[1], "entry 3 counts no longer");
    let changes = store.history(number, u64::MAX, 10).expect("reads");
    let listed: Vec<_> = changes.iter().map(|change| change.version).collect();
    assert_eq!(listed, [5, 3, 2, 1], "what was cut off stays as evidence");
}

#[test]
fn history_is_newest_first_and_pages_without_gaps() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut twin = twin(&store, 1);
    for n in 1..=101 {
        write(&store, &mut twin, n);
    }
    let versions = |until, limit| {
        let changes = store.history(twin.number(), until, limit).expect("reads");
        changes.into_iter().map(|change| change.version).collect::<Vec<_>>()
    };
    assert_eq!(versions(u64::MAX, 3), [101, 100, 99]);
    assert_eq!(versions(10, 3), [10, 9, 8]);
    assert_eq!(versions(u64::MAX, 0), [0; 0]);
    assert_eq!(versions(u64::MAX, 1_000), (1..=101).rev().collect::<Vec<_>>());
    let change = &store.history(twin.number(), 5, 1).expect("reads")[0];
    assert_eq!(change.entry.provenance.reason, "counting");
    assert_eq!(change.entry.provenance.source, StateSource::Operator);
}

#[test]
fn a_twin_loaded_again_is_the_twin_that_was_stored() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut first = twin(&store, 1);
    for n in 1..=20 {
        write(&store, &mut first, n);
    }
    let (seal, ..) = first.seal().expect("unsealed entries");
    commit(&store, seal).expect("durable");
    let second = twin(&store, 2);
    assert_eq!(first.tree(), second.tree());
    assert_eq!(first.tree().root(), second.tree().root());
    assert_eq!(second.version(), 20);
}

#[test]
fn reading_a_state_again_is_a_hit_and_never_stale() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut twin = twin(&store, 1);
    write(&store, &mut twin, 1);
    let latest =
        || store.state(twin.number(), WhichVersion::Latest).expect("reads").expect("there");
    let first = latest();
    assert!(Arc::ptr_eq(&first, &latest()), "the second read comes from memory");
    assert_eq!(store.cache_counts().hits, 1);
    let mut twin = self::twin(&store, 2);
    let written = write(&store, &mut twin, 2);
    let number = twin.number();
    let now = store.state(number, WhichVersion::Latest).expect("reads").expect("there");
    assert_eq!(now.state, written);
}

#[test]
fn a_commit_behind_a_failed_one_fails_as_well() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let reserve = StoreConfig { disk_reserve_bytes: u64::MAX, ..config(folder.path()) };
    let store = Store::open(reserve, FLEET, false).expect("the store opens");
    let mut twin = twin(&store, 1);
    let changes = vec![(Path::new("desired/count").expect("valid"), Some(count(1)))];
    let provenance = Provenance::new(StateSource::Operator, "user:test", "counting");
    let written = twin.write(changes, provenance, at(1)).expect("allowed").expect("a change");
    let result = commit(&store, written.commit);
    assert!(matches!(result, Err(CommitError::DiskFull { .. })), "{result:?}");
    assert_eq!(store.commit_counts().entries, 0);
}

#[test]
fn a_store_below_its_mark_does_not_start_in_silence() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut twin = twin(&store, 1);
    write(&store, &mut twin, 1);
    store.shut_down();
    drop(store);
    let mark = folder.path().join("store/acknowledged");
    let acknowledged: u64 =
        std::fs::read_to_string(&mark).expect("reads").trim().parse().expect("a number");
    std::fs::write(&mark, (acknowledged + 1).to_string()).expect("writes");
    let refused = Store::open(config(folder.path()), FLEET, false);
    assert!(matches!(refused, Err(OpenError::BelowMark { .. })));
    Store::open(config(folder.path()), FLEET, true).expect("accepted by an operator's word");
}

#[test]
fn another_fleet_and_a_newer_format_are_refused() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    store.shut_down();
    drop(store);
    let refused = Store::open(config(folder.path()), FleetId([9; 16]), false);
    assert!(matches!(refused, Err(OpenError::OtherFleet { .. })));
}
