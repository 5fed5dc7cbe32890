//! Who is in a group, and putting devices out of it.

use std::time::Duration;

use actors::device::{DeviceMsg, WriteOutcome};
use actors::ports::ReadError;
use actors::supervise::AskError;
use protocol::history::{Member, Provenance};
use protocol::{DeviceId, ErrorCode, ErrorSource, Layer, PublicKey, SyncError};

use crate::devices::{Devices, TwinError};
use crate::store::{Store, not_found};

/// How long a write may take: an `fsync` on a slow disk under load, many times over.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// The members of a group with their keys, by device. Blocks.
pub fn members(store: &Store, group: &str) -> Result<Vec<(DeviceId, PublicKey)>, SyncError> {
    let failed = |error: ReadError| error.to_sync_error();
    let missing = || match store.tombstone_of_group(group) {
        Ok(Some(tombstone)) => tombstone.to_sync_error(),
        Ok(None) => not_found(&format!("group {group:?}")),
        Err(error) => failed(error),
    };
    let number = store.group(group).map_err(failed)?.ok_or_else(missing)?;
    let (_, tree) = store.replica(number).map_err(failed)?.ok_or_else(missing)?;
    let current = tree.members().filter(|(_, member): &(_, &Member)| member.is_current);
    let mut members: Vec<_> = current.map(|(key, member)| (member.device, *key)).collect();
    members.sort_unstable();
    Ok(members)
}

/// Ends a device's membership with a key: what it wrote stays, and its logs end there. Its own tree is
/// not told.
pub async fn put_out(
    devices: &Devices,
    group: &str,
    (device, key): (DeviceId, PublicKey),
    provenance: Provenance,
) -> Result<WriteOutcome, SyncError> {
    let (finding, name) = (devices.clone(), group.to_owned());
    let twin = blocking(move || finding.group(&name).map_err(|e| e.to_sync_error())).await?;
    let is_current = false;
    let set = |reply| DeviceMsg::SetMember { device, key, is_current, provenance, reply };
    let answer = twin.ask(set, WRITE_TIME_MAX).await;
    answer.map_err(|error: AskError| TwinError::from(error).to_sync_error())?
}

/// Does something that blocks off the runtime.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, SyncError> + Send + 'static,
) -> Result<T, SyncError> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| {
        let origin = ErrorSource::new(Layer::Brain, "task", "wait");
        Err(SyncError::new(ErrorCode::Internal, origin, format!("a task ended: {error}")))
    })
}
