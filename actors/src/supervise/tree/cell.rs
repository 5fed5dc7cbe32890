//! What is known about one node.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicU8, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use ractor::{ActorCell, ActorRef};
use tokio::sync::broadcast;

use super::{
    Activity, TreePath,
    info::{Change, Handling, NodeInfo, Status},
};
use crate::supervise::{
    address::Gauge, context::Life, core::Incarnation, crash::Crash, shell::ShellMsg, spec::ChildId,
    tell::tell,
};

/// The record of one node, through all its lives.
pub(crate) struct NodeCell {
    path: TreePath,
    id: ChildId,
    kind: &'static str,
    status: AtomicU8,
    incarnation: AtomicU64,
    restarts: AtomicU64,
    /// In microseconds of the tree's time.
    born: AtomicU64,
    /// In milliseconds of the tree's time; only meant while quarantined.
    quarantined_until: AtomicU64,
    activity: Activity,
    gauge: Option<Weak<dyn Gauge>>,
    last_crash: ArcSwapOption<Crash>,
    control: Mutex<Control>,
    changes: broadcast::Sender<Change>,
}

/// Whom to tell when somebody looking at the tree wants something done.
#[derive(Default)]
struct Control {
    live: Option<Live>,
    supervisor: Option<ActorRef<ShellMsg>>,
}

/// The current life of a node.
#[derive(Clone)]
pub(crate) struct Live {
    pub(crate) actor: ActorCell,
    pub(crate) life: Option<Arc<Life>>,
}

impl Live {
    /// Kills it: no message is handled after the one in flight, and that one
    /// goes on to its next await.
    pub(crate) fn kill(&self) {
        if let Some(life) = &self.life {
            life.interrupt();
        }
        self.actor.kill();
    }
}

impl NodeCell {
    pub(crate) fn new(
        path: TreePath,
        id: ChildId,
        kind: &'static str,
        gauge: Option<Weak<dyn Gauge>>,
        changes: broadcast::Sender<Change>,
    ) -> Self {
        Self {
            path,
            id,
            kind,
            status: AtomicU8::new(Status::Starting as u8),
            incarnation: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            born: AtomicU64::new(0),
            quarantined_until: AtomicU64::new(0),
            activity: Activity::default(),
            gauge,
            last_crash: ArcSwapOption::empty(),
            control: Mutex::default(),
            changes,
        }
    }

    pub(crate) fn path(&self) -> &TreePath {
        &self.path
    }

    pub(crate) fn kind(&self) -> &'static str {
        self.kind
    }

    /// The current life, or the last one.
    pub(crate) fn incarnation(&self) -> Incarnation {
        Incarnation(self.incarnation.load(Relaxed))
    }

    /// When that life began.
    pub(crate) fn born(&self) -> Duration {
        Duration::from_micros(self.born.load(Relaxed))
    }

    pub(crate) fn activity(&self) -> &Activity {
        &self.activity
    }

    pub(crate) fn set_status(&self, status: Status) {
        if self.status.swap(status as u8, SeqCst) != status as u8 {
            self.tell(Some(status));
        }
    }

    /// It has left the tree.
    pub(crate) fn gone(&self) {
        self.tell(None);
    }

    fn tell(&self, status: Option<Status>) {
        if self.changes.receiver_count() > 0 {
            let (path, incarnation) = (self.path.clone(), self.incarnation());
            // Whoever looked on may have gone this moment.
            let _ = self.changes.send(Change { path, kind: self.kind, status, incarnation });
        }
    }

    /// A life is about to begin.
    pub(crate) fn begin(&self, life: Incarnation, now: Duration) {
        if self.incarnation.swap(life.0, Relaxed) != 0 {
            self.restarts.fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.born.store(micros, Relaxed);
        self.activity.clear();
        self.set_status(Status::Starting);
    }

    /// The life has begun.
    pub(crate) fn live(&self, live: Live, supervisor: Option<ActorRef<ShellMsg>>) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) =
            Control { live: Some(live), supervisor };
        self.set_status(Status::Running);
    }

    /// The life is over.
    pub(crate) fn over(&self, status: Status) {
        let mut control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        control.live = None;
        self.activity.clear();
        self.set_status(status);
    }

    pub(crate) fn quarantined(&self, until: Duration) {
        let millis = u64::try_from(until.as_millis()).unwrap_or(u64::MAX);
        self.quarantined_until.store(millis, Relaxed);
        self.set_status(Status::Quarantined);
    }

    pub(crate) fn crashed(&self, crash: Arc<Crash>) {
        self.last_crash.store(Some(crash));
    }

    pub(crate) fn kill(&self) -> bool {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let live = control.live.clone();
        drop(control);
        live.inspect(Live::kill).is_some()
    }

    pub(crate) fn restart(&self) -> bool {
        self.ask_supervisor(ShellMsg::Restart(self.id.clone()))
    }

    pub(crate) fn release(&self) -> bool {
        let quarantined = self.status.load(SeqCst) == Status::Quarantined as u8;
        quarantined && self.ask_supervisor(ShellMsg::Release(self.id.clone()))
    }

    fn ask_supervisor(&self, wish: ShellMsg) -> bool {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let supervisor = control.supervisor.clone();
        drop(control);
        supervisor.is_some_and(|supervisor| tell(&supervisor, wish).is_ok())
    }

    pub(crate) fn info(&self, now: Duration) -> NodeInfo {
        let gauge = self.gauge.as_ref().and_then(Weak::upgrade);
        let status = Status::from_u8(self.status.load(SeqCst));
        let until = Duration::from_millis(self.quarantined_until.load(Relaxed));
        NodeInfo {
            path: self.path.clone(),
            kind: self.kind,
            status,
            quarantined_for: (status == Status::Quarantined).then(|| until.saturating_sub(now)),
            incarnation: self.incarnation(),
            restarts: self.restarts.load(Relaxed),
            depth: gauge.as_ref().map_or(0, |gauge| gauge.depth()),
            capacity: gauge.as_ref().map_or(0, |gauge| gauge.capacity()),
            traffic: gauge.map(|gauge| gauge.traffic()).unwrap_or_default(),
            handling: self
                .activity
                .current()
                .map(|(label, since)| Handling { label, lasting: now.saturating_sub(since) }),
            busy: self.activity.busy(),
            slowest: self.activity.slowest(),
            last_crash: self.last_crash.load_full().map(|crash| (*crash).clone()),
        }
    }
}
