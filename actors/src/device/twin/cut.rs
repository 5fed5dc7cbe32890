//! Cuts that others made.

use protocol::history::{Cut, Refold, logs_max};
use protocol::session::Now;

use super::Twin;
use super::conflicts::BY_CUT;
use crate::ports::TreeCommit;

/// What a cut comes to.
#[derive(Debug)]
pub enum CutAnswer {
    /// Nothing: it is no news, or its signer may not cut that log.
    Nothing,
    /// The log ends where nothing is above: make this durable.
    Ends(Box<TreeCommit>),
    /// There are entries above it. The history has the last word: see [`Twin::cut_below`].
    Below(Box<Cut>),
}

impl Twin {
    /// Judges a cut by whoever may cut, the log's author or a brain of the fleet.
    ///
    /// A log may end that nothing came of yet: entries of other logs may name it as their cause.
    pub fn take_cut(&mut self, cut: Cut) -> CutAnswer {
        let brains = &self.brain.brains;
        let Some(role) = self.role(&cut.log) else { return CutAnswer::Nothing };
        if cut.verify(|authority| brains.contains(&authority)).is_err() {
            return CutAnswer::Nothing;
        }
        match self.tree.log(&cut.log) {
            None if self.tree.logs().len() >= logs_max(role) => return CutAnswer::Nothing,
            Some(known) if known.cut.is_some() => return CutAnswer::Nothing,
            Some(known) if known.seq == cut.last_seq && known.head != cut.last_id => {
                return CutAnswer::Nothing;
            }
            // What it would bring to light again is kept no longer. Whoever made it hears of the
            // checkpoint when it comes back, and begins anew from that.
            Some(_) if cut.last_seq < self.floor().get(&cut.log) => return CutAnswer::Nothing,
            Some(known) if known.seq > cut.last_seq => return CutAnswer::Below(Box::new(cut)),
            _ => {}
        }
        self.tree.take_cut(cut);
        CutAnswer::Ends(Box::new(self.commit_row()))
    }

    /// Ends a log below entries that are here already, by a cut that [`take_cut`](Self::take_cut)
    /// gave back and whose last entry is the one in the history.
    ///
    /// What lies above stays in the history as evidence and counts no longer. The leaves in the
    /// answer have to be folded from all logs of the tree and given to
    /// [`refolded`](Self::refolded) before the twin does anything else.
    pub fn cut_below(&mut self, cut: Cut) -> Refold {
        self.unsigned.retain(|(log, seq, _)| *log != cut.log || *seq <= cut.last_seq);
        Refold::of(self.tree.take_cut(cut))
    }

    /// Puts leaves in place that were folded again, as a version of its own.
    ///
    /// A fold of history from before the cut would bring the old entries back, so this version
    /// gets a snapshot to start from.
    pub fn refolded(&mut self, refold: Refold, now: Now) -> TreeCommit {
        let leaves = refold.finish(&self.tree);
        self.tree.put_refolded(leaves.clone());
        self.version += 1;
        self.committed_ms = self.committed_ms.max(now.wall_ms);
        let snapshot = self.take_snapshot(false);
        let mut commit = self.commit_row();
        let paths: Vec<_> = leaves.keys().cloned().collect();
        commit.conflicts = self.conflicts_of(&paths, BY_CUT);
        commit.leaves = leaves.into_iter().collect();
        commit.snapshots.push(snapshot);
        commit
    }
}
