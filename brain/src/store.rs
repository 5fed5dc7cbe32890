//! The brain's memory: RocksDB behind typed records.
//!
//! One thread commits for all trees: whatever is queued when the previous `fsync` ends goes into
//! the next batch, and a commit counts only after the `fsync` that covers it. Reads go to the
//! database directly and never wait for a commit. The handle lives as long as the process.

mod audit;
mod base;
mod between;
mod cache;
mod check;
mod commit;
mod conflicts;
mod dead_letters;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
mod groups;
mod history;
mod hooks;
mod keys;
mod mark;
mod record;
mod registry;
mod removal;
mod replay;
mod rocks;
mod space;
mod tombstones;
mod verify;
#[cfg(test)]
mod written;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use actors::ports::{
    CommitDone, DeadLetter, Evidence, LoadedTree, Origin, ReadError, RecordDamage, Snapshot,
    TreeCommit, TreeNumber, TreeRecord, TreeStore,
};
use protocol::history::{Entry, Genesis};
use protocol::state::Version;
use protocol::{EntryId, ErrorCode, ErrorSource, FleetId, Layer, SyncError, TreeId};

pub use audit::{AuditChecked, AuditDraft, AuditRow};
pub use cache::CacheCounts;
pub use check::TreeChecked;
pub use commit::{CommitCounts, StoreHealth, SyncReport};
pub use history::{HistoryEntry, SnapshotInfo, TreeAt, WhichVersion};
pub use hooks::HookCounts;
pub use mark::write_mark;
pub use registry::{ApiToken, BurialError, DeviceRecord, EnrolmentRecord, RegistryChange};
pub use removal::{RemovalError, RemovalStep};
pub use replay::Replayed;
pub(crate) use rocks::fault_of;
pub use tombstones::{Burial, FormerDevice, Tombstone};
pub use verify::{Damage, Verified, verify};

use commit::Committer;
use rocks::{Reach, Rocks};

/// Settings of the store.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The folder of the database.
    pub folder: PathBuf,
    /// Writes are refused while the disk has less than this free, in bytes. It is what RocksDB
    /// may still need to write out what it holds in memory.
    pub disk_reserve_bytes: u64,
    /// How much memory the cache of blocks may take, in bytes.
    pub block_cache_bytes: usize,
    /// How much memory the cache of states may take, in bytes.
    pub state_cache_bytes: u64,
    /// How many files the database may hold open.
    pub open_files_max: i32,
}

impl StoreConfig {
    /// The defaults, for the database in `folder`.
    pub fn new(folder: impl Into<PathBuf>) -> Self {
        Self {
            folder: folder.into(),
            disk_reserve_bytes: 256 << 20,
            block_cache_bytes: 64 << 20,
            state_cache_bytes: 32 << 20,
            open_files_max: 512,
        }
    }
}

/// Why the store cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The database does not open.
    #[error("the database in {folder} does not open")]
    Database {
        /// Where it is.
        folder: PathBuf,
        /// What RocksDB said.
        #[source]
        source: rocksdb::Error,
    },
    /// The database's folder cannot be made.
    #[error("the folder {folder} cannot be made")]
    Folder {
        /// Where it was to be.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A record that is needed to start is damaged.
    #[error("the database in {folder} is damaged")]
    Damaged {
        /// Where it is.
        folder: PathBuf,
        /// Which record.
        #[source]
        source: ReadError,
    },
    /// Written by a newer release.
    #[error(
        "the database has format {found}; this release knows up to {known}: use a newer release"
    )]
    FormatNewer {
        /// Its format.
        found: u32,
        /// The newest known here.
        known: u32,
    },
    /// Written by a development release before this one.
    #[error(
        "the database has format {found}, this release reads {known}: export what matters with the \
         older release, and start with an empty data folder"
    )]
    FormatOlder {
        /// Its format.
        found: u32,
        /// The one known here.
        known: u32,
    },
    /// Of another fleet.
    #[error("the database belongs to fleet {found}, not to {expected}")]
    OtherFleet {
        /// The fleet of the keys beside it.
        expected: FleetId,
        /// The fleet that it names.
        found: FleetId,
    },
    /// It holds less than it had acknowledged.
    #[error(
        "the database ends at write {found}, but {mark} had been acknowledged: restore a backup, \
         or start with --accept-loss to go on without what is missing"
    )]
    BelowMark {
        /// Where it ends.
        found: u64,
        /// What had been acknowledged.
        mark: u64,
    },
    /// The high-water mark cannot be read or written.
    #[error("the high-water mark in {folder} cannot be used")]
    Mark {
        /// Where it is.
        folder: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The commit thread does not start.
    #[error("the commit thread does not start")]
    Thread(#[source] std::io::Error),
}

type OnEvidence = Box<dyn Fn(&Evidence) + Send + Sync>;

/// The store, open. Cheap to clone; the database closes with the last clone.
#[derive(Clone)]
pub struct Store {
    rocks: Arc<Rocks>,
    committer: Arc<Committer>,
    states: Arc<cache::StateCache>,
    hooks: Arc<hooks::Hooks>,
    on_evidence: Arc<OnceLock<OnEvidence>>,
    generations: Arc<AtomicU64>,
    tree_numbers: Arc<AtomicU64>,
}

impl Store {
    /// Opens the database, or makes it, for `fleet`.
    ///
    /// With `accept_loss` a database below its high-water mark is opened all the same.
    pub fn open(config: StoreConfig, fleet: FleetId, accept_loss: bool) -> Result<Self, OpenError> {
        let rocks = Arc::new(Rocks::open(&config, fleet)?);
        let mark = mark::MarkFile::in_folder(&config.folder);
        let mark_error = |source| OpenError::Mark { folder: config.folder.clone(), source };
        let found = rocks.latest_write();
        if let Some(mark) = mark.read().map_err(mark_error)?
            && found < mark
            && !accept_loss
        {
            return Err(OpenError::BelowMark { found, mark });
        }
        fail::fail_point!("mark.checked");
        mark.write(found).map_err(mark_error)?;
        let damaged = |source| OpenError::Damaged { folder: config.folder.clone(), source };
        let last_tree = rocks.last_tree_number().map_err(damaged)?;
        let space = space::DiskSpace::new(&config.folder, config.disk_reserve_bytes);
        let audit = audit::Audit::load(&rocks).map_err(damaged)?;
        let hooks = Arc::new(hooks::Hooks::default());
        let committer = Committer::start(rocks.clone(), mark, space, audit, hooks.clone())
            .map_err(OpenError::Thread)?;
        Ok(Self {
            rocks,
            committer: Arc::new(committer),
            hooks,
            on_evidence: Arc::default(),
            states: Arc::new(cache::StateCache::new(config.state_cache_bytes)),
            generations: Arc::new(AtomicU64::new(1)),
            tree_numbers: Arc::new(AtomicU64::new(last_tree + 1)),
        })
    }

    /// Whether commits are taken.
    pub fn health(&self) -> StoreHealth {
        self.committer.health()
    }

    /// What was committed since the start.
    pub fn commit_counts(&self) -> CommitCounts {
        self.committer.counts()
    }

    /// Has `tell` told of every batch from now on, unless somebody is told already. It is called
    /// on the store's thread and must not block.
    pub fn on_sync(&self, tell: impl Fn(SyncReport) + Send + Sync + 'static) {
        self.committer.on_sync(Box::new(tell));
    }

    /// Has `tell` told of all evidence that is to be kept from now on, unless somebody is told
    /// already. It must not block.
    pub fn on_evidence(&self, tell: impl Fn(&Evidence) + Send + Sync + 'static) {
        // Whoever asked first is told.
        let _ = self.on_evidence.set(Box::new(tell));
    }

    /// Hits and misses of the cache of states since the start.
    pub fn cache_counts(&self) -> CacheCounts {
        self.states.counts()
    }

    /// The store's name of a tree, where it has the tree.
    pub fn tree_number(&self, id: TreeId) -> Result<Option<TreeNumber>, ReadError> {
        self.rocks.get(rocks::TREE_IDS, &id.0)
    }

    /// The hot row of a tree.
    pub fn tree_record(&self, number: TreeNumber) -> Result<Option<TreeRecord>, ReadError> {
        self.rocks.get(rocks::TREES, &keys::tree(number))
    }

    /// The number of the last write: it only grows.
    pub fn last_write(&self) -> u64 {
        self.rocks.latest_write()
    }

    /// Copies the database as it is at one moment into a new folder of the same file system: files
    /// that never change are linked. Commits go on meanwhile. Blocks.
    pub fn checkpoint(&self, folder: &Path) -> Result<(), rocksdb::Error> {
        self.rocks.checkpoint(folder)
    }

    /// Looks at the disk again, so that a store that refused writes takes them once there is
    /// room, also while nobody writes. Blocks.
    pub fn probe(&self) {
        self.committer.flush();
    }

    /// Waits until everything queued so far is durable, and stops committing.
    pub fn shut_down(&self) {
        fail::fail_point!("store.before_stop");
        self.committer.shut_down();
        fail::fail_point!("store.stopped");
    }
}

impl Store {
    /// Reads the rows of a tree; none where it has had no commit.
    fn read_tree(&self, number: TreeNumber, from: Reach) -> Result<Option<LoadedTree>, ReadError> {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let record = self.rocks.get_from(from, rocks::TREES, &keys::tree(number))?;
        let Some(record) = record else { return Ok(None) };
        let leaves = self.rocks.leaves(from, number)?;
        let base = self.rocks.get_from(from, rocks::BASES, &keys::tree(number))?;
        Ok(Some(LoadedTree { number, generation, record, leaves, base }))
    }

    fn new_tree(&self, number: TreeNumber, genesis: &Genesis) -> LoadedTree {
        let generation = self.generations.fetch_add(1, Ordering::Relaxed);
        let record = TreeRecord::new(genesis.clone());
        LoadedTree { number, generation, record, leaves: Default::default(), base: None }
    }
}

impl TreeStore for Store {
    fn load(&self, genesis: &Genesis) -> Result<LoadedTree, ReadError> {
        // Commits of an earlier loading may still be queued; they must be in what is read.
        self.committer.flush();
        if let Some(number) = self.tree_number(genesis.tree_id())? {
            return self.read_tree(number, Reach::Disk)?.ok_or_else(|| ReadError::Corrupt {
                family: rocks::TREES,
                damage: RecordDamage::Missing,
                detail: format!("tree {number} is named but has no row"),
            });
        }
        // The number is taken for good when the tree's first commit writes both its rows.
        let number = self.tree_numbers.fetch_add(1, Ordering::Relaxed);
        Ok(self.new_tree(number, genesis))
    }

    fn load_from_memory(&self, number: TreeNumber, genesis: &Genesis) -> Option<LoadedTree> {
        // Whatever is wrong, the reading that may go to the disk says what it is.
        let read = self.read_tree(number, Reach::Memory).ok()?;
        Some(read.unwrap_or_else(|| self.new_tree(number, genesis)))
    }

    fn commit(&self, commit: TreeCommit, done: CommitDone) {
        self.committer.tree(commit, done);
    }

    fn range(
        &self,
        tree: TreeNumber,
        log: u32,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Entry)>, ReadError> {
        self.rocks.range(tree, log, after, bytes_max)
    }

    fn snapshot(&self, tree: TreeNumber, version: Version) -> Result<Option<Snapshot>, ReadError> {
        self.rocks.get(rocks::SNAPSHOTS, &keys::versioned(tree, version))
    }

    fn origin(&self, tree: TreeNumber, log: u32, seq: u64) -> Result<Option<Origin>, ReadError> {
        self.read_origin(tree, log, seq)
    }

    fn keep_dead_letter(&self, letter: DeadLetter) {
        self.committer.dead_letter(letter);
    }

    fn keep_evidence(&self, evidence: Evidence) {
        if let Some(tell) = self.on_evidence.get() {
            tell(&evidence);
        }
        self.committer.evidence(evidence);
    }
}

/// An error of the store for peers and clients.
pub fn not_found(what: &str) -> SyncError {
    let origin = ErrorSource::new(Layer::Store, "read", "look up");
    SyncError::new(ErrorCode::NotFound, origin, format!("{what} does not exist"))
}

/// The folder of the database inside the brain's data folder.
pub fn folder_in(data: &Path) -> PathBuf {
    data.join("store")
}
