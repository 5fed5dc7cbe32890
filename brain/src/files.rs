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
    if let Some(folder) = path.parent() {
        File::open(folder)?.sync_all()?;
    }
    fail::fail_point!("file.folder_synced");
    Ok(())
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
