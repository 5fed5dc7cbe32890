//! The conversation of two replicas, as a state machine without I/O.
//!
//! A [`Session`] begins with the handshake (see [`handshake`]) and then exchanges heads, entries
//! and acknowledgements of the device's tree, and of the trees that both sides share. The shell around it owns the socket, the store and
//! the clock: it feeds every event in as an [`Input`] and carries out the [`Output`]s in order.
//! The same machine serves every transport.
//!
//! What the caller does next always follows from the last outputs:
//!
//! - after [`Output::Authorise`] or [`Output::Enrol`] it answers with [`Input::Authorised`],
//!   between devices with [`Input::Admitted`], with [`Input::EnrolmentGranted`] or
//!   [`Input::Denied`];
//! - after [`Output::Fetch`] it answers with [`Input::Fetched`], possibly empty, of a log that it
//!   passes on with [`Input::Vouched`] before; and after [`Output::FetchCheckpoint`] with
//!   [`Input::Checkpoint`];
//! - after [`Output::Offered`] it answers with [`Input::Share`] where it holds that tree as well;
//! - after [`Output::Ingest`] it answers with [`Input::Stored`] or [`Input::Refused`], in order, and
//!   after [`Output::TakeCheckpoint`] with [`Input::Stored`] for every log in it;
//! - once the session [is established](Session::is_established), it gives [`Input::Sealed`] and
//!   [`Input::CutMade`] for what its logs have of both, since an earlier connection may have
//!   broken before they arrived;
//! - after [`Output::Closed`] it ends the connection and drops the session.
//!
//! It also calls in with [`Input::Tick`] no later than [`Session::next_tick_ms`].

pub mod handshake;
mod link;
mod replication;

use crate::clock::ClockQuality;
use crate::history::{Checkpoint, Cut, Entry, Genesis, LogId, SignedHead, VersionVector};
use crate::keys::Chain;
use crate::trace::EntryTrace;
use crate::wire::{
    self, Close, Enrolled, FrameError, LogPosition, Message, Refuse, TokenProof, VERSION_MAX,
};
use crate::{DeviceId, EntryId, ErrorCode, ErrorSource, Layer, PublicKey, SyncError, TreeId};

use handshake::{Handshake, Progress};
use link::Link;

pub use link::SHARED_TREES_MAX;

/// The time, both ways of telling it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Now {
    /// The wall clock, in milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// A clock that never jumps, in milliseconds since some start.
    pub mono_ms: u64,
    /// How good the wall clock is.
    pub quality: ClockQuality,
}

/// What happened outside.
#[derive(Debug)]
pub enum Input<'a> {
    /// The transport is up; only the calling side has something to say.
    Connected,
    /// A frame came.
    Frame(&'a [u8]),
    /// The device behind [`Output::Authorise`] may connect.
    Authorised {
        /// The number of this connection.
        connection: u64,
        /// The device's tree and where its logs stand here.
        replica: Replica,
    },
    /// The device behind [`Output::Authorise`] may connect to this one, as its peer.
    Admitted {
        /// The number of this connection.
        connection: u64,
    },
    /// The device behind [`Output::Enrol`] is enrolled.
    EnrolmentGranted(Box<Enrolled>),
    /// The device behind the last request is turned away.
    Denied(SyncError),
    /// Entries are durable here, written by this side or ingested.
    Stored {
        /// The log.
        log: LogId,
        /// Where it now stands.
        position: LogPosition,
        /// How many bytes of the peer's entries were dealt with by that.
        consumed_bytes: u32,
    },
    /// An ingested entry was not taken.
    Refused {
        /// The log.
        log: LogId,
        /// The number of the entry.
        seq: u64,
        /// Why.
        error: SyncError,
        /// How many bytes of the peer's entries were dealt with by that.
        consumed_bytes: u32,
        /// Whether the connection must end: the peer is wrong, not early.
        fatal: bool,
    },
    /// The entries that [`Output::Fetch`] asked for, from its `after` on, as many as fit.
    Fetched {
        /// The log.
        log: LogId,
        /// The entries.
        entries: Vec<Entry>,
    },
    /// The checkpoint that [`Output::FetchCheckpoint`] asked for.
    Checkpoint(Box<Checkpoint>),
    /// Entries up to here are kept no longer: they are only in a checkpoint.
    Pruned(VersionVector),
    /// An entry that will be sent is traced; given before the entry is [`Stored`](Input::Stored)
    /// or [`Fetched`](Input::Fetched).
    Traced {
        /// The log.
        log: LogId,
        /// The entry, and the span that it leaves.
        trace: EntryTrace,
    },
    /// What its author signed of a log that this side passes on, given before entries up to there
    /// are [`Fetched`](Input::Fetched). A brain needs none.
    Vouched(SignedHead),
    /// A log of this side was signed.
    Sealed(SignedHead),
    /// A log of this side ended; its successor's position follows as [`Input::Stored`].
    CutMade(Cut),
    /// This side holds a shared tree and speaks of it on this link.
    Share {
        /// The tree's beginning.
        genesis: Genesis,
        /// Where it stands here.
        replica: Box<Replica>,
        /// The root of its leaves.
        root: [u8; 32],
    },
    /// This side speaks of a shared tree no longer.
    Leave(TreeId),
    /// What would be said of the device's tree, of a shared one: [`Stored`](Self::Stored),
    /// [`Refused`](Self::Refused), [`Fetched`](Self::Fetched), [`Checkpoint`](Self::Checkpoint),
    /// [`Pruned`](Self::Pruned), [`Traced`](Self::Traced), [`Vouched`](Self::Vouched),
    /// [`Sealed`](Self::Sealed) and [`CutMade`](Self::CutMade).
    OfShared {
        /// The tree.
        tree: TreeId,
        /// What happened.
        input: Box<Input<'a>>,
    },
    /// This side wants to end the connection.
    Close {
        /// Why.
        error: SyncError,
        /// How long the peer waits at least before it comes back, in milliseconds.
        retry_after_ms: Option<u32>,
    },
    /// Time passed.
    Tick,
}

/// What the caller has to do.
#[derive(Debug, PartialEq)]
pub enum Output {
    /// Send a frame.
    Send(Vec<u8>),
    /// Decide whether this device, whose key and certificate are proved, may connect.
    Authorise(PeerDevice),
    /// Decide whether this key, which is proved, may join.
    Enrol(PeerDevice, TokenProof),
    /// The calling side has been welcomed.
    Welcomed {
        /// The number of this connection.
        connection: u64,
        /// The brain's wall clock less this side's, in milliseconds.
        offset_ms: i64,
    },
    /// The calling side has been enrolled.
    Enrolled(Box<Enrolled>),
    /// Read entries of a log.
    Fetch {
        /// The log.
        log: LogId,
        /// Read those above this number.
        after: u64,
        /// Read about so many bytes at most, and one entry at least.
        bytes_max: usize,
    },
    /// Read the checkpoint that stands in place of what is kept no longer: the peer lacks some of it.
    FetchCheckpoint,
    /// Entries of a log that follow with the next [`Ingest`](Output::Ingest) are traced.
    Traced {
        /// The log.
        log: LogId,
        /// The entries, and the spans that they left.
        traces: Vec<EntryTrace>,
    },
    /// Judge and store entries of the peer.
    Ingest {
        /// The log.
        log: LogId,
        /// The entries with their ids, in order.
        entries: Vec<(EntryId, Entry)>,
        /// What to give back as `consumed_bytes`.
        bytes: u32,
    },
    /// Store a signed head whose signature is checked, once the entries before it are stored.
    TakeSignedHead(SignedHead),
    /// Store a cut, after the entries before it. Its signature is checked; whether who revokes a
    /// log has the authority to is not.
    TakeCut(Cut),
    /// Merge a checkpoint. Its shape and its signatures are checked; whether who vouches for it
    /// has the authority to is not.
    TakeCheckpoint(Box<Checkpoint>),
    /// The peer has made entries of a log durable.
    Acked {
        /// The log.
        log: LogId,
        /// Up to this number.
        stored: u64,
        /// Up to this number under a signed head.
        sealed: u64,
    },
    /// The peer does not take an entry.
    PeerRefused(Refuse),
    /// The peer knows more of a log that this side writes than this side does: the local store
    /// went back in time, and the log must not be continued.
    OwnLogBehind {
        /// The log.
        log: LogId,
        /// Where it stands at the peer.
        theirs: u64,
        /// Where it stands here.
        ours: u64,
    },
    /// The peer knows less of a log of a shared tree that it writes itself than this side does, and
    /// what it lacks is not all under its signature: its store went back in time, it does not go on
    /// in that log, and it will never sign what is missing.
    PeerLogBehind {
        /// The log.
        log: LogId,
    },
    /// The other side's wall clock, measured over a round trip.
    ClockSample {
        /// Its clock less this side's, in milliseconds.
        offset_ms: i64,
        /// The round trip, in milliseconds.
        round_trip_ms: u64,
    },
    /// The peer holds a shared tree.
    Offered {
        /// The tree's beginning.
        genesis: Genesis,
        /// Where it stands there.
        logs: Vec<LogPosition>,
        /// The root of its leaves there.
        root: [u8; 32],
    },
    /// The peer speaks of a shared tree no longer.
    Left(TreeId),
    /// What would be said of the device's tree, of a shared one.
    OfShared {
        /// The tree.
        tree: TreeId,
        /// What to do.
        output: Box<Output>,
    },
    /// The session is over.
    Closed(Ended),
}

/// A device that proved its key.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerDevice {
    /// The device that it is, or wants to be.
    pub device: DeviceId,
    /// Its key.
    pub key: PublicKey,
    /// Its certificate; none when it enrols.
    pub certificate: Option<Chain>,
}

/// Where a tree stands on this side.
#[derive(Debug, Clone, PartialEq)]
pub struct Replica {
    /// The tree.
    pub tree: TreeId,
    /// Its logs.
    pub logs: Vec<LogPosition>,
    /// Where those of them ended that did and of whose end the session is not told otherwise.
    pub ends: Vec<(LogId, u64)>,
    /// Up to where its entries are kept no longer, but in a checkpoint.
    pub floor: VersionVector,
    /// The key under which this side writes.
    pub author: PublicKey,
}

/// How a session ended.
#[derive(Debug, Clone, PartialEq)]
pub struct Ended {
    /// Why.
    pub error: SyncError,
    /// Whether the peer ended it.
    pub by_peer: bool,
    /// How long to wait at least before calling again, in milliseconds.
    pub retry_after_ms: Option<u32>,
}

/// What both sides of a link need to know of the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// How often the calling side pings, in milliseconds.
    pub heartbeat_ms: u32,
    /// How many bytes of entries a peer may send ahead of acknowledgements.
    pub credit_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        // Two missed heartbeats end a link: half a minute, which mobile networks survive.
        Self { heartbeat_ms: 15_000, credit_bytes: 256 << 10 }
    }
}

/// One side of a conversation.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    Handshake(Box<Handshake>),
    Linked(Box<Link>),
    Over,
}

impl Session {
    /// The side that calls.
    pub fn caller(config: handshake::Caller) -> Self {
        Self { phase: Phase::Handshake(Box::new(Handshake::caller(config))) }
    }

    /// The side that answers.
    pub fn answerer(config: handshake::Answerer) -> Self {
        Self { phase: Phase::Handshake(Box::new(Handshake::answerer(config))) }
    }

    /// When [`Input::Tick`] is due, on the monotonic clock.
    pub fn next_tick_ms(&self) -> Option<u64> {
        match &self.phase {
            Phase::Linked(link) => Some(link.next_tick_ms()),
            Phase::Handshake(_) | Phase::Over => None,
        }
    }

    /// Whether the handshake is over and the session lasts.
    pub fn is_established(&self) -> bool {
        matches!(self.phase, Phase::Linked(_))
    }

    /// Takes an event in and says what follows from it.
    pub fn handle(&mut self, input: Input<'_>, now: Now) -> Vec<Output> {
        let mut outputs = Vec::new();
        if let Input::Close { error, retry_after_ms } = input {
            self.close(error, retry_after_ms, &mut outputs);
            return outputs;
        }
        let result = match &mut self.phase {
            Phase::Over => return outputs,
            Phase::Handshake(handshake) => match handshake.handle(input, now, &mut outputs) {
                Ok(Progress::Pending) => Ok(()),
                Ok(Progress::Established(link)) => {
                    self.phase = Phase::Linked(link);
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
            Phase::Linked(link) => link.handle(input, now, &mut outputs),
        };
        match result {
            Ok(()) => {}
            Err(Failure::Ours(error)) => self.close(error, None, &mut outputs),
            Err(Failure::Peer(Close { error, retry_after_ms })) => {
                self.phase = Phase::Over;
                outputs.push(Output::Closed(Ended { error, by_peer: true, retry_after_ms }));
            }
        }
        outputs
    }

    fn close(&mut self, error: SyncError, retry_after_ms: Option<u32>, outputs: &mut Vec<Output>) {
        if matches!(self.phase, Phase::Over) {
            return;
        }
        self.phase = Phase::Over;
        let message = Message::Close(Close { error: error.clone(), retry_after_ms });
        outputs.push(send(&message));
        outputs.push(Output::Closed(Ended { error, by_peer: false, retry_after_ms }));
    }
}

/// Why a session cannot go on.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This side ends it.
    Ours(SyncError),
    /// The peer said so.
    Peer(Close),
}

impl Failure {
    pub(crate) fn new(code: ErrorCode, operation: &str, message: impl Into<String>) -> Self {
        Self::Ours(error(code, operation, message))
    }

    pub(crate) fn unexpected(message: &Message, phase: &str) -> Self {
        let text = format!("{} is not expected {phase}", message.kind().as_str());
        Self::new(ErrorCode::UnexpectedFrame, "take frame", text)
    }
}

impl From<FrameError> for Failure {
    fn from(source: FrameError) -> Self {
        Self::new(source.code(), "decode frame", with_causes(&source))
    }
}

/// An error of the session.
pub fn error(code: ErrorCode, operation: &str, message: impl Into<String>) -> SyncError {
    SyncError::new(code, ErrorSource::new(Layer::Protocol, "session", operation), message)
}

/// An error's text with those of its causes.
pub fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(source) = cause {
        text = format!("{text}: {source}");
        cause = source.source();
    }
    text
}

/// How far another clock is ahead of this side's, whatever the peer claims that it shows.
fn offset_ms(theirs_ms: u64, ours_ms: u64) -> i64 {
    let difference = i128::from(theirs_ms) - i128::from(ours_ms);
    difference.clamp(i64::MIN.into(), i64::MAX.into()) as i64
}

fn send(message: &Message) -> Output {
    let none = crate::compress::Compression::None;
    Output::Send(wire::encode(message, VERSION_MAX, none))
}
