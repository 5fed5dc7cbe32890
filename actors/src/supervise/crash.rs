//! What is known about a life that ended badly.

use std::{fmt, sync::Arc, time::Duration};

use data_encoding::HEXLOWER;
use serde::{Serialize, Serializer};

use super::{
    core::{Decision, Incarnation},
    millis,
    tree::TreePath,
};

/// One crash: who, while doing what, and why.
#[derive(Clone, Debug, Serialize)]
pub struct Crash {
    /// The node's place in the tree.
    pub path: TreePath,
    /// Its kind.
    pub kind: &'static str,
    /// The life that ended.
    pub incarnation: Incarnation,
    /// The message it was handling, if any; `start` and `stopping` stand for
    /// the functions of these names.
    pub label: Option<&'static str>,
    /// Tells that message from others of its kind, see [`Node::digest`](super::Node::digest).
    pub digest: Option<Digest>,
    /// The trace that it belonged to.
    pub trace_id: Option<TraceId>,
    /// What went wrong.
    pub fault: Fault,
    /// How long it had lived.
    #[serde(rename = "uptime_ms", with = "millis")]
    pub uptime: Duration,
}

/// The beginning of a hash of a message, written in hex.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Digest(pub [u8; 8]);

/// The id of a trace, written in hex.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct TraceId(pub [u8; 16]);

/// What went wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "snake_case", tag = "fault")]
pub enum Fault {
    /// It returned an error.
    #[error("{message}")]
    Error {
        /// The error and its sources.
        message: String,
    },
    /// It panicked.
    #[error("panicked: {message}")]
    Panic {
        /// What the panic said.
        message: String,
        /// File, line and column.
        location: Option<String>,
    },
    /// A supervisor gave up.
    #[error("gave up: {message}")]
    GaveUp {
        /// Which budget was spent on what.
        message: String,
    },
    /// It was killed.
    #[error("killed")]
    Killed,
    /// The executor dropped its task.
    #[error("cancelled")]
    Cancelled,
    /// It was killed because it made no progress, or would not stop.
    #[error("stuck")]
    Stuck,
}

impl Fault {
    /// The error with everything that caused it.
    pub fn of(error: &(dyn std::error::Error + 'static)) -> Self {
        let mut message = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            message.push_str(": ");
            message.push_str(&cause.to_string());
            source = cause.source();
        }
        Self::Error { message }
    }
}

impl fmt::Display for Crash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, fault, .. } = self;
        match self.label {
            Some(label) => write!(f, "{path} at {label}: {fault}"),
            None => write!(f, "{path}: {fault}"),
        }
    }
}

impl std::error::Error for Crash {}

/// What a supervisor made of a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    /// What it does.
    #[serde(flatten)]
    pub decision: Decision,
    /// How often the child failed within the window of its budget, this time included; 0 where
    /// its budget does not come into it.
    pub failures: u32,
}

/// Is told of every crash together with what was decided about it.
///
/// It is called by supervisors and must not block.
pub trait CrashSink: Send + Sync + 'static {
    /// Takes note of a crash.
    fn crashed(&self, crash: &Crash, verdict: Verdict);
}

/// Keeps nothing: the log and the tree's last crashes are enough.
impl CrashSink for () {
    fn crashed(&self, _crash: &Crash, _verdict: Verdict) {}
}

/// Tells each of them.
impl CrashSink for Vec<Arc<dyn CrashSink>> {
    fn crashed(&self, crash: &Crash, verdict: Verdict) {
        self.iter().for_each(|sink| sink.crashed(crash, verdict));
    }
}

/// Written and shown in hex.
macro_rules! hex {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&HEXLOWER.encode(&self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                to.collect_str(self)
            }
        }
    };
}

hex!(Digest);
hex!(TraceId);
