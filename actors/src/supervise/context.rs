//! What a node knows about itself and can do for itself.

use std::{
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Acquire, Ordering::Release},
    },
    time::Duration,
};

use ractor::ActorRef;
use tokio::{task::AbortHandle, time::sleep};

use super::{
    address::{Address, Wake},
    core::Incarnation,
    crash::{Digest, Fault},
    guard::caught,
    node::NodeError,
    shell::Env,
    task_node::TaskNode,
    tasks::Tasks,
    tree::{Live, NodeCell, Status, TreePath},
};

/// Given as the reason to ractor when a node stops by itself.
pub(super) const NORMAL: &str = "normal";
/// Given as the reason to ractor when a node leaves memory until it is needed.
pub(super) const PASSIVE: &str = "passive";

/// What a node knows about itself in one incarnation.
///
/// Everything begun through it, be it a timer or a task, ends with the
/// incarnation.
pub struct Context<M> {
    address: Address<M>,
    cell: Arc<NodeCell>,
    env: Arc<Env>,
    incarnation: Incarnation,
    actor: ActorRef<Wake>,
    life: Arc<Life>,
    tasks: Tasks,
}

/// What the supervisor, the guard and the node's tasks say to each other about
/// one incarnation.
#[derive(Default)]
pub(super) struct Life {
    /// Read before every message.
    interrupted: AtomicBool,
    killed: AtomicBool,
    /// It leaves without a goodbye: it will be back.
    resting: AtomicBool,
    /// The digest of the message in flight, as a number; 0 where it has none.
    in_flight: AtomicU64,
    fault: Mutex<Option<(&'static str, Fault)>>,
}

impl Life {
    /// No message is to be handled after the one in flight.
    pub(super) fn interrupt(&self) {
        self.interrupted.store(true, Release);
    }

    /// It is being killed.
    pub(super) fn kill(&self) {
        self.killed.store(true, Release);
        self.interrupt();
    }

    pub(super) fn is_interrupted(&self) -> bool {
        self.interrupted.load(Acquire)
    }

    pub(super) fn is_resting(&self) -> bool {
        self.resting.load(Acquire)
    }

    /// A message is about to be handled.
    pub(super) fn in_flight(&self, digest: Option<Digest>) {
        self.in_flight.store(digest.map_or(0, |digest| u64::from_be_bytes(digest.0)), Release);
    }

    /// What tells the message that is being handled, or was last, from others.
    pub(super) fn digest(&self) -> Option<Digest> {
        let digest = self.in_flight.load(Acquire);
        (digest != 0).then(|| Digest(digest.to_be_bytes()))
    }

    /// What went wrong beside the handlers, and in which task.
    pub(super) fn take_fault(&self) -> Option<(&'static str, Fault)> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn fail(&self, task: &'static str, fault: Fault) {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert((task, fault));
        self.interrupt();
    }
}

impl<M: Send + 'static> Context<M> {
    pub(super) fn new(
        address: Address<M>,
        cell: Arc<NodeCell>,
        env: Arc<Env>,
        incarnation: Incarnation,
        actor: ActorRef<Wake>,
        life: Arc<Life>,
    ) -> Self {
        Self { address, cell, env, incarnation, actor, life, tasks: Tasks::default() }
    }

    /// Where this node is reached, through all its incarnations.
    pub fn address(&self) -> &Address<M> {
        &self.address
    }

    /// Its place in the tree.
    pub fn path(&self) -> &TreePath {
        self.cell.path()
    }

    /// Which of its lives this is.
    pub fn incarnation(&self) -> Incarnation {
        self.incarnation
    }

    /// Queues a message to itself, beyond the bound of the mailbox.
    ///
    /// Cast in [`Node::start`](super::Node::start), it comes before everything
    /// that waits; later, it comes last. It is not handed to another life.
    pub fn cast_self(&self, message: M) {
        self.address.mailbox().deliver_own(self.incarnation, message);
    }

    /// Casts a message to itself after a while.
    pub fn cast_after(&self, duration: Duration, message: M) -> Timer {
        let mailbox = Arc::clone(self.address.mailbox());
        let life = self.incarnation;
        Timer(self.tasks.spawn(async move {
            sleep(duration).await;
            mailbox.deliver_own(life, message);
        }))
    }

    /// Runs a task beside the handlers, such as the reading half of a socket.
    ///
    /// If it fails or panics, the node crashes, with `name` for the message.
    pub fn spawn(
        &self,
        name: &'static str,
        task: impl Future<Output = Result<(), NodeError>> + Send + 'static,
    ) -> Timer {
        let mailbox = Arc::clone(self.address.mailbox());
        let incarnation = self.incarnation;
        let life = Arc::clone(&self.life);
        Timer(self.tasks.spawn(async move {
            let fault = match caught(pin!(task)).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Fault::of(&*error),
                Err(fault) => fault,
            };
            life.fail(name, fault);
            mailbox.nudge(incarnation);
        }))
    }

    /// Says that a long handler still gets on, so that it is not taken for
    /// stuck.
    pub fn progress(&self) {
        self.cell.activity().renew(self.env.tree.now());
    }

    /// Waits for others, such as a store or somebody with a full mailbox: for as long as it takes
    /// the node is not taken for stuck.
    pub async fn waiting<T>(&self, on: impl Future<Output = T>) -> T {
        let activity = self.cell.activity();
        activity.excuse(true);
        let done = on.await;
        activity.excuse(false);
        self.progress();
        done
    }

    /// Whether it was killed, and goes on only because it has not awaited since.
    pub fn is_killed(&self) -> bool {
        self.life.killed.load(Acquire)
    }

    /// Says that the node lets go what it holds, before it stops.
    pub fn drain(&self) {
        self.cell.set_status(Status::Draining);
    }

    /// Runs a task as a node of its own, below this one in the tree: its panics and errors are
    /// told like crashes, and it can be killed. It is not restarted, and ends with this node.
    ///
    /// A path that is taken gets a plus at its end.
    pub fn spawn_node(
        &self,
        id: &str,
        kind: &'static str,
        task: impl Future<Output = Result<(), NodeError>> + Send + 'static,
    ) {
        let node = TaskNode::enter(&self.env, self.path(), id, kind);
        let cell = Arc::clone(node.cell());
        // It may be over before this is noted.
        cell.hand_over(Live::Task(self.tasks.spawn(node.run(Box::pin(task)))), None);
    }

    /// Ends the node after this message, as an exit in good order.
    pub fn stop(&self, reason: &str) {
        tracing::debug!(path = %self.path(), reason, "node stops by itself");
        self.life.interrupt();
        self.actor.stop(Some(NORMAL.to_owned()));
    }

    /// Leaves memory after this message, until the next one comes from somebody else; the node
    /// stays in the tree and does not say goodbye. What it needs to go on is handed over in
    /// `keepsake`, which the next life gets before all that waits then.
    pub fn rest(&self, keepsake: Option<M>) {
        if let Some(keepsake) = keepsake {
            self.address.mailbox().keep(self.incarnation, keepsake);
        }
        self.life.resting.store(true, Release);
        self.life.interrupt();
        self.actor.stop(Some(PASSIVE.to_owned()));
    }

    /// Ends the timers and tasks.
    pub(super) fn close(&self) {
        self.tasks.abort();
    }

    pub(super) fn life(&self) -> &Life {
        &self.life
    }
}

/// A timer or a task of a node; dropping this does not end it.
#[derive(Debug)]
pub struct Timer(AbortHandle);

impl Timer {
    /// Ends it, if it has not come to its end already.
    pub fn cancel(&self) {
        self.0.abort();
    }
}
