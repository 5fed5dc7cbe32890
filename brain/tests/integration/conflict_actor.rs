//! The actor of a conflict, failing at each of its steps.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use actors::account::InFlight;
use actors::conflict::{ConflictActor, ConflictArgs, ConflictBoard};
use actors::device::{BrainAuthor, Commits, DeviceActor, DeviceArgs, DeviceMsg, TreeOf};
use actors::ports::{ConflictDesk, ConflictRecord, LinkEvent, LinkReceiver, ReadError};
use actors::supervise::{
    Address, Backoff, Child, ChildPolicy, DynamicSupervisor, Env, Restart, Root, SetPolicy,
    Supervisor,
};
use brain::clock::SystemClock;
use brain::store::{Store, StoreConfig};
use protocol::clock::{ClockQuality, Hlc};
use protocol::conflict::{Conflict, ConflictStatus, Resolution};
use protocol::history::{Author, Draft, Entry, Genesis, LogId, Provenance, Tree, TreeKind};
use protocol::keys::Keypair;
use protocol::state::{Path, StateSource, Value};
use protocol::{ConflictId, DeviceId, EntryId, FleetId, SyncError};
use tokio::sync::mpsc;

use crate::harness::SOON;

const DEVICE: DeviceId = DeviceId([7; 16]);
const FLEET: FleetId = FleetId([1; 16]);

/// Where the actor fails, once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// It reads what is left to do.
    Read,
    /// It looks for the twin.
    FindTwin,
    /// The resolution is on disk; nobody was told.
    BeforeTelling,
    /// Somebody was told.
    AfterTelling,
}

struct Board {
    store: Store,
    twin: Address<DeviceMsg>,
    fails_at: Mutex<Option<Step>>,
    told: Mutex<Vec<Option<Resolution>>>,
}

impl Board {
    fn reach(&self, step: Step) {
        let mut fails_at = self.fails_at.lock().expect("not poisoned");
        let fails = fails_at.take_if(|at| *at == step).is_some();
        drop(fails_at);
        assert!(!fails, "planned: {step:?}");
    }
}

impl ConflictBoard for Board {
    fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRecord>, ReadError> {
        self.reach(Step::Read);
        self.store.conflict(id)
    }

    fn twin(&self, _tree: &Genesis) -> Result<Address<DeviceMsg>, SyncError> {
        self.reach(Step::FindTwin);
        Ok(self.twin.clone())
    }

    fn tell(&self, _conflict: &Conflict, resolution: Option<&Resolution>) {
        self.reach(Step::BeforeTelling);
        self.told.lock().expect("not poisoned").push(resolution.cloned());
        self.reach(Step::AfterTelling);
    }
}

/// Notes which conflicts came.
#[derive(Default)]
struct Noted(Mutex<Vec<ConflictId>>);

impl ConflictDesk for Noted {
    fn noticed(&self, id: ConflictId) {
        self.0.lock().expect("not poisoned").push(id);
    }

    fn ended(&self, _id: ConflictId) {}
}

fn genesis() -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FLEET, name: DEVICE.to_string() }
}

/// One entry of an author who knows of nobody else.
fn alone(key: &Keypair, epoch: u64, path: &str, value: i64) -> (EntryId, Entry) {
    let mut author = Author::new(LogId { author: key.public(), epoch }, Hlc::default());
    let draft = Draft {
        changes: vec![(Path::new(path).expect("valid"), Some(Value::from(value)))],
        provenance: Provenance::new(StateSource::Hardware, "sensor:test", "changed"),
        lease_until_ms: None,
    };
    let quality = ClockQuality::Synchronised;
    let now_ms = 1_700_000_000_000 + epoch;
    let entry = author.write(&Tree::new(genesis()), draft, now_ms, quality).expect("a change");
    (entry.id(), entry)
}

async fn stored(events: &mut LinkReceiver) {
    loop {
        match *events.recv().await.expect("the link lives") {
            LinkEvent::Stored { .. } => return,
            LinkEvent::Sealed(_) => {}
            other => panic!("not stored: {other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_conflict_whose_actor_fails_at_any_step_is_resolved_once() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = Store::open(StoreConfig::new(folder.path()), FLEET, false).expect("opens");
    let backoff = Backoff { min: Duration::from_millis(1), ..Backoff::default() };
    let policy = ChildPolicy { restart: Restart::Transient, backoff, ..ChildPolicy::default() };
    let twins = DynamicSupervisor::<DeviceActor>::new(SetPolicy::dynamic(), policy, 1);
    let actors = DynamicSupervisor::<ConflictActor>::new(SetPolicy::dynamic(), policy, 10);
    let tree = Supervisor::new(SetPolicy::default())
        .child(Child::dynamic("devices", ChildPolicy::supervisor(), &twins))
        .child(Child::dynamic("conflicts", ChildPolicy::supervisor(), &actors));
    let root = Root::start("test", tree, Env::default()).await.expect("starts");
    let (key, noted) = (Keypair::from_seed(&[5; 32]), Arc::new(Noted::default()));
    let brain = Keypair::from_seed(&[3; 32]);
    let args = DeviceArgs {
        of: TreeOf::Device { device: DEVICE, keys: vec![key.public()] },
        fleet: FLEET,
        brain: BrainAuthor { brains: [brain.public()].into(), keypair: brain, epoch: 1 },
        store: Arc::new(store.clone()),
        conflicts: noted.clone(),
        clock: Arc::new(SystemClock::new(ClockQuality::Synchronised)),
        epochs: brain::random_epoch,
        commits: Commits::default(),
    };
    let twin = twins.start_child("twin", Arc::new(args)).expect("starts");
    let (link, mut events) = mpsc::channel(64);
    let attach = |reply| DeviceMsg::Attach {
        connection: 1,
        device: DEVICE,
        peer: "test".into(),
        link,
        reply,
    };
    twin.ask(attach, SOON).await.expect("an answer").expect("attached");

    let steps = [Step::Read, Step::FindTwin, Step::BeforeTelling, Step::AfterTelling];
    for (n, step) in (0u64..).zip(steps) {
        let path = format!("reported/{n}");
        for epoch in [2 * n + 1, 2 * n + 2] {
            let (id, entry) = alone(&key, epoch, &path, epoch as i64);
            let message = DeviceMsg::EntriesCame {
                connection: 1,
                log: entry.log,
                entries: vec![(id, entry)],
                bytes: 100,
                in_flight: InFlight::default(),
                traces: Vec::new(),
            };
            twin.cast(message, SOON).await.expect("taken");
            stored(&mut events).await;
        }
        let began = Instant::now();
        let id = loop {
            if let Some(id) = noted.0.lock().expect("not poisoned").pop() {
                break id;
            }
            assert!(began.elapsed() < SOON, "nobody hears of it");
            tokio::time::sleep(Duration::from_millis(1)).await;
        };
        let record = store.conflict(id).expect("reads").expect("is there");
        assert_eq!(record.conflict.status, ConflictStatus::Open);
        assert_eq!(store.open_conflicts(10), [id], "found again after a start");
        let board = Arc::new(Board {
            store: store.clone(),
            twin: twin.clone(),
            fails_at: Mutex::new(Some(step)),
            told: Mutex::default(),
        });
        let args = ConflictArgs { id, board: board.clone() };
        actors.start_child(id.to_string(), Arc::new(args)).expect("starts");
        while actors.find(&id.to_string()).is_some() {
            assert!(began.elapsed() < SOON, "{step:?}: it does not end");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(*board.fails_at.lock().expect("not poisoned"), None, "{step:?} was reached");
        let record = store.conflict(id).expect("reads").expect("is there");
        let resolution = record.resolution.expect("resolved");
        assert_eq!(record.conflict.status, ConflictStatus::Resolved);
        assert_eq!(resolution.result, Some(Value::from((2 * n + 2) as i64)), "the later");
        let told = board.told.lock().expect("not poisoned").clone();
        let times = if step == Step::AfterTelling { 2 } else { 1 };
        assert_eq!(told, vec![Some(resolution); times], "{step:?}: the same each time");
        assert_eq!(store.open_conflicts(10), []);
    }
    root.stop().await;
}
