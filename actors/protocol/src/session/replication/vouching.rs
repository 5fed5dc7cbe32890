//! What one side passes on of a third one's log: nobody takes that on its word.
//!
//! Entries over their author's own session are taken before they are signed, since nobody else
//! could have sent them. What a device passes on of others comes behind a head that the log's
//! author signed, or behind the log's end, and in one piece up to there: its hash chain shows that
//! it is what was signed. A brain's word is enough for what it passes on, as it certifies keys.

use super::Replication;
use crate::history::{Cut, CutCause, Entry, LogId, SignedHead};
use crate::session::{Failure, Output};
use crate::wire::{FRAME_BYTES_MAX, Message};
use crate::{EntryId, ErrorCode};

impl Replication {
    /// Whether what this side sends of a log must be under its author's signature.
    pub(super) fn needs_vouch(&self, log: &LogId) -> bool {
        self.is_shared && !self.terms.is_brain && log.author != self.replica.author
    }

    /// Sends entries of a third one's log up to where there is a signature, in one piece. Returns
    /// false where there is none, or the piece fits no frame.
    pub(super) fn pass_on(
        &mut self,
        id: LogId,
        mut entries: Vec<Entry>,
        outputs: &mut Vec<Output>,
    ) -> bool {
        let Some(log) = self.logs.get_mut(&id) else { return true };
        let last_seq = entries.last().map_or(0, |entry| entry.seq);
        // Its end was said before.
        let is_whole = log.end.is_some_and(|end| end == last_seq);
        let vouch = log.vouch.take().filter(|_| !is_whole);
        if !is_whole {
            let within =
                |signed: &SignedHead| entries.iter().position(|entry| entry.seq == signed.head.seq);
            let Some(last) = vouch.as_ref().and_then(within) else { return false };
            entries.truncate(last + 1);
        }
        if !entries.iter().all(|entry| self.can_send_causes_of(entry)) {
            return false;
        }
        let frame = self.frame_of(&entries).filter(|(_, frame)| frame.len() <= FRAME_BYTES_MAX);
        let Some((last_seq, frame)) = frame else { return false };
        if let Some(signed) = vouch {
            self.send(&Message::SignedHead(signed), outputs);
        }
        self.send_frame(id, last_seq, frame, outputs);
        true
    }

    /// The peer shows a signed head: of what it is about to pass on, or of what is here.
    pub(super) fn vouched_by_head(&mut self, signed: SignedHead, outputs: &mut Vec<Output>) {
        let (id, seq) = (signed.head.log, signed.head.seq);
        let (holds, distrusts) = (self.holds(), self.distrusts(&id));
        let log = self.logs.entry(id).or_default();
        if !holds || seq <= log.released {
            return outputs.push(Output::TakeSignedHead(signed));
        }
        // It is of no use before its entries, which may wait for their causes.
        log.seal_held = Some(signed);
        if distrusts {
            log.vouched = Some((seq, signed.head.id));
        }
    }

    /// The peer says that a log ended, and where. Its signature is checked.
    pub(super) fn vouched_by_cut(&mut self, cut: &Cut) {
        let by_stranger = matches!(
            &cut.cause,
            CutCause::Revoked { authority, .. } if !self.brains.contains(authority)
        );
        // Two heads that contradict each other say nothing of what lies below them.
        let is_proof = matches!(cut.cause, CutCause::Equivocation { .. });
        if self.distrusts(&cut.log) && !by_stranger && !is_proof {
            let log = self.logs.entry(cut.log).or_default();
            log.vouched = Some((cut.last_seq, cut.last_id));
            log.seal_held = None;
        }
    }

    /// Refuses entries of a third one's log that nobody vouched for.
    pub(super) fn check_vouched(
        &self,
        id: LogId,
        entries: &[(EntryId, Entry)],
    ) -> Result<(), Failure> {
        if !self.distrusts(&id) {
            return Ok(());
        }
        let last = entries.last().map(|(id, entry)| (entry.seq, *id));
        let vouched = self.logs.get(&id).and_then(|log| log.vouched);
        if last.is_some() && last == vouched {
            return Ok(());
        }
        let text = "peer passes on what its author has not signed";
        Err(Failure::new(ErrorCode::BadSignature, "take entries", text))
    }

    /// Whether the peer's word is not enough for entries of this log.
    fn distrusts(&self, log: &LogId) -> bool {
        self.holds() && log.author != self.terms.peer
    }
}
