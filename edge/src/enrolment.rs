//! The device's place in a fleet: what the brain gave it, and what it takes to ask for it.

use std::fmt;
use std::path::{Path, PathBuf};

use protocol::keys::{CertificateError, Chain, EnrolmentToken, TokenError};
use protocol::{BrainId, FleetId, PublicKey};
use serde::{Deserialize, Serialize};
use url::Url;

use crate::disk::{self, DiskError};

const FILE: &str = "enrolment.json";
/// Where an unattended first start looks for its request, in the data folder.
pub const REQUEST_FILE: &str = "enroll.toml";

/// A device's place in a fleet.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrolment {
    /// The fleet.
    pub fleet: FleetId,
    /// Its root key.
    pub root: PublicKey,
    /// The certificate of the device's key.
    pub certificate: Chain,
    /// Shown at every connection: a secret.
    pub api_key: String,
    /// The brain's address, as last used with success.
    pub server: Url,
    /// The certificate authority behind the brain's TLS certificate.
    pub ca_pem: String,
    /// What people call the device.
    pub name: String,
}

/// Why there is no enrolment.
#[derive(Debug, thiserror::Error)]
pub enum EnrolmentError {
    /// A file cannot be read or written.
    #[error("enrolment is not accessible")]
    Disk(#[from] DiskError),
    /// The enrolment does not parse.
    #[error("{} is not an enrolment; remove it and enrol again", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// The certificate does not hold under the fleet's root.
    #[error("the stored certificate does not hold; remove {} and enrol again", path.display())]
    BadCertificate {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: CertificateError,
    },
    /// The request for an enrolment does not parse.
    #[error("{} is not a request to enrol: it needs `server`, `token` and may have `name`", path.display())]
    BadRequest {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: Box<figment::Error>,
    },
    /// The token is none.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The server is none.
    #[error(transparent)]
    Server(#[from] ServerError),
}

/// An address that is no brain's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ServerError {
    /// Not an address at all.
    #[error("{given:?} is not an address; write wss://HOST:PORT")]
    Malformed {
        /// What was given.
        given: String,
    },
    /// Not over TLS.
    #[error("{given:?} is not over TLS; write wss://HOST:PORT")]
    NotTls {
        /// What was given.
        given: String,
    },
    /// No host.
    #[error("{given:?} names no host; write wss://HOST:PORT")]
    NoHost {
        /// What was given.
        given: String,
    },
}

/// What it takes to join a fleet.
#[derive(Debug, Clone, PartialEq)]
pub struct Request {
    /// The brain's address.
    pub server: Url,
    /// The right to join.
    pub token: EnrolmentToken,
    /// What people are to call the device.
    pub name: String,
}

impl Enrolment {
    /// The enrolment of a data folder, if it has one. Its certificate is checked, but not its
    /// validity: the clock may be wrong at a start.
    pub fn load(data_dir: &Path) -> Result<Option<Self>, EnrolmentError> {
        let path = data_dir.join(FILE);
        let Some(content) = disk::read_optional(&path)? else { return Ok(None) };
        let enrolment: Self = match serde_json::from_slice(&content) {
            Ok(enrolment) => enrolment,
            Err(source) => return Err(EnrolmentError::Malformed { path, source }),
        };
        match enrolment.certificate.verify(enrolment.fleet, enrolment.root, None) {
            Ok(_) => Ok(Some(enrolment)),
            Err(source) => Err(EnrolmentError::BadCertificate { path, source }),
        }
    }

    /// Keeps the enrolment in a data folder, for its owner's eyes only.
    pub fn store(&self, data_dir: &Path) -> Result<(), EnrolmentError> {
        let path = data_dir.join(FILE);
        match serde_json::to_vec_pretty(self) {
            Ok(content) => {
                fail::fail_point!("enrolment.before_store");
                disk::write_private(&path, &content)?;
                fail::fail_point!("enrolment.stored");
                Ok(())
            }
            Err(source) => Err(EnrolmentError::Malformed { path, source }),
        }
    }

    /// The key of the brain that issued the certificate.
    pub fn issuer(&self) -> Option<(BrainId, PublicKey)> {
        let issuer = self.certificate.issuer.as_ref()?;
        match issuer.subject {
            protocol::keys::Subject::Brain(brain) => Some((brain, issuer.key)),
            protocol::keys::Subject::Device(..) => None,
        }
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fleet, server, name, .. } = self;
        write!(f, "Enrolment({fleet:?}, {name:?}, {server})")
    }
}

impl Request {
    /// The request that `token` makes at `server`.
    pub fn new(server: &str, token: &str, name: &str) -> Result<Self, EnrolmentError> {
        let name = name.to_owned();
        Ok(Self { server: parse_server(server)?, token: token.parse()?, name })
    }

    /// Reads a file with `server`, `token` and perhaps `name`; none where there is no file.
    pub fn load(path: &Path, default_name: &str) -> Result<Option<Self>, EnrolmentError> {
        use figment::providers::{Format, Toml};

        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            server: String,
            token: String,
            name: Option<String>,
        }

        if !path.exists() {
            return Ok(None);
        }
        let file: File =
            figment::Figment::from(Toml::file_exact(path)).extract().map_err(|source| {
                EnrolmentError::BadRequest { path: path.to_path_buf(), source: Box::new(source) }
            })?;
        let name = file.name.as_deref().unwrap_or(default_name);
        Self::new(&file.server, &file.token, name).map(Some)
    }
}

/// Reads the address of a brain: `wss://HOST:PORT`, or the same with `https`.
pub fn parse_server(given: &str) -> Result<Url, ServerError> {
    let given = given.trim();
    let malformed = || ServerError::Malformed { given: given.to_owned() };
    let mut url = Url::parse(given).map_err(|_| malformed())?;
    match url.scheme() {
        "wss" => {}
        "https" => url.set_scheme("wss").map_err(|()| malformed())?,
        _ => return Err(ServerError::NotTls { given: given.to_owned() }),
    }
    if url.host_str().is_none_or(str::is_empty) {
        return Err(ServerError::NoHost { given: given.to_owned() });
    }
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_over_tls_are_servers() {
        assert_eq!(
            parse_server("https://brain:8443").map(String::from),
            Ok("wss://brain:8443/".into())
        );
        assert!(matches!(parse_server("ws://brain"), Err(ServerError::NotTls { .. })));
        assert!(matches!(parse_server("brain"), Err(ServerError::Malformed { .. })));
    }

    #[test]
    fn a_bad_request_names_its_file_and_key() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join(REQUEST_FILE);
        assert!(Request::load(&path, "a").expect("no file").is_none());
        std::fs::write(&path, "server = \"wss://b\"\ntokn = \"x\"\n").expect("written");
        let error = Request::load(&path, "a").expect_err("misspelt");
        assert!(error.to_string().contains(REQUEST_FILE));
        let EnrolmentError::BadRequest { source, .. } = error else { panic!("{error}") };
        assert!(source.to_string().contains("tokn"), "{source}");
    }
}
