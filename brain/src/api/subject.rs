//! Whose tree a request is about.

use std::fmt;

use actors::device::DeviceMsg;
use actors::ports::TreeNumber;
use actors::supervise::Address;
use axum::Json;
use protocol::DeviceId;
use protocol::history::{Genesis, TreeKind};

use super::{Api, Problem};
use crate::devices::TwinError;
use crate::store::{Store, not_found};

/// A device, or a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    /// A device.
    Device(DeviceId),
    /// A group.
    Group(String),
}

impl Subject {
    /// The device with this id.
    pub(super) fn device(id: &str) -> Result<Self, Problem> {
        super::devices::parse_id(id).map(Self::Device)
    }

    /// The group of this name.
    pub(super) fn group(name: &str) -> Self {
        Self::Group(name.to_owned())
    }

    /// Its tree, where it has one; an error where there is no such device or group. Blocks.
    pub(super) fn tree(&self, api: &Api) -> Result<Option<TreeNumber>, Problem> {
        match self {
            Self::Device(device) => {
                if api.store.device(*device)?.is_none() {
                    return Err(self.missing(&api.store));
                }
                let (kind, fleet) = (TreeKind::Device, api.identity.fleet);
                let genesis = Genesis { kind, fleet, name: device.to_string() };
                Ok(api.store.tree_number(genesis.tree_id())?)
            }
            Self::Group(name) => {
                api.store.group(name)?.map(Some).ok_or_else(|| self.missing(&api.store))
            }
        }
    }

    /// Reads its tree off the runtime.
    pub(super) async fn read<T: Send + 'static>(
        self,
        api: Api,
        read: impl FnOnce(&Store, TreeNumber) -> Result<T, Problem> + Send + 'static,
    ) -> Result<Json<T>, Problem> {
        let answer = tokio::task::spawn_blocking(move || {
            let missing = || Problem::from(not_found(&format!("state of {self}")));
            let found = self.tree(&api)?.ok_or_else(missing);
            let read = found.and_then(|tree| read(&api.store, tree));
            // It may have been retired while it was read.
            read.map_err(|problem| self.retired(&api.store).unwrap_or(problem))
        });
        answer.await?.map(Json)
    }

    /// The actor that keeps its tree.
    pub(super) async fn twin(&self, api: &Api) -> Result<Address<DeviceMsg>, Problem> {
        let (devices, subject) = (api.devices.clone(), self.clone());
        let found = tokio::task::spawn_blocking(move || match &subject {
            Self::Device(device) => devices.twin(*device),
            Self::Group(name) => devices.group(name),
        });
        found.await?.map_err(|error: TwinError| error.into())
    }

    /// The answer where it is not there, or not there any more. Blocks.
    pub(super) fn missing(&self, store: &Store) -> Problem {
        self.retired(store).unwrap_or_else(|| not_found(&self.to_string()).into())
    }

    /// What its tombstone says, where it has one. Blocks.
    fn retired(&self, store: &Store) -> Option<Problem> {
        let tombstone = match self {
            Self::Device(device) => store.tombstone_of(*device),
            Self::Group(name) => store.tombstone_of_group(name),
        };
        match tombstone {
            Ok(tombstone) => tombstone.map(|tombstone| tombstone.to_sync_error().into()),
            Err(error) => Some(error.into()),
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(device) => write!(f, "device {device}"),
            Self::Group(name) => write!(f, "group {name:?}"),
        }
    }
}
