//! A leaf: the set of its undominated candidates.

use serde::{Deserialize, Serialize};

use super::Entry;
use crate::canonical::Writer;
use crate::clock::Hlc;
use crate::state::{StateSource, Value};

/// One value that a leaf may have, with the entry that gave it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Candidate {
    /// The log of the entry, as its index in the tree's list of logs.
    pub log: u32,
    /// The number of the entry in its log.
    pub seq: u64,
    /// The value; none where the entry removed the leaf.
    pub value: Option<Value>,
    /// The entry's timestamp.
    pub hlc: Hlc,
    /// When the candidate, being an override, ends.
    pub lease_until_ms: Option<u64>,
    /// The version of the conflict policy that its author knew.
    pub policy: u32,
    /// Where it comes from.
    pub source: StateSource,
}

impl Candidate {
    /// What an entry of the log of this number says of a leaf.
    pub(super) fn of(entry: &Entry, log: u32, value: Option<&Value>) -> Self {
        Self {
            log,
            seq: entry.seq,
            value: value.cloned(),
            hlc: entry.hlc,
            lease_until_ms: entry.lease_until_ms,
            policy: entry.policy,
            source: entry.provenance.source,
        }
    }

    /// Adds all of it to canonical bytes; its log by the number that it has in its tree.
    pub(super) fn write_canonical(&self, writer: &mut Writer) {
        writer.u32(self.log).u64(self.seq);
        match &self.value {
            Some(value) => value.write_canonical(writer.u8(1)),
            None => {
                writer.u8(0);
            }
        }
        writer.u64(self.hlc.wall_ms).u32(self.hlc.counter);
        match self.lease_until_ms {
            Some(until) => writer.u8(1).u64(until),
            None => writer.u8(0),
        };
        writer.u32(self.policy).u8(self.source.number());
    }
}

/// The candidates that no other has replaced, at least one. More than one with different values
/// is a conflict.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leaf {
    /// The candidates, in no particular order.
    pub candidates: Vec<Candidate>,
}

impl Leaf {
    /// Replaces what `seen` says that the author of `candidate` had seen.
    pub fn put(&mut self, candidate: Candidate, seen: impl Fn(u32, u64) -> bool) {
        self.candidates.retain(|old| !seen(old.log, old.seq));
        self.candidates.push(candidate);
    }

    /// Whether candidates disagree.
    pub fn is_conflict(&self) -> bool {
        let first = self.candidates.first();
        self.candidates.iter().any(|c| Some(&c.value) != first.map(|f| &f.value))
    }

    /// Whether any candidate has a value.
    pub fn has_value(&self) -> bool {
        self.candidates.iter().any(|candidate| candidate.value.is_some())
    }
}
