//! Frames, whatever carries them.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;

use bytes::Bytes;
use futures_util::{Sink, SinkExt, Stream, StreamExt, future};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

/// A transport over which nothing was said yet: whole frames, in order, both ways.
pub(crate) struct Frames {
    pub(super) sink: FrameSink,
    pub(super) stream: FrameStream,
}

/// The half that is written.
pub(super) struct FrameSink(Pin<Box<dyn Sink<Bytes, Error = Broken> + Send>>);

/// The half that is read.
pub(super) struct FrameStream(Pin<Box<dyn Stream<Item = Result<Bytes, Broken>> + Send>>);

/// A transport that broke.
#[derive(Debug, thiserror::Error)]
#[error("connection broke")]
pub(crate) struct Broken(#[source] Box<dyn std::error::Error + Send + Sync>);

impl Broken {
    pub(crate) fn new(source: impl std::error::Error + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }
}

impl Frames {
    /// Over any two halves.
    pub(crate) fn new(
        sink: impl Sink<Bytes, Error = Broken> + Send + 'static,
        stream: impl Stream<Item = Result<Bytes, Broken>> + Send + 'static,
    ) -> Self {
        Self { sink: FrameSink(Box::pin(sink)), stream: FrameStream(Box::pin(stream)) }
    }

    /// Over a WebSocket, a message a frame.
    pub(crate) fn over_web_socket<S>(socket: WebSocketStream<S>) -> Self
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    {
        let (sink, stream) = socket.split();
        let sink = sink
            .sink_map_err(Broken::new)
            .with(|frame: Bytes| future::ready(Ok::<_, Broken>(Message::Binary(frame))));
        let frames = stream.filter_map(|message: Result<Message, tungstenite::Error>| {
            future::ready(match message {
                Ok(Message::Binary(frame)) => Some(Ok(frame)),
                // After a close nothing comes.
                Ok(_) => None,
                Err(error) => Some(Err(Broken::new(error))),
            })
        });
        Self::new(sink, frames)
    }
}

impl FrameStream {
    /// The next frame; none where the other side has ended it. May be dropped at any await.
    pub(super) async fn next(&mut self) -> Option<Result<Bytes, Broken>> {
        self.0.next().await
    }
}

impl FrameSink {
    /// Writes what waits. May be dropped at any await: nothing is lost.
    pub(super) async fn drain(&mut self, outbox: &mut VecDeque<Bytes>) -> Result<(), Broken> {
        while !outbox.is_empty() {
            poll_fn(|cx| self.0.as_mut().poll_ready(cx)).await?;
            if let Some(frame) = outbox.pop_front() {
                self.0.as_mut().start_send(frame)?;
            }
        }
        self.0.flush().await
    }

    /// Writes what waits, and that nothing follows.
    pub(super) async fn close(&mut self, outbox: &mut VecDeque<Bytes>) -> Result<(), Broken> {
        self.drain(outbox).await?;
        self.0.close().await
    }
}

impl std::fmt::Debug for Frames {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Frames").finish_non_exhaustive()
    }
}
