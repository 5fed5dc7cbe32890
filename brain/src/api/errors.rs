//! What the brain noticed by itself.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::extract::{Path, Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use utoipa::IntoParams;

use super::{Api, Problem};
use crate::errors::{ErrorStatus, NoticedError};
use crate::store::not_found;

/// So often an idle stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ErrorsQuery {
    /// Only those that are `open`, or only those that are `over`.
    #[param(value_type = Option<String>)]
    status: Option<ErrorStatus>,
    /// About this device, group or actor alone.
    subject: Option<String>,
}

/// Errors that the brain noticed and that nobody asked for, the last noticed first.
#[utoipa::path(get, path = "/api/v1/errors", params(ErrorsQuery), security(("bearer" = [])),
    responses((status = 200, body = [NoticedError])))]
pub(super) async fn list(
    State(api): State<Api>,
    Query(ErrorsQuery { status, subject }): Query<ErrorsQuery>,
) -> Json<Vec<NoticedError>> {
    let mut errors = api.errors.all();
    errors.retain(|error| {
        status.is_none_or(|status| error.status == status)
            && (subject.is_none() || error.subject == subject)
    });
    Json(errors)
}

/// One of them.
#[utoipa::path(get, path = "/api/v1/errors/{id}", params(("id" = u64, Path)),
    security(("bearer" = [])), responses((status = 200, body = NoticedError), (status = 404)))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<u64>,
) -> Result<Json<NoticedError>, Problem> {
    let found = api.errors.get(id);
    Ok(Json(found.ok_or_else(|| not_found(&format!("error {id}")))?))
}

/// Errors as server-sent events: `error` when one is noticed, noticed again, or passes, and `missed`
/// where the reader was too slow and should read the list again.
#[utoipa::path(get, path = "/api/v1/errors/events", security(("bearer" = [])),
    responses((status = 200, content_type = "text/event-stream", body = NoticedError)))]
pub(super) async fn events(
    State(api): State<Api>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let news = api.errors.news();
    let stream = futures_util::stream::unfold(news, async |mut news| {
        let event = next(&mut news).await?;
        Some((Ok(event), news))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// The next event; none where the brain stops.
async fn next(news: &mut Receiver<NoticedError>) -> Option<Event> {
    let (name, event) = match news.recv().await {
        Ok(error) => ("error", Event::default().event("error").json_data(&error)),
        Err(RecvError::Lagged(missed)) => {
            ("missed", Event::default().event("missed").json_data(json!({ "missed": missed })))
        }
        Err(RecvError::Closed) => return None,
    };
    // Plain data always becomes JSON.
    Some(event.unwrap_or_else(|_| Event::default().event(name)))
}
