//! What a device reports of its failures, as chains of causes that begin here.

use protocol::Layer;
use protocol::error::Cause;
use protocol::state::{Path, Scalar, Value};

/// Where a device tells how its failures came about.
const REPORTS: [&str; 2] = ["reported/apply_causes", "reported/sensors/faulty"];

/// The chain that a leaf tells of; empty where it tells of none.
pub(super) fn of_leaf(path: &Path, value: &Value) -> Vec<Cause> {
    match REPORTS.iter().any(|report| path.below(report).is_some()) {
        true => chain("show report", "the device reports a failure", value),
        false => Vec::new(),
    }
}

/// The chain behind a desired leaf that the device could not apply.
pub(super) fn of_apply_error(told: &Value) -> Vec<Cause> {
    chain("compare desired state", "what is desired is not in force", told)
}

/// What is not a cause is left out: the device may be of another release.
fn chain(operation: &str, text: &str, told: &Value) -> Vec<Cause> {
    let Value::List(items) = told else { return Vec::new() };
    let parse = |item: &Scalar| match item {
        Scalar::Text(text) => text.parse().ok(),
        _ => None,
    };
    let mut causes: Vec<Cause> = items.iter().filter_map(parse).collect();
    if !causes.is_empty() {
        causes.insert(0, Cause::new(Layer::Brain, "twin", operation, text));
    }
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_shown_from_here_down_and_what_is_no_cause_is_left_out() {
        let texts = ["edge/apply/run hook: hooks/fan is not applied", "whatever"];
        let told = Value::List(texts.map(|text| Scalar::Text(text.into())).into());
        let path = |text| Path::new(text).expect("a path");
        let layers = |causes: Vec<Cause>| -> Vec<_> {
            causes.into_iter().map(|cause| cause.place.layer).collect()
        };
        let leaf = path("reported/apply_causes/hooks/fan");
        assert_eq!(layers(of_leaf(&leaf, &told)), [Layer::Brain, Layer::Edge]);
        assert_eq!(layers(of_apply_error(&told)), [Layer::Brain, Layer::Edge]);
        assert_eq!(of_leaf(&path("reported/fan"), &told), []);
        let healthy = Value::List(Vec::new());
        assert_eq!(of_leaf(&path("reported/sensors/faulty/thermal"), &healthy), []);
    }
}
