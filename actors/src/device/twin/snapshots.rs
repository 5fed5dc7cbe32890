//! When a history gets another snapshot, and what that holds.

use protocol::state::Version;

use super::Twin;
use crate::ports::{Snapshot, TreeCommit};

/// Fewer entries than this are folded rather than kept a snapshot of.
const ENTRIES_MIN: u64 = 16;
/// More entries than this are never folded for a state.
const ENTRIES_MAX: u64 = 4_096;
/// So many times a snapshot's bytes are folded: snapshots add about an eighth to a history.
const FOLDED_PER_SNAPSHOT: u64 = 8;
/// About what a log takes in a snapshot.
const LOG_BYTES: usize = 200;

impl Twin {
    /// A snapshot of the current version.
    pub fn snapshot(&mut self) -> TreeCommit {
        // The one that the history begins with is signed as it is.
        if self.base.as_ref().is_some_and(|base| base.version == self.version) {
            return self.commit_row();
        }
        let snapshot = self.take_snapshot(true);
        let mut commit = self.commit_row();
        commit.snapshots.push(snapshot);
        commit
    }

    /// Whether `fresh` more entries are to be followed by a snapshot.
    pub(super) fn snapshot_is_due(&self, fresh: u64) -> bool {
        let version = self.version + fresh;
        is_due(version - self.snapshot, version, self.written_bytes, self.snapshot_bytes())
    }

    pub(super) fn take_snapshot(&mut self, on_demand: bool) -> Snapshot {
        self.snapshot = self.version;
        self.written_bytes += self.snapshot_bytes();
        Snapshot {
            version: self.version,
            at_ms: self.committed_ms,
            on_demand,
            source: self.source,
            written_bytes: self.written_bytes,
            logs: self.tree.logs().to_vec(),
            leaves: self.tree.leaves().clone(),
        }
    }

    fn snapshot_bytes(&self) -> u64 {
        (self.tree.bytes() + LOG_BYTES * self.tree.logs().len()) as u64
    }
}

/// Whether a snapshot is due, `since` entries after the last one, in a tree of `version` entries
/// and `written_bytes`: when what a reader folds is some times what a snapshot takes. So a large
/// tree whose small leaves change is not copied again and again, and a small one is read in no
/// time however long its history is.
fn is_due(since: Version, version: Version, written_bytes: u64, snapshot_bytes: u64) -> bool {
    let folded_bytes = since.saturating_mul(written_bytes) / version.max(1);
    let is_much = folded_bytes >= snapshot_bytes.saturating_mul(FOLDED_PER_SNAPSHOT);
    since >= ENTRIES_MAX || (since >= ENTRIES_MIN && is_much)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The versions of the snapshots of a history of `entries`, and the bytes of all.
    fn kept(entries: u64, entry_bytes: u64, snapshot_bytes: u64) -> (Vec<Version>, u64) {
        let (mut snapshots, mut last, mut written) = (Vec::new(), 0, 0);
        for version in 1..=entries {
            if is_due(version - last, version, written, snapshot_bytes) {
                snapshots.push(version);
                last = version;
                written += snapshot_bytes;
            }
            written += entry_bytes;
        }
        (snapshots, written)
    }

    #[test]
    fn a_small_tree_has_a_snapshot_every_few_entries() {
        let (snapshots, _) = kept(1_000, 200, 600);
        assert!((30..=60).contains(&snapshots.len()), "{snapshots:?}");
    }

    #[test]
    fn a_large_tree_is_not_copied_for_every_few_changes() {
        assert_eq!(kept(10_000, 100, 1 << 20).0, [4_096, 8_192]);
    }

    proptest! {
        #[test]
        fn no_reader_folds_more_than_the_most(
            entry_bytes in 20u64..33_000,
            snapshot_bytes in 100u64..1_000_000,
        ) {
            let (snapshots, _) = kept(20_000, entry_bytes, snapshot_bytes);
            let gaps = snapshots.iter().scan(0, |last, at| Some(at - std::mem::replace(last, *at)));
            prop_assert!(gaps.clone().all(|gap| (ENTRIES_MIN..=ENTRIES_MAX).contains(&gap)));
        }

        #[test]
        fn snapshots_take_a_small_part_of_a_history(
            entry_bytes in 20u64..2_000,
            snapshot_bytes in 100u64..20_000,
        ) {
            let (snapshots, written) = kept(20_000, entry_bytes, snapshot_bytes);
            let share = (snapshots.len() as u64 * snapshot_bytes) as f64 / written as f64;
            let least = snapshot_bytes as f64 / (ENTRIES_MAX * entry_bytes) as f64;
            prop_assert!(share < least.max(0.16), "{share}");
        }
    }
}
