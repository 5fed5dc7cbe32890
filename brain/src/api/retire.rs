//! Retiring devices, deleting groups, and what is left of them.

use actors::device::Clock as _;
use axum::extract::{Path, Query, State};
use axum::{Extension, Json};
use data_encoding::HEXLOWER;
use protocol::state::Version;
use protocol::{DeviceId, PublicKey};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::auth::Principal;
use super::devices::{DeviceList, parse_id};
use super::etag::NoCondition;
use super::{Api, Problem};
use crate::retirement::{Order, Retirement};
use crate::store::Tombstone;

/// What is left of a device that was retired, or of a group that was deleted.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct TombstoneView {
    /// The device's id, or the group's name.
    pub id: String,
    /// What people called the device; the group's name.
    pub name: String,
    /// The last version of its tree.
    #[schema(value_type = u64)]
    pub version: Version,
    /// The root hash of the tree at that version, where it could be read.
    pub root: Option<String>,
    /// When it was retired, in milliseconds since the Unix epoch.
    pub retired: u64,
    /// Who retired it.
    pub principal: String,
    /// Why.
    pub reason: String,
    /// The key that spoke for the device; none of a group.
    #[schema(value_type = Option<String>)]
    pub key: Option<PublicKey>,
    /// When the device had joined, in milliseconds since the Unix epoch; none of a group.
    pub enrolled: Option<u64>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RetireQuery {
    /// Why: it is told to whoever asks later.
    reason: Option<String>,
}

/// Retire a device: it leaves its groups, its session ends, its key opens nothing any more, and what the
/// brain has of it is removed, but for a tombstone.
#[utoipa::path(delete, path = "/api/v1/devices/{id}", params(("id" = String, Path), RetireQuery),
    security(("bearer" = [])), responses((status = 200, body = TombstoneView), (status = 400),
        (status = 404), (status = 410, description = "It was retired before")))]
pub(super) async fn retire_device(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<RetireQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
) -> Result<Json<TombstoneView>, Problem> {
    let device = parse_id(&id)?;
    let order = query.order(&api, principal)?;
    Ok(Json(retirement(api).device(device, order).await?.into()))
}

/// Delete a group: its members are put out, and its tree is removed, but for a tombstone. No other group
/// can have its name.
#[utoipa::path(delete, path = "/api/v1/groups/{group}",
    params(("group" = String, Path), RetireQuery), security(("bearer" = [])),
    responses((status = 200, body = TombstoneView), (status = 400), (status = 404),
        (status = 410, description = "It was deleted before")))]
pub(super) async fn delete_group(
    State(api): State<Api>,
    Path(name): Path<String>,
    Query(query): Query<RetireQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
) -> Result<Json<TombstoneView>, Problem> {
    let order = query.order(&api, principal)?;
    Ok(Json(retirement(api).group(&name, order).await?.into()))
}

/// The devices that were retired, by id, those above `after`.
pub(super) async fn list(
    api: Api,
    after: Option<DeviceId>,
    limit: usize,
) -> Result<DeviceList, Problem> {
    // One more says whether there are more.
    let read = move || api.store.retired_devices(after, limit + 1);
    let mut found = tokio::task::spawn_blocking(read).await??;
    let more = found.len() > limit;
    found.truncate(limit);
    let retired: Vec<TombstoneView> = found.into_iter().map(TombstoneView::from).collect();
    let next = retired.last().filter(|_| more).map(|last| last.id.clone());
    Ok(DeviceList { devices: Vec::new(), retired, next })
}

fn retirement(api: Api) -> Retirement {
    Retirement { store: api.store, devices: api.devices }
}

impl RetireQuery {
    fn order(self, api: &Api, Principal(principal): Principal) -> Result<Order, Problem> {
        let reason = self.reason.filter(|reason| !reason.trim().is_empty());
        let missing = || Problem::bad_request("read query", "say why: ?reason=…");
        let at_ms = api.clock.now().wall_ms;
        Ok(Order { principal, reason: reason.ok_or_else(missing)?, at_ms })
    }
}

impl From<Tombstone> for TombstoneView {
    fn from(tombstone: Tombstone) -> Self {
        let Tombstone { genesis, tree: _, version, root, at_ms, principal, reason, device } =
            tombstone;
        let id = genesis.name;
        let (name, key, enrolled) = match device {
            Some(former) => (former.name, Some(former.key), Some(former.enrolled_ms)),
            None => (id.clone(), None, None),
        };
        let root = root.map(|root| HEXLOWER.encode(&root));
        Self { id, name, version, root, retired: at_ms, principal, reason, key, enrolled }
    }
}
