//! Conflicts and how they ended.

use std::collections::HashMap;

use actors::ports::{ConflictChange, ConflictRecord, ReadError, TreeCommit, TreeNumber};
use protocol::ConflictId;
use protocol::conflict::{ConflictStatus, Resolution};
use protocol::state::Version;
use rocksdb::{Direction, WriteBatch};

use super::rocks::{CONFLICT_IDS, CONFLICTS, OPEN_CONFLICTS, Rocks};
use super::{Store, keys};

/// The conflicts that a batch changes: what it writes cannot be read before it is written.
#[derive(Default)]
pub(super) struct Changed(HashMap<ConflictId, ([u8; 24], ConflictRecord)>);

impl Changed {
    /// Takes what a commit says of conflicts.
    pub(super) fn take(&mut self, rocks: &Rocks, commit: &TreeCommit) -> Result<(), ReadError> {
        for change in &commit.conflicts {
            match change {
                ConflictChange::Noticed(conflict) => {
                    let version = commit.record.version;
                    let key = keys::conflict(commit.number, version, conflict.id);
                    let conflict = (**conflict).clone();
                    let id = conflict.id;
                    // A loading that came after a failed commit notices again what that had.
                    if self.find(rocks, id)?.is_none() {
                        let genesis = commit.record.genesis.clone();
                        let record =
                            ConflictRecord { conflict, genesis, version, resolution: None };
                        self.0.insert(id, (key, record));
                    }
                }
                ConflictChange::Resolved(resolution) => self.resolve(rocks, resolution)?,
            }
        }
        Ok(())
    }

    fn resolve(&mut self, rocks: &Rocks, resolution: &Resolution) -> Result<(), ReadError> {
        let id = resolution.conflict_id;
        // One that was never recorded was there before conflicts were.
        let Some((key, mut record)) = self.find(rocks, id)? else { return Ok(()) };
        if record.resolution.is_none() {
            record.resolution = Some(resolution.clone());
            record.conflict.status = ConflictStatus::Resolved;
            self.0.insert(id, (key, record));
        }
        Ok(())
    }

    fn find(
        &self,
        rocks: &Rocks,
        id: ConflictId,
    ) -> Result<Option<([u8; 24], ConflictRecord)>, ReadError> {
        if let Some(changed) = self.0.get(&id) {
            return Ok(Some(changed.clone()));
        }
        find(rocks, id)
    }

    /// Adds them to the batch.
    pub(super) fn add_to(self, rocks: &Rocks, batch: &mut WriteBatch) {
        for (id, (key, record)) in self.0 {
            rocks.put(batch, CONFLICTS, &key, &record);
            rocks.put(batch, CONFLICT_IDS, &id.0, &key);
            match record.resolution {
                None => rocks.put(batch, OPEN_CONFLICTS, &id.0, &key),
                Some(_) => rocks.delete(batch, OPEN_CONFLICTS, &id.0),
            }
        }
    }
}

fn find(rocks: &Rocks, id: ConflictId) -> Result<Option<([u8; 24], ConflictRecord)>, ReadError> {
    let Some(key) = rocks.get::<[u8; 24]>(CONFLICT_IDS, &id.0)? else { return Ok(None) };
    Ok(rocks.get(CONFLICTS, &key)?.map(|record| (key, record)))
}

impl Store {
    /// A conflict. Blocks.
    pub fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRecord>, ReadError> {
        Ok(find(&self.rocks, id)?.map(|(_, record)| record))
    }

    /// The first `limit` conflicts that nobody has resolved, in no particular order. Blocks.
    pub fn open_conflicts(&self, limit: usize) -> Result<Vec<ConflictId>, ReadError> {
        let rows = self.rocks.scan_all::<[u8; 24]>(OPEN_CONFLICTS).take(limit);
        let ids = rows.map(|row| row.map(|(id, _)| id.as_ref().try_into().ok().map(ConflictId)));
        Ok(ids.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect())
    }

    /// The last `limit` conflicts of a tree that came with a version up to `until`, the latest
    /// first. Blocks.
    pub fn conflicts(
        &self,
        number: TreeNumber,
        until: Version,
        limit: usize,
    ) -> Result<Vec<ConflictRecord>, ReadError> {
        let from = keys::conflict(number, until, ConflictId([0xFF; 32]));
        let rows = self.rocks.scan::<ConflictRecord>(CONFLICTS, &from, Direction::Reverse);
        let mut records = Vec::new();
        for row in rows.take(limit) {
            let (key, record) = row?;
            if !key.starts_with(&keys::tree(number)) {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }
}
