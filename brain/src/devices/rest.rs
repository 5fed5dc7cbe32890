//! Twins whose device was retired, or whose group was deleted.

use std::time::Duration;

use actors::device::DeviceMsg;
use actors::supervise::{DynamicSupervisor, Node};
use protocol::history::{Genesis, TreeKind};
use protocol::{DeviceId, SyncError};
use tokio::time::timeout;

use super::Devices;
use crate::store::Tombstone;

/// How long a twin may take to tell its connections why they end. They hear of it all the same when it
/// is gone.
const TOLD_WITHIN: Duration = Duration::from_secs(1);
/// How long it may take to be gone.
const GONE_WITHIN: Duration = Duration::from_secs(3);

impl Devices {
    /// Has the twin of what was retired end its connections and leave the tree, where it is there.
    pub async fn lay_to_rest(&self, tombstone: &Tombstone) {
        let why = tombstone.to_sync_error();
        match &tombstone.device {
            Some(former) => {
                end(self.shard(former.device), &former.device.to_string(), why).await;
            }
            None => end(&self.groups, &tombstone.genesis.name, why).await,
        }
    }

    /// The beginning of a device's tree.
    pub fn genesis(&self, device: DeviceId) -> Genesis {
        Genesis { kind: TreeKind::Device, fleet: self.fleet, name: device.to_string() }
    }
}

async fn end<N: Node<Msg = DeviceMsg>>(set: &DynamicSupervisor<N>, id: &str, error: SyncError) {
    let Some(twin) = set.find(id) else { return };
    let tell = |reply| DeviceMsg::Retired { error, reply };
    if let Err(error) = twin.ask(tell, TOLD_WITHIN).await {
        tracing::debug!(tree = id, %error, "a twin ends without a word");
    }
    if timeout(GONE_WITHIN, set.stop_child(id)).await.is_err() {
        tracing::warn!(tree = id, "a twin takes its time to end");
    }
}
