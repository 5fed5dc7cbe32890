//! What the agent is told about itself: flags, then environment, then a file, then defaults.
//!
//! The file is TOML. A variable `FLEET_EDGE_SPOOL__KIND` is the key `kind` of its table `spool`;
//! `FLEET_SERVER_URL`, `FLEET_API_KEY` and `DEVICE_ID` stand for `server_url`, `api_key` and
//! `device_id`.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format, Serialized, Toml};
use protocol::{DeviceId, id::ParseIdError};
use serde::{Deserialize, Serialize};
use telemetry::{EndpointError, HeaderList, LogFormat, Otlp};
use url::Url;

use crate::enrolment::{ServerError, parse_server};
use crate::peers::PeerSettings;
use crate::sense::{SenseSettings, SettingError};

/// Read where no other file is named, and no error if it is not there.
pub const DEFAULT_FILE: &str = "/etc/fleet-edge/edge.toml";

/// How many spans may wait to be sent: little memory, and more than a device has in flight.
const SPANS_WAITING_MAX: usize = 256;

/// Variables with names of their own, and the keys they stand for.
const VARIABLES: [(&str, &str); 3] =
    [("FLEET_SERVER_URL", "server_url"), ("FLEET_API_KEY", "api_key"), ("DEVICE_ID", "device_id")];

/// A text that is never printed.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Keeps a text from being printed.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// The agent's configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where everything of this device lies.
    pub data_dir: PathBuf,
    /// The brain's address, `wss://HOST:PORT`; by default the one it enrolled at.
    pub server_url: Option<String>,
    /// The API key, in place of the one it was given at enrolment.
    #[serde(skip_serializing)]
    pub api_key: Option<Secret>,
    /// The id to take at the first start: 32 hexadecimal digits.
    pub device_id: Option<String>,
    /// The certificate authority to trust, in place of the one found at enrolment: a PEM file.
    pub ca_file: Option<PathBuf>,
    /// How to join a fleet at the first start; by default `enroll.toml` in the data folder.
    pub enroll_file: Option<PathBuf>,
    /// Programs that desired state may run.
    pub hooks_dir: Option<PathBuf>,
    /// How often it is looked whether what was applied still holds, in milliseconds.
    pub verify_period_ms: u64,
    /// Whether `edge status` gets an answer.
    pub local_api: bool,
    /// Where traces and metrics are sent: the base of an OTLP/HTTP endpoint.
    pub otlp_endpoint: Option<String>,
    /// What the requests to it carry, as `name=value,name=value`.
    #[serde(skip_serializing)]
    pub otlp_headers: Option<HeaderList>,
    /// Where figures and health are shown, without a secret: an address of this machine that is
    /// loopback or private.
    pub metrics_listen: Option<SocketAddr>,
    /// Which share of the entries that begin here is traced, from 0 to 1.
    pub trace_sample_ratio: f64,
    /// The log.
    pub log: Log,
    /// The spool.
    pub spool: Spool,
    /// The clock.
    pub clock: Clock,
    /// How other devices are met.
    pub peers: PeerSettings,
    /// The sensors.
    pub sense: SenseSettings,
}

/// The configuration of the log.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,edge::uplink=debug`.
    pub level: String,
    /// `text` or `json`.
    pub format: LogFormat,
    /// A file to log to, in place of standard error.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub file: Option<PathBuf>,
    /// How large it may become until another is begun, in bytes.
    pub file_bytes: u64,
    /// How many such files are kept.
    pub files: u32,
}

/// The configuration of the spool.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Spool {
    /// `sqlite`, or `memory` on a device without a disk.
    pub kind: SpoolKind,
    /// The most bytes of entries that may wait for the brain.
    pub queue_bytes_max: u64,
    /// So many bytes of delivered entries are kept for a brain that lost something.
    pub retain_bytes: u64,
    /// For how long changes are gathered into one commit, in milliseconds.
    pub commit_delay_ms: u64,
}

/// Where entries are kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum SpoolKind {
    /// In a file.
    #[default]
    Sqlite,
    /// In memory: nothing is promised over a power cut.
    Memory,
}

/// The configuration of the clock.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Clock {
    /// Take the system's clock for synchronised: where another daemon than systemd-timesyncd
    /// keeps it.
    pub trusted: bool,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "/var/lib/fleet-edge".into(),
            server_url: None,
            api_key: None,
            device_id: None,
            ca_file: None,
            enroll_file: None,
            hooks_dir: None,
            verify_period_ms: 60_000,
            local_api: true,
            otlp_endpoint: None,
            otlp_headers: None,
            metrics_listen: None,
            trace_sample_ratio: 0.01,
            log: Log::default(),
            spool: Spool::default(),
            clock: Clock::default(),
            peers: PeerSettings::default(),
            sense: SenseSettings::default(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: "info".to_owned(),
            format: LogFormat::Text,
            file: None,
            file_bytes: 1 << 20,
            files: 3,
        }
    }
}

impl Default for Spool {
    fn default() -> Self {
        Self {
            kind: SpoolKind::Sqlite,
            queue_bytes_max: 64 << 20,
            retain_bytes: 16 << 20,
            commit_delay_ms: 5,
        }
    }
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The named file is not there.
    #[error("there is no file {}", path.display())]
    NoFile {
        /// The file.
        path: PathBuf,
    },
    /// A key or a value that cannot be.
    #[error("{0}")]
    Invalid(Problems),
    /// The device's id is none.
    #[error("DEVICE_ID or `device_id`: {source}")]
    DeviceId {
        /// What is wrong with it.
        source: ParseIdError,
    },
    /// The brain's address is none.
    #[error("FLEET_SERVER_URL or `server_url`: {source}")]
    Server {
        /// What is wrong with it.
        source: ServerError,
    },
    /// A sensor's setting cannot be.
    #[error("table `sense`: {0}")]
    Sense(#[from] SettingError),
    /// The API key cannot be sent.
    #[error("FLEET_API_KEY or `api_key`: only printable ASCII can be sent")]
    ApiKey,
    /// Traces and metrics have nowhere to go.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
    /// Figures would be open to everybody.
    #[error("`metrics_listen`: {0} is no loopback or private address of this machine")]
    MetricsListen(SocketAddr),
    /// No share.
    #[error("`trace_sample_ratio`: {0} is not between 0 and 1")]
    Ratio(f64),
}

/// Everything that is wrong with a configuration, a line each: where, which key, what is allowed.
#[derive(Debug)]
pub struct Problems(Vec<String>);

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("\n"))
    }
}

impl Config {
    /// Reads the configuration. `flags` are the settings of the command line that were given, by
    /// their keys.
    pub fn load(
        file: Option<&Path>,
        flags: &[(&str, serde_json::Value)],
    ) -> Result<Self, ConfigError> {
        let mut figment = Figment::from(Serialized::defaults(Self::default()));
        match file {
            Some(path) if !path.exists() => {
                return Err(ConfigError::NoFile { path: path.to_path_buf() });
            }
            Some(path) => figment = figment.merge(Toml::file_exact(path)),
            None if Path::new(DEFAULT_FILE).exists() => {
                figment = figment.merge(Toml::file_exact(DEFAULT_FILE));
            }
            None => {}
        }
        figment = figment.merge(Env::prefixed("FLEET_EDGE_").ignore(&["config"]).split("__"));
        for (variable, key) in VARIABLES {
            // Taken as text whatever it looks like: an id of 32 digits is no number. A variable
            // that is set to nothing is not set.
            if let Some(value) = std::env::var(variable).ok().filter(|value| !value.is_empty()) {
                figment = figment.merge(Serialized::default(key, value));
            }
        }
        for (key, value) in flags {
            figment = figment.merge(Serialized::default(key, value));
        }
        let config: Self =
            figment.extract().map_err(|error| ConfigError::Invalid(problems(error)))?;
        config.check()?;
        Ok(config)
    }

    /// The id to take at the first start.
    pub fn device_id(&self) -> Result<Option<DeviceId>, ConfigError> {
        let parsed = self.device_id.as_deref().map(|text| text.trim().parse()).transpose();
        parsed.map_err(|source| ConfigError::DeviceId { source })
    }

    /// The brain's address.
    pub fn server(&self) -> Result<Option<Url>, ConfigError> {
        let parsed = self.server_url.as_deref().map(parse_server).transpose();
        parsed.map_err(|source| ConfigError::Server { source })
    }

    /// How often it is looked whether what was applied still holds.
    pub fn verify_every(&self) -> Duration {
        Duration::from_millis(self.verify_period_ms.max(1_000))
    }

    /// For how long changes are gathered into one commit.
    pub fn commit_delay(&self) -> Duration {
        Duration::from_millis(self.spool.commit_delay_ms)
    }

    /// Where traces and metrics are sent, if anywhere.
    pub fn otlp(&self) -> Result<Option<Otlp>, EndpointError> {
        let otlp = Otlp::configured(self.otlp_endpoint.as_deref(), self.otlp_headers.as_ref())?;
        Ok(otlp.map(|otlp| otlp.with_spans_waiting_max(SPANS_WAITING_MAX)))
    }

    fn check(&self) -> Result<(), ConfigError> {
        self.otlp()?;
        if let Some(address) = self.metrics_listen.filter(|address| !is_private(address.ip())) {
            return Err(ConfigError::MetricsListen(address));
        }
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            return Err(ConfigError::Ratio(self.trace_sample_ratio));
        }
        self.device_id()?;
        self.server()?;
        self.sense.check()?;
        let sendable = |key: &Secret| key.expose().bytes().all(|byte| byte.is_ascii_graphic());
        if self.api_key.as_ref().is_some_and(|key| !sendable(key)) {
            return Err(ConfigError::ApiKey);
        }
        Ok(())
    }
}

fn is_private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => v4.is_loopback() || v4.is_private() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    }
}

fn problems(error: figment::Error) -> Problems {
    let line = |error: figment::Error| {
        let place = error.metadata.as_ref().map(|metadata| match &metadata.source {
            Some(figment::Source::File(path)) => format!("file {}", path.display()),
            _ => metadata.name.to_string(),
        });
        let key = error.path.join(".");
        let file = error.metadata.as_ref().and_then(|metadata| match &metadata.source {
            Some(figment::Source::File(path)) => Some(path.clone()),
            _ => None,
        });
        let line = file.and_then(|file| line_of(&file, error.path.last()?));
        let place = place.unwrap_or_else(|| "configuration".to_owned());
        let line = line.map(|line| format!(", line {line}")).unwrap_or_default();
        let key = if key.is_empty() { key } else { format!(", key `{key}`") };
        format!("{place}{line}{key}: {}", error.kind)
    };
    Problems(error.into_iter().map(line).collect())
}

/// Where a file sets a key: the parser of values does not tell.
fn line_of(file: &Path, key: &str) -> Option<usize> {
    let text = std::fs::read_to_string(file).ok()?;
    let sets = |line: &str| {
        let rest = line.trim_start().strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start().starts_with('='))
    };
    text.lines().position(sets).map(|index| index + 1)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn file(text: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("edge.toml");
        std::fs::write(&path, text).expect("written");
        (dir, path)
    }

    #[test]
    fn a_flag_goes_before_the_file() {
        let (_dir, path) = file("data_dir = \"/file\"\n[spool]\nkind = \"memory\"\n");
        let config = Config::load(Some(&path), &[("data_dir", json!("/flag"))]).expect("valid");
        assert_eq!(config.data_dir, Path::new("/flag"));
        assert_eq!(config.spool.kind, SpoolKind::Memory);
        assert_eq!(config.spool.commit_delay_ms, 5);
    }

    #[test]
    fn a_bad_value_is_named_with_file_line_key_and_what_is_allowed() {
        let (_dir, path) = file("# edge\n[spool]\nkind = \"floppy\"\n");
        let text = Config::load(Some(&path), &[]).expect_err("no such kind").to_string();
        for part in ["edge.toml", "line 3", "spool.kind", "sqlite", "memory"] {
            assert!(text.contains(part), "{part} in {text}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_those_that_are_known() {
        let (_dir, path) = file("[spool]\nkin = \"memory\"\n");
        let text = Config::load(Some(&path), &[]).expect_err("no such key").to_string();
        assert!(text.contains("kin") && text.contains("queue_bytes_max"), "{text}");
    }

    #[test]
    fn a_file_that_does_not_parse_is_named_with_its_line() {
        let (_dir, path) = file("data_dir = \"/a\"\nlog = [\n");
        let text = Config::load(Some(&path), &[]).expect_err("no TOML").to_string();
        assert!(text.contains("edge.toml") && text.contains("line 2"), "{text}");
    }

    #[test]
    fn a_bad_device_id_is_an_error_at_the_start() {
        let (_dir, path) = file("device_id = \"edge-1\"\n");
        let error = Config::load(Some(&path), &[]).expect_err("no id");
        assert!(error.to_string().contains("32 hexadecimal digits"), "{error}");
    }

    #[test]
    fn figures_are_not_shown_to_everybody() {
        for (address, allowed) in [
            ("127.0.0.1:9100", true),
            ("192.168.7.2:9100", true),
            ("[fd00::1]:9100", true),
            ("0.0.0.0:9100", false),
            ("203.0.113.7:9100", false),
        ] {
            let (_dir, path) = file(&format!("metrics_listen = \"{address}\"\n"));
            assert_eq!(Config::load(Some(&path), &[]).is_ok(), allowed, "{address}");
        }
    }

    #[test]
    fn a_secret_never_prints() {
        let (_dir, path) = file("api_key = \"hush\"\notlp_headers = \"x=hush\"\n");
        let config = Config::load(Some(&path), &[]).expect("valid");
        assert_eq!(config.api_key.as_ref().map(Secret::expose), Some("hush"));
        assert!(!format!("{config:?}").contains("hush"));
    }
}
