//! Logs to standard error, and where traces and metrics go.

use brain::config::Config;
use telemetry::{Log, LogFormat, LogSettings, Otlp, Service, Telemetry};

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
        })?;
        Ok(Self { log, otlp })
    }

    /// Begins to gather metrics and, where it is configured, to export them and traces.
    pub(super) fn telemetry(&self, instance: String) -> anyhow::Result<Telemetry> {
        let service = Service { name: "fleet-brain", version: env!("CARGO_PKG_VERSION"), instance };
        Ok(Telemetry::start(&service, self.otlp.as_ref(), &self.log)?)
    }
}
