//! One line of the journal.

use serde::{Deserialize, Serialize};

use crate::supervise::{Crash, Decision, Fault, Verdict};

/// The most bytes of a message that are kept.
const TEXT_BYTES_MAX: usize = 2_048;

/// One crash, with what was decided about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CrashRecord {
    /// When, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The node's place in the tree.
    pub path: String,
    /// Its name among its siblings.
    pub child: String,
    /// Its kind.
    pub kind: String,
    /// The life that ended.
    pub incarnation: u64,
    /// The kind of message that it was handling; `start` and `stopping` stand for these functions.
    pub message: Option<String>,
    /// Tells that message from others of its kind, in hex.
    pub digest: Option<String>,
    /// `error`, `panic`, `gave_up`, `killed`, `cancelled` or `stuck`.
    pub fault: String,
    /// What went wrong.
    pub text: String,
    /// Where it panicked: file, line and column.
    pub location: Option<String>,
    /// The trace that the message belonged to, in hex.
    pub trace_id: Option<String>,
    /// How long it had lived.
    pub uptime_ms: u64,
    /// How often it failed within the window of its budget, this time included.
    pub failures: u32,
    /// `restart`, `quarantine`, `escalate`, `let_go` or `stopping`.
    pub decision: String,
    /// The wait before the restart, or how long it is quarantined.
    pub delay_ms: Option<u64>,
}

/// Which crashes to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CrashQuery {
    /// Of this node and all below it.
    pub path: Option<String>,
    /// At this time or later, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// How many at most.
    pub limit: usize,
}

impl CrashRecord {
    pub(super) fn of(crash: &Crash, verdict: Verdict, at_ms: u64) -> Self {
        let path = crash.path.to_string();
        let (fault, location) = match &crash.fault {
            Fault::Error { .. } => ("error", None),
            Fault::Panic { location, .. } => ("panic", location.clone()),
            Fault::GaveUp { .. } => ("gave_up", None),
            Fault::Killed => ("killed", None),
            Fault::Cancelled => ("cancelled", None),
            Fault::Stuck => ("stuck", None),
        };
        let (decision, delay) = match verdict.decision {
            Decision::Restart { after } => ("restart", Some(after)),
            Decision::Quarantine { lasting } => ("quarantine", Some(lasting)),
            Decision::Escalate => ("escalate", None),
            Decision::LetGo => ("let_go", None),
            Decision::Stopping => ("stopping", None),
        };
        let millis =
            |time: std::time::Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        Self {
            at_ms,
            child: path.rsplit('/').next().unwrap_or_default().to_owned(),
            path,
            kind: crash.kind.to_owned(),
            incarnation: crash.incarnation.0,
            message: crash.label.map(str::to_owned),
            digest: crash.digest.map(|digest| digest.to_string()),
            fault: fault.to_owned(),
            text: shortened(crash.fault.to_string()),
            location,
            trace_id: crash.trace_id.map(|id| id.to_string()),
            uptime_ms: millis(crash.uptime),
            failures: verdict.failures,
            decision: decision.to_owned(),
            delay_ms: delay.map(millis),
        }
    }
}

impl CrashQuery {
    pub(super) fn takes(&self, record: &CrashRecord) -> bool {
        let below = |path: &String| {
            let rest = record.path.strip_prefix(path.as_str());
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        record.at_ms >= self.since_ms && self.path.as_ref().is_none_or(below)
    }
}

fn shortened(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(TEXT_BYTES_MAX));
    text
}
