//! What can be read off a replica.

use std::borrow::Cow;
use std::collections::BTreeSet;

use protocol::PublicKey;
use protocol::history::{Change, Cut, LogId, Role, SignedHead, Tree};
use protocol::state::{Path, State, Value};
use protocol::wire::LogPosition;

use super::{PROVISIONAL_FLEET, Replica};
use crate::spool::AuthorState;
use crate::track::{News, QueueAccount, Revision};

impl Replica {
    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The log that this device writes now.
    pub fn own_log(&self) -> LogId {
        self.author.log()
    }

    /// Whether the device was never enrolled: its tree is no fleet's.
    pub fn is_provisional(&self) -> bool {
        self.tree.genesis().fleet == PROVISIONAL_FLEET
    }

    /// How many own entries the brain lacks.
    pub fn queue_depth(&self) -> u64 {
        self.queue.depth()
    }

    /// Whether leaves lack values that have to come anew.
    pub fn is_incomplete(&self) -> bool {
        self.incomplete
    }

    /// How many bytes they take.
    pub fn queue_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// When the oldest of them was written, in seconds since the Unix epoch.
    pub fn queue_oldest_s(&self) -> Option<u64> {
        self.queue.oldest_s()
    }

    /// Whether as much waits as may.
    pub fn queue_is_full(&self) -> bool {
        self.queue.bytes() >= self.limits.queue_bytes_max
    }

    /// The keys of the brains that are known here.
    pub fn brains(&self) -> &BTreeSet<PublicKey> {
        &self.brains
    }

    /// What became of the entries that this device wrote.
    pub fn account(&self) -> &QueueAccount {
        &self.queue.account
    }

    /// Where the author stands.
    pub fn author_state(&self) -> AuthorState {
        self.author_state
    }

    /// Every leaf with its value.
    pub fn state(&self) -> State {
        self.tree.state()
    }

    /// The leaves that this device writes, as changes that would make them. Overrides are not
    /// among them: without their leases they would never end.
    pub fn own_leaves(&self) -> Vec<Change> {
        let role = Role::Owner(self.identity.device);
        let kind = self.tree.genesis().kind;
        let state = self.tree.state().into_iter();
        let own = state
            .filter(|(path, _)| role.may_write(kind, path) && path.first_segment() != "override");
        own.map(|(path, value)| (path, Some(value))).collect()
    }

    /// The value of a leaf.
    pub fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.tree.value(path)
    }

    /// Where a log stands.
    pub fn position(&self, log: LogId) -> LogPosition {
        LogPosition::of(&self.tree, log)
    }

    /// Where all logs stand.
    pub fn positions(&self) -> Vec<LogPosition> {
        self.tree.logs().iter().map(|state| self.position(state.log)).collect()
    }

    /// The number of a log in the spool, if it has one.
    pub fn log_number(&self, log: &LogId) -> Option<u32> {
        self.tree.log_number(log)
    }

    /// The ends of this device's own logs.
    pub fn own_cuts(&self) -> Vec<Cut> {
        let own = |log: &LogId| log.author == self.identity.keypair.public();
        let logs = self.tree.logs().iter().filter(|state| own(&state.log));
        logs.filter_map(|state| state.cut.clone()).collect()
    }

    /// Own logs with entries that the brain has not acknowledged: number, and the last
    /// acknowledged entry.
    pub fn unacknowledged(&self) -> Vec<(u32, u64)> {
        let own = |log: &LogId| log.author == self.identity.keypair.public();
        let logs = (0u32..).zip(self.tree.logs()).filter(|(_, state)| own(&state.log));
        let stored = |number| self.delivered(number).stored;
        logs.filter(|(number, state)| state.seq > stored(*number))
            .map(|(number, _)| (number, stored(number)))
            .collect()
    }

    /// The highest signed heads of this device's own logs.
    pub fn own_seals(&self) -> Vec<SignedHead> {
        let own = |log: &LogId| log.author == self.identity.keypair.public();
        let logs = self.tree.logs().iter().filter(|state| own(&state.log));
        logs.filter_map(|state| state.signed).collect()
    }

    /// How far the brain has acknowledged a log.
    pub fn acknowledged_of(&self, log: LogId) -> u64 {
        self.tree.log_number(&log).map_or(0, |number| self.delivered(number).stored)
    }

    /// What of its logs has changed since `revision`.
    pub fn news(&self, revision: Revision) -> News {
        let logs = self.tree.logs();
        let numbers = self.changes.since(revision);
        let numbers = numbers.unwrap_or_else(|| (0..logs.len() as u32).collect());
        let changed = || numbers.iter().filter_map(|number| logs.get(*number as usize));
        let revision = self.changes.revision();
        News {
            revision,
            positions: changed().map(|state| self.position(state.log)).collect(),
            cuts: changed().filter_map(|state| state.cut.clone()).collect(),
            seals: changed().filter_map(|state| state.signed).collect(),
        }
    }

    /// How often its logs have changed.
    pub fn revision(&self) -> Revision {
        self.changes.revision()
    }

    /// What may be pruned: logs with the number up to which the brain has them under a signed
    /// head, and how many bytes are too many; none while there is room.
    pub fn to_prune(&self) -> Option<(Vec<(u32, u64)>, u64)> {
        let delivered_bytes = self.entry_bytes.saturating_sub(self.queue.bytes());
        // Pruning in large steps spares the flash.
        let slack = self.limits.retain_bytes / 8;
        let excess = delivered_bytes.saturating_sub(self.limits.retain_bytes);
        if excess <= slack {
            return None;
        }
        let own = self.identity.keypair.public();
        let up_to = (0u32..).zip(self.tree.logs()).map(|(number, state)| {
            let delivered = self.delivered(number);
            let foreign = state.log.author != own;
            let sealed =
                if foreign { state.sealed().min(delivered.stored) } else { delivered.sealed };
            (number, sealed)
        });
        Some((up_to.collect(), excess))
    }
}
