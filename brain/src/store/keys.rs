//! Keys of the database: big-endian numbers, so that the order of bytes is the order of numbers.

use actors::ports::TreeNumber;
use protocol::ConflictId;
use protocol::state::{Path, Version};

/// `tree | rest`.
pub(super) fn tree(number: TreeNumber) -> [u8; 8] {
    number.to_be_bytes()
}

/// `tree | version`: segments by their first version, snapshots by theirs.
pub(super) fn versioned(number: TreeNumber, version: Version) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..].copy_from_slice(&version.to_be_bytes());
    key
}

/// The version of a [`versioned`] key of the tree `number`.
pub(super) fn version_of(number: TreeNumber, key: &[u8]) -> Option<Version> {
    let version = key.strip_prefix(&number.to_be_bytes())?;
    Some(Version::from_be_bytes(version.try_into().ok()?))
}

/// `tree | log | last number`: finds the segment that holds an entry of a log.
pub(super) fn log_end(number: TreeNumber, log: u32, last_seq: u64) -> [u8; 20] {
    let mut key = [0; 20];
    key[..8].copy_from_slice(&number.to_be_bytes());
    key[8..12].copy_from_slice(&log.to_be_bytes());
    key[12..].copy_from_slice(&last_seq.to_be_bytes());
    key
}

/// `tree | path`.
pub(super) fn leaf(number: TreeNumber, path: &Path) -> Vec<u8> {
    let mut key = Vec::with_capacity(8 + path.as_str().len());
    key.extend_from_slice(&number.to_be_bytes());
    key.extend_from_slice(path.as_str().as_bytes());
    key
}

/// `tree | version | beginning of the id`: the conflicts of a tree in the order of their coming.
pub(super) fn conflict(number: TreeNumber, version: Version, id: ConflictId) -> [u8; 24] {
    let mut key = [0; 24];
    key[..16].copy_from_slice(&versioned(number, version));
    key[16..].copy_from_slice(&id.0[..8]);
    key
}

/// The path of a [`leaf`] key of the tree `number`.
pub(super) fn path_of(number: TreeNumber, key: &[u8]) -> Option<Path> {
    let text = key.strip_prefix(&number.to_be_bytes())?;
    Path::new(std::str::from_utf8(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_sort_by_number_not_by_text() {
        assert!(versioned(1, 9) < versioned(1, 10));
        assert!(versioned(1, 99) < versioned(1, 100));
        assert!(versioned(1, u64::MAX) < versioned(2, 0));
        assert!(log_end(1, 1, 255) < log_end(1, 1, 256));
    }

    #[test]
    fn keys_read_back() {
        let path = Path::new("reported/a").expect("valid");
        assert_eq!(path_of(7, &leaf(7, &path)), Some(path));
        assert_eq!(version_of(7, &versioned(7, 300)), Some(300));
        assert_eq!(version_of(8, &versioned(7, 300)), None);
    }
}
