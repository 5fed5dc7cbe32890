//! Room on the data folder's file system, from statvfs(3).

use std::path::Path;

use rustix::fs::StatVfs;
use rustix::io::Errno;

use super::Capacity;
use crate::Fault;
use crate::units::Bytes;

/// Nothing where there is no such folder.
pub(super) fn room(folder: &Path) -> Result<Option<Capacity>, Fault> {
    match rustix::fs::statvfs(folder) {
        Ok(figures) => capacity(&figures).map(Some),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn capacity(figures: &StatVfs) -> Result<Capacity, Fault> {
    let bytes = |blocks: u64| {
        let bytes = blocks.checked_mul(figures.f_frsize).map(Bytes::new);
        bytes.ok_or_else(|| Fault::malformed("a count of blocks", &blocks.to_string()))
    };
    Capacity::new(bytes(figures.f_blocks)?, bytes(figures.f_bavail)?)
}
