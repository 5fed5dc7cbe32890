//! What the actors need from outside: a store for trees, and links to devices.
//!
//! Shells implement these over RocksDB and sockets, tests over memory. The record types are what
//! crosses the border, so that the actors never see a database key.

mod failure;

use std::collections::BTreeMap;

use protocol::conflict::{Conflict, Resolution};
use protocol::history::{
    Change, Checkpoint, Cut, Entry, Genesis, Leaf, LogId, LogState, Provenance, SignedHead,
    VersionVector,
};
use protocol::state::{Path, State, StateSource, Version, VersionedState};
use protocol::trace::EntryTrace;
use protocol::wire::{Batch, LogPosition};
use protocol::{ConflictId, DeviceId, EntryId, PublicKey, Signature, SyncError, TreeId};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::trace::Spans;

pub use failure::{CommitError, ReadError, RecordDamage, StoreFault, disk_full};

/// A store's own short name of a tree.
pub type TreeNumber = u64;

/// The small row that every commit of a tree rewrites.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TreeRecord {
    /// The tree's beginning.
    pub genesis: Genesis,
    /// The number of the last commit.
    pub version: Version,
    /// When that was, in milliseconds since the Unix epoch; never before the commit before it.
    pub committed_ms: u64,
    /// Where the last change came from.
    pub source: StateSource,
    /// The version of the last snapshot; 0 before the first.
    pub snapshot: Version,
    /// About how many bytes of entries and snapshots were ever written for it.
    pub written_bytes: u64,
    /// The logs, in the order that candidates refer to.
    pub logs: Vec<LogState>,
}

impl TreeRecord {
    /// The row of a tree before its first commit.
    pub fn new(genesis: Genesis) -> Self {
        Self {
            genesis,
            version: 0,
            committed_ms: 0,
            source: StateSource::Brain,
            snapshot: 0,
            written_bytes: 0,
            logs: Vec::new(),
        }
    }
}

/// A tree as a twin loads it.
#[derive(Debug, Clone)]
pub struct LoadedTree {
    /// The store's name of it.
    pub number: TreeNumber,
    /// Goes with every commit: after a failed one, the store takes no more of this loading.
    pub generation: u64,
    /// The row.
    pub record: TreeRecord,
    /// The leaves.
    pub leaves: BTreeMap<Path, Leaf>,
    /// What stands in place of entries that are kept no longer.
    pub base: Option<Base>,
}

/// Where a tree's history begins, when it was pruned: the snapshot of this version stands in place
/// of the entries up to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Base {
    /// The version.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// When what came before was dropped, in milliseconds since the Unix epoch.
    pub pruned_ms: u64,
    /// About how many bytes had been written for the tree by then.
    pub written_bytes: u64,
    /// How far each log is part of it.
    pub floor: VersionVector,
    /// The brain that pruned.
    pub authority: PublicKey,
    /// Its signature under the [`Checkpoint`] that the snapshot makes.
    pub signature: Signature,
}

/// Entries of one log that a commit adds to a tree's history. Their versions are consecutive.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// The version that the first entry makes.
    pub first_version: Version,
    /// The log, as candidates refer to it.
    pub log: u32,
    /// When they were committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The entries.
    pub batch: Batch,
}

/// A tree at one version, whole.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    /// The version.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Whether a person asked for it.
    pub on_demand: bool,
    /// Where the last change came from.
    pub source: StateSource,
    /// About how many bytes had been written for the tree, this snapshot included.
    pub written_bytes: u64,
    /// The logs.
    pub logs: Vec<LogState>,
    /// The leaves.
    pub leaves: BTreeMap<Path, Leaf>,
}

/// Something that was refused and may matter later. Kept apart from every tree, bounded.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Evidence {
    /// The device whose link it came over.
    pub device: DeviceId,
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Why it was refused.
    pub error: SyncError,
    /// What was refused, encoded.
    pub bytes: Vec<u8>,
}

/// A message that killed its actor three times and is not handled any more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The tree whose actor it was for.
    pub tree: Genesis,
    /// When it was put aside, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What tells it from other messages for the actor: the same message has the same.
    pub digest: [u8; 8],
    /// What the actor died of the last time; none where it has died of something else since.
    pub fault: Option<String>,
    /// What it asked for.
    pub letter: Letter,
}

/// What a dead letter asked for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Letter {
    /// Store entries of the device.
    Entries(Batch),
    /// Write leaves.
    Write(Vec<Change>, Provenance),
    /// Make `desired/` hold exactly these leaves.
    SetState(State, Provenance),
    /// Save a state under its version.
    SaveState(VersionedState, Provenance),
}

impl Letter {
    /// The kind of message that it was.
    pub fn message(&self) -> &'static str {
        match self {
            Self::Entries(_) => "entries_came",
            Self::Write(..) => "write",
            Self::SetState(..) => "set_state",
            Self::SaveState(..) => "save_state",
        }
    }
}

/// One atomic change of a tree.
#[derive(Debug, Clone)]
pub struct TreeCommit {
    /// The tree.
    pub number: TreeNumber,
    /// The loading that it builds on.
    pub generation: u64,
    /// The row after it.
    pub record: TreeRecord,
    /// The entries that it adds.
    pub segments: Vec<Segment>,
    /// The leaves that it touches, as they are after it; none where one is forgotten. The last
    /// of one path counts.
    pub leaves: Vec<(Path, Option<Leaf>)>,
    /// Snapshots to keep.
    pub snapshots: Vec<Snapshot>,
    /// Conflicts that begin or end with it.
    pub conflicts: Vec<ConflictChange>,
    /// The beginning of the history that it drops.
    pub prune: Option<Prune>,
}

/// The beginning of a history that is dropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Prune {
    /// Where the history begins from now on.
    pub base: Base,
    /// The versions before that whose snapshots stay, in order.
    pub kept: Vec<Version>,
    /// The entries before that which leaves still go back to: who set a value has to be told for as
    /// long as it stands.
    pub origins: Vec<Origin>,
}

/// An entry that a leaf goes back to, kept by itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Origin {
    /// The log, as candidates refer to it.
    pub log: u32,
    /// The entry's number.
    pub seq: u64,
    /// The version that it made.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The entry.
    pub batch: Batch,
}

/// What becomes of a conflict.
#[derive(Debug, Clone, PartialEq)]
pub enum ConflictChange {
    /// It is there.
    Noticed(Box<Conflict>),
    /// It is decided. One that is decided already stays as it is.
    Resolved(Box<Resolution>),
}

impl ConflictChange {
    /// Who hears of it hears which conflict it is about.
    pub(crate) fn news(&self) -> ConflictNews {
        match self {
            Self::Noticed(conflict) => ConflictNews::Noticed(conflict.id),
            Self::Resolved(resolution) => ConflictNews::Ended(resolution.conflict_id),
        }
    }
}

/// What a [`ConflictDesk`] is told, once it is on disk.
#[derive(Debug, Clone, Copy)]
pub(crate) enum ConflictNews {
    Noticed(ConflictId),
    Ended(ConflictId),
}

impl ConflictNews {
    /// Tells it.
    pub(crate) fn tell(self, desk: &dyn ConflictDesk) {
        match self {
            Self::Noticed(id) => desk.noticed(id),
            Self::Ended(id) => desk.ended(id),
        }
    }
}

/// A conflict with its end, as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ConflictRecord {
    /// The conflict.
    pub conflict: Conflict,
    /// The beginning of the tree that it is in.
    pub genesis: Genesis,
    /// The version of the tree with which it came.
    pub version: Version,
    /// How it was decided, where it was.
    pub resolution: Option<Resolution>,
}

impl TreeCommit {
    /// Both commits as one, `later` being the next of the same loading.
    pub fn and_then(mut self, later: Self) -> Self {
        self.record = later.record;
        self.segments.extend(later.segments);
        self.leaves.extend(later.leaves);
        self.snapshots.extend(later.snapshots);
        self.conflicts.extend(later.conflicts);
        self.prune = later.prune.or(self.prune);
        self
    }
}

/// Called once, when a commit is durable or has failed. Runs on the store's thread: it passes the
/// news on and does nothing else.
pub type CommitDone = Box<dyn FnOnce(Result<(), CommitError>) + Send>;

/// Keeps trees.
pub trait TreeStore: Send + Sync + 'static {
    /// Reads the tree of a device, which is made where it is not there yet. Blocks.
    fn load(&self, genesis: &Genesis) -> Result<LoadedTree, ReadError>;

    /// The same for a tree that was loaded as `number` before, without blocking and without waiting
    /// for commits; none where something is not in memory. Only while no commit of it is under way.
    fn load_from_memory(&self, number: TreeNumber, genesis: &Genesis) -> Option<LoadedTree> {
        let _ = (number, genesis);
        None
    }

    /// Queues a commit. Commits are made durable in the order in which they are queued.
    fn commit(&self, commit: TreeCommit, done: CommitDone);

    /// Reads entries of a log above `after`, about `bytes_max` of them and one at least. Blocks.
    fn range(
        &self,
        tree: TreeNumber,
        log: u32,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Entry)>, ReadError>;

    /// Reads the snapshot of a version; none where there is none. Blocks.
    fn snapshot(&self, tree: TreeNumber, version: Version) -> Result<Option<Snapshot>, ReadError>;

    /// Reads an entry to keep it by itself; none where it is not there. Blocks.
    fn origin(&self, tree: TreeNumber, log: u32, seq: u64) -> Result<Option<Origin>, ReadError> {
        let _ = (tree, log, seq);
        Ok(None)
    }

    /// Keeps evidence, best effort: the oldest goes when there is too much.
    fn keep_evidence(&self, evidence: Evidence);

    /// Keeps a dead letter, in place of the same one where it was kept before; best effort, the
    /// oldest goes when there are too many.
    fn keep_dead_letter(&self, letter: DeadLetter);
}

/// Hears of entries, once they are durable. It cannot hold a commit up, nor make it fail.
pub trait SyncHook: Send + Sync + 'static {
    /// What logs call it.
    fn name(&self) -> &str;

    /// Whether it wants to hear now. Where no hook does, commits are not looked into for them.
    fn listens(&self) -> bool {
        true
    }

    /// An entry is durable: called once for each, in the order of the tree's versions.
    fn on_entry_committed(
        &self,
        context: &CommitContext<'_>,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>>;
}

/// What a [`SyncHook`] is told.
#[derive(Debug, Clone, Copy)]
pub struct CommitContext<'a> {
    /// The tree.
    pub tree_id: TreeId,
    /// Its beginning.
    pub genesis: &'a Genesis,
    /// The version that the entry made.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed_ms: u64,
    /// The entry's id.
    pub id: EntryId,
    /// The entry.
    pub entry: &'a Entry,
    /// Whether it is the first of its tree. The tree's beginning is no entry: its content follows
    /// from kind, fleet and name.
    pub is_root_entry: bool,
}

/// Who hears of conflicts once they are on disk. Neither call blocks.
pub trait ConflictDesk: Send + Sync + 'static {
    /// A conflict came.
    fn noticed(&self, id: ConflictId);

    /// A conflict ended by itself. It may have been decided before.
    fn ended(&self, id: ConflictId);
}

/// Nobody does.
impl ConflictDesk for () {
    fn noticed(&self, _id: ConflictId) {}

    fn ended(&self, _id: ConflictId) {}
}

/// Where news for a connection goes. A channel has room for 32 items from its beginning, and most
/// devices are silent: in boxes that is a quarter of a kilobyte each and not seven.
pub type LinkSender = mpsc::Sender<Box<LinkEvent>>;
/// Where a connection hears of it.
pub type LinkReceiver = mpsc::Receiver<Box<LinkEvent>>;

/// News for the task that holds a device's connection.
#[derive(Debug)]
pub enum LinkEvent {
    /// Entries are durable.
    Stored {
        /// The log.
        log: LogId,
        /// Where it stands.
        position: LogPosition,
        /// How many bytes of the peer's entries that dealt with.
        consumed_bytes: u32,
        /// Held until the acknowledgement is sent.
        acknowledging: Spans,
    },
    /// An entry that will be sent is traced.
    Traced {
        /// The log.
        log: LogId,
        /// The entry, and the span that it left.
        trace: EntryTrace,
    },
    /// An entry was not taken.
    Refused {
        /// The log.
        log: LogId,
        /// The entry's number.
        seq: u64,
        /// Why.
        error: SyncError,
        /// How many bytes of the peer's entries that dealt with.
        consumed_bytes: u32,
        /// Whether the connection must end.
        fatal: bool,
    },
    /// Entries that the session asked for.
    Fetched {
        /// The log.
        log: LogId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// The checkpoint that the session asked for.
    Checkpoint(Box<Checkpoint>),
    /// Entries up to here are kept no longer.
    Pruned(VersionVector),
    /// A log was signed.
    Sealed(SignedHead),
    /// A log ended.
    CutMade(Cut),
    /// The device joined groups, or left them.
    GroupsChanged,
    /// The connection must end.
    Close {
        /// Why.
        error: SyncError,
        /// How long the device waits at least before it comes back, in milliseconds.
        retry_after_ms: Option<u32>,
    },
}

impl LinkEvent {
    /// Entries of a log are durable up to `position`, which dealt with so many of the peer's bytes.
    pub fn stored(position: LogPosition, consumed_bytes: u32) -> Self {
        let acknowledging = Spans::default();
        Self::Stored { log: position.log, position, consumed_bytes, acknowledging }
    }

    /// The same for a connection that did not bring it about, where it concerns that at all.
    pub fn for_everybody(&self) -> Option<Self> {
        match self {
            Self::Stored { position, .. } => Some(Self::stored(*position, 0)),
            Self::Traced { log, trace } => Some(Self::Traced { log: *log, trace: *trace }),
            Self::Sealed(signed) => Some(Self::Sealed(*signed)),
            Self::CutMade(cut) => Some(Self::CutMade(cut.clone())),
            Self::GroupsChanged => Some(Self::GroupsChanged),
            Self::Pruned(floor) => Some(Self::Pruned(floor.clone())),
            Self::Close { error, retry_after_ms } => {
                let retry_after_ms = *retry_after_ms;
                Some(Self::Close { error: error.clone(), retry_after_ms })
            }
            Self::Refused { .. } | Self::Fetched { .. } | Self::Checkpoint(_) => None,
        }
    }
}
