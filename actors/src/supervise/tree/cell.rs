//! What is known about one node.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{
            AtomicBool, AtomicU8, AtomicU64,
            Ordering::{Relaxed, SeqCst},
        },
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use ractor::{ActorCell, ActorRef};
use tokio::{sync::broadcast, task::AbortHandle};

use super::{
    Activity, TreePath,
    info::{Census, Change, Handling, NodeInfo, Status},
};
#[cfg(feature = "chaos")]
use crate::supervise::chaos::Chaos;
use crate::supervise::{
    address::Gauge,
    context::Life,
    core::Incarnation,
    crash::{Crash, Digest},
    shell::ShellMsg,
    spec::ChildId,
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
    /// Messages that are not to be handled any more; none for nearly everybody.
    condemned: ArcSwapOption<Vec<Digest>>,
    #[cfg(feature = "chaos")]
    chaos: Mutex<Option<Chaos>>,
    #[cfg(feature = "chaos")]
    bad_starts: AtomicU8,
    control: Mutex<Control>,
    killed: AtomicBool,
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
pub(crate) enum Live {
    /// An actor; supervisors have no messages that could be kept from them.
    Actor { actor: ActorCell, life: Option<Arc<Life>> },
    /// A task.
    Task(AbortHandle),
}

impl Live {
    /// Kills it: no message is handled after the one in flight, and that one
    /// goes on to its next await.
    pub(crate) fn kill(&self) {
        match self {
            Self::Actor { actor, life } => {
                if let Some(life) = life {
                    life.kill();
                }
                actor.kill();
            }
            Self::Task(task) => task.abort(),
        }
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
            condemned: ArcSwapOption::empty(),
            #[cfg(feature = "chaos")]
            chaos: Mutex::default(),
            #[cfg(feature = "chaos")]
            bad_starts: AtomicU8::new(0),
            control: Mutex::default(),
            killed: AtomicBool::new(false),
            changes,
        }
    }

    pub(crate) fn path(&self) -> &TreePath {
        &self.path
    }

    pub(crate) fn id(&self) -> &ChildId {
        &self.id
    }

    /// When it last began to handle a message from somebody else, or was born.
    pub(crate) fn last_used(&self) -> Duration {
        self.activity.last_used().max(self.born())
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

    pub(crate) fn status(&self) -> Status {
        Status::from_u8(self.status.load(SeqCst))
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
        let woken = self.status() == Status::Passive;
        if self.incarnation.swap(life.0, Relaxed) != 0 && !woken {
            self.restarts.fetch_add(1, Relaxed);
        }
        let micros = u64::try_from(now.as_micros()).unwrap_or(u64::MAX);
        self.born.store(micros, Relaxed);
        self.activity.clear();
        self.set_status(Status::Starting);
    }

    /// The life has begun.
    pub(crate) fn live(&self, live: Live, supervisor: Option<ActorRef<ShellMsg>>) {
        self.hand_over(live, supervisor);
        self.set_status(Status::Running);
    }

    /// Whom to tell from now on.
    pub(crate) fn hand_over(&self, live: Live, supervisor: Option<ActorRef<ShellMsg>>) {
        *self.control.lock().unwrap_or_else(PoisonError::into_inner) =
            Control { live: Some(live), supervisor };
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

    /// How long it will still be left alone, if it is.
    pub(crate) fn quarantined_for(&self, now: Duration) -> Option<Duration> {
        let until = Duration::from_millis(self.quarantined_until.load(Relaxed));
        (self.status() == Status::Quarantined).then(|| until.saturating_sub(now))
    }

    pub(crate) fn crashed(&self, crash: Arc<Crash>) {
        self.last_crash.store(Some(crash));
    }

    pub(crate) fn last_crash(&self) -> Option<Arc<Crash>> {
        self.last_crash.load_full()
    }

    pub(crate) fn condemn(&self, digests: Vec<Digest>) {
        self.condemned.store((!digests.is_empty()).then(|| Arc::new(digests)));
    }

    pub(crate) fn is_condemned(&self, digest: Digest) -> bool {
        self.condemned.load().as_ref().is_some_and(|condemned| condemned.contains(&digest))
    }

    /// Orders a fault, for the next time that the node looks for work.
    #[cfg(feature = "chaos")]
    pub(crate) fn order(&self, chaos: Chaos) -> bool {
        let Some(gauge) = self.gauge.as_ref().and_then(Weak::upgrade) else { return false };
        *self.chaos.lock().unwrap_or_else(PoisonError::into_inner) = Some(chaos);
        self.bad_starts.store(chaos.bad_starts(), Relaxed);
        gauge.stir();
        true
    }

    #[cfg(feature = "chaos")]
    pub(crate) fn ordered(&self) -> Option<Chaos> {
        self.chaos.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Whether this start is to fail.
    #[cfg(feature = "chaos")]
    pub(crate) fn starts_badly(&self) -> bool {
        let awaits_strike = self.chaos.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        let left = |left: u8| left.checked_sub(1).filter(|_| !awaits_strike);
        self.bad_starts.fetch_update(Relaxed, Relaxed, left).is_ok()
    }

    /// Has a message handled again.
    pub(crate) fn pardon(&self, digest: Digest) -> bool {
        // At once, for who sends it next; the supervisor forgets what it has counted.
        if let Some(condemned) = self.condemned.load_full() {
            self.condemn(condemned.iter().copied().filter(|known| *known != digest).collect());
        }
        self.ask_supervisor(ShellMsg::Pardon(self.id.clone(), digest))
    }

    pub(crate) fn kill(&self) -> bool {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let live = control.live.clone();
        drop(control);
        if matches!(live, Some(Live::Task(_))) {
            self.killed.store(true, Relaxed);
        }
        live.inspect(Live::kill).is_some()
    }

    /// Whether somebody killed it; supervisors hear that from ractor.
    pub(crate) fn was_killed(&self) -> bool {
        self.killed.load(Relaxed)
    }

    pub(crate) fn restart(&self) -> bool {
        self.ask_supervisor(ShellMsg::Restart(self.id.clone()))
    }

    pub(crate) fn release(&self) -> bool {
        self.status() == Status::Quarantined
            && self.ask_supervisor(ShellMsg::Release(self.id.clone()))
    }

    fn ask_supervisor(&self, wish: ShellMsg) -> bool {
        let control = self.control.lock().unwrap_or_else(PoisonError::into_inner);
        let supervisor = control.supervisor.clone();
        drop(control);
        supervisor.is_some_and(|supervisor| tell(&supervisor, wish).is_ok())
    }

    /// Adds it to the others of its kind.
    pub(crate) fn count(&self, census: &mut Census) {
        let gauge = self.gauge.as_ref().and_then(Weak::upgrade);
        let depth = gauge.map_or(0, |gauge| gauge.depth());
        census.by_status[self.seen_with(depth) as usize] += 1;
        census.depth += depth;
        census.deepest = census.deepest.max(depth);
        census.restarts += self.restarts.load(Relaxed);
    }

    /// Its status, for people: so many messages wait for it.
    fn seen_with(&self, depth: usize) -> Status {
        match self.status() {
            Status::Restarting if depth > 0 => Status::Stashing,
            status => status,
        }
    }

    pub(crate) fn info(&self, now: Duration) -> NodeInfo {
        let gauge = self.gauge.as_ref().and_then(Weak::upgrade);
        let depth = gauge.as_ref().map_or(0, |gauge| gauge.depth());
        let status = self.seen_with(depth);
        NodeInfo {
            path: self.path.clone(),
            kind: self.kind,
            status,
            quarantined_for: self.quarantined_for(now),
            incarnation: self.incarnation(),
            restarts: self.restarts.load(Relaxed),
            depth,
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
