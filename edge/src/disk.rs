//! Small files that must be whole after a power cut.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// The most that is read of a file of this agent: they hold keys and certificates, not data.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// A file of the data folder that cannot be read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}", path.display())]
pub struct DiskError {
    /// What was tried.
    pub operation: &'static str,
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl DiskError {
    fn new<'a>(operation: &'static str, path: &'a Path) -> impl FnOnce(io::Error) -> Self + 'a {
        move |source| Self { operation, path: path.to_path_buf(), source }
    }
}

/// Makes a folder that only its owner may enter, with those above it, durably: a file in it that
/// is synced would be lost with it.
pub fn create_private_dir(path: &Path) -> Result<(), DiskError> {
    // The last one always: whoever made it may have lost power before the sync.
    let above = path.ancestors().skip(1).take_while(|at| !at.as_os_str().is_empty());
    let made: Vec<_> = [path].into_iter().chain(above.take_while(|at| !at.exists())).collect();
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(DiskError::new("create", path))?;
    fail::fail_point!("disk.folder_made");
    made.into_iter().rev().try_for_each(|dir| match sync_dir_of(dir) {
        // A folder that may be entered and not read cannot be synced either.
        Err(error) if error.source.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        synced => synced,
    })
}

/// Writes a file that only its owner may read, so that at every moment either the former or the
/// new content is there in full: beside it, then fsync, rename, and fsync of the folder.
pub fn write_private(path: &Path, content: &[u8]) -> Result<(), DiskError> {
    let beside = path.with_extension("new");
    // Left over by a power cut; its mode may be another one.
    match fs::remove_file(&beside) {
        Ok(()) => fail::fail_point!("disk.leftover_removed"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(DiskError::new("replace", &beside)(error)),
    }
    fail::fail_point!("disk.before_create");
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&beside)
        .map_err(DiskError::new("create", &beside))?;
    fail::fail_point!("disk.created");
    file.write_all(content).map_err(DiskError::new("write", &beside))?;
    fail::fail_point!("disk.written");
    file.sync_all().map_err(DiskError::new("fsync", &beside))?;
    fail::fail_point!("disk.synced");
    fs::rename(&beside, path).map_err(DiskError::new("rename to", path))?;
    fail::fail_point!("disk.renamed");
    sync_dir_of(path)?;
    fail::fail_point!("disk.folder_synced");
    Ok(())
}

/// The content of a file, or none where there is no file.
pub fn read_optional(path: &Path) -> Result<Option<Vec<u8>>, DiskError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(DiskError::new("open", path)(error)),
    };
    let mut content = Vec::new();
    let read = file.take(FILE_BYTES_MAX + 1).read_to_end(&mut content);
    read.map_err(DiskError::new("read", path))?;
    if content.len() as u64 > FILE_BYTES_MAX {
        return Err(DiskError::new("read", path)(io::ErrorKind::FileTooLarge.into()));
    }
    Ok(Some(content))
}

/// Moves a file where there is one, durably. Returns whether there was one.
pub fn rename_if_there(from: &Path, to: &Path) -> Result<bool, DiskError> {
    match fs::rename(from, to) {
        Ok(()) => {
            fail::fail_point!("disk.moved");
            sync_dir_of(to)?;
            fail::fail_point!("disk.move_synced");
            Ok(true)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(DiskError::new("move", from)(error)),
    }
}

/// Removes a file where there is one, durably.
pub fn remove_if_there(path: &Path) -> Result<(), DiskError> {
    match fs::remove_file(path) {
        Ok(()) => sync_dir_of(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(DiskError::new("remove", path)(error)),
    }
}

/// Makes the names in a file's folder durable.
fn sync_dir_of(path: &Path) -> Result<(), DiskError> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(DiskError::new("fsync", dir))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_private_file_is_whole_and_its_owners_alone() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("identity.key");
        fs::write(dir.path().join("identity.new"), b"torn").expect("left over");
        write_private(&path, b"first").expect("written");
        write_private(&path, b"second").expect("replaced");
        assert_eq!(read_optional(&path).expect("read"), Some(b"second".to_vec()));
        let mode = fs::metadata(&path).expect("there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_missing_file_is_no_error() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(read_optional(&dir.path().join("absent")).expect("no error"), None);
        let moved = rename_if_there(&dir.path().join("absent"), &dir.path().join("there"));
        assert!(!moved.expect("no error"));
    }
}
