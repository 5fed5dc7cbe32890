//! The tree's changes as they happen.

use std::convert::Infallible;
use std::time::Duration;

use actors::device::Clock;
use actors::supervise::{Change, CrashRecord};
use axum::extract::State;
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use serde::Serialize;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;

use crate::api::Api;

/// So often an idle stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A node's new status, with the time.
#[derive(Serialize)]
struct StatusChange {
    at_ms: u64,
    #[serde(flatten)]
    change: Change,
}

/// How many changes were skipped because the reader was slow.
#[derive(Serialize)]
struct Missed {
    missed: u64,
}

/// What a stream listens to.
struct Sources {
    api: Api,
    changes: Receiver<Change>,
    crashes: Receiver<CrashRecord>,
}

/// Changes of the tree as server-sent events: `crash` with what was decided, `status` of a node
/// (null where it has left), and `missed` where the reader was too slow and should look at the
/// whole tree again.
#[utoipa::path(get, path = "/api/v1/tree/events", security(("bearer" = [])),
    responses((status = 200, content_type = "text/event-stream")))]
pub(in crate::api) async fn events(
    State(api): State<Api>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let (changes, crashes) = (api.tree.changes(), api.crashes.news());
    let stream =
        futures_util::stream::unfold(Sources { api, changes, crashes }, async |mut sources| {
            let event = sources.next().await?;
            Some((Ok(event), sources))
        });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

impl Sources {
    /// The next event; none where the brain stops.
    async fn next(&mut self) -> Option<Event> {
        tokio::select! {
            // What was decided comes before what follows from it.
            biased;
            crash = self.crashes.recv() => match crash {
                Ok(crash) => Some(event("crash", &crash)),
                Err(missed) => missed_by(&missed),
            },
            change = self.changes.recv() => match change {
                Ok(change) => {
                    let at_ms = self.api.clock.now().wall_ms;
                    Some(event("status", &StatusChange { at_ms, change }))
                }
                Err(missed) => missed_by(&missed),
            },
        }
    }
}

fn missed_by(error: &RecvError) -> Option<Event> {
    match error {
        RecvError::Lagged(missed) => Some(event("missed", &Missed { missed: *missed })),
        RecvError::Closed => None,
    }
}

fn event(name: &str, data: &impl Serialize) -> Event {
    let event = Event::default().event(name);
    // Plain data always becomes JSON.
    event.json_data(data).unwrap_or_else(|_| Event::default().event(name))
}
