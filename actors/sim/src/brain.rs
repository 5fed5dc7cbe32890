//! The brain in one thread: twins over a [`MemoryStore`], and the answering sides of sessions.
//!
//! Carries out what `actors::device::DeviceActor` and the link's task carry out, without actors:
//! a commit's news go to the connection when the commit is durable, a failed commit drops the
//! twin and ends the connection, a newer connection fences the one before it.

mod groups;
mod link;
mod repair;
mod seat;

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use actors::device::{BrainAuthor, Clock};
use actors::ports::LinkEvent;
use protocol::history::{Change, LogId, Provenance, Tree};
use protocol::session::{Limits, Now};
use protocol::{EntryId, ErrorCode, SyncError, TreeId};

use crate::clock::SimClock;
use crate::fleet::{self, Whose};
use crate::network::LinkId;
use crate::random::Random;
use crate::store::MemoryStore;

use link::Connection;
use seat::{Completion, Seat};

/// What the brain does, for the world around it to carry out or to note.
#[derive(Debug)]
pub enum BrainEvent {
    /// Send a frame.
    Send(LinkId, Vec<u8>),
    /// End the connection.
    HangUp(LinkId),
    /// A write of the API is durable.
    Written(Whose, EntryId),
    /// A write of the API failed.
    WriteFailed(ErrorCode),
    /// An entry of a device was not taken.
    Refused(ErrorCode),
    /// A session ended on this side's own account.
    SessionEnded(ErrorCode),
    /// A device says that it has a log durably up to this entry.
    DeviceAcked {
        /// The connection.
        link: LinkId,
        /// Whose the tree is.
        whose: Whose,
        /// The log.
        log: LogId,
        /// The entry's number.
        stored: u64,
    },
}

/// A brain: one start of the process.
pub struct SimBrain {
    author: BrainAuthor,
    clock: SimClock,
    random: Random,
    limits: Limits,
    store: MemoryStore,
    seats: BTreeMap<Whose, Seat>,
    /// How many groups there are.
    groups: u8,
    connections: BTreeMap<LinkId, Connection>,
    next_connection: u64,
    completions: Arc<Mutex<VecDeque<Completion>>>,
    events: Vec<BrainEvent>,
}

impl SimBrain {
    /// A brain over what is in `store`, with so many groups. Each start has an `epoch` of its own.
    pub fn new(
        store: MemoryStore,
        clock: SimClock,
        random: Random,
        limits: Limits,
        epoch: u64,
        groups: u8,
    ) -> Self {
        let keypair = fleet::brain_key();
        let brains = [keypair.public()].into();
        Self {
            author: BrainAuthor { keypair, epoch, brains },
            next_connection: clock.true_ms(),
            clock,
            random,
            limits,
            store,
            seats: BTreeMap::new(),
            groups,
            connections: BTreeMap::new(),
            completions: Arc::default(),
            events: Vec::new(),
        }
    }

    /// The store.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The clock.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// The replica of a tree, where it is in memory.
    pub fn tree(&self, whose: Whose) -> Option<&Tree> {
        Some(self.seats.get(&whose)?.twin.as_ref()?.tree())
    }

    /// Makes queued commits durable and carries out what waited for that.
    pub fn sync(&mut self) {
        self.store.sync();
        self.complete();
    }

    /// Whether commits wait to become durable.
    pub fn must_sync(&self) -> bool {
        self.store.queued() > 0
    }

    /// Writes leaves of a tree, as an operator does through the API.
    pub fn write(&mut self, whose: Whose, changes: Vec<Change>, provenance: Provenance) {
        let now = self.now();
        if let Err(error) = self.write_now(whose, changes, provenance, now) {
            self.events.push(BrainEvent::WriteFailed(error.code));
        }
        self.complete();
    }

    /// Lets the history of a tree begin later. Returns whether anything was dropped.
    pub fn prune(&mut self, whose: Whose, choose: impl FnOnce(usize) -> usize) -> bool {
        let now = self.now();
        let pruned = self.prune_now(whose, choose, now).unwrap_or(false);
        self.complete();
        pruned
    }

    /// When the brain next wants to be called, on the simulation's clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        let seals = self.seats.values().filter_map(|seat| seat.seal_due_ms);
        let ticks = self.connections.values().filter_map(Connection::next_due_ms);
        seals.chain(ticks).min()
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let now = self.now();
        let due = |at: Option<u64>| at.is_some_and(|at| at <= now.mono_ms);
        let seals: Vec<_> = self
            .seats
            .iter()
            .filter(|(_, seat)| due(seat.seal_due_ms))
            .map(|(id, _)| *id)
            .collect();
        for whose in seals {
            self.seal(whose);
        }
        let links: Vec<_> = self
            .connections
            .iter()
            .filter(|(_, connection)| due(connection.next_due_ms()))
            .map(|(id, _)| *id)
            .collect();
        for link in links {
            self.tick_link(link, now.mono_ms);
        }
        self.complete();
    }

    /// What the brain has done since the last call.
    pub fn take_events(&mut self) -> Vec<BrainEvent> {
        std::mem::take(&mut self.events)
    }

    fn now(&self) -> Now {
        self.clock.now()
    }

    /// Carries out what waited for commits that the store has dealt with.
    fn complete(&mut self) {
        loop {
            // The guard must be gone before anything below queues the next commit.
            let next = self.completions.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            match next {
                Some(completion) => self.completed(completion),
                None => return,
            }
        }
    }

    /// Tells a connection what is new of a tree.
    fn deliver(&mut self, link: LinkId, of: Option<TreeId>, news: Vec<LinkEvent>) {
        for event in news {
            self.link_event(link, of, event);
        }
    }
}

fn denied(code: ErrorCode, text: &str) -> SyncError {
    protocol::session::error(code, "authorise", text)
}
