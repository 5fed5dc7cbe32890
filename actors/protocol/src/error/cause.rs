//! How an error came about: what each layer on its way knows of it.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::{ErrorSource, Layer, SyncError};

/// What one place on the way of an error knows of it: never a file, an address or a type's name.
///
/// As text it reads `hardware/hook/run: it ended with 3`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cause {
    /// Where.
    #[serde(flatten)]
    pub place: ErrorSource,
    /// What was wrong there, for people.
    pub message: String,
}

/// A text that is no cause.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a cause reads layer/component/operation: message")]
pub struct ParseCauseError;

/// What surrounds an error; it stays on its side of the wire.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Trail {
    /// Further out, the nearest first.
    outer: Vec<Cause>,
    /// Further in, the nearest first.
    inner: Vec<Cause>,
}

impl Cause {
    /// What a place knows.
    pub fn new(layer: Layer, component: &str, operation: &str, message: impl Into<String>) -> Self {
        Self { place: ErrorSource::new(layer, component, operation), message: message.into() }
    }
}

impl SyncError {
    /// Adds what the next place further in knows.
    pub fn because(mut self, cause: Cause) -> Self {
        self.trail_mut().inner.push(cause);
        self
    }

    /// Adds what the next place further out was doing.
    pub fn within(mut self, cause: Cause) -> Self {
        self.trail_mut().outer.push(cause);
        self
    }

    /// The whole chain, from the outermost place to the innermost, the error's own among them.
    pub fn causes(&self) -> Vec<Cause> {
        let own = Cause { place: self.origin.clone(), message: self.message.clone() };
        let Some(Trail { outer, inner }) = self.trail.as_deref() else { return vec![own] };
        outer.iter().rev().chain([&own]).chain(inner).cloned().collect()
    }

    fn trail_mut(&mut self) -> &mut Trail {
        self.trail.get_or_insert_default()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ErrorSource { layer, component, operation } = &self.place;
        write!(f, "{layer}/{component}/{operation}: {}", self.message)
    }
}

impl FromStr for Cause {
    type Err = ParseCauseError;

    fn from_str(text: &str) -> Result<Self, ParseCauseError> {
        let (place, message) = text.split_once(": ").ok_or(ParseCauseError)?;
        let mut parts = place.splitn(3, '/');
        let mut part = || parts.next().filter(|part| !part.is_empty()).ok_or(ParseCauseError);
        let (layer, component, operation) = (part()?, part()?, part()?);
        let layer = Layer::from_name(layer).ok_or(ParseCauseError)?;
        Ok(Self::new(layer, component, operation, message))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorCode;

    #[test]
    fn a_chain_reads_from_the_outermost_place_to_the_innermost() {
        let cause = |layer, message| Cause::new(layer, "part", "work", message);
        let origin = ErrorSource::new(Layer::Store, "read", "get");
        let error = SyncError::new(ErrorCode::Corrupt, origin, "damaged")
            .because(cause(Layer::Hardware, "bits"))
            .within(cause(Layer::Brain, "no twin"))
            .within(cause(Layer::Api, "no answer"));
        let messages: Vec<_> = error.causes().into_iter().map(|cause| cause.message).collect();
        assert_eq!(messages, ["no answer", "no twin", "damaged", "bits"]);
    }

    #[test]
    fn what_surrounds_an_error_does_not_cross_the_wire() {
        let origin = ErrorSource::new(Layer::Store, "read", "get");
        let plain = SyncError::new(ErrorCode::Corrupt, origin, "damaged");
        let error = plain.clone().because(Cause::new(Layer::Hardware, "disk", "read", "bits"));
        assert_eq!(crate::codec::encode(&error), crate::codec::encode(&plain));
        assert_eq!(
            serde_json::to_value(&error).expect("serialises"),
            serde_json::to_value(&plain).expect("serialises")
        );
    }

    #[test]
    fn a_cause_survives_as_text() {
        for layer in Layer::ALL {
            let cause = Cause::new(*layer, "hook", "run a/b", "it ended with 3: no fan: here");
            assert_eq!(cause.to_string().parse(), Ok(cause));
        }
        for text in ["", "hook", "hardware/hook: x", "metal/hook/run: x", "hardware//run: x"] {
            assert_eq!(text.parse::<Cause>(), Err(ParseCauseError), "{text}");
        }
    }
}
