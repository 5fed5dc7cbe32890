//! Records of the database: a format version, the body, and a checksum over key and body.
//!
//! RocksDB checks its blocks; this check goes from the writer's memory to the reader's, and
//! notices a whole record that lies under the wrong key.

use actors::ports::{ReadError, RecordDamage};
use data_encoding::HEXLOWER;
use protocol::codec;
use serde::Serialize;
use serde::de::DeserializeOwned;

const FORMAT: u8 = 1;
const CHECKSUM_BYTES: usize = 8;

/// Encodes a record for `key`.
pub(super) fn seal<T: Serialize>(key: &[u8], value: &T) -> Vec<u8> {
    let mut record = vec![FORMAT];
    record.extend_from_slice(&codec::encode(value));
    let checksum = checksum(key, &record);
    record.extend_from_slice(&checksum);
    record
}

/// Decodes the record of `key` in `family`.
pub(super) fn open<T: DeserializeOwned>(
    family: &'static str,
    key: &[u8],
    record: &[u8],
) -> Result<T, ReadError> {
    let decoded = check(family, key, record).and_then(|body| {
        let unknown = |error: String| corrupt(family, key, RecordDamage::Form, &error);
        codec::decode(body).map_err(|error| unknown(error.to_string()))
    });
    // Those who asked are told the kind; which record it is, is for the log.
    decoded.inspect_err(|error| tracing::error!(%error, "a damaged record was read"))
}

/// The body of the record of `key` in `family`, which matches its checksum.
pub(super) fn check<'a>(
    family: &'static str,
    key: &[u8],
    record: &'a [u8],
) -> Result<&'a [u8], ReadError> {
    let unknown = |what: &str| corrupt(family, key, RecordDamage::Form, what);
    let (content, found) = record
        .split_last_chunk::<CHECKSUM_BYTES>()
        .ok_or_else(|| unknown("record is too short"))?;
    if *found != checksum(key, content) {
        return Err(corrupt(family, key, RecordDamage::Checksum, "checksum does not match"));
    }
    match content.split_first() {
        Some((&FORMAT, body)) => Ok(body),
        Some((format, _)) => Err(unknown(&format!("record format {format} is unknown"))),
        None => Err(unknown("record is empty")),
    }
}

fn corrupt(family: &'static str, key: &[u8], damage: RecordDamage, what: &str) -> ReadError {
    ReadError::Corrupt { family, damage, detail: format!("key {}: {what}", HEXLOWER.encode(key)) }
}

fn checksum(key: &[u8], content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&(key.len() as u64).to_be_bytes()).update(key).update(content);
    let mut checksum = [0; CHECKSUM_BYTES];
    hasher.finalize_xof().fill(&mut checksum);
    checksum
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_noticed() {
        let record = seal(b"key", &"value".to_owned());
        for at in 0..record.len() * 8 {
            let mut damaged = record.clone();
            damaged[at / 8] ^= 1 << (at % 8);
            assert!(open::<String>("test", b"key", &damaged).is_err(), "bit {at}");
        }
        assert_eq!(open::<String>("test", b"key", &record), Ok("value".to_owned()));
    }

    #[test]
    fn a_record_under_another_key_is_noticed() {
        let record = seal(b"key", &1u64);
        assert!(matches!(open::<u64>("test", b"yek", &record), Err(ReadError::Corrupt { .. })));
    }
}
