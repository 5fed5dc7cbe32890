//! Backups of a running brain: its whole data folder, keys included, in one encrypted file.
//!
//! ```text
//! fleet-20261122T060000Z.backup    age( zstd( tar(
//!     manifest.json                    what it is of, and how many bytes follow
//!     fleet.json, keys/, admin.token   the files of the folder
//!     store/                           the database as it was at one moment
//! ) ) )
//! ```
//!
//! The database is copied by RocksDB's own checkpoint, which links files that never change: commits
//! go on meanwhile. The file is encrypted to the public keys of the settings, so the brain can make
//! backups that it cannot read. `age -d`, `zstd -d` and `tar -x` open one without this program.

mod archive;
mod create;
mod folder;
mod keeper;
mod key;
mod restore;

use std::io;
use std::path::PathBuf;

use actors::ports::disk_full;
use protocol::error::Cause;
use protocol::{BrainId, ErrorCode, ErrorSource, FleetId, Layer, SyncError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::identity::IdentityError;
use crate::store::{OpenError, fault_of};

pub use create::Backups;
pub use folder::BackupFile;
pub use keeper::{BackupArgs, BackupKeeper, BackupMsg};
pub use key::{BackupKey, Recipients};
pub use restore::{Restored, restore, verify};

/// The settings of backups.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct BackupSettings {
    /// The public keys that backups are encrypted to, as `brain backup key` prints them.
    pub recipients: Vec<String>,
    /// How often one is made; 0 for never.
    pub every_hours: u32,
    /// So many are kept of those that were made on schedule.
    pub keep: usize,
    /// Where they lie; `backups` of the data folder if none is named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub folder: Option<PathBuf>,
}

impl Default for BackupSettings {
    fn default() -> Self {
        Self { recipients: Vec::new(), every_hours: 24, keep: 7, folder: None }
    }
}

/// What a backup is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Manifest {
    /// The format of the backup.
    pub format: u32,
    /// The fleet.
    #[schema(value_type = String)]
    pub fleet: FleetId,
    /// The brain.
    #[schema(value_type = String)]
    pub brain: BrainId,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created: u64,
    /// The release that made it.
    pub release: String,
    /// The number of the database's last write.
    pub last_write: u64,
    /// How many devices are enrolled.
    pub devices: u64,
    /// The number of the last row of the audit list.
    pub last_audit: u64,
    /// How many bytes the files take.
    pub bytes: u64,
}

/// The format of backups.
const FORMAT: u32 = 1;

/// Why there is no backup, or none can be used.
#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Nobody could read it.
    #[error(
        "no key to encrypt to: run `brain backup key`, keep its file away from this machine, and put \
         the public key into the settings as backup.recipients"
    )]
    NoRecipients,
    /// A public key is none.
    #[error("{text:?} is no public key of a backup: it begins with age1")]
    BadRecipient {
        /// What is there.
        text: String,
    },
    /// A key file holds no key.
    #[error("{path} holds no key of backups")]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// The key does not open it, or it was altered.
    #[error("{path} cannot be opened with this key, or was altered")]
    Encrypted {
        /// The file.
        path: PathBuf,
        /// What the decryption said.
        #[source]
        source: age::DecryptError,
    },
    /// It is not what a backup is.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// What was restored is not intact.
    #[error("what was restored is not intact: {damages} damages, the first is {first}")]
    NotIntact {
        /// How many.
        damages: u64,
        /// The first.
        first: String,
    },
    /// Something is there already.
    #[error("{folder} is there and not empty; nothing was changed: name a new folder")]
    NotEmpty {
        /// The folder.
        folder: PathBuf,
    },
    /// It would fill the disk.
    #[error(
        "{folder} has {available_bytes} bytes left; with the reserve, {needed_bytes} are needed"
    )]
    NoRoom {
        /// Where it was to be.
        folder: PathBuf,
        /// What is left.
        available_bytes: u64,
        /// What is needed.
        needed_bytes: u64,
    },
    /// Another backup is being made.
    #[error("another backup is being made")]
    Busy,
    /// There is no backup of that name.
    #[error("there is no backup {name:?}")]
    NotFound {
        /// The name.
        name: String,
    },
    /// A file cannot be read or written.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The database cannot be copied.
    #[error("the database cannot be copied")]
    Checkpoint(#[source] rocksdb::Error),
    /// What was restored has no identity.
    #[error("what was restored is no brain's folder")]
    Identity(#[from] IdentityError),
    /// What was restored does not open.
    #[error("what was restored does not open")]
    Open(#[from] OpenError),
    /// The database cannot be read.
    #[error("the database cannot be read")]
    Read(#[from] actors::ports::ReadError),
}

impl BackupError {
    /// The error as clients see it: without the files that it is about.
    pub fn to_sync_error(&self) -> SyncError {
        let error = |code, text: String| {
            SyncError::new(code, ErrorSource::new(Layer::Brain, "backup", "back up"), text)
        };
        let making = |text| Cause::new(Layer::Brain, "backup", "back up", text);
        match self {
            Self::NoRecipients | Self::BadRecipient { .. } => {
                error(ErrorCode::BadRequest, self.to_string())
            }
            Self::Busy => error(ErrorCode::Overloaded, self.to_string()),
            Self::NotFound { .. } => error(ErrorCode::NotFound, self.to_string()),
            Self::NoRoom { available_bytes, needed_bytes, .. } => {
                let text = format!("{available_bytes} bytes are left, {needed_bytes} are needed");
                error(ErrorCode::DiskFull, text).because(disk_full())
            }
            Self::File { source, .. } => {
                let cause = source.kind().to_string();
                error(ErrorCode::StoreFailed, "a file of the backup cannot be used".to_owned())
                    .because(Cause::new(Layer::Hardware, "disk", "use file", cause))
            }
            Self::Checkpoint(source) => {
                error(ErrorCode::StoreFailed, "the database cannot be copied".to_owned())
                    .because(fault_of(source).cause("copy"))
            }
            Self::Read(source) => source.to_sync_error().within(making("the backup is not made")),
            Self::BadKey { .. }
            | Self::Encrypted { .. }
            | Self::Damaged { .. }
            | Self::NotIntact { .. }
            | Self::NotEmpty { .. }
            | Self::Identity(_)
            | Self::Open(_) => {
                error(ErrorCode::StoreFailed, "the backup cannot be used".to_owned())
            }
        }
    }

    fn file(path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { path, source }
    }
}
