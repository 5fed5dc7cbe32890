//! One change of a tree, and the tree's deterministic beginning.

use serde::{Deserialize, Serialize};

use super::VersionVector;
use crate::canonical::Writer;
use crate::clock::{ClockQuality, Hlc};
use crate::state::{StateDelta, StateSource};
use crate::{DeviceId, EntryId, FleetId, PublicKey, TreeId};

/// The most bytes that an entry's canonical form may take.
pub const ENTRY_BYTES_MAX: usize = 32 << 10;
/// The most bytes of a principal or a reason.
pub const TEXT_BYTES_MAX: usize = 512;

/// The longest name of a shared tree.
pub const SHARED_NAME_BYTES_MAX: usize = 64;

/// What kind of document a tree is, and so who may write what in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TreeKind {
    /// The tree of one device.
    Device,
    /// A tree that the members of a group share.
    Group,
    /// A tree that the members of a site share.
    Site,
}

impl TreeKind {
    fn number(self) -> u8 {
        match self {
            Self::Device => 1,
            Self::Group => 2,
            Self::Site => 3,
        }
    }
}

/// A tree's beginning. Its content is deterministic, so that two sides that create the same tree
/// apart have created one tree.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Genesis {
    /// The kind.
    pub kind: TreeKind,
    /// The fleet.
    pub fleet: FleetId,
    /// The name: a device's, group's or site's id in its printed form.
    pub name: String,
}

impl Genesis {
    /// The id of the tree that begins so.
    pub fn tree_id(&self) -> TreeId {
        let mut writer = Writer::new("fleet-genesis-v1");
        writer.u8(self.kind.number()).raw(&self.fleet.0).text(&self.name);
        TreeId(writer.hash())
    }

    /// Whether the name is one that a shared tree may have: 1 to [`SHARED_NAME_BYTES_MAX`] of
    /// small letters, digits, `-`, `_` and `.`, with a letter or a digit first; and no device's id.
    pub fn has_fitting_name(&self) -> bool {
        let name = self.name.as_bytes();
        let plain = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        name.len() <= SHARED_NAME_BYTES_MAX
            && name.first().is_some_and(plain)
            && name.iter().all(|byte| plain(byte) || b"-_.".contains(byte))
            && self.name.parse::<DeviceId>().is_err()
    }
}

/// A log: the entries of one author key in one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct LogId {
    /// The key that signs the log's heads.
    pub author: PublicKey,
    /// 64 random bits. A new epoch begins a new log.
    pub epoch: u64,
}

impl LogId {
    /// Adds the id to canonical bytes.
    pub fn write_canonical(&self, writer: &mut Writer) {
        writer.raw(&self.author.0).u64(self.epoch);
    }
}

/// What an entry does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct EntryKind(pub u16);

impl EntryKind {
    /// Changes leaves.
    pub const STATE: Self = Self(0);

    /// Whether this release can fold it. Others are kept and relayed as they are.
    pub fn is_known(self) -> bool {
        self == Self::STATE
    }
}

/// Who made a change, and why.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Provenance {
    /// Where it comes from.
    pub source: StateSource,
    /// Which person or program: `user:ada`, `sensor:cpu_thermal`.
    pub principal: String,
    /// Why.
    pub reason: String,
}

impl Provenance {
    /// A change from `source` by `principal` for `reason`.
    pub fn new(source: StateSource, principal: &str, reason: &str) -> Self {
        Self { source, principal: principal.to_owned(), reason: reason.to_owned() }
    }
}

/// One change of a tree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The tree.
    pub tree: TreeId,
    /// The log.
    pub log: LogId,
    /// Its number in the log, from 1.
    pub seq: u64,
    /// The entry before it; zeros before the first.
    pub prev: EntryId,
    /// How far the author had seen other logs, where that grew since the entry before it.
    pub seen: VersionVector,
    /// When, by the author's clock.
    pub hlc: Hlc,
    /// How good that clock was.
    pub clock: ClockQuality,
    /// Who and why.
    pub provenance: Provenance,
    /// The version of the conflict policy that the author knew.
    pub policy: u32,
    /// What it does.
    pub kind: EntryKind,
    /// The version of the leaves' schema.
    pub schema: u16,
    /// When an override that it makes ends, in milliseconds since the Unix epoch.
    pub lease_until_ms: Option<u64>,
    /// The leaves that it changes.
    pub delta: StateDelta,
    /// What kinds unknown to this release carry beyond that.
    pub extra: Vec<u8>,
}

impl Entry {
    /// What stands before a log's first entry.
    pub const NO_PREV: EntryId = EntryId([0; 32]);

    /// The bytes that the id covers.
    pub fn canonical(&self) -> Vec<u8> {
        self.writer().finish()
    }

    /// The BLAKE3 hash of the canonical bytes.
    pub fn id(&self) -> EntryId {
        EntryId(self.writer().hash())
    }

    fn writer(&self) -> Writer {
        let mut writer = Writer::new("fleet-entry-v1");
        writer.raw(&self.tree.0);
        self.log.write_canonical(&mut writer);
        writer.u64(self.seq).raw(&self.prev.0);
        self.seen.write_canonical(&mut writer);
        writer.u64(self.hlc.wall_ms).u32(self.hlc.counter).u8(self.clock.number());
        writer
            .u8(self.provenance.source.number())
            .text(&self.provenance.principal)
            .text(&self.provenance.reason);
        writer.u32(self.policy).u16(self.kind.0).u16(self.schema);
        match self.lease_until_ms {
            Some(until) => writer.u8(1).u64(until),
            None => writer.u8(0),
        };
        self.delta.write_canonical(&mut writer);
        writer.bytes(&self.extra);
        writer
    }
}
