//! Writing the brain's own entries again, when a device does not take them for their timestamps.
//!
//! The brain's clock was far ahead when it wrote them, and has been put right since. The log ends
//! below the first of them, and so does every later log of the brain that names them as a cause;
//! what they said is written again, in order, in a new log. The old entries stay in history, as
//! the versions that they made, and count no longer.

use std::collections::BTreeMap;

use protocol::EntryId;
use protocol::clock::Hlc;
use protocol::history::{Author, Cut, Entry, LogId, LogState};
use protocol::session::Now;
use protocol::wire::LogPosition;

use super::Twin;
use crate::ports::TreeCommit;

/// What writing again came to.
#[derive(Debug)]
pub struct Reissued {
    /// The logs that ended.
    pub cuts: Vec<Cut>,
    /// What to make durable, all at once.
    pub commit: TreeCommit,
    /// Where the new log stands with it.
    pub position: LogPosition,
}

/// The entries of the brain's own logs, in order.
pub type OwnEntries = BTreeMap<LogId, Vec<(EntryId, Entry)>>;

impl Twin {
    /// The brain's own logs of this tree that have not ended, with their places in it.
    pub fn own_logs(&self) -> Vec<(LogId, u32)> {
        let brain = self.brain.keypair.public();
        let logs = self.tree.logs().iter().zip(0..);
        logs.filter(|(state, _)| state.log.author == brain && state.cut.is_none())
            .map(|(state, number)| (state.log, number))
            .collect()
    }

    /// Ends `refused` below its entry `seq` and writes what followed again in the log of `epoch`.
    ///
    /// `written` holds all entries of [`own_logs`](Self::own_logs). None where there is nothing
    /// to write again, and where another author has seen what would have to go: it was taken
    /// once, so it is the device's clock that is wrong now.
    pub fn reissue(
        &mut self,
        refused: LogId,
        seq: u64,
        written: &OwnEntries,
        epoch: u64,
        now: Now,
    ) -> Option<Reissued> {
        let ends = ends(refused, seq, written);
        let own = self.brain.keypair.public();
        let others = self.tree.logs().iter().filter(|state| state.log.author != own);
        let seen = |state: &LogState| ends.iter().any(|(log, end)| state.context.get(log) >= *end);
        if others.into_iter().any(seen) {
            return None;
        }
        let order: Vec<LogId> = self.own_logs().into_iter().map(|(log, _)| log).collect();
        let mut lost = Vec::new();
        let mut cuts = Vec::new();
        for log in order {
            let Some(first_lost) = ends.get(&log) else { continue };
            let entries = written.get(&log).into_iter().flatten().map(|(_, entry)| entry);
            let from = lost.len();
            lost.extend(entries.filter(|entry| entry.seq >= *first_lost));
            let Some(first) = lost.get(from) else { continue };
            let (keypair, tree) = (&self.brain.keypair, self.tree.id());
            cuts.push(Cut::seal(keypair, tree, log, first.seq - 1, first.prev));
        }
        if lost.is_empty() {
            return None;
        }
        for cut in &cuts {
            // Every leaf that this touches is written again below.
            self.tree.take_cut(cut.clone());
        }
        self.brain.epoch = epoch;
        let log = LogId { author: self.brain.keypair.public(), epoch };
        self.author = Author::new(log, Hlc::default());
        let mut whole: Option<TreeCommit> = None;
        for old in lost {
            let entry = self.author.reissue(&self.tree, old, now.wall_ms, now.quality);
            let touched = self.tree.apply(&entry, entry.id());
            // A fold of history from before the cut would bring the old entries back, so each of
            // these versions gets a snapshot to start from.
            let part = self.commit_with_snapshot(entry, touched, now);
            whole = Some(match whole {
                None => part,
                Some(before) => before.and_then(part),
            });
        }
        Some(Reissued { cuts, commit: whole?, position: self.position(&log) })
    }
}

/// For each log that has to end, the number of the first entry that does not count: the refused
/// one, and in other logs the first that names one of those as its cause.
fn ends(refused: LogId, seq: u64, written: &OwnEntries) -> BTreeMap<LogId, u64> {
    let mut ends = BTreeMap::from([(refused, seq)]);
    loop {
        let names_ended = |entry: &Entry| ends.iter().any(|(log, end)| entry.seen.get(log) >= *end);
        let next =
            written.iter().filter(|(log, _)| !ends.contains_key(log)).find_map(|(log, entries)| {
                let first = entries.iter().find(|(_, entry)| names_ended(entry));
                first.map(|(_, entry)| (*log, entry.seq))
            });
        match next {
            Some((log, end)) => ends.insert(log, end),
            None => return ends,
        };
    }
}
