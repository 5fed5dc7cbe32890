//! What everybody was promised, and whether it was kept.

use std::collections::{BTreeMap, BTreeSet};

use protocol::clock::AHEAD_MS_MAX;
use protocol::history::{Entry, LogId, Tree};
use protocol::{DeviceId, EntryId};

use super::World;
use crate::fleet;
use crate::store::{MemoryStore, Violation};

/// A promise that was not kept.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Complaint {
    /// The store was given, or holds, what contradicts the rules of histories.
    #[error("the store: {0}")]
    Store(Violation),
    /// The brain said that an entry is durable, and has it no more.
    #[error("entry {seq} of {log:?} of device {device} was acknowledged and is lost")]
    AckedLost {
        /// The device.
        device: DeviceId,
        /// The log.
        log: LogId,
        /// The entry's number.
        seq: u64,
    },
    /// The brain said that an operator's write is durable, and has it no more.
    #[error("a write {id:?} to device {device} was acknowledged and is lost")]
    WriteLost {
        /// The device.
        device: DeviceId,
        /// The entry.
        id: EntryId,
    },
    /// A device said that it has an entry durably, and has it no more.
    #[error("device {device} acknowledged entry {seq} of {log:?} and lost it")]
    DeviceForgot {
        /// The device.
        device: DeviceId,
        /// The log.
        log: LogId,
        /// The entry's number.
        seq: u64,
    },
    /// Device and brain do not hold the same.
    #[error("device {device} and brain differ in their {what}")]
    Differ {
        /// The device.
        device: DeviceId,
        /// In what.
        what: &'static str,
    },
    /// What a device durably wrote is not in the brain's history.
    #[error("change {mark} of device {device} is missing")]
    Missing {
        /// The device.
        device: DeviceId,
        /// The change.
        mark: u64,
    },
    /// A change is in the brain's history twice.
    #[error("change {mark} of device {device} was applied twice")]
    Twice {
        /// The device.
        device: DeviceId,
        /// The change.
        mark: u64,
    },
    /// A device's changes are not in the order in which it made them.
    #[error("change {mark} of device {device} came after change {after}")]
    OutOfOrder {
        /// The device.
        device: DeviceId,
        /// The change.
        mark: u64,
        /// The one before it in the history.
        after: u64,
    },
    /// A log that goes on is dated further ahead than anybody may be taken along.
    #[error("{log:?} of device {device} is dated {ahead_ms} ms ahead")]
    DatedAhead {
        /// The device.
        device: DeviceId,
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
    acked: BTreeMap<(DeviceId, LogId), Vec<Option<EntryId>>>,
    written: Vec<(DeviceId, EntryId)>,
    device_acked: BTreeMap<(DeviceId, LogId), u64>,
    /// Devices whose disk went back in time: what they wrote twice is twice.
    restored: BTreeSet<DeviceId>,
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
        device: DeviceId,
        log: LogId,
        stored: u64,
        id: impl Fn(u64) -> Option<EntryId>,
    ) {
        let ids = self.acked.entry((device, log)).or_default();
        while (ids.len() as u64) < stored {
            ids.push(id(ids.len() as u64 + 1));
        }
    }

    pub(super) fn written(&mut self, device: DeviceId, id: EntryId) {
        self.written.push((device, id));
    }

    pub(super) fn device_acked(&mut self, device: DeviceId, log: LogId, stored: u64) {
        if self.restored.contains(&device) {
            // It may have been under way when the disk went back.
            return;
        }
        let known = self.device_acked.entry((device, log)).or_default();
        *known = stored.max(*known);
    }

    /// The device's disk went back in time: what it said of itself holds no more.
    pub(super) fn brain_was_ahead(&mut self) {
        self.brain_was_ahead = true;
    }

    pub(super) fn is_brain_ahead_at_times(&self) -> bool {
        self.brain_was_ahead
    }

    pub(super) fn any_restored(&self) -> bool {
        !self.restored.is_empty()
    }

    pub(super) fn restored(&mut self, device: DeviceId) {
        self.restored.insert(device);
        self.device_acked.retain(|(of, _), _| *of != device);
    }

    pub(super) fn promises(&self) -> (u64, u64) {
        let acked = self.acked.values().map(|ids| ids.len() as u64).sum();
        (acked, self.written.len() as u64)
    }

    /// Looks for promises that the store does not keep.
    pub(super) fn check_promises(&mut self, store: &MemoryStore) {
        for ((device, log), ids) in &self.acked {
            let lost = store.with_tree(fleet::genesis(*device).tree_id(), |tree| {
                let kept = |seq: u64| tree.and_then(|tree| tree.entry_id(log, seq));
                // Of what a checkpoint stands for, the device does not know the ids.
                (1u64..)
                    .zip(ids)
                    .find(|(seq, id)| kept(*seq).is_none() || (id.is_some() && kept(*seq) != **id))
            });
            if let Some((seq, _)) = lost {
                let (device, log) = (*device, *log);
                self.complaints.push(Complaint::AckedLost { device, log, seq });
            }
        }
        for (device, id) in &self.written {
            let kept = store.with_tree(fleet::genesis(*device).tree_id(), |tree| {
                tree.is_some_and(|tree| tree.contains(id))
            });
            if !kept {
                self.complaints.push(Complaint::WriteLost { device: *device, id: *id });
            }
        }
    }

    /// Looks for what a device said that it had and has not.
    pub(super) fn check_device(&mut self, place: &super::Place) {
        let device = place.device.id();
        for ((of, log), stored) in &self.device_acked {
            let state = place.device.tree().log(log);
            // Above the end of a log nothing counts.
            let stored = state
                .and_then(|state| state.cut.as_ref())
                .map_or(*stored, |cut| cut.last_seq.min(*stored));
            if *of == device && state.map_or(0, |state| state.seq) < stored {
                let (log, seq) = (*log, stored);
                self.complaints.push(Complaint::DeviceForgot { device, log, seq });
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
        for place in &self.places {
            let device = place.device.id();
            let Some(kept) = self.store.tree(place.device.tree().id()) else {
                if place.device.durable_entries().next().is_some() {
                    complaints.push(Complaint::Differ { device, what: "existence" });
                }
                continue;
            };
            let (ours, theirs) = (kept.replica(), place.device.tree());
            let equal = [
                ("roots", ours.root() == theirs.root()),
                ("states", ours.state() == theirs.state()),
                ("vectors", ours.vector() == theirs.vector()),
                ("policies", ours.policy() == theirs.policy()),
                ("what is to be done now", same_effect(&ours, theirs, self.brain_clock.true_ms())),
                ("what is to be done once leases end", same_effect(&ours, theirs, u64::MAX)),
            ];
            let differ = equal.into_iter().filter(|(_, equal)| !equal);
            complaints.extend(differ.map(|(what, _)| Complaint::Differ { device, what }));
            if !self.oracle.is_brain_ahead_at_times() {
                complaints.extend(dated_ahead(device, &ours, self.brain_clock.true_ms()));
            }
            if !self.oracle.restored.contains(&device) {
                let brain = fleet::brain_key().public();
                let own = |entry: &&Entry| entry.log.author != brain;
                let history = kept.history().map(|(_, entry)| entry).filter(own).map(mark_of);
                let durable = place.device.durable_entries().filter(own).map(mark_of);
                complaints.extend(check_marks(device, history, durable));
            }
            let counting = kept.history().filter(|(_, entry)| kept.counts(entry));
            let brains = counting.map(|(_, entry)| entry);
            let brains = brains.filter(|entry| entry.log.author == fleet::brain_key().public());
            complaints.extend(repeated(device, brains.map(mark_of)));
        }
        complaints
    }
}

/// Whether both replicas say the same of what the device is to do at a time.
fn same_effect(ours: &Tree, theirs: &Tree, now_ms: u64) -> bool {
    ours.effective(now_ms) == theirs.effective(now_ms)
}

/// What is dated ahead is not taken, and its author goes on in another log: so none is dated
/// further ahead than the bound for long.
fn dated_ahead(device: DeviceId, tree: &Tree, true_ms: u64) -> Vec<Complaint> {
    let going_on = tree.logs().iter().filter(|state| state.cut.is_none());
    let ahead = going_on.map(|state| (state.log, state.hlc.wall_ms.saturating_sub(true_ms)));
    let too_far = ahead.filter(|(_, ahead_ms)| *ahead_ms > AHEAD_MS_MAX);
    too_far.map(|(log, ahead_ms)| Complaint::DatedAhead { device, log, ahead_ms }).collect()
}

fn mark_of(entry: &Entry) -> u64 {
    entry.provenance.reason.parse().unwrap_or(0)
}

/// What a device wrote is in the history once, all of it, in its order.
fn check_marks(
    device: DeviceId,
    history: impl Iterator<Item = u64>,
    durable: impl Iterator<Item = u64>,
) -> Vec<Complaint> {
    let history: Vec<u64> = history.collect();
    let mut complaints = repeated(device, history.iter().copied());
    for pair in history.windows(2) {
        if pair[1] < pair[0] {
            let (mark, after) = (pair[1], pair[0]);
            complaints.push(Complaint::OutOfOrder { device, mark, after });
        }
    }
    let kept: BTreeSet<_> = history.into_iter().collect();
    let missing = durable.filter(|mark| !kept.contains(mark));
    complaints.extend(missing.map(|mark| Complaint::Missing { device, mark }));
    complaints
}

fn repeated(device: DeviceId, marks: impl Iterator<Item = u64>) -> Vec<Complaint> {
    let mut seen = BTreeSet::new();
    let twice = marks.filter(|mark| !seen.insert(*mark));
    twice.map(|mark| Complaint::Twice { device, mark }).collect()
}
