//! What follows from what the session says.

use std::collections::VecDeque;

use actors::supervise::{Address, AskError};
use actors::trace::Spans;
use actors::traced_span;
use protocol::history::{Checkpoint, LogId};
use protocol::session::{Input, Output, PeerDevice, error};
use protocol::wire::{self, Message as WireMessage, Refuse};
use protocol::{ErrorCode, ErrorSource, Layer, SyncError, TreeId};
use tokio::time::Instant;

use super::{Brain, Partner, Step, Talk};
use crate::track::{self, Incomplete, Merged, Outcome, Via, WriteError};

/// So many refusals in one session are no accident.
const REFUSALS_MAX: u32 = 8;

impl Talk<'_> {
    /// Takes a frame: what the session does not tell of it first, which is who the brain is, and
    /// whether it has the same history.
    pub(super) async fn frame(&mut self, frame: &[u8]) -> Step {
        let is_established = self.session.is_established();
        let mut outcomes = Vec::new();
        if let Partner::Brain(brain) = &mut self.partner
            && !brain.heads_seen
        {
            match wire::decode(frame) {
                Ok(WireMessage::HelloReply(reply)) => brain.key = Some(reply.public_key),
                Ok(WireMessage::Heads(heads)) if is_established => {
                    brain.heads_seen = true;
                    let ask = |reply| track::Msg::PeerHeads(heads.logs, reply);
                    match brain.own.track.ask(ask, track::PATIENCE).await? {
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
            let more = self.reissued(None, outcome);
            if let Some(ended) = self.perform(more).await? {
                return Ok(Some(ended));
            }
        }
        self.feed(Input::Frame(frame)).await
    }

    /// Gives the session an event and carries out what follows.
    pub(super) async fn feed(&mut self, input: Input<'_>) -> Step {
        let outputs = self.handle(input);
        self.perform(outputs).await
    }

    /// Carries out what the session says, and what follows from that, until nothing more does.
    pub(super) async fn perform(&mut self, outputs: Vec<Output>) -> Step {
        let mut work = VecDeque::from(outputs);
        while let Some(output) = work.pop_front() {
            let more = match output {
                Output::Send(frame) => {
                    self.partner.frame_sent(&frame);
                    self.outbox.push_back(frame.into());
                    self.unwritten = true;
                    continue;
                }
                Output::Authorise(device) => {
                    let more = self.authorise(&device);
                    work.extend(more);
                    if self.session.is_established() {
                        self.established();
                        // Once the welcome is sent.
                        self.sweep_due = Some(Instant::now());
                    }
                    continue;
                }
                Output::Closed(ended) => return Ok(Some(ended)),
                Output::Welcomed { connection, offset_ms } => {
                    self.established();
                    match &self.partner {
                        Partner::Brain(_) => self.welcomed(connection, offset_ms).await?,
                        // Once the handshake's outputs are carried out.
                        Partner::Peer(_) => {
                            self.sweep_due = Some(Instant::now());
                            continue;
                        }
                    }
                }
                Output::Offered { genesis, logs, root } => self.offered(genesis, logs, root).await,
                Output::Left(tree) => {
                    self.shared.remove(&tree);
                    continue;
                }
                Output::ClockSample { offset_ms, .. } => {
                    self.clock_sample(offset_ms).await;
                    continue;
                }
                Output::OfShared { tree, output } => {
                    match self.of_tree(Some(tree), *output).await {
                        Ok(more) => more,
                        // The device's own tree goes on without it.
                        Err(error) => self.leave(tree, &error.to_string()),
                    }
                }
                output => self.of_tree(None, output).await?,
            };
            work.extend(more);
        }
        Ok(None)
    }

    /// Carries out what the session says of a tree.
    async fn of_tree(
        &mut self,
        of: Option<TreeId>,
        output: Output,
    ) -> Result<Vec<Output>, AskError> {
        let Some(track) = self.track(of) else { return Ok(Vec::new()) };
        Ok(match output {
            Output::Fetch { log, after, bytes_max } => {
                if let Partner::Peer(peer) = &mut self.partner {
                    peer.is_sent(log, after);
                }
                let fetch = |reply| track::Msg::Fetch(log, after, bytes_max, reply);
                let track::Fetched { entries, traces, seal } =
                    track.ask(fetch, Self::patience(of)).await?;
                for trace in traces {
                    // It says nothing yet.
                    self.handle_of(of, Input::Traced { log, trace });
                }
                if let Some(signed) = seal {
                    self.handle_of(of, Input::Vouched(signed));
                }
                self.handle_of(of, Input::Fetched { log, entries })
            }
            Output::Traced { traces, .. } => {
                self.traces = traces;
                Vec::new()
            }
            Output::Ingest { log, entries, bytes } => self.ingest(of, log, entries, bytes).await?,
            Output::TakeSignedHead(signed) => {
                let log = signed.head.log;
                let take = |reply| track::Msg::TakeSignedHead(signed, reply);
                let position = track.ask(take, Self::patience(of)).await?;
                self.handle_of(of, Input::Stored { log, position, consumed_bytes: 0 })
            }
            Output::TakeCut(cut) => {
                let log = cut.log;
                let take = |reply| track::Msg::TakeCut(cut, reply);
                match (track.ask(take, Self::patience(of)).await?, of) {
                    (Err(Incomplete), Some(tree)) => {
                        self.leave(tree, "a log ended below what was here")
                    }
                    // What is above the end goes to nobody, and nothing waits for it.
                    (Ok(position), _) => {
                        self.handle_of(of, Input::Stored { log, position, consumed_bytes: 0 })
                    }
                    (Err(Incomplete), None) => Vec::new(),
                }
            }
            Output::TakeCheckpoint(checkpoint) => self.take_checkpoint(of, checkpoint).await?,
            Output::Acked { log, stored, sealed } => {
                let now_ms = self.around.clock.wall_ms();
                match (&mut self.partner, of) {
                    // Only what the brain has is safe.
                    (Partner::Peer(peer), _) => {
                        peer.acked(log, stored, now_ms);
                        return Ok(Vec::new());
                    }
                    (Partner::Brain(_), _) => {}
                }
                self.tell(of, track::Msg::Acked(log, stored, sealed)).await;
                let Some(tree) = of else { return Ok(Vec::new()) };
                match track.ask(track::Msg::IsWhole, Self::patience(of)).await? {
                    Ok(()) => Vec::new(),
                    Err(Incomplete) => self.leave(tree, "nothing of it waits any more"),
                }
            }
            Output::PeerRefused(refuse) => self.refused(of, refuse).await?,
            Output::OwnLogBehind { log, theirs, ours } => {
                tracing::warn!(
                    theirs,
                    ours,
                    "another side has more of an own log than this device"
                );
                self.tell(of, track::Msg::OwnLogBehind(log)).await;
                Vec::new()
            }
            _ => Vec::new(),
        })
    }

    pub(super) fn handle(&mut self, input: Input<'_>) -> Vec<Output> {
        self.session.handle(input, self.around.clock.now())
    }

    /// Another device has called and proved its key: it is the one that the transport knows, and
    /// shares a tree with this one.
    fn authorise(&mut self, device: &PeerDevice) -> Vec<Output> {
        let Partner::Peer(peer) = &self.partner else { return Vec::new() };
        if device.key == peer.key {
            return self.handle(Input::Admitted { connection: 0 });
        }
        let text = "the key is not that of the transport";
        self.handle(Input::Denied(error(ErrorCode::WrongRole, "admit peer", text)))
    }

    fn established(&mut self) {
        self.welcomed = Some(Instant::now());
        self.partner.session_welcomed(self.around.clock.wall_ms());
    }

    async fn welcomed(&mut self, connection: u64, offset_ms: i64) -> Result<Vec<Output>, AskError> {
        tracing::info!(connection, offset_ms, "online");
        self.clock_sample(offset_ms).await;
        if let Partner::Brain(Brain { key: Some(brain), .. }) = self.partner {
            self.tell(None, track::Msg::MetBrain(brain)).await;
        }
        // What was written and signed since the session was prepared.
        self.introduce(None).await
    }

    async fn ingest(
        &mut self,
        of: Option<TreeId>,
        log: LogId,
        entries: Vec<(protocol::EntryId, protocol::history::Entry)>,
        bytes: u32,
    ) -> Result<Vec<Output>, AskError> {
        let Some(track) = self.track(of) else { return Ok(Vec::new()) };
        let last = entries.last().map_or(0, |(_, entry)| entry.seq);
        // Open until the entries are durable here.
        let _spans = Spans::open(&std::mem::take(&mut self.traces), |trace| {
            traced_span!(
                trace.context,
                "entry.ingest",
                otel.kind = "consumer",
                entry.seq = trace.seq
            )
        });
        let (via, count) = (self.partner.via(), entries.len() as u64);
        let ingest = |reply| track::Msg::Ingest(log, entries, via, reply);
        let ingested = match (track.ask(ingest, Self::patience(of)).await?, of) {
            (Ok(ingested), _) => ingested,
            (Err(failure), Some(tree)) => return Ok(self.leave(tree, &failure.to_string())),
            (Err(failure), None) => {
                let error = store_error(&failure);
                let (seq, consumed_bytes) = (last, bytes);
                let fatal = true;
                return Ok(self.handle(Input::Refused { log, seq, error, consumed_bytes, fatal }));
            }
        };
        let position = ingested.position;
        let mut outputs =
            self.handle_of(of, Input::Stored { log, position, consumed_bytes: bytes });
        let Some((seq, error)) = ingested.refused else {
            self.partner.entries_taken(count, self.around.clock.wall_ms());
            return Ok(outputs);
        };
        tracing::warn!(?via, seq, code = %error.code, message = %error.message, "refused an entry");
        // Another device may have been told another history of this one by nobody but this one.
        let is_own = log.author == self.around.own_key && via == Via::Brain;
        let forked = error.code == ErrorCode::Equivocation && is_own;
        let (refusal, fatal) = (error.clone(), false);
        let input = Input::Refused { log, seq, error, consumed_bytes: 0, fatal };
        outputs.extend(self.handle_of(of, input));
        if forked {
            let (tree, now_ms) = (position_tree(&track).await?, 0);
            let credit_bytes = 0;
            let refuse = Refuse { tree, log, seq, error: refusal, now_ms, credit_bytes };
            outputs.extend(self.refused(of, refuse).await?);
        }
        Ok(outputs)
    }

    async fn take_checkpoint(
        &mut self,
        of: Option<TreeId>,
        checkpoint: Box<Checkpoint>,
    ) -> Result<Vec<Output>, AskError> {
        let Some(track) = self.track(of) else { return Ok(Vec::new()) };
        let take = |reply| track::Msg::TakeCheckpoint(checkpoint, reply);
        let error = match track.ask(take, Self::patience(of)).await? {
            Ok(Merged::At(positions)) => {
                let mut outputs = Vec::new();
                for position in positions {
                    let (log, consumed_bytes) = (position.log, 0);
                    let stored = Input::Stored { log, position, consumed_bytes };
                    outputs.extend(self.handle_of(of, stored));
                }
                return Ok(outputs);
            }
            Ok(Merged::Anew) => {
                let text = "the tree begins anew from a checkpoint";
                error(ErrorCode::GoingAway, "take checkpoint", text)
            }
            Ok(Merged::Stranger) => {
                let text = "no known brain vouches for the checkpoint";
                error(ErrorCode::Forbidden, "take checkpoint", text)
            }
            Err(failure) => store_error(&failure),
        };
        Ok(match of {
            Some(tree) => self.leave(tree, &error.message),
            None => self.handle(Input::Close { error, retry_after_ms: None }),
        })
    }

    async fn refused(
        &mut self,
        of: Option<TreeId>,
        refuse: Refuse,
    ) -> Result<Vec<Output>, AskError> {
        if let (Partner::Peer(_), code) = (&self.partner, refuse.error.code) {
            // What is right is for the brain to say. The log rests until the tree is shared anew.
            tracing::warn!(%code, seq = refuse.seq, "another device refused an entry");
            return Ok(of.map_or_else(Vec::new, |tree| self.leave(tree, "an entry was refused")));
        }
        let Some(topic) = self.topic(of) else { return Ok(Vec::new()) };
        topic.refusals += 1;
        let (track, is_rare) = (topic.track.clone(), topic.refusals < REFUSALS_MAX);
        let (code, refuse) = (refuse.error.code, Box::new(refuse));
        let ask = |reply| track::Msg::Refused(refuse, reply);
        let error = match track.ask(ask, Self::patience(of)).await? {
            Ok(outcome @ Outcome::Reissued { .. }) if is_rare => {
                return Ok(self.reissued(of, outcome));
            }
            Ok(Outcome::Nothing) => return Ok(Vec::new()),
            Ok(Outcome::Reissued { .. } | Outcome::Reconnect) => {
                let text = format!("brain refused an entry with {code}");
                error(ErrorCode::GoingAway, "deal with a refusal", text)
            }
            Err(failure) => store_error(&failure),
        };
        Ok(match of {
            Some(tree) => self.leave(tree, &error.message),
            None => self.handle(Input::Close { error, retry_after_ms: None }),
        })
    }

    /// Tells the session that a log ended and where its successor stands.
    pub(super) fn reissued(&mut self, of: Option<TreeId>, outcome: Outcome) -> Vec<Output> {
        let Outcome::Reissued { cut, position } = outcome else { return Vec::new() };
        if let Some(topic) = self.topic(of) {
            topic.sealed = 0;
        }
        let mut outputs = self.handle_of(of, Input::CutMade(*cut));
        let log = position.log;
        outputs.extend(self.handle_of(of, Input::Stored { log, position, consumed_bytes: 0 }));
        outputs
    }

    /// A brain's clock is believed; that of another device is not.
    async fn clock_sample(&mut self, offset_ms: i64) {
        let Partner::Brain(brain) = &self.partner else { return };
        brain.board.update(|status| status.clock_error_ms = Some(offset_ms));
        self.tell(None, track::Msg::ClockError(offset_ms)).await;
    }
}

async fn position_tree(track: &Address<track::Msg>) -> Result<protocol::TreeId, AskError> {
    Ok(track.ask(track::Msg::View, track::PATIENCE).await?.tree)
}

fn store_error(failure: &WriteError) -> SyncError {
    let full = matches!(failure, WriteError::Spool(error) if matches!(**error, crate::spool::SpoolError::DiskFull));
    let code = if full { ErrorCode::DiskFull } else { ErrorCode::StoreFailed };
    SyncError::new(
        code,
        ErrorSource::new(Layer::Edge, "track", "store entries"),
        failure.to_string(),
    )
}
