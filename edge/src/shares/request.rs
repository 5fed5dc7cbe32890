//! What a person at the device writes into a shared tree.

use std::collections::BTreeMap;

use protocol::history::{Draft, Provenance};
use protocol::state::{Path, PathError, StateSource, Value, ValueError};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// The group.
    pub group: String,
    /// The leaves by their paths below `shared/`; null removes one.
    pub leaves: BTreeMap<String, Json>,
    /// Why.
    pub reason: String,
}

/// Why a request is none.
#[derive(Debug, thiserror::Error)]
pub enum RequestError {
    /// A path is none.
    #[error("{path:?} is no path below shared/")]
    Path {
        /// What was given.
        path: String,
        /// Why.
        #[source]
        source: PathError,
    },
    /// A value is none.
    #[error("the value of {path:?} cannot be set")]
    Value {
        /// Where.
        path: String,
        /// Why.
        #[source]
        source: ValueError,
    },
    /// Nobody said why.
    #[error("say why, for those who wonder later")]
    NoReason,
    /// Nothing is to be written.
    #[error("say what is to be written")]
    Empty,
}

impl Request {
    /// The change that carries it out, by `principal`.
    pub fn draft(&self, principal: &str) -> Result<Draft, RequestError> {
        if self.reason.trim().is_empty() {
            return Err(RequestError::NoReason);
        }
        if self.leaves.is_empty() {
            return Err(RequestError::Empty);
        }
        let mut changes = Vec::with_capacity(self.leaves.len());
        for (given, json) in &self.leaves {
            let below = given.strip_prefix("shared/").unwrap_or(given);
            let path = Path::new(&format!("shared/{below}"))
                .map_err(|source| RequestError::Path { path: given.clone(), source })?;
            let value = match json {
                Json::Null => None,
                json => Some(
                    Value::from_json(json)
                        .map_err(|source| RequestError::Value { path: given.clone(), source })?,
                ),
            };
            changes.push((path, value));
        }
        let provenance = Provenance::new(StateSource::Operator, principal, self.reason.trim());
        Ok(Draft { changes, provenance, lease_until_ms: None })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(leaves: serde_json::Value) -> Request {
        let leaves = serde_json::from_value(leaves).expect("an object");
        Request { group: "north".into(), leaves, reason: "the gate is stuck".into() }
    }

    #[test]
    fn leaves_are_set_and_removed_below_shared() {
        let draft = request(json!({ "gate/open": true, "shared/gate/code": null }));
        let draft = draft.draft("local:uid-0").expect("a draft");
        let changes: Vec<_> = draft.changes.iter().map(|(p, v)| (p.as_str(), v.clone())).collect();
        let set = ("shared/gate/open", Some(Value::from(true)));
        assert_eq!(changes, [set, ("shared/gate/code", None)]);
    }

    #[test]
    fn what_is_no_request_is_refused() {
        let refused = |request: Request| request.draft("p").expect_err("refused");
        assert!(matches!(refused(request(json!({}))), RequestError::Empty));
        assert!(matches!(refused(request(json!({ "../a": 1 }))), RequestError::Path { .. }));
        assert!(matches!(refused(request(json!({ "a": {} }))), RequestError::Value { .. }));
        let silent = Request { reason: " ".into(), ..request(json!({ "a": 1 })) };
        assert!(matches!(refused(silent), RequestError::NoReason));
    }
}
