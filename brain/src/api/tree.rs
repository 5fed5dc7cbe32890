//! The supervision tree: who is there, who failed, and what to do about it.

mod events;

use actors::supervise::{CrashQuery, CrashRecord, Dead, Fault, NodeInfo, Rules, Status};
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use protocol::error::Cause;
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{Api, Problem};

pub(super) use events::{__path_events, events};

/// How many crashes are listed if nobody says otherwise.
const CRASHES: usize = 50;
/// The most crashes in one answer.
const CRASHES_MAX: usize = 1_000;

/// Which crashes to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct CrashFilter {
    /// Of this node and all below it.
    path: Option<String>,
    /// At this time or later, in milliseconds since the Unix epoch.
    #[serde(default)]
    since_ms: u64,
    /// How many at most, 1 to 1000; 50 if not given.
    limit: Option<usize>,
}

/// A node that is left alone because it failed too often.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct Quarantined {
    /// Its place in the tree.
    pub path: String,
    /// What it is.
    pub kind: String,
    /// How long it will still be left alone.
    pub remaining_ms: u64,
    /// What it failed with the last time.
    pub reason: Option<String>,
    /// What it was handling then.
    pub message: Option<String>,
}

/// Every actor with its status, queue and restarts.
#[utoipa::path(get, path = "/api/v1/tree", security(("bearer" = [])),
    responses((status = 200, description = "The nodes, by path")))]
pub(super) async fn show(State(api): State<Api>) -> Json<Vec<NodeInfo>> {
    Json(api.tree.snapshot())
}

/// The rules that are in force, from the root down: how each place is restarted, and what its
/// supervisor does when it fails too often.
#[utoipa::path(get, path = "/api/v1/tree/policies", security(("bearer" = [])),
    responses((status = 200, description = "The rules, by place")))]
pub(super) async fn policies(State(api): State<Api>) -> Json<Vec<Rules>> {
    Json(api.rules.get().cloned().unwrap_or_default())
}

/// Stop a node in good order and start it again, with the siblings that its supervisor's strategy
/// names. It costs no budget; a node that waits or is quarantined starts at once.
#[utoipa::path(post, path = "/api/v1/tree/{path}/restart", security(("bearer" = [])),
    params(("path" = String, Path, description = "The node's path, slashes written as %2F")),
    responses((status = 204, description = "It is asked to")))]
pub(super) async fn restart(
    State(api): State<Api>,
    Path(path): Path<String>,
) -> Result<StatusCode, Problem> {
    let node = below_root(&api, &path)?;
    tracing::warn!(path, "a node is restarted on request");
    done(api.tree.restart(&path), &node, "restarted")
}

/// Kill the current life of a node, as a fault would: its supervisor decides what follows.
#[utoipa::path(post, path = "/api/v1/tree/{path}/kill", security(("bearer" = [])),
    params(("path" = String, Path, description = "The node's path, slashes written as %2F")),
    responses((status = 204, description = "It is killed")))]
pub(super) async fn kill(
    State(api): State<Api>,
    Path(path): Path<String>,
) -> Result<StatusCode, Problem> {
    let node = below_root(&api, &path)?;
    tracing::warn!(path, "a node is killed on request");
    done(api.tree.kill(&path), &node, "killed")
}

/// The nodes that left the tree lately, the last one first.
#[utoipa::path(get, path = "/api/v1/tree/dead", security(("bearer" = [])),
    responses((status = 200, description = "The nodes, as they were when they left")))]
pub(super) async fn dead(State(api): State<Api>) -> Json<Vec<Dead>> {
    Json(api.tree.dead())
}

/// Order a fault from a node, in builds for tests.
#[cfg(feature = "chaos")]
pub(super) async fn chaos(
    State(api): State<Api>,
    Path((path, fault)): Path<(String, actors::supervise::Chaos)>,
) -> Result<StatusCode, Problem> {
    let node = below_root(&api, &path)?;
    done(api.tree.order(&path, fault), &node, "made to fail")
}

/// The nodes that failed too often and are left alone for a while.
#[utoipa::path(get, path = "/api/v1/quarantine", security(("bearer" = [])),
    responses((status = 200, body = [Quarantined])))]
pub(super) async fn quarantine(State(api): State<Api>) -> Json<Vec<Quarantined>> {
    let nodes = api.tree.snapshot().into_iter();
    let quarantined = nodes.filter(|node| node.status == Status::Quarantined).map(|node| {
        let left = node.quarantined_for.unwrap_or_default();
        let crash = node.last_crash;
        Quarantined {
            path: node.path.to_string(),
            kind: node.kind.to_owned(),
            remaining_ms: u64::try_from(left.as_millis()).unwrap_or(u64::MAX),
            reason: crash.as_ref().map(|crash| crash.fault.to_string()),
            message: crash.and_then(|crash| crash.label).map(str::to_owned),
        }
    });
    Json(quarantined.collect())
}

/// Let a node out of its quarantine: it starts at once, with a clean record.
#[utoipa::path(post, path = "/api/v1/quarantine/{path}/release", security(("bearer" = [])),
    params(("path" = String, Path, description = "The node's path, slashes written as %2F")),
    responses((status = 204, description = "It is let out")))]
pub(super) async fn release(
    State(api): State<Api>,
    Path(path): Path<String>,
) -> Result<StatusCode, Problem> {
    let node = below_root(&api, &path)?;
    tracing::warn!(path, "a node is let out of its quarantine on request");
    done(api.tree.release(&path), &node, "released")
}

/// What failed, and what was decided about it, newest first.
#[utoipa::path(get, path = "/api/v1/crashes", security(("bearer" = [])), params(CrashFilter),
    responses((status = 200, description = "The crashes, newest first")))]
pub(super) async fn crashes(
    State(api): State<Api>,
    Query(filter): Query<CrashFilter>,
) -> Result<Json<Vec<CrashRecord>>, Problem> {
    let limit = filter.limit.unwrap_or(CRASHES);
    if !(1..=CRASHES_MAX).contains(&limit) {
        return Err(Problem::bad_request("check limit", format!("limit is 1 to {CRASHES_MAX}")));
    }
    let query = CrashQuery { path: filter.path, since_ms: filter.since_ms, limit };
    let read = tokio::task::spawn_blocking(move || api.crashes.read(&query)).await?;
    read.map(Json).map_err(|error| {
        let fault = Fault::of(&error);
        tracing::error!(%fault, "crashes cannot be read");
        let origin = ErrorSource::new(Layer::Brain, "crash journal", "read");
        let text = "what failed cannot be read";
        let disk = Cause::new(Layer::Hardware, "disk", "read", error.kind().to_string());
        SyncError::new(ErrorCode::Internal, origin, text).because(disk).into()
    })
}

/// A node that can be acted on: the root's end would be the process's.
fn below_root(api: &Api, path: &str) -> Result<NodeInfo, Problem> {
    let node = api.tree.get(path).ok_or_else(|| {
        let origin = ErrorSource::new(Layer::Api, "tree", "find");
        let text = format!("there is no node {path:?}; see `brain tree` for those that are there");
        SyncError::new(ErrorCode::NotFound, origin, text)
    })?;
    if !path.contains('/') {
        let text = "the root ends with the process: restart the service instead";
        return Err(Problem::bad_request("choose node", text));
    }
    Ok(node)
}

fn done(done: bool, node: &NodeInfo, what: &str) -> Result<StatusCode, Problem> {
    if done {
        return Ok(StatusCode::NO_CONTENT);
    }
    let status = serde_json::to_value(node.status).unwrap_or_default();
    let status = status.as_str().unwrap_or_default();
    Err(Problem::bad_request(
        "order node",
        format!("{} is {status} and cannot be {what}", node.path),
    ))
}
