//! Backups.

use actors::device::Clock;
use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde::{Deserialize, Serialize};
use tokio::io::AsyncReadExt;
use utoipa::ToSchema;

use super::{Api, Problem};
use crate::backup::{BackupError, BackupFile};

/// How much of a file is read at once.
const CHUNK_BYTES: usize = 256 << 10;

/// The backups of a brain.
#[derive(Debug, Serialize, Deserialize, ToSchema)]
pub struct BackupList {
    /// Where they lie, on the brain's machine.
    pub folder: String,
    /// How often one is made, in hours; 0 where none is, for want of a key to encrypt to perhaps.
    pub every_hours: u32,
    /// Whether one is being made.
    pub busy: bool,
    /// What the last one on schedule failed of.
    pub failed: Option<String>,
    /// They, newest first.
    pub backups: Vec<BackupFile>,
}

/// List the backups.
#[utoipa::path(get, path = "/api/v1/backups", security(("bearer" = [])),
    responses((status = 200, body = BackupList)))]
pub(super) async fn list(State(api): State<Api>) -> Result<Json<BackupList>, Problem> {
    let backups = api.backups;
    let listed = move || {
        let settings = backups.settings();
        let is_on = !settings.recipients.is_empty();
        Ok::<_, BackupError>(BackupList {
            folder: backups.folder().display().to_string(),
            every_hours: if is_on { settings.every_hours } else { 0 },
            busy: backups.is_busy(),
            failed: backups.failed(),
            backups: backups.list()?,
        })
    };
    Ok(Json(tokio::task::spawn_blocking(listed).await??))
}

/// Make a backup of the running brain, encrypted to the keys of its settings. Answers when it is on disk.
#[utoipa::path(post, path = "/api/v1/backups", security(("bearer" = [])),
    responses((status = 200, body = BackupFile)))]
pub(super) async fn create(State(api): State<Api>) -> Result<Json<BackupFile>, Problem> {
    let now_ms = api.clock.now().wall_ms;
    let make = move || api.backups.make(false, now_ms);
    Ok(Json(tokio::task::spawn_blocking(make).await??))
}

/// Fetch a backup. It is encrypted.
#[utoipa::path(get, path = "/api/v1/backups/{name}", params(("name" = String, Path)),
    security(("bearer" = [])),
    responses((status = 200, content_type = "application/octet-stream"), (status = 404)))]
pub(super) async fn fetch(
    State(api): State<Api>,
    Path(name): Path<String>,
) -> Result<Response, Problem> {
    let backups = api.backups;
    let path = tokio::task::spawn_blocking(move || backups.path_of(&name)).await??;
    let opened = tokio::fs::File::open(&path).await;
    let file = opened.map_err(|source| BackupError::File { path: path.clone(), source })?;
    let known = file.metadata().await;
    let bytes = known.map_err(|source| BackupError::File { path, source })?.len();
    let chunks = stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK_BYTES];
        let read = file.read(&mut chunk).await?;
        chunk.truncate(read);
        Ok::<_, std::io::Error>((read > 0).then_some((chunk, file)))
    });
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(chunks)).into_response())
}
