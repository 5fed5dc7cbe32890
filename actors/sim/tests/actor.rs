//! The device's actor under supervision, over a store that fails when told to.

use std::sync::Arc;
use std::time::Duration;

use actors::device::{
    BrainAuthor, Commits, DeviceActor, DeviceArgs, DeviceMsg, Precondition, TreeOf, WriteOutcome,
};
use actors::ports::{LinkEvent, LinkReceiver};
use actors::supervise::{
    Address, Backoff, Child, ChildPolicy, DynamicSupervisor, Env, Restart, Root, SetPolicy,
    Supervisor,
};
use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{Author, Cut, Draft, Entry, LogId, Provenance, Tree};
use protocol::session::Replica;
use protocol::state::{Path, StateSource, Value};
use protocol::wire::Refuse;
use protocol::{EntryId, ErrorCode, SyncError};
use sim::clock::{START_MS, SimClock};
use sim::fleet;
use sim::store::{MemoryStore, SyncMode};
use tokio::sync::mpsc;

const TIME: Duration = Duration::from_secs(30);

struct Rig {
    root: Root,
    set: DynamicSupervisor<DeviceActor>,
    store: MemoryStore,
    clock: SimClock,
}

impl Rig {
    async fn new() -> Self {
        let backoff = Backoff { min: Duration::from_millis(10), ..Backoff::default() };
        let policy = ChildPolicy { restart: Restart::Transient, backoff, ..ChildPolicy::default() };
        let set = DynamicSupervisor::new(SetPolicy::dynamic(), policy, 10);
        let tree = Supervisor::new(SetPolicy::default());
        let tree = tree.child(Child::dynamic("devices", ChildPolicy::supervisor(), &set));
        let root = Root::start("sim", tree, Env::default()).await.expect("starts");
        let clock = SimClock::default();
        Self { root, set, store: MemoryStore::new(SyncMode::AtCommit), clock }
    }

    fn twin(&self) -> Address<DeviceMsg> {
        let keypair = fleet::brain_key();
        let args = || {
            Arc::new(DeviceArgs {
                of: TreeOf::Device {
                    device: fleet::device_id(1),
                    keys: vec![fleet::device_key(1).public()],
                },
                fleet: fleet::FLEET,
                brain: BrainAuthor { brains: [keypair.public()].into(), keypair, epoch: 1 },
                store: Arc::new(self.store.clone()),
                conflicts: Arc::new(()),
                clock: Arc::new(self.clock.clone()),
                epochs: || 7,
                commits: Commits::default(),
            })
        };
        self.set.ensure_child("twin", args).expect("there is room")
    }

    fn restarts(&self) -> u64 {
        self.root.tree().get("sim/devices/twin").map_or(0, |info| info.restarts)
    }
}

type Events = LinkReceiver;

async fn attach(
    twin: &Address<DeviceMsg>,
    connection: u64,
) -> (Result<Replica, SyncError>, Events) {
    let (link, events) = mpsc::channel(64);
    let (peer, device) = ("sim".to_owned(), fleet::device_id(1));
    let ask = |reply| DeviceMsg::Attach { connection, device, peer, link, reply };
    let attached = twin.ask(ask, TIME).await.expect("an answer");
    (attached.map(|attached| attached.replica), events)
}

/// The device's entries, with their ids.
fn entries(count: u64) -> Vec<(EntryId, Entry)> {
    let mut tree = Tree::new(fleet::genesis(fleet::device_id(1)));
    let log = LogId { author: fleet::device_key(1).public(), epoch: 1 };
    let mut author = Author::new(log, Hlc::default());
    let mut next = |n: u64| {
        let changes = vec![(Path::new("reported/n").expect("valid"), Some(Value::from(n as i64)))];
        let provenance = Provenance::new(StateSource::Hardware, "sim", "");
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let entry = author.write(&tree, draft, START_MS, ClockQuality::Synchronised);
        let entry = entry.expect("a new value");
        let id = entry.id();
        tree.apply(&entry, id);
        (id, entry)
    };
    (1..=count).map(&mut next).collect()
}

async fn send(twin: &Address<DeviceMsg>, connection: u64, entries: &[(EntryId, Entry)]) {
    let (log, entries) = (entries[0].1.log, entries.to_vec());
    let message = DeviceMsg::EntriesCame {
        connection,
        log,
        entries,
        bytes: 100,
        in_flight: actors::account::InFlight::default(),
        traces: Vec::new(),
    };
    twin.cast(message, TIME).await.expect("taken");
}

async fn stored(events: &mut Events) -> u64 {
    match *events.recv().await.expect("the link lives") {
        LinkEvent::Stored { position, consumed_bytes: 100, .. } => position.seq,
        other => panic!("not stored: {other:?}"),
    }
}

async fn closed(events: &mut Events) -> (ErrorCode, Option<u32>) {
    match *events.recv().await.expect("the link lives") {
        LinkEvent::Close { error, retry_after_ms } => (error.code, retry_after_ms),
        other => panic!("not closed: {other:?}"),
    }
}

async fn write(twin: &Address<DeviceMsg>, n: i64) -> Result<WriteOutcome, SyncError> {
    let changes = vec![(Path::new("desired/n").expect("valid"), Some(Value::from(n)))];
    let provenance = Provenance::new(StateSource::Operator, "user:ada", "test");
    let ask = |reply| DeviceMsg::Write {
        changes,
        provenance,
        only_if: Precondition::default(),
        trace: None,
        reply,
    };
    twin.ask(ask, TIME).await.expect("an answer")
}

#[tokio::test(start_paused = true)]
async fn a_failed_commit_closes_the_link_and_the_next_attach_resumes_from_the_disk() {
    let rig = Rig::new().await;
    let (twin, all) = (rig.twin(), entries(5));
    let (replica, mut events) = attach(&twin, 1).await;
    assert_eq!(replica.unwrap().logs, []);
    send(&twin, 1, &all[..3]).await;
    assert_eq!(stored(&mut events).await, 3);

    rig.store.set_full(true);
    send(&twin, 1, &all[3..]).await;
    assert_eq!(closed(&mut events).await, (ErrorCode::DiskFull, Some(5_000)));
    assert!(events.recv().await.is_none(), "the twin is gone, and with it its end of the link");
    let refused = write(&twin, 1).await.expect_err("still no room");
    assert_eq!(refused.code, ErrorCode::DiskFull);

    rig.store.set_full(false);
    let (replica, mut events) = attach(&twin, 2).await;
    let logs = replica.unwrap().logs;
    assert_eq!(logs.iter().map(|log| (log.seq, log.id)).collect::<Vec<_>>(), [(3, all[2].0)]);
    send(&twin, 2, &all[3..]).await;
    assert_eq!(stored(&mut events).await, 5);
    assert_eq!(write(&twin, 1).await.unwrap().version, 6);
    assert_eq!(rig.restarts(), 2);
    assert_eq!(rig.store.verify(), []);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_second_attach_ends_the_first_link_and_a_late_one_is_turned_away() {
    let rig = Rig::new().await;
    let (twin, all) = (rig.twin(), entries(3));
    let (_, mut first) = attach(&twin, 7).await;
    let (replica, mut second) = attach(&twin, 8).await;
    assert!(replica.is_ok());
    assert_eq!(closed(&mut first).await, (ErrorCode::Fenced, None));
    assert!(first.recv().await.is_none());
    let (late, _) = attach(&twin, 7).await;
    assert_eq!(late.expect_err("a newer one is here").code, ErrorCode::Fenced);
    send(&twin, 7, &all[..2]).await;
    send(&twin, 8, &all[..1]).await;
    assert_eq!(stored(&mut second).await, 1, "what came over the first link is not taken");
    assert_eq!(rig.restarts(), 0);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_failed_load_is_tried_again_and_what_waits_is_answered() {
    let rig = Rig::new().await;
    rig.store.fail_loads(2);
    let twin = rig.twin();
    assert_eq!(write(&twin, 1).await.unwrap().version, 1);
    assert_eq!(rig.restarts(), 2);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_new_link_hears_only_of_what_is_on_disk() {
    let rig = Rig::new().await;
    let store = MemoryStore::new(SyncMode::OnDemand);
    let rig = Rig { store, ..rig };
    let (twin, all) = (rig.twin(), entries(2));
    let (_, first) = attach(&twin, 1).await;
    send(&twin, 1, &all).await;
    drop(first);
    let attached = attach(&twin, 2);
    let meanwhile = async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        assert_eq!(rig.store.queued(), 2, "the entries and the settling commit");
        let (sync, write) = (tokio::time::sleep(Duration::from_secs(2)), write(&twin, 1));
        let sync = async {
            sync.await;
            rig.store.sync();
        };
        tokio::join!(write, sync).0
    };
    let ((replica, _events), written) = tokio::join!(attached, meanwhile);
    assert_eq!(written.expect("written").version, 3);
    let logs = replica.expect("attached").logs;
    assert_eq!(logs.iter().map(|log| log.seq).collect::<Vec<_>>(), [2], "not what came after");
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn what_a_device_refuses_for_its_timestamp_is_written_again_in_a_new_log() {
    const TEN_YEARS_MS: i64 = 10 * 365 * 24 * 60 * 60 * 1_000;
    let rig = Rig::new().await;
    let twin = rig.twin();
    let (attached, mut events) = attach(&twin, 1).await;
    let tree = attached.expect("attached").tree;
    rig.clock.jump(TEN_YEARS_MS);
    write(&twin, 1).await.expect("written");
    let LinkEvent::Stored { log: old, .. } = *events.recv().await.expect("the link lives") else {
        panic!("the write is news");
    };
    rig.clock.set_right();
    let refuse = Refuse {
        tree,
        log: old,
        seq: 1,
        error: protocol::session::error(ErrorCode::ClockAhead, "test", "ten years ahead"),
        now_ms: START_MS,
        credit_bytes: 0,
    };
    let message = DeviceMsg::PeerRefused { connection: 1, refuse };
    twin.cast(message, TIME).await.expect("taken");
    let (mut cut, mut new) = (None, None);
    while new.is_none() {
        match *events.recv().await.expect("the link lives") {
            LinkEvent::CutMade(made) => cut = Some((made.log, made.last_seq)),
            LinkEvent::Stored { log, position, .. } if log != old => {
                new = Some((log, position.seq))
            }
            LinkEvent::Stored { .. } | LinkEvent::Sealed(_) => {}
            other => panic!("unexpected: {other:?}"),
        }
    }
    assert_eq!(cut, Some((old, 0)));
    let (new, seq) = new.expect("a new log");
    assert_eq!((new.author, seq), (old.author, 1));
    assert!(rig.set.stop_child("twin").await);
    let twin = rig.twin();
    let (attached, _events) = attach(&twin, 2).await;
    let logs = attached.expect("attached").logs;
    let standing: Vec<_> = logs.iter().map(|log| (log.log, log.seq)).collect();
    assert_eq!(standing, [(new, 1)], "a new start does not go on with the log that ended");
    assert_eq!(write(&twin, 1).await.expect("accepted").entry, None, "the value is there");
    assert!(write(&twin, 2).await.expect("written").entry.is_some());
    assert_eq!(rig.store.verify(), []);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_below_entries_that_are_here_takes_back_what_they_changed() {
    let rig = Rig::new().await;
    let twin = rig.twin();
    let (_, mut events) = attach(&twin, 1).await;
    let own = entries(5);
    send(&twin, 1, &own).await;
    assert_eq!(stored(&mut events).await, 5);
    let genesis = fleet::genesis(fleet::device_id(1));
    let (log, tree) = (own[0].1.log, genesis.tree_id());
    let cut = |last_seq: u64, id: EntryId| {
        DeviceMsg::CutCame(Cut::seal(&fleet::device_key(1), tree, log, last_seq, id))
    };
    twin.cast(cut(3, own[4].0), TIME).await.expect("taken");
    let (attached, mut events) = attach(&twin, 2).await;
    assert_eq!(attached.expect("attached").logs[0].seq, 5, "entry 3 is another one");
    send(&twin, 2, &own[4..]).await;
    assert_eq!(stored(&mut events).await, 5);
    twin.cast(cut(3, own[2].0), TIME).await.expect("taken");
    let (attached, _events) = attach(&twin, 3).await;
    assert_eq!(attached.expect("attached").logs[0].seq, 3);
    let (version, value) = rig.store.with_tree(tree, |kept| {
        let kept = kept.expect("a tree");
        let n = kept
            .replica()
            .value(&Path::new("reported/n").expect("valid"))
            .map(|value| value.into_owned());
        (kept.record().version, n)
    });
    assert_eq!((version, value), (6, Some(Value::from(3))), "a version without an entry");
    assert_eq!(rig.store.with_tree(tree, |kept| kept.map(|kept| kept.history().count())), Some(5));
    assert_eq!(rig.store.verify(), []);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_twin_that_rests_goes_on_with_the_link_that_it_had() {
    let rig = Rig::new().await;
    let (twin, all) = (rig.twin(), entries(4));
    let (_, mut events) = attach(&twin, 1).await;
    for n in 0..4 {
        send(&twin, 1, &all[n..=n]).await;
        assert_eq!(stored(&mut events).await, n as u64 + 1);
        twin.cast(DeviceMsg::Rest, TIME).await.expect("taken");
        while !twin.is_passive() {
            tokio::task::yield_now().await;
        }
    }
    // Nobody waits for the commits of a device that is only written to by an operator either.
    assert_eq!(write(&twin, 1).await.expect("written").version, 5);
    assert!(matches!(*events.recv().await.expect("the link lives"), LinkEvent::Stored { .. }));
    assert_eq!(rig.restarts(), 0);
    // A connection that ends meanwhile is seen when the twin is needed again.
    tokio::time::sleep(Duration::from_secs(1)).await;
    twin.cast(DeviceMsg::Rest, TIME).await.expect("taken");
    drop(events);
    let (attached, _events) = attach(&twin, 1).await;
    assert!(attached.is_ok(), "{attached:?}");
    assert_eq!(rig.store.verify(), []);
    rig.root.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_twin_with_commits_under_way_does_not_rest() {
    let mut rig = Rig::new().await;
    rig.store = MemoryStore::new(SyncMode::OnDemand);
    let (twin, all) = (rig.twin(), entries(2));
    let (_, mut events) = attach(&twin, 1).await;
    send(&twin, 1, &all).await;
    twin.cast(DeviceMsg::Rest, TIME).await.expect("taken");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(!twin.is_passive());
    rig.store.sync();
    assert_eq!(stored(&mut events).await, 2);
    twin.cast(DeviceMsg::Rest, TIME).await.expect("taken");
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(twin.is_passive());
    rig.root.stop().await;
}
