//! Folding some leaves again, from history.

use std::collections::BTreeMap;

use super::{Candidate, Entry, Leaf, LogState, Tree, VersionVector};
use crate::state::Path;

/// Folds leaves of a tree again whose candidates a cut has taken: what those had replaced is only
/// in the history.
///
/// Give it every log from its first entry on, or from where a [checkpoint](Self::start_from) stands
/// in place of what came before, each in order, the logs one after another in any order; entries
/// above a log's end do not count. It keeps one candidate a log and leaf, however
/// long the history is.
#[derive(Debug)]
pub struct Refold {
    leaves: BTreeMap<Path, BTreeMap<u32, (Candidate, VersionVector)>>,
    contexts: BTreeMap<u32, VersionVector>,
}

impl Refold {
    /// A fold of these leaves.
    pub fn of(paths: impl IntoIterator<Item = Path>) -> Self {
        let leaves = paths.into_iter().map(|path| (path, BTreeMap::new())).collect();
        Self { leaves, contexts: BTreeMap::new() }
    }

    /// Begins with what `tree` had come to at some time, whose entries are kept no longer. No log
    /// of it ends below that.
    pub fn start_from(&mut self, tree: &Tree, logs: &[LogState], leaves: &BTreeMap<Path, Leaf>) {
        let number = |log: u32| logs.get(log as usize).and_then(|old| tree.log_number(&old.log));
        for (state, log) in logs.iter().zip(0..) {
            if let Some(log) = number(log) {
                self.contexts.insert(log, state.context.clone());
            }
        }
        for (path, candidates) in &mut self.leaves {
            for old in leaves.get(path).into_iter().flat_map(|leaf| &leaf.candidates) {
                let Some(log) = number(old.log) else { continue };
                let candidate = Candidate { log, ..old.clone() };
                // What it had replaced is not here any more, and what comes later it had not seen.
                candidates.insert(log, (candidate, VersionVector::default()));
            }
        }
    }

    /// Whether there is nothing to fold.
    pub fn is_empty(&self) -> bool {
        self.leaves.is_empty()
    }

    /// Takes the next entry of a log of `tree`.
    pub fn take(&mut self, tree: &Tree, entry: &Entry) {
        let Some(log) = tree.log_number(&entry.log) else { return };
        let counts =
            tree.log(&entry.log).is_some_and(|state| state.counted(entry.seq) == entry.seq);
        if !counts {
            return;
        }
        let context = self.contexts.entry(log).or_default();
        context.merge(&entry.seen);
        if !entry.kind.is_known() {
            return;
        }
        for (path, value) in entry.delta.changes() {
            if let Some(candidates) = self.leaves.get_mut(path) {
                let candidate = Candidate::of(entry, log, value);
                // It replaces the log's own one, and its author had seen all that came before.
                candidates.insert(log, (candidate, context.clone()));
            }
        }
    }

    /// What the leaves come to; none where nothing is left of one.
    pub fn finish(self, tree: &Tree) -> BTreeMap<Path, Option<Leaf>> {
        let logs = tree.logs();
        let seen = |context: &VersionVector, c: &Candidate| {
            context.contains(&logs[c.log as usize].log, c.seq)
        };
        let leaves = self.leaves.into_iter().map(|(path, found)| {
            let dominated = |c: &Candidate| {
                found.values().any(|(other, context)| other.log != c.log && seen(context, c))
            };
            let left = found.values().map(|(candidate, _)| candidate).filter(|c| !dominated(c));
            let leaf = Leaf { candidates: left.cloned().collect() };
            (path, (!leaf.candidates.is_empty()).then_some(leaf))
        });
        leaves.collect()
    }
}
