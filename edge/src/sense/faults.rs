//! Which sensors give no value, as a leaf.

use hw::ReadError;
use protocol::Layer;
use protocol::error::Cause;
use protocol::state::{Scalar, Value};

use super::Group;

/// So many sensors are named; a list of this length fits a leaf comfortably.
const NAMED_MAX: usize = 32;

/// The leaf that says so.
pub(super) fn path_of(group: Group) -> String {
    format!("reported/sensors/faulty/{}", group.name())
}

/// The sensors of a group that give no value, each with what is wrong with it, after what that
/// means for the group; empty where all work. It changes only with what is wrong.
pub(super) fn report(group: Group, faults: &[ReadError]) -> Value {
    let mut causes = Vec::new();
    if !faults.is_empty() {
        let text = format!("{} of the {} sensors give no value", faults.len(), group.name());
        causes.push(Cause::new(Layer::Edge, "sense", "sample", text));
    }
    causes.extend(faults.iter().take(NAMED_MAX).map(|ReadError { sensor, fault, .. }| {
        let text = format!("{sensor}: {}", fault.kind());
        Cause::new(Layer::Hardware, group.name(), "read", text)
    }));
    Value::List(causes.iter().map(|cause| Scalar::Text(cause.to_string())).collect())
}

#[cfg(test)]
mod tests {
    use hw::Fault;

    use super::*;

    #[test]
    fn a_sensor_that_gives_no_value_is_named_with_what_is_wrong_and_not_with_its_file() {
        let fault = ReadError {
            sensor: "cpu".into(),
            path: "/sys/class/thermal/thermal_zone0/temp".into(),
            fault: Fault::Denied,
        };
        let Value::List(texts) = report(Group::Thermal, &[fault]) else { panic!("a list") };
        let expected = [
            "edge/sense/sample: 1 of the thermal sensors give no value",
            "hardware/thermal/read: cpu: not permitted",
        ];
        assert_eq!(texts, expected.map(|text| Scalar::Text(text.to_owned())));
        assert_eq!(report(Group::Power, &[]), Value::List(Vec::new()));
    }
}
