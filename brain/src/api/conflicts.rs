//! Why leaves are what they are, the conflicts of a device, and how conflicts are decided.

use std::collections::BTreeMap;

use actors::device::{Clock as _, DeviceMsg, PolicyOf};
use actors::ports::{ConflictRecord, ReadError};
use axum::extract::{Path as UrlPath, Query, State};
use axum::{Extension, Json};
use protocol::DeviceId;
use protocol::conflict::{Conflict, ConflictPolicy, Resolution};
use protocol::history::Tree;
use protocol::state::{Path, Version};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::auth::Principal;
use super::devices::parse_id;
use super::etag::NoCondition;
use super::span::ApiSpan;
use super::subject::Subject;
use super::writes::{WriteAnswer, WriteQuery, provenance, write};
use super::{Api, Problem};
use crate::store::not_found;
use crate::why::{Outstanding, Reach, Why, outstanding, why};

/// The longest page of a listing.
const PAGE_MAX: usize = 1_000;
/// So many leaves are explained at once.
const LEAVES_MAX: usize = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct WhyQuery {
    /// The leaf, or the beginning of leaves up to a `/`; all if not given.
    pub(super) path: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ConflictQuery {
    /// How many at most; 100 if not given, 1000 at most.
    limit: Option<usize>,
    /// Those that came before this version.
    before: Option<Version>,
}

/// A conflict with its end.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ConflictView {
    /// The conflict.
    #[serde(flatten)]
    #[schema(value_type = Object)]
    pub conflict: Conflict,
    /// The version of the tree with which it came.
    #[schema(value_type = u64)]
    pub version: Version,
    /// How it was decided, where it was.
    #[schema(value_type = Object)]
    pub resolution: Option<Resolution>,
}

/// How conflicts of a device's tree are decided.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct PolicyView {
    /// Its version; 0 is the built-in one.
    pub version: u32,
    /// The rules, the first that fits first.
    #[schema(value_type = Object)]
    pub policy: ConflictPolicy,
}

/// Why leaves of a device are what they are: who set them, when, over what, by which rule, and
/// what keeps the device from what is desired.
#[utoipa::path(get, path = "/api/v1/devices/{id}/why", params(("id" = String, Path), WhyQuery),
    security(("bearer" = [])), responses((status = 200, body = Vec<Why>), (status = 404)))]
pub(super) async fn explain(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<WhyQuery>,
) -> Result<Json<Vec<Why>>, Problem> {
    let device = parse_id(&id)?;
    let asked = query.path.map(|text| parse_path(&text)).transpose()?;
    let reach = reach(&api, device);
    explain_of(api, Subject::Device(device), asked, reach).await
}

/// Why leaves of a tree are what they are.
pub(super) async fn explain_of(
    api: Api,
    subject: Subject,
    asked: Option<Path>,
    reach: Reach,
) -> Result<Json<Vec<Why>>, Problem> {
    let now_ms = api.clock.now().wall_ms;
    let read = subject.read(api, move |store, number| {
        let missing = || Problem::from(not_found("this leaf"));
        let replica = store.replica(number)?.ok_or_else(missing)?;
        let paths = leaves_of(&replica.1, asked)?;
        // What a leaf was before is looked for in history, which takes its time.
        let looks_back = paths.len() == 1;
        let found =
            paths.iter().map(|path| why(store, number, &replica, path, reach, now_ms, looks_back));
        let found: Vec<_> =
            found.filter_map(Result::transpose).collect::<Result<_, ReadError>>()?;
        if found.is_empty() { Err(missing()) } else { Ok(found) }
    });
    read.await
}

/// What is desired of a device and not in force.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeltaView {
    /// The version of its tree.
    #[schema(value_type = u64)]
    pub version: Version,
    /// Whether all that is desired is in force.
    pub in_sync: bool,
    /// What is not, by path below `desired/`, with what holds it back.
    pub leaves: BTreeMap<String, Outstanding>,
}

/// The difference between what is desired of a device and what it has made of it.
#[utoipa::path(get, path = "/api/v1/devices/{id}/delta", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = DeltaView), (status = 404)))]
pub(super) async fn delta(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<DeltaView>, Problem> {
    let device = parse_id(&id)?;
    let (reach, now_ms) = (reach(&api, device), api.clock.now().wall_ms);
    let read = Subject::Device(device).read(api, move |store, number| {
        let missing = || Problem::from(not_found("the device's state"));
        let (record, tree) = store.replica(number)?.ok_or_else(missing)?;
        let leaves = outstanding(store, number, &tree, reach, now_ms)?;
        Ok(DeltaView { version: record.version, in_sync: leaves.is_empty(), leaves })
    });
    read.await
}

pub(super) fn reach(api: &Api, device: DeviceId) -> Reach {
    let quarantined = api.devices.quarantined_for(device);
    Reach {
        online: api.presence.of(device).is_some(),
        quarantined_ms: quarantined.map(|left| left.as_millis() as u64),
    }
}

/// The leaf, or those below it, or all.
fn leaves_of(tree: &Tree, asked: Option<Path>) -> Result<Vec<Path>, Problem> {
    let paths: Vec<_> = match asked {
        Some(path) if tree.leaves().contains_key(&path) => vec![path],
        Some(path) => {
            let below = tree.leaves().keys().filter(|leaf| leaf.below(path.as_str()).is_some());
            let below: Vec<_> = below.cloned().collect();
            // One that is gone may still be in history.
            if below.is_empty() { vec![path] } else { below }
        }
        None => tree.leaves().keys().cloned().collect(),
    };
    if paths.len() > LEAVES_MAX {
        let text = format!("{} leaves are too many at once; give a longer path", paths.len());
        return Err(Problem::bad_request("choose leaves", text));
    }
    Ok(paths)
}

/// The conflicts of a device's tree, the latest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/conflicts",
    params(("id" = String, Path), ConflictQuery), security(("bearer" = [])),
    responses((status = 200, body = Vec<ConflictView>), (status = 404)))]
pub(super) async fn list(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<ConflictQuery>,
) -> Result<Json<Vec<ConflictView>>, Problem> {
    list_of(api, Subject::device(&id)?, query).await
}

/// The conflicts of a tree, the latest first.
pub(super) async fn list_of(
    api: Api,
    subject: Subject,
    query: ConflictQuery,
) -> Result<Json<Vec<ConflictView>>, Problem> {
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let until = query.before.map_or(Version::MAX, |before| before.saturating_sub(1));
    let read = subject.read(api, move |store, number| {
        let records = store.conflicts(number, until, limit)?;
        Ok(records.into_iter().map(ConflictView::from).collect())
    });
    read.await
}

/// One conflict.
#[utoipa::path(get, path = "/api/v1/conflicts/{conflict}",
    params(("conflict" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = ConflictView), (status = 404)))]
pub(super) async fn show(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<ConflictView>, Problem> {
    let id = id.parse().map_err(|error: protocol::id::ParseIdError| {
        Problem::bad_request("parse id", error.to_string())
    })?;
    let record = tokio::task::spawn_blocking(move || api.store.conflict(id)).await??;
    let record = record.ok_or_else(|| Problem::from(not_found(&format!("conflict {id}"))))?;
    Ok(Json(record.into()))
}

/// How conflicts of a device's tree are decided.
#[utoipa::path(get, path = "/api/v1/devices/{id}/conflict-policy", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = PolicyView), (status = 404)))]
pub(super) async fn policy(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
) -> Result<Json<PolicyView>, Problem> {
    policy_of(api, Subject::device(&id)?).await
}

/// How conflicts of a tree are decided.
pub(super) async fn policy_of(api: Api, subject: Subject) -> Result<Json<PolicyView>, Problem> {
    let read = subject.read(api, |store, number| {
        let tree = store.replica(number)?.map(|(_, tree)| tree);
        let version = tree.as_ref().map_or(0, Tree::policy);
        let known = tree.as_ref().and_then(|tree| tree.conflict_policy(version));
        let policy = known.unwrap_or(ConflictPolicy::built_in()).clone();
        Ok(PolicyView { version, policy })
    });
    read.await
}

/// Set how conflicts of a device's tree are decided from now on. Those that are there stay as they
/// are decided.
#[utoipa::path(put, path = "/api/v1/devices/{id}/conflict-policy",
    params(("id" = String, Path), WriteQuery), security(("bearer" = [])),
    request_body(content = Object, description = "`{\"rules\": [{\"paths\": …, \"strategy\": …}]}`"),
    responses((status = 200, body = WriteAnswer), (status = 400), (status = 404)))]
pub(super) async fn set_policy(
    State(api): State<Api>,
    UrlPath(id): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
    span: ApiSpan,
    body: String,
) -> Result<Json<WriteAnswer>, Problem> {
    let (of, policy) = (PolicyOf::Conflicts, parse_policy(&body)?);
    let provenance = provenance(principal, query);
    let trace = span.context();
    write(&api, &id, |reply| DeviceMsg::SetPolicy { of, policy, provenance, trace, reply }).await
}

/// A policy as it is written into trees.
pub(super) fn parse_policy(body: &str) -> Result<String, Problem> {
    let policy = ConflictPolicy::parse(body)
        .map_err(|error| Problem::bad_request("parse policy", error.to_string()))?;
    let text = serde_json::to_string(&policy).map_err(|error| {
        tracing::error!(%error, "a policy does not become JSON");
        Problem::internal("write policy", "the policy does not become JSON")
    })?;
    // Written out again it may be longer.
    ConflictPolicy::parse(&text)
        .map_err(|error| Problem::bad_request("parse policy", error.to_string()))?;
    Ok(text)
}

pub(super) fn parse_path(text: &str) -> Result<Path, Problem> {
    let text = text.trim_end_matches('/');
    Path::new(text)
        .map_err(|error| Problem::bad_request("parse path", format!("path {text:?}: {error}")))
}

impl From<ConflictRecord> for ConflictView {
    fn from(record: ConflictRecord) -> Self {
        let ConflictRecord { conflict, version, resolution, genesis: _ } = record;
        Self { conflict, version, resolution }
    }
}
