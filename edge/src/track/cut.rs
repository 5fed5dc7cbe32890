//! Logs that end, and shared trees that have to come anew for it.

use std::collections::BTreeMap;

use actors::supervise::{Context, NodeError};
use protocol::history::Cut;
use protocol::wire::LogPosition;

use super::keeper::{NotLoaded, Track, random_epoch};
use super::{Incomplete, Msg, Replica, WriteError};

impl Track {
    /// Takes a cut, and says where its log stands then. Where leaves of a shared tree lose values by it, what those had replaced may be
    /// pruned here: the tree comes anew with the next offer, once nothing of this device waits.
    pub(super) async fn take_cut(
        &mut self,
        ctx: &Context<Msg>,
        cut: Cut,
    ) -> Result<Result<LogPosition, Incomplete>, NodeError> {
        let log = cut.log;
        let own = log == self.replica()?.own_log();
        let touched = self.replica()?.take_cut(cut);
        if own {
            let epoch = random_epoch()?;
            self.replica()?.open_epoch(epoch);
        }
        if touched.is_empty() {
            self.after_commit(ctx, |_| {});
            return Ok(Ok(self.replica()?.position(log)));
        }
        tracing::warn!(leaves = touched.len(), "a cut took the values of leaves");
        if self.args.shared.is_some() {
            self.replica()?.set_incomplete();
        }
        self.flush().await?;
        let position = self.replica()?.position(log);
        Ok(self.whole()?.map(|()| position))
    }

    /// Whether the tree can stay as it is for now: it has all its values, or something of this device
    /// waits, which would be lost if it came anew.
    pub(super) fn whole(&mut self) -> Result<Result<(), Incomplete>, NotLoaded> {
        let replica = self.replica()?;
        let may_stay = !replica.is_incomplete() || replica.queue_depth() > 0;
        Ok(may_stay.then_some(()).ok_or(Incomplete))
    }

    /// Compares a shared tree with what another side has of it.
    pub(super) async fn compare(
        &mut self,
        logs: &[LogPosition],
        root: [u8; 32],
    ) -> Result<Result<(), WriteError>, NodeError> {
        self.flush().await?;
        let replica = self.replica()?;
        let here = replica.positions().into_iter().filter(|position| position.seq > 0);
        let stand = |position: LogPosition| (position.log, (position.seq, position.id));
        let here: BTreeMap<_, _> = here.map(stand).collect();
        let there: BTreeMap<_, _> = logs.iter().copied().map(stand).collect();
        let differs = here == there && !here.is_empty() && replica.tree().root() != root;
        let waits = replica.queue_depth() > 0;
        if differs {
            tracing::error!("the same logs come to other leaves here");
        }
        if (differs || self.replica()?.is_incomplete()) && !waits {
            tracing::warn!("a shared tree comes anew");
            self.begin_anew().await?;
        }
        Ok(Ok(()))
    }

    /// Forgets a shared tree, of which nothing waits for the brain, to get it from there. The own log
    /// comes with it, and nothing is written before: an empty tree has no members.
    async fn begin_anew(&mut self) -> Result<(), NodeError> {
        let (identity, limits) = (self.args.identity.clone(), self.args.limits);
        let replica = self.replica()?;
        let epoch = replica.own_log().epoch;
        let (account, genesis) = (replica.account().clone(), replica.tree().genesis().clone());
        let brains = replica.brains().clone();
        let mut anew = Replica::begin(identity, genesis, epoch, limits);
        anew.go_on_with(account);
        anew.count_changes_after(self.args.board.log_revision());
        brains.into_iter().for_each(|brain| anew.add_brain(brain));
        self.replica = Some(anew);
        self.flush().await
    }
}
