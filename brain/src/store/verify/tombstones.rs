//! Checking what is left of devices that were retired, and of groups that were deleted.

use actors::ports::TreeNumber;

use super::Verified;
use crate::store::keys;
use crate::store::removal::OF_A_TREE;
use crate::store::rocks::{DEVICES, DOOMED, GROUPS, Rocks, TOMBSTONES, TREE_IDS, TREES};
use crate::store::tombstones::{Tombstone, key};

/// A tombstone stands alone: nobody is there beside it, and what its tree had is gone, or doomed.
pub(super) fn check(rocks: &Rocks, verified: &mut Verified) {
    // What cannot be read is named already.
    let rows = rocks.scan_all::<Tombstone>(TOMBSTONES).filter_map(Result::ok);
    for (at, tombstone) in rows {
        verified.tombstones += 1;
        let mut found = |what: &str| verified.found(TOMBSTONES, &*tombstone.genesis.name, what);
        if *at != key(&tombstone.genesis)[..] {
            found("it lies under the key of another");
            continue;
        }
        let there = match &tombstone.device {
            Some(former) => rocks.has_below(DEVICES, &former.device.0).unwrap_or(false),
            None => {
                let name = tombstone.genesis.name.as_bytes();
                matches!(rocks.get::<TreeNumber>(GROUPS, name), Ok(Some(_)))
            }
        };
        if there {
            found("what was retired is there as well");
        }
        let tree_id = tombstone.genesis.tree_id();
        if matches!(rocks.get::<TreeNumber>(TREE_IDS, &tree_id.0), Ok(Some(_))) {
            found("its tree is there as well");
        }
        let Some(tree) = tombstone.tree else { continue };
        let is_doomed = !matches!(rocks.get::<Option<TreeNumber>>(DOOMED, &at), Ok(None));
        let leaves_rows =
            |family: &&'static str| rocks.has_below(family, &keys::tree(tree)) == Ok(true);
        if let Some(family) = OF_A_TREE.into_iter().find(leaves_rows).filter(|_| !is_doomed) {
            found(&format!("its tree {tree} has left rows in {family}"));
        }
        if leaves_rows(&TREES) {
            found(&format!("the row of its tree {tree} is still there"));
        }
    }
    for (at, _) in rocks.scan_all::<Option<TreeNumber>>(DOOMED).filter_map(Result::ok) {
        if matches!(rocks.get::<Tombstone>(TOMBSTONES, &at), Ok(None)) {
            let name = super::name(DOOMED, &at);
            verified.found(DOOMED, name, "what is to be removed has no tombstone");
        }
    }
}
