//! Changing what devices are to do.

use std::collections::BTreeMap;
use std::time::Duration;

use actors::device::{DeviceMsg, WriteOutcome};
use actors::supervise::{Address, Reply};
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::StatusCode;
use axum::{Extension, Json};
use protocol::history::{Change, GROUPS_PREFIX, Provenance};
use protocol::state::{
    Path, State as TreeState, StateDelta, StateSource, Value, Version, VersionedState,
};
use protocol::{EntryId, SyncError};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json_;
use utoipa::{IntoParams, ToSchema};

use super::acknowledged::{Level, Wait};
use super::auth::Principal;
use super::devices::{StateQuery, read_tree, which_version};
use super::etag::{NoCondition, OnlyIf};
use super::span::ApiSpan;
use super::subject::Subject;
use super::{Api, Problem};
use crate::devices::TwinError;
use crate::store::not_found;
use crate::why::Hold;

/// How long a write may take: an `fsync` on a slow disk under load, many times over.
const WRITE_TIME_MAX: Duration = Duration::from_secs(10);

/// What a write came to.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct WriteAnswer {
    /// The version that the tree has now.
    #[schema(value_type = u64)]
    pub version: Version,
    /// The entry that was written; none where nothing changed.
    #[schema(value_type = Option<String>)]
    pub entry: Option<EntryId>,
    /// What it changed.
    #[schema(value_type = Object)]
    pub delta: StateDelta,
    /// How far it has come.
    pub acknowledged: Level,
    /// What keeps it from coming further, by path below `desired/`, where it was waited for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = Object)]
    pub held_by: BTreeMap<String, Vec<Hold>>,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct WriteQuery {
    /// Why, for the history.
    reason: Option<String>,
    /// Only where this query over the device's tree holds, such as `tags/site = north`.
    #[serde(rename = "if")]
    #[param(rename = "if")]
    _only_if: Option<String>,
}

/// The same for what a device is to do.
#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct DesiredQuery {
    /// Why, for the history.
    reason: Option<String>,
    /// Only where this query over the device's tree holds, such as `tags/site = north`.
    #[serde(rename = "if")]
    #[param(rename = "if")]
    _only_if: Option<String>,
    /// How far it is to have come before the answer: `stored` at the brain, `delivered` to the device's
    /// disk, or `applied` by the device.
    #[serde(default)]
    wait: Level,
    /// How long to wait for that, in milliseconds; the answer is 202 where that was too short.
    timeout_ms: Option<u64>,
}

impl DesiredQuery {
    fn split(self) -> (Wait, WriteQuery) {
        let Self { reason, wait, timeout_ms, .. } = self;
        (Wait::new(wait, timeout_ms), WriteQuery { reason, _only_if: None })
    }
}

/// Make `desired/` hold exactly these leaves.
#[utoipa::path(put, path = "/api/v1/devices/{id}/desired",
    params(("id" = String, Path), DesiredQuery, ("if-match" = Option<String>, Header,
        description = "Only where the tree is at this version, given as an ETag")),
    security(("bearer" = [])),
    request_body(content = Object, description = "Paths below `desired/` with their values"),
    responses((status = 200, body = WriteAnswer),
        (status = 202, body = WriteAnswer, description = "It has not come as far yet as was asked"),
        (status = 404), (status = 412, description = "The tree is at another version"), (status = 507)))]
pub(super) async fn set_desired(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<DesiredQuery>,
    Extension(principal): Extension<Principal>,
    OnlyIf(only_if): OnlyIf,
    span: ApiSpan,
    Json(leaves): Json<BTreeMap<String, Json_>>,
) -> Result<(StatusCode, Json<WriteAnswer>), Problem> {
    let desired = parse_desired(leaves)?;
    let (wait, query) = query.split();
    let (provenance, trace) = (provenance(principal, query), span.context());
    let asked = desired.keys().cloned().collect();
    let set = |reply| DeviceMsg::SetState { desired, provenance, only_if, trace, reply };
    write_and_wait(api, &id, wait, asked, set).await
}

/// Set some leaves of `desired/`; null removes one.
#[utoipa::path(patch, path = "/api/v1/devices/{id}/desired",
    params(("id" = String, Path), DesiredQuery, ("if-match" = Option<String>, Header,
        description = "Only where the tree is at this version, given as an ETag")),
    security(("bearer" = [])),
    request_body(content = Object, description = "Paths below `desired/` with their values"),
    responses((status = 200, body = WriteAnswer),
        (status = 202, body = WriteAnswer, description = "It has not come as far yet as was asked"),
        (status = 404), (status = 412, description = "The tree is at another version"), (status = 507)))]
pub(super) async fn patch_desired(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<DesiredQuery>,
    Extension(principal): Extension<Principal>,
    OnlyIf(only_if): OnlyIf,
    span: ApiSpan,
    Json(leaves): Json<BTreeMap<String, Json_>>,
) -> Result<(StatusCode, Json<WriteAnswer>), Problem> {
    let changes = parse_leaves("desired", leaves)?;
    let (wait, query) = query.split();
    let (provenance, trace) = (provenance(principal, query), span.context());
    let asked = changes.iter().map(|(path, _)| path.clone()).collect();
    let set = |reply| DeviceMsg::Write { changes, provenance, only_if, trace, reply };
    write_and_wait(api, &id, wait, asked, set).await
}

/// Set some of a device's tags, its location among them; null removes one.
#[utoipa::path(patch, path = "/api/v1/devices/{id}/tags",
    params(("id" = String, Path), WriteQuery, ("if-match" = Option<String>, Header,
        description = "Only where the tree is at this version, given as an ETag")),
    security(("bearer" = [])),
    request_body(content = Object, description = "Paths below `tags/` with their values, such as `location/zone`"),
    responses((status = 200, body = WriteAnswer), (status = 400), (status = 404),
        (status = 412, description = "The tree is at another version"), (status = 507)))]
pub(super) async fn patch_tags(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    OnlyIf(only_if): OnlyIf,
    span: ApiSpan,
    Json(leaves): Json<BTreeMap<String, Json_>>,
) -> Result<Json<WriteAnswer>, Problem> {
    let changes = parse_leaves("tags", leaves)?;
    if changes.iter().any(|(path, _)| path.below(GROUPS_PREFIX).is_some()) {
        let text = "groups are no tags to set; see /api/v1/groups/{group}/members/{device}";
        return Err(Problem::bad_request("check tags", text));
    }
    let provenance = provenance(principal, query);
    let trace = span.context();
    write(&api, &id, |reply| DeviceMsg::Write { changes, provenance, only_if, trace, reply }).await
}

/// Save a state as the next version, or check that the current version is this state.
#[utoipa::path(put, path = "/api/v1/devices/{id}/states",
    params(("id" = String, Path), WriteQuery), security(("bearer" = [])),
    request_body(content = Object, description = "A versioned state, as it was read"),
    responses((status = 200, body = WriteAnswer), (status = 409, description = "The version is past, ahead, or has other content")))]
pub(super) async fn save_state(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
    span: ApiSpan,
    Json(state): Json<VersionedState>,
) -> Result<Json<WriteAnswer>, Problem> {
    let provenance = provenance(principal, query);
    let trace = span.context();
    write(&api, &id, |reply| DeviceMsg::SaveState { state, provenance, trace, reply }).await
}

/// What a restore goes back to.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreQuery {
    /// What was desired after this commit.
    version: Option<Version>,
    /// What was desired by what the brain had committed at this time (RFC 3339).
    at: Option<String>,
    /// Why, for the history.
    reason: Option<String>,
    /// Only where this query over the device's tree holds.
    #[serde(rename = "if")]
    #[param(rename = "if")]
    _only_if: Option<String>,
    /// How far it is to have come before the answer.
    #[serde(default)]
    wait: Level,
    /// How long to wait for that, in milliseconds.
    timeout_ms: Option<u64>,
}

/// Make `desired/` what it was at a version or a time, as a new version.
#[utoipa::path(post, path = "/api/v1/devices/{id}/restore",
    params(("id" = String, Path), RestoreQuery), security(("bearer" = [])),
    responses((status = 200, body = WriteAnswer),
        (status = 202, body = WriteAnswer, description = "It has not come as far yet as was asked"),
        (status = 400), (status = 404)))]
pub(super) async fn restore(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(RestoreQuery { version, at, reason, wait, timeout_ms, .. }): Query<RestoreQuery>,
    Extension(principal): Extension<Principal>,
    OnlyIf(only_if): OnlyIf,
    span: ApiSpan,
) -> Result<(StatusCode, Json<WriteAnswer>), Problem> {
    if version.is_none() && at.is_none() {
        return Err(Problem::bad_request("choose version", "say where to: version or at"));
    }
    let which = which_version(StateQuery { version, at, happened_at: None })?;
    let Json((version, desired)) = read_tree(api.clone(), &id, move |store, tree| {
        let missing = || Problem::from(not_found("this version"));
        // Before the first commit nothing was desired, and nobody means that.
        let then = store.state(tree, which)?.filter(|then| then.version > 0).ok_or_else(missing)?;
        let desired = then.state.iter().filter(|(path, _)| path.below("desired").is_some());
        let desired: TreeState =
            desired.map(|(path, value)| (path.clone(), value.clone())).collect();
        Ok((then.version, desired))
    })
    .await?;
    let why = reason.map_or_else(String::new, |reason| format!(": {reason}"));
    let reason = Some(format!("restored to version {version}{why}"));
    let wait = Wait::new(wait, timeout_ms);
    let provenance = provenance(principal, WriteQuery { reason, _only_if: None });
    let trace = span.context();
    let asked = desired.keys().cloned().collect();
    let set = |reply| DeviceMsg::SetState { desired, provenance, only_if, trace, reply };
    write_and_wait(api, &id, wait, asked, set).await
}

/// Keep a snapshot of the current version.
#[utoipa::path(post, path = "/api/v1/devices/{id}/snapshots", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = Object), (status = 404)))]
pub(super) async fn create_snapshot(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<Json_>, Problem> {
    let twin = Subject::device(&id)?.twin(&api).await?;
    let version = twin.ask(|reply| DeviceMsg::Snapshot { reply }, WRITE_TIME_MAX).await;
    let version = version.map_err(TwinError::from)??;
    Ok(Json(serde_json::json!({ "version": version })))
}

/// Has a device's twin write, and waits until that is durable.
pub(super) async fn write(
    api: &Api,
    id: &str,
    message: impl FnOnce(Reply<Result<WriteOutcome, SyncError>>) -> DeviceMsg,
) -> Result<Json<WriteAnswer>, Problem> {
    let twin = Subject::device(id)?.twin(api).await?;
    write_to(&twin, message).await
}

/// Has a twin write, and waits until that is durable.
pub(super) async fn write_to(
    twin: &Address<DeviceMsg>,
    message: impl FnOnce(Reply<Result<WriteOutcome, SyncError>>) -> DeviceMsg,
) -> Result<Json<WriteAnswer>, Problem> {
    let outcome = twin.ask(message, WRITE_TIME_MAX).await;
    Ok(Json(stored(outcome.map_err(TwinError::from)??)))
}

/// Has a device's twin write, and waits until that has come as far as it is to.
async fn write_and_wait(
    api: Api,
    id: &str,
    wait: Wait,
    asked: Vec<Path>,
    message: impl FnOnce(Reply<Result<WriteOutcome, SyncError>>) -> DeviceMsg,
) -> Result<(StatusCode, Json<WriteAnswer>), Problem> {
    let subject = Subject::device(id)?;
    let twin = subject.twin(&api).await?;
    // Before the write, so that no change after it is missed.
    let watch = wait.watch(&api);
    let outcome = twin.ask(message, WRITE_TIME_MAX).await.map_err(TwinError::from)??;
    let at = outcome.at;
    let mut answer = stored(outcome);
    // What was asked for and was so already has to be in force as well.
    let changed = answer.delta.changes().map(|(path, _)| path.clone());
    let paths = asked.into_iter().chain(changed).collect();
    let reached = wait.until_reached(&api, &subject, watch, at, paths).await;
    (answer.acknowledged, answer.held_by) = (reached.level, reached.held_by);
    let status = match reached.level >= wait.level() {
        true => StatusCode::OK,
        false => StatusCode::ACCEPTED,
    };
    Ok((status, Json(answer)))
}

pub(super) fn stored(outcome: WriteOutcome) -> WriteAnswer {
    let WriteOutcome { version, entry, delta, .. } = outcome;
    let (acknowledged, held_by) = (Level::Stored, BTreeMap::new());
    WriteAnswer { version, entry, delta, acknowledged, held_by }
}

pub(super) fn provenance(Principal(principal): Principal, query: WriteQuery) -> Provenance {
    let reason = query.reason.unwrap_or_else(|| "set over the API".to_owned());
    Provenance { source: StateSource::Operator, principal, reason }
}

pub(super) fn parse_desired(leaves: BTreeMap<String, Json_>) -> Result<TreeState, Problem> {
    let mut desired = TreeState::new();
    for (path, value) in parse_leaves("desired", leaves)? {
        let value = value.ok_or_else(|| {
            Problem::bad_request("parse leaves", format!("{path} is null; leave it out"))
        })?;
        desired.insert(path, value);
    }
    Ok(desired)
}

/// Changes of leaves below `segment`.
pub(super) fn parse_leaves(
    segment: &str,
    leaves: BTreeMap<String, Json_>,
) -> Result<Vec<Change>, Problem> {
    let mut changes = Vec::with_capacity(leaves.len());
    for (text, json) in leaves {
        let path = Path::new(&format!("{segment}/{text}")).map_err(|error| {
            Problem::bad_request("parse leaves", format!("path {text:?}: {error}"))
        })?;
        let value = match json {
            Json_::Null => None,
            json => Some(Value::from_json(&json).map_err(|error| {
                Problem::bad_request("parse leaves", format!("value of {text:?}: {error}"))
            })?),
        };
        changes.push((path, value));
    }
    Ok(changes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn leaves(json: serde_json::Value) -> Result<Vec<Change>, Problem> {
        parse_leaves("desired", serde_json::from_value(json).expect("an object"))
    }

    #[test]
    fn null_removes_and_values_set() {
        let changes = leaves(serde_json::json!({ "a": null, "b/c": 1 })).expect("valid");
        assert_eq!(changes[0], (Path::new("desired/a").expect("valid"), None));
        assert_eq!(changes[1], (Path::new("desired/b/c").expect("valid"), Some(Value::from(1))));
    }

    #[test]
    fn a_path_cannot_climb_out_of_desired() {
        assert!(leaves(serde_json::json!({ "../reported/a": 1 })).is_err());
        assert!(leaves(serde_json::json!({ "": 1 })).is_err());
        assert!(leaves(serde_json::json!({ "a": { "b": 1 } })).is_err());
    }
}
