//! Typed identifiers.
//!
//! Names that people assign (fleets, devices, brains, sites) are 16 bytes and print as 32
//! hexadecimal digits; names that content assigns (entries, trees) are BLAKE3 hashes of 32
//! bytes. Each has a type of its own, so that one is never taken for another.

use std::fmt;
use std::str::FromStr;

use data_encoding::HEXLOWER_PERMISSIVE;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A text that should have been an identifier but is not.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} hexadecimal digits for a {kind}, got {got} characters or other signs")]
pub struct ParseIdError {
    /// What the text should have named.
    pub kind: &'static str,
    /// How many hexadecimal digits it needs.
    pub expected: usize,
    /// How many characters were given.
    pub got: usize,
}

macro_rules! typed_id {
    ($(#[$doc:meta])* $name:ident, $bytes:literal, $kind:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(pub [u8; $bytes]);

        impl $name {
            /// The raw bytes.
            pub fn as_bytes(&self) -> &[u8; $bytes] {
                &self.0
            }

            /// The first eight hexadecimal digits: enough for a log line, not for a lookup.
            pub fn short(&self) -> String {
                HEXLOWER_PERMISSIVE.encode(&self.0[..4])
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER_PERMISSIVE.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.short())
            }
        }

        impl FromStr for $name {
            type Err = ParseIdError;

            fn from_str(text: &str) -> Result<Self, ParseIdError> {
                let error = || ParseIdError {
                    kind: $kind,
                    expected: $bytes * 2,
                    got: text.chars().count(),
                };
                let bytes = HEXLOWER_PERMISSIVE.decode(text.as_bytes()).map_err(|_| error())?;
                bytes.try_into().map(Self).map_err(|_| error())
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    bytes::serialize(&self.0, serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    bytes::deserialize(deserializer).map(Self)
                }
            }
        }
    };
}

typed_id!(
    /// A fleet: everything that one root key vouches for.
    FleetId, 16, "fleet id"
);
typed_id!(
    /// A device: a name that outlives the keys bound to it.
    DeviceId, 16, "device id"
);
typed_id!(
    /// A brain.
    BrainId, 16, "brain id"
);
typed_id!(
    /// A place whose devices can reach each other without the brain.
    SiteId, 16, "site id"
);
typed_id!(
    /// The BLAKE3 hash of an entry's canonical bytes.
    EntryId, 32, "entry id"
);
typed_id!(
    /// The id of a tree's genesis entry.
    TreeId, 32, "tree id"
);
typed_id!(
    /// A conflict: the hash of where it is and of its sides.
    ConflictId, 32, "conflict id"
);
typed_id!(
    /// An Ed25519 public key, not yet checked to be a point on the curve.
    PublicKey, 32, "public key"
);
typed_id!(
    /// An Ed25519 signature.
    Signature, 64, "signature"
);

/// Fixed-size byte arrays of any length in the binary codec, without a length prefix.
mod bytes {
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::ser::SerializeTuple;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer, const N: usize>(
        bytes: &[u8; N],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let mut tuple = serializer.serialize_tuple(N)?;
        for byte in bytes {
            tuple.serialize_element(byte)?;
        }
        tuple.end()
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>, const N: usize>(
        deserializer: D,
    ) -> Result<[u8; N], D::Error> {
        struct Bytes<const N: usize>;

        impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
            type Value = [u8; N];

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                write!(f, "{N} bytes")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<[u8; N], A::Error> {
                let mut bytes = [0; N];
                for (index, byte) in bytes.iter_mut().enumerate() {
                    *byte =
                        seq.next_element()?.ok_or_else(|| Error::invalid_length(index, &self))?;
                }
                Ok(bytes)
            }
        }

        deserializer.deserialize_tuple(N, Bytes::<N>)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_what_it_prints() {
        let id = DeviceId(*b"0123456789abcdef");
        assert_eq!(id.to_string().parse(), Ok(id));
    }

    #[test]
    fn a_short_text_is_no_id() {
        let error = "abcd".parse::<DeviceId>().expect_err("too short");
        assert_eq!((error.expected, error.got), (32, 4));
    }

    #[test]
    fn ids_are_text_in_json_and_bare_bytes_in_the_codec() {
        let id = DeviceId([7; 16]);
        let json = serde_json::to_string(&id).expect("serialises");
        assert_eq!(json, format!("\"{}\"", "07".repeat(16)));
        assert_eq!(serde_json::from_str::<DeviceId>(&json).expect("parses"), id);
        assert_eq!(crate::codec::encode(&id).len(), 16);
    }
}
