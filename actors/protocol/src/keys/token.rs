//! Enrolment tokens: what a new device is told about its fleet.

use std::fmt;
use std::str::FromStr;

use data_encoding::BASE64URL_NOPAD;

use crate::{FleetId, PublicKey};

/// What a token's text begins with, so that people and secret scanners know it.
const PREFIX: &str = "fbe_";
const BYTES: usize = 16 + 32 + 32 + 8 + 32;

/// A token that lets a device join a fleet.
///
/// It carries the root's key, so that the device knows whom to believe at its first contact, and
/// the hash of the certificate authority behind the brain's TLS certificate. Its secret is shown
/// once; brains keep a hash. It prints without the secret; [`to_text`](Self::to_text) gives the
/// whole.
#[derive(Clone, PartialEq, Eq)]
pub struct EnrolmentToken {
    /// The fleet to join.
    pub fleet: FleetId,
    /// The fleet's root key.
    pub root: PublicKey,
    /// SHA-256 of the DER of the TLS certificate authority.
    pub tls_ca_sha256: [u8; 32],
    /// The token's number at the brain.
    pub number: u64,
    /// The secret half.
    pub secret: [u8; 32],
}

/// A text that is no enrolment token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enrolment token: it starts with {PREFIX} and is copied whole")]
pub struct TokenError;

impl EnrolmentToken {
    /// The whole token, secret included.
    pub fn to_text(&self) -> String {
        let mut bytes = Vec::with_capacity(BYTES);
        bytes.extend_from_slice(&self.fleet.0);
        bytes.extend_from_slice(&self.root.0);
        bytes.extend_from_slice(&self.tls_ca_sha256);
        bytes.extend_from_slice(&self.number.to_be_bytes());
        bytes.extend_from_slice(&self.secret);
        format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&bytes))
    }
}

impl FromStr for EnrolmentToken {
    type Err = TokenError;

    fn from_str(text: &str) -> Result<Self, TokenError> {
        let body = text.trim().strip_prefix(PREFIX).ok_or(TokenError)?;
        let bytes = BASE64URL_NOPAD.decode(body.as_bytes()).map_err(|_| TokenError)?;
        let (fleet, rest) = bytes.split_first_chunk().ok_or(TokenError)?;
        let (root, rest) = rest.split_first_chunk().ok_or(TokenError)?;
        let (tls_ca_sha256, rest) = rest.split_first_chunk().ok_or(TokenError)?;
        let (number, rest) = rest.split_first_chunk().ok_or(TokenError)?;
        let secret = rest.try_into().map_err(|_| TokenError)?;
        Ok(Self {
            fleet: FleetId(*fleet),
            root: PublicKey(*root),
            tls_ca_sha256: *tls_ca_sha256,
            number: u64::from_be_bytes(*number),
            secret,
        })
    }
}

impl fmt::Debug for EnrolmentToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "EnrolmentToken({:?}, number {})", self.fleet, self.number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token() -> EnrolmentToken {
        EnrolmentToken {
            fleet: FleetId([1; 16]),
            root: PublicKey([2; 32]),
            tls_ca_sha256: [3; 32],
            number: 4,
            secret: [0xAB; 32],
        }
    }

    #[test]
    fn a_token_reads_back_what_it_prints() {
        let text = token().to_text();
        assert_eq!(text.parse(), Ok(token()));
        assert_eq!(format!(" {text}\n").parse(), Ok(token()));
    }

    #[test]
    fn a_token_cut_short_is_refused() {
        let text = token().to_text();
        assert_eq!(text[..text.len() - 2].parse::<EnrolmentToken>(), Err(TokenError));
        assert_eq!("fbe_".parse::<EnrolmentToken>(), Err(TokenError));
    }

    #[test]
    fn the_secret_does_not_print() {
        assert!(!format!("{:?}", token()).to_lowercase().contains("abab"));
    }
}
