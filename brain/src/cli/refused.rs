//! What a brain did not do, as it said so.

use std::fmt;

use serde_json::Value;
use url::Url;

/// A problem that a brain answered with.
#[derive(Debug)]
pub(super) struct Refused {
    problem: Value,
}

impl Refused {
    /// The problem in the body of an answer; none where it holds none.
    pub(super) fn new(problem: Value) -> Option<Self> {
        problem["title"].is_string().then_some(Self { problem })
    }

    /// The problem as it came.
    pub(super) fn problem(&self) -> &Value {
        &self.problem
    }

    fn text(&self, key: &str) -> &str {
        self.problem[key].as_str().unwrap_or_default()
    }

    /// How it came about, where that is more than the request and what was wrong with it.
    fn causes(&self) -> impl Iterator<Item = String> {
        let causes = self.problem["causes"].as_array().filter(|causes| causes.len() > 2);
        causes.into_iter().flatten().map(|cause| {
            let part = |key: &str| cause[key].as_str().unwrap_or_default();
            let (layer, component) = (part("layer"), part("component"));
            format!("{layer}, {component} ({}): {}", part("operation"), part("message"))
        })
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.text("detail"), self.text("title"))?;
        for cause in self.causes() {
            write!(f, "\n  from {cause}")?;
        }
        write!(f, "\n  what to do: {}", self.text("guidance"))
    }
}

impl std::error::Error for Refused {}

/// An answer that is no success, as an error.
pub(super) fn refused(url: &Url, status: ureq::http::StatusCode, problem: Value) -> anyhow::Error {
    match Refused::new(problem) {
        Some(refused) => refused.into(),
        None => anyhow::anyhow!("{url} answered {status}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_problem_is_told_with_its_causes_and_what_to_do() {
        let cause = |layer, message| json!({ "layer": layer, "component": "c", "operation": "o", "message": message });
        let problem = json!({ "title": "CORRUPT", "detail": "damaged record", "guidance": "restore",
            "causes": [cause("api", "failed"), cause("store", "damaged"), cause("hardware", "bits")] });
        let text = Refused::new(problem).expect("a problem").to_string();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[0], "damaged record (CORRUPT)");
        assert_eq!(lines[3], "  from hardware, c (o): bits");
        assert_eq!(lines[4], "  what to do: restore");
        assert!(Refused::new(json!({})).is_none());
    }
}
