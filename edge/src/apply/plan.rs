//! What to do about desired state, and what to report of it.

use std::collections::{BTreeMap, BTreeSet};

use protocol::history::Change;
use protocol::state::{Path, State, Value};

use super::Failure;

/// One leaf to act on; no value means back to the default.
#[derive(Debug, Clone, PartialEq)]
pub struct Step {
    /// The path below `desired/`.
    pub path: String,
    /// What it shall be.
    pub value: Option<Value>,
}

/// Which leaves to act on: those whose effective value is not what was acted on last.
///
/// Leaves that go come before those that come, so that a renamed setting ends at its new value.
pub fn plan(done: &BTreeMap<String, Value>, effective: &BTreeMap<String, Value>) -> Vec<Step> {
    let gone = done.keys().filter(|path| !effective.contains_key(*path));
    let gone = gone.map(|path| Step { path: path.clone(), value: None });
    let changed = effective.iter().filter(|(path, value)| done.get(*path) != Some(value));
    let changed =
        changed.map(|(path, value)| Step { path: path.clone(), value: Some(value.clone()) });
    gone.chain(changed).collect()
}

/// The same, with leaves that were acted on and do not hold any more.
pub(super) fn plan_again(
    done: &BTreeMap<String, Value>,
    effective: &BTreeMap<String, Value>,
    again: &BTreeSet<String>,
) -> Vec<Step> {
    let mut steps = plan(done, effective);
    for path in again {
        let value = effective.get(path).filter(|value| done.get(path) == Some(value));
        let step = value.map(|value| Step { path: path.clone(), value: Some(value.clone()) });
        steps.extend(step);
    }
    steps
}

/// What to report after a step.
pub fn outcome(step: &Step, result: Result<(), Failure>) -> Vec<Change> {
    let causes = result.as_ref().err().map(Failure::report);
    let (applied, error) = match (&step.value, result) {
        (Some(value), Ok(())) => (Some(value.clone()), None),
        (_, Err(Failure { text, .. })) => (None, Some(Value::from(text))),
        (None, Ok(())) => (None, None),
    };
    let leaf = |prefix: &str| Path::new(&format!("{prefix}/{}", step.path)).ok();
    let applied = leaf("reported/applied").map(|path| (path, applied));
    let error = leaf("reported/apply_errors").map(|path| (path, error));
    let causes = leaf("reported/apply_causes").map(|path| (path, causes));
    // What is desired no longer does not drift.
    let drift = leaf("reported/drift").filter(|_| step.value.is_none()).map(|path| (path, None));
    applied.into_iter().chain(error).chain(causes).chain(drift).collect()
}

/// What to report of leaves that were applied and did not hold any more.
pub(super) fn drifts(drifted: &[String], now_ms: u64) -> Vec<Change> {
    let at = i64::try_from(now_ms).unwrap_or(i64::MAX);
    let leaf = |path: &String| Path::new(&format!("reported/drift/{path}")).ok();
    let leaves = drifted.iter().filter_map(leaf);
    leaves.map(|path| (path, Some(Value::from(at)))).collect()
}

/// What to report of a leaf that does not hold however often it is applied.
pub(super) fn never_holds(path: &str) -> Vec<Change> {
    let step = Step { path: path.to_owned(), value: Some(Value::from("")) };
    outcome(&step, Err(Failure::never_holds()))
}

/// How the report about a leaf that a constraint holds begins.
const HELD: &str = "held by constraint ";

/// What to report of a step that a constraint holds back: what was applied before stays.
pub(super) fn held_back(step: &Step, constraint: &str) -> Vec<Change> {
    let held = Some(Value::from(format!("{HELD}{constraint:?}")));
    let leaves = [("reported/apply_errors", held), ("reported/apply_causes", None)];
    let change =
        |(prefix, value)| Some((Path::new(&format!("{prefix}/{}", step.path)).ok()?, value));
    leaves.into_iter().filter_map(change).collect()
}

/// Reports about leaves that no constraint holds any more.
pub(super) fn lifted(state: &State, held: &BTreeMap<String, String>) -> Vec<Change> {
    let is_lifted = |(path, value): &(&Path, &Value)| {
        let below = path.below("reported/apply_errors");
        let was_held = value.as_str().is_some_and(|text| text.starts_with(HELD));
        was_held && below.is_some_and(|below| !held.contains_key(below))
    };
    state.iter().filter(is_lifted).map(|(path, _)| (path.clone(), None)).collect()
}

/// What an earlier life of the agent applied, of the leaves under `prefix`.
pub fn applied_before(state: &State, prefix: &str) -> BTreeMap<String, Value> {
    let under = |path: &Path| {
        let below = path.below("reported/applied")?;
        below.starts_with(prefix).then(|| below.to_owned())
    };
    state.iter().filter_map(|(path, value)| Some((under(path)?, value.clone()))).collect()
}

/// Reports about leaves that are desired no longer, left by an earlier life.
pub fn stale_reports(state: &State, effective: &BTreeMap<String, Value>) -> Vec<Change> {
    let desired: BTreeSet<&str> = effective.keys().map(String::as_str).collect();
    let stale = |path: &&Path| {
        let reports = [
            "reported/applied",
            "reported/apply_errors",
            "reported/apply_causes",
            "reported/drift",
        ];
        let below = reports.into_iter().find_map(|prefix| path.below(prefix));
        below.is_some_and(|below| !desired.contains(below))
    };
    state.keys().filter(stale).map(|path| (path.clone(), None)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(values: &[(&str, i64)]) -> BTreeMap<String, Value> {
        values.iter().map(|(path, value)| ((*path).to_owned(), Value::from(*value))).collect()
    }

    #[test]
    fn only_what_changed_is_acted_on() {
        let (done, effective) =
            (values(&[("a", 1), ("b", 2), ("c", 3)]), values(&[("b", 2), ("c", 4)]));
        let steps = plan(&done, &effective);
        assert_eq!(
            steps,
            [
                Step { path: "a".into(), value: None },
                Step { path: "c".into(), value: Some(Value::from(4)) },
            ]
        );
        assert!(plan(&effective, &effective).is_empty());
    }

    #[test]
    fn a_failure_takes_the_place_of_the_applied_value() {
        let step = Step { path: "log/level".into(), value: Some(Value::from("loud")) };
        let text = "no such level".to_owned();
        let changes = outcome(&step, Err(Failure { text, causes: Vec::new() }));
        assert_eq!(changes[0].1, None);
        assert_eq!(changes[1].0.as_str(), "reported/apply_errors/log/level");
        assert_eq!(changes[1].1, Some(Value::from("no such level")));
    }

    #[test]
    fn a_path_too_long_to_report_is_not_reported() {
        let step = Step { path: "x".repeat(250), value: None };
        assert!(outcome(&step, Ok(())).is_empty());
    }

    #[test]
    fn an_earlier_life_is_remembered() {
        let path = |text: &str| Path::new(text).expect("a path");
        let state = State::from([
            (path("reported/applied/hooks/fan"), Value::from(1)),
            (path("reported/applied/log/level"), Value::from("info")),
        ]);
        assert_eq!(applied_before(&state, "hooks/"), values(&[("hooks/fan", 1)]));
        let stale = stale_reports(&state, &values(&[("hooks/fan", 1)]));
        assert_eq!(stale, [(path("reported/applied/log/level"), None)]);
    }
}
