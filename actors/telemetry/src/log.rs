//! The log: lines for people or JSON, on standard error or in files.

mod file;

use std::fmt;
use std::io::IsTerminal;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::fmt::writer::BoxMakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt as lines, reload};

use crate::traces::{LateTracer, TRACE_TARGET, Traces};

pub use file::LogFile;

use file::Files;

/// What the libraries say of their own accord is of no use to who runs this. A filter may ask for
/// it: of two directives for one module the last counts.
const QUIET: &str = "ractor=warn";
/// At `trace` the HTTP and WebSocket libraries print requests whole, keys and tokens included.
/// What is exported as spans is no part of the log.
const NEVER_MORE: &str = "tungstenite=info,ureq=info,ureq_proto=info,fleet::trace=off";

/// How log lines look.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "clap", derive(clap::ValueEnum))]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What is logged, and how.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// A level, or a filter such as `warn,edge::uplink=debug`.
    pub filter: String,
    /// How lines look.
    pub format: LogFormat,
    /// Whether lines name the module that they come from.
    pub targets: bool,
    /// Whether the fields of a JSON line stand beside its level, and not below `fields`.
    pub flat: bool,
    /// Whether spans will be exported. If not, they cost nothing.
    pub traces: bool,
    /// The files that it goes to; standard error where there are none.
    pub file: Option<LogFile>,
}

/// A filter that does not parse, or a log that cannot be written.
#[derive(Debug, thiserror::Error)]
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
    /// Its file cannot be written.
    #[error("the log cannot be written to {path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
}

/// Changes what is logged while the process runs.
#[derive(Clone)]
pub struct LogLevel {
    handle: reload::Handle<EnvFilter, Registry>,
    configured: Arc<Mutex<String>>,
}

impl LogLevel {
    /// Logs at `level`, or as configured where there is none.
    pub fn set(&self, level: Option<&str>) -> Result<(), LevelError> {
        let filter = match level {
            Some(level) => parse(level)?,
            None => parse(&self.configured())?,
        };
        self.handle.reload(filter).map_err(|_| LevelError::Gone)
    }

    /// Logs at `level`, and takes that for what is configured from now on.
    pub fn configure(&self, level: &str) -> Result<(), LevelError> {
        self.set(Some(level))?;
        *self.configured() = level.to_owned();
        Ok(())
    }

    fn configured(&self) -> MutexGuard<'_, String> {
        // A text is replaced whole.
        self.configured.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for LogLevel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LogLevel").field("configured", &self.configured).finish_non_exhaustive()
    }
}

/// The process's log.
#[derive(Debug)]
pub struct Log {
    level: LogLevel,
    tracer: LateTracer,
}

impl Log {
    /// Sets up the process's log, once.
    pub fn start(settings: &LogSettings) -> Result<Self, LevelError> {
        let (filter, handle) = reload::Layer::new(parse(&settings.filter)?);
        let (writer, colours) = match &settings.file {
            None => (BoxMakeWriter::new(std::io::stderr), std::io::stderr().is_terminal()),
            Some(file) => {
                let failed = |source| LevelError::File { path: file.path.clone(), source };
                let files = Files::open(file.clone()).map_err(failed)?;
                (BoxMakeWriter::new(Mutex::new(files)), false)
            }
        };
        let lines = match settings.format {
            LogFormat::Text => lines::layer()
                .with_target(settings.targets)
                .with_ansi(colours)
                .with_writer(writer)
                .boxed(),
            LogFormat::Json => {
                lines::layer().json().flatten_event(settings.flat).with_writer(writer).boxed()
            }
        };
        let mut layers: Vec<Box<dyn Layer<Registry> + Send + Sync>> =
            vec![lines.with_filter(filter).boxed()];
        let tracer = LateTracer::new();
        if settings.traces {
            layers.push(spans(tracer.clone()));
        }
        tracing_subscriber::registry().with(layers).try_init().map_err(|_| LevelError::Twice)?;
        let level = LogLevel { handle, configured: Arc::new(Mutex::new(settings.filter.clone())) };
        Ok(Self { level, tracer })
    }

    /// A log that nobody sees, for a process that has set up its own.
    pub fn unheard() -> Self {
        let (_, handle) = reload::Layer::new(EnvFilter::default());
        let level = LogLevel { handle, configured: Arc::new(Mutex::new("off".into())) };
        Self { level, tracer: LateTracer::new() }
    }

    /// Changes what is logged.
    pub fn level(&self) -> &LogLevel {
        &self.level
    }

    pub(crate) fn export_to(&self, traces: &Traces) {
        self.tracer.set(traces.tracer());
    }
}

/// Takes the spans to export, and nothing else of what the process says.
fn spans(tracer: LateTracer) -> Box<dyn Layer<Registry> + Send + Sync> {
    tracing_opentelemetry::layer()
        .with_tracer(tracer)
        .with_location(false)
        .with_threads(false)
        .with_target(false)
        .with_tracked_inactivity(false)
        .with_filter(Targets::new().with_target(TRACE_TARGET, LevelFilter::TRACE))
        .boxed()
}

fn parse(level: &str) -> Result<EnvFilter, LevelError> {
    // A single word would be taken for the name of a module, and silence everything.
    let word = !level.contains(['=', ',']);
    let known = LevelFilter::from_str(level).is_ok();
    let unknown = || LevelError::Unknown { given: level.to_owned() };
    if level.is_empty() || (word && !known) {
        return Err(unknown());
    }
    EnvFilter::try_new(format!("{QUIET},{level},{NEVER_MORE}")).map_err(|_| unknown())
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
    fn no_level_makes_the_libraries_print_requests() {
        for level in ["trace", "trace,tungstenite=trace,ureq=trace"] {
            let filter = parse(level).expect("a filter").to_string();
            for module in ["tungstenite", "ureq"] {
                assert!(filter.contains(&format!("{module}=info")), "{filter}");
                assert!(!filter.contains(&format!("{module}=trace")), "{filter}");
            }
        }
    }

    #[test]
    fn a_filter_may_ask_for_what_is_quiet_otherwise() {
        assert!(parse("info").expect("a filter").to_string().contains("ractor=warn"));
        assert!(parse("info,ractor=debug").expect("a filter").to_string().contains("ractor=debug"));
    }
}
