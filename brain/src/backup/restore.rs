//! Making a data folder of a backup, and checking that one could be made.

use std::path::Path;

use serde::Serialize;

use super::archive::Reader;
use super::create::remove_folder;
use super::{BackupError, BackupKey, Manifest};
use crate::files;
use crate::identity::Identity;
use crate::store::{StoreConfig, Verified, folder_in, write_mark};

/// What a backup came to.
#[derive(Debug, Serialize)]
pub struct Restored {
    /// What it is of.
    pub manifest: Manifest,
    /// What the check of everything in it came to.
    pub verified: Verified,
}

/// Restores a backup into a scratch folder beside it, checks everything in it, and removes that
/// again. `progress` is told how many bytes are unpacked, of how many.
pub fn verify(
    file: &Path,
    key: &BackupKey,
    progress: impl FnMut(u64, u64),
) -> Result<Restored, BackupError> {
    let scratch = file.with_added_extension("verifying");
    let restored = restore_to(file, key, &scratch, progress);
    remove_folder(&scratch)?;
    restored
}

/// Restores a backup into a new folder, and checks everything in it before the folder has its name.
pub fn restore(
    file: &Path,
    key: &BackupKey,
    folder: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<Restored, BackupError> {
    let is_empty = match std::fs::read_dir(folder) {
        Ok(mut entries) => entries.next().is_none(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => true,
        Err(error) => return Err(BackupError::file(folder)(error)),
    };
    if !is_empty {
        return Err(BackupError::NotEmpty { folder: folder.to_owned() });
    }
    let scratch = folder.with_added_extension("restoring");
    let restored = restore_to(file, key, &scratch, progress);
    if restored.is_err() {
        remove_folder(&scratch)?;
        return restored;
    }
    remove_folder(folder)?;
    files::rename(&scratch, folder).map_err(BackupError::file(folder))?;
    restored
}

fn restore_to(
    file: &Path,
    key: &BackupKey,
    folder: &Path,
    progress: impl FnMut(u64, u64),
) -> Result<Restored, BackupError> {
    remove_folder(folder)?;
    files::create_folder(folder).map_err(BackupError::file(folder))?;
    let manifest = Reader::open(file, key)?.unpack(folder, progress)?;
    let identity = Identity::load(folder)?;
    let damaged =
        |detail: &str| BackupError::Damaged { path: file.to_owned(), detail: detail.into() };
    if (identity.fleet, identity.brain) != (manifest.fleet, manifest.brain) {
        return Err(damaged("its keys are not those of the brain that it says it is of"));
    }
    // What is restored is not to hold less than what was backed up.
    let config = StoreConfig::new(folder_in(folder));
    write_mark(&config.folder, manifest.last_write).map_err(BackupError::file(&config.folder))?;
    let verified = crate::store::verify(&config, identity.fleet, |_, _| {})?;
    if let Some(first) = verified.damage.first() {
        let first = format!("{} {}: {}", first.family, first.record, first.what);
        return Err(BackupError::NotIntact { damages: verified.damages, first });
    }
    Ok(Restored { manifest, verified })
}
