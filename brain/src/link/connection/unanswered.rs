//! What a connection told the device's actor and has no answer to yet.
//!
//! When the actor crashes, this is told again to its next life: the device need not know. Entries
//! are kept as the frames that they came in, which are here anyway; credit bounds them. Of the
//! rest there is at most one for each log.

use std::collections::VecDeque;

use protocol::history::{Cut, LogId, SignedHead};
use protocol::wire::{LogPosition, Refuse};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Bytes;

/// So many cuts are remembered. Nobody answers them, and more are not made in a connection's life.
const CUTS_MAX: usize = 32;

/// So many signed heads are remembered: more logs than a side writes in a connection's life.
const HEADS_MAX: usize = 64;

/// What is told again, apart from entries.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Open {
    SignedHead(SignedHead),
    Cut(Cut),
    LogLost(LogId),
    Refused(Refuse),
    Fetch { log: LogId, after: u64, bytes_max: usize },
    FetchCheckpoint,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Unanswered {
    batches: VecDeque<(Bytes, Instant)>,
    open: Vec<Open>,
}

impl Unanswered {
    /// A frame with entries is about to be told.
    pub(super) fn batch(&mut self, frame: Bytes, came: Instant) {
        self.batches.push_back((frame, came));
    }

    /// The eldest frame is dealt with; gives back when it came.
    pub(super) fn batch_done(&mut self) -> Option<Instant> {
        self.batches.pop_front().map(|(_, came)| came)
    }

    /// Something else is about to be told.
    pub(super) fn tell(&mut self, news: Open) {
        self.open.retain(|known| !news.replaces(known));
        let cuts = self.open.iter().filter(|open| matches!(open, Open::Cut(_))).count();
        if cuts == CUTS_MAX
            && matches!(news, Open::Cut(_))
            && let Some(eldest) = self.open.iter().position(|open| matches!(open, Open::Cut(_)))
        {
            self.open.remove(eldest);
        }
        let heads = self.open.iter().filter(|open| matches!(open, Open::SignedHead(_))).count();
        if heads >= HEADS_MAX
            && let Some(eldest) =
                self.open.iter().position(|open| matches!(open, Open::SignedHead(_)))
        {
            self.open.remove(eldest);
        }
        self.open.push(news);
    }

    /// A log is durable up to a position.
    pub(super) fn stored(&mut self, position: &LogPosition) {
        self.open.retain(|open| match open {
            Open::SignedHead(SignedHead { head, .. }) => {
                head.log != position.log || head.seq > position.sealed
            }
            _ => true,
        });
    }

    /// Entries of a log were fetched.
    pub(super) fn fetched(&mut self, of: LogId) {
        self.open.retain(|open| !matches!(open, Open::Fetch { log, .. } if *log == of));
    }

    /// The checkpoint was fetched.
    pub(super) fn checkpoint_fetched(&mut self) {
        self.open.retain(|open| *open != Open::FetchCheckpoint);
    }

    /// A log ended: the device does not take its entries, or has lost them.
    pub(super) fn cut_made(&mut self, of: LogId) {
        self.open.retain(|open| match open {
            Open::Refused(refuse) => refuse.log != of,
            Open::LogLost(log) => *log != of,
            _ => true,
        });
    }

    /// The frames, the eldest first.
    pub(super) fn frames(&self) -> Vec<Bytes> {
        self.batches.iter().map(|(frame, _)| frame.clone()).collect()
    }

    /// The rest, in the order in which it was told.
    pub(super) fn open(&self) -> Vec<Open> {
        self.open.clone()
    }
}

impl Open {
    fn replaces(&self, known: &Self) -> bool {
        match (self, known) {
            (Self::SignedHead(new), Self::SignedHead(old)) => {
                new.head.log == old.head.log && new.head.seq >= old.head.seq
            }
            (Self::Refused(new), Self::Refused(old)) => new.log == old.log,
            (Self::Fetch { log: new, .. }, Self::Fetch { log: old, .. }) => new == old,
            (Self::Cut(new), Self::Cut(old)) => new == old,
            (Self::LogLost(new), Self::LogLost(old)) => new == old,
            (Self::FetchCheckpoint, Self::FetchCheckpoint) => true,
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use protocol::history::Head;
    use protocol::keys::Keypair;
    use protocol::{EntryId, TreeId};

    use super::*;

    fn log(epoch: u64) -> LogId {
        LogId { author: Keypair::from_seed(&[1; 32]).public(), epoch }
    }

    fn signed(epoch: u64, seq: u64) -> Open {
        let head = Head { tree: TreeId([0; 32]), log: log(epoch), seq, id: EntryId([0; 32]) };
        Open::SignedHead(SignedHead::sign(&Keypair::from_seed(&[1; 32]), head))
    }

    #[test]
    fn frames_are_answered_in_the_order_in_which_they_came() {
        let mut unanswered = Unanswered::default();
        let came = Instant::now();
        for byte in 1..=3 {
            unanswered.batch(Bytes::from(vec![byte]), came);
        }
        assert_eq!(unanswered.batch_done(), Some(came));
        assert_eq!(unanswered.frames(), [Bytes::from(vec![2]), Bytes::from(vec![3])]);
    }

    #[test]
    fn a_signed_head_is_open_until_its_entries_are_sealed() {
        let mut unanswered = Unanswered::default();
        unanswered.tell(signed(1, 5));
        unanswered.tell(signed(1, 9));
        unanswered.tell(signed(2, 4));
        assert_eq!(unanswered.open(), [signed(1, 9), signed(2, 4)]);
        let at = |sealed| LogPosition { log: log(1), seq: 9, id: EntryId([0; 32]), sealed };
        unanswered.stored(&at(8));
        assert_eq!(unanswered.open().len(), 2);
        unanswered.stored(&at(9));
        assert_eq!(unanswered.open(), [signed(2, 4)]);
    }

    #[test]
    fn a_device_that_cuts_log_after_log_is_remembered_within_bounds() {
        let mut unanswered = Unanswered::default();
        for epoch in 0..100 {
            let key = Keypair::from_seed(&[1; 32]);
            let cut = Cut::seal(&key, TreeId([0; 32]), log(epoch), 0, EntryId([0; 32]));
            unanswered.tell(Open::Cut(cut));
        }
        assert_eq!(unanswered.open().len(), CUTS_MAX);
    }

    #[test]
    fn a_read_is_open_until_it_is_answered() {
        let mut unanswered = Unanswered::default();
        let fetch = |epoch, after| Open::Fetch { log: log(epoch), after, bytes_max: 1 };
        unanswered.tell(fetch(1, 0));
        unanswered.tell(fetch(1, 7));
        unanswered.tell(fetch(2, 0));
        unanswered.fetched(log(2));
        assert_eq!(unanswered.open(), [fetch(1, 7)]);
    }
}
