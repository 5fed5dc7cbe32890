//! The binary codec of frames and records: the only module that names the serialiser.
//!
//! Decoding always has a limit: a declared length can make the decoder refuse, never allocate.
//! Frames carry a codec id, so a successor can take over without a flag day.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::ErrorCode;

/// The codec's number in frame headers.
pub const CODEC_ID: u8 = 1;

/// What one decode may claim, in bytes, whatever lengths its input declares.
pub const DECODE_BYTES_MAX: usize = 4 << 20;

/// Bytes that do not decode to the type asked for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The bytes end before the value does.
    #[error("bytes end before {what} does")]
    Truncated {
        /// The type asked for.
        what: &'static str,
    },
    /// A declared length is beyond [`DECODE_BYTES_MAX`], or beyond any memory.
    #[error("{what} declares more than {DECODE_BYTES_MAX} bytes")]
    TooLarge {
        /// The type asked for.
        what: &'static str,
    },
    /// A text is not UTF-8.
    #[error("{what} has text that is not UTF-8")]
    NotUtf8 {
        /// The type asked for.
        what: &'static str,
    },
    /// The bytes are not an encoding of the type.
    #[error("bytes do not decode as {what}: {detail}")]
    Malformed {
        /// The type asked for.
        what: &'static str,
        /// What the decoder found.
        detail: String,
    },
    /// The value is whole, but bytes follow it.
    #[error("{extra} bytes follow the end of {what}")]
    TrailingBytes {
        /// The type asked for.
        what: &'static str,
        /// How many bytes follow.
        extra: usize,
    },
}

/// Encodes a value.
///
/// # Panics
/// Never for the types of this crate: writing to memory succeeds, and none of them has a
/// serialiser that fails.
pub fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    bincode::serde::encode_to_vec(value, bincode::config::standard())
        .expect("encoding to memory cannot fail for plain data")
}

/// Decodes a value that must fill `bytes` exactly.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, DecodeError> {
    let what = short_type_name::<T>();
    let config = bincode::config::standard().with_limit::<DECODE_BYTES_MAX>();
    let (value, used) =
        bincode::serde::decode_from_slice(bytes, config).map_err(|error| refused(what, &error))?;
    match bytes.len() - used {
        0 => Ok(value),
        extra => Err(DecodeError::TrailingBytes { what, extra }),
    }
}

impl DecodeError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. } => ErrorCode::Truncated,
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::NotUtf8 { .. } => ErrorCode::NotUtf8,
            Self::Malformed { .. } | Self::TrailingBytes { .. } => ErrorCode::Malformed,
        }
    }
}

fn refused(what: &'static str, error: &bincode::error::DecodeError) -> DecodeError {
    use bincode::error::DecodeError as E;
    match error {
        E::UnexpectedEnd { .. } => DecodeError::Truncated { what },
        E::LimitExceeded | E::OutsideUsizeRange(_) => DecodeError::TooLarge { what },
        E::Utf8 { .. } => DecodeError::NotUtf8 { what },
        other => DecodeError::Malformed { what, detail: other.to_string() },
    }
}

fn short_type_name<T>() -> &'static str {
    let full = std::any::type_name::<T>();
    full.rsplit("::").next().unwrap_or(full)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn trailing_bytes_are_refused() {
        let mut bytes = encode(&7u64);
        bytes.push(0);
        let error = decode::<u64>(&bytes).expect_err("one byte too many");
        assert_eq!(error, DecodeError::TrailingBytes { what: "u64", extra: 1 });
    }

    #[test]
    fn a_declared_length_of_2_to_the_63_is_refused_without_allocating() {
        let mut bytes = vec![253];
        bytes.extend_from_slice(&(1u64 << 63).to_le_bytes());
        // A list grows with the items that really come, a text is claimed at once.
        assert_eq!(decode::<Vec<u64>>(&bytes), Err(DecodeError::Truncated { what: "Vec<u64>" }));
        assert_eq!(decode::<String>(&bytes), Err(DecodeError::TooLarge { what: "String" }));
    }

    #[test]
    fn text_that_is_not_utf_8_and_bytes_that_end_early_have_their_own_errors() {
        assert_eq!(
            decode::<String>(&[2, 0xC3, 0x28]),
            Err(DecodeError::NotUtf8 { what: "String" })
        );
        assert_eq!(decode::<String>(&[5, b'a']), Err(DecodeError::Truncated { what: "String" }));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..256)) {
            let _ = decode::<Vec<String>>(&bytes);
            let _ = decode::<std::collections::BTreeMap<String, Vec<u64>>>(&bytes);
        }
    }
}
