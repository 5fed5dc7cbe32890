//! What is written at once.

use std::collections::{BTreeMap, BTreeSet};

use protocol::PublicKey;
use protocol::history::{Entry, Genesis, Leaf, LogState, SignedHead};
use protocol::state::Path;
use serde::{Deserialize, Serialize};

use super::{SpoolError, record};

/// What is written at once, in the order of its fields.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Commit {
    /// Forget logs, leaves and entries, and begin this tree.
    pub begin: Option<Genesis>,
    /// Logs whose entries above a number go, because the log ended there.
    pub truncate: Vec<(u32, u64)>,
    /// New entries, after those of their logs that are there.
    pub entries: Vec<EntryRecord>,
    /// Signed heads of logs, by number, to be shown to whoever gets entries up to there.
    pub seals: Vec<(u32, SignedHead)>,
    /// Logs that changed, by number.
    pub logs: BTreeMap<u32, LogRecord>,
    /// Leaves that changed; none where a leaf has no candidate left.
    pub leaves: BTreeMap<Path, Option<Leaf>>,
    /// Where the author stands, if that changed.
    pub author: Option<AuthorState>,
    /// All known brain keys, if one was added.
    pub brains: Option<BTreeSet<PublicKey>>,
    /// Whether leaves lost values that have to come anew, if that changed.
    pub incomplete: Option<bool>,
}

impl Commit {
    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An entry in its stored form.
#[derive(Debug, Clone, PartialEq)]
pub struct EntryRecord {
    /// The log's number.
    pub log: u32,
    /// The entry's number in it.
    pub seq: u64,
    /// The entry, as a batch of one.
    pub bytes: Vec<u8>,
}

impl EntryRecord {
    /// The stored form of an entry of log number `log`.
    pub fn new(log: u32, entry: &Entry) -> Result<Self, SpoolError> {
        Ok(Self { log, seq: entry.seq, bytes: record::encode_entry(entry)? })
    }
}

/// A log, and how much of it the brain has.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogRecord {
    /// What the replica knows of it.
    pub state: LogState,
    /// What the brain has of it.
    pub delivered: Delivered,
}

/// How much of a log the brain has made durable.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivered {
    /// Up to this number.
    pub stored: u64,
    /// Up to this number under a signed head.
    pub sealed: u64,
}

/// Where the author stands.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuthorState {
    /// The epoch of its log.
    pub epoch: u64,
    /// Whether it stopped in good order and has not started since.
    pub clean: bool,
    /// What it adds to the system's clock, in milliseconds.
    pub clock_offset_ms: i64,
    /// No time before this is believed, in milliseconds since the Unix epoch.
    pub clock_floor_ms: u64,
}
