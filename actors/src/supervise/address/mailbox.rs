//! The queue that an address owns and the lives of its node take from.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use ractor::ActorRef;
use serde::Serialize;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::Instant,
};

use super::CastError;
use crate::supervise::{core::Incarnation, tell::tell};

/// What ractor's mailbox is given instead of messages: there is work.
pub(crate) struct Wake;

/// A message on its way.
pub(crate) struct Envelope<M> {
    pub(crate) message: M,
    /// Who asked will not wait longer than this.
    pub(crate) deadline: Option<Instant>,
    /// The node cast it to itself: it holds no credit and dies with its life.
    pub(crate) own: bool,
    /// A later one with the same key takes its place.
    pub(crate) key: Option<u64>,
}

/// The bounded queue of one node.
pub(crate) struct Mailbox<M> {
    lanes: Mutex<Lanes<M>>,
    credits: Semaphore,
    capacity: usize,
    counters: Counters,
}

struct Lanes<M> {
    queue: VecDeque<Envelope<M>>,
    /// Cast by a life to itself while it started: comes before all that waits.
    first: VecDeque<M>,
    /// What a life left for the next one before it went passive.
    keepsake: Option<Box<M>>,
    /// The life that takes from the queue, and how to wake it.
    reader: Option<Reader>,
    /// Has the node started again: it is passive.
    rouse: Option<Rouse>,
    /// A token is on its way to the reader, or it is at work, or not yet ready.
    awake: bool,
    open: bool,
}

/// Has a passive node started again.
pub(crate) type Rouse = Box<dyn FnOnce() + Send>;

struct Reader {
    life: Incarnation,
    actor: ActorRef<Wake>,
    starting: bool,
}

#[derive(Default)]
struct Counters {
    handled: AtomicU64,
    own: AtomicU64,
    expired: AtomicU64,
    lost: AtomicU64,
    refused: AtomicU64,
    conflated: AtomicU64,
}

/// What became of the messages so far.
///
/// Every message from others that was taken is handled, expired, lost, or
/// still counted in the depth.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Traffic {
    /// Messages from others whose handler ran to its end.
    pub handled: u64,
    /// The same for messages that the node had cast to itself.
    pub own: u64,
    /// Questions skipped because their deadline had passed.
    pub expired: u64,
    /// Messages in flight at a crash, or queued when the node ended for good.
    pub lost: u64,
    /// Messages not taken because the queue was full.
    pub refused: u64,
    /// Messages in the queue whose place a later one took.
    pub conflated: u64,
}

/// How a message left the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Handled,
    Expired,
    Lost,
}

/// What can be read off a mailbox, whatever its messages.
pub(crate) trait Gauge: Send + Sync {
    fn depth(&self) -> usize;
    fn capacity(&self) -> usize;
    fn traffic(&self) -> Traffic;
    /// Has the node look for itself whether there is work.
    #[cfg(feature = "chaos")]
    fn stir(&self);
}

impl<M: Send + 'static> Mailbox<M> {
    pub(crate) fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, Semaphore::MAX_PERMITS);
        Self {
            lanes: Mutex::new(Lanes {
                queue: VecDeque::new(),
                first: VecDeque::new(),
                keepsake: None,
                reader: None,
                rouse: None,
                awake: false,
                open: true,
            }),
            credits: Semaphore::new(capacity),
            capacity,
            counters: Counters::default(),
        }
    }

    /// Takes a credit if there is one.
    pub(crate) fn try_admit(&self) -> bool {
        let admitted = self.credits.try_acquire().map(SemaphorePermit::forget);
        admitted.is_ok()
    }

    /// Waits for a credit.
    pub(crate) async fn admit(&self) -> bool {
        let admitted = self.credits.acquire().await.map(SemaphorePermit::forget);
        admitted.is_ok()
    }

    /// Counts a message that was not taken.
    pub(crate) fn refuse(&self) {
        self.counters.refused.fetch_add(1, Relaxed);
    }

    /// Queues a message that holds a credit; gives it back when the node is down.
    pub(crate) fn deliver(&self, message: M, deadline: Option<Instant>) -> Result<(), M> {
        let mut lanes = self.lanes();
        if !lanes.open {
            drop(lanes);
            self.credits.add_permits(1);
            return Err(message);
        }
        lanes.queue.push_back(Envelope { message, deadline, own: false, key: None });
        wake(lanes);
        Ok(())
    }

    /// Puts a message in the place of the one in the queue that has its key, or queues it; gives
    /// it back when there is no room or the node is down.
    pub(crate) fn conflate(&self, key: u64, message: M) -> Result<(), CastError<M>> {
        let mut lanes = self.lanes();
        if !lanes.open {
            return Err(CastError::Down(message));
        }
        if let Some(known) = lanes.queue.iter_mut().find(|known| known.key == Some(key)) {
            let stale = std::mem::replace(&mut known.message, message);
            drop(lanes);
            self.counters.conflated.fetch_add(1, Relaxed);
            // Dropping a message runs foreign code.
            drop(stale);
            return Ok(());
        }
        if !self.try_admit() {
            drop(lanes);
            self.refuse();
            return Err(CastError::Full(message));
        }
        lanes.queue.push_back(Envelope { message, deadline: None, own: false, key: Some(key) });
        wake(lanes);
        Ok(())
    }

    /// Queues what a life casts to itself; false if that life is over.
    pub(crate) fn deliver_own(&self, life: Incarnation, message: M) -> bool {
        let mut lanes = self.lanes();
        match lanes.reader.as_ref().filter(|reader| reader.life == life) {
            None => return false,
            Some(reader) if reader.starting => lanes.first.push_back(message),
            Some(_) => {
                lanes.queue.push_back(Envelope { message, deadline: None, own: true, key: None });
            }
        }
        wake(lanes);
        true
    }

    /// Wakes a life without a message.
    pub(crate) fn nudge(&self, life: Incarnation) {
        let lanes = self.lanes();
        if lanes.reader.as_ref().is_some_and(|reader| reader.life == life) {
            wake(lanes);
        }
    }

    /// A new life takes over; it is not woken before it says that it is ready.
    pub(crate) fn attach(&self, life: Incarnation, actor: ActorRef<Wake>) {
        let mut lanes = self.lanes();
        let stale = lanes.take_own();
        if let Some(message) = lanes.keepsake.take() {
            let message = *message;
            lanes.queue.push_front(Envelope { message, deadline: None, own: true, key: None });
        }
        lanes.rouse = None;
        lanes.reader = Some(Reader { life, actor, starting: true });
        lanes.awake = true;
        lanes.open = true;
        drop(lanes);
        // Dropping a message runs foreign code.
        drop(stale);
    }

    /// The new life is ready; it looks for itself whether there is work.
    pub(crate) fn ready(&self, life: Incarnation) {
        let mut lanes = self.lanes();
        if let Some(reader) = lanes.reader.as_mut().filter(|reader| reader.life == life) {
            reader.starting = false;
            lanes.awake = false;
            wake(lanes);
        }
    }

    /// A life is over: messages wait.
    pub(crate) fn detach(&self, life: Incarnation) {
        let mut lanes = self.lanes();
        if lanes.reader.as_ref().is_some_and(|reader| reader.life == life) {
            lanes.reader = None;
            let stale = lanes.take_own();
            drop(lanes);
            drop(stale);
        }
    }

    /// Keeps a message for the life after this one, which is about to go passive.
    pub(crate) fn keep(&self, life: Incarnation, keepsake: M) {
        let mut lanes = self.lanes();
        if lanes.reader.as_ref().is_some_and(|reader| reader.life == life) {
            lanes.keepsake = Some(Box::new(keepsake));
        }
    }

    /// A life went passive: the next message has the node started again.
    pub(crate) fn rest(&self, life: Incarnation, rouse: Rouse) {
        let mut lanes = self.lanes();
        if lanes.reader.as_ref().is_none_or(|reader| reader.life != life) {
            return;
        }
        lanes.reader = None;
        let stale = lanes.take_own();
        let due = match lanes.queue.is_empty() {
            true => {
                // What the queue had grown to is not needed for who knows how long.
                lanes.queue = VecDeque::new();
                lanes.rouse = Some(rouse);
                None
            }
            false => Some(rouse),
        };
        drop(lanes);
        drop(stale);
        if let Some(rouse) = due {
            rouse();
        }
    }

    /// Closes it if the node is passive and nothing waits for it; says whether it did.
    pub(crate) fn close_passive(&self) -> bool {
        let passive = {
            let mut lanes = self.lanes();
            let passive = lanes.rouse.is_some() && lanes.queue.is_empty();
            lanes.open &= !passive;
            passive
        };
        if passive {
            self.close();
        }
        passive
    }

    /// Whether the node is passive.
    pub(crate) fn is_passive(&self) -> bool {
        self.lanes().rouse.is_some()
    }

    /// Nobody will come any more: what waits is lost, and what comes is refused.
    pub(crate) fn close(&self) {
        let mut lanes = self.lanes();
        lanes.open = false;
        lanes.reader = None;
        let first = std::mem::take(&mut lanes.first);
        let queue = std::mem::take(&mut lanes.queue);
        let passive = (lanes.keepsake.take(), lanes.rouse.take());
        drop(lanes);
        for envelope in queue.iter().filter(|envelope| !envelope.own) {
            self.settle(envelope.own, Fate::Lost);
        }
        drop((first, queue, passive));
    }

    pub(crate) fn is_open(&self) -> bool {
        self.lanes().open
    }

    /// The next message for this life.
    ///
    /// None means that there is no work, or none for this life: then a new
    /// token comes with the next message.
    pub(crate) fn take(&self, life: Incarnation) -> Option<Envelope<M>> {
        let mut lanes = self.lanes();
        if lanes.reader.as_ref().is_none_or(|reader| reader.life != life) {
            return None;
        }
        if let Some(message) = lanes.first.pop_front() {
            return Some(Envelope { message, deadline: None, own: true, key: None });
        }
        let envelope = lanes.queue.pop_front();
        if envelope.is_none() {
            lanes.awake = false;
        }
        envelope
    }

    /// A message taken from the queue has met its fate; its credit is free.
    pub(crate) fn settle(&self, own: bool, fate: Fate) {
        let counters = &self.counters;
        let counter = match fate {
            Fate::Handled if own => &counters.own,
            Fate::Handled => &counters.handled,
            Fate::Expired => &counters.expired,
            Fate::Lost => &counters.lost,
        };
        if fate == Fate::Handled || !own {
            counter.fetch_add(1, Relaxed);
        }
        if !own {
            self.credits.add_permits(1);
        }
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes<M>> {
        // Nothing that is done under the lock can panic half way.
        self.lanes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Sends the token unless the reader is awake anyway.
fn wake<M>(mut lanes: MutexGuard<'_, Lanes<M>>) {
    if let Some(rouse) = lanes.rouse.take() {
        drop(lanes);
        return rouse();
    }
    if lanes.awake {
        return;
    }
    if let Some(reader) = &lanes.reader {
        let actor = reader.actor.clone();
        lanes.awake = true;
        drop(lanes);
        // A reader that has just died is replaced by one who looks for itself.
        let _ = tell(&actor, Wake);
    }
}

impl<M> Lanes<M> {
    /// Takes out what a life that is over had cast to itself.
    fn take_own(&mut self) -> (VecDeque<M>, Vec<Envelope<M>>) {
        let first = std::mem::take(&mut self.first);
        if !self.queue.iter().any(|envelope| envelope.own) {
            return (first, Vec::new());
        }
        let (own, others) = std::mem::take(&mut self.queue)
            .into_iter()
            .partition::<Vec<_>, _>(|envelope| envelope.own);
        self.queue = others.into();
        (first, own)
    }
}

impl<M: Send + 'static> Gauge for Mailbox<M> {
    #[cfg(feature = "chaos")]
    fn stir(&self) {
        wake(self.lanes());
    }

    fn depth(&self) -> usize {
        self.capacity.saturating_sub(self.credits.available_permits())
    }

    fn capacity(&self) -> usize {
        self.capacity
    }

    fn traffic(&self) -> Traffic {
        let counters = &self.counters;
        Traffic {
            handled: counters.handled.load(Relaxed),
            own: counters.own.load(Relaxed),
            expired: counters.expired.load(Relaxed),
            lost: counters.lost.load(Relaxed),
            refused: counters.refused.load(Relaxed),
            conflated: counters.conflated.load(Relaxed),
        }
    }
}
