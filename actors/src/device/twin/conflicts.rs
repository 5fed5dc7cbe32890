//! Noticing conflicts: in the commit that brings them.

use std::collections::BTreeMap;

use protocol::ConflictId;
use protocol::conflict::{Conflict, Decision, POLICY_PREFIX, Resolution};
use protocol::constraint::CONSTRAINTS_PREFIX;
use protocol::history::{Change, Tree};
use protocol::session::Now;
use protocol::state::{Path, Value};

use super::Twin;
use crate::device::PolicyOf;
use crate::ports::{ConflictChange, TreeCommit};

/// How a conflict ends when somebody who knew all sides writes the leaf.
pub(super) const BY_ENTRY: &str = "entry";
/// How one with what the hardware reports is decided.
const BY_HARDWARE: &str = "hardware_truth";
/// How one ends when a side of it counts no longer.
pub(super) const BY_CUT: &str = "cut";
/// How one ends that is not there when it is looked at.
const GONE: &str = "gone";
/// How one ends when another side joins: the larger conflict goes on.
const BY_ANOTHER_SIDE: &str = "another_side";

/// The conflicts of a tree, by leaf.
pub(super) fn all(tree: &Tree) -> BTreeMap<Path, ConflictId> {
    let paths = tree.leaves().keys();
    paths.filter_map(|path| Some((path.clone(), conflict_at(tree, path, 0)?.id))).collect()
}

/// The conflict of a leaf: of its sides, or of what it asks for with what the hardware reports.
fn conflict_at(tree: &Tree, path: &Path, now_ms: u64) -> Option<Conflict> {
    tree.conflict(path, now_ms).or_else(|| tree.physical_conflict(path, now_ms))
}

impl Twin {
    /// What begins and ends at these leaves, which have just changed; `how` it ends.
    pub(super) fn conflicts_of(&mut self, paths: &[Path], how: &str) -> Vec<ConflictChange> {
        let mut changes = Vec::new();
        // What the hardware reports may contradict what is desired of it.
        let reported = paths.iter().filter(|path| path.first_segment() == "reported");
        let desired: Vec<Path> = reported.filter_map(|path| self.tree.desired_of(path)).collect();
        for path in paths.iter().chain(&desired) {
            let conflict = conflict_at(&self.tree, path, self.committed_ms);
            let after = conflict.as_ref().map(|conflict| conflict.id);
            let before = match after {
                Some(id) => self.conflicts.insert(path.clone(), id),
                None => self.conflicts.remove(path),
            };
            if before == after {
                continue;
            }
            if let Some(before) = before {
                let how = if after.is_some() { BY_ANOTHER_SIDE } else { how };
                let shown = self.tree.decision(path);
                let ended = Resolution::of(before, shown, Some(how), self.committed_ms);
                changes.push(ConflictChange::Resolved(Box::new(ended)));
            }
            changes.extend(conflict.map(Box::new).map(ConflictChange::Noticed));
        }
        changes
    }

    /// The change that sets the next version of a policy.
    pub fn next_policy(&self, of: PolicyOf, policy: String) -> Change {
        let (prefix, current) = match of {
            PolicyOf::Conflicts => (POLICY_PREFIX, self.tree.policy()),
            PolicyOf::Constraints => (CONSTRAINTS_PREFIX, self.tree.constraints().0),
        };
        let path = Path::new(&format!("{prefix}/{}", current.saturating_add(1)));
        (path.expect("a number is a segment"), Some(Value::from(policy)))
    }

    /// Decides a conflict by its strategy, or ends the record of one that is no longer there; none
    /// where it waits for a person, or for the policy that is to decide.
    pub fn resolve(&mut self, id: ConflictId, now: Now) -> Option<(TreeCommit, Resolution)> {
        let resolution = match self.conflicts.iter().find(|(_, known)| **known == id) {
            Some((path, _)) => {
                let is_physical = self.tree.conflict(path, 0).is_none();
                if let Some(measured) = self.tree.measured(path).filter(|_| is_physical) {
                    let (how, now_ms) = (BY_HARDWARE, now.wall_ms);
                    let resolution = Resolution::of(id, Some(measured), Some(how), now_ms);
                    let mut commit = self.commit_row();
                    let resolved = Box::new(resolution.clone());
                    commit.conflicts.push(ConflictChange::Resolved(resolved));
                    return Some((commit, resolution));
                }
                let shown = self.tree.decision(path);
                let waits = |shown: &Decision<'_>| shown.waits_for_a_person() || shown.is_pending;
                // What no constraint allows is no resolution.
                let is_held = self.tree.held(now.wall_ms).contains_key(path);
                let shown = shown.filter(|shown| !waits(shown) && !is_held)?;
                Resolution::of(id, Some(shown), None, now.wall_ms)
            }
            None => Resolution::of(id, None, Some(GONE), now.wall_ms),
        };
        let mut commit = self.commit_row();
        commit.conflicts.push(ConflictChange::Resolved(Box::new(resolution.clone())));
        Some((commit, resolution))
    }
}
