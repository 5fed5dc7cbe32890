//! Conflicts: candidates of one leaf that did not see each other, and which of them counts.
//!
//! A leaf keeps all its undominated [`Candidate`](crate::history::Candidate)s. Which value it
//! *shows* is a [`Decision`]: a pure function of the candidates and of the highest
//! [`ConflictPolicy`] version that any of them names, so that replicas that hold the same entries
//! show the same, whoever looks. Policies are leaves of the tree themselves, below
//! [`POLICY_PREFIX`]: whoever names one has seen it, and so has everybody who applied the entry.
//!
//! Deciding writes nothing. The candidates stay side by side, and in history, until somebody who
//! has seen them all writes the leaf.

mod decide;
mod pattern;
mod policy;
mod record;

pub use decide::{Contender, Decision, decide};
pub use pattern::{PathPattern, PatternError};
pub(crate) use policy::version_below;
pub use policy::{
    ConflictPolicy, POLICY_PREFIX, PolicyError, RULES_MAX, Rule, Safest, Severity, Strategy,
    policy_version,
};
pub use record::{
    Conflict, ConflictId, ConflictKind, ConflictStatus, ContendingState, Resolution,
    SIDES_KEPT_MAX, VALUE_KEPT_BYTES_MAX,
};
