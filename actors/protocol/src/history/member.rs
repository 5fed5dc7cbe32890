//! Who writes in a shared tree: the tree says so itself.
//!
//! A brain writes the leaf `members/<device>/<key>`: true while the device is a member with that
//! key, false ever after. The leaf is never taken away, so that whoever has it can tell that what
//! the key wrote was written by a member: an entry names the leaf's entry among its causes. A
//! member that goes has its logs cut.

use super::Change;
use crate::state::{Path, Value};
use crate::{DeviceId, PublicKey};

/// The most members that a shared tree may have, former ones included.
pub const MEMBERS_MAX: usize = 500;
/// Where members are named.
pub const MEMBERS_PREFIX: &str = "members";

/// Where a device's own tree names the groups that it is in.
pub const GROUPS_PREFIX: &str = "tags/groups";

/// A device that writes, or wrote, in a shared tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// The device.
    pub device: DeviceId,
    /// Whether it may write more.
    pub is_current: bool,
}

/// The change that lets a device write, or ends that.
pub fn member_change(device: DeviceId, key: PublicKey, is_current: bool) -> Change {
    let path = Path::new(&format!("{MEMBERS_PREFIX}/{device}/{key}"));
    (path.expect("ids are segments"), Some(Value::from(is_current)))
}

/// The device and the key that a leaf is about.
pub fn member_of(path: &Path) -> Option<(DeviceId, PublicKey)> {
    let (device, key) = path.below(MEMBERS_PREFIX)?.split_once('/')?;
    Some((device.parse().ok()?, key.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_read_from_the_leaf_that_names_it() {
        let (device, key) = (DeviceId([1; 16]), PublicKey([2; 32]));
        let (path, value) = member_change(device, key, true);
        assert_eq!((member_of(&path), value), (Some((device, key)), Some(Value::from(true))));
    }

    #[test]
    fn other_leaves_name_nobody() {
        for text in ["members/a", "members/a/b", "shared/a", "members"] {
            assert_eq!(member_of(&Path::new(text).expect("a path")), None, "{text}");
        }
    }
}
