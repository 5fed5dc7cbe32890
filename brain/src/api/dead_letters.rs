//! Messages that killed their actors: shown, tried again, discarded.

use std::time::Duration;

use actors::device::DeviceMsg;
use actors::ports::{DeadLetter, Letter};
use actors::supervise::Digest;
use axum::Json;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use data_encoding::{BASE64, HEXLOWER};
use protocol::codec;
use protocol::history::{Change, Provenance};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::writes::{WriteAnswer, stored};
use super::{Api, Problem};
use crate::devices::TwinError;
use crate::store::{RegistryChange, not_found};

/// How long a replay may take: the actor may fail again, and be started again, meanwhile.
const REPLAY_TIME_MAX: Duration = Duration::from_secs(10);

/// A message that is not handled any more.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterView {
    /// What it is called: the beginning of its hash, and its device or group.
    pub id: String,
    /// The device, or the group, whose actor it killed.
    pub device: String,
    /// What kind of message it is.
    pub message: String,
    /// When it was put aside, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What its actor died of.
    pub fault: Option<String>,
    /// How many bytes it has.
    pub size: usize,
}

/// The same with what is in it.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct DeadLetterContent {
    /// What the list shows.
    #[serde(flatten)]
    pub letter: DeadLetterView,
    /// What it asks for, as far as that can be shown.
    #[schema(value_type = Object)]
    pub content: Value,
    /// Its bytes as they are stored, in Base64.
    pub bytes: String,
}

/// The messages that killed their actors three times, the latest first.
#[utoipa::path(get, path = "/api/v1/quarantine/messages", security(("bearer" = [])),
    responses((status = 200, body = [DeadLetterView])))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<Vec<DeadLetterView>>, Problem> {
    let letters = tokio::task::spawn_blocking(move || api.store.dead_letters()).await?;
    Ok(Json(letters?.iter().map(view).collect()))
}

/// One of them, with what is in it.
#[utoipa::path(get, path = "/api/v1/quarantine/messages/{id}", security(("bearer" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = DeadLetterContent), (status = 404)))]
pub(super) async fn show(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<DeadLetterContent>, Problem> {
    let letter = find(&api, &id).await?;
    let bytes = BASE64.encode(&codec::encode(&letter.letter));
    Ok(Json(DeadLetterContent { letter: view(&letter), content: content(&letter.letter), bytes }))
}

/// Try it again: it goes to its actor as it did before. If that works it is discarded here; if
/// not, the answer says why, and it stays.
#[utoipa::path(post, path = "/api/v1/quarantine/messages/{id}/replay", security(("bearer" = [])),
    params(("id" = String, Path)),
    responses((status = 200, body = WriteAnswer), (status = 404), (status = 409)))]
pub(super) async fn replay(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<Json<WriteAnswer>, Problem> {
    let found = find(&api, &id).await?;
    tracing::warn!(device = found.tree.name, id, "a dead letter is tried again on request");
    let devices = api.devices.clone();
    let tree = found.tree.clone();
    let twin = tokio::task::spawn_blocking(move || devices.keeper_of(&tree)).await??;
    api.tree.pardon(&api.devices.path_of(&found.tree), Digest(found.digest));
    let letter = found.letter.clone();
    let ask = |reply| DeviceMsg::Replay { letter, reply };
    let outcome = twin.ask(ask, REPLAY_TIME_MAX).await.map_err(TwinError::from)??;
    forget(&api, &found).await?;
    Ok(Json(stored(outcome)))
}

/// Discard it for good.
#[utoipa::path(delete, path = "/api/v1/quarantine/messages/{id}", security(("bearer" = [])),
    params(("id" = String, Path)), responses((status = 204), (status = 404)))]
pub(super) async fn discard(
    State(api): State<Api>,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    let found = find(&api, &id).await?;
    tracing::warn!(device = found.tree.name, id, "a dead letter is discarded on request");
    forget(&api, &found).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn find(api: &Api, id: &str) -> Result<DeadLetter, Problem> {
    let parsed = id.split_once('-').and_then(|(digest, name)| {
        let digest: [u8; 8] = HEXLOWER.decode(digest.as_bytes()).ok()?.try_into().ok()?;
        Some((digest, name.to_owned()))
    });
    let (digest, name) = parsed.ok_or_else(|| {
        Problem::bad_request("parse id", format!("{id:?} is no id; see `brain quarantine list`"))
    })?;
    let store = api.store.clone();
    let found = tokio::task::spawn_blocking(move || store.dead_letter(digest, &name)).await?;
    Ok(found?.ok_or_else(|| not_found(&format!("dead letter {id}")))?)
}

async fn forget(api: &Api, letter: &DeadLetter) -> Result<(), Problem> {
    let (store, change) = (api.store.clone(), RegistryChange::discard(letter));
    let changed = tokio::task::spawn_blocking(move || store.change_registry(vec![change])).await?;
    Ok(changed?)
}

fn view(letter: &DeadLetter) -> DeadLetterView {
    DeadLetterView {
        id: format!("{}-{}", Digest(letter.digest), letter.tree.name),
        device: letter.tree.name.clone(),
        message: letter.letter.message().to_owned(),
        at_ms: letter.at_ms,
        fault: letter.fault.clone(),
        size: codec::encode(&letter.letter).len(),
    }
}

fn content(letter: &Letter) -> Value {
    match letter {
        Letter::Entries(batch) => match batch.clone().unpack() {
            Ok(entries) => {
                let entries = entries
                    .iter()
                    .map(|(id, entry)| json!({ "id": id, "seq": entry.seq, "delta": entry.delta }));
                json!({ "entries": entries.collect::<Vec<_>>() })
            }
            Err(error) => json!({ "error": error.to_string() }),
        },
        Letter::Write(changes, provenance) => {
            let leaf = |(path, value): &Change| {
                (path.to_string(), value.as_ref().map_or(Value::Null, |value| value.to_json()))
            };
            json!({ "leaves": changes.iter().map(leaf).collect::<serde_json::Map<_, _>>(),
                "provenance": who(provenance) })
        }
        Letter::SetState(state, provenance) => {
            json!({ "desired": state, "provenance": who(provenance) })
        }
        Letter::SaveState(state, provenance) => {
            json!({ "state": state, "provenance": who(provenance) })
        }
    }
}

fn who(provenance: &Provenance) -> Value {
    json!(provenance)
}
