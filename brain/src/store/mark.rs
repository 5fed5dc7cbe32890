//! The high-water mark: how much the store had acknowledged, kept outside of it.
//!
//! A database that comes back with fewer writes than the mark has lost acknowledged data, for
//! instance because damage in the middle of the log was cut away; it must not start in silence.
//! The mark is at most a second old, so only what was acknowledged in the last second before a
//! crash escapes it.

use std::path::{Path, PathBuf};
use std::{fs, io};

use crate::files::{self, Readers};

/// The file of the mark.
#[derive(Debug, Clone)]
pub(super) struct MarkFile {
    path: PathBuf,
}

impl MarkFile {
    pub(super) fn in_folder(folder: &Path) -> Self {
        Self { path: folder.join("acknowledged") }
    }

    /// The mark; none before the first was written. A file that is no mark counts as damage.
    pub(super) fn read(&self) -> io::Result<Option<u64>> {
        match fs::read_to_string(&self.path) {
            Ok(text) => text.trim().parse().map(Some).map_err(|_| {
                io::Error::new(io::ErrorKind::InvalidData, "the high-water mark is not a number")
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Replaces the mark, durably.
    pub(super) fn write(&self, mark: u64) -> io::Result<()> {
        fail::fail_point!("mark.before_write");
        files::replace(&self.path, format!("{mark}\n").as_bytes(), Readers::Everybody)?;
        fail::fail_point!("mark.written");
        Ok(())
    }
}

/// Says how much the database in a folder has to hold.
pub fn write_mark(folder: &Path, mark: u64) -> io::Result<()> {
    MarkFile::in_folder(folder).write(mark)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_reads_back_and_garbage_is_an_error() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let mark = MarkFile::in_folder(folder.path());
        assert_eq!(mark.read().expect("absent"), None);
        mark.write(12).expect("writes");
        mark.write(13).expect("replaces");
        assert_eq!(mark.read().expect("present"), Some(13));
        fs::write(folder.path().join("acknowledged"), "x").expect("writes");
        assert!(mark.read().is_err());
    }
}
