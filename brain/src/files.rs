//! Files that are either the old ones or the new ones, whatever happens in between.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Who may read a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Readers {
    /// The owner only.
    Owner,
    /// Everybody.
    Everybody,
}

/// Replaces a file durably: written beside it, synced, renamed, and the folder synced.
pub fn replace(path: &Path, content: &[u8], readers: Readers) -> io::Result<()> {
    let fresh = path.with_added_extension("new");
    let mode = match readers {
        Readers::Owner => 0o600,
        Readers::Everybody => 0o644,
    };
    match fs::remove_file(&fresh) {
        Ok(()) => fail::fail_point!("file.leftover_removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    fail::fail_point!("file.before_create");
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&fresh)?;
    fail::fail_point!("file.created");
    file.write_all(content)?;
    fail::fail_point!("file.written");
    file.sync_all()?;
    fail::fail_point!("file.synced");
    fs::rename(&fresh, path)?;
    fail::fail_point!("file.renamed");
    sync_folder_of(path)?;
    fail::fail_point!("file.folder_synced");
    Ok(())
}

/// Gives a synced file or folder another name, durably.
pub(crate) fn rename(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_folder_of(to)
}

/// Removes a file durably.
pub(crate) fn remove(path: &Path) -> io::Result<()> {
    fs::remove_file(path)?;
    fail::fail_point!("file.removed");
    sync_folder_of(path)
}

/// Makes a folder, and those above it, durably: a file in it that is synced would be lost with it.
pub fn create_folder(path: &Path) -> io::Result<()> {
    // The last one always: whoever made it may have died before the sync.
    let above = path.ancestors().skip(1).take_while(|at| !at.as_os_str().is_empty());
    let made: Vec<_> = [path].into_iter().chain(above.take_while(|at| !at.exists())).collect();
    fs::create_dir_all(path)?;
    fail::fail_point!("file.folder_made");
    made.into_iter().rev().try_for_each(|folder| match sync_folder_of(folder) {
        // A folder that may be entered and not read cannot be synced either.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}

/// Makes the name of a file or folder durable.
fn sync_folder_of(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_the_owners_only() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("secret");
        replace(&path, b"one", Readers::Owner).expect("writes");
        replace(&path, b"two", Readers::Owner).expect("replaces");
        assert_eq!(fs::read(&path).expect("reads"), b"two");
        let mode = fs::metadata(&path).expect("is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
