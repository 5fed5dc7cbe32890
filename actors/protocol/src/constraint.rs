//! Constraints: what the leaves of a tree may be.
//!
//! They are leaves of the tree themselves, `policy/constraints/1`, `/2`, …, written by brains; the highest
//! version that is here holds. Whoever writes `desired/`, `override/`, `shared/` or `tags/` is refused what would
//! break one. What arrives by merge is taken, since others have it already, and is *held*: shown, named,
//! and not acted upon. What a device reports is a fact and breaks nothing.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::DeviceId;
use crate::conflict::{PathPattern, version_below};
use crate::history::Tree;
use crate::query::{Facts, Query};
use crate::state::{Path, StateDelta, VALUE_BYTES_MAX, Value};

/// Where the versions of the constraints are kept in a tree.
pub const CONSTRAINTS_PREFIX: &str = "policy/constraints";
/// The most constraints of a tree.
pub const CONSTRAINTS_MAX: usize = 64;
/// The longest name of a constraint, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// The leaves that constraints are for, by their first segments.
const CONSTRAINED: [&str; 4] = ["desired", "override", "shared", "tags"];

/// What the leaves of a tree may be.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraints {
    /// Each by itself.
    pub constraints: Vec<Constraint>,
}

/// One constraint.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Constraint {
    /// What people call it.
    pub name: String,
    /// What it says.
    #[serde(flatten)]
    pub rule: Rule,
}

/// What a constraint says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// These leaves are numbers of a range, both ends included.
    Range {
        /// Which leaves. What is for `desired/x` is for `override/x` as well.
        paths: PathPattern,
        /// The lowest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        min: Option<f64>,
        /// The highest.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max: Option<f64>,
    },
    /// These leaves have one of these values.
    OneOf {
        /// Which leaves.
        paths: PathPattern,
        /// The values.
        values: Vec<Value>,
    },
    /// This never holds: a query over the tree's leaves. A leaf below `desired/` counts with its
    /// override.
    Never(
        /// The query.
        #[serde(with = "text")]
        Query,
    ),
}

/// A text that says no constraints.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintsError {
    /// It is not JSON of that shape.
    #[error("the constraints cannot be read: {0}")]
    Json(#[from] serde_json::Error),
    /// There are too many.
    #[error("there are {found} constraints, the limit is {CONSTRAINTS_MAX}")]
    TooMany {
        /// How many.
        found: usize,
    },
    /// They are too long for a leaf.
    #[error("the constraints take {bytes} bytes, the limit is {VALUE_BYTES_MAX}")]
    TooLong {
        /// How long.
        bytes: usize,
    },
    /// A name is missing, too long, or there twice.
    #[error(
        "{name:?} is no name for a constraint: it needs one of its own, of {NAME_BYTES_MAX} bytes at most"
    )]
    Name {
        /// What was given.
        name: String,
    },
    /// A query looks at more than leaves.
    #[error("constraint {name:?} may look at leaves only, not at name, presence or age")]
    LooksBeyond {
        /// The constraint.
        name: String,
    },
}

/// A constraint that is broken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("constraint {name:?} does not allow {path} to be {value}")]
pub struct Broken {
    /// The constraint.
    pub name: String,
    /// A leaf that it is about.
    pub path: Path,
    /// What that would be.
    pub value: String,
}

impl Constraints {
    /// Reads constraints from JSON.
    pub fn parse(text: &str) -> Result<Self, ConstraintsError> {
        if text.len() > VALUE_BYTES_MAX {
            return Err(ConstraintsError::TooLong { bytes: text.len() });
        }
        let read: Self = serde_json::from_str(text)?;
        if read.constraints.len() > CONSTRAINTS_MAX {
            return Err(ConstraintsError::TooMany { found: read.constraints.len() });
        }
        for (at, Constraint { name, rule }) in read.constraints.iter().enumerate() {
            let twice = read.constraints[..at].iter().any(|earlier| earlier.name == *name);
            if name.trim().is_empty() || name.len() > NAME_BYTES_MAX || twice {
                return Err(ConstraintsError::Name { name: name.clone() });
            }
            let looks = match rule {
                Rule::Never(query) => query.looks_at(),
                Rule::Range { .. } | Rule::OneOf { .. } => Default::default(),
            };
            if looks.at_name || looks.at_presence || looks.at_age {
                return Err(ConstraintsError::LooksBeyond { name: name.clone() });
            }
        }
        Ok(read)
    }

    /// The first constraint that a tree would break by a change of its own author's. One that is
    /// broken already is nobody's fault who leaves it so.
    pub fn broken_by(&self, tree: &Tree, delta: &StateDelta, now_ms: u64) -> Option<Broken> {
        let changes: BTreeMap<&Path, Option<&Value>> = delta.changes().collect();
        if !changes.keys().any(|path| is_constrained(path)) {
            return None;
        }
        let after = Leaves { tree, changes: &changes, now_ms };
        let none = BTreeMap::new();
        let before = Leaves { tree, changes: &none, now_ms };
        self.constraints.iter().find_map(|constraint| match &constraint.rule {
            Rule::Never(query) => {
                let breaks = query.matches(&after, now_ms) && !query.matches(&before, now_ms);
                let changed = changes.keys().find(|path| mentions(query, path)).copied();
                let changed = changed.or(changes.keys().next().copied())?;
                breaks.then(|| constraint.broken(changed, changes[changed]))
            }
            rule => {
                let broken = changes
                    .iter()
                    .find(|(path, value)| value.is_some_and(|value| !rule.allows(path, value)));
                broken.map(|(path, value)| constraint.broken(path, *value))
            }
        })
    }

    /// The leaves of a tree that break a constraint now, each with the constraint's name.
    pub fn held(&self, tree: &Tree, now_ms: u64) -> BTreeMap<Path, String> {
        let none = BTreeMap::new();
        let leaves = Leaves { tree, changes: &none, now_ms };
        let mut held = BTreeMap::new();
        for Constraint { name, rule } in &self.constraints {
            match rule {
                Rule::Never(query) if query.matches(&leaves, now_ms) => {
                    let about = query.leaves().into_iter().filter(|path| is_constrained(path));
                    let there = about.filter(|path| leaves.value(path).is_some());
                    there.for_each(|path| {
                        held.entry(path.clone()).or_insert_with(|| name.clone());
                    });
                }
                Rule::Never(_) => {}
                rule => {
                    for path in tree.leaves().keys().filter(|path| is_constrained(path)) {
                        let value = tree.value(path);
                        if value.is_some_and(|value| !rule.allows(path, &value)) {
                            held.entry(path.clone()).or_insert_with(|| name.clone());
                        }
                    }
                }
            }
        }
        held
    }
}

impl Constraint {
    fn broken(&self, path: &Path, value: Option<&Value>) -> Broken {
        let value = value.map_or_else(|| "gone".to_owned(), |value| value.to_json().to_string());
        Broken { name: self.name.clone(), path: path.clone(), value }
    }
}

impl Rule {
    /// Whether a leaf may have a value.
    fn allows(&self, path: &Path, value: &Value) -> bool {
        match self {
            Self::Range { paths, min, max } if is_for(paths, path) => {
                value.as_f64().is_some_and(|number| {
                    min.is_none_or(|min| number >= min) && max.is_none_or(|max| number <= max)
                })
            }
            Self::OneOf { paths, values } if is_for(paths, path) => values.contains(value),
            Self::Range { .. } | Self::OneOf { .. } | Self::Never(_) => true,
        }
    }
}

/// Whether a pattern is for a leaf, or for the one that it takes the place of.
fn is_for(paths: &PathPattern, path: &Path) -> bool {
    is_constrained(path)
        && (paths.matches(path)
            || path.below("override").is_some_and(|below| {
                Path::new(&format!("desired/{below}")).is_ok_and(|desired| paths.matches(&desired))
            }))
}

fn is_constrained(path: &Path) -> bool {
    CONSTRAINED.contains(&path.first_segment())
}

fn mentions(query: &Query, path: &Path) -> bool {
    let desired = path.below("override").map(|below| format!("desired/{below}"));
    let is_it = |leaf: &&Path| {
        *leaf == path || desired.as_deref().is_some_and(|desired| desired == leaf.as_str())
    };
    query.leaves().iter().any(is_it)
}

/// The leaves of a tree with changes on top.
struct Leaves<'a> {
    tree: &'a Tree,
    changes: &'a BTreeMap<&'a Path, Option<&'a Value>>,
    now_ms: u64,
}

impl Leaves<'_> {
    fn plain(&self, path: &Path) -> Option<Cow<'_, Value>> {
        match self.changes.get(path) {
            Some(changed) => changed.map(Cow::Borrowed),
            None => self.tree.value(path),
        }
    }

    /// An override that holds.
    fn set_by_hand(&self, below: &str) -> Option<Cow<'_, Value>> {
        let path = Path::new(&format!("override/{below}")).ok()?;
        let lasts = |path: &Path| {
            let shown = self.tree.decision(path)?;
            Some(shown.by.candidate.lease_until_ms.is_none_or(|until| until > self.now_ms))
        };
        let is_new = self.changes.contains_key(&path);
        (is_new || lasts(&path).unwrap_or(false)).then(|| self.plain(&path)).flatten()
    }
}

impl Facts for Leaves<'_> {
    fn id(&self) -> DeviceId {
        DeviceId([0; 16])
    }

    fn name(&self) -> &str {
        ""
    }

    fn is_online(&self) -> bool {
        false
    }

    fn version(&self) -> u64 {
        0
    }

    fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        let by_hand = path.below("desired").and_then(|below| self.set_by_hand(below));
        by_hand.or_else(|| self.plain(path))
    }

    fn set_ms(&self, _path: &Path) -> Option<u64> {
        None
    }
}

/// The version of the constraints that a leaf is, where it is one.
pub fn constraints_version(path: &Path) -> Option<u32> {
    version_below(path, CONSTRAINTS_PREFIX)
}

/// Queries as their texts.
mod text {
    use serde::{Deserialize, Deserializer, Serializer};

    use crate::query::Query;

    pub(super) fn serialize<S: Serializer>(query: &Query, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(query)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Query, D::Error> {
        let text = String::deserialize(from)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
