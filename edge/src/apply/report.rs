//! What the device tells about a leaf that it could not apply.

use protocol::Layer;
use protocol::error::Cause;
use protocol::session::with_causes;
use protocol::state::{Scalar, Value};

use super::{ApplyError, HookError};

/// Why a step was not taken: a line for people, and how it came about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// The line.
    pub text: String,
    /// From what the agent was doing down to what it met.
    pub causes: Vec<Cause>,
}

impl Failure {
    /// What came of applying the leaf `path`.
    pub(super) fn of(error: &ApplyError, path: &str) -> Self {
        let not_applied = |operation, text| Cause::new(Layer::Edge, "apply", operation, text);
        let below = |operation| not_applied(operation, format!("{path} is not applied"));
        let within = |component, operation, error: &dyn std::error::Error| {
            Cause::new(Layer::Edge, component, operation, with_causes(error))
        };
        let causes = match error {
            ApplyError::NoApplier => vec![not_applied("find applier", error.to_string())],
            ApplyError::NotText => vec![not_applied("read value", error.to_string())],
            ApplyError::Setting(error) => {
                vec![below("change setting"), within("sense", "check setting", error)]
            }
            ApplyError::Level(error) => {
                vec![below("change log level"), within("log", "set level", error)]
            }
            ApplyError::Server(error) => {
                vec![below("change server"), within("uplink", "check address", error)]
            }
            ApplyError::Hook(error) => {
                [below("run hook")].into_iter().chain(of_hook(error)).collect()
            }
        };
        Self { text: with_causes(error), causes }
    }

    /// What was applied again and again and does not hold.
    pub(super) fn never_holds() -> Self {
        let text = "it does not hold, however often it is applied".to_owned();
        let causes = vec![Cause::new(Layer::Edge, "apply", "verify", text.clone())];
        Self { text, causes }
    }

    /// The causes, as a leaf tells of them.
    pub(super) fn report(&self) -> Value {
        let text = |cause: &Cause| Scalar::Text(cause.to_string());
        Value::List(self.causes.iter().map(text).collect())
    }
}

/// A hook is how the device's owner reaches the hardware.
fn of_hook(error: &HookError) -> Vec<Cause> {
    match error {
        HookError::NoFolder | HookError::BadName { .. } | HookError::Missing { .. } => {
            vec![Cause::new(Layer::Edge, "hook", "find program", error.to_string())]
        }
        HookError::NotRun { source } => vec![
            Cause::new(Layer::Edge, "hook", "start program", error.to_string()),
            Cause::new(Layer::Hardware, "system", "execute", source.kind().to_string()),
        ],
        HookError::Failed { .. } | HookError::TimedOut => {
            vec![Cause::new(Layer::Hardware, "hook", "run program", error.to_string())]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_hook_is_told_from_the_agent_down_to_the_hardware() {
        let (status, said) = ("exit status: 3".to_owned(), "no fan here".to_owned());
        let error = ApplyError::from(HookError::Failed { status, said });
        let failure = Failure::of(&error, "hooks/fan");
        assert_eq!(failure.text, "hook ended with exit status: 3: no fan here");
        let layers: Vec<_> = failure.causes.iter().map(|cause| cause.place.layer).collect();
        assert_eq!(layers, [Layer::Edge, Layer::Hardware]);
    }

    #[test]
    fn a_program_that_does_not_start_says_so_once() {
        let source = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let failure = Failure::of(&HookError::NotRun { source }.into(), "hooks/fan");
        assert_eq!(failure.text, "hook does not run: permission denied");
        let messages: Vec<_> = failure.causes.iter().map(|cause| &cause.message[..]).collect();
        assert_eq!(
            messages,
            ["hooks/fan is not applied", "hook does not run", "permission denied"]
        );
    }
}
