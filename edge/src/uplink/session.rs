//! One connection: the protocol's session between the socket and the keeper of the tree.

mod shared;
mod steps;
mod topic;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use actors::supervise::{Address, AskError};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt, future::poll_fn};
use protocol::session::{Ended, Input, Session, error};
use protocol::trace::EntryTrace;
use protocol::{ErrorCode, FleetId, PublicKey, TreeId};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::clock::Clock;
use crate::shares::Shares;
use crate::status::Board;
use crate::track;
use topic::Topic;

/// From the first frame to the welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// The socket is not read while so many frames wait to be written.
const OUTBOX_FRAMES_MAX: usize = 64;
/// How long the last frames may take.
const GOODBYE: Duration = Duration::from_secs(2);

/// What a conversation needs beside the connection.
pub(super) struct Around<'a> {
    pub(super) track: &'a Address<track::Msg>,
    pub(super) shares: &'a Shares,
    /// The fleet that the device belongs to.
    pub(super) fleet: FleetId,
    pub(super) board: &'a Board,
    pub(super) clock: &'a Clock,
    pub(super) own_key: PublicKey,
    /// Turns true when the agent stops.
    pub(super) stop: watch::Receiver<bool>,
    /// Changes when another brain is to be called.
    pub(super) server: watch::Receiver<Option<url::Url>>,
    /// Is told once the session is established.
    pub(super) welcomed: Option<oneshot::Sender<()>>,
}

/// How a conversation went.
#[derive(Debug)]
pub(super) struct Outlook {
    /// How long the session lasted, if it was established.
    pub(super) lasted: Option<Duration>,
    /// Why it ended.
    pub(super) end: End,
}

impl Outlook {
    /// What the brain said, where it has retired the device.
    pub(super) fn retired(&self) -> Option<String> {
        match &self.end {
            End::Closed(Ended { error, by_peer: true, .. }) => {
                (error.code == ErrorCode::Retired).then(|| error.to_string())
            }
            _ => None,
        }
    }
}

/// Why a conversation ended.
#[derive(Debug)]
pub(super) enum End {
    /// The agent stops.
    Stopped,
    /// Another brain is to be called.
    ServerChanged,
    /// One side said so.
    Closed(Ended),
    /// The connection broke.
    Broken(Option<tungstenite::Error>),
    /// The keeper of the tree did not answer.
    TrackGone(AskError),
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

/// Talks until the connection ends.
pub(super) async fn converse(socket: Socket, session: Session, around: Around<'_>) -> Outlook {
    let (sink, stream) = socket.split();
    let mut talk = Talk {
        sink,
        stream,
        session,
        outbox: VecDeque::new(),
        unwritten: false,
        started: Instant::now(),
        welcomed: None,
        brain: None,
        heads_seen: false,
        traces: Vec::new(),
        own: Topic::new(around.track.clone(), around.board),
        shared: BTreeMap::new(),
        around,
    };
    let end = talk.run().await;
    if talk.welcomed.is_some() {
        let now_ms = talk.around.clock.wall_ms();
        talk.around.board.metrics().session_over();
        talk.around.board.update(|status| {
            status.online = false;
            status.since_ms = now_ms;
        });
    }
    // What a broken connection does not take is of no use to it.
    let _ = timeout(GOODBYE, talk.say_goodbye()).await;
    Outlook { lasted: talk.welcomed.map(|since| since.elapsed()), end }
}

struct Talk<'a> {
    sink: SplitSink<Socket, Message>,
    stream: SplitStream<Socket>,
    session: Session,
    outbox: VecDeque<Message>,
    /// Something was put into the outbox and is not known to have reached the socket.
    unwritten: bool,
    started: Instant,
    welcomed: Option<Instant>,
    /// The key that the answering brain showed; proved once the session is welcomed.
    brain: Option<PublicKey>,
    heads_seen: bool,
    /// The device's own tree.
    own: Topic,
    /// The trees that it shares.
    shared: BTreeMap<TreeId, Topic>,
    /// Of the entries that come next.
    traces: Vec<EntryTrace>,
    around: Around<'a>,
}

impl Talk<'_> {
    async fn run(&mut self) -> End {
        self.own.position.mark_changed();
        let mut moves = self.around.shares.watch_moves();
        let mut end = self.feed(Input::Connected).await;
        loop {
            match end {
                Ok(None) => {}
                Ok(Some(ended)) => return End::Closed(ended),
                Err(error) => return End::TrackGone(error),
            }
            if *self.around.stop.borrow() {
                return self.close(ErrorCode::GoingAway, "agent stops", End::Stopped).await;
            }
            let due = self.next_due();
            let readable = self.outbox.len() < OUTBOX_FRAMES_MAX;
            end = tokio::select! {
                biased;
                written = drain(&mut self.sink, &mut self.outbox), if self.unwritten => {
                    match written {
                        Ok(()) => {
                            self.unwritten = false;
                            Ok(None)
                        }
                        Err(error) => return End::Broken(Some(error)),
                    }
                }
                changed = self.around.stop.changed() => match changed {
                    Ok(()) => Ok(None),
                    Err(_) => return End::Stopped,
                },
                Ok(()) = self.around.server.changed() => {
                    let end = End::ServerChanged;
                    return self.close(ErrorCode::GoingAway, "device calls another brain", end).await;
                }
                () = sleep_until(due) => self.tick().await,
                Ok(()) = self.own.position.changed(), if self.session.is_established() => {
                    self.moved(None).await
                }
                Ok(()) = moves.changed() => self.shared_moved().await,
                message = self.stream.next(), if readable => match message {
                    Some(Ok(Message::Binary(frame))) => {
                        self.around.board.metrics().frame_received(&frame);
                        self.frame(&frame).await
                    }
                    Some(Ok(Message::Close(_))) | None => return End::Broken(None),
                    Some(Ok(_)) => Ok(None),
                    Some(Err(error)) => return End::Broken(Some(error)),
                },
            };
        }
    }

    /// When something has to be done that no event brings about.
    fn next_due(&self) -> Instant {
        let tick = match self.session.next_tick_ms() {
            Some(tick_ms) => {
                let ahead_ms = tick_ms.saturating_sub(self.around.clock.mono_ms());
                Instant::now() + Duration::from_millis(ahead_ms)
            }
            None => self.started + HANDSHAKE_TIMEOUT,
        };
        let topics = [&self.own].into_iter().chain(self.shared.values());
        topics.filter_map(|topic| topic.seal_due).fold(tick, Instant::min)
    }

    async fn tick(&mut self) -> Step {
        if !self.session.is_established() && self.started.elapsed() >= HANDSHAKE_TIMEOUT {
            let error = error(ErrorCode::TimedOut, "wait for the welcome", "brain says nothing");
            return self.feed(Input::Close { error, retry_after_ms: None }).await;
        }
        for of in self.topics() {
            let topic = self.topic(of);
            if topic.is_some_and(|topic| topic.seal_due.is_some_and(|due| Instant::now() >= due))
                && let Some(ended) = self.seal(of).await?
            {
                return Ok(Some(ended));
            }
        }
        self.feed(Input::Tick).await
    }

    /// Signs what was sent and ends the session.
    async fn close(&mut self, code: ErrorCode, why: &str, end: End) -> End {
        if self.session.is_established() {
            for of in self.topics() {
                if let Err(error) = self.seal(of).await {
                    return End::TrackGone(error);
                }
            }
        }
        let error = error(code, "close", why);
        match self.feed(Input::Close { error, retry_after_ms: None }).await {
            Ok(_) => end,
            Err(error) => End::TrackGone(error),
        }
    }

    async fn say_goodbye(&mut self) -> Result<(), tungstenite::Error> {
        drain(&mut self.sink, &mut self.outbox).await?;
        self.sink.close().await
    }
}

/// How the session ended, if it did.
type Step = Result<Option<Ended>, AskError>;

/// Writes what waits. May be dropped at any await: nothing is lost.
async fn drain<S>(sink: &mut S, outbox: &mut VecDeque<Message>) -> Result<(), tungstenite::Error>
where
    S: Sink<Message, Error = tungstenite::Error> + Unpin,
{
    while !outbox.is_empty() {
        poll_fn(|cx| std::pin::Pin::new(&mut *sink).poll_ready(cx)).await?;
        if let Some(message) = outbox.pop_front() {
            std::pin::Pin::new(&mut *sink).start_send(message)?;
        }
    }
    sink.flush().await
}
