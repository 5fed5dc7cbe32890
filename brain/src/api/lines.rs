//! Answers of many lines of JSON, sent as they come about.

use std::ops::ControlFlow;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use serde::Serialize;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use super::Problem;

/// So many pieces of an answer may wait for a reader.
const PIECES_MAX: usize = 16;
/// A piece is sent once it has so many bytes.
const PIECE_BYTES: usize = 16 << 10;
/// So many such answers are written at once: each takes a thread of those that read from the disk.
const ANSWERS_MAX: usize = 4;
/// A reader who takes nothing for so long is not waited for.
const READER_TIME_MAX: Duration = Duration::from_secs(20);

static ANSWERS: Semaphore = Semaphore::const_new(ANSWERS_MAX);

/// The writing end of such an answer.
pub(super) struct Lines {
    pieces: mpsc::Sender<Result<Bytes, std::io::Error>>,
    runtime: Handle,
    piece: Vec<u8>,
    is_first: bool,
}

/// An answer that `write` writes on a thread that may block. Refused where there are too many.
pub(super) fn answer(write: impl FnOnce(Lines) + Send + 'static) -> Result<Response, Problem> {
    let permit = ANSWERS.try_acquire().map_err(|_| {
        let origin = ErrorSource::new(Layer::Api, "lines", "answer");
        let text = format!("{ANSWERS_MAX} such answers are being written; ask again soon");
        Problem::from(SyncError::new(ErrorCode::Overloaded, origin, text))
    })?;
    let (pieces, rest) = mpsc::channel(PIECES_MAX);
    let (runtime, piece) = (Handle::current(), Vec::new());
    let lines = Lines { pieces, runtime, piece, is_first: true };
    tokio::task::spawn_blocking(move || {
        write(lines);
        drop(permit);
    });
    let body = futures_util::stream::unfold(rest, async |mut rest| {
        rest.recv().await.map(|piece| (piece, rest))
    });
    let kind = [(header::CONTENT_TYPE, "application/x-ndjson")];
    Ok((kind, Body::from_stream(body)).into_response())
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
        match self.send(Ok(full)) {
            true => ControlFlow::Continue(()),
            false => ControlFlow::Break(()),
        }
    }

    /// Whether nobody reads any more.
    pub(super) fn is_closed(&self) -> bool {
        self.pieces.is_closed()
    }

    fn send(&self, piece: Result<Bytes, std::io::Error>) -> bool {
        let sending = self.pieces.send_timeout(piece, READER_TIME_MAX);
        self.runtime.block_on(sending).is_ok()
    }

    /// Ends the answer; with an error it ends short, which is how a reader learns of it. Blocks.
    pub(super) fn end<E>(mut self, result: Result<(), E>)
    where
        E: std::error::Error + Send + Sync + 'static,
    {
        let last = match result {
            Ok(()) => Ok(Bytes::from(std::mem::take(&mut self.piece))),
            Err(error) => Err(std::io::Error::other(error)),
        };
        // Whoever has gone does not want it.
        self.send(last);
    }
}
