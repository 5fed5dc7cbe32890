//! Which groups there are, and who is a member of which: read from the groups' own trees as they
//! change, in the same batch.

use actors::ports::{ReadError, RecordDamage, TreeCommit, TreeNumber};
use protocol::history::{TreeKind, member_of};
use protocol::state::Value;
use protocol::{DeviceId, PublicKey};
use rocksdb::{Direction, WriteBatch};

use super::Store;
use super::rocks::{GROUPS, MEMBERSHIPS, Rocks};

/// Adds to a batch what a commit says of its group.
pub(super) fn add(rocks: &Rocks, batch: &mut WriteBatch, commit: &TreeCommit) {
    let genesis = &commit.record.genesis;
    if genesis.kind != TreeKind::Group {
        return;
    }
    if commit.segments.iter().any(|segment| segment.first_version == 1) {
        rocks.put(batch, GROUPS, genesis.name.as_bytes(), &commit.number);
    }
    for (path, leaf) in &commit.leaves {
        let Some((device, key)) = member_of(path) else { continue };
        let row = membership(device, key, &genesis.name);
        let candidates = leaf.iter().flat_map(|leaf| &leaf.candidates);
        let mut values = candidates.filter_map(|candidate| candidate.value.as_ref());
        match values.any(|value| Value::as_bool(value) == Some(true)) {
            true => rocks.put(batch, MEMBERSHIPS, &row, &()),
            false => rocks.delete(batch, MEMBERSHIPS, &row),
        }
    }
}

/// Where it is kept that a device is a member of a group with a key.
pub(super) fn membership(device: DeviceId, key: PublicKey, group: &str) -> Vec<u8> {
    [&device.0[..], &key.0[..], group.as_bytes()].concat()
}

impl Store {
    /// The tree of a group, where there is such a group.
    pub fn group(&self, name: &str) -> Result<Option<TreeNumber>, ReadError> {
        self.rocks.get(GROUPS, name.as_bytes())
    }

    /// Every group with its tree, by name. Blocks.
    pub fn groups(&self) -> Result<Vec<(String, TreeNumber)>, ReadError> {
        let rows = self.rocks.scan_all(GROUPS);
        rows.map(|row| {
            let (name, number) = row?;
            Ok((text(GROUPS, &name)?, number))
        })
        .collect()
    }

    /// The groups of a device, by name.
    pub fn groups_of(&self, device: DeviceId) -> Result<Vec<String>, ReadError> {
        let mut groups = Vec::new();
        for row in self.rocks.scan::<()>(MEMBERSHIPS, &device.0, Direction::Forward) {
            let (key, ()) = row?;
            let Some(rest) = key.strip_prefix(&device.0) else { break };
            // A key of 32 bytes comes first.
            groups.push(text(MEMBERSHIPS, rest.get(32..).unwrap_or_default())?);
        }
        groups.sort_unstable();
        groups.dedup();
        Ok(groups)
    }
}

fn text(family: &'static str, name: &[u8]) -> Result<String, ReadError> {
    let damage = RecordDamage::Form;
    let damaged = |_| ReadError::Corrupt { family, damage, detail: "the key is no name".into() };
    String::from_utf8(name.to_vec()).map_err(damaged)
}
