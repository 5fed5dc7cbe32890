//! Answers of many lines of JSON, sent as they come about.

use std::ops::ControlFlow;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use tokio::sync::mpsc;

/// So many pieces of an answer may wait for a reader.
const PIECES_MAX: usize = 16;
/// A piece is sent once it has so many bytes.
const PIECE_BYTES: usize = 16 << 10;

/// The writing end of such an answer.
pub(super) struct Lines {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    piece: Vec<u8>,
    is_first: bool,
}

/// An answer that `write` writes on a thread that may block.
pub(super) fn answer(write: impl FnOnce(Lines) + Send + 'static) -> Response {
    let (pieces, rest) = mpsc::channel(PIECES_MAX);
    let lines = Lines { pieces, piece: Vec::new(), is_first: true };
    tokio::task::spawn_blocking(move || write(lines));
    let body = futures_util::stream::unfold(rest, async |mut rest| {
        rest.recv().await.map(|piece| (piece, rest))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    (kind, Body::from_stream(body)).into_response()
}

impl Lines {
    /// Writes a line; says whether anybody reads on. The first leaves at once, so that there is an
    /// answer. Blocks.
    pub(super) fn line(&mut self, line: &impl Serialize) -> ControlFlow<()> {
        if let Err(error) = serde_json::to_writer(&mut self.piece, line) {
            tracing::error!(%error, "a line of an answer does not become JSON");
            return ControlFlow::Break(());
        }
        self.piece.push(b'\n');
        if !std::mem::take(&mut self.is_first) && self.piece.len() < PIECE_BYTES {
            return ControlFlow::Continue(());
        }
        let full = Bytes::from(std::mem::take(&mut self.piece));
        match self.pieces.blocking_send(Ok(full)) {
            Ok(()) => ControlFlow::Continue(()),
            Err(_) => ControlFlow::Break(()),
        }
    }

    /// Ends the answer; with an error it ends short, which is how a reader learns of it. Blocks.
    pub(super) fn end<E>(self, result: Result<(), E>)
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let last = match result {
            Ok(()) => Ok(Bytes::from(self.piece)),
            Err(error) => Err(std::io::Error::other(error)),
        };
        // Whoever has gone does not want it.
        let _ = self.pieces.blocking_send(last);
    }
}
