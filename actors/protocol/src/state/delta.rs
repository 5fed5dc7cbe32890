//! The difference between two states.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{Path, Value};
use crate::canonical::Writer;

/// The leaves of a tree at one moment.
pub type State = BTreeMap<Path, Value>;

/// What turns one state into another. The three sets of paths are disjoint.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateDelta {
    /// Leaves that were not there before.
    pub added: State,
    /// Leaves that had another value before, with the new one.
    pub modified: State,
    /// Leaves that are no longer there.
    pub removed: BTreeSet<Path>,
}

impl StateDelta {
    /// Whether nothing changes.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.modified.is_empty() && self.removed.is_empty()
    }

    /// How many leaves change.
    pub fn len(&self) -> usize {
        self.added.len() + self.modified.len() + self.removed.len()
    }

    /// Every changed leaf with its new value, or `None` where it is removed.
    pub fn changes(&self) -> impl Iterator<Item = (&Path, Option<&Value>)> {
        let set = self.added.iter().chain(&self.modified).map(|(path, value)| (path, Some(value)));
        set.chain(self.removed.iter().map(|path| (path, None)))
    }

    /// Whether the three sets are disjoint, as every delta must be.
    pub fn is_disjoint(&self) -> bool {
        let named: BTreeSet<_> = self.changes().map(|(path, _)| path).collect();
        named.len() == self.len()
    }

    /// Sets or removes the given leaves of `state`: what of it changes anything.
    pub fn of_changes<'a>(
        state: &State,
        changes: impl IntoIterator<Item = (&'a Path, Option<&'a Value>)>,
    ) -> Self {
        let mut delta = Self::default();
        for (path, value) in changes {
            match (state.get(path), value) {
                (None, Some(new)) => {
                    delta.added.insert(path.clone(), new.clone());
                }
                (Some(old), Some(new)) if old != new => {
                    delta.modified.insert(path.clone(), new.clone());
                }
                (Some(_), None) => {
                    delta.removed.insert(path.clone());
                }
                _ => {}
            }
        }
        delta
    }

    /// Adds the delta to canonical bytes.
    pub fn write_canonical(&self, writer: &mut Writer) {
        for leaves in [&self.added, &self.modified] {
            writer.len(leaves.len());
            for (path, value) in leaves {
                writer.text(path.as_str());
                value.write_canonical(writer);
            }
        }
        writer.len(self.removed.len());
        for path in &self.removed {
            writer.text(path.as_str());
        }
    }
}

/// The delta that turns `before` into `after`.
pub fn diff(before: &State, after: &State) -> StateDelta {
    let kept = after.iter().map(|(path, value)| (path, Some(value)));
    let gone = before.keys().filter(|path| !after.contains_key(*path)).map(|path| (path, None));
    StateDelta::of_changes(before, kept.chain(gone))
}

/// `state` after `delta`.
pub fn apply(mut state: State, delta: &StateDelta) -> State {
    for (path, value) in delta.changes() {
        match value {
            Some(value) => state.insert(path.clone(), value.clone()),
            None => state.remove(path),
        };
    }
    state
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn states() -> impl Strategy<Value = State> {
        let path = "[a-c]{1,2}(/[a-c]){0,2}".prop_map(|text| Path::new(&text).expect("valid"));
        let value = (0i64..4).prop_map(Value::from);
        proptest::collection::btree_map(path, value, 0..12)
    }

    proptest! {
        #[test]
        fn applying_a_difference_gives_the_other_state(a in states(), b in states()) {
            let delta = diff(&a, &b);
            prop_assert!(delta.is_disjoint());
            prop_assert_eq!(apply(a, &delta), b);
        }

        #[test]
        fn a_state_does_not_differ_from_itself(a in states()) {
            prop_assert!(diff(&a, &a).is_empty());
        }

        #[test]
        fn one_changed_leaf_gives_a_delta_of_one(mut a in states()) {
            let before = a.clone();
            a.insert(Path::new("z").expect("valid"), Value::from(1));
            prop_assert_eq!(diff(&before, &a).len(), 1);
        }
    }
}
