//! Logs to standard error or to files, and where traces and metrics go.

use brain::config::Config;
use telemetry::{Log, LogFile, LogFormat, LogLevel, LogSettings, Otlp, Service, Telemetry};

/// A log that runs, and what follows when it is known which brain this is.
pub(super) struct Logging {
    log: Log,
    otlp: Option<Otlp>,
}

impl Logging {
    /// Begins to log; `RUST_LOG` beats the settings.
    pub(super) fn start(config: &Config) -> anyhow::Result<Self> {
        let otlp = config.otlp()?;
        let log = Log::start(&LogSettings {
            filter: std::env::var("RUST_LOG").unwrap_or_else(|_| config.log.clone()),
            format: if config.log_json { LogFormat::Json } else { LogFormat::Text },
            targets: config.log_json,
            flat: false,
            traces: otlp.is_some(),
            file: config.log_file.clone().map(|path| LogFile {
                path,
                bytes_max: config.log_file_bytes,
                files: config.log_files,
            }),
        })?;
        Ok(Self { log, otlp })
    }

    /// Changes what is logged.
    pub(super) fn level(&self) -> LogLevel {
        self.log.level().clone()
    }

    /// Begins to gather metrics and, where it is configured, to export them and traces.
    pub(super) fn telemetry(&self, instance: String) -> anyhow::Result<Telemetry> {
        let service = Service { name: "fleet-brain", version: env!("CARGO_PKG_VERSION"), instance };
        Ok(Telemetry::start(&service, self.otlp.as_ref(), &self.log)?)
    }
}
