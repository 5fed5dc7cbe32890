//! What a device's actor starts from, is told, and answers.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use protocol::conflict::Resolution;
use protocol::history::{Change, Cut, Entry, Genesis, LogId, Provenance, SignedHead, TreeKind};
use protocol::query::Query;
use protocol::session::{Now, Replica};
use protocol::state::{State, StateDelta, Version, VersionedState};
use protocol::trace::{EntryTrace, TraceContext};
use protocol::wire::Refuse;
use protocol::{ConflictId, DeviceId, EntryId, FleetId, PublicKey, SyncError};

use super::{BrainAuthor, Links, Unprunable};
use crate::account::InFlight;
use crate::ports::{Base, CommitError, ConflictDesk, Letter, LinkSender, TreeNumber, TreeStore};
use crate::supervise::Reply;

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// The time now.
    fn now(&self) -> Now;
}

/// What every incarnation of a device's actor starts from.
pub struct DeviceArgs {
    /// Whose tree it is.
    pub of: TreeOf,
    /// The fleet.
    pub fleet: FleetId,
    /// Who the brain is when it writes.
    pub brain: BrainAuthor,
    /// Where trees are kept.
    pub store: Arc<dyn TreeStore>,
    /// Who hears of conflicts.
    pub conflicts: Arc<dyn ConflictDesk>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Random numbers for new epochs.
    pub epochs: fn() -> u64,
    /// What is under way, through all incarnations.
    pub commits: Commits,
}

/// Whose tree an actor keeps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeOf {
    /// A device's own.
    Device {
        /// The device.
        device: DeviceId,
        /// The keys that write its part of the tree, the current one and former ones.
        keys: Vec<PublicKey>,
    },
    /// The one that the members of a group share. Who they are is written in it.
    Group {
        /// The group.
        name: String,
    },
}

impl TreeOf {
    /// The beginning of the tree.
    pub fn genesis(&self, fleet: FleetId) -> Genesis {
        let (kind, name) = match self {
            Self::Device { device, .. } => (TreeKind::Device, device.to_string()),
            Self::Group { name } => (TreeKind::Group, name.clone()),
        };
        Genesis { kind, fleet, name }
    }
}

impl fmt::Display for TreeOf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device { device, .. } => write!(f, "{device}"),
            Self::Group { name } => write!(f, "group {name}"),
        }
    }
}

/// How many commits of a tree are queued and not yet durable.
#[derive(Debug, Default)]
pub struct Commits {
    under_way: AtomicUsize,
    /// One failed since the tree was loaded: what is in memory is ahead of the disk.
    failed: AtomicBool,
    /// The store's name of the tree, once it is known that the commits of whoever wrote the tree
    /// before are over; 0 until then.
    number: AtomicU64,
}

impl Commits {
    pub(super) fn begin(&self) {
        self.under_way.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn end(&self, durable: bool) {
        if !durable {
            self.failed.store(true, Ordering::Release);
        }
        self.under_way.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether what is in memory may not be on disk.
    pub(super) fn any(&self) -> bool {
        self.under_way.load(Ordering::Acquire) > 0 || self.failed.load(Ordering::Acquire)
    }

    /// The tree was loaded after everything before.
    pub(super) fn loaded(&self, number: TreeNumber) {
        self.failed.store(false, Ordering::Release);
        self.number.store(number, Ordering::Release);
    }

    /// The store's name of the tree, where it can be loaded without waiting for anybody.
    pub(super) fn settled(&self) -> Option<TreeNumber> {
        let number = self.number.load(Ordering::Acquire);
        (number != 0 && !self.any()).then_some(number)
    }
}

/// What a device's actor is told.
pub enum DeviceMsg {
    /// Load the twin.
    Load,
    /// A connection has proved itself.
    Attach {
        /// Its number: higher than that of every earlier connection.
        connection: u64,
        /// The device at its other end.
        device: DeviceId,
        /// Where the peer is, for people.
        peer: String,
        /// Where news for the connection goes.
        link: LinkSender,
        /// Where the tree stands, or why the connection is turned away.
        reply: Reply<Result<Attached, SyncError>>,
    },
    /// What a new connection is to be told is on disk.
    Settled {
        /// The connection's number.
        connection: u64,
        /// Where the tree stood when the connection came. What was written since may not be
        /// durable, and reaches the connection as news.
        attached: Attached,
        /// Where that goes.
        reply: Reply<Result<Attached, SyncError>>,
    },
    /// A connection has ended.
    Detached {
        /// Its number.
        connection: u64,
    },
    /// Entries came over a connection.
    EntriesCame {
        /// The connection's number.
        connection: u64,
        /// The log.
        log: LogId,
        /// The entries.
        entries: Vec<(EntryId, Entry)>,
        /// What to give back when they are dealt with.
        bytes: u32,
        /// To say what became of them.
        in_flight: InFlight,
        /// Those of them that are traced.
        traces: Vec<EntryTrace>,
    },
    /// A signed head came over a connection.
    SignedHeadCame(SignedHead),
    /// A cut came over a connection.
    CutCame(Cut),
    /// The author of a log has lost what it had not signed of it.
    LogLost(LogId),
    /// The device does not take an entry.
    PeerRefused {
        /// The connection's number.
        connection: u64,
        /// Which entry, and why.
        refuse: Refuse,
    },
    /// A connection's session needs entries.
    Fetch {
        /// The connection's number.
        connection: u64,
        /// The log.
        log: LogId,
        /// Those above this number.
        after: u64,
        /// About so many bytes of them.
        bytes_max: usize,
    },
    /// The device has made entries of the brain durable.
    PeerHas {
        /// The connection's number.
        connection: u64,
        /// Logs, each with the number of the last one.
        logs: Vec<(LogId, u64)>,
    },
    /// Tell whether the device has made an entry of the brain durable.
    IsDelivered {
        /// The entry's log.
        log: LogId,
        /// Its number.
        seq: u64,
        /// The answer.
        reply: Reply<bool>,
    },
    /// A connection's session needs the checkpoint that stands in place of what was pruned.
    FetchCheckpoint {
        /// The connection's number.
        connection: u64,
    },
    /// Let the history begin with the snapshot of a version, and drop what comes before.
    Prune {
        /// The version.
        version: Version,
        /// The versions before it whose snapshots stay.
        kept: Vec<Version>,
        /// Where it begins now, once that is durable, or why it cannot begin there.
        reply: Reply<Result<Result<Base, Unprunable>, SyncError>>,
    },
    /// Write leaves: of a device's tree below `desired/` or `tags/`, of a group's below `shared/`.
    Write {
        /// The leaves.
        changes: Vec<Change>,
        /// Who and why.
        provenance: Provenance,
        /// Only where this holds.
        only_if: Precondition,
        /// The span that asks, if it is sampled.
        trace: Option<TraceContext>,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
    /// Make `desired/` hold exactly these leaves.
    SetState {
        /// The leaves, with their whole paths.
        desired: State,
        /// Who and why.
        provenance: Provenance,
        /// Only where this holds.
        only_if: Precondition,
        /// The span that asks, if it is sampled.
        trace: Option<TraceContext>,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
    /// Set the next version of one of the tree's policies.
    SetPolicy {
        /// Which.
        of: PolicyOf,
        /// The policy, in JSON; whoever sends it has checked it.
        policy: String,
        /// Who and why.
        provenance: Provenance,
        /// The span that asks, if it is sampled.
        trace: Option<TraceContext>,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
    /// Let a device write in a group's tree, or end that.
    SetMember {
        /// The device.
        device: DeviceId,
        /// The key that it writes with.
        key: PublicKey,
        /// Whether it is to be a member.
        is_current: bool,
        /// Who and why.
        provenance: Provenance,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
    /// Note in the device's tree which groups it is in, and have its connection look at them.
    GroupsAre {
        /// Their names.
        groups: Vec<String>,
        /// Whether the connection is to look also where the tree says so already.
        tell: bool,
        /// Who and why.
        provenance: Provenance,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
    /// Decide a conflict by its strategy.
    Resolve {
        /// Which.
        id: ConflictId,
        /// How it was decided, once that is durable; none where it waits for a person. One that is no
        /// longer there ends with that.
        reply: Reply<Result<Option<Resolution>, SyncError>>,
    },
    /// Save a state under the next version, or check that the current one has it.
    SaveState {
        /// The state with its version.
        state: VersionedState,
        /// Who and why.
        provenance: Provenance,
        /// The span that asks, if it is sampled.
        trace: Option<TraceContext>,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
    /// Keep a snapshot of the current version.
    Snapshot {
        /// Its version, once it is durable.
        reply: Reply<Result<Version, SyncError>>,
    },
    /// Tell how the device is connected.
    Status {
        /// The answer.
        reply: Reply<DeviceStatus>,
    },
    /// A commit failed: what is in memory is ahead of the disk.
    CommitFailed(CommitError),
    /// The device or the group was retired: its connections end.
    Retired {
        /// What they are told.
        error: SyncError,
        /// Once they are.
        reply: Reply<()>,
    },
    /// Sign the brain's log.
    SealDue,
    /// Nobody has needed the twin for a while: leave memory until somebody does.
    Rest,
    /// The twin is back in memory: these are the connections that it had.
    Resume(Links),
    /// Try a dead letter again.
    Replay {
        /// What it asked for.
        letter: Letter,
        /// What became of it, once it is durable.
        reply: Reply<Result<WriteOutcome, SyncError>>,
    },
}

/// What a policy of a tree is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PolicyOf {
    /// How conflicts are decided.
    Conflicts,
    /// What leaves may be.
    Constraints,
}

/// What has to hold when a write is carried out.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Precondition {
    /// The tree is at this version.
    pub version: Option<Version>,
    /// The device is one that this query means. The twin does not know what people call it.
    pub query: Option<Query>,
}

/// What a connection starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct Attached {
    /// Where the tree stands.
    pub replica: Replica,
    /// The root of its leaves, where it is a group's.
    pub root: Option<[u8; 32]>,
}

/// What a write came to.
#[derive(Debug, Clone, PartialEq)]
pub struct WriteOutcome {
    /// The version that the tree has now.
    pub version: Version,
    /// The entry, where one was needed.
    pub entry: Option<EntryId>,
    /// Its log, and its number in that.
    pub at: Option<(LogId, u64)>,
    /// What it changed.
    pub delta: StateDelta,
}

/// How a device is connected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeviceStatus {
    /// Since when, in milliseconds since the Unix epoch; none while it is away.
    pub connected_since_ms: Option<u64>,
    /// The number of the connection.
    pub connection: Option<u64>,
    /// Where it comes from.
    pub peer: Option<String>,
    /// Until when the device is quarantined as a cloned identity, in milliseconds since the epoch.
    pub quarantined_until_ms: Option<u64>,
}
