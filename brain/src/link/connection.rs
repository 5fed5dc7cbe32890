//! One connection, from the first byte to the last.

mod attach;
mod goodbye;
mod groups;
mod opening;
mod unanswered;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use actors::account::{Ledger, Reason};
use actors::device::{Clock, DeviceMsg};
use actors::ports::{LinkEvent, LinkReceiver, LinkSender};
use actors::supervise::{Address, CastError, NodeError};
use actors::trace::Spans;
use futures_util::{SinkExt, StreamExt};
use protocol::session::{Ended, Input, Output, Session, error};
use protocol::trace::EntryTrace;
use protocol::{DeviceId, ErrorCode, TreeId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{Bytes, Message};

use super::connections::Taken;
use super::drain::Exit;
use super::metered::Allowance;
use super::upgrade::Admitted;
use super::{Ingress, SEND_TIME_MAX, Stay, UNAUTHENTICATED_TIME_MAX};
use crate::metrics::ActiveLink;

use attach::Away;
pub(crate) use groups::note_groups;
use groups::{GROUP_TIME_MAX, GroupLink, OFFER_AGAIN_AFTER};
use opening::Opened;
use unanswered::{Open, Unanswered};

/// How much news may wait for a connection's task. Its credit keeps a device well below.
const EVENTS_MAX: usize = 4_096;
/// How long a twin may take to answer.
const TWIN_TIME_MAX: Duration = Duration::from_secs(30);

/// Serves a connection until it ends.
pub(super) async fn serve(ingress: Arc<Ingress>, taken: Taken) -> Result<(), NodeError> {
    // In boxes is what is over soon: the task of an idle connection has no room for it.
    match Box::pin(opening::open(ingress, taken)).await {
        Some(Opened::Tls(connection, events)) => connection.serve(events).await,
        #[cfg(feature = "plain-text")]
        Some(Opened::PlainText(connection, events)) => connection.serve(events).await,
        None => {}
    }
    Ok(())
}

struct Connection<S> {
    ingress: Arc<Ingress>,
    exit: Exit,
    session: Session,
    socket: WebSocketStream<S>,
    peer: SocketAddr,
    admitted: Admitted,
    allowance: Allowance,
    /// Until the peer has proved itself: the place it takes, and until when.
    handshake: Option<(OwnedSemaphorePermit, Instant)>,
    twin: Option<Address<DeviceMsg>>,
    device: Option<DeviceId>,
    /// Others see that the device is here.
    stay: Option<Stay>,
    active: Option<ActiveLink>,
    number: u64,
    /// Given to the twin: when the twin is gone, and all that it had queued is settled, the
    /// channel closes.
    events_in: Option<LinkSender>,
    /// The share of the brain's memory that this connection's entries take.
    held: Option<OwnedSemaphorePermit>,
    /// Of the entries that come next.
    traces: Vec<EntryTrace>,
    /// Until the acknowledgement that follows is sent.
    acknowledging: Spans,
    /// What the session said that is to be done once there is memory for the entries at its front;
    /// nothing more is read from this socket until then.
    waiting: VecDeque<Output>,
    granted: Option<OwnedSemaphorePermit>,
    /// What became of the device's entries.
    ledger: Arc<Ledger>,
    /// The frame that is being taken in.
    frame: Bytes,
    /// What the twin was told and has not answered.
    unanswered: Unanswered,
    /// The trees of the device's groups.
    groups: BTreeMap<TreeId, GroupLink>,
    /// When it is looked which groups the device is in.
    groups_due: Option<Instant>,
    groups_noted: bool,
}

/// What ended a connection.
type End = Option<Ended>;

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    async fn serve(mut self: Box<Self>, events: LinkReceiver) {
        let ended = self.run(events).await;
        Box::pin(self.finish(ended)).await;
    }

    async fn run(&mut self, mut events: LinkReceiver) -> End {
        loop {
            let tick = match &self.handshake {
                Some((_, deadline)) => Some(*deadline),
                None => self.session.next_tick_ms().map(|ms| self.ingress.clock.instant(ms)),
            };
            let bytes = self.waiting.front().and_then(bytes_to_ingest).unwrap_or_default();
            let far = || Instant::now() + Duration::from_secs(3_600);
            let outputs = tokio::select! {
                biased;
                event = events.recv() => match event {
                    Some(event) => self.event(None, *event),
                    None => match Box::pin(self.attach_again()).await {
                        Ok((again, outputs)) => {
                            events = again;
                            outputs
                        }
                        Err(Away { error, retry_after_ms }) => {
                            self.feed(Input::Close { error, retry_after_ms })
                        }
                    },
                },
                (tree, event) = groups::next(&mut self.groups), if !self.groups.is_empty() => {
                    match event {
                        Some(event) => self.event(Some(tree), *event),
                        None => Box::pin(self.attach_to_group_again(tree)).await,
                    }
                }
                granted = share_of(&self.ingress.ingest, bytes), if !self.waiting.is_empty() => {
                    self.granted = granted;
                    self.waiting.drain(..).collect()
                }
                message = self.socket.next(), if self.waiting.is_empty() => match message {
                    Some(Ok(Message::Binary(frame))) => {
                        self.ingress.metrics.frame_received(frame.len());
                        let outputs = self.feed(Input::Frame(&frame));
                        self.frame = frame;
                        outputs
                    }
                    Some(Ok(Message::Ping(_) | Message::Pong(_) | Message::Frame(_))) => continue,
                    Some(Ok(Message::Text(_))) => {
                        self.close(ErrorCode::Malformed, "frames are binary messages")
                    }
                    Some(Err(tokio_tungstenite::tungstenite::Error::Capacity(_))) => {
                        self.close(ErrorCode::TooLarge, "the message is over the frame limit")
                    }
                    Some(Ok(Message::Close(_))) | Some(Err(_)) | None => return None,
                },
                retry_after = self.exit.turn() => {
                    let error = error(ErrorCode::GoingAway, "serve", "the brain stops");
                    let retry_after_ms = u32::try_from(retry_after.as_millis()).ok();
                    self.feed(Input::Close { error, retry_after_ms })
                }
                () = sleep_until(self.groups_due.unwrap_or_else(far)),
                    if self.groups_due.is_some() => {
                    Box::pin(self.look_at_groups()).await
                }
                () = sleep_until(tick.unwrap_or_else(far)) => {
                    if self.handshake.is_some() {
                        self.close(ErrorCode::TimedOut, "the handshake took too long")
                    } else {
                        self.feed(Input::Tick)
                    }
                }
            };
            // In a box, and only where there is something to do.
            if !outputs.is_empty()
                && let Err(end) = Box::pin(self.perform(outputs)).await
            {
                return end;
            }
            if self.waiting.is_empty() {
                self.frame = Bytes::new();
            }
            self.acknowledging = Spans::default();
        }
    }

    async fn perform(&mut self, outputs: Vec<Output>) -> Result<(), End> {
        let mut queue = VecDeque::from(outputs);
        let mut delivered = Vec::new();
        while let Some(output) = queue.pop_front() {
            if let Some(bytes) = bytes_to_ingest(&output) {
                if matches!(&output, Output::OfShared { tree, .. } if !self.groups.contains_key(tree))
                {
                    self.granted = None;
                    continue;
                }
                let Some(share) = self.share(bytes) else {
                    queue.push_front(output);
                    self.waiting.append(&mut queue);
                    break;
                };
                self.hold(share);
            }
            let (of, output) = match output {
                Output::OfShared { tree, output } => (Some(tree), *output),
                output => (None, output),
            };
            match output {
                Output::Send(frame) => self.send(frame).await?,
                Output::Authorise(peer) => queue.extend(Box::pin(self.authorise(peer)).await),
                Output::Enrol(peer, proof) => queue.extend(Box::pin(self.enrol(peer, proof)).await),
                Output::Fetch { log, after, bytes_max } => {
                    self.ask(of, Open::Fetch { log, after, bytes_max }).await?;
                }
                Output::FetchCheckpoint => self.ask(of, Open::FetchCheckpoint).await?,
                Output::Traced { traces, .. } => self.traces = traces,
                Output::Ingest { log, entries, bytes } => {
                    let in_flight = self.ledger.take(entries.len() as u32);
                    let frame = self.frame.clone();
                    if let Some(unanswered) = self.unanswered_of(of) {
                        unanswered.batch(frame, Instant::now());
                    }
                    let connection = self.number;
                    let traces = std::mem::take(&mut self.traces);
                    let came = DeviceMsg::EntriesCame {
                        connection,
                        log,
                        entries,
                        bytes,
                        in_flight,
                        traces,
                    };
                    self.tell(of, came).await?;
                }
                Output::TakeSignedHead(signed) => self.ask(of, Open::SignedHead(signed)).await?,
                Output::TakeCut(cut) => self.ask(of, Open::Cut(cut)).await?,
                Output::PeerLogBehind { log } => self.ask(of, Open::LogLost(log)).await?,
                Output::PeerRefused(refuse) => self.ask(of, Open::Refused(refuse)).await?,
                Output::Left(tree) => self.left_by_device(tree),
                Output::Closed(ended) => return Err(Some(ended)),
                Output::Acked { log, stored, .. } if of.is_none() => {
                    if log.author == self.ingress.own_key {
                        delivered.push((log, stored));
                    }
                }
                Output::Acked { .. }
                | Output::OwnLogBehind { .. }
                | Output::ClockSample { .. }
                // No session of this side hands one over.
                | Output::TakeCheckpoint(_)
                // A device that holds the tree of a group which it left is not answered.
                | Output::Offered { .. }
                | Output::OfShared { .. }
                | Output::Welcomed { .. }
                | Output::Enrolled(_) => {}
            }
        }
        if !delivered.is_empty() {
            let has = DeviceMsg::PeerHas { connection: self.number, logs: delivered };
            self.tell(None, has).await?;
        }
        Ok(())
    }

    async fn send(&mut self, frame: Vec<u8>) -> Result<(), End> {
        self.ingress.metrics.frame_sent(frame.len());
        let message = Message::Binary(Bytes::from(frame));
        match timeout(SEND_TIME_MAX, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(None),
            Err(_) => {
                let error = error(ErrorCode::Overloaded, "send", "the device does not read");
                Err(Some(Ended { error, by_peer: false, retry_after_ms: None }))
            }
        }
    }

    fn event(&mut self, of: Option<TreeId>, event: LinkEvent) -> Vec<Output> {
        match event {
            LinkEvent::Stored { log, position, consumed_bytes, acknowledging } => {
                self.release(consumed_bytes);
                self.acknowledging = acknowledging;
                let done = self.unanswered_of(of).and_then(|unanswered| {
                    unanswered.stored(&position);
                    (consumed_bytes > 0).then(|| unanswered.batch_done()).flatten()
                });
                if let Some(received) = done {
                    self.ingress.metrics.acknowledged(received.elapsed());
                }
                self.feed_of(of, Input::Stored { log, position, consumed_bytes })
            }
            LinkEvent::Refused { log, seq, error, consumed_bytes, fatal: true } if of.is_some() => {
                self.release(consumed_bytes);
                let refused = Input::Refused { log, seq, error, consumed_bytes, fatal: false };
                let mut outputs = self.feed_of(of, refused);
                outputs.extend(self.leave_for(of, OFFER_AGAIN_AFTER));
                outputs
            }
            LinkEvent::Refused { log, seq, error, consumed_bytes, fatal } => {
                self.release(consumed_bytes);
                self.feed_of(of, Input::Refused { log, seq, error, consumed_bytes, fatal })
            }
            LinkEvent::Fetched { log, entries } => {
                if let Some(unanswered) = self.unanswered_of(of) {
                    unanswered.fetched(log);
                }
                self.feed_of(of, Input::Fetched { log, entries })
            }
            LinkEvent::Checkpoint(checkpoint) => {
                if let Some(unanswered) = self.unanswered_of(of) {
                    unanswered.checkpoint_fetched();
                }
                self.feed_of(of, Input::Checkpoint(checkpoint))
            }
            LinkEvent::Pruned(floor) => self.feed_of(of, Input::Pruned(floor)),
            LinkEvent::Sealed(signed) => self.feed_of(of, Input::Sealed(signed)),
            LinkEvent::Traced { log, trace } => self.feed_of(of, Input::Traced { log, trace }),
            LinkEvent::CutMade(cut) => {
                if let Some(unanswered) = self.unanswered_of(of) {
                    unanswered.cut_made(cut.log);
                }
                self.feed_of(of, Input::CutMade(cut))
            }
            LinkEvent::GroupsChanged => {
                self.look_at_groups_in(Duration::ZERO);
                Vec::new()
            }
            // What a group's actor is through with, the device need not be.
            LinkEvent::Close { retry_after_ms, .. } if of.is_some() => {
                let retry_after = retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
                self.leave_for(of, retry_after.unwrap_or(OFFER_AGAIN_AFTER))
            }
            LinkEvent::Close { error, retry_after_ms } => {
                self.feed(Input::Close { error, retry_after_ms })
            }
        }
    }

    /// Feeds in what happened to the device's tree, or to that of a group.
    fn feed_of(&mut self, of: Option<TreeId>, input: Input<'_>) -> Vec<Output> {
        match of {
            Some(tree) => self.feed(Input::OfShared { tree, input: Box::new(input) }),
            None => self.feed(input),
        }
    }

    fn feed(&mut self, input: Input<'_>) -> Vec<Output> {
        let now = self.ingress.clock.now();
        self.session.handle(input, now)
    }

    fn close(&mut self, code: ErrorCode, text: &str) -> Vec<Output> {
        let error = error(code, "serve", text);
        self.feed(Input::Close { error, retry_after_ms: None })
    }

    /// A share of the brain's memory for entries on their way to disk, where there is one now.
    fn share(&mut self, bytes: u32) -> Option<OwnedSemaphorePermit> {
        let granted = self.granted.take();
        granted.or_else(|| self.ingress.ingest.clone().try_acquire_many_owned(bytes).ok())
    }

    fn hold(&mut self, permit: OwnedSemaphorePermit) {
        match &mut self.held {
            Some(held) => held.merge(permit),
            None => self.held = Some(permit),
        }
    }

    fn release(&mut self, bytes: u32) {
        if let Some(held) = &mut self.held {
            drop(held.split(bytes as usize));
        }
    }

    /// Tells a twin something that it may have to be told again.
    async fn ask(&mut self, of: Option<TreeId>, open: Open) -> Result<(), End> {
        if let Some(unanswered) = self.unanswered_of(of) {
            unanswered.tell(open.clone());
        }
        self.tell(of, open.into_msg(self.number)).await
    }

    async fn tell(&mut self, of: Option<TreeId>, msg: DeviceMsg) -> Result<(), End> {
        let twin = match of {
            Some(tree) => self.groups.get(&tree).map(|group| &group.twin),
            None => self.twin.as_ref(),
        };
        let Some(twin) = twin else { return Ok(()) };
        let time_max = if of.is_some() { GROUP_TIME_MAX } else { TWIN_TIME_MAX };
        match twin.cast(msg, time_max).await {
            Ok(()) => Ok(()),
            Err(refused) => {
                let text = format!("the actor of the tree: {}", refused.refusal());
                if let CastError::Full(DeviceMsg::EntriesCame { in_flight, .. }) = refused {
                    in_flight.refuse(Reason::Code(ErrorCode::Overloaded));
                }
                if let Some(tree) = of {
                    // The device's own tree goes on without it.
                    tracing::warn!(tree = %tree, text, "a group is left for now");
                    for output in self.leave_for(of, OFFER_AGAIN_AFTER) {
                        if let Output::Send(frame) = output {
                            self.send(frame).await?;
                        }
                    }
                    return Ok(());
                }
                let error = error(ErrorCode::Overloaded, "serve", text);
                Err(Some(Ended { error, by_peer: false, retry_after_ms: None }))
            }
        }
    }

    /// What a twin has not answered: the device's, or that of a group which the device is in.
    fn unanswered_of(&mut self, of: Option<TreeId>) -> Option<&mut Unanswered> {
        match of {
            Some(tree) => self.groups.get_mut(&tree).map(|group| &mut group.unanswered),
            None => Some(&mut self.unanswered),
        }
    }
}

/// How many bytes of entries an output asks to take in.
fn bytes_to_ingest(output: &Output) -> Option<u32> {
    match output {
        Output::Ingest { bytes, .. } => Some(*bytes),
        Output::OfShared { output, .. } => bytes_to_ingest(output),
        _ => None,
    }
}

/// Waits for a share of the memory that entries may take; the semaphore is never closed.
async fn share_of(memory: &Arc<Semaphore>, bytes: u32) -> Option<OwnedSemaphorePermit> {
    memory.clone().acquire_many_owned(bytes).await.ok()
}
