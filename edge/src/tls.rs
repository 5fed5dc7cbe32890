//! Whom the agent believes to be its brain's TLS server.
//!
//! At enrolment the token says which certificate authority to trust, by the hash of its
//! certificate; the server shows that certificate in its chain. Later connections trust that
//! authority and no other. TLS 1.3 only.
//!
//! A device that lost its time must still find home: expiry is judged only by a clock that is
//! known to be synchronised.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use data_encoding::BASE64;
use protocol::clock::ClockQuality;
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use sha2::{Digest, Sha256};

use crate::clock::Clock;

/// A chain of this many certificates may each be out of date once.
const CLOCK_RETRIES_MAX: usize = 8;

/// Why no TLS connection can be prepared.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The authority's certificate is none.
    #[error("the certificate authority is not a PEM certificate")]
    NotACertificate,
    /// The authority's file cannot be read.
    #[error("cannot read {}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The authority's certificate cannot be used.
    #[error("the certificate authority cannot be used")]
    Unusable(#[source] Error),
    /// No verifier can be made for it.
    #[error("the certificate authority cannot be used")]
    Verifier(#[from] rustls::client::VerifierBuilderError),
}

/// Trusts the one authority of a PEM text.
pub fn trusting(ca_pem: &str, clock: Clock) -> Result<Arc<ClientConfig>, TlsError> {
    let certificates: Result<Vec<_>, _> =
        CertificateDer::pem_slice_iter(ca_pem.as_bytes()).collect();
    let certificates = certificates.map_err(|_| TlsError::NotACertificate)?;
    if certificates.is_empty() {
        return Err(TlsError::NotACertificate);
    }
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(certificate).map_err(TlsError::Unusable)?;
    }
    let verifier = verifier(roots)?;
    Ok(config(Arc::new(Patient { verifier, clock })))
}

/// Reads the authority's PEM file.
pub fn read_ca(path: &Path) -> Result<String, TlsError> {
    std::fs::read_to_string(path)
        .map_err(|source| TlsError::Unreadable { path: path.to_path_buf(), source })
}

/// Trusts whichever authority in the server's chain has this hash, and tells its certificate.
pub fn pinning(ca_sha256: [u8; 32], clock: Clock) -> (Arc<ClientConfig>, PinnedCa) {
    let pinned = PinnedCa { certificate: Arc::default() };
    let verifier = Pinning { ca_sha256, clock, found: pinned.clone(), provider: provider() };
    (config(Arc::new(verifier)), pinned)
}

/// The authority that was found in a chain, once a handshake has verified it.
#[derive(Debug, Clone)]
pub struct PinnedCa {
    certificate: Arc<Mutex<Option<CertificateDer<'static>>>>,
}

impl PinnedCa {
    /// Its certificate as PEM.
    pub fn pem(&self) -> Option<String> {
        let found = self.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        found.as_ref().map(to_pem)
    }
}

fn to_pem(certificate: &CertificateDer<'_>) -> String {
    let body = BASE64.encode(certificate);
    let lines = body.as_bytes().chunks(64).map(String::from_utf8_lossy);
    let lines: Vec<_> = lines.collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn verifier(roots: RootCertStore) -> Result<Arc<WebPkiServerVerifier>, TlsError> {
    Ok(WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider()).build()?)
}

fn config(verifier: Arc<dyn ServerCertVerifier>) -> Arc<ClientConfig> {
    let config = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("ring has cipher suites for TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Arc::new(config)
}

/// Verifies as at a moment at which the certificates hold, where this clock cannot judge that.
fn verify_patiently(
    verifier: &WebPkiServerVerifier,
    clock: &Clock,
    end_entity: &CertificateDer<'_>,
    intermediates: &[CertificateDer<'_>],
    name: &ServerName<'_>,
    now: UnixTime,
) -> Result<ServerCertVerified, Error> {
    let verify = |at| verifier.verify_server_cert(end_entity, intermediates, name, &[], at);
    let mut result = verify(now);
    if clock.quality() == ClockQuality::Synchronised {
        return result;
    }
    for _ in 0..CLOCK_RETRIES_MAX {
        let moment = match &result {
            Err(Error::InvalidCertificate(CertificateError::NotValidYetContext {
                not_before,
                ..
            })) => *not_before,
            Err(Error::InvalidCertificate(CertificateError::ExpiredContext {
                not_after, ..
            })) => *not_after,
            _ => return result,
        };
        result = verify(moment);
    }
    result
}

#[derive(Debug)]
struct Patient {
    verifier: Arc<WebPkiServerVerifier>,
    clock: Clock,
}

#[derive(Debug)]
struct Pinning {
    ca_sha256: [u8; 32],
    clock: Clock,
    found: PinnedCa,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Patient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        verify_patiently(&self.verifier, &self.clock, end_entity, intermediates, name, now)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

impl ServerCertVerifier for Pinning {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let pinned = intermediates
            .iter()
            .find(|certificate| Sha256::digest(certificate.as_ref())[..] == self.ca_sha256);
        let Some(ca) = pinned else {
            return Err(Error::InvalidCertificate(CertificateError::UnknownIssuer));
        };
        let mut roots = RootCertStore::empty();
        roots.add(ca.clone().into_owned())?;
        let verifier = verifier(roots).map_err(|_| {
            Error::InvalidCertificate(CertificateError::ApplicationVerificationFailure)
        })?;
        let verified =
            verify_patiently(&verifier, &self.clock, end_entity, intermediates, name, now)?;
        let mut found = self.found.certificate.lock().unwrap_or_else(PoisonError::into_inner);
        *found = Some(ca.clone().into_owned());
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(tls13_only())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let algorithms = &self.provider.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signature, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

fn tls13_only() -> Error {
    Error::PeerIncompatible(rustls::PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig)
}
