//! The device's history on its own disk.
//!
//! A spool holds what a [`Tree`](protocol::history::Tree) is restored from, and the entries that
//! a brain may still ask for. Everything that belongs together is written by one [`Commit`]: after
//! a power cut either all of it is there or nothing. A caller hears of an entry only after the
//! commit that holds it.
//!
//! [`sqlite`] is for devices with a disk, [`memory`] for those without; one contract test suite
//! holds both to the same behaviour.

mod commit;
#[cfg(test)]
mod contract;
mod memory;
mod node;
mod record;
mod sqlite;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

use protocol::PublicKey;
use protocol::history::{Entry, Genesis, Leaf, SignedHead};
use protocol::state::Path;
use protocol::wire::{BatchError, PackError};

use crate::disk::DiskError;

pub use commit::{AuthorState, Commit, Delivered, EntryRecord, LogRecord};
pub use memory::MemorySpool;
pub use node::{Answer, Msg, Place, SpoolNode, Store};
pub use sqlite::{Damage, FORMAT_VERSION, Opened, Options, SQLITE_VERSION_MIN, SqliteSpool};

/// A spool: one writer, who also reads.
///
/// Calls block; the shell makes them where blocking is allowed.
pub trait Spool: Send {
    /// Everything that a replica is restored from, or none in a spool where nothing was begun.
    fn load(&mut self) -> Result<Option<Loaded>, SpoolError>;

    /// Makes a commit durable, all or nothing.
    fn commit(&mut self, commit: &Commit) -> Result<(), SpoolError>;

    /// Entries of a log above `after`, in order: as many as fit `bytes_max`, and one at least.
    /// Stops at the first gap, which pruning may have left.
    fn range(&mut self, log: u32, after: u64, bytes_max: usize) -> Result<Vec<Entry>, SpoolError>;

    /// The highest kept signed head of a log above `after` and up to `up_to`.
    fn seal(&mut self, log: u32, after: u64, up_to: u64) -> Result<Option<SignedHead>, SpoolError>;

    /// The numbers and sizes of a log's entries above `after`, in order.
    fn sizes(&mut self, log: u32, after: u64) -> Result<Vec<(u64, u32)>, SpoolError>;

    /// The bytes of all entries.
    fn entry_bytes(&mut self) -> Result<u64, SpoolError>;

    /// Deletes the oldest entries of each log up to the given number, with the heads that are signed
    /// among them, until `bytes` are freed. Returns how many bytes were.
    fn prune(&mut self, up_to: &[(u32, u64)], bytes: u64) -> Result<u64, SpoolError>;
}

/// What a replica is restored from.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded {
    /// The tree's beginning.
    pub genesis: Genesis,
    /// Its logs, by their numbers.
    pub logs: Vec<LogRecord>,
    /// Its leaves.
    pub leaves: BTreeMap<Path, Leaf>,
    /// Where the author stands.
    pub author: AuthorState,
    /// The keys of the brains that this device has met or was certified by.
    pub brains: BTreeSet<PublicKey>,
    /// Whether leaves lost values that have to come anew.
    pub incomplete: bool,
}

/// Why a spool cannot do what it should.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// No space on the disk. Nothing was written; later it may be.
    #[error("disk is full; free space on the file system of the data folder")]
    DiskFull,
    /// Another process has the spool.
    #[error("spool is in use by another agent; stop it, or use another --data-dir")]
    InUse,
    /// The file holds other bytes than were written.
    #[error("spool is damaged: {what}")]
    Damaged {
        /// What was found.
        what: String,
    },
    /// Written by a newer release.
    #[error(
        "spool has format {found}, this release reads up to {FORMAT_VERSION}; install the newer release again"
    )]
    FormatNewer {
        /// The format's number.
        found: i64,
    },
    /// Written by a development release before this one.
    #[error(
        "spool has format {found}, this release reads {FORMAT_VERSION}; let the older release deliver what waits, then move the file away"
    )]
    FormatOlder {
        /// The format's number.
        found: i64,
    },
    /// SQLite itself is too old to be trusted with write-ahead logs.
    #[error("SQLite {found} is older than {SQLITE_VERSION_MIN}")]
    SqliteTooOld {
        /// Its version number.
        found: i32,
    },
    /// The file system does not support what the spool needs.
    #[error("journal mode is {found}, not wal; put the data folder on a local file system")]
    NoWal {
        /// The mode that SQLite fell back to.
        found: String,
    },
    /// SQLite failed otherwise.
    #[error("cannot {operation}")]
    Sqlite {
        /// What was tried.
        operation: &'static str,
        /// What SQLite said.
        #[source]
        source: rusqlite::Error,
    },
    /// The file cannot be made or moved.
    #[error("spool file is not accessible")]
    Disk(#[from] DiskError),
    /// An entry that is no entry.
    #[error("entry cannot be packed")]
    Pack(#[from] PackError),
    /// A commit that refers to a log which it neither brings nor finds.
    #[error("commit refers to log {number}, which the spool does not have")]
    UnknownLog {
        /// The log's number.
        number: u32,
    },
}

impl SpoolError {
    /// Whether the spool's content is lost, as opposed to out of reach for now.
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } => true,
            Self::DiskFull
            | Self::InUse
            | Self::FormatNewer { .. }
            | Self::FormatOlder { .. }
            | Self::SqliteTooOld { .. }
            | Self::NoWal { .. }
            | Self::Sqlite { .. }
            | Self::Disk(_)
            | Self::Pack(_)
            | Self::UnknownLog { .. } => false,
        }
    }

    fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}

impl From<BatchError> for SpoolError {
    fn from(error: BatchError) -> Self {
        Self::damaged(error.to_string())
    }
}

/// The name of the spool in a data folder.
pub fn path_in(data_dir: &std::path::Path) -> PathBuf {
    data_dir.join("spool.db")
}
