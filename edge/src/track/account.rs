//! What became of the entries that this device wrote: none is unaccounted for.
//!
//! ```text
//! recovered + enqueued = acknowledged + queued + refused (by reason)
//! ```

use std::collections::BTreeMap;

/// As many entries wait for the brain as may.
pub(crate) const QUEUE_FULL: &str = "QUEUE_FULL";
/// The tree does not take the change.
pub(crate) const NOT_ADMISSIBLE: &str = "NOT_ADMISSIBLE";
/// The log ended, and the entry was written again in another one, where it counts anew.
pub(crate) const REWRITTEN: &str = "REWRITTEN";
/// The brain ended the log below the entry.
pub(crate) const CUT: &str = "CUT";
/// It did not become durable, and whoever wrote it was told.
pub(crate) const SPOOL_FAILED: &str = "SPOOL_FAILED";

/// How many entries were written since the start, and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QueueAccount {
    /// Were in the spool already, unacknowledged as far as it knew.
    pub recovered: u64,
    /// Were to be written.
    pub enqueued: u64,
    /// The brain has them.
    pub acknowledged: u64,
    /// Wait for the brain.
    pub queued: u64,
    /// Neither, by reason.
    pub refused: BTreeMap<&'static str, u64>,
}

impl QueueAccount {
    /// An entry was written and waits.
    pub fn enqueue(&mut self) {
        self.enqueued += 1;
        self.queued += 1;
    }

    /// An entry was to be written and was not.
    pub fn turn_away(&mut self, reason: &'static str) {
        self.enqueued += 1;
        *self.refused.entry(reason).or_default() += 1;
    }

    /// The brain has entries that waited.
    pub fn acknowledge(&mut self, entries: u64) {
        self.queued -= entries;
        self.acknowledged += entries;
    }

    /// Entries that waited do so no longer.
    pub fn withdraw(&mut self, entries: u64, reason: &'static str) {
        if entries > 0 {
            self.queued -= entries;
            *self.refused.entry(reason).or_default() += entries;
        }
    }

    /// Of those withdrawn to be written again, so many were left out for another reason.
    pub fn leave_out(&mut self, entries: u64, reason: &'static str) {
        let rewritten = self.refused.entry(REWRITTEN).or_default();
        let entries = entries.min(*rewritten);
        *rewritten -= entries;
        *self.refused.entry(reason).or_default() += entries;
    }

    /// The spool was read, and so many entries wait in it. What is missing was never durable;
    /// what is there beyond the known is from an earlier life, or its acknowledgement is.
    pub fn read_again(&mut self, queued: u64) {
        self.withdraw(self.queued.saturating_sub(queued), SPOOL_FAILED);
        self.recovered += queued - self.queued;
        self.queued = queued;
    }

    /// All that were refused, whatever the reason.
    pub fn refused_all(&self) -> u64 {
        self.refused.values().sum()
    }

    /// Whether every entry is accounted for.
    pub fn balances(&self) -> bool {
        self.recovered + self.enqueued == self.acknowledged + self.queued + self.refused_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_waits_is_acknowledged_or_refused_for_a_reason() {
        let mut account = QueueAccount::default();
        account.read_again(3);
        (0..5).for_each(|_| account.enqueue());
        account.turn_away(QUEUE_FULL);
        account.acknowledge(4);
        account.withdraw(2, REWRITTEN);
        account.leave_out(1, "FORBIDDEN");
        account.enqueue();
        assert!(account.balances(), "{account:?}");
        let refused = BTreeMap::from([("FORBIDDEN", 1), (QUEUE_FULL, 1), (REWRITTEN, 1)]);
        let expected =
            QueueAccount { recovered: 3, enqueued: 7, acknowledged: 4, queued: 3, refused };
        assert_eq!(account, expected);
    }

    #[test]
    fn what_the_spool_does_not_have_was_refused_and_what_it_has_besides_was_recovered() {
        let mut account = QueueAccount::default();
        (0..5).for_each(|_| account.enqueue());
        account.read_again(3);
        assert_eq!((account.queued, account.refused[SPOOL_FAILED]), (3, 2));
        account.acknowledge(3);
        account.read_again(1);
        assert_eq!((account.queued, account.recovered), (1, 1));
        assert!(account.balances(), "{account:?}");
    }
}
