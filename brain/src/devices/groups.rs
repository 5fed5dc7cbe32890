//! The twins of groups.

use std::time::Duration;

use actors::device::{DeviceMsg, TreeOf};
use actors::supervise::Address;
use protocol::DeviceId;
use protocol::history::{Genesis, TreeKind};

use super::{BRANCH, Devices, TwinError};

/// The most groups.
pub(super) const GROUPS_MAX: usize = 1_000;

impl Devices {
    /// The twin of a group. Blocks.
    pub fn group(&self, name: &str) -> Result<Address<DeviceMsg>, TwinError> {
        let is_there = self.store.group(name)?.is_some();
        if !is_there && self.store.tombstone_of_group(name)?.is_none() {
            return Err(TwinError::UnknownGroup { name: name.to_owned() });
        }
        self.group_to_be(name)
    }

    /// The twin of a group that may not be there yet: its first entry makes it. Blocks.
    pub fn group_to_be(&self, name: &str) -> Result<Address<DeviceMsg>, TwinError> {
        if let Some(tombstone) = self.store.tombstone_of_group(name)? {
            return Err(TwinError::Retired { tombstone: Box::new(tombstone) });
        }
        let args = || self.args_of(TreeOf::Group { name: name.to_owned() });
        Ok(self.groups.ensure_child(name, args)?)
    }

    /// How long the twin of a group will still be left alone; none where it is not quarantined.
    pub fn group_quarantined_for(&self, name: &str) -> Option<Duration> {
        self.tree.quarantined_for(&format!("{BRANCH}/groups/{name}"))
    }

    /// The beginning of a group's tree.
    pub fn group_genesis(&self, name: &str) -> Genesis {
        Genesis { kind: TreeKind::Group, fleet: self.fleet, name: name.to_owned() }
    }

    /// The place in the tree of the actor that keeps a tree.
    pub fn path_of(&self, genesis: &Genesis) -> String {
        match genesis.name.parse::<DeviceId>() {
            Ok(device) if genesis.kind == TreeKind::Device => self.path(device),
            _ => format!("{BRANCH}/groups/{}", genesis.name),
        }
    }

    /// The twin that keeps a tree. Blocks.
    pub fn keeper_of(&self, genesis: &Genesis) -> Result<Address<DeviceMsg>, TwinError> {
        match genesis.name.parse::<DeviceId>() {
            Ok(device) if genesis.kind == TreeKind::Device => self.twin(device),
            _ => self.group(&genesis.name),
        }
    }
}
