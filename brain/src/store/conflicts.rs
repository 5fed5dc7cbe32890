//! Conflicts and how they ended.

use std::collections::HashMap;

use actors::ports::{ConflictChange, ConflictRecord, ReadError, TreeCommit, TreeNumber};
use protocol::ConflictId;
use protocol::conflict::{Conflict, ConflictStatus, Resolution};
use protocol::state::Version;
use rocksdb::{Direction, WriteBatch};

use super::rocks::{CONFLICT_IDS, CONFLICTS, OPEN_CONFLICTS, Rocks};
use super::{Store, keys};

/// So many conflicts of a tree are kept. When more come, the oldest go that are resolved.
const KEPT_MAX: usize = 1_000;

type Key = [u8; 24];

/// What the writer knows of conflicts.
#[derive(Default)]
pub(super) struct Ledger {
    /// How many are kept of each tree that has had one since the start.
    kept: HashMap<TreeNumber, usize>,
    /// Those that the batch at hand changes: what it writes cannot be read before it is written.
    changed: HashMap<ConflictId, (Key, ConflictRecord)>,
}

impl Ledger {
    /// Takes what a commit says of conflicts.
    pub(super) fn take(&mut self, rocks: &Rocks, batch: &mut WriteBatch, commit: &TreeCommit) {
        for change in &commit.conflicts {
            let taken = match change {
                ConflictChange::Noticed(conflict) => self.notice(rocks, batch, commit, conflict),
                ConflictChange::Resolved(resolution) => self.resolve(rocks, resolution),
            };
            if let Err(error) = taken {
                // The entries are what counts, and they say it all.
                tracing::error!(%error, "a conflict's record cannot be read");
            }
        }
    }

    fn notice(
        &mut self,
        rocks: &Rocks,
        batch: &mut WriteBatch,
        commit: &TreeCommit,
        conflict: &Conflict,
    ) -> Result<(), ReadError> {
        let id = conflict.id;
        if let Some((key, mut record)) = self.find(rocks, id)? {
            // Noticed again after a failed commit, or back because what ended it was cut off.
            record.resolution = None;
            record.conflict.status = ConflictStatus::Open;
            self.changed.insert(id, (key, record));
            return Ok(());
        }
        self.make_room(rocks, batch, commit.number);
        let version = commit.record.version;
        let key = keys::conflict(commit.number, version, id);
        let (conflict, genesis) = (conflict.clone(), commit.record.genesis.clone());
        let record = ConflictRecord { conflict, genesis, version, resolution: None };
        self.changed.insert(id, (key, record));
        Ok(())
    }

    /// Lets the oldest go that is resolved, where there are too many. Where all are open, the
    /// tree's leaves bound them.
    fn make_room(&mut self, rocks: &Rocks, batch: &mut WriteBatch, number: TreeNumber) {
        let prefix = keys::tree(number);
        let of_tree = || {
            let rows = rocks.scan::<ConflictRecord>(CONFLICTS, &prefix, Direction::Forward);
            rows.filter_map(Result::ok).take_while(|(key, _)| key.starts_with(&prefix))
        };
        let kept = self.kept.entry(number).or_insert_with(|| of_tree().count());
        if *kept >= KEPT_MAX {
            let changed = &self.changed;
            let old = of_tree().find(|(_, record)| {
                record.resolution.is_some() && !changed.contains_key(&record.conflict.id)
            });
            if let Some((key, record)) = old {
                rocks.delete(batch, CONFLICTS, &key);
                rocks.delete(batch, CONFLICT_IDS, &record.conflict.id.0);
                *kept -= 1;
            }
        }
        *kept += 1;
    }

    fn resolve(&mut self, rocks: &Rocks, resolution: &Resolution) -> Result<(), ReadError> {
        let id = resolution.conflict_id;
        // One that is not there was let go, or is older than conflicts are.
        let Some((key, mut record)) = self.find(rocks, id)? else { return Ok(()) };
        if record.resolution.is_none() {
            record.resolution = Some(resolution.clone());
            record.conflict.status = ConflictStatus::Resolved;
            self.changed.insert(id, (key, record));
        }
        Ok(())
    }

    fn find(
        &self,
        rocks: &Rocks,
        id: ConflictId,
    ) -> Result<Option<(Key, ConflictRecord)>, ReadError> {
        if let Some(changed) = self.changed.get(&id) {
            return Ok(Some(changed.clone()));
        }
        find(rocks, id)
    }

    /// Adds what changed to the batch.
    pub(super) fn add_to(&mut self, rocks: &Rocks, batch: &mut WriteBatch) {
        for (id, (key, record)) in self.changed.drain() {
            rocks.put(batch, CONFLICTS, &key, &record);
            rocks.put(batch, CONFLICT_IDS, &id.0, &key);
            match record.resolution {
                None => rocks.put(batch, OPEN_CONFLICTS, &id.0, &key),
                Some(_) => rocks.delete(batch, OPEN_CONFLICTS, &id.0),
            }
        }
    }
}

fn find(rocks: &Rocks, id: ConflictId) -> Result<Option<(Key, ConflictRecord)>, ReadError> {
    let Some(key) = rocks.get::<Key>(CONFLICT_IDS, &id.0)? else { return Ok(None) };
    Ok(rocks.get(CONFLICTS, &key)?.map(|record| (key, record)))
}

impl Store {
    /// A conflict. Blocks.
    pub fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRecord>, ReadError> {
        Ok(find(&self.rocks, id)?.map(|(_, record)| record))
    }

    /// The first `limit` conflicts that nobody has resolved, in no particular order. What cannot
    /// be read is left out. Blocks.
    pub fn open_conflicts(&self, limit: usize) -> Vec<ConflictId> {
        let rows = self.rocks.scan_all::<Key>(OPEN_CONFLICTS).take(limit);
        let read = rows.filter_map(|row| match row {
            Ok((id, _)) => id.as_ref().try_into().ok().map(ConflictId),
            Err(error) => {
                tracing::error!(%error, "an open conflict cannot be read");
                None
            }
        });
        read.collect()
    }

    /// The last conflicts of a tree that came with a version up to `until`, the latest first: about
    /// `limit`, and all of the last version. Blocks.
    pub fn conflicts(
        &self,
        number: TreeNumber,
        until: Version,
        limit: usize,
    ) -> Result<Vec<ConflictRecord>, ReadError> {
        let from = keys::conflict(number, until, ConflictId([0xFF; 32]));
        let rows = self.rocks.scan::<ConflictRecord>(CONFLICTS, &from, Direction::Reverse);
        let mut records: Vec<ConflictRecord> = Vec::new();
        for row in rows {
            let (key, record) = row?;
            let is_next = records.last().is_some_and(|last| last.version != record.version);
            if !key.starts_with(&keys::tree(number)) || (records.len() >= limit && is_next) {
                break;
            }
            records.push(record);
        }
        Ok(records)
    }
}
