//! Going through a tree's history from its first entry.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use actors::ports::{ReadError, RecordDamage, Snapshot, TreeNumber};
use protocol::history::Tree;
use protocol::state::Version;
use rocksdb::Direction;

use super::rocks::SNAPSHOTS;
use super::{HistoryEntry, Store, WhichVersion, keys};

/// What a replay came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Replayed {
    /// The version that it went up to.
    pub version: Version,
    /// The root of the leaves that the entries come to.
    pub root: [u8; 32],
    /// The root of the leaves that are kept of that version.
    pub kept: [u8; 32],
}

impl Store {
    /// Folds a tree's entries from the first that is kept on up to a version, and shows each with what it made of
    /// the tree. Snapshots have no part in it, but where a cut took entries away: there the leaves were
    /// folded again, and a snapshot is all that says how. None where there is no such version, or
    /// where the visitor breaks off. Blocks.
    pub fn replay(
        &self,
        number: TreeNumber,
        to: Version,
        mut visit: impl FnMut(&HistoryEntry, &Tree) -> ControlFlow<()>,
    ) -> Result<Option<Replayed>, ReadError> {
        let Some(record) = self.tree_record(number)? else { return Ok(None) };
        let Some(kept) = self.state(number, WhichVersion::At(to))? else { return Ok(None) };
        let snapshots = self.snapshot_versions(number)?;
        let (mut tree, begin, at_ms, _) =
            self.beginning(number, Tree::new(record.genesis.clone()))?;
        if to < begin {
            // A snapshot of it may be kept, and there is nothing to compare it with.
            return Err(ReadError::Pruned { version: begin, at_ms });
        }
        let (mut version, mut failed, mut left) = (begin, None, false);
        self.each_entry(number, begin, |change| {
            if change.version > to {
                return false;
            }
            let mut step = || -> Result<(), ReadError> {
                if change.version > version + 1 {
                    self.adopt(number, change.version - 1, &mut tree)?;
                }
                tree.apply(&change.entry, change.id);
                version = change.version;
                if snapshots.contains(&version) {
                    self.adopt_if_cut(number, version, &mut tree)?;
                }
                Ok(())
            };
            if let Err(error) = step() {
                failed = Some(error);
                return false;
            }
            left = visit(&change, &tree).is_break();
            !left
        })?;
        if let Some(error) = failed {
            return Err(error);
        }
        if left {
            return Ok(None);
        }
        if version < to {
            self.adopt(number, to, &mut tree)?;
        }
        Ok(Some(Replayed { version: to, root: tree.root(), kept: kept.root }))
    }

    /// Goes on from the snapshot of a version that no entry made.
    fn adopt(
        &self,
        number: TreeNumber,
        version: Version,
        tree: &mut Tree,
    ) -> Result<(), ReadError> {
        let key = keys::versioned(number, version);
        let found = self.rocks.get::<Snapshot>(SNAPSHOTS, &key)?;
        let Snapshot { logs, leaves, .. } = found.ok_or_else(|| ReadError::Corrupt {
            family: SNAPSHOTS,
            damage: RecordDamage::Missing,
            detail: format!("tree {number} lacks the snapshot of version {version}"),
        })?;
        *tree = Tree::restore(tree.genesis().clone(), logs, leaves);
        Ok(())
    }

    /// The same where the snapshot knows of a cut below what is folded.
    fn adopt_if_cut(
        &self,
        number: TreeNumber,
        version: Version,
        tree: &mut Tree,
    ) -> Result<(), ReadError> {
        let key = keys::versioned(number, version);
        let Some(snapshot) = self.rocks.get::<Snapshot>(SNAPSHOTS, &key)? else { return Ok(()) };
        let is_cut = snapshot.logs.iter().any(|log| {
            let folded = tree.log(&log.log).map_or(0, |log| log.seq);
            log.cut.as_ref().is_some_and(|cut| cut.last_seq < folded)
        });
        if is_cut {
            *tree = Tree::restore(tree.genesis().clone(), snapshot.logs, snapshot.leaves);
        }
        Ok(())
    }

    fn snapshot_versions(&self, number: TreeNumber) -> Result<BTreeSet<Version>, ReadError> {
        let from = keys::tree(number);
        let mut versions = BTreeSet::new();
        for row in self.rocks.scan::<Snapshot>(SNAPSHOTS, &from, Direction::Forward) {
            let (key, _) = row?;
            let Some(version) = keys::version_of(number, &key) else { break };
            versions.insert(version);
        }
        Ok(versions)
    }
}
