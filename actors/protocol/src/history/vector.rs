//! Version vectors.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::LogId;
use crate::canonical::Writer;

/// How far each log is known: for each, the number of the last entry of a gapless run from 1.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionVector(BTreeMap<LogId, u64>);

impl VersionVector {
    /// The number of the last known entry of `log`; 0 where none is known.
    pub fn get(&self, log: &LogId) -> u64 {
        self.0.get(log).copied().unwrap_or(0)
    }

    /// Whether the entry `seq` of `log` is known.
    pub fn contains(&self, log: &LogId, seq: u64) -> bool {
        seq <= self.get(log)
    }

    /// Raises what is known of `log` to `seq`; never lowers it.
    pub fn advance(&mut self, log: LogId, seq: u64) {
        if seq > 0 {
            let known = self.0.entry(log).or_default();
            *known = seq.max(*known);
        }
    }

    /// Raises each log to what `other` knows of it.
    pub fn merge(&mut self, other: &Self) {
        for (log, seq) in other.iter() {
            self.advance(*log, seq);
        }
    }

    /// Whether everything that `other` knows is known here.
    pub fn covers(&self, other: &Self) -> bool {
        other.iter().all(|(log, seq)| self.contains(log, seq))
    }

    /// Where `self` knows more than `base`.
    pub fn beyond(&self, base: &Self) -> Self {
        let more = self.0.iter().filter(|(log, seq)| **seq > base.get(log));
        Self(more.map(|(log, seq)| (*log, *seq)).collect())
    }

    /// Forgets a log.
    pub fn remove(&mut self, log: &LogId) {
        self.0.remove(log);
    }

    /// The logs and how far each is known, in order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (&LogId, u64)> {
        self.0.iter().map(|(log, seq)| (log, *seq))
    }

    /// How many logs are known.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing is known.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds the vector to canonical bytes.
    pub fn write_canonical(&self, writer: &mut Writer) {
        writer.len(self.0.len());
        for (log, seq) in self.iter() {
            log.write_canonical(writer);
            writer.u64(seq);
        }
    }
}

impl FromIterator<(LogId, u64)> for VersionVector {
    fn from_iter<T: IntoIterator<Item = (LogId, u64)>>(entries: T) -> Self {
        let mut vector = Self::default();
        for (log, seq) in entries {
            vector.advance(log, seq);
        }
        vector
    }
}
