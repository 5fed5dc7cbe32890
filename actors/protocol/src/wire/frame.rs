//! Frames: `version, codec, kind, flags`, then the body.
//!
//! The two low bits of the flags tell the body's compression; the others are zero. A frame's
//! length is that of the transport's message.

use super::{Message, MessageKind};
use crate::ErrorCode;
use crate::codec::{self, CODEC_ID, DecodeError};
use crate::compress::{Compression, DecompressError, compress, declared_bytes, decompress};

/// The oldest protocol version spoken here.
pub const VERSION_MIN: u8 = 1;
/// The newest protocol version spoken here.
///
/// - 1: handshake, heads, entries, acknowledgements with credit, seals, cuts, heartbeat, traces,
///   shared trees, checkpoints.
pub const VERSION_MAX: u8 = 1;

/// The header's length.
pub const HEADER_BYTES: usize = 4;
/// The longest frame on the wire, header included.
pub const FRAME_BYTES_MAX: usize = 64 << 10;
/// The longest body after decompression.
pub const PLAIN_BYTES_MAX: usize = 256 << 10;

const COMPRESSION_MASK: u8 = 0b11;

/// A frame that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// Not even a header.
    #[error("frame of {bytes} bytes is shorter than its header")]
    Truncated {
        /// Its length.
        bytes: usize,
    },
    /// Over [`FRAME_BYTES_MAX`].
    #[error("frame of {bytes} bytes is over the limit of {FRAME_BYTES_MAX}")]
    TooLarge {
        /// Its length.
        bytes: usize,
    },
    /// A protocol version that this side does not speak.
    #[error(
        "frame is of protocol version {found}; this side speaks {VERSION_MIN} to {VERSION_MAX}"
    )]
    Version {
        /// The version.
        found: u8,
    },
    /// A codec that this side does not speak.
    #[error("frame has unknown codec {found}")]
    Codec {
        /// The codec's number.
        found: u8,
    },
    /// A kind that this side does not know.
    #[error("frame has unknown kind {found}")]
    Kind {
        /// The kind's number.
        found: u8,
    },
    /// Flags that mean nothing in this version.
    #[error("frame has unknown flags {found:#010b}")]
    Flags {
        /// The flags.
        found: u8,
    },
    /// The compressed body is not one, or grows too large.
    #[error("frame body does not decompress")]
    Decompress(#[from] DecompressError),
    /// The body is not what its kind says.
    #[error("frame body does not decode")]
    Decode(#[from] DecodeError),
}

impl FrameError {
    /// The code on the wire.
    pub fn code(&self) -> ErrorCode {
        match self {
            Self::Truncated { .. } => ErrorCode::Truncated,
            Self::Kind { .. } | Self::Flags { .. } => ErrorCode::Malformed,
            Self::Decode(error) => error.code(),
            Self::TooLarge { .. } => ErrorCode::TooLarge,
            Self::Version { .. } => ErrorCode::VersionUnsupported,
            Self::Codec { .. } => ErrorCode::CodecUnknown,
            Self::Decompress(DecompressError::Bomb { .. }) => ErrorCode::DecompressionBomb,
            Self::Decompress(DecompressError::Malformed { .. }) => ErrorCode::Malformed,
        }
    }
}

/// Encodes a message; only entries and checkpoints are worth compressing.
pub fn encode(message: &Message, version: u8, wanted: Compression) -> Vec<u8> {
    let kind = message.kind();
    let is_bulk = matches!(kind, MessageKind::Entries | MessageKind::Checkpoint);
    let wanted = if is_bulk { wanted } else { Compression::None };
    let (used, body) = compress(message.encode_body(), wanted);
    let mut frame = Vec::with_capacity(HEADER_BYTES + body.len());
    frame.extend_from_slice(&[version, CODEC_ID, kind as u8, used.number()]);
    frame.extend_from_slice(&body);
    frame
}

/// How many bytes a frame of [`encode`] would have without compression.
pub fn plain_bytes(frame: &[u8]) -> usize {
    let Some(([_, _, _, flags], body)) = frame.split_first_chunk::<HEADER_BYTES>() else {
        return frame.len();
    };
    let compression = Compression::from_number(flags & COMPRESSION_MASK);
    let plain = compression.and_then(|compression| declared_bytes(body, compression));
    plain.map_or(frame.len(), |plain| HEADER_BYTES + plain)
}

/// Decodes a frame.
pub fn decode(frame: &[u8]) -> Result<Message, FrameError> {
    let bytes = frame.len();
    if bytes > FRAME_BYTES_MAX {
        return Err(FrameError::TooLarge { bytes });
    }
    let Some(([version, codec, kind, flags], body)) = frame.split_first_chunk::<HEADER_BYTES>()
    else {
        return Err(FrameError::Truncated { bytes });
    };
    if !(VERSION_MIN..=VERSION_MAX).contains(version) {
        return Err(FrameError::Version { found: *version });
    }
    if *codec != CODEC_ID {
        return Err(FrameError::Codec { found: *codec });
    }
    let kind = MessageKind::from_number(*kind).ok_or(FrameError::Kind { found: *kind })?;
    let compression = Compression::from_number(flags & COMPRESSION_MASK)
        .filter(|_| flags & !COMPRESSION_MASK == 0)
        .ok_or(FrameError::Flags { found: *flags })?;
    let message = match compression {
        Compression::None => Message::decode_body(kind, body)?,
        packed => Message::decode_body(kind, &decompress(body, packed, PLAIN_BYTES_MAX)?)?,
    };
    Ok(message)
}

impl Message {
    fn encode_body(&self) -> Vec<u8> {
        match self {
            Self::Hello(body) => codec::encode(body),
            Self::HelloReply(body) => codec::encode(body),
            Self::Auth(body) => codec::encode(body),
            Self::Welcome(body) => codec::encode(body),
            Self::Enrolled(body) => codec::encode(body),
            Self::Heads(body) => codec::encode(body),
            Self::Entries(body) => codec::encode(body),
            Self::SignedHead(body) => codec::encode(body),
            Self::Cut(body) => codec::encode(body),
            Self::Ack(body) => codec::encode(body),
            Self::Refuse(body) => codec::encode(body),
            Self::Ping(body) => codec::encode(body),
            Self::Pong(body) => codec::encode(body),
            Self::Close(body) => codec::encode(body),
            Self::Traces(body) => codec::encode(body),
            Self::Share(body) => codec::encode(body),
            Self::Leave(body) => codec::encode(body),
            Self::Checkpoint(body) => codec::encode(body),
        }
    }

    fn decode_body(kind: MessageKind, body: &[u8]) -> Result<Self, DecodeError> {
        Ok(match kind {
            MessageKind::Hello => Self::Hello(codec::decode(body)?),
            MessageKind::HelloReply => Self::HelloReply(codec::decode(body)?),
            MessageKind::Auth => Self::Auth(codec::decode(body)?),
            MessageKind::Welcome => Self::Welcome(codec::decode(body)?),
            MessageKind::Enrolled => Self::Enrolled(codec::decode(body)?),
            MessageKind::Heads => Self::Heads(codec::decode(body)?),
            MessageKind::Entries => Self::Entries(codec::decode(body)?),
            MessageKind::SignedHead => Self::SignedHead(codec::decode(body)?),
            MessageKind::Cut => Self::Cut(codec::decode(body)?),
            MessageKind::Ack => Self::Ack(codec::decode(body)?),
            MessageKind::Refuse => Self::Refuse(codec::decode(body)?),
            MessageKind::Ping => Self::Ping(codec::decode(body)?),
            MessageKind::Pong => Self::Pong(codec::decode(body)?),
            MessageKind::Close => Self::Close(codec::decode(body)?),
            MessageKind::Traces => Self::Traces(codec::decode(body)?),
            MessageKind::Share => Self::Share(codec::decode(body)?),
            MessageKind::Leave => Self::Leave(codec::decode(body)?),
            MessageKind::Checkpoint => Self::Checkpoint(codec::decode(body)?),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::Ping;
    use super::*;

    fn ping() -> Vec<u8> {
        encode(&Message::Ping(Ping { sent_ms: 7 }), VERSION_MAX, Compression::None)
    }

    #[test]
    fn each_bad_header_byte_has_its_own_error() {
        let broken = |at: usize, value: u8| {
            let mut frame = ping();
            frame[at] = value;
            decode(&frame).expect_err("broken header").code()
        };
        assert_eq!(broken(0, 9), ErrorCode::VersionUnsupported);
        assert_eq!(broken(1, 9), ErrorCode::CodecUnknown);
        assert_eq!(broken(2, 99), ErrorCode::Malformed);
        assert_eq!(broken(3, 0x80), ErrorCode::Malformed);
        assert_eq!(decode(&[1]).expect_err("short").code(), ErrorCode::Truncated);
        assert_eq!(decode(&vec![1; 70_000]).expect_err("long").code(), ErrorCode::TooLarge);
    }

    #[test]
    fn a_version_mismatch_names_both_sides() {
        let mut frame = ping();
        frame[0] = 9;
        let text = decode(&frame).expect_err("version 9").to_string();
        assert!(text.contains("version 9") && text.contains("1 to 1"), "{text}");
    }

    #[test]
    fn a_zip_bomb_is_refused_by_name() {
        let (used, body) = compress(vec![0; 8 << 20], Compression::Zstd);
        let mut frame = vec![VERSION_MAX, CODEC_ID, MessageKind::Entries as u8, used.number()];
        frame.extend_from_slice(&body);
        assert_eq!(decode(&frame).expect_err("bomb").code(), ErrorCode::DecompressionBomb);
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_frame_decoder_panic(body in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..20, flags in 0u8..4) {
            let mut frame = vec![1, CODEC_ID, kind, flags];
            frame.extend_from_slice(&body);
            let _ = decode(&frame);
        }
    }
}
