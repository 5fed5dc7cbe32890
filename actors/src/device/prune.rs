//! Dropping the beginning of a history, and what goes out in its place.

use std::collections::BTreeSet;

use protocol::history::Refold;
use protocol::session::Now;
use protocol::state::Version;
use protocol::{ErrorCode, SyncError};

use super::links::News;
use super::{
    DeviceMsg, REFUSED_RETRY_MS, TreeActor, Unprunable, Whose, error, not_read, not_stored,
};
use crate::ports::{Base, CommitError, LinkEvent, Origin, ReadError, Snapshot};
use crate::supervise::{Context, NodeError, Reply};
use crate::trace::Spans;

impl<W: Whose> TreeActor<W> {
    /// Lets the history begin with the snapshot of a version.
    pub(super) async fn prune(
        &mut self,
        ctx: &Context<DeviceMsg>,
        version: Version,
        kept: Vec<Version>,
        reply: Reply<Result<Result<Base, Unprunable>, SyncError>>,
        now: Now,
    ) -> Result<(), NodeError> {
        let snapshot = match self.read_snapshot(ctx, version).await? {
            Ok(Some(snapshot)) => snapshot,
            Ok(None) => {
                reply.send(Ok(Err(Unprunable::NotWithin)));
                return Ok(());
            }
            // Damage of the past is no reason to fail: the present is whole.
            Err(error) => {
                reply.send(Err(not_read(&error, "prune")));
                return Ok(());
            }
        };
        if let Err(unprunable) = self.twin_mut().may_prune(&snapshot) {
            reply.send(Ok(Err(unprunable)));
            return Ok(());
        }
        let origins = match self.read_origins(ctx, &snapshot).await? {
            Ok(origins) => origins,
            Err(error) => {
                reply.send(Err(not_read(&error, "prune")));
                return Ok(());
            }
        };
        let mut commit = match self.twin_mut().prune(&snapshot, kept, now) {
            Ok(commit) => commit,
            Err(unprunable) => {
                reply.send(Ok(Err(unprunable)));
                return Ok(());
            }
        };
        let Some(prune) = &mut commit.prune else { return Ok(()) };
        prune.origins = origins;
        let base = prune.base.clone();
        // A session that still has some of it to send asks for the checkpoint in its place.
        let news = News::all(vec![LinkEvent::Pruned(base.floor.clone())]);
        let answer = move |result: Result<(), CommitError>| {
            reply.send(result.map(|()| Ok(base)).map_err(|error| not_stored(&error, "prune")));
        };
        self.commit(ctx, commit, news, &Spans::default(), Some(Box::new(answer)));
        Ok(())
    }

    /// Answers a session whose peer lacks what was pruned.
    pub(super) async fn fetch_checkpoint(
        &mut self,
        ctx: &Context<DeviceMsg>,
        connection: u64,
    ) -> Result<(), NodeError> {
        let close = |error| LinkEvent::Close { error, retry_after_ms: Some(REFUSED_RETRY_MS) };
        let event = match self.read_base(ctx).await? {
            Ok(snapshot) => {
                let twin = self.twin_mut();
                match snapshot.and_then(|snapshot| twin.checkpoint(snapshot)) {
                    Some(checkpoint) => LinkEvent::Checkpoint(Box::new(checkpoint)),
                    None => {
                        let text = "the checkpoint of what was pruned is not there";
                        close(error(ErrorCode::NotFound, "read checkpoint", text))
                    }
                }
            }
            Err(damaged) => close(not_read(&damaged, "read checkpoint")),
        };
        self.links.send(connection, event);
        Ok(())
    }

    /// Has leaves that are folded again begin with what stands in place of what was pruned.
    pub(super) async fn start_from_base(
        &mut self,
        ctx: &Context<DeviceMsg>,
        refold: &mut Refold,
    ) -> Result<(), NodeError> {
        if let Some(Snapshot { logs, leaves, .. }) = self.read_base(ctx).await?? {
            refold.start_from(self.twin_mut().tree(), &logs, &leaves);
        }
        Ok(())
    }

    /// The entries that the leaves of a snapshot go back to.
    async fn read_origins(
        &mut self,
        ctx: &Context<DeviceMsg>,
        snapshot: &Snapshot,
    ) -> Result<Result<Vec<Origin>, ReadError>, NodeError> {
        let tree = self.twin_mut().number();
        let store = self.args.store.clone();
        let candidates = snapshot.leaves.values().flat_map(|leaf| &leaf.candidates);
        let named: BTreeSet<_> = candidates.map(|c| (c.log, c.seq)).collect();
        let read = move || {
            let read = named.into_iter().map(|(log, seq)| store.origin(tree, log, seq));
            read.filter_map(Result::transpose).collect::<Result<Vec<_>, _>>()
        };
        Ok(ctx.waiting(tokio::task::spawn_blocking(read)).await?)
    }

    async fn read_base(
        &mut self,
        ctx: &Context<DeviceMsg>,
    ) -> Result<Result<Option<Snapshot>, ReadError>, NodeError> {
        match self.twin_mut().base().map(|base| base.version) {
            Some(version) => self.read_snapshot(ctx, version).await,
            None => Ok(Ok(None)),
        }
    }

    async fn read_snapshot(
        &mut self,
        ctx: &Context<DeviceMsg>,
        version: Version,
    ) -> Result<Result<Option<Snapshot>, ReadError>, NodeError> {
        let tree = self.twin_mut().number();
        let store = self.args.store.clone();
        let read = move || store.snapshot(tree, version);
        Ok(ctx.waiting(tokio::task::spawn_blocking(read)).await?)
    }
}
