//! What is left of devices that were retired, and of groups that were deleted.
//!
//! A tombstone keeps the last version, and sees to it that nothing begins anew under the same id or
//! name. It takes the place of the device, or of the group, in one batch; what the tree leaves
//! behind is removed after that, in small steps that go on after a restart.

use actors::ports::{ReadError, TreeNumber, TreeRecord};
use jiff::Timestamp;
use protocol::history::{Genesis, Tree, TreeKind};
use protocol::state::Version;
use protocol::{DeviceId, ErrorCode, ErrorSource, Layer, PublicKey, SyncError};
use rocksdb::{Direction, WriteBatch};
use serde::{Deserialize, Serialize};

use super::rocks::{
    DEVICES, DOOMED, GROUPS, LAST_TREE, MEMBERSHIPS, META, Reach, Rocks, TOMBSTONES, TREE_IDS,
    TREES,
};
use super::{DeviceRecord, Store, audit, groups, keys};

/// What is left of a device or of a group.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tombstone {
    /// The beginning of its tree, with its id or its name.
    pub genesis: Genesis,
    /// The store's number of the tree; none where nothing was ever written.
    pub tree: Option<TreeNumber>,
    /// The last version of the tree; 0 where it had none, or where that could not be read any more.
    pub version: Version,
    /// The root hash of its leaves at that version, where they could be read.
    pub root: Option<[u8; 32]>,
    /// When it was retired, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who retired it.
    pub principal: String,
    /// Why.
    pub reason: String,
    /// Who the device was; none where it was a group.
    pub device: Option<FormerDevice>,
}

/// Who a retired device was.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FormerDevice {
    /// Its id.
    pub device: DeviceId,
    /// What people called it.
    pub name: String,
    /// The key that spoke for it.
    pub key: PublicKey,
    /// SHA-256 of its API key's secret: by that it is told from a stranger.
    pub api_key_sha256: [u8; 32],
    /// When it had joined, in milliseconds since the Unix epoch.
    pub enrolled_ms: u64,
}

/// The order to put a tombstone in the place of a device or of a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Burial {
    /// The beginning of its tree.
    pub genesis: Genesis,
    /// The time, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Who wants it.
    pub principal: String,
    /// Why.
    pub reason: String,
}

impl Tombstone {
    /// What whoever asks for the device or the group is told.
    pub fn to_sync_error(&self) -> SyncError {
        let Self { genesis, version, at_ms, principal, reason, device, .. } = self;
        let moment = i64::try_from(*at_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
        let at = moment.map_or_else(|| format!("{at_ms} ms"), |moment| format!("{moment:.0}"));
        let what = match device {
            Some(device) => format!("device {} ({}) was retired", device.device, device.name),
            None => format!("group {:?} was deleted", genesis.name),
        };
        let text = format!("{what} at {at} by {principal}, at version {version}: {reason}");
        SyncError::new(ErrorCode::Retired, ErrorSource::new(Layer::Store, "read", "look up"), text)
    }
}

/// Where the tombstone of a tree is.
pub(super) fn key(genesis: &Genesis) -> Vec<u8> {
    key_of(genesis.kind, &genesis.name)
}

fn key_of(kind: TreeKind, name: &str) -> Vec<u8> {
    [&[kind_byte(kind)][..], name.as_bytes()].concat()
}

fn kind_byte(kind: TreeKind) -> u8 {
    match kind {
        TreeKind::Device => b'd',
        TreeKind::Group => b'g',
        TreeKind::Site => b's',
    }
}

/// Whether a tree has a tombstone. One that cannot be read is one.
pub(super) fn is_buried(rocks: &Rocks, kind: TreeKind, name: &str) -> bool {
    !matches!(rocks.get::<Tombstone>(TOMBSTONES, &key_of(kind, name)), Ok(None))
}

/// Adds a burial to a batch, which has to be the only one that is not written yet: what it reads is
/// the last of the tree. Says which tree ends; none where there is nothing to bury.
pub(super) fn add(
    rocks: &Rocks,
    batch: &mut WriteBatch,
    burial: Burial,
) -> Result<Option<Option<TreeNumber>>, ReadError> {
    let Burial { genesis, at_ms, mut principal, mut reason } = burial;
    let (key, tree_id) = (key(&genesis), genesis.tree_id());
    if rocks.get::<Tombstone>(TOMBSTONES, &key)?.is_some() {
        return Ok(None);
    }
    let device = match genesis.name.parse::<DeviceId>() {
        Ok(device) if genesis.kind == TreeKind::Device => {
            let Some(record) = rocks.get::<DeviceRecord>(DEVICES, &device.0)? else {
                return Ok(None);
            };
            let DeviceRecord { name, key, api_key_sha256, enrolled_ms, .. } = record;
            Some(FormerDevice { device, name, key, api_key_sha256, enrolled_ms })
        }
        _ => match rocks.get::<TreeNumber>(GROUPS, genesis.name.as_bytes())? {
            Some(_) => None,
            None => return Ok(None),
        },
    };
    let tree = rocks.get::<TreeNumber>(TREE_IDS, &tree_id.0)?;
    let highest = rocks.last_tree_number()?;
    let (version, last) = tree.map_or((0, None), |number| last_of(rocks, number, &genesis));
    // From here on nothing is read: all of it is in the batch, or nothing.
    match &device {
        Some(former) => rocks.delete(batch, DEVICES, &former.device.0),
        None => {
            rocks.delete(batch, GROUPS, genesis.name.as_bytes());
            // Those that came in while the others were put out.
            let members = last.iter().flat_map(Tree::members);
            for (key, member) in members.filter(|(_, member)| member.is_current) {
                let row = groups::membership(member.device, *key, &genesis.name);
                rocks.delete(batch, MEMBERSHIPS, &row);
            }
        }
    }
    if let Some(number) = tree {
        // Nobody finds the tree from here on, and no other tree gets its number.
        rocks.put(batch, META, LAST_TREE, &highest.max(number));
        rocks.delete(batch, TREES, &keys::tree(number));
        rocks.delete(batch, TREE_IDS, &tree_id.0);
    }
    let root = last.as_ref().map(Tree::root);
    [&mut principal, &mut reason].into_iter().for_each(audit::shorten);
    let tombstone = Tombstone { genesis, tree, version, root, at_ms, principal, reason, device };
    rocks.put(batch, TOMBSTONES, &key, &tombstone);
    rocks.put(batch, DOOMED, &key, &tree);
    Ok(Some(tree))
}

/// The last version of a tree and what it was then, as far as that can be read: damage is no reason to
/// keep a device.
fn last_of(rocks: &Rocks, number: TreeNumber, genesis: &Genesis) -> (Version, Option<Tree>) {
    let unreadable = |error: ReadError| {
        tracing::error!(tree = genesis.name, %error, "what is retired cannot be read whole");
    };
    let record = rocks.get::<TreeRecord>(TREES, &keys::tree(number)).map_err(unreadable);
    let Ok(Some(TreeRecord { version, logs, .. })) = record else { return (0, None) };
    let leaves = rocks.leaves(Reach::Disk, number).map_err(unreadable);
    let tree = leaves.map(|leaves| Tree::restore(genesis.clone(), logs, leaves));
    (version, tree.ok())
}

impl Store {
    /// The tombstone of a tree. Blocks.
    pub fn tombstone(&self, genesis: &Genesis) -> Result<Option<Tombstone>, ReadError> {
        self.rocks.get(TOMBSTONES, &key(genesis))
    }

    /// The tombstone of a device. Blocks.
    pub fn tombstone_of(&self, device: DeviceId) -> Result<Option<Tombstone>, ReadError> {
        self.rocks.get(TOMBSTONES, &key_of(TreeKind::Device, &device.to_string()))
    }

    /// The tombstone of a group. Blocks.
    pub fn tombstone_of_group(&self, name: &str) -> Result<Option<Tombstone>, ReadError> {
        self.rocks.get(TOMBSTONES, &key_of(TreeKind::Group, name))
    }

    /// The tombstones of devices above an id, by id, at most so many. Blocks.
    pub fn retired_devices(
        &self,
        after: Option<DeviceId>,
        count: usize,
    ) -> Result<Vec<Tombstone>, ReadError> {
        let prefix = kind_byte(TreeKind::Device);
        let name = after.map(|id| id.to_string()).unwrap_or_default();
        let from = key_of(TreeKind::Device, &name);
        let rows = self.rocks.scan::<Tombstone>(TOMBSTONES, &from, Direction::Forward);
        let mut found = Vec::new();
        for row in rows {
            let (key, tombstone) = row?;
            if key.first() != Some(&prefix) || found.len() == count {
                break;
            }
            if after.is_none() || *key != from[..] {
                found.push(tombstone);
            }
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use protocol::FleetId;

    use super::*;

    #[test]
    fn a_tombstone_says_when_by_whom_and_at_which_version() {
        let name = "north".to_owned();
        let tombstone = Tombstone {
            genesis: Genesis { kind: TreeKind::Group, fleet: FleetId([1; 16]), name },
            tree: Some(1),
            version: 7,
            root: None,
            at_ms: 1_700_000_000_000,
            principal: "user:ada".into(),
            reason: "moved".into(),
            device: None,
        };
        let error = tombstone.to_sync_error();
        assert_eq!(error.code, ErrorCode::Retired);
        let text = "group \"north\" was deleted at 2023-11-14T22:13:20Z by user:ada, at version 7: \
                    moved";
        assert_eq!(error.message, text);
    }
}
