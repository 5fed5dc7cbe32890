//! Finding the twin of a device, or of a group.

mod groups;
mod rest;

use std::sync::Arc;
use std::time::Duration;

use actors::device::{
    BrainAuthor, Clock, Commits, DeviceActor, DeviceArgs, DeviceMsg, GroupActor, TreeOf,
};
use actors::ports::{ConflictDesk, ReadError, TreeStore};
use actors::supervise::{
    Address, AskError, Child, ChildPolicy, DynamicSupervisor, SetPolicy, StartChildError,
    Supervisor, TreeView,
};
use protocol::error::Cause;
use protocol::{DeviceId, ErrorCode, ErrorSource, FleetId, Layer, SyncError};

use crate::config::Supervision;
use crate::store::{DeviceRecord, Store, Tombstone, not_found};

/// So many supervisors share the twins: none is a bottleneck, and one that gives up takes only
/// its own share along.
pub(crate) const SHARDS: usize = 8;
/// Where they are in the tree.
const BRANCH: &str = "brain/devices";
/// So many twins may be in the tree at once, most of them passive.
const TWINS_MAX: usize = 100_000;

/// The twins of the fleet, by device, and those of its groups.
#[derive(Clone)]
pub struct Devices {
    shards: Arc<[DynamicSupervisor<DeviceActor>]>,
    groups: DynamicSupervisor<GroupActor>,
    policy: SetPolicy,
    fleet: FleetId,
    brain: BrainAuthor,
    store: Store,
    /// The same, as twins see it.
    trees: Arc<dyn TreeStore>,
    conflicts: Arc<dyn ConflictDesk>,
    clock: Arc<dyn Clock>,
    tree: TreeView,
}

/// Why a twin cannot be reached.
#[derive(Debug, thiserror::Error)]
pub enum TwinError {
    /// The device is not of this fleet.
    #[error("device {device} is not enrolled")]
    Unknown {
        /// The device.
        device: DeviceId,
    },
    /// There is no such group.
    #[error("there is no group {name:?}")]
    UnknownGroup {
        /// The group.
        name: String,
    },
    /// The device was retired, or the group deleted.
    #[error("{}", tombstone.to_sync_error().message)]
    Retired {
        /// What is left of it.
        tombstone: Box<Tombstone>,
    },
    /// Its record cannot be read.
    #[error("the device's record cannot be read")]
    Read(#[from] ReadError),
    /// Its actor cannot be started.
    #[error("the device's actor cannot be started")]
    Start(#[from] StartChildError),
    /// Its actor gave no answer.
    #[error("the device's actor did not answer")]
    Ask(#[from] AskError),
}

impl TwinError {
    /// The error as peers and clients see it.
    pub fn to_sync_error(&self) -> SyncError {
        let origin = ErrorSource::new(Layer::Brain, "devices", "reach twin");
        match self {
            Self::Unknown { device } => not_found(&format!("device {device}")),
            Self::UnknownGroup { name } => not_found(&format!("group {name:?}")),
            Self::Retired { tombstone } => tombstone.to_sync_error(),
            Self::Read(error) => {
                let text = "the device's record cannot be read";
                let cause = Cause::new(Layer::Brain, "devices", "reach twin", text);
                error.to_sync_error().within(cause)
            }
            Self::Start(_) | Self::Ask(_) => {
                let text = protocol::session::with_causes(self);
                SyncError::new(ErrorCode::Overloaded, origin, text)
            }
        }
    }
}

impl Devices {
    /// The twins, with what each is started from.
    pub fn new(
        fleet: FleetId,
        brain: BrainAuthor,
        store: Store,
        conflicts: Arc<dyn ConflictDesk>,
        clock: Arc<dyn Clock>,
        tree: TreeView,
        rules: &Supervision,
    ) -> Self {
        let Supervision { devices, shard, device, .. } = *rules;
        let shard = |_| DynamicSupervisor::new(shard, device, TWINS_MAX / SHARDS);
        let groups = DynamicSupervisor::new(rules.shard, rules.device, groups::GROUPS_MAX);
        let shards = (0..SHARDS).map(shard).collect();
        let trees = Arc::new(store.clone());
        Self { shards, groups, policy: devices, fleet, brain, trees, store, conflicts, clock, tree }
    }

    /// The branch of the supervision tree that holds them.
    pub fn supervisor(&self) -> Supervisor {
        let set = Supervisor::new(self.policy);
        let set = self.shards.iter().enumerate().fold(set, |set, (n, shard)| {
            set.child(Child::dynamic(format!("shard-{n}"), ChildPolicy::supervisor(), shard))
        });
        set.child(Child::dynamic("groups", ChildPolicy::supervisor(), &self.groups))
    }

    /// The twin of an enrolled device, started where it is not in memory.
    pub fn twin(&self, device: DeviceId) -> Result<Address<DeviceMsg>, TwinError> {
        if let Some(address) = self.running(device) {
            return Ok(address);
        }
        match self.store.device(device)? {
            Some(record) => self.twin_of(&record),
            None => Err(self.missing(device)),
        }
    }

    /// The twin of a device whose record is at hand.
    pub fn twin_of(&self, record: &DeviceRecord) -> Result<Address<DeviceMsg>, TwinError> {
        let device = record.device;
        let of = || TreeOf::Device { device, keys: vec![record.key] };
        let args = || self.args_of(of());
        let twin = self.shard(device).ensure_child(device.to_string(), args)?;
        // Whoever retires it ends the twin that is there then: this one may have come after that.
        match self.store.device(device)? {
            Some(_) => Ok(twin),
            None => Err(self.missing(device)),
        }
    }

    fn missing(&self, device: DeviceId) -> TwinError {
        match self.store.tombstone_of(device) {
            Ok(Some(tombstone)) => TwinError::Retired { tombstone: Box::new(tombstone) },
            Ok(None) => TwinError::Unknown { device },
            Err(error) => error.into(),
        }
    }

    fn args_of(&self, of: TreeOf) -> Arc<DeviceArgs> {
        Arc::new(DeviceArgs {
            of,
            fleet: self.fleet,
            brain: self.brain.clone(),
            store: self.trees.clone(),
            conflicts: self.conflicts.clone(),
            clock: self.clock.clone(),
            epochs: crate::random_epoch,
            commits: Commits::default(),
        })
    }

    /// The twin of a device, where it is in memory.
    pub fn running(&self, device: DeviceId) -> Option<Address<DeviceMsg>> {
        self.shard(device).find(&device.to_string()).filter(|address| !address.is_down())
    }

    /// How long the twin of a device will still be left alone; none where it is not quarantined.
    pub fn quarantined_for(&self, device: DeviceId) -> Option<Duration> {
        self.tree.quarantined_for(&self.path(device))
    }

    /// The place of a device's twin in the tree.
    pub fn path(&self, device: DeviceId) -> String {
        format!("{BRANCH}/shard-{}/{device}", self.shard_of(device))
    }

    /// Has a twin leave the tree that nobody has needed for long. One that is in memory stays.
    pub fn dismiss(&self, device: DeviceId) {
        self.shard(device).dismiss_child(&device.to_string());
    }

    /// How many twins are in the tree.
    pub fn len(&self) -> usize {
        self.shards.iter().map(DynamicSupervisor::len).sum()
    }

    /// Whether no twin is in the tree.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn shard(&self, device: DeviceId) -> &DynamicSupervisor<DeviceActor> {
        &self.shards[self.shard_of(device)]
    }

    fn shard_of(&self, device: DeviceId) -> usize {
        // Device ids are hashes or random: any byte spreads them evenly.
        usize::from(device.0[15]) % self.shards.len()
    }
}
