//! Why the store did not do what it was asked.
//!
//! `detail` is for those who run the brain: it names keys and files, goes to the log, and never to
//! peers or clients, who are told the kind.

use protocol::error::Cause;
use protocol::state::Version;
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};

/// Why a commit did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommitError {
    /// Too little disk space is left; reads go on and writes are taken again when there is more.
    #[error("{available_bytes} bytes of disk are left, {reserve_bytes} are kept free")]
    DiskFull {
        /// What is left.
        available_bytes: u64,
        /// What is kept.
        reserve_bytes: u64,
    },
    /// An earlier commit of the same loading failed: load again.
    #[error("an earlier commit of this tree failed")]
    Superseded,
    /// The tree's device or group was retired: nothing is written for it any more.
    #[error("whose tree this was is retired")]
    Retired,
    /// The database failed; the process is about to end.
    #[error("the database failed: {detail}")]
    Failed {
        /// What gave way.
        fault: StoreFault,
        /// What it said.
        detail: String,
    },
}

/// Why stored data could not be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A record is damaged.
    #[error("damaged record in {family}: {detail}")]
    Corrupt {
        /// Which kind of record.
        family: &'static str,
        /// What kind of damage it is.
        damage: RecordDamage,
        /// Its key and what is wrong.
        detail: String,
    },
    /// It is of a time before the history begins, which was pruned.
    #[error(
        "the history begins with version {version}, of {at_ms} ms; what came before was pruned"
    )]
    Pruned {
        /// The oldest version that is kept.
        version: Version,
        /// When it was committed, in milliseconds since the Unix epoch.
        at_ms: u64,
    },
    /// The database failed.
    #[error("the database failed: {detail}")]
    Failed {
        /// What gave way.
        fault: StoreFault,
        /// What it said.
        detail: String,
    },
}

/// What can be wrong with a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordDamage {
    /// It is not what was written.
    #[error("a record does not match its checksum")]
    Checksum,
    /// It is what was written, perhaps, and cannot be understood.
    #[error("a record is not of the form that this release writes")]
    Form,
    /// Another record refers to it, and it is not there.
    #[error("a record that others refer to is missing")]
    Missing,
    /// The database itself found its files damaged.
    #[error("a block of the database does not match its checksum")]
    Block,
}

/// What can give way below the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum StoreFault {
    /// A read, a write or an `fsync`.
    #[error("the disk gave an error")]
    Disk,
    /// The database, over a disk that works.
    #[error("the database gave an error")]
    Database,
    /// It takes no work any more.
    #[error("the store is stopped")]
    Stopped,
    /// The tree was written again and again while it was read.
    #[error("the tree changes faster than it can be read")]
    Contended,
}

impl CommitError {
    /// The error as peers and clients see it.
    pub fn to_sync_error(&self) -> SyncError {
        let error = |code, text: String| {
            SyncError::new(code, ErrorSource::new(Layer::Store, "commit", "write"), text)
        };
        match self {
            Self::DiskFull { .. } => {
                error(ErrorCode::DiskFull, self.to_string()).because(disk_full())
            }
            Self::Superseded => error(ErrorCode::Overloaded, self.to_string()),
            Self::Retired => error(ErrorCode::Retired, self.to_string()),
            Self::Failed { fault, .. } => {
                let text = "the database failed".to_owned();
                error(ErrorCode::StoreFailed, text).because(fault.cause("write"))
            }
        }
    }
}

impl ReadError {
    /// The error as peers and clients see it.
    pub fn to_sync_error(&self) -> SyncError {
        let error = |code, text: String| {
            SyncError::new(code, ErrorSource::new(Layer::Store, "read", "get"), text)
        };
        match self {
            Self::Corrupt { family, damage, .. } => {
                let text = format!("damaged record in {family}");
                error(ErrorCode::Corrupt, text).because(damage.cause())
            }
            Self::Pruned { .. } => error(ErrorCode::HistoryPruned, self.to_string()),
            Self::Failed { fault, .. } => {
                let text = "the database failed".to_owned();
                error(ErrorCode::StoreFailed, text).because(fault.cause("read"))
            }
        }
    }
}

impl RecordDamage {
    /// What was found below the store.
    fn cause(self) -> Cause {
        Cause::new(Layer::Hardware, "disk", "read record", self.to_string())
    }
}

impl StoreFault {
    /// What was found below the store.
    pub fn cause(self, operation: &str) -> Cause {
        let (layer, component) = match self {
            Self::Disk => (Layer::Hardware, "disk"),
            Self::Database | Self::Stopped | Self::Contended => (Layer::Store, "database"),
        };
        Cause::new(layer, component, operation, self.to_string())
    }
}

/// What is found below a store that takes no writes for want of room.
pub fn disk_full() -> Cause {
    Cause::new(Layer::Hardware, "disk", "keep reserve", "less space is left than is kept free")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_database_said_stays_here_and_what_gave_way_is_told() {
        let detail = "IO error: While pread /data/store/000012.sst: Input/output error";
        let failed = ReadError::Failed { fault: StoreFault::Disk, detail: detail.to_owned() };
        let (family, detail) = ("leaves", "key 00ff: checksum does not match".to_owned());
        let corrupt = ReadError::Corrupt { family, damage: RecordDamage::Checksum, detail };
        for (error, code) in [(failed, ErrorCode::StoreFailed), (corrupt, ErrorCode::Corrupt)] {
            let error = error.to_sync_error();
            assert_eq!(error.code, code);
            let layers: Vec<_> = error.causes().iter().map(|cause| cause.place.layer).collect();
            assert_eq!(layers, [Layer::Store, Layer::Hardware]);
            for cause in error.causes() {
                assert!(!cause.message.contains(['/', ':']), "{cause}");
            }
        }
    }
}
