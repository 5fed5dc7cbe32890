//! The exchange of entries, once both sides know each other.
//!
//! Each side says where its logs stand and sends what the other lacks, in order, within the
//! credit that the other gave. Acknowledgements are cumulative and return the credit; a log that
//! the peer refuses rests until its author has dealt with the refusal. The calling side pings;
//! whoever hears nothing for two heartbeats gives the link up.

use std::collections::BTreeMap;

use super::{Failure, Input, Now, Output, Replica};
use crate::ErrorCode;
use crate::compress::Compression;
use crate::history::{LogId, SignedHead};
use crate::session::error;
use crate::wire::{
    self, Ack, BATCH_PLAIN_BYTES, Batch, Heads, LogPosition, Message, Ping, Pong, Refuse,
};

/// A link is given up after so many heartbeats of silence.
const SILENT_HEARTBEATS_MAX: u64 = 2;

/// What the handshake settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) version: u8,
    pub(super) compression: Compression,
    pub(super) heartbeat_ms: u32,
    /// Whether this side pings.
    pub(super) pings: bool,
    pub(super) credit_to_send: u32,
    pub(super) credit_given: u32,
}

/// The lasting part of a session.
#[derive(Debug)]
pub(super) struct Replication {
    terms: Terms,
    replica: Replica,
    logs: BTreeMap<LogId, Log>,
    /// Known once the peer's heads came: nothing is sent before.
    peer_known: bool,
    /// May fall below zero by one frame: credit is checked before a read, not after.
    credit_to_send: i64,
    /// What the peer sent and this side has not dealt with.
    unconsumed: i64,
    last_heard_ms: u64,
    next_ping_ms: u64,
}

/// One log, as both sides see it.
#[derive(Debug, Default)]
struct Log {
    /// Where it stands here.
    ours: u64,
    sealed: u64,
    /// What the peer has, or has been sent.
    sent: u64,
    /// The signed head that the peer has yet to be sent.
    seal_due: Option<SignedHead>,
    /// The number of the last entry received, which may still be on its way to disk.
    received: u64,
    fetching: bool,
    /// The peer refused an entry; nothing more goes out.
    refused: bool,
}

impl Replication {
    pub(super) fn start(
        terms: Terms,
        replica: Replica,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Self {
        let positions = replica.logs.iter().map(|position| (position.log, Log::at(position)));
        let this = Self {
            terms,
            logs: positions.collect(),
            peer_known: false,
            credit_to_send: i64::from(terms.credit_to_send),
            unconsumed: 0,
            last_heard_ms: now.mono_ms,
            next_ping_ms: now.mono_ms + u64::from(terms.heartbeat_ms),
            replica,
        };
        let logs = this.replica.logs.clone();
        this.send(&Message::Heads(Heads { tree: this.replica.tree, logs }), outputs);
        this
    }

    pub(super) fn next_tick_ms(&self) -> u64 {
        let silent_at = self.silent_at_ms();
        if self.terms.pings { self.next_ping_ms.min(silent_at) } else { silent_at }
    }

    pub(super) fn handle(
        &mut self,
        input: Input<'_>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        match input {
            Input::Frame(frame) => {
                self.last_heard_ms = now.mono_ms;
                let message = wire::decode(frame)?;
                self.message(message, frame.len(), now, outputs)?;
            }
            Input::Stored { log, position, consumed_bytes } => {
                self.stored(log, position, consumed_bytes, outputs);
            }
            Input::Refused { log, seq, error, consumed_bytes, fatal } => {
                self.refuse(log, seq, error, consumed_bytes, fatal, now, outputs)?;
            }
            Input::Fetched { log, entries } => self.fetched(log, entries, outputs),
            Input::Sealed(signed) => {
                self.logs.entry(signed.head.log).or_default().seal_due = Some(signed);
                self.pump(outputs);
            }
            Input::CutMade(cut) => {
                let log = self.logs.entry(cut.log).or_default();
                log.ours = log.ours.min(cut.last_seq);
                log.seal_due = None;
                self.send(&Message::Cut(cut), outputs);
            }
            Input::Tick => self.tick(now, outputs)?,
            Input::Connected
            | Input::Authorised { .. }
            | Input::EnrolmentGranted(_)
            | Input::Denied(_)
            | Input::Close { .. } => {}
        }
        Ok(())
    }

    fn message(
        &mut self,
        message: Message,
        frame_bytes: usize,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        match message {
            Message::Heads(heads) => self.peer_heads(heads, outputs),
            Message::Entries(batch) => self.ingest(batch, frame_bytes, outputs),
            Message::SignedHead(signed) => {
                self.check_tree(signed.head.tree)?;
                signed.verify().map_err(|error| {
                    Failure::new(ErrorCode::BadSignature, "take signed head", error.to_string())
                })?;
                outputs.push(Output::TakeSignedHead(signed));
                Ok(())
            }
            Message::Cut(cut) => {
                self.check_tree(cut.tree)?;
                cut.verify(|_| false).map_err(|error| {
                    Failure::new(ErrorCode::BadSignature, "take cut", super::with_causes(&error))
                })?;
                if let Some(log) = self.logs.get_mut(&cut.log) {
                    log.received = log.received.min(cut.last_seq);
                }
                outputs.push(Output::TakeCut(cut));
                Ok(())
            }
            Message::Ack(ack) => self.acked(ack, outputs),
            Message::Refuse(refuse) => {
                self.check_tree(refuse.tree)?;
                self.credit_to_send += i64::from(refuse.credit_bytes);
                let log = self.logs.entry(refuse.log).or_default();
                log.refused = true;
                log.sent = log.sent.min(refuse.seq.saturating_sub(1));
                outputs.push(Output::PeerRefused(refuse));
                Ok(())
            }
            Message::Ping(Ping { sent_ms }) => {
                self.send(&Message::Pong(Pong { sent_ms, now_ms: now.wall_ms }), outputs);
                Ok(())
            }
            Message::Pong(pong) => {
                let round_trip_ms = now.mono_ms.saturating_sub(pong.sent_ms);
                let theirs_ms = pong.now_ms.saturating_add(round_trip_ms / 2);
                let offset_ms = theirs_ms as i64 - now.wall_ms as i64;
                outputs.push(Output::ClockSample { offset_ms, round_trip_ms });
                Ok(())
            }
            Message::Close(close) => Err(Failure::Peer(close)),
            message @ (Message::Hello(_)
            | Message::HelloReply(_)
            | Message::Auth(_)
            | Message::Welcome(_)
            | Message::Enrolled(_)) => Err(Failure::unexpected(&message, "after the handshake")),
        }
    }

    fn peer_heads(&mut self, heads: Heads, outputs: &mut Vec<Output>) -> Result<(), Failure> {
        self.check_tree(heads.tree)?;
        if self.peer_known {
            return Err(Failure::unexpected(&Message::Heads(heads), "a second time"));
        }
        self.peer_known = true;
        for LogPosition { log: id, seq, .. } in heads.logs {
            let log = self.logs.entry(id).or_default();
            log.sent = seq.min(log.ours);
            if seq > log.ours && id.author == self.replica.author {
                log.refused = true;
                outputs.push(Output::OwnLogBehind { log: id, theirs: seq, ours: log.ours });
            }
        }
        self.pump(outputs);
        Ok(())
    }

    fn ingest(
        &mut self,
        batch: Batch,
        frame_bytes: usize,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        self.check_tree(batch.tree)?;
        self.unconsumed += frame_bytes as i64;
        // One frame of grace: the sender checks its credit before it reads, not after.
        if self.unconsumed > i64::from(self.terms.credit_given) + wire::FRAME_BYTES_MAX as i64 {
            let text = "peer sent more than its credit";
            return Err(Failure::new(ErrorCode::Overloaded, "take entries", text));
        }
        let id = batch.log;
        let entries = batch.unpack().map_err(|error| {
            Failure::new(ErrorCode::Malformed, "unpack entries", error.to_string())
        })?;
        let log = self.logs.entry(id).or_default();
        log.received = entries.last().map_or(0, |(_, entry)| entry.seq).max(log.received);
        // What the peer sends it has: it need not be sent back.
        log.sent = log.sent.max(log.received);
        outputs.push(Output::Ingest { log: id, entries, bytes: frame_bytes as u32 });
        Ok(())
    }

    fn stored(
        &mut self,
        id: LogId,
        position: LogPosition,
        consumed_bytes: u32,
        outputs: &mut Vec<Output>,
    ) {
        self.unconsumed -= i64::from(consumed_bytes);
        let log = self.logs.entry(id).or_default();
        log.ours = position.seq;
        let sealed_more = position.sealed > log.sealed;
        log.sealed = position.sealed;
        let foreign = id.author != self.replica.author;
        if consumed_bytes > 0 || (foreign && sealed_more) {
            let ack = Ack {
                tree: self.replica.tree,
                log: id,
                stored: position.seq,
                sealed: position.sealed,
                credit_bytes: consumed_bytes,
            };
            self.send(&Message::Ack(ack), outputs);
        }
        self.pump(outputs);
    }

    #[expect(clippy::too_many_arguments, reason = "the fields of one input")]
    fn refuse(
        &mut self,
        log: LogId,
        seq: u64,
        error: crate::SyncError,
        consumed_bytes: u32,
        fatal: bool,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        self.unconsumed -= i64::from(consumed_bytes);
        let refuse = Refuse {
            tree: self.replica.tree,
            log,
            seq,
            error: error.clone(),
            now_ms: now.wall_ms,
            credit_bytes: consumed_bytes,
        };
        self.send(&Message::Refuse(refuse), outputs);
        if fatal { Err(Failure::Ours(error)) } else { Ok(()) }
    }

    fn acked(&mut self, ack: Ack, outputs: &mut Vec<Output>) -> Result<(), Failure> {
        self.check_tree(ack.tree)?;
        self.credit_to_send += i64::from(ack.credit_bytes);
        let Ack { log, stored, sealed, .. } = ack;
        let known = self.logs.get(&log).map_or(0, |known| known.ours);
        if stored > known || sealed > stored {
            let text = format!("peer acknowledges entry {stored} of a log that has {known}");
            return Err(Failure::new(ErrorCode::Malformed, "take acknowledgement", text));
        }
        outputs.push(Output::Acked { log, stored, sealed });
        self.pump(outputs);
        Ok(())
    }

    fn fetched(
        &mut self,
        id: LogId,
        entries: Vec<crate::history::Entry>,
        outputs: &mut Vec<Output>,
    ) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        log.fetching = false;
        // A refusal or a cut may have come between the request and the answer.
        let expected = log.sent + 1;
        let usable = !log.refused && entries.first().is_some_and(|entry| entry.seq == expected);
        if !usable {
            return;
        }
        if let Ok(batch) = Batch::pack(&entries) {
            log.sent = batch.last_seq();
            let version = self.terms.version;
            let frame = wire::encode(&Message::Entries(batch), version, self.terms.compression);
            self.credit_to_send -= frame.len() as i64;
            outputs.push(Output::Send(frame));
        }
        self.pump(outputs);
    }

    /// Asks for what the peer lacks, and sends the seals of what it has.
    fn pump(&mut self, outputs: &mut Vec<Output>) {
        if !self.peer_known {
            return;
        }
        let mut seals = Vec::new();
        for (id, log) in &mut self.logs {
            if log.refused {
                continue;
            }
            if let Some(signed) = log.seal_due.take_if(|signed| signed.head.seq <= log.sent) {
                seals.push(signed);
            }
            if log.ours > log.sent && !log.fetching && self.credit_to_send > 0 {
                log.fetching = true;
                outputs.push(Output::Fetch {
                    log: *id,
                    after: log.sent,
                    bytes_max: BATCH_PLAIN_BYTES,
                });
            }
        }
        for signed in seals {
            self.send(&Message::SignedHead(signed), outputs);
        }
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) -> Result<(), Failure> {
        if now.mono_ms >= self.silent_at_ms() {
            let silent_ms = now.mono_ms - self.last_heard_ms;
            let text = format!("nothing heard for {silent_ms} ms");
            return Err(Failure::Ours(error(ErrorCode::TimedOut, "wait for heartbeat", text)));
        }
        if self.terms.pings && now.mono_ms >= self.next_ping_ms {
            self.next_ping_ms = now.mono_ms + u64::from(self.terms.heartbeat_ms);
            self.send(&Message::Ping(Ping { sent_ms: now.mono_ms }), outputs);
        }
        Ok(())
    }

    fn silent_at_ms(&self) -> u64 {
        self.last_heard_ms + SILENT_HEARTBEATS_MAX * u64::from(self.terms.heartbeat_ms)
    }

    fn check_tree(&self, tree: crate::TreeId) -> Result<(), Failure> {
        if tree == self.replica.tree {
            return Ok(());
        }
        let text = format!("this session is not about tree {tree:?}");
        Err(Failure::new(ErrorCode::UnknownTree, "take frame", text))
    }

    fn send(&self, message: &Message, outputs: &mut Vec<Output>) {
        let frame = wire::encode(message, self.terms.version, Compression::None);
        outputs.push(Output::Send(frame));
    }
}

impl Log {
    fn at(position: &LogPosition) -> Self {
        Self {
            ours: position.seq,
            sealed: position.sealed,
            received: position.seq,
            ..Self::default()
        }
    }
}
