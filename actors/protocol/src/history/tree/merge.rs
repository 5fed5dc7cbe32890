//! Two replicas as one, without the entries that are the difference.

use super::{LogState, Tree};
use crate::TreeId;
use crate::history::{Candidate, Checkpoint, Leaf, LogId};
use crate::state::Path;

/// Why a checkpoint cannot be merged. The replica stayed as it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MergeError {
    /// Of another tree.
    #[error("checkpoint is of tree {0:?}")]
    UnknownTree(TreeId),
    /// The two have different entries of one number.
    #[error("the log has another history in the checkpoint")]
    Forked(LogId),
    /// A log ends below entries that one of the two has folded in. What those had replaced is in
    /// neither.
    #[error("a log ends below what is folded in already")]
    CutBelow(LogId),
}

impl Tree {
    /// Takes in what a checkpoint has and this replica has not. Returns the leaves that changed.
    ///
    /// A candidate that one side lacks though it knows the entry has been replaced there, so it
    /// goes; one whose entry the other side does not know stays. The result is what a replica
    /// would be that had been given the entries of both.
    pub fn merge(&mut self, checkpoint: &Checkpoint) -> Result<Vec<Path>, MergeError> {
        self.check_mergeable(checkpoint)?;
        let theirs: Vec<u32> =
            checkpoint.logs.iter().map(|state| self.number_of(state.log)).collect();
        let ours_before: Vec<u64> = self.logs.iter().map(|state| state.seq).collect();
        for (state, number) in checkpoint.logs.iter().zip(&theirs) {
            self.logs[*number as usize].merge(state);
        }
        let mut known_there = vec![0; self.logs.len()];
        for (state, number) in checkpoint.logs.iter().zip(&theirs) {
            known_there[*number as usize] = state.seq;
        }
        let mut touched = Vec::new();
        let nothing = Leaf::default();
        let here_only = self.leaves.keys().filter(|path| !checkpoint.leaves.contains_key(*path));
        let paths: Vec<Path> = here_only.chain(checkpoint.leaves.keys()).cloned().collect();
        for path in paths {
            let here = self.leaves.get(&path).unwrap_or(&nothing);
            let there = checkpoint.leaves.get(&path).unwrap_or(&nothing);
            let there = there.candidates.iter().map(|candidate| Candidate {
                log: theirs[candidate.log as usize],
                ..candidate.clone()
            });
            let there: Vec<Candidate> = there.collect();
            let is_there = |c: &Candidate| there.iter().any(|o| (o.log, o.seq) == (c.log, c.seq));
            let stays = |c: &&Candidate| c.seq > known_there[c.log as usize] || is_there(c);
            let mut candidates: Vec<_> = here.candidates.iter().filter(stays).cloned().collect();
            let before = here.candidates.len();
            let gone = before - candidates.len();
            candidates.extend(there.into_iter().filter(|c| c.seq > ours_before[c.log as usize]));
            if gone == 0 && candidates.len() == before {
                continue;
            }
            match candidates.is_empty() {
                true => self.leaves.remove(&path),
                false => self.leaves.insert(path.clone(), Leaf { candidates }),
            };
            touched.push(path);
        }
        self.measure();
        self.read_leaves(&touched);
        Ok(touched)
    }

    fn check_mergeable(&self, checkpoint: &Checkpoint) -> Result<(), MergeError> {
        if checkpoint.tree != self.id {
            return Err(MergeError::UnknownTree(checkpoint.tree));
        }
        for theirs in &checkpoint.logs {
            let Some(ours) = self.log(&theirs.log) else { continue };
            let ends_below = |ends: &LogState, other: &LogState| {
                ends.cut.as_ref().is_some_and(|cut| cut.last_seq < other.seq)
            };
            if ends_below(ours, theirs) || ends_below(theirs, ours) {
                return Err(MergeError::CutBelow(theirs.log));
            }
            if ours.seq == theirs.seq && ours.head != theirs.head {
                return Err(MergeError::Forked(theirs.log));
            }
        }
        Ok(())
    }
}

impl LogState {
    /// What both know of one log; neither has an end below what the other has folded in.
    fn merge(&mut self, other: &Self) {
        if other.seq > self.seq {
            self.seq = other.seq;
            self.head = other.head;
            self.hlc = other.hlc;
            self.context = other.context.clone();
        }
        if other.sealed() > self.sealed() {
            self.signed = other.signed;
        }
        self.cut = match (self.cut.take(), &other.cut) {
            (Some(ours), Some(theirs)) => Some(ours.lower(theirs).clone()),
            (ours, theirs) => ours.or_else(|| theirs.clone()),
        };
    }
}
