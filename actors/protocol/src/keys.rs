//! Keys, signatures and certificates.
//!
//! A fleet has one *root key*. It certifies brain keys; brains certify device keys at enrolment.
//! A signature always covers canonical bytes that begin with a context of their own, so that
//! what was signed as one kind of object never passes for another.

mod certificate;
mod token;

use std::fmt;
use std::sync::Arc;

use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

pub use certificate::{Certificate, CertificateError, Chain, Subject, Validity};
pub use token::{EnrolmentToken, TokenError};

use crate::{PublicKey, Signature};

/// A private key. It prints as its public half only. Clones share it.
#[derive(Clone)]
pub struct Keypair(Arc<SigningKey>);

/// A signature that does not fit its key and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("signature does not verify under key {key:?}")]
pub struct BadSignature {
    /// The key that should have signed.
    pub key: PublicKey,
}

impl Keypair {
    /// The key made from 32 random bytes.
    pub fn from_seed(seed: &[u8; 32]) -> Self {
        Self(Arc::new(SigningKey::from_bytes(seed)))
    }

    /// The 32 bytes that [`from_seed`](Self::from_seed) makes the same key of: a secret.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    /// The public half.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    /// Signs canonical bytes, which begin with their context.
    pub fn sign(&self, canonical: &[u8]) -> Signature {
        Signature(self.0.sign(canonical).to_bytes())
    }
}

impl fmt::Debug for Keypair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keypair({:?})", self.public())
    }
}

/// Checks a signature strictly: small-order keys and malleable signatures are refused.
pub fn verify(key: PublicKey, canonical: &[u8], signature: &Signature) -> Result<(), BadSignature> {
    #[cfg(feature = "planted-faults")]
    if crate::planted::is(crate::planted::Fault::SignaturesUnchecked) {
        return Ok(());
    }
    let bad = BadSignature { key };
    let verifier = VerifyingKey::from_bytes(&key.0).map_err(|_| bad)?;
    let signature = ed25519_dalek::Signature::from_bytes(&signature.0);
    verifier.verify_strict(canonical, &signature).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_private_key_never_prints() {
        let keypair = Keypair::from_seed(&[9; 32]);
        let printed = format!("{keypair:?}");
        assert!(!printed.contains("09090909"));
        assert!(printed.contains(&keypair.public().short()));
    }

    #[test]
    fn a_signature_holds_for_its_bytes_only() {
        let keypair = Keypair::from_seed(&[1; 32]);
        let signature = keypair.sign(b"bytes");
        assert_eq!(verify(keypair.public(), b"bytes", &signature), Ok(()));
        assert!(verify(keypair.public(), b"other", &signature).is_err());
    }

    #[test]
    fn a_small_order_key_is_refused() {
        // The neutral element verifies everything under the lax equation.
        let mut neutral = [0; 32];
        neutral[0] = 1;
        let mut signature = [0; 64];
        signature[0] = 1;
        assert!(verify(PublicKey(neutral), b"anything", &Signature(signature)).is_err());
    }
}
