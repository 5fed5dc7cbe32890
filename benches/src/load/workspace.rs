//! The folder that a run writes to.

use std::cell::Cell;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use tempfile::TempDir;

/// A folder on the disk to measure, gone when the run ends.
pub(super) struct Workspace {
    folder: TempDir,
    used: Cell<usize>,
}

impl Workspace {
    /// Makes one inside `folder`, or inside the system's folder for temporary files.
    pub(super) fn make(folder: Option<&Path>) -> anyhow::Result<Self> {
        let builder = || tempfile::Builder::new().prefix("load-").to_owned();
        let made = match folder {
            Some(folder) => fs::create_dir_all(folder).and_then(|()| builder().tempdir_in(folder)),
            None => builder().tempdir(),
        };
        let folder = made.context("no folder for the data can be made: give another --data-dir")?;
        // A database that refuses to run as root has to get through to its own folder.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        Ok(Self { folder, used: Cell::new(0) })
    }

    pub(super) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The name of a new folder in it.
    pub(super) fn next(&self, what: &str) -> PathBuf {
        self.used.set(self.used.get() + 1);
        self.folder.path().join(format!("{}-{what}", self.used.get()))
    }
}
