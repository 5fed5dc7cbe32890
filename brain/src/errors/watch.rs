//! The actor that looks at what should not be so. Where it fails, the next life looks again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use actors::device::Clock;
use actors::supervise::{Change, Context, Node, NodeError, Status, TreeView};
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::TryRecvError;

use super::{Errors, Standing};
use crate::consistency::Findings;
use crate::store::Store;

/// How soon an error is noticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the actor starts from.
pub struct ErrorWatchArgs {
    /// Whether it takes writes.
    pub store: Store,
    /// Which trees are not what their histories come to.
    pub findings: Findings,
    /// Who is quarantined.
    pub tree: TreeView,
    /// Where errors go.
    pub errors: Errors,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The actor.
pub struct ErrorWatch {
    args: Arc<ErrorWatchArgs>,
    changes: Receiver<Change>,
    quarantined: BTreeSet<String>,
}

/// What it is told.
pub enum ErrorWatchMsg {
    /// Look.
    LookDue,
}

impl Node for ErrorWatch {
    const KIND: &'static str = "errors";
    type Msg = ErrorWatchMsg;
    type Args = ErrorWatchArgs;

    fn start(args: &Arc<ErrorWatchArgs>, ctx: &Context<ErrorWatchMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(ErrorWatchMsg::LookDue);
        let changes = args.tree.changes();
        let quarantined = quarantined_now(&args.tree);
        Ok(Self { args: args.clone(), changes, quarantined })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ErrorWatchMsg>,
        msg: ErrorWatchMsg,
    ) -> Result<(), NodeError> {
        let ErrorWatchMsg::LookDue = msg;
        self.follow_quarantines();
        let standing = self.standing();
        self.args.errors.stand(standing, self.args.clock.now().wall_ms);
        ctx.cast_after(LOOK_EVERY, ErrorWatchMsg::LookDue);
        Ok(())
    }

    fn label(_: &ErrorWatchMsg) -> &'static str {
        "look_due"
    }
}

impl ErrorWatch {
    fn follow_quarantines(&mut self) {
        loop {
            match self.changes.try_recv() {
                Ok(Change { path, status: Some(Status::Quarantined), .. }) => {
                    self.quarantined.insert(path.to_string());
                }
                Ok(Change { path, .. }) => {
                    self.quarantined.remove(&path.to_string());
                }
                Err(TryRecvError::Lagged(_)) => self.quarantined = quarantined_now(&self.args.tree),
                Err(TryRecvError::Empty | TryRecvError::Closed) => return,
            }
        }
    }

    fn standing(&self) -> Vec<Standing> {
        let refusal = self.args.store.health().refusal();
        let store = refusal.map(|error| Standing { subject: None, error });
        let diverged = self.args.findings.report().diverged.into_values().map(|found| {
            let origin = ErrorSource::new(Layer::Store, "consistency", "compare with history");
            let text = "what is kept of a tree is not what its history comes to";
            let error = SyncError::new(ErrorCode::Corrupt, origin, text);
            Standing { subject: Some(found.name), error }
        });
        let quarantined = self.quarantined.iter().map(|path| {
            let origin = ErrorSource::new(Layer::Brain, "supervisor", "quarantine");
            let text = "an actor failed too often and is left alone for a while";
            let error = SyncError::new(ErrorCode::Quarantined, origin, text);
            Standing { subject: Some(path.clone()), error }
        });
        store.into_iter().chain(diverged).chain(quarantined).collect()
    }
}

/// Looks at every node: at a start, and where too much changed at once to follow.
fn quarantined_now(tree: &TreeView) -> BTreeSet<String> {
    let nodes = tree.snapshot().into_iter();
    let quarantined = nodes.filter(|node| node.status == Status::Quarantined);
    quarantined.map(|node| node.path.to_string()).collect()
}
