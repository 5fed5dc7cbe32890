//! The store in memory keeps the rules of all stores, and loses what it is told to lose.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use actors::device::{BrainAuthor, Twin};
use actors::ports::{CommitError, TreeCommit, TreeStore};
use protocol::clock::ClockQuality;
use protocol::history::Provenance;
use protocol::session::Now;
use protocol::state::{Path, StateSource, Value};
use sim::fleet;
use sim::store::{MemoryStore, SyncMode};

#[test]
fn the_store_in_memory_keeps_the_contract() {
    let store = MemoryStore::new(SyncMode::AtCommit);
    sim::contract::check(&store, fleet::FLEET);
    assert_eq!(store.verify(), []);
}

struct Rig {
    store: MemoryStore,
    twin: Twin,
    written: u64,
    durable: Arc<AtomicUsize>,
    refused: Arc<AtomicUsize>,
}

impl Rig {
    fn new(store: MemoryStore) -> Self {
        let twin = load(&store);
        Self { store, twin, written: 0, durable: Arc::default(), refused: Arc::default() }
    }

    fn commit(&mut self) {
        let commit = self.next();
        let (durable, refused) = (self.durable.clone(), self.refused.clone());
        let done = move |result: Result<(), CommitError>| {
            let count = if result.is_ok() { durable } else { refused };
            count.fetch_add(1, Ordering::Relaxed);
        };
        self.store.commit(commit, Box::new(done));
    }

    fn next(&mut self) -> TreeCommit {
        self.written += 1;
        let path = Path::new("desired/n").expect("valid");
        let value = Some(Value::from(self.written as i64));
        let provenance = Provenance::new(StateSource::Operator, "test", "");
        let now = Now { wall_ms: 1_000, mono_ms: 0, quality: ClockQuality::Synchronised };
        let written = self.twin.write(vec![(path, value)], provenance, now);
        written.expect("allowed").expect("a change").commit
    }

    fn answered(&self) -> (usize, usize) {
        (self.durable.load(Ordering::Relaxed), self.refused.load(Ordering::Relaxed))
    }
}

fn load(store: &MemoryStore) -> Twin {
    let keypair = fleet::brain_key();
    let brain = BrainAuthor { brains: [keypair.public()].into(), keypair, epoch: 1 };
    let device = fleet::device_id(1);
    let loaded = store.load(&fleet::genesis(device)).expect("loads");
    Twin::new(device, Vec::new(), brain, loaded)
}

fn rig() -> Rig {
    Rig::new(MemoryStore::new(SyncMode::OnDemand))
}

#[test]
fn a_crash_loses_what_was_not_synced_and_tells_nobody() {
    let mut rig = rig();
    (0..3).for_each(|_| rig.commit());
    rig.store.sync();
    (0..5).for_each(|_| rig.commit());
    assert_eq!(rig.store.crash(2), 3);
    assert_eq!(rig.answered(), (3, 0));
    assert_eq!(load(&rig.store).version(), 5, "two more had reached the disk");
    assert_eq!(rig.store.verify(), []);
}

#[test]
fn a_full_disk_refuses_until_there_is_room_and_the_tree_is_loaded_again() {
    let mut rig = rig();
    rig.commit();
    rig.store.sync();
    rig.store.set_full(true);
    (0..2).for_each(|_| rig.commit());
    rig.store.sync();
    rig.store.set_full(false);
    rig.commit();
    rig.store.sync();
    assert_eq!(rig.answered(), (1, 3), "what builds on a failed commit fails too");
    rig.twin = load(&rig.store);
    rig.commit();
    rig.store.sync();
    assert_eq!(rig.answered(), (2, 3));
    assert_eq!(rig.store.verify(), []);
}

#[test]
fn after_a_failed_fsync_nothing_is_written_until_a_restart() {
    let mut rig = rig();
    rig.store.fail_next_sync();
    rig.commit();
    rig.store.sync();
    rig.commit();
    rig.store.sync();
    assert!(rig.store.is_broken());
    assert_eq!(rig.answered(), (0, 2));
    rig.store.crash(1);
    assert_eq!(load(&rig.store).version(), 1, "what was written may be there or not");
    assert!(!rig.store.is_broken());
}

#[test]
fn a_commit_out_of_order_is_a_violation() {
    let mut rig = rig();
    rig.commit();
    let skipped = rig.next();
    rig.commit();
    rig.store.sync();
    assert!(!rig.store.verify().is_empty());
    drop(skipped);
}
