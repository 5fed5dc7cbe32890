//! The database: column families, options, and typed reads.

mod rows;

use std::collections::BTreeMap;
use std::path::Path as FsPath;

use actors::ports::{Base, ReadError, RecordDamage, Segment, StoreFault, TreeNumber};
use protocol::history::{Entry, Leaf};
use protocol::state::Path;
use protocol::{EntryId, FleetId};
use rocksdb::checkpoint::Checkpoint;
use rocksdb::{
    BlockBasedOptions, Cache, ColumnFamily, ColumnFamilyDescriptor, CompactOptions, DB,
    DBCompressionType, Direction, IteratorMode, Options, ReadOptions, ReadTier, WriteBatch,
    WriteOptions,
};
use serde::de::DeserializeOwned;

use super::{OpenError, StoreConfig, base, keys, record};
use crate::files;

/// The format of the database. Another one is refused.
const FORMAT: u32 = 4;

/// `format`, `fleet`, and in `last_tree` the highest number that a tree had which is gone.
pub(super) const META: &str = "meta";
/// Tree id to the store's number of it.
pub(super) const TREE_IDS: &str = "tree_ids";
/// Tree number to [`TreeRecord`](actors::ports::TreeRecord).
pub(super) const TREES: &str = "trees";
/// Tree and first version to [`Segment`].
pub(super) const HISTORY: &str = "history";
/// Tree, log and last number to the first version of the segment.
pub(super) const LOG_ENDS: &str = "log_ends";
/// Tree and path to [`Leaf`].
pub(super) const LEAVES: &str = "leaves";
/// Tree and version to [`Snapshot`](actors::ports::Snapshot).
pub(super) const SNAPSHOTS: &str = "snapshots";
/// Tree to [`Base`](actors::ports::Base), where its history was pruned.
pub(super) const BASES: &str = "bases";
/// Tree, log and number of an entry to [`Origin`](actors::ports::Origin), where the entry is older than
/// the history and a leaf goes back to it.
pub(super) const ORIGINS: &str = "origins";
/// Device id to [`DeviceRecord`](super::DeviceRecord).
pub(super) const DEVICES: &str = "devices";
/// Number to [`EnrolmentRecord`](super::EnrolmentRecord).
pub(super) const ENROLMENTS: &str = "enrolments";
/// Hash of the token to [`ApiToken`](super::ApiToken).
pub(super) const API_TOKENS: &str = "api_tokens";
/// A running number to [`Evidence`](actors::ports::Evidence).
pub(super) const EVIDENCE: &str = "evidence";

/// Digest and name of a tree to [`DeadLetter`](actors::ports::DeadLetter).
pub(super) const DEAD_LETTERS: &str = "dead_letters";

/// Tree, version and the beginning of the id to
/// [`ConflictRecord`](actors::ports::ConflictRecord).
pub(super) const CONFLICTS: &str = "conflicts";
/// Id to the key of the conflict.
pub(super) const CONFLICT_IDS: &str = "conflict_ids";

/// Ids of conflicts that nobody has resolved, with their keys.
pub(super) const OPEN_CONFLICTS: &str = "open_conflicts";

/// Name of a group to the number of its tree.
pub(super) const GROUPS: &str = "groups";
/// Device, key and group, where the device is a member with that key.
pub(super) const MEMBERSHIPS: &str = "memberships";

/// A running number to a row of the audit list.
pub(super) const AUDIT: &str = "audit";

/// Kind and name of a tree to the [`Tombstone`](super::Tombstone) in its place.
pub(super) const TOMBSTONES: &str = "tombstones";
/// The same to the number that the tree had, where what it left is still being removed.
pub(super) const DOOMED: &str = "doomed";

/// All of them. One that a database lacks, since a release made it that did not know of it, is made
/// when it is opened to write, and is empty where it is opened to read.
pub(super) const FAMILIES: [&str; 22] = [
    META,
    TREE_IDS,
    TREES,
    HISTORY,
    LOG_ENDS,
    LEAVES,
    SNAPSHOTS,
    BASES,
    ORIGINS,
    DEVICES,
    ENROLMENTS,
    API_TOKENS,
    EVIDENCE,
    DEAD_LETTERS,
    CONFLICTS,
    CONFLICT_IDS,
    OPEN_CONFLICTS,
    GROUPS,
    MEMBERSHIPS,
    AUDIT,
    TOMBSTONES,
    DOOMED,
];

/// Where [`META`] has the highest number of a tree that is gone.
pub(super) const LAST_TREE: &[u8] = b"last_tree";

/// How much all memtables together may take: what a crash has to replay and a full disk to hold.
const MEMTABLES_BYTES: usize = 64 << 20;
/// How much of the write-ahead log may be kept.
const WAL_BYTES_MAX: u64 = 128 << 20;

/// How far a read may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reach {
    /// To the disk, which may take long.
    Disk,
    /// To what is in memory.
    Memory,
}

impl Reach {
    fn options(self) -> ReadOptions {
        let mut options = ReadOptions::default();
        if self == Self::Memory {
            options.set_read_tier(ReadTier::BlockCache);
        }
        options
    }
}

/// The open database.
pub(super) struct Rocks {
    db: DB,
}

impl Rocks {
    pub(super) fn open(config: &StoreConfig, fleet: FleetId) -> Result<Self, OpenError> {
        let folder = &config.folder;
        let error = |source| OpenError::Database { folder: folder.clone(), source };
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let families =
            FAMILIES.map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
        fail::fail_point!("store.before_open");
        // The database syncs what is in the folder, not the folder's own name.
        files::create_folder(folder)
            .map_err(|source| OpenError::Folder { folder: folder.clone(), source })?;
        let db =
            DB::open_cf_descriptors(&database_options(config), folder, families).map_err(error)?;
        fail::fail_point!("store.opened");
        let rocks = Self { db };
        rocks.check_identity(folder, fleet)?;
        Ok(rocks)
    }

    /// Opens a database that is there, to read only: beside a process that writes it, if need be.
    pub(super) fn open_to_read(config: &StoreConfig, fleet: FleetId) -> Result<Self, OpenError> {
        let folder = &config.folder;
        let error = |source| OpenError::Database { folder: folder.clone(), source };
        let cache = Cache::new_lru_cache(config.block_cache_bytes);
        let mut options = database_options(config);
        let there = DB::list_cf(&options, folder).map_err(error)?;
        let families = FAMILIES.into_iter().filter(|name| there.iter().any(|known| known == name));
        let families =
            families.map(|name| ColumnFamilyDescriptor::new(name, family_options(&cache)));
        // A writer may remove a file at any time; one that is open stays.
        options.set_max_open_files(-1);
        let db = DB::open_cf_descriptors_read_only(&options, folder, families, false);
        let rocks = Self { db: db.map_err(error)? };
        rocks.check_identity(folder, fleet)?;
        Ok(rocks)
    }

    fn check_identity(&self, folder: &FsPath, fleet: FleetId) -> Result<(), OpenError> {
        let damaged = |source| OpenError::Damaged { folder: folder.to_owned(), source };
        match self.get::<u32>(META, b"format").map_err(damaged)? {
            Some(FORMAT) => {}
            Some(found) if found > FORMAT => {
                return Err(OpenError::FormatNewer { found, known: FORMAT });
            }
            Some(found) => return Err(OpenError::FormatOlder { found, known: FORMAT }),
            None => {
                let mut batch = WriteBatch::default();
                self.put(&mut batch, META, b"format", &FORMAT);
                self.put(&mut batch, META, b"fleet", &fleet);
                let error = |source| OpenError::Database { folder: folder.to_owned(), source };
                self.write(batch).map_err(error)?;
                fail::fail_point!("store.identity_made");
            }
        }
        match self.get::<FleetId>(META, b"fleet").map_err(damaged)? {
            Some(found) if found != fleet => Err(OpenError::OtherFleet { expected: fleet, found }),
            _ => Ok(()),
        }
    }

    /// Adds a record to a batch.
    pub(super) fn put<T: serde::Serialize>(
        &self,
        batch: &mut WriteBatch,
        family: &'static str,
        key: &[u8],
        value: &T,
    ) {
        batch.put_cf(self.family(family), key, record::seal(key, value));
    }

    /// Adds a removal to a batch.
    pub(super) fn delete(&self, batch: &mut WriteBatch, family: &'static str, key: &[u8]) {
        batch.delete_cf(self.family(family), key);
    }

    /// Adds the removal of all records from the key `from` on and before the key `to`.
    pub(super) fn delete_range(
        &self,
        batch: &mut WriteBatch,
        family: &'static str,
        from: &[u8],
        to: &[u8],
    ) {
        batch.delete_range_cf(self.family(family), from, to);
    }

    /// Writes a batch and waits for the `fsync` that covers it.
    pub(super) fn write(&self, batch: WriteBatch) -> Result<(), rocksdb::Error> {
        let mut options = WriteOptions::default();
        options.set_sync(true);
        #[cfg(feature = "planted-faults")]
        options.set_sync(!crate::planted::fsync_is_skipped());
        fail::fail_point!("store.before_write");
        self.db.write_opt(batch, &options)?;
        fail::fail_point!("store.written");
        Ok(())
    }

    /// Copies the database as it is at one moment into a new folder.
    pub(super) fn checkpoint(&self, folder: &FsPath) -> Result<(), rocksdb::Error> {
        Checkpoint::new(&self.db)?.create_checkpoint(folder)
    }

    /// The number of the last write: it only grows.
    pub(super) fn latest_write(&self) -> u64 {
        self.db.latest_sequence_number()
    }

    pub(super) fn get<T: DeserializeOwned>(
        &self,
        family: &'static str,
        key: &[u8],
    ) -> Result<Option<T>, ReadError> {
        self.get_from(Reach::Disk, family, key)
    }

    /// The same, from as far as `reach`; beyond it, it fails.
    pub(super) fn get_from<T: DeserializeOwned>(
        &self,
        reach: Reach,
        family: &'static str,
        key: &[u8],
    ) -> Result<Option<T>, ReadError> {
        let Some(handle) = self.db.cf_handle(family) else { return Ok(None) };
        let found = self.db.get_pinned_cf_opt(handle, key, &reach.options());
        let found = found.map_err(read_error)?;
        found.map(|record| record::open(family, key, &record)).transpose()
    }

    /// The largest tree number in use, now or before; 0 where there is none.
    pub(super) fn last_tree_number(&self) -> Result<TreeNumber, ReadError> {
        let gone = self.get::<TreeNumber>(META, LAST_TREE)?.unwrap_or(0);
        let mut rows = self.db.iterator_cf(self.family(TREES), IteratorMode::End);
        let Some(row) = rows.next() else { return Ok(gone) };
        let (key, _) = row.map_err(read_error)?;
        let number = key.as_ref().try_into().map(TreeNumber::from_be_bytes);
        let damaged = |_| ReadError::Corrupt {
            family: TREES,
            damage: RecordDamage::Form,
            detail: "key of odd length".into(),
        };
        Ok(number.map_err(damaged)?.max(gone))
    }

    /// Has the disk give back what was deleted from the key `from` on and before the key `to`, as far
    /// as that lies in files of its own level. Blocks.
    pub(super) fn compact(&self, family: &'static str, from: &[u8], to: &[u8]) {
        let mut options = CompactOptions::default();
        // Others may go on meanwhile.
        options.set_exclusive_manual_compaction(false);
        self.db.compact_range_cf_opt(self.family(family), Some(from), Some(to), &options);
    }

    /// The next free number of evidence.
    pub(super) fn next_evidence_number(&self) -> u64 {
        let mut rows = self.db.iterator_cf(self.family(EVIDENCE), IteratorMode::End);
        let last = rows.next().and_then(Result::ok);
        last.and_then(|(key, _)| key.as_ref().try_into().ok().map(u64::from_be_bytes))
            .map_or(0, |last| last + 1)
    }

    pub(super) fn leaves(
        &self,
        reach: Reach,
        tree: TreeNumber,
    ) -> Result<BTreeMap<Path, Leaf>, ReadError> {
        let mut leaves = BTreeMap::new();
        let from = keys::tree(tree);
        for row in self.scan_from::<Leaf>(reach, LEAVES, &from, Direction::Forward) {
            let (key, leaf) = row?;
            if !key.starts_with(&keys::tree(tree)) {
                break;
            }
            let path = keys::path_of(tree, &key).ok_or_else(|| ReadError::Corrupt {
                family: LEAVES,
                damage: RecordDamage::Form,
                detail: "key is no path".into(),
            })?;
            leaves.insert(path, leaf);
        }
        Ok(leaves)
    }

    pub(super) fn range(
        &self,
        tree: TreeNumber,
        log: u32,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Entry)>, ReadError> {
        let mut entries = Vec::new();
        let mut bytes = 0;
        let from = keys::log_end(tree, log, after.saturating_add(1));
        for row in self.scan::<u64>(LOG_ENDS, &from, Direction::Forward) {
            let (key, first_version) = row?;
            if !key.starts_with(&from[..12]) {
                break;
            }
            let segment = match self.segment(tree, first_version) {
                Ok(segment) => segment,
                // Above the end of a log, from before the history begins.
                Err(ReadError::Pruned { .. }) => continue,
                Err(error) => return Err(error),
            };
            for (id, entry) in unpack(segment)? {
                if entry.seq <= after {
                    continue;
                }
                bytes += entry.canonical().len();
                if bytes > bytes_max && !entries.is_empty() {
                    return Ok(entries);
                }
                entries.push((id, entry));
                if entries.len() == protocol::wire::BATCH_ENTRIES_MAX {
                    return Ok(entries);
                }
            }
        }
        Ok(entries)
    }

    /// The segment that holds an entry of a log.
    pub(super) fn segment_of(
        &self,
        tree: TreeNumber,
        log: u32,
        seq: u64,
    ) -> Result<Option<Segment>, ReadError> {
        let from = keys::log_end(tree, log, seq);
        let row = self.scan::<u64>(LOG_ENDS, &from, Direction::Forward).next().transpose()?;
        match row.filter(|(key, _)| key.starts_with(&from[..12])) {
            Some((_, first_version)) => self.segment(tree, first_version).map(Some),
            None => Ok(None),
        }
    }

    fn segment(&self, tree: TreeNumber, first_version: u64) -> Result<Segment, ReadError> {
        let key = keys::versioned(tree, first_version);
        if let Some(segment) = self.get(HISTORY, &key)? {
            return Ok(segment);
        }
        match self.get::<Base>(BASES, &keys::tree(tree))? {
            Some(base) if first_version <= base.version => Err(base::pruned(&base)),
            _ => Err(ReadError::Corrupt {
                family: HISTORY,
                damage: RecordDamage::Missing,
                detail: format!("tree {tree} lacks the segment of version {first_version}"),
            }),
        }
    }

    fn family(&self, name: &str) -> &ColumnFamily {
        self.db.cf_handle(name).expect("every family is named when the database opens")
    }
}

/// The entries of a segment with their ids.
pub(super) fn unpack(segment: Segment) -> Result<Vec<(EntryId, Entry)>, ReadError> {
    segment.batch.unpack().map_err(|error| ReadError::Corrupt {
        family: HISTORY,
        damage: RecordDamage::Form,
        detail: error.to_string(),
    })
}

pub(super) fn read_error(error: rocksdb::Error) -> ReadError {
    // What is not in memory is no failure.
    if error.kind() != rocksdb::ErrorKind::Incomplete {
        tracing::error!(%error, "a read of the database failed");
    }
    match error.kind() {
        rocksdb::ErrorKind::Corruption => {
            let (family, damage) = ("database", RecordDamage::Block);
            ReadError::Corrupt { family, damage, detail: error.into_string() }
        }
        _ => ReadError::Failed { fault: fault_of(&error), detail: error.into_string() },
    }
}

/// What gave way when the database says this.
pub(crate) fn fault_of(error: &rocksdb::Error) -> StoreFault {
    match error.kind() {
        rocksdb::ErrorKind::IOError => StoreFault::Disk,
        _ => StoreFault::Database,
    }
}

fn database_options(config: &StoreConfig) -> Options {
    let mut options = Options::default();
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    options.set_paranoid_checks(true);
    options.set_max_open_files(config.open_files_max);
    options.set_db_write_buffer_size(MEMTABLES_BYTES);
    options.set_max_total_wal_size(WAL_BYTES_MAX);
    options.set_keep_log_file_num(4);
    options.set_max_log_file_size(4 << 20);
    options
}

fn family_options(cache: &Cache) -> Options {
    let mut table = BlockBasedOptions::default();
    table.set_block_cache(cache);
    table.set_bloom_filter(10.0, false);
    table.set_format_version(6);
    let mut options = Options::default();
    options.set_block_based_table_factory(&table);
    options.set_compression_type(DBCompressionType::Lz4);
    options.set_bottommost_compression_type(DBCompressionType::Zstd);
    options.set_write_buffer_size(16 << 20);
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_format_is_refused() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let config = StoreConfig::new(folder.path());
        let fleet = FleetId([1; 16]);
        for (format, is_newer) in [(FORMAT + 1, true), (FORMAT - 1, false)] {
            let rocks = Rocks::open(&config, fleet).expect("opens");
            let mut batch = WriteBatch::default();
            rocks.put(&mut batch, META, b"format", &format);
            rocks.write(batch).expect("writes");
            drop(rocks);
            let refused = Rocks::open(&config, fleet).err().expect("another");
            assert_eq!(matches!(refused, OpenError::FormatNewer { .. }), is_newer, "{refused}");
            assert_eq!(matches!(refused, OpenError::FormatOlder { .. }), !is_newer, "{refused}");
            std::fs::remove_dir_all(&config.folder).expect("removed");
        }
    }

    #[test]
    fn a_damaged_record_is_named_when_it_is_read() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let rocks = Rocks::open(&StoreConfig::new(folder.path()), FleetId([1; 16])).expect("opens");
        let mut batch = WriteBatch::default();
        let mut record = record::seal(b"key", &7u64);
        record[3] ^= 1;
        batch.put_cf(rocks.family(LOG_ENDS), b"key", record);
        rocks.write(batch).expect("writes");
        let error = rocks.get::<u64>(LOG_ENDS, b"key").expect_err("damaged");
        assert!(
            matches!(&error, ReadError::Corrupt { family: LOG_ENDS, damage: RecordDamage::Checksum, detail } if detail.contains("6b6579")),
            "{error}"
        );
    }
}
