//! What everybody was promised, and whether it was kept.

use std::collections::{BTreeMap, BTreeSet};

use protocol::clock::AHEAD_MS_MAX;
use protocol::history::{Entry, LogId, Tree};
use protocol::{DeviceId, EntryId};

use super::World;
use crate::fleet::{self, Whose};
use crate::store::{MemoryStore, Violation};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// The store was given, or holds, what contradicts the rules of histories.
    #[error("the store: {0}")]
    Store(Violation),
    /// The brain said that an entry is durable, and has it no more.
    #[error("entry {seq} of {log:?} of {whose} was acknowledged and is lost")]
    AckedLost {
        /// Whose the tree is.
        whose: Whose,
        /// The log.
        log: LogId,
        /// The entry's number.
        seq: u64,
    },
    /// The brain said that an operator's write is durable, and has it no more.
    #[error("a write {id:?} to {whose} was acknowledged and is lost")]
    WriteLost {
        /// Whose the tree is.
        whose: Whose,
        /// The entry.
        id: EntryId,
    },
    /// A device said that it has an entry durably, and has it no more.
    #[error("device {device} acknowledged entry {seq} of {log:?} of {whose} and lost it")]
    DeviceForgot {
        /// The device.
        device: DeviceId,
        /// Whose the tree is.
        whose: Whose,
        /// The log.
        log: LogId,
        /// The entry's number.
        seq: u64,
    },
    /// Device and brain do not hold the same.
    #[error("of {whose}, device {device} and brain differ in their {what}")]
    Differ {
        /// Whose the tree is.
        whose: Whose,
        /// The device.
        device: DeviceId,
        /// In what.
        what: &'static str,
    },
    /// What a device durably wrote is not in the brain's history.
    #[error("change {mark} of {whose} is missing, which device {device} has")]
    Missing {
        /// Whose the tree is.
        whose: Whose,
        /// The device that made it.
        device: DeviceId,
        /// The change.
        mark: u64,
    },
    /// A change is in the brain's history twice.
    #[error("change {mark} of {whose} was applied twice")]
    Twice {
        /// Whose the tree is.
        whose: Whose,
        /// The change.
        mark: u64,
    },
    /// A device's changes are not in the order in which it made them.
    #[error("change {mark} of {whose} came after change {after}")]
    OutOfOrder {
        /// Whose the tree is.
        whose: Whose,
        /// The change.
        mark: u64,
        /// The one before it in the history.
        after: u64,
    },
    /// A log that goes on is dated further ahead than anybody may be taken along.
    #[error("{log:?} of {whose} is dated {ahead_ms} ms ahead")]
    DatedAhead {
        /// Whose the tree is.
        whose: Whose,
        /// The log.
        log: LogId,
        /// By how much.
        ahead_ms: u64,
    },
    /// The world never fell silent.
    #[error("places {waits:?} are not in agreement after {after_ms} ms")]
    NotQuiet {
        /// After how long.
        after_ms: u64,
        /// Which devices wait.
        waits: Vec<usize>,
    },
    /// Somebody is due again and again without time passing.
    #[error("something spins at {at_ms} ms")]
    Spins {
        /// When.
        at_ms: u64,
    },
}

/// Keeps what was promised.
#[derive(Debug, Default)]
pub(super) struct Oracle {
    marks: u64,
    /// The ids of the acknowledged entries of each log, in order.
    acked: BTreeMap<(Whose, LogId), Vec<Option<EntryId>>>,
    written: Vec<(Whose, EntryId)>,
    device_acked: BTreeMap<(DeviceId, Whose, LogId), u64>,
    /// Devices whose disk went back in time: what they wrote twice is twice.
    restored: BTreeSet<DeviceId>,
    /// Who was put out of a group at some time: what they wrote since counts nowhere.
    put_out: BTreeSet<(Whose, DeviceId)>,
    /// The brain's clock was ahead at times: who was ahead with it was not refused.
    brain_was_ahead: bool,
    complaints: Vec<Complaint>,
}

impl Oracle {
    pub(super) fn next_mark(&mut self) -> u64 {
        self.marks += 1;
        self.marks
    }

    pub(super) fn complain(&mut self, complaint: Complaint) {
        self.complaints.push(complaint);
    }

    pub(super) fn acked(
        &mut self,
        whose: Whose,
        log: LogId,
        stored: u64,
        id: impl Fn(u64) -> Option<EntryId>,
    ) {
        let ids = self.acked.entry((whose, log)).or_default();
        while (ids.len() as u64) < stored {
            ids.push(id(ids.len() as u64 + 1));
        }
    }

    pub(super) fn written(&mut self, whose: Whose, id: EntryId) {
        self.written.push((whose, id));
    }

    pub(super) fn device_acked(&mut self, device: DeviceId, whose: Whose, log: LogId, stored: u64) {
        if self.restored.contains(&device) {
            // It may have been under way when the disk went back.
            return;
        }
        let known = self.device_acked.entry((device, whose, log)).or_default();
        *known = stored.max(*known);
    }

    /// The device forgot a tree, to get it anew: what it said of that holds no more.
    pub(super) fn comes_anew(&mut self, device: DeviceId, whose: Whose) {
        self.device_acked.retain(|(by, of, _), _| (*by, *of) != (device, whose));
    }

    pub(super) fn put_out(&mut self, whose: Whose, device: DeviceId) {
        self.put_out.insert((whose, device));
    }

    pub(super) fn brain_was_ahead(&mut self) {
        self.brain_was_ahead = true;
    }

    pub(super) fn is_brain_ahead_at_times(&self) -> bool {
        self.brain_was_ahead
    }

    pub(super) fn any_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    /// The device's disk went back in time: what it said of itself holds no more.
    pub(super) fn restored(&mut self, device: DeviceId) {
        self.restored.insert(device);
        self.device_acked.retain(|(by, _, _), _| *by != device);
    }

    pub(super) fn promises(&self) -> (u64, u64) {
        let acked = self.acked.values().map(|ids| ids.len() as u64).sum();
        (acked, self.written.len() as u64)
    }

    /// Looks for promises that the store does not keep.
    pub(super) fn check_promises(&mut self, store: &MemoryStore) {
        for ((whose, log), ids) in &self.acked {
            let lost = store.with_tree(whose.tree(), |tree| {
                let kept = |seq: u64| tree.and_then(|tree| tree.entry_id(log, seq));
                // Of what a checkpoint stands for, the device does not know the ids.
                (1u64..)
                    .zip(ids)
                    .find(|(seq, id)| kept(*seq).is_none() || (id.is_some() && kept(*seq) != **id))
            });
            if let Some((seq, _)) = lost {
                let (whose, log) = (*whose, *log);
                self.complaints.push(Complaint::AckedLost { whose, log, seq });
            }
        }
        for (whose, id) in &self.written {
            let kept =
                store.with_tree(whose.tree(), |tree| tree.is_some_and(|tree| tree.contains(id)));
            if !kept {
                self.complaints.push(Complaint::WriteLost { whose: *whose, id: *id });
            }
        }
    }

    /// Looks for what a device said that it had and has not.
    pub(super) fn check_device(&mut self, place: &super::Place) {
        let device = place.device.id();
        for ((by, whose, log), stored) in &self.device_acked {
            if *by != device {
                continue;
            }
            let state = place.device.tree_of(*whose).and_then(|tree| tree.log(log));
            // Above the end of a log nothing counts.
            let stored = state
                .and_then(|state| state.cut.as_ref())
                .map_or(*stored, |cut| cut.last_seq.min(*stored));
            if state.map_or(0, |state| state.seq) < stored {
                let (whose, log, seq) = (*whose, *log, stored);
                self.complaints.push(Complaint::DeviceForgot { device, whose, log, seq });
            }
        }
    }
}

impl World {
    /// Compares what everybody holds with what everybody was promised.
    ///
    /// Call it when the world is quiet. What was found wrong before, such as after a crash, is
    /// among the complaints.
    pub fn check(&mut self) -> Vec<Complaint> {
        self.oracle.check_promises(&self.store);
        for place in &self.places {
            self.oracle.check_device(place);
        }
        let mut complaints = self.oracle.complaints.clone();
        complaints.extend(self.store.verify().into_iter().map(Complaint::Store));
        for whose in self.trees() {
            let parts = (0..self.places.len()).filter(|n| self.takes_part(*n, whose));
            let parts: Vec<_> = parts.map(|n| &self.places[n]).collect();
            complaints.extend(self.check_tree(whose, &parts));
        }
        complaints
    }

    /// Compares a tree with what the devices hold of it that take part in it.
    fn check_tree(&self, whose: Whose, parts: &[&super::Place]) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let differ = |device, what| Complaint::Differ { whose, device, what };
        let Some(kept) = self.store.tree(whose.tree()) else {
            let holders =
                parts.iter().filter(|place| place.device.durable_entries(whose).next().is_some());
            complaints.extend(holders.map(|place| differ(place.device.id(), "existence")));
            return complaints;
        };
        let ours = kept.replica();
        for place in parts {
            let device = place.device.id();
            let Some(theirs) = place.device.tree_of(whose) else {
                complaints.push(differ(device, "existence"));
                continue;
            };
            let equal = [
                ("roots", ours.root() == theirs.root()),
                ("states", ours.state() == theirs.state()),
                ("vectors", ours.vector() == theirs.vector()),
                ("policies", ours.policy() == theirs.policy()),
                ("what is to be done now", same_effect(&ours, theirs, self.brain_clock.true_ms())),
                ("what is to be done once leases end", same_effect(&ours, theirs, u64::MAX)),
            ];
            let unequal = equal.into_iter().filter(|(_, equal)| !equal);
            complaints.extend(unequal.map(|(what, _)| differ(device, what)));
            let is_told_twice = self.oracle.restored.contains(&device)
                || self.oracle.put_out.contains(&(whose, device));
            if !is_told_twice {
                let key = fleet::device_key(device.0[15]).public();
                let own = |entry: &&Entry| entry.log.author == key;
                let history = kept.history().map(|(_, entry)| entry).filter(own).map(mark_of);
                let durable = place.device.durable_entries(whose).filter(own).map(mark_of);
                complaints.extend(check_marks(whose, device, history, durable));
            }
        }
        if !self.oracle.is_brain_ahead_at_times() {
            complaints.extend(dated_ahead(whose, &ours, self.brain_clock.true_ms()));
        }
        let counting = kept.history().filter(|(_, entry)| kept.counts(entry));
        let brains = counting.map(|(_, entry)| entry);
        let brains = brains.filter(|entry| entry.log.author == fleet::brain_public());
        complaints.extend(repeated(whose, brains.map(mark_of)));
        complaints
    }
}

/// Whether both replicas say the same of what the device is to do at a time.
fn same_effect(ours: &Tree, theirs: &Tree, now_ms: u64) -> bool {
    ours.effective(now_ms) == theirs.effective(now_ms)
}

/// What is dated ahead is not taken, and its author goes on in another log: so none is dated
/// further ahead than the bound for long.
fn dated_ahead(whose: Whose, tree: &Tree, true_ms: u64) -> Vec<Complaint> {
    let going_on = tree.logs().iter().filter(|state| state.cut.is_none());
    let ahead = going_on.map(|state| (state.log, state.hlc.wall_ms.saturating_sub(true_ms)));
    let too_far = ahead.filter(|(_, ahead_ms)| *ahead_ms > AHEAD_MS_MAX);
    too_far.map(|(log, ahead_ms)| Complaint::DatedAhead { whose, log, ahead_ms }).collect()
}

fn mark_of(entry: &Entry) -> u64 {
    entry.provenance.reason.parse().unwrap_or(0)
}

/// What a device wrote is in the history once, all of it, in its order.
fn check_marks(
    whose: Whose,
    device: DeviceId,
    history: impl Iterator<Item = u64>,
    durable: impl Iterator<Item = u64>,
) -> Vec<Complaint> {
    let history: Vec<u64> = history.collect();
    let mut complaints = repeated(whose, history.iter().copied());
    for pair in history.windows(2) {
        if pair[1] < pair[0] {
            let (mark, after) = (pair[1], pair[0]);
            complaints.push(Complaint::OutOfOrder { whose, mark, after });
        }
    }
    let kept: BTreeSet<_> = history.into_iter().collect();
    let missing = durable.filter(|mark| !kept.contains(mark));
    complaints.extend(missing.map(|mark| Complaint::Missing { whose, device, mark }));
    complaints
}

fn repeated(whose: Whose, marks: impl Iterator<Item = u64>) -> Vec<Complaint> {
    let mut seen = BTreeSet::new();
    let twice = marks.filter(|mark| !seen.insert(*mark));
    twice.map(|mark| Complaint::Twice { whose, mark }).collect()
}
