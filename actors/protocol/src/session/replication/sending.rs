//! What goes out: entries, causes first, within the credit that the peer gave.

use super::Replication;
use super::log::Log;
use crate::history::{Entry, LogId};
use crate::session::Output;
use crate::trace::EntryTrace;
use crate::wire::{
    self, BATCH_ENTRIES_MAX, BATCH_PLAIN_BYTES, Batch, FRAME_BYTES_MAX, Message, Traces,
};

impl Replication {
    pub(super) fn fetched(
        &mut self,
        id: LogId,
        mut entries: Vec<Entry>,
        outputs: &mut Vec<Output>,
    ) {
        let Some(log) = self.logs.get_mut(&id) else { return };
        let asked = log.fetching.take();
        let (sent, refused) = (log.sent, log.refused);
        if !refused && asked == Some(sent) {
            if entries.first().is_none_or(|entry| entry.seq != sent + 1) {
                // The store has no answer; asking again at once would not change that.
                return;
            }
            let passes_on = self.needs_vouch(&id);
            let waits = |entry: &Entry| !passes_on && self.missing_cause(entry).is_some();
            let ready = entries.iter().position(waits);
            let sealed = self.logs.get(&id).map_or(0, |log| self.may_go(&id, log));
            let unsealed = entries.iter().position(|entry| entry.seq > sealed);
            entries.truncate(unsealed.unwrap_or(entries.len()));
            if let Some(ready) = ready.filter(|ready| *ready < entries.len()) {
                let waits_for = self.missing_cause(&entries[ready]);
                entries.truncate(ready);
                self.logs.entry(id).or_default().waits_for = waits_for;
            }
            let sent = match passes_on {
                true => self.pass_on(id, entries, outputs),
                false => self.send_entries(id, entries, outputs),
            };
            if !sent {
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
            let Some((last_seq, frame)) = self.frame_of(&entries) else { return false };
            if frame.len() > FRAME_BYTES_MAX && entries.len() > 1 {
                entries.truncate(entries.len() / 2);
                continue;
            }
            self.send_frame(id, last_seq, frame, outputs);
            break;
        }
        true
    }

    /// The frame of entries that form a batch, and the number of the last of them.
    pub(super) fn frame_of(&self, entries: &[Entry]) -> Option<(u64, Vec<u8>)> {
        let batch = Batch::pack(entries).ok()?;
        let last_seq = batch.last_seq();
        let message = Message::Entries(batch);
        Some((last_seq, wire::encode(&message, self.terms.version, self.terms.compression)))
    }

    /// Sends a frame of entries of a log up to a number.
    pub(super) fn send_frame(
        &mut self,
        id: LogId,
        last_seq: u64,
        frame: Vec<u8>,
        outputs: &mut Vec<Output>,
    ) {
        let log = self.logs.entry(id).or_default();
        log.sent = last_seq;
        log.shared = log.shared.max(last_seq);
        self.send_traces(id, last_seq, outputs);
        self.credit_to_send -= frame.len() as i64;
        outputs.push(Output::Send(frame));
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
    pub(super) fn is_peers(&self, log: &LogId) -> bool {
        self.is_shared && log.author == self.terms.peer
    }

    /// Up to where this side may send a log: nobody passes on what its author has not signed, nor
    /// gives it back to an author that has lost it and cannot sign it any more.
    fn may_go(&self, id: &LogId, log: &Log) -> u64 {
        let vouched = !self.is_shared || log.end.is_some() || id.author == self.replica.author;
        if vouched { log.ours } else { log.sealed.min(log.ours) }
    }

    /// Whether a cause of an entry is at the peer, or can be sent to it.
    pub(super) fn can_send_causes_of(&self, entry: &Entry) -> bool {
        entry.seen.iter().all(|(id, seq)| {
            self.logs.get(id).is_none_or(|log| {
                let seq = seq.min(log.ours);
                seq <= log.sent || seq <= self.may_go(id, log)
            })
        })
    }

    fn lacks(&self, (log, seq): (LogId, u64)) -> bool {
        self.logs.get(&log).is_some_and(|log| log.sent < seq.min(log.ours))
    }

    /// Asks for what the peer lacks, and sends the seals of what it has.
    pub(super) fn pump(&mut self, outputs: &mut Vec<Output>) {
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
}
