//! The door of the fuzz targets to the records of the database.

use actors::ports::{ReadError, TreeNumber};
use protocol::state::{Path, Version};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{keys, record};

/// Encodes a record for `key`.
pub fn seal<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    record::seal(key, value)
}

/// Decodes the record of `key`.
pub fn open<T: DeserializeOwned>(key: &[u8], record: &[u8]) -> Result<T, ReadError> {
    record::open("fuzzing", key, record)
}

/// The version that a key of a segment or a snapshot names.
pub fn version_of(number: TreeNumber, key: &[u8]) -> Option<Version> {
    keys::version_of(number, key)
}

/// The path that a key of a leaf names.
pub fn path_of(number: TreeNumber, key: &[u8]) -> Option<Path> {
    keys::path_of(number, key)
}
