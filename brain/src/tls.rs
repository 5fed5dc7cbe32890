//! TLS 1.3 for devices and the API.
//!
//! `brain init` makes a certificate authority of the fleet's own; devices learn its hash with
//! their enrolment token. The server certificate under it is renewed before it ends, and new
//! connections get the new one while old ones go on. An operator's certificate may take its
//! place: the files are looked at again every minute.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::crypto::ring::default_provider;
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::version::TLS13;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};

use crate::files::{self, Readers};

/// How long a server certificate holds: what browsers and clients accept of a private authority.
const LEAF_DAYS: i64 = 397;
/// It is renewed when less than this is left.
const RENEW_DAYS_LEFT: u64 = 30;
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// The TLS files of a data folder.
#[derive(Debug, Clone)]
pub struct TlsFiles {
    folder: PathBuf,
}

/// Why TLS cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path} cannot be used")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{path} holds no valid certificate or key: {detail}")]
    Pem {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        detail: String,
    },
    /// A certificate cannot be made.
    #[error("a certificate cannot be made")]
    Generate(#[from] rcgen::Error),
    /// The TLS library refuses the settings.
    #[error("the TLS settings are refused")]
    Settings(#[from] rustls::Error),
}

impl TlsFiles {
    /// Those of a data folder.
    pub fn in_folder(data: &Path) -> Self {
        Self { folder: data.join("keys") }
    }

    /// The certificate of the authority, as PEM.
    pub fn authority_path(&self) -> PathBuf {
        self.folder.join("tls-ca.pem")
    }

    fn chain_path(&self) -> PathBuf {
        self.folder.join("tls.pem")
    }

    fn key_path(&self) -> PathBuf {
        self.folder.join("tls.key")
    }

    /// Makes the authority, where there is none.
    pub fn create_authority(&self) -> Result<(), TlsError> {
        let (cert_path, key_path) = (self.authority_path(), self.folder.join("tls-ca.key"));
        if cert_path.exists() {
            return Ok(());
        }
        let key = KeyPair::generate()?;
        let certificate = authority_params()?.self_signed(&key)?;
        write(&key_path, key.serialize_pem().as_bytes(), Readers::Owner)?;
        fail::fail_point!("tls.authority_key_made");
        write(&cert_path, certificate.pem().as_bytes(), Readers::Everybody)?;
        fail::fail_point!("tls.authority_made");
        Ok(())
    }

    /// SHA-256 of the authority's certificate, as enrolment tokens carry it.
    pub fn authority_sha256(&self) -> Result<[u8; 32], TlsError> {
        let path = self.authority_path();
        let der = CertificateDer::from_pem_file(&path).map_err(|error| pem(&path, &error))?;
        Ok(Sha256::digest(&der).into())
    }

    /// Makes a server certificate for `names`, where there is none or it is about to end.
    ///
    /// Says whether it made one. A certificate that an operator put there, whose authority's key
    /// is not here, is left alone.
    pub fn renew(&self, names: &[String]) -> Result<bool, TlsError> {
        let path = self.chain_path();
        let wanted = names.join("\n");
        let names_path = self.folder.join("tls.names");
        let same_names = fs::read_to_string(&names_path).is_ok_and(|known| known == wanted);
        let age = fs::metadata(&path).and_then(|meta| meta.modified()).map(|at| at.elapsed());
        let fresh_for = DAY * (LEAF_DAYS as u32 - RENEW_DAYS_LEFT as u32);
        let fresh = matches!(age, Ok(Ok(age)) if age < fresh_for);
        let authority_key = self.folder.join("tls-ca.key");
        if (path.exists() && fresh && same_names) || !authority_key.exists() {
            return Ok(false);
        }
        let authority_key = read(&authority_key)?;
        let issuer = Issuer::new(authority_params()?, KeyPair::from_pem(&authority_key)?);
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name.push(DnType::CommonName, "fleet brain");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let now = time::OffsetDateTime::now_utc();
        // A device whose clock is a day behind still gets in.
        params.not_before = now - time::Duration::days(2);
        params.not_after = now + time::Duration::days(LEAF_DAYS);
        let certificate = params.signed_by(&key, &issuer)?;
        let chain = certificate.pem() + &read(&self.authority_path())?;
        write(&self.key_path(), key.serialize_pem().as_bytes(), Readers::Owner)?;
        fail::fail_point!("tls.server_key_made");
        write(&path, chain.as_bytes(), Readers::Everybody)?;
        fail::fail_point!("tls.server_chain_made");
        write(&names_path, wanted.as_bytes(), Readers::Everybody)?;
        fail::fail_point!("tls.server_names_made");
        Ok(true)
    }

    fn load(&self) -> Result<CertifiedKey, TlsError> {
        let (chain_path, key_path) = (self.chain_path(), self.key_path());
        let chain = CertificateDer::pem_file_iter(&chain_path)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|error| pem(&chain_path, &error))?;
        let key =
            PrivateKeyDer::from_pem_file(&key_path).map_err(|error| pem(&key_path, &error))?;
        Ok(CertifiedKey::from_der(chain, key, &default_provider())?)
    }

    /// A hash of what the files hold: times are too coarse to tell two writes apart.
    fn fingerprint(&self) -> [u8; 32] {
        let mut hasher = Sha256::new();
        for path in [self.chain_path(), self.key_path()] {
            // A file that cannot be read is told of when it is loaded.
            hasher.update(Sha256::digest(fs::read(path).unwrap_or_default()));
        }
        hasher.finalize().into()
    }
}

/// The server certificate in use.
#[derive(Debug)]
pub struct Certificates {
    files: TlsFiles,
    current: ArcSwap<([u8; 32], Arc<CertifiedKey>)>,
}

impl Certificates {
    /// Loads the files.
    pub fn load(files: TlsFiles) -> Result<Arc<Self>, TlsError> {
        let current = ArcSwap::from_pointee((files.fingerprint(), Arc::new(files.load()?)));
        Ok(Arc::new(Self { files, current }))
    }

    /// Renews the certificate where that is due, and loads the files again where they changed.
    ///
    /// Says whether new connections now get another certificate. Files that do not load leave the
    /// one in use in place.
    pub fn refresh(&self, names: &[String]) -> Result<bool, TlsError> {
        self.files.renew(names)?;
        let fingerprint = self.files.fingerprint();
        if self.current.load().0 == fingerprint {
            return Ok(false);
        }
        self.current.store(Arc::new((fingerprint, Arc::new(self.files.load()?))));
        Ok(true)
    }

    /// The settings of a TLS 1.3 server that shows this certificate: no early data, no
    /// resumption, so that every connection has keying material of its own.
    pub fn server_config(self: &Arc<Self>) -> Result<Arc<rustls::ServerConfig>, TlsError> {
        let mut config = rustls::ServerConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&TLS13])?
            .with_no_client_auth()
            .with_cert_resolver(self.clone());
        config.max_early_data_size = 0;
        config.send_tls13_tickets = 0;
        Ok(Arc::new(config))
    }
}

impl ResolvesServerCert for Certificates {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.load().1.clone())
    }
}

fn authority_params() -> Result<CertificateParams, TlsError> {
    let mut params = CertificateParams::new(Vec::<String>::new())?;
    params.distinguished_name.push(DnType::CommonName, "fleet brain authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

fn read(path: &Path) -> Result<String, TlsError> {
    fs::read_to_string(path).map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8], readers: Readers) -> Result<(), TlsError> {
    files::replace(path, content, readers)
        .map_err(|source| TlsError::File { path: path.to_owned(), source })
}

fn pem(path: &Path, error: &dyn std::fmt::Display) -> TlsError {
    TlsError::Pem { path: path.to_owned(), detail: error.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, TlsFiles) {
        let folder = tempfile::tempdir().expect("temporary folder");
        fs::create_dir(folder.path().join("keys")).expect("makes");
        let files = TlsFiles::in_folder(folder.path());
        files.create_authority().expect("makes an authority");
        (folder, files)
    }

    #[test]
    fn a_certificate_is_made_once_and_again_for_other_names() {
        let (_folder, files) = files();
        let names = vec!["localhost".to_owned()];
        assert!(files.renew(&names).expect("makes"));
        assert!(!files.renew(&names).expect("keeps"));
        assert!(files.renew(&["example.org".to_owned()]).expect("makes another"));
    }

    #[test]
    fn a_replaced_certificate_is_taken_up_and_a_broken_one_is_not() {
        let (_folder, files) = files();
        let names = vec!["localhost".to_owned()];
        files.renew(&names).expect("makes");
        let certificates = Certificates::load(files.clone()).expect("loads");
        let shown = || certificates.current.load().1.cert.clone();
        let first = shown();
        assert!(!certificates.refresh(&names).expect("nothing changed"));
        let others = vec!["example.org".to_owned()];
        assert!(certificates.refresh(&others).expect("changed"));
        let second = shown();
        assert_ne!(first, second);
        write(&files.chain_path(), b"nonsense", Readers::Everybody).expect("writes");
        assert!(certificates.refresh(&others).is_err());
        assert_eq!(shown(), second, "the one in use stays");
    }
}
