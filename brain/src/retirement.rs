//! Taking devices out of the fleet, and groups apart.
//!
//! A tombstone takes the place of what was there, in one commit. Before it the device leaves its
//! groups, or the members are put out of theirs; after it nobody is left to speak for it. What the
//! tree leaves behind is [removed](crate::removal) later.

use actors::device::DeviceMsg;
use actors::supervise::Address;
use protocol::history::{Genesis, Provenance};
use protocol::state::StateSource;
use protocol::{DeviceId, ErrorCode, SyncError};

use crate::devices::Devices;
use crate::link::note_groups;
use crate::members::{blocking, members, put_out};
use crate::store::{Burial, Store, Tombstone, not_found};

/// Who retires devices and deletes groups. Cheap to clone.
#[derive(Clone)]
pub struct Retirement {
    /// Where they are kept.
    pub store: Store,
    /// Their twins.
    pub devices: Devices,
}

/// Who wants it, why, and when.
#[derive(Debug, Clone)]
pub struct Order {
    /// Which person or program.
    pub principal: String,
    /// Why.
    pub reason: String,
    /// The time, in milliseconds since the Unix epoch.
    pub at_ms: u64,
}

impl Order {
    fn provenance(&self) -> Provenance {
        let (principal, reason) = (self.principal.clone(), self.reason.clone());
        Provenance { source: StateSource::Operator, principal, reason }
    }
}

impl Retirement {
    /// Retires a device: from when this is done, its key opens nothing, and its session is over.
    pub async fn device(&self, device: DeviceId, order: Order) -> Result<Tombstone, SyncError> {
        let store = self.store.clone();
        blocking(move || match store.device(device).map_err(|error| error.to_sync_error())? {
            Some(_) => Ok(()),
            None => Err(missing(&store, device)),
        })
        .await?;
        // A group that cannot be reached now is left later: the key is to be worth nothing at once.
        if let Err(error) = self.leave_groups(device, order.provenance()).await {
            tracing::warn!(%device, %error, "a retired device leaves its groups later");
        }
        let genesis = self.devices.genesis(device);
        let missing = || not_found(&format!("device {device}"));
        let tombstone = self.bury(genesis, order).await?.ok_or_else(missing)?;
        tracing::warn!(%device, version = tombstone.version, "device is retired");
        Ok(tombstone)
    }

    /// Deletes a group, after its members were put out.
    pub async fn group(&self, name: &str, order: Order) -> Result<Tombstone, SyncError> {
        let genesis = self.devices.group_genesis(name);
        let (store, group) = (self.store.clone(), name.to_owned());
        for member in blocking(move || members(&store, &group)).await? {
            let device = member.0;
            put_out(&self.devices, name, member, order.provenance()).await?;
            if let Err(error) = self.note_groups(device, order.provenance()).await {
                // It hears of it when it connects.
                tracing::debug!(%device, %error, "a member is not told that its group ends");
            }
        }
        let missing = || not_found(&format!("group {name:?}"));
        let tombstone = self.bury(genesis, order).await?.ok_or_else(missing)?;
        tracing::warn!(group = name, version = tombstone.version, "group is deleted");
        Ok(tombstone)
    }

    /// Has a device leave the groups that it is in, with every key.
    pub async fn leave_groups(
        &self,
        device: DeviceId,
        provenance: Provenance,
    ) -> Result<(), SyncError> {
        let store = self.store.clone();
        let memberships = blocking(move || {
            let groups = store.groups_of(device).map_err(|error| error.to_sync_error())?;
            let mut found = Vec::new();
            for group in groups {
                let members = match members(&store, &group) {
                    Ok(members) => members,
                    // It was deleted meanwhile.
                    Err(error)
                        if [ErrorCode::NotFound, ErrorCode::Retired].contains(&error.code) =>
                    {
                        continue;
                    }
                    Err(error) => return Err(error),
                };
                let of_it = members.into_iter().filter(|(of, _)| *of == device);
                found.extend(of_it.map(|member| (group.clone(), member)));
            }
            Ok(found)
        });
        for (group, member) in memberships.await? {
            put_out(&self.devices, &group, member, provenance.clone()).await?;
        }
        Ok(())
    }

    async fn bury(&self, genesis: Genesis, order: Order) -> Result<Option<Tombstone>, SyncError> {
        let Order { principal, reason, at_ms } = order;
        let store = self.store.clone();
        let burial = Burial { genesis, at_ms, principal, reason };
        let buried = blocking(move || store.bury(burial).map_err(|error| error.to_sync_error()));
        let Some(tombstone) = buried.await? else { return Ok(None) };
        self.devices.lay_to_rest(&tombstone).await;
        Ok(Some(tombstone))
    }

    async fn note_groups(&self, device: DeviceId, provenance: Provenance) -> Result<(), SyncError> {
        let devices = self.devices.clone();
        let twin = blocking(move || devices.twin(device).map_err(|error| error.to_sync_error()));
        let twin: Address<DeviceMsg> = twin.await?;
        note_groups(&self.store, &twin, device, true, provenance).await
    }
}

/// The error of a device that is not there, or not there any more. Blocks.
fn missing(store: &Store, device: DeviceId) -> SyncError {
    match store.tombstone_of(device) {
        Ok(Some(tombstone)) => tombstone.to_sync_error(),
        Ok(None) => not_found(&format!("device {device}")),
        Err(error) => error.to_sync_error(),
    }
}
