//! Who a key belongs to.

use serde::{Deserialize, Serialize};

use super::{BadSignature, Keypair, verify};
use crate::canonical::Writer;
use crate::{BrainId, DeviceId, FleetId, PublicKey, Signature, SiteId};

/// A statement that a key acts as a subject of a fleet, signed by the fleet's root (for brains)
/// or by a certified brain (for devices).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The fleet.
    pub fleet: FleetId,
    /// Whose key it is.
    pub subject: Subject,
    /// The key.
    pub key: PublicKey,
    /// When the statement holds.
    pub validity: Validity,
    /// The key that signed.
    pub issuer: PublicKey,
    /// Over all the above.
    pub signature: Signature,
}

/// Whom a certificate names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Subject {
    /// A brain.
    Brain(BrainId),
    /// A device, at a site if it has one.
    Device(DeviceId, Option<SiteId>),
}

/// A span of time, in milliseconds since the Unix epoch, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Validity {
    /// The first moment.
    pub from_ms: u64,
    /// The last moment.
    pub until_ms: u64,
}

/// A certificate with those above it up to, and without, the root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// The certificate of the key in use.
    pub leaf: Certificate,
    /// The certificate of the brain that issued a device's; none for a brain.
    pub issuer: Option<Certificate>,
}

/// Why a chain proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Of another fleet.
    #[error("certificate is of fleet {found:?}, not of {expected:?}")]
    WrongFleet {
        /// The fleet of the verifier.
        expected: FleetId,
        /// The fleet that the certificate names.
        found: FleetId,
    },
    /// The signer is not who would have to sign.
    #[error("certificate was not issued by {expected}")]
    WrongIssuer {
        /// Who would have to sign.
        expected: &'static str,
    },
    /// The signature does not verify.
    #[error("certificate is not signed by its issuer")]
    BadSignature(#[source] BadSignature),
    /// Before its first or after its last moment.
    #[error("certificate holds from {from_ms} to {until_ms} ms, and it is {now_ms} ms")]
    NotNow {
        /// The first moment.
        from_ms: u64,
        /// The last moment.
        until_ms: u64,
        /// The verifier's clock.
        now_ms: u64,
    },
}

impl Validity {
    /// For ever.
    pub const ALWAYS: Self = Self { from_ms: 0, until_ms: u64::MAX };

    fn check(self, now_ms: u64) -> Result<(), CertificateError> {
        let Self { from_ms, until_ms } = self;
        if (from_ms..=until_ms).contains(&now_ms) {
            return Ok(());
        }
        Err(CertificateError::NotNow { from_ms, until_ms, now_ms })
    }
}

impl Certificate {
    /// Signs a statement about `key`.
    pub fn issue(
        issuer: &Keypair,
        fleet: FleetId,
        subject: Subject,
        key: PublicKey,
        validity: Validity,
    ) -> Self {
        let mut certificate = Self {
            fleet,
            subject,
            key,
            validity,
            issuer: issuer.public(),
            signature: Signature([0; 64]),
        };
        certificate.signature = issuer.sign(&certificate.canonical());
        certificate
    }

    fn canonical(&self) -> Vec<u8> {
        let mut writer = Writer::new("fleet-certificate-v1");
        writer.raw(&self.fleet.0);
        match &self.subject {
            Subject::Brain(brain) => {
                writer.u8(1).raw(&brain.0);
            }
            Subject::Device(device, site) => {
                writer.u8(2).raw(&device.0);
                match site {
                    Some(site) => writer.u8(1).raw(&site.0),
                    None => writer.u8(0),
                };
            }
        }
        writer.raw(&self.key.0).u64(self.validity.from_ms).u64(self.validity.until_ms);
        writer.raw(&self.issuer.0);
        writer.finish()
    }

    fn verify_signature(&self) -> Result<(), CertificateError> {
        verify(self.issuer, &self.canonical(), &self.signature)
            .map_err(CertificateError::BadSignature)
    }
}

impl Chain {
    /// Proves the leaf's subject under `root`.
    ///
    /// Expiry is judged only where `now_ms` is given, that is by a clock known to be
    /// synchronised: a device that lost its time must still find home.
    pub fn verify(
        &self,
        fleet: FleetId,
        root: PublicKey,
        now_ms: Option<u64>,
    ) -> Result<&Subject, CertificateError> {
        for certificate in std::iter::once(&self.leaf).chain(&self.issuer) {
            if certificate.fleet != fleet {
                return Err(CertificateError::WrongFleet {
                    expected: fleet,
                    found: certificate.fleet,
                });
            }
            if let Some(now_ms) = now_ms {
                certificate.validity.check(now_ms)?;
            }
        }
        let brain = match (&self.leaf.subject, &self.issuer) {
            (Subject::Brain(_), None) => &self.leaf,
            (Subject::Device(..), Some(brain)) => {
                let issued = self.leaf.issuer == brain.key;
                if !issued || !matches!(brain.subject, Subject::Brain(_)) {
                    return Err(CertificateError::WrongIssuer { expected: "a certified brain" });
                }
                brain
            }
            (Subject::Brain(_), Some(_)) => {
                return Err(CertificateError::WrongIssuer { expected: "the fleet's root" });
            }
            (Subject::Device(..), None) => {
                return Err(CertificateError::WrongIssuer { expected: "a certified brain" });
            }
        };
        if brain.issuer != root {
            return Err(CertificateError::WrongIssuer { expected: "the fleet's root" });
        }
        brain.verify_signature()?;
        if self.issuer.is_some() {
            self.leaf.verify_signature()?;
        }
        Ok(&self.leaf.subject)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLEET: FleetId = FleetId([1; 16]);

    fn key(n: u8) -> Keypair {
        Keypair::from_seed(&[n; 32])
    }

    fn device_chain(validity: Validity) -> Chain {
        let (root, brain, device) = (key(1), key(2), key(3));
        let brain_subject = Subject::Brain(BrainId([2; 16]));
        let device_subject = Subject::Device(DeviceId([3; 16]), None);
        Chain {
            leaf: Certificate::issue(&brain, FLEET, device_subject, device.public(), validity),
            issuer: Some(Certificate::issue(
                &root,
                FLEET,
                brain_subject,
                brain.public(),
                Validity::ALWAYS,
            )),
        }
    }

    #[test]
    fn a_device_is_proved_through_its_brain() {
        let chain = device_chain(Validity::ALWAYS);
        let subject = chain.verify(FLEET, key(1).public(), Some(5)).expect("valid");
        assert_eq!(*subject, Subject::Device(DeviceId([3; 16]), None));
    }

    #[test]
    fn another_root_or_fleet_proves_nothing() {
        let chain = device_chain(Validity::ALWAYS);
        assert!(matches!(
            chain.verify(FLEET, key(9).public(), None),
            Err(CertificateError::WrongIssuer { expected: "the fleet's root" })
        ));
        assert!(matches!(
            chain.verify(FleetId([9; 16]), key(1).public(), None),
            Err(CertificateError::WrongFleet { .. })
        ));
    }

    #[test]
    fn a_device_cannot_certify_devices() {
        let mut chain = device_chain(Validity::ALWAYS);
        let forged = Certificate::issue(
            &key(3),
            FLEET,
            Subject::Device(DeviceId([4; 16]), None),
            key(4).public(),
            Validity::ALWAYS,
        );
        chain = Chain { leaf: forged, issuer: Some(chain.leaf) };
        assert!(matches!(
            chain.verify(FLEET, key(1).public(), None),
            Err(CertificateError::WrongIssuer { .. })
        ));
    }

    #[test]
    fn a_changed_field_breaks_the_signature() {
        let mut chain = device_chain(Validity::ALWAYS);
        chain.leaf.subject = Subject::Device(DeviceId([5; 16]), None);
        assert!(matches!(
            chain.verify(FLEET, key(1).public(), None),
            Err(CertificateError::BadSignature(_))
        ));
    }

    #[test]
    fn expiry_is_judged_only_by_a_known_clock() {
        let chain = device_chain(Validity { from_ms: 10, until_ms: 20 });
        assert!(chain.verify(FLEET, key(1).public(), None).is_ok());
        assert!(matches!(
            chain.verify(FLEET, key(1).public(), Some(21)),
            Err(CertificateError::NotNow { .. })
        ));
    }
}
