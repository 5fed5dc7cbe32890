//! SIGHUP: the settings are read again.

use std::path::PathBuf;

use brain::config::{Config, Live, Overrides};
use telemetry::LogLevel;
use tokio::signal::unix::Signal;

/// Where settings come from.
pub(super) struct Reload {
    pub(super) file: Option<PathBuf>,
    pub(super) overrides: Overrides,
    pub(super) live: Live,
    pub(super) log: LogLevel,
}

impl Reload {
    /// Reads the settings again whenever the signal comes. To be called in a runtime.
    pub(super) fn listen(self, mut hangup: Signal) {
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                match self.reload() {
                    Ok(0) => tracing::info!("settings read again; nothing changed"),
                    Ok(settings) => tracing::info!(settings, "settings read again and in force"),
                    Err(error) => tracing::error!("settings stay as they are: {error:#}"),
                }
            }
        });
    }

    /// Takes all that is new, or nothing; says how many settings changed.
    fn reload(&self) -> anyhow::Result<usize> {
        let new = Config::read(self.file.as_deref(), &self.overrides)?;
        let changes = self.live.changes(&new)?;
        // The last step that can fail.
        if std::env::var_os("RUST_LOG").is_none() {
            self.log.configure(&new.log)?;
        } else if new.log != self.live.get().log {
            tracing::warn!("RUST_LOG is set, so the log stays as it is");
        }
        self.live.set(new);
        for change in &changes {
            let (before, after) = (change.before.to_string(), change.after.to_string());
            tracing::info!(setting = change.setting, before, after, "setting changed");
        }
        Ok(changes.len())
    }
}
