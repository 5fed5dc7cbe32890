//! The keeper of a tree, the device's own or a shared one: the only one who changes it.
//!
//! Whatever changes the tree comes here as a message, is applied to the [`Replica`], waits for
//! the commit that makes it durable together with what else came meanwhile, and only then is
//! answered and shown on the [`Board`](crate::status::Board). If the commit fails, the replica is
//! loaded anew from the spool, which is the truth.

pub(crate) mod account;
mod checkpoint;
mod cut;
mod keeper;
mod mend;
mod queue;
mod reading;
mod replica;
mod traces;

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, AskError, Reply};
use actors::trace::context_of;
use actors::traced_span;
use protocol::clock::ClockQuality;
use protocol::history::{
    Change, Checkpoint, Cut, Draft, Entry, Genesis, LogId, MergeError, Provenance, SignedHead,
};
use protocol::state::{State, Value};
use protocol::trace::{EntryTrace, TraceContext};
use protocol::wire::{LogPosition, Refuse};
use protocol::{EntryId, FleetId, PublicKey, TreeId};

pub use account::QueueAccount;
pub use checkpoint::Merged;
pub use keeper::Track;
pub use replica::{Ingested, Limits, Measured, PROVISIONAL_FLEET, Replica, genesis};

use crate::clock::Clock;
use crate::identity::Identity;
use crate::overrides::Override;
use crate::spool::{self, SpoolError, Store};
use crate::status::Board;

/// How long to wait for the keeper, who answers after the disk does.
pub const PATIENCE: Duration = Duration::from_secs(90);

/// A keeper that fails over the same draft again and again fails because of it.
const WRITE_ATTEMPTS: usize = 3;

/// What the keeper is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// This device.
    pub identity: Identity,
    /// The fleet, if the device is enrolled.
    pub fleet: Option<FleetId>,
    /// The tree, where it is not the device's own.
    pub shared: Option<Genesis>,
    /// The key of the brain that certified the device.
    pub issuer: Option<PublicKey>,
    /// The spool.
    pub spool: Address<spool::Msg>,
    /// The spool's store, to hear of damage.
    pub store: Store,
    /// Where to show what changed.
    pub board: Board,
    /// The time.
    pub clock: Clock,
    /// How much may wait and is kept.
    pub limits: Limits,
    /// For how long what comes is gathered into one commit.
    pub commit_delay: Duration,
}

/// What the keeper is told and asked.
pub enum Msg {
    /// Read the spool.
    Load,
    /// Commit what was gathered.
    Flush,
    /// Write what a draft changes, traced or not; answers with where the log then stands.
    Write(Draft, Option<TraceContext>, Reply<Result<Option<LogPosition>, WriteError>>),
    /// Judge and keep entries that came over a link.
    Ingest(LogId, Vec<(EntryId, Entry)>, Via, Reply<Result<Ingested, WriteError>>),
    /// Keep a signed head of the peer.
    TakeSignedHead(SignedHead, Reply<LogPosition>),
    /// Keep a cut of the peer.
    TakeCut(Cut, Reply<Result<LogPosition, Incomplete>>),
    /// Merge a checkpoint of the peer.
    TakeCheckpoint(Box<Checkpoint>, Reply<Result<Merged, WriteError>>),
    /// Compare with what another side has of a shared tree; what is not the same there although it has
    /// the same logs begins anew.
    Compare(Vec<LogPosition>, [u8; 32], Reply<Result<(), WriteError>>),
    /// The brain has made entries durable, up to a number and up to another under a seal.
    Acked(LogId, u64, u64),
    /// Whether a shared tree has all its values, or waits for nothing more before it comes anew.
    IsWhole(Reply<Result<(), Incomplete>>),
    /// Where the brain's logs stand: tells what it has, and whether it has the same.
    PeerHeads(Vec<LogPosition>, Reply<Result<Vec<Outcome>, WriteError>>),
    /// The brain does not take an entry.
    Refused(Box<Refuse>, Reply<Result<Outcome, WriteError>>),
    /// The brain has more of a log of this device than the device.
    OwnLogBehind(LogId),
    /// A brain proved that it is one.
    MetBrain(PublicKey),
    /// The device belongs to a fleet now, by the word of this brain.
    Enrolled(FleetId, Option<PublicKey>, Reply<Result<(), WriteError>>),
    /// The brain's clock is ahead of this one by so many milliseconds.
    ClockError(i64),
    /// Sign the own log's head.
    Seal(Reply<Option<SignedHead>>),
    /// What a session starts from.
    View(Reply<View>),
    /// Read a log's entries above a number, about so many bytes.
    Fetch(LogId, u64, usize, Reply<Fetched>),
    /// What of a shared tree's logs has changed since then.
    News(Revision, Reply<News>),
    /// What the device is to do, and the values it has reported.
    Effective(Reply<Effective>),
    /// What is set here in place of what is desired.
    Overrides(Reply<Vec<Override>>),
    /// What the tree shows.
    State(Reply<Shown>),
}

/// Who is at the other end of a link.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Via {
    /// A brain: what it sends, it has.
    Brain,
    /// Another device. Whether the brain has what it sends is not known.
    Peer,
}

/// How often the logs of a tree have changed since the keeper's life began. Of an earlier life, it
/// stands for the beginning.
pub type Revision = u64;

/// What of a tree's logs has changed.
#[derive(Debug, Clone, PartialEq)]
pub struct News {
    /// With what to ask for what comes next.
    pub revision: Revision,
    /// Where the logs that changed stand.
    pub positions: Vec<LogPosition>,
    /// Their ends.
    pub cuts: Vec<Cut>,
    /// Their signed heads.
    pub seals: Vec<SignedHead>,
}

/// Why a change was not written.
#[derive(Debug, Clone, thiserror::Error)]
pub enum WriteError {
    /// Too much waits for the brain.
    #[error("queue is full: {limit_bytes} bytes wait for the brain")]
    QueueFull {
        /// How many bytes may wait.
        limit_bytes: u64,
    },
    /// The tree does not take it.
    #[error("change is not admissible")]
    Refused(#[source] protocol::history::Refusal),
    /// A checkpoint does not fit the tree.
    #[error("checkpoint cannot be merged")]
    Unmergeable(#[source] MergeError),
    /// It could not be made durable. It may be tried again.
    #[error("change is not durable")]
    Spool(#[source] Arc<SpoolError>),
    /// The keeper is not there.
    #[error("agent does not answer")]
    Unavailable(#[from] AskError),
}

impl From<SpoolError> for WriteError {
    fn from(error: SpoolError) -> Self {
        Self::Spool(Arc::new(error))
    }
}

/// Leaves lost a value, and what that had replaced is not here any more: the tree has to come anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Incomplete;

/// What followed from a refusal.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The log ended, and what the brain did not take stands in another one now.
    Reissued {
        /// The end of the log.
        cut: Box<Cut>,
        /// Where the log that is written now stands.
        position: LogPosition,
    },
    /// Try again on another connection.
    Reconnect,
    /// There was nothing left of what was refused.
    Nothing,
}

/// What a session starts from.
#[derive(Debug, Clone, PartialEq)]
pub struct View {
    /// The tree.
    pub tree: TreeId,
    /// Whether it is no fleet's.
    pub provisional: bool,
    /// The root of its leaves, where it is shared.
    pub root: [u8; 32],
    /// Where its logs stand.
    pub positions: Vec<LogPosition>,
    /// The ends of this device's logs.
    pub cuts: Vec<Cut>,
    /// The signed heads of this device's logs.
    pub seals: Vec<SignedHead>,
    /// The keys of the brains that are known.
    pub brains: Vec<PublicKey>,
}

/// Entries to send.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fetched {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Those of them that are traced.
    pub traces: Vec<EntryTrace>,
    /// What their author signed, up to the last of them at most; of others' logs alone.
    pub seal: Option<SignedHead>,
}

/// What a tree shows.
#[derive(Debug, Clone, PartialEq)]
pub struct Shown {
    /// Every leaf with its value.
    pub state: State,
    /// The root hash.
    pub root: [u8; 32],
    /// Whether this device may write in it.
    pub may_write: bool,
}

/// What the device is to do, and what it did about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Effective {
    /// The values to apply, by their paths below `desired/`.
    pub desired: std::collections::BTreeMap<String, Value>,
    /// Those of them that a constraint does not allow, with its name: they are left as they were.
    pub held: std::collections::BTreeMap<String, String>,
    /// Every leaf with its value.
    pub state: State,
    /// When the next override ends, in milliseconds since the Unix epoch.
    pub next_end_ms: Option<u64>,
}

/// Has `draft` written, and waits until that is durable. Returns where the log then stands, or
/// none where nothing changes. The span of the commit is a child of `trace`.
///
/// If the keeper fails in the middle, it is asked again: the same leaves with the same values are
/// written once, however often they are asked for.
pub async fn write(
    track: &Address<Msg>,
    draft: Draft,
    trace: Option<TraceContext>,
) -> Result<Option<LogPosition>, WriteError> {
    let span = trace.map(|parent| traced_span!(parent, "entry.commit"));
    let trace = span.as_ref().and_then(context_of);
    for _ in 0..WRITE_ATTEMPTS {
        let draft = draft.clone();
        match track.ask(|reply| Msg::Write(draft, trace, reply), PATIENCE).await {
            Err(AskError::Dropped) => {}
            answer => return answer?,
        }
    }
    Err(WriteError::Unavailable(AskError::Dropped))
}

/// A draft of what the agent itself has to report.
pub fn report<'a>(
    principal: &str,
    reason: &str,
    changes: impl IntoIterator<Item = (&'a str, Value)>,
) -> Draft {
    let changes: Vec<Change> = changes
        .into_iter()
        .filter_map(|(path, value)| Some((protocol::state::Path::new(path).ok()?, Some(value))))
        .collect();
    let source = protocol::state::StateSource::Edge;
    Draft { changes, provenance: Provenance::new(source, principal, reason), lease_until_ms: None }
}

/// By how much to move a clock of this quality that is `error_ms` behind the brain's.
///
/// A synchronised clock is believed, unless it was corrected before.
pub fn correction(quality: ClockQuality, offset_ms: i64, error_ms: i64) -> i64 {
    /// What a round trip over a slow network may make of two equal clocks.
    const NOISE_MS: u64 = 1_000;
    let believed = quality == ClockQuality::Synchronised && offset_ms == 0;
    if believed || error_ms.unsigned_abs() < NOISE_MS { 0 } else { error_ms }
}
