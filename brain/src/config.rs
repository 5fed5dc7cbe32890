//! The brain's settings: flag over environment over file over default.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use actors::supervise::Strategy;
use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use serde::{Deserialize, Serialize};
use telemetry::{EndpointError, HeaderList, Otlp};

use crate::backup::BackupSettings;
use crate::residency::Residency;
use crate::retention::Retention;

mod live;
mod supervision;

pub use live::{Change, Live, NeedsRestart};
pub use supervision::Supervision;

/// What environment variables begin with: `FLEET_BRAIN_API_LISTEN`.
const ENV_PREFIX: &str = "FLEET_BRAIN_";
/// Variables of that name which stand for arguments of commands instead.
const NO_SETTINGS: [&str; 7] =
    ["data_dir", "config", "url", "token", "token_file", "ca_file", "client_file"];

/// The settings of `brain serve`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where devices connect.
    pub device_listen: SocketAddr,
    /// Where the API and the page are. Without TLS only a loopback address is taken.
    pub api_listen: SocketAddr,
    /// Whether the API speaks TLS.
    pub api_tls: bool,
    /// The names and addresses that devices and people use for this machine.
    pub names: Vec<String>,
    /// How many device connections are taken in a second.
    pub connections_per_second: u32,
    /// How many device connections may shake hands at once.
    pub handshakes_max: u32,
    /// How often devices send a heartbeat, in milliseconds.
    pub heartbeat_ms: u32,
    /// How many bytes of entries a device may send ahead of acknowledgements.
    pub credit_bytes: u32,
    /// Writes are refused while the disk has less than this free, in bytes.
    pub disk_reserve_bytes: u64,
    /// Whether this machine's clock is kept by NTP or better, so that it may judge expiry.
    pub clock_synchronised: bool,
    /// How many trees are compared with their histories in a second, day and night; 0 for none.
    pub consistency_trees_per_second: u32,
    /// How much of each tree's history is kept.
    pub history: Retention,
    /// Backups.
    pub backup: BackupSettings,
    /// What is logged, as in `RUST_LOG`.
    pub log: String,
    /// Whether logs are lines of JSON.
    pub log_json: bool,
    /// A file to log to, in place of standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub log_file: Option<PathBuf>,
    /// How large it may become until another is begun, in bytes.
    pub log_file_bytes: u64,
    /// How many such files are kept.
    pub log_files: u32,
    /// Where traces and metrics are sent: the base of an OTLP/HTTP endpoint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub otlp_endpoint: Option<String>,
    /// What the requests to it carry, as `name=value,name=value`.
    #[serde(skip_serializing)]
    pub otlp_headers: Option<HeaderList>,
    /// The rules of the supervision tree.
    pub supervision: Supervision,
    /// Which twins stay in memory.
    pub residency: Residency,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            device_listen: SocketAddr::from(([0, 0, 0, 0], 7443)),
            api_listen: SocketAddr::from(([127, 0, 0, 1], 7480)),
            api_tls: false,
            names: Vec::new(),
            connections_per_second: 500,
            handshakes_max: 256,
            heartbeat_ms: 15_000,
            credit_bytes: 256 << 10,
            disk_reserve_bytes: 256 << 20,
            clock_synchronised: true,
            consistency_trees_per_second: 5,
            history: Retention::default(),
            backup: BackupSettings::default(),
            log: "info".to_owned(),
            log_json: false,
            log_file: None,
            log_file_bytes: 10 << 20,
            log_files: 5,
            otlp_endpoint: None,
            otlp_headers: None,
            supervision: Supervision::default(),
            residency: Residency::default(),
        }
    }
}

/// Settings that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A line of the file is not understood.
    #[error("{file} is not understood: {source}")]
    File {
        /// The file.
        file: PathBuf,
        /// The line, and what is wrong with it.
        source: Box<toml::de::Error>,
    },
    /// The file cannot be read.
    #[error("{file} cannot be read: {source}")]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A variable of the environment is not understood.
    #[error("settings are not understood: {0}")]
    Environment(#[from] Box<figment::Error>),
    /// The API would be open to the network in plain text.
    #[error("api_listen {0} is not a loopback address: set api_tls = true, or listen on 127.0.0.1")]
    PlainApi(SocketAddr),
    /// A set of parts that build on each other is made one whose members come and go.
    #[error("supervision.{set}.strategy cannot be dynamic: its children are always the same")]
    Dynamic {
        /// The table.
        set: &'static str,
    },
    /// Traces and metrics have nowhere to go.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// What the command line overrides.
#[derive(Debug, Default, Serialize)]
pub struct Overrides {
    /// See [`Config::device_listen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub device_listen: Option<SocketAddr>,
    /// See [`Config::api_listen`].
    #[serde(skip_serializing_if = "Option::is_none")]
    pub api_listen: Option<SocketAddr>,
    /// See [`Config::names`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
}

impl Config {
    /// Reads the settings; `file` is optional unless it is given.
    pub fn read(file: Option<&Path>, overrides: &Overrides) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        if let Some(file) = file {
            let unreadable = |source| ConfigError::Unreadable { file: file.to_owned(), source };
            let text = std::fs::read_to_string(file).map_err(unreadable)?;
            // Read on its own first: this reader names the line.
            toml::from_str::<Self>(&text).map_err(|source| ConfigError::File {
                file: file.to_owned(),
                source: Box::new(source),
            })?;
            figment = figment.merge(Toml::string(&text));
        }
        let environment = Env::prefixed(ENV_PREFIX).ignore(&NO_SETTINGS);
        let figment = figment.merge(environment).merge(Serialized::defaults(overrides));
        let config: Self = figment.extract().map_err(Box::new)?;
        config.check()
    }

    /// Where traces and metrics are sent, if anywhere.
    pub fn otlp(&self) -> Result<Option<Otlp>, EndpointError> {
        Otlp::configured(self.otlp_endpoint.as_deref(), self.otlp_headers.as_ref())
    }

    fn check(mut self) -> Result<Self, ConfigError> {
        self.otlp()?;
        if !self.api_tls && !self.api_listen.ip().is_loopback() {
            return Err(ConfigError::PlainApi(self.api_listen));
        }
        let Supervision { root, devices, ingress, .. } = &self.supervision;
        for (set, policy) in [("root", root), ("devices", devices), ("ingress", ingress)] {
            if policy.strategy == Strategy::Dynamic {
                return Err(ConfigError::Dynamic { set });
            }
        }
        for name in ["localhost", "127.0.0.1", "::1"] {
            if !self.names.iter().any(|known| known == name) {
                self.names.push(name.to_owned());
            }
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(content: &str) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let path = folder.path().join("brain.toml");
        std::fs::write(&path, content).expect("writes");
        (folder, path)
    }

    #[test]
    fn a_flag_beats_the_file() {
        let (_folder, path) = file("api_listen = '127.0.0.1:1000'\nheartbeat_ms = 5");
        let flag = SocketAddr::from(([127, 0, 0, 1], 2000));
        let overrides = Overrides { api_listen: Some(flag), ..Overrides::default() };
        let config = Config::read(Some(&path), &overrides).expect("valid");
        assert_eq!((config.api_listen, config.heartbeat_ms), (flag, 5));
    }

    #[test]
    fn what_is_wrong_is_named_with_its_file_and_line() {
        for content in ["\nheartbeat = 5", "\nheartbeat_ms = 'often'", "\nheartbeat_ms = "] {
            let (_folder, path) = file(content);
            let error = Config::read(Some(&path), &Overrides::default()).expect_err("unusable");
            let text = error.to_string();
            for word in ["heartbeat", "brain.toml", "line 2"] {
                assert!(text.contains(word), "{word} in {text}");
            }
        }
    }

    #[test]
    fn a_rule_of_supervision_changes_alone_and_the_rest_stays() {
        let (_folder, path) = file("[supervision.device.intensity]\nrestarts = 9");
        let config = Config::read(Some(&path), &Overrides::default()).expect("valid");
        let mut expected = Supervision::default();
        expected.device.intensity.restarts = 9;
        assert_eq!(config.supervision, expected);
        let printed = toml::to_string_pretty(&config).expect("prints");
        let (_folder, path) = file(&printed);
        let again = Config::read(Some(&path), &Overrides::default()).expect("valid");
        assert_eq!(again.supervision, expected);
        let (_folder, path) = file("[supervision.root]\nstrategy = 'dynamic'");
        let error = Config::read(Some(&path), &Overrides::default()).expect_err("unusable");
        assert!(error.to_string().contains("supervision.root"), "{error}");
    }

    #[test]
    fn secrets_of_the_endpoint_are_not_printed() {
        let (_folder, path) =
            file("otlp_endpoint = 'http://127.0.0.1:4318'\notlp_headers = 'x-key=s3cret'");
        let config = Config::read(Some(&path), &Overrides::default()).expect("valid");
        let printed = format!("{config:?} {}", toml::to_string(&config).expect("prints"));
        assert!(!printed.contains("s3cret") && printed.contains("4318"), "{printed}");
        assert!(config.otlp().expect("valid").is_some());
    }

    #[test]
    fn a_plain_api_on_the_network_is_refused() {
        let (_folder, path) = file("api_listen = '0.0.0.0:7480'");
        let result = Config::read(Some(&path), &Overrides::default());
        assert!(matches!(result, Err(ConfigError::PlainApi(_))));
    }
}
