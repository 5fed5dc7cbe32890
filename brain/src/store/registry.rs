//! Who may do what: devices, enrolment tokens, API tokens.

use std::sync::mpsc;

use actors::ports::{CommitError, ReadError, StoreFault};
use protocol::history::TreeKind;
use protocol::keys::Chain;
use protocol::{DeviceId, PublicKey, SyncError};
use rocksdb::WriteBatch;
use serde::{Deserialize, Serialize};

use super::rocks::{API_TOKENS, DEAD_LETTERS, DEVICES, ENROLMENTS, Rocks};
use super::{
    AuditDraft, Burial, RemovalStep, Store, StoreHealth, Tombstone, dead_letters, tombstones,
};

/// A device of the fleet.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeviceRecord {
    /// Its id.
    pub device: DeviceId,
    /// What people call it.
    pub name: String,
    /// The key that speaks for it now.
    pub key: PublicKey,
    /// The certificate of that key.
    pub certificate: Chain,
    /// The number of its API key.
    pub api_key_id: u64,
    /// SHA-256 of the API key's secret.
    pub api_key_sha256: [u8; 32],
    /// When it joined, in milliseconds since the Unix epoch.
    pub enrolled_ms: u64,
    /// The number of the token that it joined with.
    pub enrolled_by: u64,
}

/// An enrolment token. Its secret is not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EnrolmentRecord {
    /// Its number.
    pub number: u64,
    /// SHA-256 of its secret.
    pub secret_sha256: [u8; 32],
    /// How many more devices may join with it.
    pub uses_left: u32,
    /// When it ends, in milliseconds since the Unix epoch.
    pub expires_ms: u64,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// What people call it.
    pub label: String,
}

/// A bearer token of the API. Its secret is not here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ApiToken {
    /// SHA-256 of the token: also its key.
    pub sha256: [u8; 32],
    /// Whom it speaks for.
    pub principal: String,
    /// When it was made, in milliseconds since the Unix epoch.
    pub created_ms: u64,
    /// When it ends, in milliseconds since the Unix epoch; never where there is none.
    pub expires_ms: Option<u64>,
}

/// A change of the registry.
#[derive(Debug, Clone)]
pub enum RegistryChange {
    /// Adds or replaces a device.
    Device(Box<DeviceRecord>),
    /// Adds or replaces an enrolment token.
    Enrolment(EnrolmentRecord),
    /// Adds an API token.
    ApiToken(ApiToken),
    /// Adds an operation to the audit list.
    Done(Box<AuditDraft>),
    /// Forgets the dead letter with this digest, for the tree of this name.
    DeadLetterGone([u8; 8], String),
    /// Removes some of what a retired device or a deleted group left.
    Removal(RemovalStep),
}

impl RegistryChange {
    /// Whether it would bring back what was retired.
    pub(super) fn is_of_retired(&self, rocks: &Rocks) -> bool {
        let Self::Device(record) = self else { return false };
        tombstones::is_buried(rocks, TreeKind::Device, &record.device.to_string())
    }

    pub(super) fn add_to(&self, batch: &mut WriteBatch, rocks: &Rocks) {
        match self {
            Self::Device(device) => rocks.put(batch, DEVICES, &device.device.0, device),
            Self::Enrolment(token) => {
                rocks.put(batch, ENROLMENTS, &token.number.to_be_bytes(), token);
            }
            Self::ApiToken(token) => rocks.put(batch, API_TOKENS, &token.sha256, token),
            // The list has one end, which the writer knows.
            Self::Done(_) => {}
            Self::DeadLetterGone(digest, tree) => {
                rocks.delete(batch, DEAD_LETTERS, &dead_letters::key(*digest, tree));
            }
            Self::Removal(step) => step.add_to(batch, rocks),
        }
    }
}

/// Why there is no tombstone.
#[derive(Debug, thiserror::Error)]
pub enum BurialError {
    /// What is to be buried cannot be read.
    #[error("what is to be retired cannot be read")]
    Read(#[from] ReadError),
    /// The tombstone was not written.
    #[error("the tombstone was not written")]
    Commit(#[from] CommitError),
}

impl BurialError {
    /// The error as clients see it.
    pub fn to_sync_error(&self) -> SyncError {
        match self {
            Self::Read(error) => error.to_sync_error(),
            Self::Commit(error) => error.to_sync_error(),
        }
    }
}

fn gone() -> CommitError {
    let (fault, detail) = (StoreFault::Stopped, "the commit thread is gone".into());
    CommitError::Failed { fault, detail }
}

impl Store {
    /// Makes changes of the registry durable, all or none. Blocks.
    pub fn change_registry(&self, changes: Vec<RegistryChange>) -> Result<(), CommitError> {
        let (done, wait) = mpsc::channel();
        let done = Box::new(move |result| {
            // Nobody waits any more when the caller's thread is gone.
            let _ = done.send(result);
        });
        self.committer.registry(changes, done);
        wait.recv().unwrap_or_else(|_| Err(gone()))
    }

    /// Puts a tombstone in the place of a device or of a group, durably; none where there is neither.
    /// From then on nothing is written for its tree any more. One that is there already stays as it
    /// is. Blocks.
    pub fn bury(&self, burial: Burial) -> Result<Option<Tombstone>, BurialError> {
        let genesis = burial.genesis.clone();
        let (done, wait) = mpsc::channel();
        let done = Box::new(move |result| {
            // Nobody waits any more when the caller's thread is gone.
            let _ = done.send(result);
        });
        self.committer.bury(burial, done);
        wait.recv().unwrap_or_else(|_| Err(gone()))?;
        Ok(self.tombstone(&genesis)?)
    }

    /// A device.
    pub fn device(&self, device: DeviceId) -> Result<Option<DeviceRecord>, ReadError> {
        self.rocks.get(DEVICES, &device.0)
    }

    /// Every device, by id.
    pub fn devices(&self) -> Result<Vec<DeviceRecord>, ReadError> {
        self.rocks.scan_all(DEVICES).map(|row| row.map(|(_, device)| device)).collect()
    }

    /// An enrolment token.
    pub fn enrolment(&self, number: u64) -> Result<Option<EnrolmentRecord>, ReadError> {
        self.rocks.get(ENROLMENTS, &number.to_be_bytes())
    }

    /// Every enrolment token, by number.
    pub fn enrolments(&self) -> Result<Vec<EnrolmentRecord>, ReadError> {
        self.rocks.scan_all(ENROLMENTS).map(|row| row.map(|(_, token)| token)).collect()
    }

    /// The API token with this hash.
    pub fn api_token(&self, sha256: &[u8; 32]) -> Result<Option<ApiToken>, ReadError> {
        self.rocks.get(API_TOKENS, sha256)
    }

    /// News of whether the store takes commits.
    pub fn watch_health(&self) -> tokio::sync::watch::Receiver<StoreHealth> {
        self.committer.watch_health()
    }
}
