//! The messages of a session.

use serde::{Deserialize, Serialize};

use super::Batch;
use crate::compress::Compression;
use crate::history::{Cut, Entry, Genesis, LogId, SignedHead, Tree};
use crate::keys::Chain;
use crate::trace::EntryTrace;
use crate::{DeviceId, EntryId, FleetId, PublicKey, Signature, SyncError, TreeId};

macro_rules! messages {
    ($($(#[$doc:meta])* $name:ident($body:ty) = $number:literal,)*) => {
        /// A message of a session.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Message {
            $($(#[$doc])* $name($body),)*
        }

        /// The number of a message in frame headers.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[repr(u8)]
        pub enum MessageKind {
            $($(#[$doc])* $name = $number,)*
        }

        impl Message {
            /// Which message it is.
            pub fn kind(&self) -> MessageKind {
                match self { $(Self::$name(_) => MessageKind::$name,)* }
            }
        }

        impl MessageKind {
            /// The kind with this number.
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }

            /// The name in logs.
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }
        }
    };
}

messages! {
    /// Who calls, and what for.
    Hello(Hello) = 1,
    /// Who answers, and what was agreed.
    HelloReply(HelloReply) = 2,
    /// The proof that a side holds its key and sees this very connection.
    Auth(Auth) = 3,
    /// The device is connected.
    Welcome(Welcome) = 4,
    /// The device is enrolled.
    Enrolled(Enrolled) = 5,
    /// Where a side's logs of a tree stand.
    Heads(Heads) = 6,
    /// Consecutive entries of one log.
    Entries(Batch) = 7,
    /// An author's signature under what it sent.
    SignedHead(SignedHead) = 8,
    /// The end of a log.
    Cut(Cut) = 9,
    /// How far entries are durable here, with room for more.
    Ack(Ack) = 10,
    /// An entry that is not taken.
    Refuse(Refuse) = 11,
    /// Are you there?
    Ping(Ping) = 12,
    /// I am.
    Pong(Pong) = 13,
    /// The last message of a side.
    Close(Close) = 14,
    /// The trace contexts of entries in the next message.
    Traces(Traces) = 15,
    /// A shared tree that a side holds, and where its logs stand.
    Share(Share) = 16,
    /// A shared tree that a side speaks of no longer.
    Leave(Leave) = 17,
    /// A part of a checkpoint, in place of entries that are kept no longer.
    Checkpoint(CheckpointPart) = 18,
}

impl Message {
    /// The tree that a message is about, where it is about one that both sides hold.
    pub fn tree(&self) -> Option<TreeId> {
        match self {
            Self::Heads(heads) => Some(heads.tree),
            Self::Entries(batch) => Some(batch.tree),
            Self::SignedHead(signed) => Some(signed.head.tree),
            Self::Cut(cut) => Some(cut.tree),
            Self::Ack(ack) => Some(ack.tree),
            Self::Refuse(refuse) => Some(refuse.tree),
            Self::Traces(traces) => Some(traces.tree),
            Self::Checkpoint(part) => Some(part.tree),
            Self::Hello(_)
            | Self::HelloReply(_)
            | Self::Auth(_)
            | Self::Welcome(_)
            | Self::Enrolled(_)
            | Self::Ping(_)
            | Self::Pong(_)
            | Self::Close(_)
            | Self::Share(_)
            | Self::Leave(_) => None,
        }
    }
}

/// A range of protocol versions, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct VersionRange {
    /// The oldest.
    pub min: u8,
    /// The newest.
    pub max: u8,
}

/// Optional abilities, a bit each. None is defined in version 1.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(pub u64);

/// What a caller wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Purpose {
    /// To exchange entries.
    Link,
    /// To join the fleet with a token.
    Enrol,
    /// To exchange entries of what both share, from one device to another.
    Peer,
}

/// Who calls, and what for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// The versions that the caller speaks.
    pub versions: VersionRange,
    /// What else it can do.
    pub capabilities: Capabilities,
    /// The set of compressions that it reads, as [`Compression::bit`]s.
    pub compressions: u8,
    /// What it wants.
    pub purpose: Purpose,
    /// The fleet that it belongs to or wants to join.
    pub fleet: FleetId,
    /// The device that it is, or wants to be.
    pub device_id: DeviceId,
    /// Its key.
    pub public_key: PublicKey,
    /// The certificate of that key; none when enrolling.
    pub certificate: Option<Chain>,
    /// 32 random bytes.
    pub challenge: [u8; 32],
}

/// Who answers, and what was agreed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct HelloReply {
    /// The version that both will speak.
    pub version: u8,
    /// What both can do.
    pub capabilities: Capabilities,
    /// How both will compress batches.
    pub compression: Compression,
    /// The id of the brain or of the device that answers; its certificate says which.
    pub answerer: [u8; 16],
    /// Its key.
    pub public_key: PublicKey,
    /// The certificate of that key.
    pub certificate: Chain,
    /// 32 random bytes.
    pub challenge: [u8; 32],
}

/// The proof that a side holds its key and sees this very connection.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Auth {
    /// Over role, transcript and the connection's TLS exporter.
    pub challenge_response: Signature,
    /// The right to enrol; only then.
    pub token: Option<TokenProof>,
}

/// An enrolment token, shown to a brain that has proved itself.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct TokenProof {
    /// Its number.
    pub number: u64,
    /// Its secret.
    pub secret: [u8; 32],
    /// What people are to call the device.
    pub name: String,
}

impl std::fmt::Debug for TokenProof {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenProof {{ number: {}, name: {:?} }}", self.number, self.name)
    }
}

/// The device is connected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Welcome {
    /// Rises with every connection of the device; the highest is the one that counts.
    pub connection: u64,
    /// The brain's wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// How often the caller sends a ping, in milliseconds.
    pub heartbeat_ms: u32,
    /// How many bytes of entries the caller may send before the first acknowledgement.
    pub credit_bytes: u32,
}

/// The device is enrolled.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The certificate of its key.
    pub certificate: Chain,
    /// The API key to show at every connection: a secret.
    pub api_key: String,
    /// The brain's wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl std::fmt::Debug for Enrolled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Enrolled {{ certificate: {:?} }}", self.certificate.leaf.subject)
    }
}

/// Where one log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// The log.
    pub log: LogId,
    /// The number of its last entry.
    pub seq: u64,
    /// That entry's id.
    pub id: EntryId,
    /// The number of the last entry under a signed head.
    pub sealed: u64,
}

impl LogPosition {
    /// Where a log of a replica stands: at 0 where the replica has not met it.
    pub fn of(tree: &Tree, log: LogId) -> Self {
        match tree.log(&log) {
            Some(known) => Self { log, seq: known.seq, id: known.head, sealed: known.sealed() },
            None => Self { log, seq: 0, id: Entry::NO_PREV, sealed: 0 },
        }
    }
}

/// Where a side's logs of a tree stand.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Heads {
    /// The tree.
    pub tree: TreeId,
    /// Its logs.
    pub logs: Vec<LogPosition>,
}

/// How far entries are durable here, with room for more.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Ack {
    /// The tree.
    pub tree: TreeId,
    /// The log.
    pub log: LogId,
    /// The number of the last durable entry.
    pub stored: u64,
    /// The number of the last durable entry under a signed head.
    pub sealed: u64,
    /// How many more bytes of entries may be sent than before.
    pub credit_bytes: u32,
}

/// An entry that is not taken. Those after it in its log are not taken either.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refuse {
    /// The tree.
    pub tree: TreeId,
    /// The log.
    pub log: LogId,
    /// The number of the entry.
    pub seq: u64,
    /// Why.
    pub error: SyncError,
    /// The refusing side's wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
    /// How many more bytes of entries may be sent than before.
    pub credit_bytes: u32,
}

/// The trace contexts of entries that the sender's next message holds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Traces {
    /// The tree.
    pub tree: TreeId,
    /// The log.
    pub log: LogId,
    /// Those of its entries that are traced, [`TRACES_MAX`](crate::trace::TRACES_MAX) at most.
    pub entries: Vec<EntryTrace>,
}

/// A shared tree that a side holds, and where its logs stand: its heads, once the other side holds
/// the tree as well.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// The tree's beginning, from which its id follows.
    pub genesis: Genesis,
    /// Its logs.
    pub logs: Vec<LogPosition>,
    /// The root of its leaves: two sides with the same logs have the same.
    pub root: [u8; 32],
}

/// A shared tree that a side speaks of no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leave {
    /// The tree.
    pub tree: TreeId,
}

/// A part of a [`Checkpoint`](crate::history::Checkpoint). Parts come in order, and nothing of the
/// tree between them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CheckpointPart {
    /// The tree.
    pub tree: TreeId,
    /// Its number, from 0.
    pub part: u32,
    /// How many there are.
    pub parts: u32,
    /// A piece of the encoded checkpoint, [`PART_BYTES_MAX`] at most.
    pub bytes: Vec<u8>,
}

/// The most bytes of a [`CheckpointPart`]: with its header it fits a frame as it is.
pub const PART_BYTES_MAX: usize = 48 << 10;

/// Are you there?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ping {
    /// The sender's monotonic clock, in milliseconds since whatever it likes.
    pub sent_ms: u64,
}

/// I am.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pong {
    /// What the ping said.
    pub sent_ms: u64,
    /// The answerer's wall clock, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

/// The last message of a side.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Close {
    /// Why.
    pub error: SyncError,
    /// How long the other side waits before it comes back, at least, in milliseconds.
    pub retry_after_ms: Option<u32>,
}
