//! The bytes of rows, and the checksum that each row carries.
//!
//! SQLite finds a torn page, not a flipped bit inside one; flash gives both.

use protocol::codec;
use protocol::history::Entry;
use protocol::wire::Batch;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::SpoolError;

/// The stored form of an entry.
pub(super) fn encode_entry(entry: &Entry) -> Result<Vec<u8>, SpoolError> {
    Ok(codec::encode(&Batch::pack(std::slice::from_ref(entry))?))
}

/// Reads the stored form of an entry.
pub(super) fn decode_entry(bytes: &[u8]) -> Result<Entry, SpoolError> {
    let batch: Batch = decode("entry", bytes)?;
    let mut entries = batch.unpack()?;
    match entries.pop() {
        Some((_, entry)) if entries.is_empty() => Ok(entry),
        _ => Err(SpoolError::damaged("a row of more than one entry")),
    }
}

/// The stored form of anything else.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    codec::encode(value)
}

/// Reads the stored form of `what`.
pub(super) fn decode<T: DeserializeOwned>(what: &str, bytes: &[u8]) -> Result<T, SpoolError> {
    codec::decode(bytes).map_err(|error| SpoolError::damaged(format!("{what}: {error}")))
}

/// Eight bytes of BLAKE3 over a row: its table, its key and its content.
pub(super) fn checksum(table: &str, key: &[u8], bytes: &[u8]) -> i64 {
    let mut hasher = blake3::Hasher::new();
    for part in [table.as_bytes(), key] {
        hasher.update(&(part.len() as u64).to_le_bytes()).update(part);
    }
    hasher.update(bytes);
    let mut sum = [0; 8];
    hasher.finalize_xof().fill(&mut sum);
    i64::from_le_bytes(sum)
}

/// Refuses a row whose checksum is another.
pub(super) fn verify(table: &str, key: &[u8], bytes: &[u8], sum: i64) -> Result<(), SpoolError> {
    if checksum(table, key, bytes) == sum {
        return Ok(());
    }
    Err(SpoolError::damaged(format!("a row of {table} does not match its checksum")))
}

/// The key of an entry's row, for its checksum.
pub(super) fn entry_key(log: u32, seq: u64) -> [u8; 12] {
    let mut key = [0; 12];
    key[..4].copy_from_slice(&log.to_le_bytes());
    key[4..].copy_from_slice(&seq.to_le_bytes());
    key
}
