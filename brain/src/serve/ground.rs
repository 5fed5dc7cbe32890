//! The actor on which all others stand: it keeps an eye on the store.
//!
//! The database handle lives as long as the process; what restarts is only the watching.

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Context, Node, NodeError};

use crate::store::Store;

/// How often the disk is looked at: what a full disk that was cleared is noticed within.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The actor.
pub(super) struct StoreWatch {
    store: Arc<Store>,
}

/// What the actor is told.
pub(super) enum StoreWatchMsg {
    /// Look.
    LookDue,
}

impl Node for StoreWatch {
    const KIND: &'static str = "store";
    type Msg = StoreWatchMsg;
    type Args = Store;

    fn start(store: &Arc<Store>, ctx: &Context<StoreWatchMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(StoreWatchMsg::LookDue);
        Ok(Self { store: store.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<StoreWatchMsg>,
        msg: StoreWatchMsg,
    ) -> Result<(), NodeError> {
        let StoreWatchMsg::LookDue = msg;
        let store = self.store.clone();
        tokio::task::spawn_blocking(move || store.probe()).await?;
        ctx.cast_after(LOOK_EVERY, StoreWatchMsg::LookDue);
        Ok(())
    }

    fn label(_: &StoreWatchMsg) -> &'static str {
        "look_due"
    }
}
