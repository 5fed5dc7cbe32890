//! Overrides: what a person at the device sets in place of what is desired, for a time.
//!
//! An override is a leaf below `override/` with a lease. While the lease lasts it comes before the
//! leaf of the same path below `desired/`, here and in what the brain shows, whether or not the
//! two can reach each other. Leases are judged by the clock of whoever looks.

use protocol::history::{Draft, Provenance, Tree};
use protocol::state::{Path, PathError, StateSource, Value, ValueError};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// The shortest lease, in milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
/// The longest lease, in milliseconds: a year.
pub const LEASE_MS_MAX: u64 = 365 * 24 * 3_600_000;

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The path below `desired/`.
    pub path: String,
    /// What it shall be; null ends the override that is there.
    pub value: Json,
    /// For how long, in milliseconds; not for an end.
    #[serde(default)]
    pub for_ms: Option<u64>,
    /// Why.
    pub reason: String,
}

/// An override.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Override {
    /// The path below `desired/`.
    pub path: String,
    /// What it is set to.
    pub value: Value,
    /// When it was set, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// When it ends, in milliseconds since the Unix epoch.
    pub until_ms: Option<u64>,
    /// Whether it holds now.
    pub holds: bool,
    /// What is desired meanwhile.
    pub desired: Option<Value>,
}

/// Why a request is none.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// The path is none.
    #[error("path {path:?} cannot be overridden")]
    Path {
        /// What was given.
        path: String,
        /// Why.
        #[source]
        source: PathError,
    },
    /// The value is none.
    #[error("value cannot be set")]
    Value(#[from] ValueError),
    /// The lease is too short or too long.
    #[error("an override lasts from a second to a year; say for how long")]
    Lease,
    /// Nobody said why.
    #[error("say why, for those who wonder later")]
    NoReason,
}

impl Request {
    /// The change that carries it out, by `principal`.
    pub fn draft(&self, principal: &str, now_ms: u64) -> Result<Draft, RequestError> {
        if self.reason.trim().is_empty() {
            return Err(RequestError::NoReason);
        }
        let below = ["desired/", "override/"].iter().find_map(|at| self.path.strip_prefix(at));
        let below = below.unwrap_or(&self.path);
        let path = Path::new(&format!("override/{below}"))
            .map_err(|source| RequestError::Path { path: self.path.clone(), source })?;
        let (value, lease_until_ms) = match (&self.value, self.for_ms) {
            (Json::Null, _) => (None, None),
            (value, Some(lease)) if (LEASE_MS_MIN..=LEASE_MS_MAX).contains(&lease) => {
                (Some(Value::from_json(value)?), Some(now_ms.saturating_add(lease)))
            }
            _ => return Err(RequestError::Lease),
        };
        let provenance = Provenance::new(StateSource::Operator, principal, self.reason.trim());
        Ok(Draft { changes: vec![(path, value)], provenance, lease_until_ms })
    }
}

/// The overrides of a tree, by path.
pub fn list(tree: &Tree, now_ms: u64) -> Vec<Override> {
    let found = tree.leaves().keys().filter_map(|path| {
        let below = path.below("override")?;
        let shown = tree.decision(path)?;
        let candidate = shown.by.candidate;
        let desired = Path::new(&format!("desired/{below}")).ok();
        Some(Override {
            path: below.to_owned(),
            value: shown.value?.into_owned(),
            since_ms: candidate.hlc.wall_ms,
            until_ms: candidate.lease_until_ms,
            holds: candidate.lease_until_ms.is_none_or(|until| until > now_ms),
            desired: desired.and_then(|path| Some(tree.value(&path)?.into_owned())),
        })
    });
    found.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(path: &str, value: Json, for_ms: Option<u64>) -> Request {
        Request { path: path.into(), value, for_ms, reason: "the fan rattles".into() }
    }

    #[test]
    fn an_override_has_a_lease_a_reason_and_one_path_however_it_is_given() {
        for path in ["fan/speed", "desired/fan/speed", "override/fan/speed"] {
            let draft = request(path, json!(2), Some(5_000)).draft("local:uid-0", 1_000);
            let draft = draft.expect("a draft");
            assert_eq!(draft.lease_until_ms, Some(6_000));
            assert_eq!(draft.changes[0].0.as_str(), "override/fan/speed");
            assert_eq!(draft.provenance.principal, "local:uid-0");
        }
        let end = request("fan/speed", Json::Null, None).draft("local:uid-0", 1_000);
        assert_eq!(end.expect("a draft").changes[0].1, None);
    }

    #[test]
    fn what_is_no_override_is_refused() {
        let refused = |request: Request| request.draft("p", 0).expect_err("refused");
        for lease in [None, Some(0), Some(LEASE_MS_MAX + 1)] {
            assert!(matches!(refused(request("a", json!(1), lease)), RequestError::Lease));
        }
        let up = refused(request("../desired/a", json!(1), Some(5_000)));
        assert!(matches!(up, RequestError::Path { .. }));
        let object = refused(request("a", json!({ "b": 1 }), Some(5_000)));
        assert!(matches!(object, RequestError::Value(_)));
        let silent = Request { reason: " ".into(), ..request("a", json!(1), Some(5_000)) };
        assert!(matches!(refused(silent), RequestError::NoReason));
    }
}
