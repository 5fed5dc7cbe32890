//! Is it alive, is it ready, what has it done.

use axum::Json;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use serde::Serialize;
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::consistency::ConsistencyReport;
use crate::store::StoreHealth;

/// Which part is ready.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Readiness {
    /// Whether all of them are.
    ready: bool,
    /// `ok`, or why the store takes no writes.
    store: String,
}

/// Whether the process runs.
#[utoipa::path(get, path = "/healthz", responses((status = 200)))]
pub(super) async fn live() -> &'static str {
    "ok\n"
}

/// Whether the brain takes writes, and if not, which part does not.
#[utoipa::path(get, path = "/readyz", responses(
    (status = 200, body = Readiness), (status = 503, body = Readiness)))]
pub(super) async fn ready(State(api): State<Api>) -> impl IntoResponse {
    let (ready, store) = match api.store.health() {
        StoreHealth::Ok => (true, "ok".to_owned()),
        StoreHealth::DiskFull => (false, "disk full: writes are refused, reads go on".to_owned()),
        StoreHealth::Failed { fault, .. } => (false, format!("failed: {fault}")),
    };
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(Readiness { ready, store }))
}

/// What was counted since the start, for Prometheus.
#[utoipa::path(get, path = "/metrics", security(("bearer" = [])), responses((status = 200)))]
pub(super) async fn metrics(State(api): State<Api>) -> Result<impl IntoResponse, Problem> {
    // Looks at every actor and device.
    let scraped = tokio::task::spawn_blocking(move || api.meters.scrape()).await?;
    Ok(([(header::CONTENT_TYPE, telemetry::TEXT_CONTENT_TYPE)], scraped))
}

/// Whether what is kept is what the histories come to, as far as the brain has looked.
#[utoipa::path(get, path = "/api/v1/consistency", security(("bearer" = [])),
    responses((status = 200, body = ConsistencyReport)))]
pub(super) async fn consistency(State(api): State<Api>) -> Json<ConsistencyReport> {
    Json(api.findings.report())
}
