//! Groups: their members, and the tree that these share.

use std::collections::BTreeMap;

use actors::device::{DeviceMsg, PolicyOf, Precondition};
use actors::ports::TreeNumber;
use axum::extract::{Path as UrlPath, Query, State};
use axum::http::HeaderName;
use axum::{Extension, Json};
use protocol::history::Provenance;
use protocol::state::{Path, Value, Version, VersionedState};
use protocol::{DeviceId, ErrorCode, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::Value as Json_;
use utoipa::ToSchema;

use super::auth::Principal;
use super::conflicts::{ConflictQuery, ConflictView, PolicyView, WhyQuery};
use super::conflicts::{explain_of, list_of, parse_path, parse_policy, policy_of};
use super::devices::{HistoryPage, HistoryQuery, StateQuery, history_of, parse_id, state_of};
use super::etag::{NoCondition, OnlyIf};
use super::span::ApiSpan;
use super::subject::Subject;
use super::writes::{WriteAnswer, WriteQuery, parse_leaves, provenance, stored, write_to};
use super::{Api, Problem};
use crate::members;
use crate::store::not_found;
use crate::why::{Reach, Why};

/// The leaf that says what a group is for.
const DESCRIPTION: &str = "about/description";

/// A group.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct GroupView {
    /// Its name.
    pub name: String,
    /// What it is for.
    pub description: String,
    /// The version of its tree.
    #[schema(value_type = u64)]
    pub version: Version,
    /// The hash of its tree's leaves: the same on every member that is up to date.
    pub root: String,
    /// Its members, by device.
    pub members: Vec<MemberView>,
}

/// A member of a group.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct MemberView {
    /// The device.
    #[schema(value_type = String)]
    pub device: DeviceId,
    /// The key that it writes with.
    #[schema(value_type = String)]
    pub key: PublicKey,
    /// Whether it is connected.
    pub online: bool,
}

/// What a group is to be.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewGroup {
    /// What it is for.
    #[serde(default)]
    pub description: String,
}

/// Every group, by name.
#[utoipa::path(get, path = "/api/v1/groups", security(("bearer" = [])),
    responses((status = 200, body = Vec<GroupView>)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<GroupView>>, Problem> {
    let groups = tokio::task::spawn_blocking(move || {
        let groups = api.store.groups()?;
        groups.into_iter().map(|(name, number)| view(&api, name, number)).collect::<Result<_, _>>()
    });
    groups.await?.map(Json)
}

/// One group.
#[utoipa::path(get, path = "/api/v1/groups/{group}", params(("group" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = GroupView), (status = 404)))]
pub(super) async fn show(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<GroupView>, Problem> {
    let shown = api.clone();
    let read = Subject::group(&name).read(api, move |_, number| view(&shown, name, number));
    read.await
}

/// Make a group, or say anew what it is for.
#[utoipa::path(put, path = "/api/v1/groups/{group}",
    params(("group" = String, Path), WriteQuery), security(("bearer" = [])),
    request_body = NewGroup, responses((status = 200, body = WriteAnswer), (status = 400)))]
pub(super) async fn create(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
    span: ApiSpan,
    Json(NewGroup { description }): Json<NewGroup>,
) -> Result<Json<WriteAnswer>, Problem> {
    if !api.devices.group_genesis(&name).has_fitting_name() {
        let text = format!(
            "{name:?} is no name for a group: it takes up to 64 small letters, digits, '-', '_' \
             and '.', and begins with a letter or a digit"
        );
        return Err(Problem::bad_request("check name", text));
    }
    let path = Path::new(DESCRIPTION).expect("a path");
    let value = Value::from(description);
    value.check().map_err(|error| Problem::bad_request("check description", error.to_string()))?;
    let changes = vec![(path, Some(value))];
    let (provenance, trace) = (provenance(principal, query), span.context());
    let only_if = Precondition::default();
    let devices = api.devices.clone();
    let twin = tokio::task::spawn_blocking(move || devices.group_to_be(&name)).await??;
    write_to(&twin, |reply| DeviceMsg::Write { changes, provenance, only_if, trace, reply }).await
}

/// Make a device a member of a group.
#[utoipa::path(put, path = "/api/v1/groups/{group}/members/{device}",
    params(("group" = String, Path), ("device" = String, Path), WriteQuery),
    security(("bearer" = [])), responses((status = 200, body = WriteAnswer), (status = 404)))]
pub(super) async fn add_member(
    State(api): State<Api>,
    UrlPath((group, device)): UrlPath<(String, String)>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
) -> Result<Json<WriteAnswer>, Problem> {
    let device = parse_id(&device)?;
    let reading = api.clone();
    let key_of = move || -> Result<_, Problem> {
        let record = reading.store.device(device)?;
        Ok(record.ok_or_else(|| Subject::Device(device).missing(&reading.store))?.key)
    };
    let key = tokio::task::spawn_blocking(key_of).await??;
    let twin = Subject::group(&group).twin(&api).await?;
    let provenance = provenance(principal, query);
    let (is_current, by) = (true, provenance.clone());
    let set = |reply| DeviceMsg::SetMember { device, key, is_current, provenance: by, reply };
    let answer = write_to(&twin, set).await?;
    let noted = note_groups(&api, device, provenance.clone()).await;
    if let Err(problem) = &noted
        && problem.is(ErrorCode::Retired)
    {
        // It was retired meanwhile, and has left the groups that it was in by then.
        members::put_out(&api.devices, &group, (device, key), provenance).await?;
    }
    noted.map(|()| answer)
}

/// End a device's membership. What it wrote stays.
#[utoipa::path(delete, path = "/api/v1/groups/{group}/members/{device}",
    params(("group" = String, Path), ("device" = String, Path), WriteQuery),
    security(("bearer" = [])), responses((status = 200, body = WriteAnswer), (status = 404)))]
pub(super) async fn remove_member(
    State(api): State<Api>,
    UrlPath((group, device)): UrlPath<(String, String)>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
) -> Result<Json<WriteAnswer>, Problem> {
    let device = parse_id(&device)?;
    let (store, name) = (api.store.clone(), group.clone());
    let members = members::blocking(move || members::members(&store, &name)).await?;
    let provenance = provenance(principal, query);
    let mut answer = None;
    for member in members.into_iter().filter(|(of, _)| *of == device) {
        let out = members::put_out(&api.devices, &group, member, provenance.clone()).await?;
        answer = Some(Json(stored(out)));
    }
    // An earlier request may not have come so far.
    note_groups(&api, device, provenance).await?;
    answer.ok_or_else(|| not_found(&format!("member {device} of group {group:?}")).into())
}

/// The state of a group's tree: the latest, at a version, or at a time.
#[utoipa::path(get, path = "/api/v1/groups/{group}/state",
    params(("group" = String, Path), StateQuery), security(("bearer" = [])),
    responses((status = 200, body = Object), (status = 404)))]
pub(super) async fn state(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<StateQuery>,
) -> Result<([(HeaderName, String); 1], Json<VersionedState>), Problem> {
    state_of(api, Subject::group(&name), query).await
}

/// Set some of the leaves that the members share; null removes one.
#[utoipa::path(patch, path = "/api/v1/groups/{group}/shared",
    params(("group" = String, Path), WriteQuery, ("if-match" = Option<String>, Header,
        description = "Only where the tree is at this version, given as an ETag")),
    security(("bearer" = [])),
    request_body(content = Object, description = "Paths below `shared/` with their values"),
    responses((status = 200, body = WriteAnswer), (status = 404),
        (status = 412, description = "The tree is at another version"), (status = 507)))]
pub(super) async fn patch_shared(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    OnlyIf(only_if): OnlyIf,
    span: ApiSpan,
    Json(leaves): Json<BTreeMap<String, Json_>>,
) -> Result<Json<WriteAnswer>, Problem> {
    let changes = parse_leaves("shared", leaves)?;
    let (provenance, trace) = (provenance(principal, query), span.context());
    let twin = Subject::group(&name).twin(&api).await?;
    write_to(&twin, |reply| DeviceMsg::Write { changes, provenance, only_if, trace, reply }).await
}

/// The changes of a group's tree, newest first.
#[utoipa::path(get, path = "/api/v1/groups/{group}/history",
    params(("group" = String, Path), HistoryQuery), security(("bearer" = [])),
    responses((status = 200, body = HistoryPage), (status = 404)))]
pub(super) async fn history(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryPage>, Problem> {
    history_of(api, Subject::group(&name), query).await
}

/// Why leaves of a group's tree are what they are.
#[utoipa::path(get, path = "/api/v1/groups/{group}/why",
    params(("group" = String, Path), WhyQuery), security(("bearer" = [])),
    responses((status = 200, body = Vec<Why>), (status = 404)))]
pub(super) async fn explain(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<WhyQuery>,
) -> Result<Json<Vec<Why>>, Problem> {
    let asked = query.path.map(|text| parse_path(&text)).transpose()?;
    let reach = Reach { online: true, quarantined_ms: None };
    explain_of(api, Subject::group(&name), asked, reach).await
}

/// The conflicts of a group's tree, the latest first.
#[utoipa::path(get, path = "/api/v1/groups/{group}/conflicts",
    params(("group" = String, Path), ConflictQuery), security(("bearer" = [])),
    responses((status = 200, body = Vec<ConflictView>), (status = 404)))]
pub(super) async fn conflicts(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<ConflictQuery>,
) -> Result<Json<Vec<ConflictView>>, Problem> {
    list_of(api, Subject::group(&name), query).await
}

/// How conflicts of a group's tree are decided.
#[utoipa::path(get, path = "/api/v1/groups/{group}/conflict-policy",
    params(("group" = String, Path)), security(("bearer" = [])),
    responses((status = 200, body = PolicyView), (status = 404)))]
pub(super) async fn policy(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
) -> Result<Json<PolicyView>, Problem> {
    policy_of(api, Subject::group(&name)).await
}

/// Set how conflicts of a group's tree are decided from now on.
#[utoipa::path(put, path = "/api/v1/groups/{group}/conflict-policy",
    params(("group" = String, Path), WriteQuery), security(("bearer" = [])),
    request_body(content = Object, description = "`{\"rules\": [{\"paths\": …, \"strategy\": …}]}`"),
    responses((status = 200, body = WriteAnswer), (status = 400), (status = 404)))]
pub(super) async fn set_policy(
    State(api): State<Api>,
    UrlPath(name): UrlPath<String>,
    Query(query): Query<WriteQuery>,
    Extension(principal): Extension<Principal>,
    _: NoCondition,
    span: ApiSpan,
    body: String,
) -> Result<Json<WriteAnswer>, Problem> {
    let (of, policy) = (PolicyOf::Conflicts, parse_policy(&body)?);
    let (provenance, trace) = (provenance(principal, query), span.context());
    let twin = Subject::group(&name).twin(&api).await?;
    write_to(&twin, |reply| DeviceMsg::SetPolicy { of, policy, provenance, trace, reply }).await
}

/// Has the device's own tree say which groups it is in.
async fn note_groups(api: &Api, device: DeviceId, provenance: Provenance) -> Result<(), Problem> {
    let own = Subject::Device(device).twin(api).await?;
    Ok(crate::link::note_groups(&api.store, &own, device, true, provenance).await?)
}

fn view(api: &Api, name: String, number: TreeNumber) -> Result<GroupView, Problem> {
    let missing = || Problem::from(not_found(&format!("group {name:?}")));
    let (record, tree) = api.store.replica(number)?.ok_or_else(missing)?;
    let path = Path::new(DESCRIPTION).expect("a path");
    let description = tree.value(&path);
    let description = description.as_deref().and_then(Value::as_str).unwrap_or_default();
    let current = tree.members().filter(|(_, member)| member.is_current);
    let mut members: Vec<_> = current
        .map(|(key, member)| MemberView {
            device: member.device,
            key: *key,
            online: api.presence.of(member.device).is_some(),
        })
        .collect();
    members.sort_by_key(|member| (member.device, member.key));
    Ok(GroupView {
        description: description.to_owned(),
        version: record.version,
        root: data_encoding::HEXLOWER.encode(&tree.root()),
        members,
        name,
    })
}
