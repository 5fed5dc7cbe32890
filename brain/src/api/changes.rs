//! Changes of states as they are committed.

use std::convert::Infallible;
use std::error::Error;
use std::time::Duration;

use actors::ports::{CommitContext, SyncHook};
use axum::extract::{Query, State};
use axum::response::Sse;
use axum::response::sse::{Event, KeepAlive};
use futures_util::Stream;
use protocol::EntryId;
use protocol::history::TreeKind;
use protocol::state::{StateDelta, StateSource, Version};
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::broadcast::{self, Receiver};
use utoipa::{IntoParams, ToSchema};

use super::Api;

/// So many changes wait for a reader; one that is slower is told how many it missed.
const WAITING_MAX: usize = 1_024;
/// So often an idle stream shows that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

/// A change of a state.
#[derive(Debug, Clone, Serialize, Deserialize, ToSchema)]
pub struct ChangeEvent {
    /// What kind of tree it is.
    #[schema(value_type = String)]
    pub kind: TreeKind,
    /// The device's id, or the group's name.
    pub name: String,
    /// The version that it made.
    #[schema(value_type = u64)]
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub committed: u64,
    /// The entry.
    #[schema(value_type = String)]
    pub entry: EntryId,
    /// Where it came from.
    #[schema(value_type = String)]
    pub source: StateSource,
    /// Which person or program.
    pub principal: String,
    /// What changed.
    #[schema(value_type = Object)]
    pub delta: StateDelta,
}

/// Passes commits on to whoever watches.
#[derive(Debug, Clone)]
pub struct ChangeFeed(broadcast::Sender<ChangeEvent>);

impl Default for ChangeFeed {
    fn default() -> Self {
        Self(broadcast::channel(WAITING_MAX).0)
    }
}

impl ChangeFeed {
    /// Changes from now on.
    pub fn subscribe(&self) -> Receiver<ChangeEvent> {
        self.0.subscribe()
    }
}

impl SyncHook for ChangeFeed {
    fn name(&self) -> &str {
        "change feed"
    }

    fn listens(&self) -> bool {
        self.0.receiver_count() > 0
    }

    fn on_entry_committed(
        &self,
        context: &CommitContext<'_>,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let provenance = &context.entry.provenance;
        // Whoever watched last may be gone by now.
        let _ = self.0.send(ChangeEvent {
            kind: context.genesis.kind,
            name: context.genesis.name.clone(),
            version: context.version,
            committed: context.committed_ms,
            entry: context.id,
            source: provenance.source,
            principal: provenance.principal.clone(),
            delta: context.entry.delta.clone(),
        });
        Ok(())
    }
}

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
pub(super) struct ChangesQuery {
    /// Of this device or group alone.
    name: Option<String>,
}

/// Changes of states as they are committed, as server-sent events: `change`, and `missed` where the
/// reader was too slow and should read the states again.
#[utoipa::path(get, path = "/api/v1/changes/events", params(ChangesQuery),
    security(("bearer" = [])),
    responses((status = 200, content_type = "text/event-stream", body = ChangeEvent)))]
pub(super) async fn events(
    State(api): State<Api>,
    Query(ChangesQuery { name }): Query<ChangesQuery>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let changes = api.changes.subscribe();
    let stream = futures_util::stream::unfold((changes, name), async |(mut changes, name)| {
        let event = next(&mut changes, name.as_deref()).await?;
        Some((Ok(event), (changes, name)))
    });
    Sse::new(stream).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// The next event; none where the brain stops.
async fn next(changes: &mut Receiver<ChangeEvent>, name: Option<&str>) -> Option<Event> {
    loop {
        let event = match changes.recv().await {
            Ok(change) if name.is_some_and(|name| name != change.name) => continue,
            Ok(change) => Event::default().event("change").json_data(&change),
            Err(RecvError::Lagged(missed)) => {
                Event::default().event("missed").json_data(serde_json::json!({ "missed": missed }))
            }
            Err(RecvError::Closed) => return None,
        };
        match event {
            Ok(event) => return Some(event),
            Err(error) => tracing::error!(%error, "a change does not become JSON"),
        }
    }
}
