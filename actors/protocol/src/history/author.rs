//! Writing entries of one's own.

use super::{Entry, EntryKind, LogId, Provenance, Tree, VersionVector};
use crate::clock::{ClockQuality, Hlc, HlcClock};
use crate::state::{Path, StateDelta, Value};

/// A leaf to set, or to remove where there is no value.
pub type Change = (Path, Option<Value>);

/// What an author wants to write.
#[derive(Debug, Clone, PartialEq)]
pub struct Draft {
    /// The leaves to set or remove. A path named twice takes its last change.
    pub changes: Vec<Change>,
    /// Who and why.
    pub provenance: Provenance,
    /// When the override that it makes ends.
    pub lease_until_ms: Option<u64>,
}

/// The writing end of a log.
#[derive(Debug, Clone)]
pub struct Author {
    log: LogId,
    clock: HlcClock,
}

impl Author {
    /// The author of `log`, whose last timestamp anywhere was `last`.
    pub fn new(log: LogId, last: Hlc) -> Self {
        Self { log, clock: HlcClock::resume(last) }
    }

    /// The log.
    pub fn log(&self) -> LogId {
        self.log
    }

    /// The author's clock, to observe others' timestamps.
    pub fn clock_mut(&mut self) -> &mut HlcClock {
        &mut self.clock
    }

    /// The next entry, or none where the draft changes nothing.
    ///
    /// The caller applies it to `tree` and makes it durable before anybody hears of it.
    pub fn write(
        &mut self,
        tree: &Tree,
        draft: Draft,
        now_ms: u64,
        quality: ClockQuality,
    ) -> Option<Entry> {
        let mut delta = StateDelta::default();
        for (path, value) in draft.changes {
            delta.added.remove(&path);
            delta.modified.remove(&path);
            delta.removed.remove(&path);
            // Writing a leaf that is in conflict settles it, also with the value it shows; and an
            // override of the same value may last longer than the one that is there.
            let conflict = tree.leaves().get(&path).is_some_and(|leaf| leaf.is_conflict());
            let shown = tree.decision(&path);
            let lease = shown.as_ref().and_then(|shown| shown.by.candidate.lease_until_ms);
            let again = conflict || lease != draft.lease_until_ms;
            match (shown.and_then(|shown| shown.value).as_deref(), value) {
                (None, Some(new)) => {
                    delta.added.insert(path, new);
                }
                (Some(old), Some(new)) if *old != new || again => {
                    delta.modified.insert(path, new);
                }
                (Some(_), None) => {
                    delta.removed.insert(path);
                }
                (None, None) if conflict => {
                    delta.removed.insert(path);
                }
                _ => {}
            }
        }
        if delta.is_empty() {
            return None;
        }
        let lease = draft.lease_until_ms;
        Some(self.entry(tree, delta, draft.provenance, lease, now_ms, quality))
    }

    /// Writes an entry of an ended log again in this one, with a new timestamp.
    pub fn reissue(
        &mut self,
        tree: &Tree,
        old: &Entry,
        now_ms: u64,
        quality: ClockQuality,
    ) -> Entry {
        let (delta, provenance) = (old.delta.clone(), old.provenance.clone());
        self.entry(tree, delta, provenance, old.lease_until_ms, now_ms, quality)
    }

    fn entry(
        &mut self,
        tree: &Tree,
        delta: StateDelta,
        provenance: Provenance,
        lease_until_ms: Option<u64>,
        now_ms: u64,
        clock: ClockQuality,
    ) -> Entry {
        debug_assert!(!tree.has_ended(&self.log), "nobody counts what is written above an end");
        let own = tree.log(&self.log);
        let mut others = tree.vector();
        others.remove(&self.log);
        let none = VersionVector::default();
        Entry {
            tree: tree.id(),
            log: self.log,
            seq: own.map_or(0, |own| own.seq) + 1,
            prev: own.map_or(Entry::NO_PREV, |own| own.head),
            seen: others.beyond(own.map_or(&none, |own| &own.context)),
            hlc: self.clock.tick(now_ms),
            clock,
            provenance,
            policy: tree.policy(),
            kind: EntryKind::STATE,
            schema: 1,
            lease_until_ms,
            delta,
            extra: Vec::new(),
        }
    }
}
