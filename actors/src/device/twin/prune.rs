//! Dropping the beginning of a history.

use protocol::history::{CHECKPOINT_BYTES_MAX, Checkpoint, LogState, TreeKind, VersionVector};
use protocol::session::Now;
use protocol::state::Version;

use super::Twin;
use crate::ports::{Base, Prune, Snapshot, TreeCommit};

/// Why a history cannot begin with a snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unprunable {
    /// It begins there, or later, already; or there is no such version yet.
    #[error("the history does not reach from before this version to after it")]
    NotWithin,
    /// Of a shared tree, it holds entries that their author has not signed yet: nobody passes those
    /// on to others.
    #[error("entries of a log are not signed by their author yet")]
    Unsigned,
    /// It makes a checkpoint that nobody would take.
    #[error("the tree is too large for a checkpoint")]
    TooLarge,
}

impl Twin {
    /// Where the history begins, when it was pruned.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// Lets the history begin with a snapshot: the entries up to it are dropped with this commit, and
    /// so are the snapshots before it, but for those of the versions `kept`.
    ///
    /// Whoever lacks one of the entries gets a [checkpoint](Self::checkpoint) in their place.
    pub fn prune(
        &mut self,
        to: &Snapshot,
        kept: Vec<Version>,
        now: Now,
    ) -> Result<TreeCommit, Unprunable> {
        self.may_prune(to)?;
        let (logs, leaves) = (to.logs.clone(), to.leaves.clone());
        let signed = Checkpoint::sign(&self.brain.keypair, self.tree.id(), logs, leaves);
        let base = Base {
            version: to.version,
            at_ms: to.at_ms,
            pruned_ms: now.wall_ms,
            written_bytes: to.written_bytes,
            floor: signed.vector(),
            authority: signed.authority,
            signature: signed.signature,
        };
        self.base = Some(base.clone());
        let mut commit = self.commit_row();
        commit.prune = Some(Prune { base, kept, origins: Vec::new() });
        Ok(commit)
    }

    /// Whether the history can begin with a snapshot.
    pub fn may_prune(&self, to: &Snapshot) -> Result<(), Unprunable> {
        let begins = self.base.as_ref().map_or(0, |base| base.version);
        if to.version <= begins || to.version > self.version {
            return Err(Unprunable::NotWithin);
        }
        let is_shared = self.tree.genesis().kind != TreeKind::Device;
        let own = self.brain.keypair.public();
        let unsigned = |log: &LogState| {
            let known = self.tree.log(&log.log);
            let sealed = known.map_or(0, |known| match known.cut {
                Some(_) => known.seq,
                None => known.sealed(),
            });
            log.log.author != own && log.seq > sealed
        };
        if is_shared && to.logs.iter().any(unsigned) {
            return Err(Unprunable::Unsigned);
        }
        // A log may have ended since, below what the snapshot has of it.
        let ends_below =
            |log: &LogState| self.tree.log(&log.log).is_none_or(|known| known.seq < log.seq);
        if to.logs.iter().any(ends_below) {
            return Err(Unprunable::NotWithin);
        }
        if Checkpoint::size_bytes(&to.logs, &to.leaves) > CHECKPOINT_BYTES_MAX {
            return Err(Unprunable::TooLarge);
        }
        Ok(())
    }

    /// What stands in place of what was pruned, signed; none where `snapshot` is not that.
    pub fn checkpoint(&self, snapshot: Snapshot) -> Option<Checkpoint> {
        let is_base = self.base.as_ref().is_some_and(|base| base.version == snapshot.version);
        let Snapshot { logs, leaves, .. } = snapshot;
        is_base.then(|| Checkpoint::sign(&self.brain.keypair, self.tree.id(), logs, leaves))
    }

    /// Up to where entries are kept no longer.
    pub fn floor(&self) -> VersionVector {
        self.base.as_ref().map_or_else(VersionVector::default, |base| base.floor.clone())
    }
}
