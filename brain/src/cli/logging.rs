//! Logs to standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// Begins to log; `RUST_LOG` beats the settings.
pub(super) fn start(filter: &str, json: bool) -> anyhow::Result<()> {
    let filter = match std::env::var("RUST_LOG") {
        Ok(environment) => EnvFilter::try_new(environment)?,
        Err(_) => EnvFilter::try_new(format!("{filter},ractor=warn"))?,
    };
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    if json {
        builder.json().init()
    } else {
        builder.with_target(false).init()
    }
    Ok(())
}
