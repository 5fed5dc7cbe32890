//! Who may write what. The first segment of a path decides.

use serde::{Deserialize, Serialize};

use super::TreeKind;
use crate::DeviceId;
use crate::state::{Path, StateDelta};

/// As what a log's author takes part in a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// A certified brain of the fleet.
    Brain,
    /// The device whose tree it is.
    Owner(DeviceId),
    /// A certified member of the group or site whose tree it is.
    Member(DeviceId),
}

/// A write that the author has no right to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{role:?} may not write {path} of a {kind:?} tree")]
pub struct Forbidden {
    /// The author's role.
    pub role: Role,
    /// The kind of tree.
    pub kind: TreeKind,
    /// The first path that it may not write.
    pub path: Path,
}

/// The segments of a device's tree that the device writes.
const OWNER_WRITES: [&str; 3] = ["reported", "override", "claims"];
/// The segments of a device's tree that brains write.
const BRAIN_WRITES: [&str; 3] = ["desired", "tags", "policy"];

/// The segments of a shared tree that brains write.
const SHARED_BRAIN_WRITES: [&str; 4] = ["shared", "about", "members", "policy"];

impl Role {
    /// Refuses a delta that names any path which this role may not write.
    pub fn check(self, kind: TreeKind, delta: &StateDelta) -> Result<(), Forbidden> {
        match delta.changes().find(|(path, _)| !self.may_write(kind, path)) {
            None => Ok(()),
            Some((path, _)) => Err(Forbidden { role: self, kind, path: path.clone() }),
        }
    }

    /// Whether this role may write `path` in a tree of `kind`.
    pub fn may_write(self, kind: TreeKind, path: &Path) -> bool {
        let first = path.first_segment();
        match (kind, self) {
            (TreeKind::Device, Self::Owner(_)) => OWNER_WRITES.contains(&first),
            (TreeKind::Device, Self::Brain) => BRAIN_WRITES.contains(&first),
            (TreeKind::Device, Self::Member(_)) => false,
            (TreeKind::Group | TreeKind::Site, Self::Brain) => SHARED_BRAIN_WRITES.contains(&first),
            (TreeKind::Group | TreeKind::Site, Self::Owner(device) | Self::Member(device)) => {
                first == "shared" || (first == "claims" && is_claim_of(path, device))
            }
        }
    }
}

/// Whether `path` is `claims/<resource>/<device>`.
fn is_claim_of(path: &Path, device: DeviceId) -> bool {
    path.segments().count() >= 3
        && path.segments().last().is_some_and(|last| last.parse() == Ok(device))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(text: &str) -> Path {
        Path::new(text).expect("valid")
    }

    #[test]
    fn rights_follow_the_first_segment() {
        let device = DeviceId([1; 16]);
        let claim = format!("claims/crane/{device}");
        let foreign = format!("claims/crane/{}", DeviceId([2; 16]));
        let cases = [
            (TreeKind::Device, Role::Owner(device), "reported/a", true),
            (TreeKind::Device, Role::Owner(device), "override/a", true),
            (TreeKind::Device, Role::Owner(device), "desired/a", false),
            (TreeKind::Device, Role::Owner(device), "reportedly", false),
            (TreeKind::Device, Role::Brain, "desired/a", true),
            (TreeKind::Device, Role::Brain, "tags/a", true),
            (TreeKind::Device, Role::Brain, "policy/conflicts/1", true),
            (TreeKind::Device, Role::Owner(device), "policy/conflicts/1", false),
            (TreeKind::Site, Role::Member(device), "policy/conflicts/1", false),
            (TreeKind::Device, Role::Brain, "reported/a", false),
            (TreeKind::Device, Role::Member(device), "reported/a", false),
            (TreeKind::Site, Role::Member(device), "shared/a", true),
            (TreeKind::Site, Role::Brain, "shared/a", true),
            (TreeKind::Group, Role::Brain, "members/a/b", true),
            (TreeKind::Group, Role::Member(device), "members/a/b", false),
            (TreeKind::Device, Role::Brain, "members/a/b", false),
            (TreeKind::Site, Role::Member(device), claim.as_str(), true),
            (TreeKind::Site, Role::Member(device), foreign.as_str(), false),
            (TreeKind::Site, Role::Brain, claim.as_str(), false),
            (TreeKind::Group, Role::Member(device), "desired/a", false),
        ];
        for (kind, role, text, allowed) in cases {
            assert_eq!(role.may_write(kind, &path(text)), allowed, "{kind:?} {role:?} {text}");
        }
    }
}
