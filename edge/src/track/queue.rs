//! What waits for the brain: the numbers and sizes of own entries that it has not made durable.

use std::collections::{BTreeMap, VecDeque};

use super::account::QueueAccount;

/// The unsent entries of all own logs.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    logs: BTreeMap<u32, VecDeque<Waiting>>,
    depth: u64,
    bytes: u64,
    pub(super) account: QueueAccount,
}

#[derive(Debug, Clone, Copy)]
struct Waiting {
    seq: u64,
    bytes: u32,
    /// When it was written, in seconds since the Unix epoch.
    written_s: u32,
}

impl Queue {
    /// How many entries wait.
    pub(super) fn depth(&self) -> u64 {
        self.depth
    }

    /// How many bytes they take.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// When the oldest was written, in seconds since the Unix epoch.
    pub(super) fn oldest_s(&self) -> Option<u64> {
        let first = self.logs.values().filter_map(VecDeque::front);
        first.map(|entry| u64::from(entry.written_s)).min()
    }

    /// An entry that was just written joins, after those of its log.
    pub(super) fn push(&mut self, log: u32, seq: u64, bytes: u32, written_ms: u64) {
        self.restore(log, seq, bytes, written_ms);
        self.account.enqueue();
    }

    /// An entry that was found in the spool joins, after those of its log.
    pub(super) fn restore(&mut self, log: u32, seq: u64, bytes: u32, written_ms: u64) {
        let written_s = u32::try_from(written_ms / 1_000).unwrap_or(u32::MAX);
        self.logs.entry(log).or_default().push_back(Waiting { seq, bytes, written_s });
        self.depth += 1;
        self.bytes += u64::from(bytes);
    }

    /// The brain has a log's entries up to `seq`.
    pub(super) fn delivered(&mut self, log: u32, seq: u64) {
        let Some(entries) = self.logs.get_mut(&log) else { return };
        let before = self.depth;
        while let Some(entry) = entries.pop_front_if(|first| first.seq <= seq) {
            self.depth -= 1;
            self.bytes -= u64::from(entry.bytes);
        }
        self.account.acknowledge(before - self.depth);
    }

    /// A log ended at `seq`, for a reason. Returns the bytes of what waited above.
    pub(super) fn truncate(&mut self, log: u32, seq: u64, reason: &'static str) -> u64 {
        let (before, bytes_before) = (self.depth, self.bytes);
        let Some(entries) = self.logs.get_mut(&log) else { return 0 };
        while let Some(entry) = entries.pop_back_if(|last| last.seq > seq) {
            self.depth -= 1;
            self.bytes -= u64::from(entry.bytes);
        }
        self.account.withdraw(before - self.depth, reason);
        bytes_before - self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::track::account::CUT;

    #[test]
    fn depth_and_bytes_follow_both_ends() {
        let mut queue = Queue::default();
        for seq in 1..=5 {
            queue.push(0, seq, 10, 1_000 * seq);
        }
        queue.push(1, 1, 7, 9_000);
        assert_eq!(queue.oldest_s(), Some(1));
        queue.delivered(0, 2);
        assert_eq!(queue.truncate(0, 4, CUT), 10);
        assert_eq!((queue.depth(), queue.bytes()), (3, 27));
        assert_eq!(queue.oldest_s(), Some(3));
        queue.delivered(0, 99);
        queue.delivered(2, 99);
        assert_eq!((queue.depth(), queue.bytes()), (1, 7));
        let account = &queue.account;
        assert_eq!((account.enqueued, account.acknowledged, account.queued), (6, 4, 1));
        assert_eq!((account.refused[CUT], account.balances()), (1, true));
    }
}
