//! Checkpoints, and beginning anew.

use protocol::history::{Checkpoint, Entry, MergeError};
use protocol::session::Now;

use super::{Limits, Replica};
use crate::identity::Identity;
use crate::track::{WriteError, account};

/// Whether this device may go on in the log that it writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnLog {
    /// It may.
    GoesOn,
    /// An earlier life of this device, on a disk that has since gone back in time, wrote more of it
    /// or ended it. Another epoch is to be opened before anything is written.
    IsOver,
}

impl Replica {
    /// Takes in what a checkpoint has and this replica has not.
    pub fn merge(&mut self, checkpoint: &Checkpoint, now: Now) -> Result<OwnLog, MergeError> {
        let log = self.own_log();
        let before = self.position(log).seq;
        let touched = self.tree.merge(checkpoint)?;
        for state in &checkpoint.logs {
            // What is too far ahead does not take this clock along.
            let _ = self.author.clock_mut().observe(state.hlc, now.wall_ms);
            // Whoever vouches for it has it.
            self.acknowledged(state.log, state.seq, state.sealed());
            if let Some(number) = self.tree.log_number(&state.log) {
                self.note(number);
            }
        }
        self.stage_leaves(&touched);
        self.must_commit = true;
        // The brain may have more of it than the checkpoint.
        let is_over = self.tree.has_ended(&log) || checkpoint.vector().get(&log) > before;
        Ok(if is_over { OwnLog::IsOver } else { OwnLog::GoesOn })
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

#[cfg(test)]
mod tests {
    use protocol::clock::ClockQuality;
    use protocol::history::{Cut, Draft, Provenance, Tree};
    use protocol::keys::Keypair;
    use protocol::state::{Path, StateSource, Value};
    use protocol::{DeviceId, FleetId};

    use super::*;
    use crate::track::genesis;

    const LIMITS: Limits =
        Limits { queue_bytes_max: 10_000, retain_bytes: 1_000, entry_bytes_max: 1_000_000 };
    const NOW: Now = Now { wall_ms: 1_000, mono_ms: 0, quality: ClockQuality::Synchronised };

    fn identity() -> Identity {
        Identity { device: DeviceId([2; 16]), keypair: Keypair::from_seed(&[1; 32]) }
    }

    /// A device that has written three entries.
    fn replica() -> Replica {
        let genesis = genesis(FleetId([3; 16]), identity().device);
        let mut replica = Replica::begin(identity(), genesis, 7, LIMITS);
        for n in 1..=3 {
            let path = Path::new("reported/n").expect("a path");
            let provenance = Provenance::new(StateSource::Edge, "test", "test");
            let changes = vec![(path, Some(Value::from(n)))];
            let draft = Draft { changes, provenance, lease_until_ms: None };
            replica.write(draft, NOW).expect("written");
        }
        replica
    }

    fn checkpoint(tree: &Tree) -> Checkpoint {
        let brain = Keypair::from_seed(&[9; 32]);
        Checkpoint::sign(&brain, tree.id(), tree.logs().to_vec(), tree.leaves().clone())
    }

    #[test]
    fn a_log_that_a_checkpoint_ends_where_it_stands_is_over() {
        let mut replica = replica();
        assert_eq!(replica.merge(&checkpoint(replica.tree()), NOW), Ok(OwnLog::GoesOn));
        let (mut there, own) = (replica.tree().clone(), replica.position(replica.own_log()));
        let keypair = identity().keypair;
        there.take_cut(Cut::seal(&keypair, there.id(), own.log, own.seq, own.id));
        assert_eq!(replica.merge(&checkpoint(&there), NOW), Ok(OwnLog::IsOver));
    }

    #[test]
    fn a_log_that_stands_further_in_a_checkpoint_is_over() {
        let there = replica().tree().clone();
        let genesis = there.genesis().clone();
        let mut replica = Replica::begin(identity(), genesis, 7, LIMITS);
        assert_eq!(replica.merge(&checkpoint(&there), NOW), Ok(OwnLog::IsOver));
        assert_eq!(replica.position(replica.own_log()).seq, 3);
    }
}
