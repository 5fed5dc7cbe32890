//! Checkpoints, which the brain sends in place of entries that it keeps no longer.

use actors::supervise::NodeError;
use protocol::history::{Checkpoint, Entry, MergeError};
use protocol::wire::LogPosition;

use super::keeper::{Track, random_epoch};
use super::replica::OwnLog;
use super::{Replica, WriteError};

/// What became of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Merged {
    /// The tree has what it stands for: here its logs stand now.
    At(Vec<LogPosition>),
    /// It contradicted what was here. The tree has begun anew from it, and what of this device's
    /// waited is written again: a session has to begin anew as well.
    Anew,
    /// Whoever vouches for it is no brain that is known here.
    Stranger,
}

impl Track {
    /// Takes a checkpoint whose signatures are checked.
    ///
    /// Own entries that wait are kept, and go on waiting. Those that the checkpoint claims to have,
    /// though nobody acknowledged them, come from a disk that has since gone back in time, so they
    /// are written again in a new epoch.
    pub(super) async fn take_checkpoint(
        &mut self,
        checkpoint: &Checkpoint,
    ) -> Result<Result<Merged, WriteError>, NodeError> {
        self.flush().await?;
        if !self.replica()?.brains().contains(&checkpoint.authority) {
            tracing::error!("a checkpoint is vouched for by a stranger");
            return Ok(Ok(Merged::Stranger));
        }
        let now = self.args.clock.now();
        let overtaken = self.waiting_entries(Some(checkpoint)).await?;
        let (merged, again, is_anew) = match self.replica()?.merge(checkpoint, now) {
            Ok(OwnLog::GoesOn) => (Ok(()), overtaken, false),
            Ok(OwnLog::IsOver) => {
                let epoch = random_epoch()?;
                self.replica()?.open_epoch(epoch);
                (Ok(()), overtaken, false)
            }
            Err(error) => {
                tracing::warn!(%error, "the tree begins anew from a checkpoint");
                let waiting = self.waiting_entries(None).await?;
                (self.begin_from(checkpoint)?, waiting, true)
            }
        };
        let replica = self.replica()?;
        let written = merged.map_err(WriteError::Unmergeable);
        let written = written.and_then(|()| replica.write_again(&again, now));
        if let Err(error) = written {
            self.load().await?;
            return Ok(Err(error));
        }
        self.flush().await?;
        tracing::info!(
            rewritten = again.len(),
            "a checkpoint takes the place of what the brain keeps no longer"
        );
        let replica = self.replica()?;
        let positions = checkpoint.logs.iter().map(|state| replica.position(state.log)).collect();
        Ok(Ok(if is_anew { Merged::Anew } else { Merged::At(positions) }))
    }

    /// Own entries that the brain has not acknowledged; with a checkpoint, those of logs that stand
    /// further there.
    async fn waiting_entries(
        &mut self,
        but_in: Option<&Checkpoint>,
    ) -> Result<Vec<Entry>, NodeError> {
        let logs = self.replica()?.unacknowledged();
        let mut entries = Vec::new();
        for (number, after) in logs {
            let state = self.replica()?.tree().logs().get(number as usize).cloned();
            let is_overtaken = |checkpoint: &Checkpoint| {
                state.is_some_and(|state| checkpoint.vector().get(&state.log) > state.seq)
            };
            if but_in.is_none_or(is_overtaken) {
                entries.extend(self.range(number, after, usize::MAX).await?);
            }
        }
        entries.sort_by_key(|entry| entry.hlc);
        Ok(entries)
    }

    /// Begins the tree anew with nothing but a checkpoint.
    fn begin_from(&mut self, checkpoint: &Checkpoint) -> Result<Result<(), MergeError>, NodeError> {
        let (identity, limits) = (self.args.identity.clone(), self.args.limits);
        let now = self.args.clock.now();
        let epoch = random_epoch()?;
        let mut anew = Replica::begin_again(self.replica()?, identity, epoch, limits);
        anew.count_changes_after(self.args.board.log_revision());
        let merged = anew.merge(checkpoint, now);
        self.replica = Some(anew);
        // It goes on in an epoch that nobody has heard of.
        Ok(merged.map(|_| ()))
    }
}
