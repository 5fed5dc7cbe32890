//! What waits for the brain: the numbers and sizes of own entries that it has not made durable.

use std::collections::{BTreeMap, VecDeque};

/// The unsent entries of all own logs.
#[derive(Debug, Clone, Default)]
pub(super) struct Queue {
    logs: BTreeMap<u32, VecDeque<(u64, u32)>>,
    depth: u64,
    bytes: u64,
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

    /// An entry joins, after those of its log.
    pub(super) fn push(&mut self, log: u32, seq: u64, bytes: u32) {
        self.logs.entry(log).or_default().push_back((seq, bytes));
        self.depth += 1;
        self.bytes += u64::from(bytes);
    }

    /// The brain has a log's entries up to `seq`.
    pub(super) fn delivered(&mut self, log: u32, seq: u64) {
        let Some(entries) = self.logs.get_mut(&log) else { return };
        while let Some((_, bytes)) = entries.pop_front_if(|(first, _)| *first <= seq) {
            self.depth -= 1;
            self.bytes -= u64::from(bytes);
        }
    }

    /// A log ended at `seq`. Returns the bytes of what waited above.
    pub(super) fn truncate(&mut self, log: u32, seq: u64) -> u64 {
        let before = self.bytes;
        let Some(entries) = self.logs.get_mut(&log) else { return 0 };
        while let Some((_, bytes)) = entries.pop_back_if(|(last, _)| *last > seq) {
            self.depth -= 1;
            self.bytes -= u64::from(bytes);
        }
        before - self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_and_bytes_follow_both_ends() {
        let mut queue = Queue::default();
        for seq in 1..=5 {
            queue.push(0, seq, 10);
        }
        queue.push(1, 1, 7);
        queue.delivered(0, 2);
        assert_eq!(queue.truncate(0, 4), 10);
        assert_eq!((queue.depth(), queue.bytes()), (3, 27));
        queue.delivered(0, 99);
        queue.delivered(2, 99);
        assert_eq!((queue.depth(), queue.bytes()), (1, 7));
    }
}
