//! The whole fleet, or the part of it that a query means.

use std::sync::Arc;

use actors::device::Clock as _;
use actors::ports::ReadError;
use axum::extract::{Query, State};
use axum::response::Response;
use protocol::state::{StateSource, Version};
use protocol::{DeviceId, SyncError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::devices::{StateQuery, which_version};
use super::etag::parse_query;
use super::{Api, Problem, lines};
use crate::selection::Selection;
use crate::store::{DeviceRecord, TreeAt, WhichVersion};

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct FleetQuery {
    /// Which devices, such as `tags/site = north and online`; all if not given.
    query: Option<String>,
    /// What the brain had committed at this time (RFC 3339).
    at: Option<String>,
    /// What had happened by this time, by the authors' clocks (RFC 3339).
    happened_at: Option<String>,
}

/// A device's state, on a line of its own.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct FleetLine {
    /// The device.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// What people call it.
    pub name: String,
    /// The version of its tree; 0 where it had none.
    #[schema(value_type = u64)]
    pub version: Version,
    /// When that was committed, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// Where its last change came from.
    #[schema(value_type = Option<String>)]
    pub source: Option<StateSource>,
    /// The root hash.
    pub root: Option<String>,
    /// The leaves.
    #[schema(value_type = Object)]
    pub state: protocol::state::State,
    /// Why it cannot be shown.
    #[schema(value_type = Object)]
    pub error: Option<SyncError>,
}

/// The states of the devices that a query means, now or at a time: a line of JSON each, as they are
/// read.
#[utoipa::path(get, path = "/api/v1/fleet/state", params(FleetQuery), security(("bearer" = [])),
    responses((status = 200, content_type = "application/x-ndjson", body = FleetLine),
        (status = 400)))]
pub(super) async fn state(
    State(api): State<Api>,
    Query(FleetQuery { query, at, happened_at }): Query<FleetQuery>,
) -> Result<Response, Problem> {
    let query = parse_query(&query.unwrap_or_default())?;
    let which = which_version(StateQuery { version: None, at, happened_at })?;
    if which != WhichVersion::Latest && query.looks_at().at_presence {
        return Err(Problem::bad_request("check query", "who was online is known of now only"));
    }
    let selection = Selection {
        now_ms: api.clock.now().wall_ms,
        fleet: api.identity.fleet,
        store: api.store,
        presence: api.presence,
        query,
        which,
    };
    lines::answer(move |lines| {
        // Asked by two closures, one after the other.
        let lines = std::cell::RefCell::new(lines);
        let wanted = || !lines.borrow().is_closed();
        let show = |record: DeviceRecord, state| lines.borrow_mut().line(&line(&record, state));
        let read = selection.each(None, wanted, show);
        lines.into_inner().end(read);
    })
}

fn line(record: &DeviceRecord, state: Result<Option<Arc<TreeAt>>, ReadError>) -> FleetLine {
    let (state, error) = match state {
        Ok(state) => (state, None),
        Err(error) => (None, Some(error.to_sync_error())),
    };
    FleetLine {
        device: record.device,
        name: record.name.clone(),
        version: state.as_ref().map_or(0, |state| state.version),
        timestamp: state.as_ref().map_or(0, |state| state.committed_ms),
        source: state.as_ref().map(|state| state.source),
        root: state.as_ref().map(|state| data_encoding::HEXLOWER.encode(&state.root)),
        state: state.map(|state| state.state.clone()).unwrap_or_default(),
        error,
    }
}
