//! The exchange of one tree's entries, once both sides know each other.
//!
//! Each side says where its logs stand and sends what the other lacks, causes first, within the
//! credit that the other gave. Acknowledgements are cumulative and return the credit; a log that
//! the peer refuses rests until its author has dealt with the refusal. Of a shared tree, what
//! third parties wrote is passed on once it is under their signature.

mod checkpoint;
mod log;

use std::collections::{BTreeMap, VecDeque};

use super::link::Terms;
use super::{Failure, Input, Now, Output, Replica};
use crate::compress::Compression;
use crate::history::{Cut, CutCause, Entry, LogId, TreeKind};
use crate::trace::{EntryTrace, TRACES_MAX};
use crate::wire::{
    self, Ack, BATCH_ENTRIES_MAX, BATCH_PLAIN_BYTES, Batch, FRAME_BYTES_MAX, LogPosition, Message,
    Refuse, Traces,
};
use crate::{ErrorCode, TreeId};

use checkpoint::Parts;
use log::Log;

/// What both sides have of one tree.
#[derive(Debug)]
pub(super) struct Replication {
    terms: Terms,
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
}

impl Replication {
    pub(super) fn new(terms: Terms, kind: TreeKind, replica: Replica) -> Self {
        let positions =
            replica.logs.iter().map(|position| (position.log, Box::new(Log::at(position))));
        Self {
            terms,
            is_shared: kind != TreeKind::Device,
            logs: positions.collect(),
            peer_known: false,
            credit_to_send: i64::from(terms.credit_to_send),
            unconsumed: 0,
            traces: VecDeque::new(),
            cuts_due: Vec::new(),
            reads_checkpoint: false,
            parts: Parts::default(),
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
        for log in self.logs.values_mut() {
            let Log { ours, id, sealed, is_cut, .. } = **log;
            let seal_due = log.seal_due.take();
            **log = Log { ours, id, sealed, is_cut, seal_due, shared: ours, ..Log::default() };
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
            // A peer has its own seals, and the ends that it made.
            Input::Sealed(signed) if self.is_peers(&signed.head.log) => {}
            Input::Sealed(signed) => {
                self.logs.entry(signed.head.log).or_default().seal_due = Some(signed);
                self.pump(outputs);
            }
            Input::CutMade(cut) => {
                let log = self.logs.entry(cut.log).or_default();
                log.ours = log.ours.min(cut.last_seq);
                log.seal_due = None;
                log.is_cut = true;
                let is_known =
                    self.is_peers(&cut.log) && matches!(cut.cause, CutCause::Sealed { .. });
                // A side that has not said that it shares a tree hears nothing of it.
                match self.is_shared && !self.peer_known {
                    _ if is_known => {}
                    true => self.cuts_due.push(cut),
                    false => self.send(&Message::Cut(cut), outputs),
                }
                self.pump(outputs);
            }
            Input::Frame(_)
            | Input::Share { .. }
            | Input::Leave(_)
            | Input::OfShared { .. }
            | Input::Tick
            | Input::Connected
            | Input::Authorised { .. }
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
                outputs.push(Output::TakeSignedHead(signed));
                Ok(())
            }
            Message::Cut(cut) => {
                // Whether the signer has the authority is for the shell to say.
                cut.verify(|_| true).map_err(|error| {
                    Failure::new(ErrorCode::BadSignature, "take cut", super::with_causes(&error))
                })?;
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
            let lost = lost.filter(|(_, log)| !log.is_cut);
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
        let log = self.logs.entry(id).or_default();
        let last_seq = entries.last().map_or(0, |(_, entry)| entry.seq);
        // What the peer sends it has: it need not be sent back.
        log.sent = log.sent.max(last_seq);
        log.shared = log.shared.max(last_seq);
        outputs.push(Output::Ingest { log: id, entries, bytes: frame_bytes as u32 });
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

    fn fetched(&mut self, id: LogId, mut entries: Vec<Entry>, outputs: &mut Vec<Output>) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let asked = log.fetching.take();
        let (sent, refused) = (log.sent, log.refused);
        if !refused && asked == Some(sent) {
            if entries.first().is_none_or(|entry| entry.seq != sent + 1) {
                // The store has no answer; asking again at once would not change that.
                return;
            }
            let ready = entries.iter().position(|entry| self.missing_cause(entry).is_some());
            let sealed = self.logs.get(&id).map_or(0, |log| self.may_go(&id, log));
            let unsealed = entries.iter().position(|entry| entry.seq > sealed);
            entries.truncate(unsealed.unwrap_or(entries.len()));
            if let Some(ready) = ready.filter(|ready| *ready < entries.len()) {
                let waits_for = self.missing_cause(&entries[ready]);
                entries.truncate(ready);
                self.logs.entry(id).or_default().waits_for = waits_for;
            }
            if !self.send_entries(id, entries, outputs) {
                return;
            }
        }
        self.pump(outputs);
    }

    /// Sends as many of the entries as fit a frame. Returns false for entries that form no batch.
    fn send_entries(
        &mut self,
        id: LogId,
        mut entries: Vec<Entry>,
        outputs: &mut Vec<Output>,
    ) -> bool {
        entries.truncate(BATCH_ENTRIES_MAX);
        while !entries.is_empty() {
            let Ok(batch) = Batch::pack(&entries) else { return false };
            let last_seq = batch.last_seq();
            let message = Message::Entries(batch);
            let frame = wire::encode(&message, self.terms.version, self.terms.compression);
            if frame.len() > FRAME_BYTES_MAX && entries.len() > 1 {
                entries.truncate(entries.len() / 2);
                continue;
            }
            let log = self.logs.entry(id).or_default();
            log.sent = last_seq;
            log.shared = log.shared.max(last_seq);
            self.send_traces(id, last_seq, outputs);
            self.credit_to_send -= frame.len() as i64;
            outputs.push(Output::Send(frame));
            break;
        }
        true
    }

    /// Sends the trace contexts of entries that are about to be sent, up to `last_seq`.
    fn send_traces(&mut self, log: LogId, last_seq: u64, outputs: &mut Vec<Output>) {
        if self.traces.is_empty() {
            return;
        }
        let is_due = |(of, trace): &(LogId, EntryTrace)| *of == log && trace.seq <= last_seq;
        let due = self.traces.iter().filter(|trace| is_due(trace));
        let entries: Vec<_> = due.map(|(_, trace)| *trace).collect();
        self.traces.retain(|trace| !is_due(trace));
        if !entries.is_empty() {
            self.send(&Message::Traces(Traces { tree: self.replica.tree, log, entries }), outputs);
        }
    }

    /// The cause of an entry that the peer has yet to be sent. Causes that this side does not
    /// count either, above the end of their log, are none.
    fn missing_cause(&self, entry: &Entry) -> Option<(LogId, u64)> {
        let mut causes = entry.seen.iter().map(|(log, seq)| (*log, seq));
        causes.find(|cause| self.lacks(*cause))
    }

    /// Whether the peer writes this log of a shared tree.
    fn is_peers(&self, log: &LogId) -> bool {
        self.is_shared && log.author == self.terms.peer
    }

    /// Up to where this side may send a log: nobody passes on what its author has not signed, nor
    /// gives it back to an author that has lost it and cannot sign it any more.
    fn may_go(&self, id: &LogId, log: &Log) -> u64 {
        let vouched = !self.is_shared || log.is_cut || id.author == self.replica.author;
        if vouched { log.ours } else { log.sealed.min(log.ours) }
    }

    fn lacks(&self, (log, seq): (LogId, u64)) -> bool {
        self.logs.get(&log).is_some_and(|log| log.sent < seq.min(log.ours))
    }

    /// Asks for what the peer lacks, and sends the seals of what it has.
    fn pump(&mut self, outputs: &mut Vec<Output>) {
        if !self.peer_known || self.reads_checkpoint {
            return;
        }
        if self.peer_lacks_checkpoint() {
            self.reads_checkpoint = true;
            return outputs.push(Output::FetchCheckpoint);
        }
        let mut seals = Vec::new();
        for (_, log) in self.logs.iter_mut().filter(|(_, log)| !log.refused) {
            let due = log.seal_due.take_if(|signed| signed.head.seq <= log.sent);
            seals.extend(due.filter(|signed| signed.head.seq > log.acked_sealed));
        }
        for signed in seals {
            self.send(&Message::SignedHead(signed), outputs);
        }
        // A read under way may fill a whole frame: only then is the credit exceeded by one at most.
        let reading = self.logs.values().filter(|log| log.fetching.is_some()).count();
        let mut credit = self.credit_to_send - (reading * FRAME_BYTES_MAX) as i64;
        let ready = self.logs.iter().filter(|(id, log)| {
            let waits = log.waits_for.is_some_and(|cause| self.lacks(cause));
            let may_go = self.may_go(id, log);
            may_go > log.sent && log.fetching.is_none() && !log.refused && !waits
        });
        let ready: Vec<_> = ready.map(|(id, _)| *id).collect();
        for id in ready {
            if credit <= 0 {
                break;
            }
            credit -= FRAME_BYTES_MAX as i64;
            let log = self.logs.entry(id).or_default();
            log.waits_for = None;
            log.fetching = Some(log.sent);
            let bytes_max = BATCH_PLAIN_BYTES;
            outputs.push(Output::Fetch { log: id, after: log.sent, bytes_max });
        }
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
