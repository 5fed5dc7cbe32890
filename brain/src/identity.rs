//! Who this brain is: its fleet, its keys and its certificate, as files in the data folder.
//!
//! ```text
//! fleet.json          fleet, root key, brain and its certificate: nothing secret
//! keys/root.key       the fleet's root key: may be taken offline
//! keys/brain.key      this brain's key
//! ```

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::{BrainId, FleetId, PublicKey};
use serde::{Deserialize, Serialize};

use crate::files::{self, Readers};

/// The brain's identity, loaded.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The fleet.
    pub fleet: FleetId,
    /// The fleet's root key, the public half.
    pub root: PublicKey,
    /// This brain.
    pub brain: BrainId,
    /// Its key.
    pub keypair: Keypair,
    /// That key's certificate.
    pub certificate: Chain,
}

/// `fleet.json`.
#[derive(Debug, Serialize, Deserialize)]
struct FleetFile {
    format: u32,
    fleet: FleetId,
    root: PublicKey,
    brain: BrainId,
    certificate: Certificate,
}

const FORMAT: u32 = 1;

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The folder has none.
    #[error("{folder} holds no fleet: run `brain init --data-dir {folder}` first")]
    Absent {
        /// The data folder.
        folder: PathBuf,
    },
    /// The folder has one already.
    #[error("{folder} holds fleet {fleet} already; nothing was changed")]
    Exists {
        /// The data folder.
        folder: PathBuf,
        /// The fleet.
        fleet: FleetId,
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
    /// A file is not what it should be.
    #[error("{path} is damaged: {detail}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
}

impl Identity {
    /// Makes a fleet with its root key and this brain's, from `random` bytes.
    pub fn create(folder: &Path, random: impl Fn() -> [u8; 32]) -> Result<Self, IdentityError> {
        match Self::load(folder) {
            Err(IdentityError::Absent { .. }) => {}
            Err(error) => return Err(error),
            Ok(known) => {
                let folder = folder.to_owned();
                return Err(IdentityError::Exists { folder, fleet: known.fleet });
            }
        }
        let keys = folder.join("keys");
        files::create_folder(&keys).map_err(|source| file_error(&keys, source))?;
        fail::fail_point!("identity.folder_made");
        let (root, keypair) = (Keypair::from_seed(&random()), Keypair::from_seed(&random()));
        let fleet = FleetId(first_half(&random()));
        let brain = BrainId(first_half(&random()));
        let certificate = Certificate::issue(
            &root,
            fleet,
            Subject::Brain(brain),
            keypair.public(),
            Validity::ALWAYS,
        );
        write_key(&keys.join("root.key"), &root)?;
        fail::fail_point!("identity.root_key_made");
        write_key(&keys.join("brain.key"), &keypair)?;
        fail::fail_point!("identity.brain_key_made");
        // Last: only a whole identity counts as one.
        let content = FleetFile { format: FORMAT, fleet, root: root.public(), brain, certificate };
        let path = folder.join("fleet.json");
        let json = serde_json::to_vec_pretty(&content).map_err(|error| damaged(&path, &error))?;
        files::replace(&path, &json, Readers::Everybody)
            .map_err(|source| file_error(&path, source))?;
        fail::fail_point!("identity.made");
        Self::load(folder)
    }

    /// Loads what [`create`](Self::create) made.
    pub fn load(folder: &Path) -> Result<Self, IdentityError> {
        let path = folder.join("fleet.json");
        let json = match fs::read(&path) {
            Ok(json) => json,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(IdentityError::Absent { folder: folder.to_owned() });
            }
            Err(source) => return Err(file_error(&path, source)),
        };
        let FleetFile { format, fleet, root, brain, certificate } =
            serde_json::from_slice(&json).map_err(|error| damaged(&path, &error))?;
        if format != FORMAT {
            return Err(damaged(&path, &format_args!("format {format} is unknown")));
        }
        let key_path = folder.join("keys/brain.key");
        let keypair = read_key(&key_path)?;
        let certificate = Chain { leaf: certificate, issuer: None };
        let subject = certificate
            .verify(fleet, root, None)
            .map_err(|error| damaged(&path, &protocol::session::with_causes(&error)))?;
        if *subject != Subject::Brain(brain) || certificate.leaf.key != keypair.public() {
            return Err(damaged(&path, &"its certificate is not that of the key beside it"));
        }
        Ok(Self { fleet, root, brain, keypair, certificate })
    }
}

fn write_key(path: &Path, key: &Keypair) -> Result<(), IdentityError> {
    files::replace(path, &key.seed(), Readers::Owner).map_err(|source| file_error(path, source))
}

fn read_key(path: &Path) -> Result<Keypair, IdentityError> {
    let seed = fs::read(path).map_err(|source| file_error(path, source))?;
    let seed = seed.as_slice().try_into().map_err(|_| damaged(path, &"a key has 32 bytes"))?;
    Ok(Keypair::from_seed(seed))
}

fn file_error(path: &Path, source: io::Error) -> IdentityError {
    IdentityError::File { path: path.to_owned(), source }
}

fn damaged(path: &Path, detail: &dyn std::fmt::Display) -> IdentityError {
    IdentityError::Damaged { path: path.to_owned(), detail: detail.to_string() }
}

fn first_half(bytes: &[u8; 32]) -> [u8; 16] {
    *bytes.first_chunk().expect("16 of 32 bytes")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_is_made_once() {
        let folder = tempfile::tempdir().expect("temporary folder");
        assert!(matches!(Identity::load(folder.path()), Err(IdentityError::Absent { .. })));
        let made = Identity::create(folder.path(), || [7; 32]).expect("creates");
        let again = Identity::create(folder.path(), || [8; 32]);
        assert!(matches!(again, Err(IdentityError::Exists { fleet, .. }) if fleet == made.fleet));
    }

    #[test]
    fn a_foreign_key_beside_the_certificate_is_damage() {
        let folder = tempfile::tempdir().expect("temporary folder");
        Identity::create(folder.path(), || [7; 32]).expect("creates");
        fs::write(folder.path().join("keys/brain.key"), [9; 32]).expect("writes");
        assert!(matches!(Identity::load(folder.path()), Err(IdentityError::Damaged { .. })));
    }
}
