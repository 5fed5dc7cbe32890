//! That the fleet has retired this device, as it was told.
//!
//! A retired device goes on with its work and calls only rarely: who retired it may have been wrong, or
//! go back to a backup from before. To join a fleet again it needs another identity, which `edge
//! enroll` makes.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

/// The file in the data folder that keeps it.
pub(crate) const FILE: &str = "retired.json";

/// That the device is retired.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Retired {
    /// When it was told, in milliseconds since the Unix epoch.
    pub told_ms: u64,
    /// What it was told.
    pub said: String,
}

/// Why it cannot be told whether the device is retired.
#[derive(Debug, thiserror::Error)]
pub enum RetiredError {
    /// The file cannot be read or written.
    #[error("whether the device is retired is not accessible")]
    Disk(#[from] DiskError),
    /// The file does not parse.
    #[error("{} is not what the agent wrote; remove it: the brain says it again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
}

impl Retired {
    /// What a data folder says; none where its device is not retired.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, RetiredError> {
        let path = data_dir.join(FILE);
        let Some(content) = disk::read_optional(&path)? else { return Ok(None) };
        let parsed = serde_json::from_slice(&content);
        parsed.map(Some).map_err(|source| RetiredError::Malformed { path, source })
    }

    /// Keeps it in a data folder.
    pub fn store(&self, data_dir: &Path) -> Result<(), RetiredError> {
        let path = data_dir.join(FILE);
        match serde_json::to_vec_pretty(self) {
            Ok(content) => Ok(disk::write_private(&path, &content)?),
            Err(source) => Err(RetiredError::Malformed { path, source }),
        }
    }

    /// Takes it back, where a data folder says so: the device is of the fleet after all.
    pub fn lift(data_dir: &Path) -> Result<(), RetiredError> {
        Ok(disk::remove_if_there(&data_dir.join(FILE))?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_kept_until_it_is_taken_back() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(Retired::load(dir.path()).expect("no file"), None);
        let retired = Retired { told_ms: 7, said: "RETIRED: moved".into() };
        retired.store(dir.path()).expect("written");
        assert_eq!(Retired::load(dir.path()).expect("read"), Some(retired));
        Retired::lift(dir.path()).expect("removed");
        Retired::lift(dir.path()).expect("nothing to remove");
        assert_eq!(Retired::load(dir.path()).expect("no file"), None);
    }
}
