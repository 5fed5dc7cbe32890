//! Free disk space, looked at before writes.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use actors::ports::CommitError;

/// How old a look at the disk may be while there is plenty of room.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// Refuses writes before the disk is really full: a database that cannot write out its memory
/// fails for good, one that was not written to goes on when there is room again.
#[derive(Debug)]
pub(super) struct DiskSpace {
    folder: PathBuf,
    reserve_bytes: u64,
    last: Option<(Instant, u64)>,
}

impl DiskSpace {
    pub(super) fn new(folder: &Path, reserve_bytes: u64) -> Self {
        Self { folder: folder.to_owned(), reserve_bytes, last: None }
    }

    /// Whether the reserve is untouched.
    pub(super) fn check(&mut self) -> Result<(), CommitError> {
        let available_bytes = match self.last {
            Some((at, available)) if at.elapsed() < LOOK_EVERY => available,
            // A disk that cannot be asked is left to the write itself.
            _ => rustix::fs::statvfs(&self.folder)
                .map_or(u64::MAX, |disk| disk.f_bavail * disk.f_frsize),
        };
        if available_bytes < self.reserve_bytes {
            self.last = None;
            return Err(CommitError::DiskFull {
                available_bytes,
                reserve_bytes: self.reserve_bytes,
            });
        }
        if self.last.is_none_or(|(at, _)| at.elapsed() >= LOOK_EVERY) {
            self.last = Some((Instant::now(), available_bytes));
        }
        Ok(())
    }
}
