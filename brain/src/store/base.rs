//! Where a tree's history begins, once it was pruned.

use actors::ports::{
    Base, Origin, Prune, ReadError, RecordDamage, Snapshot, TreeCommit, TreeNumber, TreeRecord,
};
use protocol::history::Tree;
use protocol::state::{StateSource, Version};
use protocol::wire::Batch;
use rocksdb::{Direction, WriteBatch};

use super::rocks::{BASES, HISTORY, LOG_ENDS, ORIGINS, Rocks, SNAPSHOTS, TREES};
use super::{HistoryEntry, Store, keys};
use crate::retention::Beginning;

/// Adds what a commit drops.
pub(super) fn add(rocks: &Rocks, batch: &mut WriteBatch, commit: &TreeCommit) {
    let Some(Prune { base, kept, origins }) = &commit.prune else { return };
    let number = commit.number;
    let (first, after) = (keys::versioned(number, 0), keys::versioned(number, base.version + 1));
    rocks.delete_range(batch, HISTORY, &first, &after);
    let mut from = 0;
    for until in kept.iter().copied().chain([base.version]).filter(|until| *until <= base.version) {
        let (from_key, until_key) = (keys::versioned(number, from), keys::versioned(number, until));
        rocks.delete_range(batch, SNAPSHOTS, &from_key, &until_key);
        from = until + 1;
    }
    for (log, state) in (0u32..).zip(&commit.record.logs) {
        let floor = base.floor.get(&state.log);
        if floor > 0 {
            let (first, after) =
                (keys::log_end(number, log, 0), keys::log_end(number, log, floor + 1));
            rocks.delete_range(batch, LOG_ENDS, &first, &after);
        }
    }
    rocks.delete_range(batch, ORIGINS, &keys::tree(number), &keys::tree(number + 1));
    for origin in origins {
        rocks.put(batch, ORIGINS, &keys::log_end(number, origin.log, origin.seq), origin);
    }
    rocks.put(batch, BASES, &keys::tree(number), base);
}

/// The error of a read from before the history begins.
pub(super) fn pruned(base: &Base) -> ReadError {
    ReadError::Pruned { version: base.version, at_ms: base.at_ms }
}

impl Store {
    /// Where a tree's history begins; none where it was never pruned. Blocks.
    pub fn base(&self, number: TreeNumber) -> Result<Option<Base>, ReadError> {
        self.rocks.get(BASES, &keys::tree(number))
    }

    /// An entry from before the history begins that a leaf goes back to. Blocks.
    pub(super) fn kept_origin(
        &self,
        number: TreeNumber,
        log: u32,
        seq: u64,
    ) -> Result<Option<Origin>, ReadError> {
        self.rocks.get(ORIGINS, &keys::log_end(number, log, seq))
    }

    /// An entry, to be kept by itself. Blocks.
    pub(super) fn read_origin(
        &self,
        number: TreeNumber,
        log: u32,
        seq: u64,
    ) -> Result<Option<Origin>, ReadError> {
        let Some(found) = self.entry(number, log, seq)? else { return Ok(None) };
        let HistoryEntry { version, committed_ms: at_ms, entry, .. } = found;
        let batch = Batch::pack(&[entry]).map_err(|error| {
            let (family, damage) = (HISTORY, RecordDamage::Form);
            ReadError::Corrupt { family, damage, detail: error.to_string() }
        })?;
        Ok(Some(Origin { log, seq, version, at_ms, batch }))
    }

    /// Refuses a version from before the history begins, unless a snapshot of it was kept.
    pub(super) fn check_kept(&self, number: TreeNumber, version: Version) -> Result<(), ReadError> {
        match self.base(number)? {
            Some(base) if version < base.version => {
                let key = keys::versioned(number, version);
                match self.rocks.get::<Snapshot>(SNAPSHOTS, &key)? {
                    Some(_) => Ok(()),
                    None => Err(pruned(&base)),
                }
            }
            _ => Ok(()),
        }
    }

    /// What a fold of a whole history begins with: the tree at some version, when that was committed,
    /// and where it came from.
    pub(super) fn beginning(
        &self,
        number: TreeNumber,
        empty: Tree,
    ) -> Result<(Tree, Version, u64, StateSource), ReadError> {
        let Some(base) = self.base(number)? else {
            return Ok((empty, 0, 0, StateSource::Brain));
        };
        let key = keys::versioned(number, base.version);
        let found = self.rocks.get::<Snapshot>(SNAPSHOTS, &key)?;
        let snapshot = found.ok_or_else(|| ReadError::Corrupt {
            family: SNAPSHOTS,
            damage: RecordDamage::Missing,
            detail: format!("tree {number} lacks the snapshot that its history begins with"),
        })?;
        let Snapshot { version, at_ms, source, logs, leaves, .. } = snapshot;
        Ok((Tree::restore(empty.genesis().clone(), logs, leaves), version, at_ms, source))
    }

    /// The snapshots of a tree from where its history begins on, which it might begin with instead,
    /// and those that were kept from before. Blocks.
    pub fn beginnings(
        &self,
        number: TreeNumber,
    ) -> impl Iterator<Item = Result<Beginning, ReadError>> {
        let rows = self.rocks.scan::<Snapshot>(SNAPSHOTS, &keys::tree(number), Direction::Forward);
        let of_tree = rows.take_while(move |row| {
            row.as_ref().map_or(true, |(key, _)| keys::version_of(number, key).is_some())
        });
        of_tree.map(|row| {
            let (_, Snapshot { version, at_ms, written_bytes, on_demand, .. }) = row?;
            Ok(Beginning { version, at_ms, written_bytes, on_demand })
        })
    }

    /// The rows of the trees above a number, at most so many, and the number to go on after; none
    /// after the last of all. Blocks.
    #[expect(clippy::type_complexity, reason = "rows by number, as everywhere")]
    pub fn tree_records(
        &self,
        after: TreeNumber,
        count: usize,
    ) -> Result<(Vec<(TreeNumber, TreeRecord)>, Option<TreeNumber>), ReadError> {
        let from = keys::tree(after.saturating_add(1));
        let (mut found, mut last, mut looked) = (Vec::new(), after, 0);
        for row in self.rocks.keyed::<TreeRecord>(TREES, &from).take(count) {
            looked += 1;
            let (key, record) = row?;
            let Ok(number) = key.as_ref().try_into().map(TreeNumber::from_be_bytes) else {
                continue;
            };
            last = number;
            match record {
                Ok(record) => found.push((number, record)),
                // The consistency check names it.
                Err(ReadError::Corrupt { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok((found, (looked == count).then_some(last)))
    }
}
