//! One connection: the protocol's session between the socket and the keeper of the tree.

use std::collections::VecDeque;
use std::time::Duration;

use actors::supervise::{Address, AskError};
use futures_util::stream::{SplitSink, SplitStream};
use futures_util::{Sink, SinkExt, StreamExt, future::poll_fn};
use protocol::history::LogId;
use protocol::session::{Ended, Input, Output, Session, error};
use protocol::wire::{self, LogPosition, Message as WireMessage, Refuse};
use protocol::{ErrorCode, PublicKey, SyncError};
use tokio::net::TcpStream;
use tokio::sync::{oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::client::TlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{self, Message};

use crate::clock::Clock;
use crate::status::Board;
use crate::track::{self, Outcome, WriteError};

/// From the first frame to the welcome.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(15);
/// A head is signed so long after the first unsigned entry, at the latest.
const SEAL_DELAY: Duration = Duration::from_secs(1);
/// Or after so many entries.
const SEAL_ENTRIES: u64 = 256;
/// The socket is not read while so many frames wait to be written.
const OUTBOX_FRAMES_MAX: usize = 64;
/// How long the last frames may take.
const GOODBYE: Duration = Duration::from_secs(2);
/// So many refusals in one session are no accident.
const REFUSALS_MAX: u32 = 8;

/// What a conversation needs beside the connection.
pub(super) struct Around<'a> {
    pub(super) track: &'a Address<track::Msg>,
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
        seal_due: None,
        sealed: 0,
        refusals: 0,
        around,
    };
    let end = talk.run().await;
    if talk.welcomed.is_some() {
        let now_ms = talk.around.clock.wall_ms();
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
    seal_due: Option<Instant>,
    /// The number of the last own entry under a seal.
    sealed: u64,
    refusals: u32,
    around: Around<'a>,
}

impl Talk<'_> {
    async fn run(&mut self) -> End {
        let mut position = self.around.board.watch_position();
        position.mark_changed();
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
                Ok(()) = position.changed(), if self.session.is_established() => {
                    let position = *position.borrow_and_update();
                    match position {
                        Some(position) => self.moved(position).await,
                        None => Ok(None),
                    }
                }
                message = self.stream.next(), if readable => match message {
                    Some(Ok(Message::Binary(frame))) => self.frame(&frame).await,
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
        self.seal_due.map_or(tick, |seal| seal.min(tick))
    }

    async fn tick(&mut self) -> Step {
        if !self.session.is_established() && self.started.elapsed() >= HANDSHAKE_TIMEOUT {
            let error = error(ErrorCode::TimedOut, "wait for the welcome", "brain says nothing");
            return self.feed(Input::Close { error, retry_after_ms: None }).await;
        }
        if self.seal_due.is_some_and(|due| Instant::now() >= due) {
            if let Some(ended) = self.seal().await? {
                return Ok(Some(ended));
            }
        }
        self.feed(Input::Tick).await
    }

    /// The own log durably stands further than before.
    async fn moved(&mut self, position: LogPosition) -> Step {
        let unsealed = position.seq.saturating_sub(self.sealed.max(position.sealed));
        if unsealed >= SEAL_ENTRIES {
            self.seal_due = Some(Instant::now());
        } else if unsealed > 0 {
            self.seal_due.get_or_insert_with(|| Instant::now() + SEAL_DELAY);
        }
        self.feed(Input::Stored { log: position.log, position, consumed_bytes: 0 }).await
    }

    async fn seal(&mut self) -> Step {
        self.seal_due = None;
        match self.around.track.ask(track::Msg::Seal, track::PATIENCE).await? {
            Some(signed) => {
                self.sealed = signed.head.seq;
                self.feed(Input::Sealed(signed)).await
            }
            None => Ok(None),
        }
    }

    /// Signs what was sent and ends the session.
    async fn close(&mut self, code: ErrorCode, why: &str, end: End) -> End {
        if self.session.is_established() {
            if let Err(error) = self.seal().await {
                return End::TrackGone(error);
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

    /// Takes a frame: what the session does not tell of it first, which is who the brain is, and
    /// whether it has the same history.
    async fn frame(&mut self, frame: &[u8]) -> Step {
        let mut outcomes = Vec::new();
        if !self.heads_seen {
            match wire::decode(frame) {
                Ok(WireMessage::HelloReply(reply)) => self.brain = Some(reply.public_key),
                Ok(WireMessage::Heads(heads)) if self.session.is_established() => {
                    self.heads_seen = true;
                    let ask = |reply| track::Msg::PeerHeads(heads.logs, reply);
                    match self.around.track.ask(ask, track::PATIENCE).await? {
                        Ok(found) => outcomes = found,
                        Err(failure) => {
                            let error = store_error(&failure);
                            return self.feed(Input::Close { error, retry_after_ms: None }).await;
                        }
                    }
                }
                _ => {}
            }
        }
        // A log that turned out to have ended must have ended before the session sends of it.
        for outcome in outcomes {
            let more = self.reissued(outcome);
            if let Some(ended) = self.perform(more).await? {
                return Ok(Some(ended));
            }
        }
        self.feed(Input::Frame(frame)).await
    }

    async fn tell(&self, message: track::Msg) {
        // Whoever does not take it is restarting, and learns the same from the next session.
        let _ = self.around.track.cast(message, track::PATIENCE).await;
    }

    /// Gives the session an event and carries out what follows.
    async fn feed(&mut self, input: Input<'_>) -> Step {
        let outputs = self.handle(input);
        self.perform(outputs).await
    }

    /// Carries out what the session says, and what follows from that, until nothing more does.
    async fn perform(&mut self, outputs: Vec<Output>) -> Step {
        let mut work = VecDeque::from(outputs);
        while let Some(output) = work.pop_front() {
            let more = match output {
                Output::Send(frame) => {
                    self.outbox.push_back(Message::Binary(frame.into()));
                    self.unwritten = true;
                    continue;
                }
                Output::Closed(ended) => return Ok(Some(ended)),
                Output::Welcomed { connection, offset_ms } => {
                    self.welcomed(connection, offset_ms).await?
                }
                Output::Fetch { log, after, bytes_max } => {
                    let fetch = |reply| track::Msg::Fetch(log, after, bytes_max, reply);
                    let entries = self.around.track.ask(fetch, track::PATIENCE).await?;
                    self.handle(Input::Fetched { log, entries })
                }
                Output::Ingest { log, entries, bytes } => self.ingest(log, entries, bytes).await?,
                Output::TakeSignedHead(signed) => {
                    let log = signed.head.log;
                    let take = |reply| track::Msg::TakeSignedHead(signed, reply);
                    let position = self.around.track.ask(take, track::PATIENCE).await?;
                    self.handle(Input::Stored { log, position, consumed_bytes: 0 })
                }
                Output::TakeCut(cut) => {
                    self.tell(track::Msg::TakeCut(cut)).await;
                    continue;
                }
                Output::Acked { log, stored, sealed } => {
                    self.tell(track::Msg::Acked(log, stored, sealed)).await;
                    continue;
                }
                Output::PeerRefused(refuse) => self.refused(refuse).await?,
                Output::OwnLogBehind { log, theirs, ours } => {
                    tracing::warn!(theirs, ours, "brain has more of an own log than this device");
                    self.tell(track::Msg::OwnLogBehind(log)).await;
                    continue;
                }
                Output::ClockSample { offset_ms, .. } => {
                    self.clock_sample(offset_ms).await;
                    continue;
                }
                Output::Authorise(_) | Output::Enrol(..) | Output::Enrolled(_) => continue,
            };
            work.extend(more);
        }
        Ok(None)
    }

    fn handle(&mut self, input: Input<'_>) -> Vec<Output> {
        self.session.handle(input, self.around.clock.now())
    }

    async fn welcomed(&mut self, connection: u64, offset_ms: i64) -> Result<Vec<Output>, AskError> {
        self.welcomed = Some(Instant::now());
        if let Some(welcomed) = self.around.welcomed.take() {
            // Whoever does not wait for it does not need it.
            let _ = welcomed.send(());
        }
        let now_ms = self.around.clock.wall_ms();
        self.around.board.update(|status| {
            status.online = true;
            status.since_ms = now_ms;
            status.sessions += 1;
            status.last_error = None;
        });
        tracing::info!(connection, offset_ms, "online");
        self.clock_sample(offset_ms).await;
        if let Some(brain) = self.brain {
            self.tell(track::Msg::MetBrain(brain)).await;
        }
        // What was written and signed since the session was prepared.
        let sealed = self.around.track.ask(track::Msg::Seal, track::PATIENCE).await?;
        let view = self.around.track.ask(track::Msg::View, track::PATIENCE).await?;
        let mut outputs = Vec::new();
        for cut in view.cuts {
            outputs.extend(self.handle(Input::CutMade(cut)));
        }
        for position in view.positions {
            if position.log.author == self.around.own_key {
                let log = position.log;
                outputs.extend(self.handle(Input::Stored { log, position, consumed_bytes: 0 }));
            }
        }
        for signed in view.seals {
            outputs.extend(self.handle(Input::Sealed(signed)));
        }
        self.sealed = sealed.map_or(0, |signed| signed.head.seq);
        Ok(outputs)
    }

    async fn ingest(
        &mut self,
        log: LogId,
        entries: Vec<(protocol::EntryId, protocol::history::Entry)>,
        bytes: u32,
    ) -> Result<Vec<Output>, AskError> {
        let last = entries.last().map_or(0, |(_, entry)| entry.seq);
        let ingest = |reply| track::Msg::Ingest(log, entries, reply);
        let ingested = match self.around.track.ask(ingest, track::PATIENCE).await? {
            Ok(ingested) => ingested,
            Err(failure) => {
                let error = store_error(&failure);
                let (seq, consumed_bytes) = (last, bytes);
                let fatal = true;
                return Ok(self.handle(Input::Refused { log, seq, error, consumed_bytes, fatal }));
            }
        };
        let position = ingested.position;
        let mut outputs = self.handle(Input::Stored { log, position, consumed_bytes: bytes });
        let Some((seq, error)) = ingested.refused else { return Ok(outputs) };
        tracing::warn!(seq, code = %error.code, message = %error.message, "refused a brain's entry");
        let forked = error.code == ErrorCode::Equivocation && log.author == self.around.own_key;
        let (refusal, fatal) = (error.clone(), false);
        let input = Input::Refused { log, seq, error, consumed_bytes: 0, fatal };
        outputs.extend(self.handle(input));
        if forked {
            let (tree, now_ms) = (position_tree(self.around.track).await?, 0);
            let credit_bytes = 0;
            let refuse = Refuse { tree, log, seq, error: refusal, now_ms, credit_bytes };
            outputs.extend(self.refused(refuse).await?);
        }
        Ok(outputs)
    }

    async fn refused(&mut self, refuse: Refuse) -> Result<Vec<Output>, AskError> {
        self.refusals += 1;
        let (code, refuse) = (refuse.error.code, Box::new(refuse));
        let ask = |reply| track::Msg::Refused(refuse, reply);
        let outcome = self.around.track.ask(ask, track::PATIENCE).await?;
        let close = |error| Input::Close { error, retry_after_ms: None };
        Ok(match outcome {
            Ok(outcome @ Outcome::Reissued { .. }) if self.refusals < REFUSALS_MAX => {
                self.reissued(outcome)
            }
            Ok(Outcome::Nothing) => Vec::new(),
            Ok(Outcome::Reissued { .. } | Outcome::Reconnect) => {
                let text = format!("brain refused an entry with {code}");
                self.handle(close(error(ErrorCode::GoingAway, "deal with a refusal", text)))
            }
            Err(failure) => self.handle(close(store_error(&failure))),
        })
    }

    /// Tells the session that a log ended and where its successor stands.
    fn reissued(&mut self, outcome: Outcome) -> Vec<Output> {
        let Outcome::Reissued { cut, position } = outcome else { return Vec::new() };
        self.sealed = 0;
        let mut outputs = self.handle(Input::CutMade(cut));
        let log = position.log;
        outputs.extend(self.handle(Input::Stored { log, position, consumed_bytes: 0 }));
        outputs
    }

    async fn clock_sample(&mut self, offset_ms: i64) {
        self.around.board.update(|status| status.clock_error_ms = Some(offset_ms));
        self.tell(track::Msg::ClockError(offset_ms)).await;
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

async fn position_tree(track: &Address<track::Msg>) -> Result<protocol::TreeId, AskError> {
    Ok(track.ask(track::Msg::View, track::PATIENCE).await?.tree)
}

fn store_error(failure: &WriteError) -> SyncError {
    let full = matches!(failure, WriteError::Spool(error) if matches!(**error, crate::spool::SpoolError::DiskFull));
    let code = if full { ErrorCode::DiskFull } else { ErrorCode::StoreFailed };
    error(code, "store entries", failure.to_string())
}
