//! Compression of batches, with a hard cap on what may come out.

use std::io::{Read, Write};

use serde::{Deserialize, Serialize};

/// How a body is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Compression {
    /// As it is.
    None,
    /// Gzip, for devices where zstd's tables are too large.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// Zstandard's level: beyond it, batches of this size shrink by a percent for twice the time.
const ZSTD_LEVEL: i32 = 3;
/// The largest window that a decoder accepts, as a power of two: 1 MiB, over any batch here.
const ZSTD_WINDOW_LOG_MAX: u32 = 20;
/// Below this a compressor's own header eats what it saves.
const WORTHWHILE_BYTES_MIN: usize = 128;

impl Compression {
    /// The number in frame flags.
    pub fn number(self) -> u8 {
        match self {
            Self::None => 0,
            Self::Gzip => 1,
            Self::Zstd => 2,
        }
    }

    /// The compression with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        [Self::None, Self::Gzip, Self::Zstd].into_iter().find(|c| c.number() == number)
    }

    /// The bit in a set of supported compressions.
    pub fn bit(self) -> u8 {
        1 << self.number()
    }

    /// The strongest compression in both sets; `None` is in every set.
    pub fn negotiate(ours: u8, theirs: u8) -> Self {
        [Self::Zstd, Self::Gzip]
            .into_iter()
            .find(|c| ours & theirs & c.bit() != 0)
            .unwrap_or(Self::None)
    }
}

/// A compressed body that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DecompressError {
    /// The content is longer than it may be.
    #[error("compressed body of {compressed_bytes} bytes grows beyond {limit_bytes} bytes")]
    Bomb {
        /// The size of the body as it came.
        compressed_bytes: usize,
        /// The cap.
        limit_bytes: usize,
    },
    /// The body is not what its flags say.
    #[error("body is not valid {compression:?}: {detail}")]
    Malformed {
        /// What the flags say.
        compression: Compression,
        /// What the decompressor found.
        detail: String,
    },
}

/// Compresses `plain` if that makes it smaller, and says what was done.
pub fn compress(plain: Vec<u8>, wanted: Compression) -> (Compression, Vec<u8>) {
    if plain.len() < WORTHWHILE_BYTES_MIN {
        return (Compression::None, plain);
    }
    let packed = match wanted {
        Compression::None => return (Compression::None, plain),
        Compression::Gzip => {
            let mut encoder =
                flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
            encoder.write_all(&plain).and_then(|()| encoder.finish())
        }
        Compression::Zstd => zstd::bulk::compress(&plain, ZSTD_LEVEL),
    };
    match packed {
        Ok(packed) if packed.len() < plain.len() => (wanted, packed),
        _ => (Compression::None, plain),
    }
}

/// How many bytes a body of [`compress`] says that it holds.
pub fn declared_bytes(body: &[u8], compression: Compression) -> Option<usize> {
    match compression {
        Compression::None => Some(body.len()),
        // The format ends with the length.
        Compression::Gzip => body.last_chunk().map(|length| u32::from_le_bytes(*length) as usize),
        Compression::Zstd => {
            let declared = zstd::zstd_safe::get_frame_content_size(body).ok().flatten()?;
            usize::try_from(declared).ok()
        }
    }
}

/// Reverses [`compress`]; never holds more than `limit_bytes` of output.
pub fn decompress(
    body: &[u8],
    compression: Compression,
    limit_bytes: usize,
) -> Result<Vec<u8>, DecompressError> {
    let bomb = || DecompressError::Bomb { compressed_bytes: body.len(), limit_bytes };
    let malformed = |error: std::io::Error| DecompressError::Malformed {
        compression,
        detail: error.to_string(),
    };
    let mut reader: Box<dyn Read + '_> = match compression {
        Compression::None => Box::new(body),
        Compression::Gzip => Box::new(flate2::read::GzDecoder::new(body)),
        Compression::Zstd => {
            // A content whose declared size is over the cap needs no decoding to be refused.
            let declared = zstd::zstd_safe::get_frame_content_size(body).ok().flatten();
            if declared.is_some_and(|bytes| bytes > limit_bytes as u64) {
                return Err(bomb());
            }
            let mut decoder = zstd::stream::read::Decoder::with_buffer(body).map_err(malformed)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(malformed)?;
            Box::new(decoder)
        }
    };
    let mut plain = Vec::new();
    // One byte beyond the cap is read, to tell a body that just fits from one that does not.
    let cap = limit_bytes as u64 + 1;
    reader.by_ref().take(cap).read_to_end(&mut plain).map_err(malformed)?;
    if plain.len() > limit_bytes { Err(bomb()) } else { Ok(plain) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn random_bytes_are_sent_raw() {
        let mut noise = vec![0u8; 4096];
        let mut reader = blake3::Hasher::new().finalize_xof();
        reader.fill(&mut noise);
        let (used, body) = compress(noise.clone(), Compression::Zstd);
        assert_eq!((used, body), (Compression::None, noise));
    }

    #[test]
    fn a_bomb_is_refused_at_its_cap() {
        for wanted in [Compression::Gzip, Compression::Zstd] {
            let (used, body) = compress(vec![0; 16 << 20], wanted);
            assert_eq!(used, wanted);
            let error = decompress(&body, used, 64 << 10).expect_err("16 MiB into 64 KiB");
            assert!(matches!(error, DecompressError::Bomb { limit_bytes: 65536, .. }));
        }
    }

    #[test]
    fn a_body_that_just_fits_is_taken() {
        let (used, body) = compress(vec![1; 1000], Compression::Zstd);
        assert_eq!(decompress(&body, used, 1000).expect("fits").len(), 1000);
    }

    proptest! {
        #[test]
        fn every_compression_is_reversed(
            plain in proptest::collection::vec(0u8..4, 0..2048),
            wanted in prop_oneof![
                Just(Compression::None), Just(Compression::Gzip), Just(Compression::Zstd)
            ],
        ) {
            let (used, body) = compress(plain.clone(), wanted);
            prop_assert_eq!(declared_bytes(&body, used), Some(plain.len()));
            prop_assert_eq!(decompress(&body, used, 4096).expect("own output"), plain);
        }

        #[test]
        fn no_bytes_make_a_decompressor_panic(
            body in proptest::collection::vec(any::<u8>(), 0..512),
            number in 0u8..3,
        ) {
            let compression = Compression::from_number(number).expect("one of three");
            let _ = decompress(&body, compression, 1024);
        }
    }
}
