//! What the leaves of a tree may be.

use std::collections::BTreeMap;

use actors::device::{Clock as _, DeviceMsg, PolicyOf};
use axum::extract::{Path as UrlPath, Query, State};
use axum::{Extension, Json};
use protocol::constraint::Constraints;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::auth::Principal;
use super::etag::NoCondition;
use super::span::ApiSpan;
use super::subject::Subject;
use super::writes::{WriteAnswer, WriteQuery, provenance, write_to};
use super::{Api, Problem};

/// The constraints of a tree, and what breaks them.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConstraintsView {
    /// Their version; 0 where none were set.
    pub version: u32,
    /// What they say.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub constraints: Constraints,
    /// The leaves that break one as they are, with its name: they are not acted upon.
    pub held: BTreeMap<String, String>,
}

/// What leaves of a device's tree may be.
#[utoipa::path(get, path = "/api/v1/devices/{id}/constraints", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = ConstraintsView), (status = 404)))]
pub(super) async fn show(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<ConstraintsView>, Problem> {
    view(api, Subject::device(&id)?).await
}

/// What leaves of a group's tree may be.
#[utoipa::path(get, path = "/api/v1/groups/{group}/constraints",
    params(("group" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = ConstraintsView), (status = 404)))]
pub(super) async fn show_group(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<ConstraintsView>, Problem> {
    view(api, Subject::group(&name)).await
}

/// Set what leaves of a device's tree may be. What is there already and breaks it is held.
#[utoipa::path(put, path = "/api/v1/devices/{id}/constraints",
    params(("id" = String, Path), WriteQuery), security(("bearer" = [])),
    request_body(content = Object, description = "`{\"constraints\": [{\"name\": …, \"range\": …}]}`"),
    responses((status = 200, body = WriteAnswer), (status = 400), (status = 404)))]
pub(super) async fn set(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
    span: ApiSpan,
    body: String,
) -> Result<Json<WriteAnswer>, Problem> {
    write(&api, &Subject::device(&id)?, principal, query, &span, &body).await
}

/// Set what leaves of a group's tree may be. What is there already and breaks it is held.
#[utoipa::path(put, path = "/api/v1/groups/{group}/constraints",
    params(("group" = String, Path), WriteQuery), security(("bearer" = [])),
    request_body(content = Object, description = "`{\"constraints\": [{\"name\": …, \"range\": …}]}`"),
    responses((status = 200, body = WriteAnswer), (status = 400), (status = 404)))]
pub(super) async fn set_group(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
    span: ApiSpan,
    body: String,
) -> Result<Json<WriteAnswer>, Problem> {
    write(&api, &Subject::group(&name), principal, query, &span, &body).await
}

async fn view(api: Api, subject: Subject) -> Result<Json<ConstraintsView>, Problem> {
    let now_ms = api.clock.now().wall_ms;
    let read = subject.read(api, move |store, number| {
        let tree = store.replica(number)?.map(|(_, tree)| tree);
        let (version, constraints) = tree.as_ref().map_or((0, None), |tree| tree.constraints());
        let held = tree.as_ref().map(|tree| tree.held(now_ms)).unwrap_or_default();
        Ok(ConstraintsView {
            version,
            constraints: constraints.cloned().unwrap_or_default(),
            held: held.into_iter().map(|(path, name)| (path.to_string(), name)).collect(),
        })
    });
    read.await
}

async fn write(
    api: &Api,
    subject: &Subject,
    principal: Principal,
    query: WriteQuery,
    span: &ApiSpan,
    body: &str,
) -> Result<Json<WriteAnswer>, Problem> {
    let bad = |error: &dyn std::fmt::Display| {
        Problem::bad_request("parse constraints", error.to_string())
    };
    let constraints = Constraints::parse(body).map_err(|error| bad(&error))?;
    let policy = serde_json::to_string(&constraints).map_err(|error| bad(&error))?;
    // Written out again it may be longer.
    Constraints::parse(&policy).map_err(|error| bad(&error))?;
    let (of, trace) = (PolicyOf::Constraints, span.context());
    let provenance = provenance(principal, query);
    let twin = subject.twin(api).await?;
    write_to(&twin, |reply| DeviceMsg::SetPolicy { of, policy, provenance, trace, reply }).await
}
