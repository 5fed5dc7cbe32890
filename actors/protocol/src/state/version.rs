//! States with their version, as stores and the API give them out.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::{State, StateDelta};

/// A brain's commit number of a tree. The first commit is 1; 0 is the empty tree.
pub type Version = u64;

/// A tree's state at one version.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VersionedState {
    /// The commit that made it so.
    pub version: Version,
    /// The leaves.
    pub state: State,
    /// When the brain committed it, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// Where the last change came from.
    pub source: StateSource,
    /// Root hash, entry id and what else describes the version.
    pub metadata: BTreeMap<String, Json>,
}

/// One change in a tree's history.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StateChange {
    /// The version that the change made.
    pub version: Version,
    /// What changed.
    pub delta: StateDelta,
    /// When the brain committed it, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// Where the change came from.
    pub source: StateSource,
    /// Why it was made.
    pub reason: String,
}

/// Where a change comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StateSource {
    /// The brain's own logic.
    Brain,
    /// The agent's own logic.
    Edge,
    /// A sensor or other hardware.
    Hardware,
    /// A person or their program.
    Operator,
    /// Left behind by a retired author and taken over by the brain.
    Adopted,
}

/// A text that names no source.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown source {given:?}; one of brain, edge, hardware, operator, adopted")]
pub struct UnknownSource {
    /// The text.
    pub given: String,
}

impl StateSource {
    /// Every source.
    pub const ALL: [Self; 5] =
        [Self::Brain, Self::Edge, Self::Hardware, Self::Operator, Self::Adopted];

    /// The number in canonical bytes.
    pub fn number(self) -> u8 {
        match self {
            Self::Brain => 0,
            Self::Edge => 1,
            Self::Hardware => 2,
            Self::Operator => 3,
            Self::Adopted => 4,
        }
    }

    /// The name in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Brain => "brain",
            Self::Edge => "edge",
            Self::Hardware => "hardware",
            Self::Operator => "operator",
            Self::Adopted => "adopted",
        }
    }
}

impl fmt::Display for StateSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for StateSource {
    type Err = UnknownSource;

    fn from_str(text: &str) -> Result<Self, UnknownSource> {
        Self::ALL
            .into_iter()
            .find(|source| source.as_str() == text)
            .ok_or_else(|| UnknownSource { given: text.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_versioned_state_has_exactly_five_keys() {
        let state = VersionedState {
            version: 1,
            state: State::new(),
            timestamp: 2,
            source: StateSource::Hardware,
            metadata: BTreeMap::new(),
        };
        let json = serde_json::to_value(&state).expect("serialises");
        let keys: Vec<_> = json.as_object().expect("object").keys().cloned().collect();
        assert_eq!(keys, ["metadata", "source", "state", "timestamp", "version"]);
        assert_eq!(serde_json::from_value::<VersionedState>(json).expect("parses"), state);
    }

    #[test]
    fn an_unknown_source_is_refused() {
        assert!("martian".parse::<StateSource>().is_err());
        assert!(serde_json::from_str::<StateSource>("\"martian\"").is_err());
        assert!(crate::codec::decode::<StateSource>(&[9]).is_err());
    }
}
