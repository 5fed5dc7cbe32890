//! The agent's log: lines for people or JSON, on stderr.

use std::fmt;
use std::io::IsTerminal;
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Registry, fmt as lines, reload};

/// At `trace` the WebSocket library prints requests whole, API key included. The last directive
/// for a module is the one that counts.
const NEVER_MORE: &str = "tungstenite=info";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// A filter that does not parse.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LevelError {
    /// Not a filter.
    #[error("{given:?} is no log level; one of error, warn, info, debug, trace")]
    Unknown {
        /// What was given.
        given: String,
    },
    /// The log is gone.
    #[error("the log cannot be changed any more")]
    Gone,
    /// There is a log already.
    #[error("the log was set up before")]
    Twice,
}

/// Changes what is logged while the agent runs.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: Arc<str>,
}

impl LogLevel {
    /// Logs at `level`, or as configured where there is none.
    pub fn set(&self, level: Option<&str>) -> Result<(), LevelError> {
        let filter = parse(level.unwrap_or(&self.configured))?;
        self.handle.reload(filter).map_err(|_| LevelError::Gone)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("configured", &self.configured).finish_non_exhaustive()
    }
}

/// Sets up the process's log. `level` is a level, or a filter such as `warn,edge::uplink=debug`.
pub fn init(level: &str, format: LogFormat) -> Result<LogLevel, LevelError> {
    let (filter, handle) = reload::Layer::new(parse(level)?);
    let registry = tracing_subscriber::registry().with(filter);
    let ready = match format {
        LogFormat::Text => {
            let colours = std::io::stderr().is_terminal();
            registry.with(lines::layer().with_ansi(colours).with_writer(std::io::stderr)).try_init()
        }
        LogFormat::Json => {
            let layer = lines::layer().json().flatten_event(true).with_writer(std::io::stderr);
            registry.with(layer).try_init()
        }
    };
    ready.map_err(|_| LevelError::Twice)?;
    Ok(LogLevel { handle, configured: level.into() })
}

fn parse(level: &str) -> Result<EnvFilter, LevelError> {
    // A single word would be taken for the name of a module, and silence everything.
    let word = !level.contains(['=', ',']);
    let known = tracing::level_filters::LevelFilter::from_str(level).is_ok();
    let unknown = || LevelError::Unknown { given: level.to_owned() };
    if level.is_empty() || (word && !known) {
        return Err(unknown());
    }
    EnvFilter::try_new(format!("{level},{NEVER_MORE}")).map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_level_is_refused() {
        assert!(parse("debug").is_ok());
        assert!(parse("warn,edge::uplink=debug").is_ok());
        assert!(parse("loud").is_err());
        assert!(parse("").is_err());
        assert!(parse("info,").is_ok());
    }

    #[test]
    fn no_level_makes_the_websocket_library_print_requests() {
        for level in ["trace", "trace,tungstenite=trace"] {
            let filter = parse(level).expect("a filter").to_string();
            assert!(filter.contains("tungstenite=info"), "{filter}");
            assert!(!filter.contains("tungstenite=trace"), "{filter}");
        }
    }
}
