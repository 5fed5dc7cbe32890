//! Reading devices: the list, one, its state, its history.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::time::Duration;

use actors::account::Account;
use actors::device::{Clock as _, DeviceMsg};
use actors::ports::TreeNumber;
use axum::Json;
use axum::extract::{Path, Query, State};
use axum::http::HeaderName;
use futures_util::future::join_all;
use jiff::Timestamp;
use protocol::state::{StateChange, StateDelta, Version, VersionedState};
use protocol::{DeviceId, EntryId, PublicKey};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::{IntoParams, ToSchema};

use super::etag::{etag, parse_query};
use super::retire::{self, TombstoneView};
use super::subject::Subject;
use super::{Api, Problem};
use crate::selection::Selection;
use crate::store::{
    DeviceRecord, HistoryEntry, SnapshotInfo, Store, TreeAt, WhichVersion, not_found,
};

/// How long a twin may take to say how it is connected.
const STATUS_TIME_MAX: Duration = Duration::from_secs(2);
/// The longest page of a listing.
const PAGE_MAX: usize = 1_000;

/// A device in a listing.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceSummary {
    /// Its id.
    #[schema(value_type = String)]
    pub id: DeviceId,
    /// What people call it.
    pub name: String,
    /// Whether it is connected.
    pub online: bool,
    /// Since when, in milliseconds since the Unix epoch.
    pub connected_since: Option<u64>,
    /// Where it is connected from.
    pub peer: Option<String>,
    /// Until when it is kept out as a cloned identity, in milliseconds since the Unix epoch.
    pub quarantined_until: Option<u64>,
    /// The last version of its tree.
    #[schema(value_type = u64)]
    pub version: Version,
    /// When that was committed, in milliseconds since the Unix epoch.
    pub last_change: u64,
    /// When it joined, in milliseconds since the Unix epoch.
    pub enrolled: u64,
    /// Some of what it reports, for an overview.
    #[schema(value_type = Object)]
    pub summary: BTreeMap<String, serde_json::Value>,
}

/// A device, looked at alone.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct DeviceDetail {
    /// What the listing shows.
    #[serde(flatten)]
    pub summary: DeviceSummary,
    /// What became of its entries since the brain's start; none where it has not connected.
    pub entries: Option<EntryAccount>,
}

/// What became of the entries that a device sent: `received = stored + duplicate + refused + in
/// flight`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EntryAccount {
    /// Came over its links.
    pub received: u64,
    /// Durable.
    pub stored: u64,
    /// Known before.
    pub duplicate: u64,
    /// Not taken, by reason.
    pub refused: BTreeMap<String, u64>,
    /// Being judged, or on their way to disk.
    pub in_flight: u64,
}

/// A page of devices.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeviceList {
    /// The devices, by id.
    pub devices: Vec<DeviceSummary>,
    /// What is left of devices that were retired, by id, where that was asked for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub retired: Vec<TombstoneView>,
    /// What to ask for as `after` to get the next page; none on the last.
    pub next: Option<String>,
}

/// A page of a device's history, newest first.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct HistoryPage {
    /// The changes.
    #[schema(value_type = Vec<Object>)]
    pub changes: Vec<ChangeView>,
    /// What to ask for as `before` to get the next page; none on the last.
    pub next: Option<u64>,
}

/// A change, with what its entry says beside.
#[derive(Debug, Serialize, Deserialize)]
pub struct ChangeView {
    /// The change.
    #[serde(flatten)]
    pub change: StateChange,
    /// Which person or program.
    pub principal: String,
    /// The entry's id.
    pub entry: EntryId,
    /// The key that wrote it.
    pub author: PublicKey,
    /// The number of the entry in its log.
    pub seq: u64,
    /// When, by the author's clock, in milliseconds since the Unix epoch.
    pub happened: u64,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct ListQuery {
    /// How many at most; 100 if not given, 1000 at most.
    limit: Option<usize>,
    /// Those after this id.
    after: Option<String>,
    /// Those that this query means, such as `tags/site = north and online`.
    query: Option<String>,
    /// Those that were retired, in place of those that are there; takes no query.
    #[serde(default)]
    retired: bool,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct StateQuery {
    /// The state after this commit.
    pub(super) version: Option<Version>,
    /// What the brain had committed at this time (RFC 3339).
    pub(super) at: Option<String>,
    /// What had happened by this time, by the authors' clocks (RFC 3339).
    pub(super) happened_at: Option<String>,
}

#[derive(Debug, Deserialize, IntoParams)]
pub(super) struct HistoryQuery {
    /// How many at most; 100 if not given, 1000 at most; 0 gives none.
    limit: Option<usize>,
    /// Those before this version.
    before: Option<Version>,
}

/// List devices.
#[utoipa::path(get, path = "/api/v1/devices", params(ListQuery), security(("bearer" = [])),
    responses((status = 200, body = DeviceList)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(query): Query<ListQuery>,
) -> Result<Json<DeviceList>, Problem> {
    let limit = query.limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let after = query.after.map(|text| parse_id(&text)).transpose()?;
    if query.retired {
        if query.query.is_some() {
            return Err(Problem::bad_request(
                "read query",
                "what was retired has no state to look at",
            ));
        }
        return retire::list(api, after, limit).await.map(Json);
    }
    let query = parse_query(&query.query.unwrap_or_default())?;
    let selection = Selection {
        store: api.store.clone(),
        presence: api.presence.clone(),
        fleet: api.identity.fleet,
        query,
        which: WhichVersion::Latest,
        now_ms: api.clock.now().wall_ms,
    };
    let (records, more) = tokio::task::spawn_blocking(move || {
        let (mut found, mut more, mut failed) = (Vec::new(), false, None);
        selection.each(
            after,
            || true,
            |record, state| {
                more = found.len() == limit;
                match state {
                    _ if more => return ControlFlow::Break(()),
                    Ok(state) => found.push(summary(&record, state.as_deref())),
                    Err(error) => failed = Some(error),
                }
                if failed.is_some() { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            },
        )?;
        match failed {
            Some(error) => Err(Problem::from(error)),
            None => Ok((found, more)),
        }
    })
    .await??;
    let devices = join_all(records.into_iter().map(|summary| with_status(&api, summary))).await;
    let next = devices.last().filter(|_| more).map(|last| last.id.to_string());
    Ok(Json(DeviceList { devices, retired: Vec::new(), next }))
}

/// Show one device.
#[utoipa::path(get, path = "/api/v1/devices/{id}", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = DeviceDetail), (status = 404)))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<DeviceDetail>, Problem> {
    let device = parse_id(&id)?;
    let reading = api.clone();
    let summary = tokio::task::spawn_blocking(move || {
        let record = reading.store.device(device)?;
        let record = record.ok_or_else(|| Subject::Device(device).missing(&reading.store))?;
        offline_summary(&reading, &record)
    })
    .await??;
    let entries = api.accounts.account(device).map(EntryAccount::from);
    Ok(Json(DeviceDetail { summary: with_status(&api, summary).await, entries }))
}

/// The state of a device: the latest, at a version, or at a time.
#[utoipa::path(get, path = "/api/v1/devices/{id}/state", params(("id" = String, Path), StateQuery),
    security(("bearer" = [])), responses((status = 200, body = Object), (status = 404)))]
pub(super) async fn state(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<StateQuery>,
) -> Result<([(HeaderName, String); 1], Json<VersionedState>), Problem> {
    state_of(api, Subject::device(&id)?, query).await
}

/// The state of a tree, with its ETag.
pub(super) async fn state_of(
    api: Api,
    subject: Subject,
    query: StateQuery,
) -> Result<([(HeaderName, String); 1], Json<VersionedState>), Problem> {
    let which = which_version(query)?;
    let read = subject.read(api, move |store, tree| {
        let missing = || Problem::from(not_found("this version"));
        let state = store.state(tree, which)?.ok_or_else(missing)?;
        Ok(versioned(&state))
    });
    let state = read.await?;
    Ok((etag(state.version), state))
}

/// The changes of a device, newest first.
#[utoipa::path(get, path = "/api/v1/devices/{id}/history",
    params(("id" = String, Path), HistoryQuery), security(("bearer" = [])),
    responses((status = 200, body = HistoryPage), (status = 404)))]
pub(super) async fn history(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<HistoryQuery>,
) -> Result<Json<HistoryPage>, Problem> {
    history_of(api, Subject::device(&id)?, query).await
}

/// The changes of a tree, newest first.
pub(super) async fn history_of(
    api: Api,
    subject: Subject,
    query: HistoryQuery,
) -> Result<Json<HistoryPage>, Problem> {
    let limit = query.limit.unwrap_or(100).min(PAGE_MAX);
    let until = query.before.map_or(Version::MAX, |before| before.saturating_sub(1));
    let read = subject.read(api, move |store, tree| {
        let entries = store.history(tree, until, limit)?;
        let begins = store.base(tree)?.map_or(1, |base| base.version + 1);
        let next = entries.last().map(|last| last.version).filter(|last| *last > begins);
        let changes = entries.into_iter().map(ChangeView::from).collect();
        Ok(HistoryPage { changes, next })
    });
    read.await
}

/// The versions of a device's tree, as ranges without gaps.
#[utoipa::path(get, path = "/api/v1/devices/{id}/versions", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = Object), (status = 404)))]
pub(super) async fn versions(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<serde_json::Value>, Problem> {
    read_tree(api, &id, |store, tree| {
        let last = store.tree_record(tree)?.map_or(0, |record| record.version);
        // Versions count commits from 1 without gaps, so their ends say them all. What came before
        // the first was pruned.
        let base = store.base(tree)?;
        let first = last.min(base.as_ref().map_or(1, |base| base.version));
        let count = last + u64::from(last > 0) - first;
        let since = base.map(|base| base.at_ms);
        Ok(json!({ "first": first, "last": last, "count": count, "kept_since": since }))
    })
    .await
}

/// The snapshots of a device's tree.
#[utoipa::path(get, path = "/api/v1/devices/{id}/snapshots", params(("id" = String, Path)),
    security(("bearer" = [])), responses((status = 200, body = Vec<Object>), (status = 404)))]
pub(super) async fn snapshots(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<Vec<SnapshotInfo>>, Problem> {
    read_tree(api, &id, |store, tree| Ok(store.snapshots(tree)?)).await
}

/// The id in a path.
pub(super) fn parse_id(text: &str) -> Result<DeviceId, Problem> {
    text.parse().map_err(|error: protocol::id::ParseIdError| {
        Problem::bad_request("parse id", error.to_string())
    })
}

/// Reads the tree of a device off the runtime.
pub(super) async fn read_tree<T: Send + 'static>(
    api: Api,
    id: &str,
    read: impl FnOnce(&Store, TreeNumber) -> Result<T, Problem> + Send + 'static,
) -> Result<Json<T>, Problem> {
    Subject::device(id)?.read(api, read).await
}

pub(super) fn which_version(query: StateQuery) -> Result<WhichVersion, Problem> {
    let time = |name: &str, text: &str| {
        let parsed = text.parse::<Timestamp>().map_err(|error| {
            Problem::bad_request("parse time", format!("{name} is not an RFC 3339 time: {error}"))
        })?;
        Ok::<u64, Problem>(u64::try_from(parsed.as_millisecond()).unwrap_or(0))
    };
    match (query.version, query.at, query.happened_at) {
        (None, None, None) => Ok(WhichVersion::Latest),
        (Some(version), None, None) => Ok(WhichVersion::At(version)),
        (None, Some(at), None) => Ok(WhichVersion::CommittedBy(time("at", &at)?)),
        (None, None, Some(at)) => Ok(WhichVersion::HappenedBy(time("happened_at", &at)?)),
        _ => Err(Problem::bad_request("choose version", "give one of version, at and happened_at")),
    }
}

fn versioned(state: &TreeAt) -> VersionedState {
    let root = data_encoding::HEXLOWER.encode(&state.root);
    VersionedState {
        version: state.version,
        state: state.state.clone(),
        timestamp: state.committed_ms,
        source: state.source,
        metadata: BTreeMap::from([("root".to_owned(), json!(root))]),
    }
}

impl From<HistoryEntry> for ChangeView {
    fn from(change: HistoryEntry) -> Self {
        let HistoryEntry { version, committed_ms, id, entry } = change;
        let delta: StateDelta = entry.delta;
        Self {
            change: StateChange {
                version,
                delta,
                timestamp: committed_ms,
                source: entry.provenance.source,
                reason: entry.provenance.reason,
            },
            principal: entry.provenance.principal,
            entry: id,
            author: entry.log.author,
            seq: entry.seq,
            happened: entry.hlc.wall_ms,
        }
    }
}

impl From<Account> for EntryAccount {
    fn from(account: Account) -> Self {
        let Account { received, stored, duplicate, refused, in_flight } = account;
        let refused = refused.into_iter().map(|(why, count)| (why.as_str().to_owned(), count));
        Self { received, stored, duplicate, refused: refused.collect(), in_flight }
    }
}

impl std::fmt::Display for EntryAccount {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { received, stored, duplicate, refused, in_flight } = self;
        let refused_all: u64 = refused.values().sum();
        write!(f, "{received} received = {stored} stored + {duplicate} duplicate")?;
        write!(f, " + {refused_all} refused + {in_flight} in flight")?;
        if !refused.is_empty() {
            let reasons: Vec<_> = refused.iter().map(|(why, n)| format!("{why} {n}")).collect();
            write!(f, " (refused: {})", reasons.join(", "))?;
        }
        Ok(())
    }
}

fn offline_summary(api: &Api, record: &DeviceRecord) -> Result<DeviceSummary, Problem> {
    let state = match Subject::Device(record.device).tree(api)? {
        Some(tree) => api.store.state(tree, WhichVersion::Latest)?,
        None => None,
    };
    Ok(summary(record, state.as_deref()))
}

/// What a listing shows of a device that is away.
fn summary(record: &DeviceRecord, state: Option<&TreeAt>) -> DeviceSummary {
    DeviceSummary {
        id: record.device,
        name: record.name.clone(),
        online: false,
        connected_since: None,
        peer: None,
        quarantined_until: None,
        version: state.map_or(0, |state| state.version),
        last_change: state.map_or(0, |state| state.committed_ms),
        enrolled: record.enrolled_ms,
        summary: state.map(overview).unwrap_or_default(),
    }
}

/// The leaves that tell most about a machine.
fn overview(state: &TreeAt) -> BTreeMap<String, serde_json::Value> {
    const SHOWN: [&str; 5] = [
        "machine/load1",
        "machine/cpu_percent",
        "machine/memory_available_bytes",
        "machine/disk_available_bytes",
        "system/model",
    ];
    let reported = state.state.iter().filter_map(|(path, value)| {
        let below = path.below("reported")?;
        let shown = SHOWN.contains(&below) || below.ends_with("_celsius");
        shown.then(|| (below.to_owned(), value.to_json()))
    });
    reported.take(8).collect()
}

async fn with_status(api: &Api, mut summary: DeviceSummary) -> DeviceSummary {
    if let Some(present) = api.presence.of(summary.id) {
        summary.online = true;
        summary.connected_since = Some(present.since_ms);
        summary.peer = Some(present.peer.to_string());
        return summary;
    }
    // A twin that keeps machines with one identity apart is in memory; no other is woken.
    let Some(twin) = api.devices.running(summary.id).filter(|twin| !twin.is_passive()) else {
        return summary;
    };
    let status = twin.ask(|reply| DeviceMsg::Status { reply }, STATUS_TIME_MAX).await;
    // One that is too busy to answer is shown as away.
    summary.quarantined_until = status.ok().and_then(|status| status.quarantined_until_ms);
    summary
}
