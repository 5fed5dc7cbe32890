//! Every request that changes something has a row in the audit list before it has its answer.

use actors::device::Clock as _;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::Method;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use protocol::Layer;
use protocol::error::Cause;
use serde::Deserialize;
use utoipa::IntoParams;

use super::auth::Principal;
use super::{Api, BODY_BYTES_MAX, Problem};
use crate::store::{AuditChecked, AuditDraft, AuditRow, RegistryChange};

/// The longest page of the list.
const PAGE_MAX: usize = 1_000;

/// Notes a request that is not for reading alone, with what came of it.
pub(super) async fn note(
    State(api): State<Api>,
    principal: Option<Extension<Principal>>,
    request: Request,
    next: Next,
) -> Response {
    if [Method::GET, Method::HEAD, Method::OPTIONS].contains(request.method()) {
        return next.run(request).await;
    }
    // What could not be noted is not begun.
    if let Some(refusal) = api.store.health().refusal() {
        let text = "nothing is changed while it cannot be noted who changed it";
        let noting = Cause::new(Layer::Api, "audit", "note request", text);
        return Problem::from(refusal.within(noting)).into_response();
    }
    let pattern = request.extensions().get::<MatchedPath>();
    let pattern = pattern.map_or("?", MatchedPath::as_str);
    let operation = format!("{} {pattern}", request.method());
    let target = request.uri().path().to_owned();
    let reason = Query::<Reason>::try_from_uri(request.uri()).ok().and_then(|query| query.0.reason);
    let is_login = principal.is_none();
    let principal =
        principal.map_or_else(|| "login code".to_owned(), |Extension(Principal(who))| who);
    // In a task of its own: a client that goes away stops neither the change nor its row.
    let carried_out = tokio::spawn(async move {
        let response = next.run(request).await;
        finish(api, response, operation, target, principal, reason, is_login).await
    });
    carried_out.await.unwrap_or_else(|error| Problem::from(error).into_response())
}

/// Notes a request that was carried out.
async fn finish(
    api: Api,
    response: Response,
    operation: String,
    target: String,
    principal: String,
    reason: Option<String>,
    is_login: bool,
) -> Response {
    let outcome = response.status().as_u16();
    if is_login && !response.status().is_success() {
        // Whoever guesses is counted, and fills no disk.
        return response;
    }
    let (response, entry) = entry_of(response).await;
    let done = AuditDraft {
        at_ms: api.clock.now().wall_ms,
        principal,
        operation,
        target,
        outcome,
        reason: reason.unwrap_or_default(),
        entry,
    };
    let changes = vec![RegistryChange::Done(Box::new(done))];
    let noted = tokio::task::spawn_blocking(move || api.store.change_registry(changes)).await;
    match noted {
        Ok(Ok(())) => response,
        Ok(Err(error)) => {
            tracing::error!(%error, "a request was carried out and not noted");
            Problem::from(error).into_response()
        }
        Err(error) => Problem::from(error).into_response(),
    }
}

#[derive(Deserialize)]
struct Reason {
    reason: Option<String>,
}

/// The entry that an answer tells of, and the answer again.
async fn entry_of(response: Response) -> (Response, Option<protocol::EntryId>) {
    #[derive(Deserialize)]
    struct Written {
        entry: Option<protocol::EntryId>,
    }
    let (parts, body) = response.into_parts();
    // Answers to changes are short, and made at once.
    match to_bytes(body, BODY_BYTES_MAX).await {
        Ok(bytes) => {
            let written = serde_json::from_slice::<Written>(&bytes).ok();
            let response = Response::from_parts(parts, Body::from(bytes));
            (response, written.and_then(|written| written.entry))
        }
        Err(error) => {
            tracing::error!(%error, "an answer is not made whole");
            let problem = Problem::internal("read answer", "the answer is not made whole");
            (problem.into_response(), None)
        }
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct AuditQuery {
    /// How many at most; 100 if not given, 1000 at most.
    limit: Option<usize>,
    /// Those before this number.
    before: Option<u64>,
}

/// Who changed what, newest first.
#[utoipa::path(get, path = "/api/v1/audit", params(AuditQuery), security(("bearer" = [])),
    responses((status = 200, body = Vec<Object>)))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(AuditQuery { limit, before }): Query<AuditQuery>,
) -> Result<Json<Vec<AuditRow>>, Problem> {
    let limit = limit.unwrap_or(100).clamp(1, PAGE_MAX);
    let until = before.map_or(u64::MAX, |before| before.saturating_sub(1));
    Ok(Json(tokio::task::spawn_blocking(move || api.store.audit(until, limit)).await??))
}

/// Check that no row of the list was altered or removed since it was written.
#[utoipa::path(get, path = "/api/v1/audit/check", security(("bearer" = [])),
    responses((status = 200, body = AuditChecked)))]
pub(super) async fn check(State(api): State<Api>) -> Result<Json<AuditChecked>, Problem> {
    Ok(Json(tokio::task::spawn_blocking(move || api.store.check_audit()).await??))
}
