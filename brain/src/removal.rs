//! The actor that removes what retired devices and deleted groups leave behind.
//!
//! Tree after tree, in small steps. What is to go is written down beside the tombstone, so that a
//! brain that was interrupted goes on from there.

use std::sync::Arc;
use std::time::Duration;

use actors::ports::ConflictDesk;
use actors::supervise::{Context, Node, NodeError};
use protocol::SyncError;
use protocol::history::Provenance;
use protocol::state::StateSource;

use crate::consistency::Findings;
use crate::retirement::Retirement;
use crate::store::{RemovalError, Store, StoreHealth, Tombstone};

/// How often it is looked whether there is something to remove.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many trees at a time; the others wait for the next look.
const TREES_AT_ONCE: usize = 50;
/// So many tombstones are kept; few in lab builds, so that the eldest are seen to go.
const TOMBSTONES_MAX: usize = if cfg!(feature = "failpoints") { 8 } else { 100_000 };

/// What the actor starts from.
pub struct RemovalArgs {
    /// Where trees are, and their twins.
    pub retirement: Retirement,
    /// Who sees to open conflicts.
    pub conflicts: Arc<dyn ConflictDesk>,
    /// What the consistency check found of trees.
    pub findings: Findings,
}

/// Why a tree stays for now.
#[derive(Debug, thiserror::Error)]
enum Stays {
    #[error("its groups were not left")]
    InGroups(#[source] SyncError),
    #[error(transparent)]
    Removal(#[from] RemovalError),
    #[error("a task ended")]
    Task(#[from] tokio::task::JoinError),
}

/// The actor.
pub struct RemovalKeeper {
    args: Arc<RemovalArgs>,
}

/// What it is told.
pub enum RemovalMsg {
    /// Look for what is to be removed.
    LookDue,
}

impl Node for RemovalKeeper {
    const KIND: &'static str = "removal";
    type Msg = RemovalMsg;
    type Args = RemovalArgs;

    fn start(args: &Arc<RemovalArgs>, ctx: &Context<RemovalMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(RemovalMsg::LookDue);
        Ok(Self { args: args.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<RemovalMsg>,
        msg: RemovalMsg,
    ) -> Result<(), NodeError> {
        let RemovalMsg::LookDue = msg;
        ctx.cast_after(LOOK_EVERY, RemovalMsg::LookDue);
        let store = self.args.retirement.store.clone();
        if store.health() != StoreHealth::Ok {
            // No commit is taken now.
            return Ok(());
        }
        let look = move || store.doomed(TREES_AT_ONCE);
        let doomed = ctx.waiting(tokio::task::spawn_blocking(look)).await??;
        let mut removed = 0;
        for tombstone in &doomed {
            match ctx.waiting(self.args.remove(tombstone)).await {
                Ok(()) => removed += 1,
                Err(error) => {
                    let (tree, error) = (&tombstone.genesis.name, &error as &dyn std::error::Error);
                    tracing::warn!(tree, error, "what is left of a tree is removed later");
                }
            }
        }
        if removed > 0 && removed == doomed.len() {
            let store = self.args.retirement.store.clone();
            let trim = move || store.trim_tombstones(TOMBSTONES_MAX);
            let gone = ctx.waiting(tokio::task::spawn_blocking(trim)).await??;
            if gone > 0 {
                tracing::info!(tombstones = gone, "the eldest tombstones are let go");
            }
        }
        Ok(())
    }

    fn label(_: &RemovalMsg) -> &'static str {
        "look_due"
    }
}

impl RemovalArgs {
    async fn remove(&self, tombstone: &Tombstone) -> Result<(), Stays> {
        // It may have come back to memory meanwhile, or the brain may have died before it was told.
        self.retirement.devices.lay_to_rest(tombstone).await;
        if let Some(former) = &tombstone.device {
            let (principal, reason) = (&tombstone.principal, &tombstone.reason);
            let provenance = Provenance::new(StateSource::Operator, principal, reason);
            let left = self.retirement.leave_groups(former.device, provenance).await;
            left.map_err(Stays::InGroups)?;
        }
        if let Some(tree) = tombstone.tree {
            while let Some(gone) = self.step(move |store| store.remove_conflicts(tree)).await? {
                gone.into_iter().for_each(|id| self.conflicts.ended(id));
            }
            self.step(move |store| store.remove_rows(tree)).await?;
            self.findings.forget(tree);
        }
        let genesis = tombstone.genesis.clone();
        self.step(move |store| {
            store.remove_letters(&genesis)?;
            store.removal_finished(&genesis)
        })
        .await?;
        tracing::info!(tree = tombstone.genesis.name, "what a tree left behind is removed");
        Ok(())
    }

    async fn step<T: Send + 'static>(
        &self,
        step: impl FnOnce(&Store) -> Result<T, RemovalError> + Send + 'static,
    ) -> Result<T, Stays> {
        let store = self.retirement.store.clone();
        Ok(tokio::task::spawn_blocking(move || step(&store)).await??)
    }
}
