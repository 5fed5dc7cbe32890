//! The exchange of one tree's entries, once both sides know each other.
//!
//! Each side says where its logs stand and sends what the other lacks, causes first, within the
//! credit that the other gave. Acknowledgements are cumulative and return the credit; a log that
//! the peer refuses rests until its author has dealt with the refusal. Of a shared tree, what
//! third parties wrote is passed on once it is under their signature.

mod checkpoint;
mod hold;
mod log;
mod sending;
mod vouching;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use super::link::Terms;
use super::{Failure, Input, Now, Output, Replica};
use crate::compress::Compression;
use crate::history::{Cut, LogId, TreeKind};
use crate::trace::{EntryTrace, TRACES_MAX};
use crate::wire::{self, Ack, Batch, FRAME_BYTES_MAX, LogPosition, Message, Refuse, Traces};
use crate::{ErrorCode, PublicKey, TreeId};

use checkpoint::Parts;
use hold::Held;
use log::Log;

/// What both sides have of one tree.
#[derive(Debug)]
pub(super) struct Replication {
    terms: Terms,
    /// Whose word ends a log.
    brains: Arc<[PublicKey]>,
    replica: Replica,
    /// Whether there may be other authors than the two ends of the link.
    is_shared: bool,
    /// In boxes, because a node of the map has room for eleven and most links need two.
    logs: BTreeMap<LogId, Box<Log>>,
    /// Known once the peer's heads came: nothing is sent before.
    peer_known: bool,
    /// May fall below zero by one frame: credit is checked before a read, not after.
    credit_to_send: i64,
    /// What the peer sent and this side has not dealt with.
    unconsumed: i64,
    /// Of entries that have yet to be sent.
    traces: VecDeque<(LogId, EntryTrace)>,
    /// Ends of logs, until the peer's heads come.
    cuts_due: Vec<Cut>,
    /// A checkpoint is being read, because the peer lacks what is kept nowhere else.
    reads_checkpoint: bool,
    /// What has come of the peer's checkpoint.
    parts: Parts,
    /// What came before its causes.
    held: Held,
}

impl Replication {
    pub(super) fn new(
        terms: Terms,
        brains: Arc<[PublicKey]>,
        kind: TreeKind,
        replica: Replica,
    ) -> Self {
        let positions =
            replica.logs.iter().map(|position| (position.log, Box::new(Log::at(position))));
        let mut logs: BTreeMap<_, _> = positions.collect();
        for (log, last_seq) in &replica.ends {
            logs.entry(*log).or_default().end = Some(*last_seq);
        }
        Self {
            terms,
            brains,
            is_shared: kind != TreeKind::Device,
            logs,
            peer_known: false,
            credit_to_send: i64::from(terms.credit_to_send),
            unconsumed: 0,
            traces: VecDeque::new(),
            cuts_due: Vec::new(),
            reads_checkpoint: false,
            parts: Parts::default(),
            held: Held::default(),
            replica,
        }
    }

    pub(super) fn tree(&self) -> TreeId {
        self.replica.tree
    }

    /// Goes back to before the peer's heads came.
    pub(super) fn begin_again(&mut self) {
        if !std::mem::take(&mut self.peer_known) {
            return;
        }
        self.credit_to_send = i64::from(self.terms.credit_to_send);
        self.unconsumed = 0;
        self.reads_checkpoint = false;
        self.parts = Parts::default();
        self.held = Held::default();
        for log in self.logs.values_mut() {
            let Log { ours, id, sealed, end, .. } = **log;
            let (seal_due, vouch) = (log.seal_due.take(), log.vouch.take());
            let (shared, released) = (ours, ours);
            let known = Log { ours, id, sealed, end, shared, released, ..Log::default() };
            **log = Log { seal_due, vouch, ..known };
        }
    }

    pub(super) fn handle(
        &mut self,
        input: Input<'_>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        match input {
            Input::Stored { log, position, consumed_bytes } => {
                self.stored(log, position, consumed_bytes, outputs);
            }
            Input::Refused { log, seq, error, consumed_bytes, fatal } => {
                self.refuse(log, seq, error, consumed_bytes, fatal, now, outputs)?;
            }
            Input::Fetched { log, entries } => self.fetched(log, entries, outputs),
            Input::Checkpoint(checkpoint) => self.send_checkpoint(&checkpoint, outputs),
            Input::Pruned(floor) => {
                self.replica.floor.merge(&floor);
                self.pump(outputs);
            }
            Input::Traced { log, trace } => {
                if self.traces.len() == TRACES_MAX {
                    self.traces.pop_front();
                }
                self.traces.push_back((log, trace));
            }
            Input::Vouched(signed) => {
                self.logs.entry(signed.head.log).or_default().vouch = Some(signed);
            }
            // A peer has its own seals.
            Input::Sealed(signed) if self.is_peers(&signed.head.log) => {}
            Input::Sealed(signed) => {
                self.logs.entry(signed.head.log).or_default().seal_due = Some(signed);
                self.pump(outputs);
            }
            Input::CutMade(cut) => {
                let log = self.logs.entry(cut.log).or_default();
                log.ours = log.ours.min(cut.last_seq);
                log.seal_due = None;
                log.end = Some(cut.last_seq);
                // Whoever said so needs not be told; an author that has lost what it said does.
                let is_known = log.end_heard.is_some_and(|heard| heard <= cut.last_seq);
                // A side that has not said that it shares a tree hears nothing of it.
                let waits = self.is_shared && !self.peer_known;
                match (is_known, waits) {
                    (true, _) => {}
                    (false, true) => self.cuts_due.push(cut),
                    (false, false) => self.send(&Message::Cut(cut), outputs),
                }
                // What lies above the end is no cause that anything waits for.
                self.release(outputs);
                self.pump(outputs);
            }
            Input::Frame(_)
            | Input::Share { .. }
            | Input::Leave(_)
            | Input::OfShared { .. }
            | Input::Tick
            | Input::Connected
            | Input::Authorised { .. }
            | Input::Admitted { .. }
            | Input::EnrolmentGranted(_)
            | Input::Denied(_)
            | Input::Close { .. } => {}
        }
        Ok(())
    }

    pub(super) fn message(
        &mut self,
        message: Message,
        frame_bytes: usize,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        if self.is_shared && !self.peer_known {
            // Said before the peer knew that this side had left the tree, and shares it again.
            return Ok(());
        }
        if !self.peer_known && !matches!(message, Message::Heads(_)) {
            return Err(Failure::unexpected(&message, "before the peer's heads"));
        }
        if let Some(tree) = message.tree() {
            self.check_tree(tree)?;
        }
        match message {
            Message::Heads(heads) => self.peer_heads(heads.logs, outputs),
            Message::Traces(traces) => self.take_traces(traces, outputs),
            Message::Entries(batch) => self.ingest(batch, frame_bytes, outputs),
            Message::SignedHead(signed) => {
                signed.verify().map_err(|error| {
                    Failure::new(ErrorCode::BadSignature, "take signed head", error.to_string())
                })?;
                self.vouched_by_head(signed, outputs);
                Ok(())
            }
            Message::Cut(cut) => {
                // Whether the signer has the authority is for the shell to say.
                cut.verify(|_| true).map_err(|error| {
                    Failure::new(ErrorCode::BadSignature, "take cut", super::with_causes(&error))
                })?;
                if let Some(log) = self.logs.get_mut(&cut.log) {
                    let heard = log.end_heard.map_or(cut.last_seq, |heard| heard.min(cut.last_seq));
                    log.end_heard = Some(heard);
                }
                self.vouched_by_cut(&cut);
                outputs.push(Output::TakeCut(cut));
                Ok(())
            }
            Message::Checkpoint(part) => self.take_part(part, outputs),
            Message::Ack(ack) => self.acked(ack, outputs),
            Message::Refuse(refuse) => {
                self.credit_to_send += i64::from(refuse.credit_bytes);
                let Some(log) = self.logs.get_mut(&refuse.log) else {
                    let text = "peer refuses an entry of a log that it was not sent";
                    return Err(Failure::new(ErrorCode::Malformed, "take refusal", text));
                };
                log.refused = true;
                log.sent = log.sent.min(refuse.seq.saturating_sub(1));
                outputs.push(Output::PeerRefused(refuse));
                self.pump(outputs);
                Ok(())
            }
            message @ (Message::Hello(_)
            | Message::HelloReply(_)
            | Message::Auth(_)
            | Message::Welcome(_)
            | Message::Enrolled(_)
            | Message::Share(_)
            | Message::Leave(_)
            | Message::Ping(_)
            | Message::Pong(_)
            | Message::Close(_)) => Err(Failure::unexpected(&message, "after the handshake")),
        }
    }

    pub(super) fn peer_heads(
        &mut self,
        logs: Vec<LogPosition>,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        if self.peer_known {
            let text = "heads are not expected a second time";
            return Err(Failure::new(ErrorCode::UnexpectedFrame, "take frame", text));
        }
        self.peer_known = true;
        for cut in std::mem::take(&mut self.cuts_due) {
            self.send(&Message::Cut(cut), outputs);
        }
        // What this side's heads said of a log holds only as far as the peer has it too.
        let said: BTreeMap<_, _> =
            self.logs.iter_mut().map(|(id, log)| (*id, std::mem::take(&mut log.shared))).collect();
        for LogPosition { log: id, seq, id: head, sealed } in logs {
            let log = self.logs.entry(id).or_default();
            log.sent = seq.min(log.ours);
            log.peers = seq;
            log.shared = seq.min(said.get(&id).copied().unwrap_or(0));
            let rewritten = seq > 0 && seq == log.ours && log.id.is_some_and(|ours| ours != head);
            if id.author == self.replica.author && (seq > log.ours || rewritten) {
                log.refused = true;
                outputs.push(Output::OwnLogBehind { log: id, theirs: seq, ours: log.ours });
            } else if let (stored @ 1.., false) = (log.shared, rewritten) {
                // The acknowledgement may have been lost with the connection before this one.
                log.acknowledged(id, stored, sealed.min(stored), outputs);
            }
        }
        if self.is_shared {
            let lost = self.logs.iter().filter(|(id, log)| {
                id.author == self.terms.peer && log.peers < log.ours && log.sealed < log.ours
            });
            let lost = lost.filter(|(_, log)| log.end.is_none());
            outputs.extend(lost.map(|(id, _)| Output::PeerLogBehind { log: *id }));
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
        self.unconsumed += frame_bytes as i64;
        // One frame of grace: the sender checks its credit before it reads, not after.
        if self.unconsumed > i64::from(self.terms.credit_given) + FRAME_BYTES_MAX as i64 {
            let text = "peer sent more than its credit";
            return Err(Failure::new(ErrorCode::Overloaded, "take entries", text));
        }
        let id = batch.log;
        let entries = batch
            .unpack()
            .map_err(|error| Failure::new(error.code(), "unpack entries", error.to_string()))?;
        self.check_vouched(id, &entries)?;
        let log = self.logs.entry(id).or_default();
        let last_seq = entries.last().map_or(0, |(_, entry)| entry.seq);
        // What the peer sends it has: it need not be sent back.
        log.sent = log.sent.max(last_seq);
        log.shared = log.shared.max(last_seq);
        if self.holds() {
            self.hold(id, entries, frame_bytes as u32);
            self.release(outputs);
        } else {
            outputs.push(Output::Ingest { log: id, entries, bytes: frame_bytes as u32 });
        }
        Ok(())
    }

    fn take_traces(&self, traces: Traces, outputs: &mut Vec<Output>) -> Result<(), Failure> {
        let Traces { log, entries: traces, .. } = traces;
        if traces.len() > TRACES_MAX || !traces.iter().all(|trace| trace.context.is_valid()) {
            let text = format!("{} trace contexts that are too many or void", traces.len());
            return Err(Failure::new(ErrorCode::Malformed, "take trace contexts", text));
        }
        outputs.push(Output::Traced { log, traces });
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
        log.released = log.released.max(position.seq);
        log.id = Some(position.id);
        let sealed_more = position.sealed > log.sealed;
        log.sealed = position.sealed;
        let foreign = id.author != self.replica.author;
        // What came over other links is news to this peer, and not its to hear of yet.
        let stored = if self.peer_known { position.seq.min(log.shared) } else { 0 };
        if consumed_bytes > 0 || (foreign && sealed_more && stored > 0) {
            let ack = Ack {
                tree: self.replica.tree,
                log: id,
                stored,
                sealed: position.sealed.min(stored),
                credit_bytes: consumed_bytes,
            };
            self.send(&Message::Ack(ack), outputs);
        }
        // It may be a cause of what came before it.
        self.release(outputs);
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
        self.credit_to_send += i64::from(ack.credit_bytes);
        let Ack { log, stored, sealed, .. } = ack;
        let known = self.logs.get_mut(&log);
        let shared = known.as_ref().map_or(0, |known| known.shared);
        if stored > shared || sealed > stored {
            let text = format!("peer acknowledges entry {stored} of a log it has {shared} of");
            return Err(Failure::new(ErrorCode::Malformed, "take acknowledgement", text));
        }
        if let Some(known) = known {
            known.acknowledged(log, stored, sealed, outputs);
        }
        self.pump(outputs);
        Ok(())
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
