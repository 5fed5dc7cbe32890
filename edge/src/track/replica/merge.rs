//! Checkpoints, and beginning anew.

use protocol::history::{Checkpoint, Entry, MergeError};
use protocol::session::Now;

use super::{Limits, Replica};
use crate::identity::Identity;
use crate::track::{WriteError, account};

impl Replica {
    /// Takes in what a checkpoint has and this replica has not.
    pub fn merge(&mut self, checkpoint: &Checkpoint, now: Now) -> Result<(), MergeError> {
        let touched = self.tree.merge(checkpoint)?;
        let own = self.identity.keypair.public();
        for state in &checkpoint.logs {
            // What is too far ahead does not take this clock along.
            let _ = self.author.clock_mut().observe(state.hlc, now.wall_ms);
            if state.log.author == own {
                // Whoever vouches for it has it.
                self.acknowledged(state.log, state.seq, state.sealed());
            }
            self.changed.extend(self.tree.log_number(&state.log));
        }
        self.stage_leaves(&touched);
        self.must_commit = true;
        Ok(())
    }

    /// The empty replica of the tree of `old`, in which this device goes on in `epoch`. What of its
    /// entries waited is for the caller to write again.
    pub fn begin_again(old: &Self, identity: Identity, epoch: u64, limits: Limits) -> Self {
        let genesis = old.tree.genesis().clone();
        let mut anew = Self::begin(identity, genesis, epoch, limits);
        let mut account = old.queue.account.clone();
        account.withdraw(account.queued, account::REWRITTEN);
        anew.queue.account = account;
        anew.author_state.clock_offset_ms = old.author_state.clock_offset_ms;
        anew.author_state.clock_floor_ms = old.author_state.clock_floor_ms;
        anew.stage_author();
        old.brains.iter().for_each(|brain| anew.add_brain(*brain));
        anew
    }

    /// Writes entries again, in order.
    pub fn write_again(&mut self, entries: &[Entry], now: Now) -> Result<(), WriteError> {
        for old in entries {
            let entry = self.author.reissue(&self.tree, old, now.wall_ms, now.quality);
            self.put(&entry)?;
        }
        Ok(())
    }
}
