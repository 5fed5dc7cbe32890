//! Addresses: where to send, whoever answers there at the moment.
//!
//! An [`Address`] survives the restarts of its node. The messages wait not in
//! ractor's mailbox, which dies with the actor, but in a bounded queue that the
//! addresses own together; ractor's mailbox holds at most one token that says
//! "there is work". The guard takes the token and then handles a batch of
//! messages. This has three effects:
//!
//! - **A crash loses only the message in flight.** All others wait for the next
//!   incarnation, in order, within the same bound.
//! - **Queues are bounded** by credits. A message holds its credit until its
//!   handler has run, so [`Address::depth`] counts what is queued and in
//!   flight. Senders choose: [`Address::try_cast`] sheds, [`Address::cast`]
//!   waits, first come first served, and [`Address::conflate`] takes the place
//!   of an older message of its kind.
//! - **It is not slower than ractor's own mailbox**, which boxes every message
//!   and polls four channels for each. Here a message costs one credit and two
//!   short critical sections, and ractor is paid once for a batch.
//!
//! The queue is a `VecDeque` behind a mutex that is held for single pushes and
//! pops, never over an await and never while foreign code runs. A channel would
//! need its receiver handed from life to life, and would allocate its first
//! block for each of many thousand idle devices; this allocates on first use.

mod errors;
mod mailbox;
mod reply;

use std::{fmt, sync::Arc, time::Duration};

use tokio::{
    sync::oneshot,
    time::{Instant, timeout_at},
};

pub use errors::{AskError, CastError, Refusal};
pub use mailbox::Traffic;
pub use reply::Reply;

pub(super) use mailbox::{Envelope, Fate, Gauge, Mailbox, Rouse, Wake};

/// Where to send messages to one node, through all its incarnations.
pub struct Address<M> {
    mailbox: Arc<Mailbox<M>>,
}

impl<M: Send + 'static> Address<M> {
    /// An address where nobody answers yet: messages wait there.
    ///
    /// Give it to [`Child::node_at`](super::Child::node_at). Needed only where
    /// two nodes have to know each other.
    pub fn new(capacity: usize) -> Self {
        Self { mailbox: Arc::new(Mailbox::new(capacity)) }
    }

    /// Sends a message, or gives it back at once.
    pub fn try_cast(&self, message: M) -> Result<(), CastError<M>> {
        if !self.mailbox.try_admit() {
            self.mailbox.refuse();
            return Err(CastError::Full(message));
        }
        self.mailbox.deliver(message, None).map_err(CastError::Down)
    }

    /// Sends a message in place of the one with the same key that still waits, if there is one: for
    /// news of which only the latest counts. Without one it sheds, as [`try_cast`](Self::try_cast)
    /// does.
    pub fn conflate(&self, key: u64, message: M) -> Result<(), CastError<M>> {
        self.mailbox.conflate(key, message)
    }

    /// Sends a message as soon as there is room, or gives it back when there
    /// was none for as long as `deadline`.
    pub async fn cast(&self, message: M, deadline: Duration) -> Result<(), CastError<M>> {
        if !self.admit(after(deadline)).await {
            return Err(CastError::Full(message));
        }
        self.mailbox.deliver(message, None).map_err(CastError::Down)
    }

    /// Sends a question and waits for its answer, all within `deadline`.
    ///
    /// A question that is still in the queue then is skipped and counted.
    pub async fn ask<R: Send + 'static>(
        &self,
        question: impl FnOnce(Reply<R>) -> M,
        deadline: Duration,
    ) -> Result<R, AskError> {
        let deadline = after(deadline);
        if !self.admit(deadline).await {
            return Err(AskError::Full);
        }
        let (sender, answer) = oneshot::channel();
        let question = question(Reply::new(sender, deadline));
        if self.mailbox.deliver(question, Some(deadline)).is_err() {
            return Err(AskError::Down);
        }
        match timeout_at(deadline, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) if Instant::now() < deadline => Err(AskError::Dropped),
            Ok(Err(_)) | Err(_) => Err(AskError::Timeout),
        }
    }

    /// How many messages from others are queued or being handled.
    pub fn depth(&self) -> usize {
        self.mailbox.depth()
    }

    /// How many there may be.
    pub fn capacity(&self) -> usize {
        self.mailbox.capacity()
    }

    /// Whether the node has ended for good, as far as is known now.
    pub fn is_down(&self) -> bool {
        !self.mailbox.is_open()
    }

    /// Whether the node is passive: the next message has it started again.
    pub fn is_passive(&self) -> bool {
        self.mailbox.is_passive()
    }

    /// Whether both lead to the same node.
    pub fn same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }

    pub(super) fn mailbox(&self) -> &Arc<Mailbox<M>> {
        &self.mailbox
    }

    async fn admit(&self, deadline: Instant) -> bool {
        // Setting up a timer costs more than all the rest.
        self.mailbox.try_admit()
            || match timeout_at(deadline, self.mailbox.admit()).await {
                Ok(admitted) => admitted,
                Err(_) => {
                    self.mailbox.refuse();
                    false
                }
            }
    }
}

impl<M> Clone for Address<M> {
    fn clone(&self) -> Self {
        Self { mailbox: Arc::clone(&self.mailbox) }
    }
}

impl<M> fmt::Debug for Address<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Address").finish_non_exhaustive()
    }
}

/// The moment that lies this far ahead; what is too far for the clock becomes
/// a generation.
pub(super) fn after(duration: Duration) -> Instant {
    const GENERATION: Duration = Duration::from_secs(30 * 365 * 86_400);
    let now = Instant::now();
    now.checked_add(duration).unwrap_or(now + GENERATION)
}
