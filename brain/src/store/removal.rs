//! Removing what retired devices and deleted groups leave behind, in small steps.
//!
//! Each step is a batch of its own, and each can be taken again: after a restart, whatever is
//! doomed is gone through from the first step on.

use actors::ports::{CommitError, ConflictRecord, ReadError, TreeNumber};
use protocol::ConflictId;
use protocol::history::Genesis;
use rocksdb::WriteBatch;

use super::rocks::{
    BASES, CONFLICT_IDS, CONFLICTS, DOOMED, HISTORY, LEAVES, LOG_ENDS, OPEN_CONFLICTS, ORIGINS,
    Rocks, SNAPSHOTS, TOMBSTONES,
};
use super::tombstones::key;
use super::{RegistryChange, Store, Tombstone, keys};

/// What a tree has rows in, beside the one that says that it is there.
pub(super) const OF_A_TREE: [&str; 7] =
    [HISTORY, LOG_ENDS, LEAVES, SNAPSHOTS, BASES, ORIGINS, CONFLICTS];
/// So many conflicts are removed in one batch.
const CONFLICTS_AT_ONCE: usize = 200;

/// Why a step was not taken.
#[derive(Debug, thiserror::Error)]
pub enum RemovalError {
    /// What is to go cannot be read.
    #[error("what is to be removed cannot be read")]
    Read(#[from] ReadError),
    /// The removal was not written.
    #[error("the removal was not written")]
    Commit(#[from] CommitError),
}

/// A step of a removal.
#[derive(Debug, Clone)]
pub enum RemovalStep {
    /// Conflicts go, with the keys of their records.
    Conflicts(Vec<([u8; 24], Option<ConflictId>)>),
    /// Everything that a tree has rows in goes.
    Rows(TreeNumber),
    /// Nothing is left: the tree is doomed no longer.
    Finished(Genesis),
    /// The tombstone itself goes.
    Tombstone(Genesis),
}

impl RemovalStep {
    pub(super) fn add_to(&self, batch: &mut WriteBatch, rocks: &Rocks) {
        match self {
            Self::Conflicts(conflicts) => {
                for (at, id) in conflicts {
                    rocks.delete(batch, CONFLICTS, at);
                    if let Some(id) = id {
                        rocks.delete(batch, CONFLICT_IDS, &id.0);
                        rocks.delete(batch, OPEN_CONFLICTS, &id.0);
                    }
                }
            }
            Self::Rows(tree) => {
                for family in OF_A_TREE {
                    rocks.delete_range(batch, family, &keys::tree(*tree), &keys::tree(tree + 1));
                }
            }
            Self::Finished(genesis) => rocks.delete(batch, DOOMED, &key(genesis)),
            Self::Tombstone(genesis) => rocks.delete(batch, TOMBSTONES, &key(genesis)),
        }
    }
}

impl Store {
    /// The tombstones of which something is left to remove, at most so many. What cannot be read is
    /// left out; `brain verify` names it. Blocks.
    pub fn doomed(&self, count: usize) -> Result<Vec<Tombstone>, ReadError> {
        let mut found = Vec::new();
        for row in self.rocks.keyed::<Option<TreeNumber>>(DOOMED, &[]) {
            let (at, _) = row?;
            match self.rocks.get::<Tombstone>(TOMBSTONES, &at) {
                Ok(tombstone) => found.extend(tombstone),
                Err(error @ ReadError::Corrupt { .. }) => {
                    tracing::error!(%error, "what is left of a tree stays");
                }
                Err(error) => return Err(error),
            }
            if found.len() == count {
                break;
            }
        }
        Ok(found)
    }

    /// Removes some conflicts of a doomed tree, and says which; none where none is left. Blocks.
    pub fn remove_conflicts(
        &self,
        tree: TreeNumber,
    ) -> Result<Option<Vec<ConflictId>>, RemovalError> {
        let prefix = keys::tree(tree);
        let mut conflicts = Vec::new();
        for row in self.rocks.below::<ConflictRecord>(CONFLICTS, &prefix).take(CONFLICTS_AT_ONCE) {
            let (at, record) = row?;
            if let Ok(at) = at.as_ref().try_into() {
                conflicts.push((at, record.ok().map(|record| record.conflict.id)));
            }
        }
        if conflicts.is_empty() {
            return Ok(None);
        }
        let ids = conflicts.iter().filter_map(|(_, id)| *id).collect();
        self.take(RemovalStep::Conflicts(conflicts))?;
        fail::fail_point!("removal.conflicts_gone");
        Ok(Some(ids))
    }

    /// Removes the dead letters of a doomed tree. Blocks.
    pub fn remove_letters(&self, genesis: &Genesis) -> Result<(), RemovalError> {
        let letters = self.dead_letters()?.into_iter().filter(|letter| letter.tree == *genesis);
        let gone: Vec<_> = letters.map(|letter| RegistryChange::discard(&letter)).collect();
        if !gone.is_empty() {
            self.change_registry(gone)?;
        }
        Ok(())
    }

    /// Removes the rows of a doomed tree, and has the disk give back their room. Blocks, for as long
    /// as the files take in which they lie.
    pub fn remove_rows(&self, tree: TreeNumber) -> Result<(), RemovalError> {
        self.take(RemovalStep::Rows(tree))?;
        fail::fail_point!("removal.rows_gone");
        for family in OF_A_TREE {
            self.rocks.compact(family, &keys::tree(tree), &keys::tree(tree + 1));
        }
        Ok(())
    }

    /// Notes that nothing is left to remove of a tree. Blocks.
    pub fn removal_finished(&self, genesis: &Genesis) -> Result<(), RemovalError> {
        fail::fail_point!("removal.before_finish");
        self.take(RemovalStep::Finished(genesis.clone()))
    }

    /// Lets the eldest tombstones go of which nothing is left to remove, where there are more than
    /// `kept_max`; says how many went. Goes through all of them. Blocks.
    pub fn trim_tombstones(&self, kept_max: usize) -> Result<usize, RemovalError> {
        let mut all = Vec::new();
        for row in self.rocks.keyed::<Tombstone>(TOMBSTONES, &[]) {
            // One that cannot be read stays, for people to look at.
            if let (at, Ok(tombstone)) = row? {
                all.push((tombstone.at_ms, at));
            }
        }
        let too_many = all.len().saturating_sub(kept_max);
        if too_many == 0 {
            return Ok(0);
        }
        all.sort_unstable();
        let mut gone = Vec::new();
        for (_, at) in all {
            if gone.len() == too_many {
                break;
            }
            if self.rocks.get::<Option<TreeNumber>>(DOOMED, &at)?.is_none()
                && let Some(tombstone) = self.rocks.get::<Tombstone>(TOMBSTONES, &at)?
            {
                gone.push(RegistryChange::Removal(RemovalStep::Tombstone(tombstone.genesis)));
            }
        }
        let count = gone.len();
        if count > 0 {
            self.change_registry(gone)?;
        }
        Ok(count)
    }

    fn take(&self, step: RemovalStep) -> Result<(), RemovalError> {
        Ok(self.change_registry(vec![RegistryChange::Removal(step)])?)
    }
}

#[cfg(test)]
mod tests;
