//! A tree that a device holds, and how far it is with it.

use std::collections::BTreeMap;

use protocol::PublicKey;
use protocol::history::{LogId, Tree};

use super::disk::Disk;
use crate::fleet::Whose;

/// A tree that a device holds: its own, or one that it shares.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) whose: Whose,
    pub(super) disk: Disk,
    /// What the brain has of each log, and what of that under a signed head.
    pub(super) acked: BTreeMap<LogId, (u64, u64)>,
    pub(super) sync_due_ms: Option<u64>,
    pub(super) seal_due_ms: Option<u64>,
    /// The disk went back without the device noticing: it must hear from the brain before it writes.
    pub(super) is_muted: bool,
}

impl Holding {
    /// An empty tree, in which the device writes `log`.
    pub(super) fn new(whose: Whose, log: LogId) -> Self {
        Self {
            whose,
            disk: Disk::new(Tree::new(whose.genesis()), log),
            acked: BTreeMap::new(),
            sync_due_ms: None,
            seal_due_ms: None,
            is_muted: false,
        }
    }

    pub(super) fn acknowledged(&mut self, log: LogId, stored: u64, sealed: u64) {
        let known = self.acked.entry(log).or_default();
        *known = (stored.max(known.0), sealed.max(known.1));
    }

    /// Own entries wait for the brain.
    pub(super) fn waits(&self) -> bool {
        self.own_logs().any(|(log, seq)| self.acked_of(log).0 < seq)
    }

    /// Whether the tree is to come anew, and nothing of this device would be lost by that.
    pub(super) fn may_come_anew(&self) -> bool {
        self.disk.is_incomplete() && !self.waits()
    }

    /// Whether everything is durable here and at the brain, and what is written now signed.
    pub(super) fn is_settled(&self) -> bool {
        let current = self.disk.log();
        self.sync_due_ms.is_none()
            && self.own_logs().all(|(log, seq)| {
                let (stored, sealed) = self.acked_of(log);
                stored >= seq && (*log != current || sealed >= seq)
            })
    }

    /// Puts the last copy of the disk back. Returns how many entries are gone.
    pub(super) fn restore(&mut self, noticed: bool) -> u64 {
        let lost = self.disk.restore();
        for (log, (stored, sealed)) in &mut self.acked {
            let seq = self.disk.position(*log).seq;
            (*stored, *sealed) = (seq.min(*stored), seq.min(*sealed));
        }
        self.is_muted = !noticed;
        lost
    }

    /// Forgets everything, to get it from the brain. The log that is written comes with it.
    pub(super) fn begin_anew(&mut self) {
        self.disk.begin_anew();
        self.acked.clear();
    }

    fn own_logs(&self) -> impl Iterator<Item = (&LogId, u64)> {
        let own: PublicKey = self.disk.log().author;
        let logs = self.disk.tree().logs().iter();
        logs.filter(move |state| state.log.author == own).map(|state| (&state.log, state.seq))
    }

    fn acked_of(&self, log: &LogId) -> (u64, u64) {
        self.acked.get(log).copied().unwrap_or_default()
    }
}
