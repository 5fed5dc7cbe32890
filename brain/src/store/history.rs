//! Reading the past: states at a version or a time, changes, snapshots.

use std::ops::RangeInclusive;
use std::sync::Arc;

use actors::ports::{Origin, ReadError, Segment, Snapshot, StoreFault, TreeNumber, TreeRecord};
use protocol::EntryId;
use protocol::history::{Entry, Tree};
use protocol::state::{Path, State, StateSource, Version};
use rocksdb::Direction;
use serde::Serialize;

use super::base::pruned;
use super::between::Between;
use super::rocks::{HISTORY, Reach, SNAPSHOTS, unpack};
use super::{Store, keys};

/// Which state of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichVersion {
    /// The latest.
    Latest,
    /// After this commit.
    At(Version),
    /// What the brain had committed at this time, in milliseconds since the Unix epoch.
    CommittedBy(u64),
    /// What had happened by this time by the authors' clocks, as far as it is known now.
    HappenedBy(u64),
}

/// A tree's state at one version.
#[derive(Debug, Clone)]
pub struct TreeAt {
    /// The version.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_ms: u64,
    /// Where its last change came from.
    pub source: StateSource,
    /// The leaves.
    pub state: State,
    /// The root hash.
    pub root: [u8; 32],
}

/// One entry of a tree's history.
#[derive(Debug, Clone)]
pub struct HistoryEntry {
    /// The version that it made.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_ms: u64,
    /// Its id.
    pub id: EntryId,
    /// The entry.
    pub entry: Entry,
}

/// A snapshot, without its content.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SnapshotInfo {
    /// The version that it holds; also its id.
    pub version: Version,
    /// When that version was committed, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// How many leaves it holds.
    pub leaves: usize,
    /// The bytes that it takes, before the database's compression.
    pub size_bytes: usize,
    /// Whether a person asked for it.
    pub on_demand: bool,
}

/// So often a tree is read again because it changed meanwhile.
const REPLICA_TRIES: usize = 20;

impl TreeAt {
    /// About how much memory it takes.
    pub(super) fn size_bytes(&self) -> usize {
        let leaves = self.state.iter();
        128 + leaves
            .map(|(path, value)| 96 + path.as_str().len() + value.size_bytes())
            .sum::<usize>()
    }

    fn of(tree: &Tree, version: Version, committed_ms: u64, source: StateSource) -> Self {
        Self { version, committed_ms, source, state: tree.state(), root: tree.root() }
    }
}

impl Store {
    /// A tree's state; none where the version does not exist. The latest is answered from memory
    /// where it was read before.
    pub fn state(
        &self,
        number: TreeNumber,
        which: WhichVersion,
    ) -> Result<Option<Arc<TreeAt>>, ReadError> {
        let Some(record) = self.tree_record(number)? else { return Ok(None) };
        let version = match which {
            WhichVersion::HappenedBy(ms) => return self.happened_by(number, &record, ms).map(Some),
            WhichVersion::Latest => record.version,
            WhichVersion::At(version) if version <= record.version => version,
            WhichVersion::At(_) => return Ok(None),
            WhichVersion::CommittedBy(ms) => self.version_at(number, &record, ms)?,
        };
        if version < record.version {
            self.check_kept(number, version)?;
        }
        let read = self
            .states
            .get_or_read(number, version, || self.read_state(number, &record, version))?;
        if version < record.version {
            // It may have been let go while it was read.
            self.check_kept(number, version)?;
        }
        Ok(Some(read))
    }

    /// The last `limit` changes up to `until`, newest first.
    pub fn history(
        &self,
        number: TreeNumber,
        until: Version,
        limit: usize,
    ) -> Result<Vec<HistoryEntry>, ReadError> {
        let mut changes = Vec::new();
        let from = keys::versioned(number, until);
        for row in self.rocks.scan::<Segment>(HISTORY, &from, Direction::Reverse) {
            let (key, segment) = row?;
            if changes.len() >= limit || keys::version_of(number, &key).is_none() {
                break;
            }
            let entries = entries_of(segment)?;
            let wanted = entries.into_iter().rev().filter(|change| change.version <= until);
            changes.extend(wanted.take(limit - changes.len()));
        }
        Ok(changes)
    }

    /// The replica of a tree as the disk has it, with its row. Blocks.
    pub fn replica(&self, number: TreeNumber) -> Result<Option<(TreeRecord, Tree)>, ReadError> {
        for _ in 0..REPLICA_TRIES {
            let Some(record) = self.tree_record(number)? else { return Ok(None) };
            if let Some(tree) = self.replica_at(number, &record)? {
                return Ok(Some((record, tree)));
            }
        }
        let fault = StoreFault::Contended;
        Err(ReadError::Failed { fault, detail: fault.to_string() })
    }

    /// The replica of a tree that is at this row; none where it has gone on meanwhile.
    fn replica_at(
        &self,
        number: TreeNumber,
        record: &TreeRecord,
    ) -> Result<Option<Tree>, ReadError> {
        let leaves = self.rocks.leaves(Reach::Disk, number)?;
        // Leaves and row are two reads; a commit between them shows as another version.
        let again = self.tree_record(number)?.map_or(0, |record| record.version);
        let restore = || Tree::restore(record.genesis.clone(), record.logs.clone(), leaves);
        Ok((again == record.version).then(restore))
    }

    /// The entry `seq` of a log, given by its number in the tree. Blocks.
    pub fn entry(
        &self,
        number: TreeNumber,
        log: u32,
        seq: u64,
    ) -> Result<Option<HistoryEntry>, ReadError> {
        let segment = match self.rocks.segment_of(number, log, seq) {
            Err(ReadError::Pruned { .. }) => None,
            segment => segment?,
        };
        let found = match segment {
            Some(segment) => entries_of(segment)?.into_iter().find(|c| c.entry.seq == seq),
            None => None,
        };
        if found.is_some() {
            return Ok(found);
        }
        // It may be older than the history.
        let Some(origin) = self.kept_origin(number, log, seq)? else { return Ok(None) };
        let Origin { version: first_version, at_ms, batch, .. } = origin;
        Ok(entries_of(Segment { first_version, log, at_ms, batch })?.pop())
    }

    /// The last change of a leaf before a version, looked for in so many changes at most. Blocks.
    pub fn change_before(
        &self,
        number: TreeNumber,
        path: &Path,
        version: Version,
        changes_max: usize,
    ) -> Result<Option<HistoryEntry>, ReadError> {
        let from = keys::versioned(number, version.saturating_sub(1));
        let mut left = changes_max;
        for row in self.rocks.scan::<Segment>(HISTORY, &from, Direction::Reverse) {
            let (key, segment) = row?;
            if left == 0 || keys::version_of(number, &key).is_none() {
                break;
            }
            left = left.saturating_sub(segment.batch.len());
            let earlier =
                entries_of(segment)?.into_iter().filter(|change| change.version < version);
            let touches = |change: &HistoryEntry| {
                change.entry.delta.changes().any(|(other, _)| other == path)
            };
            if let Some(found) = earlier.filter(touches).last() {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    /// The snapshots of a tree, oldest first.
    pub fn snapshots(&self, number: TreeNumber) -> Result<Vec<SnapshotInfo>, ReadError> {
        let mut infos = Vec::new();
        let from = keys::tree(number);
        for row in self.rocks.scan::<Snapshot>(SNAPSHOTS, &from, Direction::Forward) {
            let (key, snapshot) = row?;
            if keys::version_of(number, &key).is_none() {
                break;
            }
            infos.push(SnapshotInfo {
                version: snapshot.version,
                timestamp: snapshot.at_ms,
                leaves: snapshot.leaves.len(),
                size_bytes: protocol::codec::encode(&snapshot).len(),
                on_demand: snapshot.on_demand,
            });
        }
        Ok(infos)
    }

    /// The last version committed at or before `ms`.
    fn version_at(
        &self,
        number: TreeNumber,
        record: &TreeRecord,
        ms: u64,
    ) -> Result<Version, ReadError> {
        if record.committed_ms <= ms {
            return Ok(record.version);
        }
        let base = self.base(number)?;
        if let Some(base) = base.as_ref().filter(|base| ms < base.at_ms) {
            return Err(pruned(base));
        }
        // Commit times never fall, so the last commit not after `ms` is found by narrowing.
        let mut between = Between {
            low: base.as_ref().map_or(0, |base| base.version),
            low_ms: base.map(|base| base.at_ms),
            high: record.version,
            high_ms: record.committed_ms,
            tried: 0,
        };
        while between.low < between.high {
            match self.commit_with(number, between.guess(ms))? {
                Some((versions, at_ms)) => between.narrow(versions, at_ms, ms),
                None => return Ok(between.low),
            }
        }
        Ok(between.low)
    }

    /// The versions of the commit that a version lies in, and when that was.
    fn commit_with(
        &self,
        number: TreeNumber,
        version: Version,
    ) -> Result<Option<(RangeInclusive<Version>, u64)>, ReadError> {
        if let Some(segment) = self.segment_with(number, version)? {
            let first = segment.first_version;
            let last = first + segment.batch.len() as u64 - 1;
            if version <= last {
                return Ok(Some((first..=last, segment.at_ms)));
            }
        }
        // A version without entries: the leaves were folded again, and a snapshot kept of them.
        let key = keys::versioned(number, version);
        let snapshot = self.rocks.get::<Snapshot>(SNAPSHOTS, &key)?;
        Ok(snapshot.map(|snapshot| (version..=version, snapshot.at_ms)))
    }

    /// The segment that a version lies in, or the last before it.
    fn segment_with(
        &self,
        number: TreeNumber,
        version: Version,
    ) -> Result<Option<Segment>, ReadError> {
        let from = keys::versioned(number, version);
        let row = self.rocks.scan::<Segment>(HISTORY, &from, Direction::Reverse).next();
        let Some((key, segment)) = row.transpose()? else { return Ok(None) };
        Ok(keys::version_of(number, &key).map(|_| segment))
    }

    fn read_state(
        &self,
        number: TreeNumber,
        record: &TreeRecord,
        version: Version,
    ) -> Result<TreeAt, ReadError> {
        if version == record.version
            && let Some(tree) = self.replica_at(number, record)?
        {
            return Ok(TreeAt::of(&tree, version, record.committed_ms, record.source));
        }
        let (tree, at, committed_ms, source) = self.fold(number, record, version)?;
        Ok(TreeAt::of(&tree, at, committed_ms, source))
    }

    /// The same as [`state`](Self::state) with the candidates of the leaves. Blocks.
    pub fn tree_at(
        &self,
        number: TreeNumber,
        which: WhichVersion,
    ) -> Result<Option<Tree>, ReadError> {
        let Some(record) = self.tree_record(number)? else { return Ok(None) };
        let version = match which {
            WhichVersion::Latest => return Ok(self.replica(number)?.map(|(_, tree)| tree)),
            WhichVersion::HappenedBy(ms) => {
                return self.fold_happened(number, &record, ms).map(|(tree, ..)| Some(tree));
            }
            WhichVersion::At(version) => version.min(record.version),
            WhichVersion::CommittedBy(ms) => self.version_at(number, &record, ms)?,
        };
        self.check_kept(number, version)?;
        self.fold(number, &record, version).map(|(tree, ..)| Some(tree))
    }

    /// Folds the entries from the nearest snapshot up to `version`.
    pub(super) fn fold(
        &self,
        number: TreeNumber,
        record: &TreeRecord,
        version: Version,
    ) -> Result<(Tree, Version, u64, StateSource), ReadError> {
        let from = keys::versioned(number, version);
        let row = self.rocks.scan::<Snapshot>(SNAPSHOTS, &from, Direction::Reverse).next();
        let snapshot = row.transpose()?.filter(|(key, _)| keys::version_of(number, key).is_some());
        let (mut tree, mut at, mut committed_ms, mut source) = match snapshot {
            Some((_, snapshot)) => (
                Tree::restore(record.genesis.clone(), snapshot.logs, snapshot.leaves),
                snapshot.version,
                snapshot.at_ms,
                snapshot.source,
            ),
            None => (Tree::new(record.genesis.clone()), 0, 0, StateSource::Brain),
        };
        if at == version {
            return Ok((tree, at, committed_ms, source));
        }
        self.each_entry(number, at, |change| {
            if change.version > version {
                return false;
            }
            at = change.version;
            committed_ms = change.committed_ms;
            source = change.entry.provenance.source;
            tree.apply(&change.entry, change.id);
            at < version
        })?;
        Ok((tree, at, committed_ms, source))
    }

    fn happened_by(
        &self,
        number: TreeNumber,
        record: &TreeRecord,
        ms: u64,
    ) -> Result<Arc<TreeAt>, ReadError> {
        let (tree, version, committed_ms, source) = self.fold_happened(number, record, ms)?;
        Ok(Arc::new(TreeAt::of(&tree, version, committed_ms, source)))
    }

    fn fold_happened(
        &self,
        number: TreeNumber,
        record: &TreeRecord,
        ms: u64,
    ) -> Result<(Tree, Version, u64, StateSource), ReadError> {
        let (mut tree, begin, at_ms, source) =
            self.beginning(number, Tree::new(record.genesis.clone()))?;
        // What had not happened yet by then cannot be taken out of it again.
        let happened = tree.logs().iter().map(|log| log.hlc.wall_ms).max().unwrap_or(0);
        if ms < happened {
            return Err(ReadError::Pruned { version: begin, at_ms });
        }
        let mut last = (begin, at_ms, source);
        let counts = |entry: &Entry| {
            let log = record.logs.iter().find(|log| log.log == entry.log);
            let cut = log.and_then(|log| log.cut.as_ref());
            cut.is_none_or(|cut| entry.seq <= cut.last_seq)
        };
        // Timestamps grow along a log, so what is left of each log is a gapless beginning.
        self.each_entry(number, begin, |change| {
            if change.entry.hlc.wall_ms <= ms && counts(&change.entry) {
                tree.apply(&change.entry, change.id);
                last = (change.version, change.committed_ms, change.entry.provenance.source);
            }
            true
        })?;
        Ok((tree, last.0, last.1, last.2))
    }

    /// Hands out the entries above version `after`, with which a commit ended, oldest first, until
    /// `visit` says stop.
    pub(super) fn each_entry(
        &self,
        number: TreeNumber,
        after: Version,
        mut visit: impl FnMut(HistoryEntry) -> bool,
    ) -> Result<(), ReadError> {
        let from = keys::versioned(number, after + 1);
        for row in self.rocks.scan::<Segment>(HISTORY, &from, Direction::Forward) {
            let (key, segment) = row?;
            if keys::version_of(number, &key).is_none() {
                break;
            }
            for change in entries_of(segment)? {
                if !visit(change) {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn entries_of(segment: Segment) -> Result<Vec<HistoryEntry>, ReadError> {
    let (first, committed_ms) = (segment.first_version, segment.at_ms);
    let entries = unpack(segment)?.into_iter().zip(first..);
    Ok(entries
        .map(|((id, entry), version)| HistoryEntry { version, committed_ms, id, entry })
        .collect())
}
