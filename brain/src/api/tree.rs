//! The supervision tree.

use actors::supervise::NodeInfo;
use axum::Json;
use axum::extract::State;

use super::Api;

/// Every actor with its status, queue and restarts.
#[utoipa::path(get, path = "/api/v1/tree", security(("bearer" = [])),
    responses((status = 200, description = "The nodes, by path")))]
pub(super) async fn show(State(api): State<Api>) -> Json<Vec<NodeInfo>> {
    Json(api.tree.snapshot())
}
