//! The actor of one open conflict.
//!
//! A conflict is kept in the commit that brings it; the actor sees it through to its end. It has
//! the twin decide, which writes the resolution in a commit of its own, tells people, and ends.
//! Whatever crashes on the way, the record says whether there is something left to do: a conflict
//! is resolved once. Where a person has to decide, the actor rests until somebody did.

use std::sync::Arc;
use std::time::Duration;

use protocol::conflict::{Conflict, Resolution};
use protocol::history::Genesis;
use protocol::{ConflictId, SyncError};

use crate::device::DeviceMsg;
use crate::ports::{ConflictRecord, ReadError};
use crate::supervise::{Address, Context, Node, NodeError};

/// How long a twin may take: an `fsync` on a slow disk under load, many times over.
const DECISION_TIME_MAX: Duration = Duration::from_secs(10);
/// How long it is until a twin that could not be reached is asked again.
const AGAIN_AFTER: Duration = Duration::from_secs(5);
/// How long it is until a record that could not be read is read again.
const UNREADABLE_AGAIN_AFTER: Duration = Duration::from_secs(600);

/// What the actor needs from outside.
pub trait ConflictBoard: Send + Sync + 'static {
    /// Reads a conflict. Blocks.
    fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRecord>, ReadError>;

    /// The twin that holds a tree. Blocks.
    fn twin(&self, tree: &Genesis) -> Result<Address<DeviceMsg>, SyncError>;

    /// A conflict ended, or waits for a person where there is no resolution. May come twice after
    /// a crash of the actor, and not at all after one of the process.
    fn tell(&self, conflict: &Conflict, resolution: Option<&Resolution>);
}

/// What every incarnation starts from.
pub struct ConflictArgs {
    /// The conflict.
    pub id: ConflictId,
    /// Where it is kept and decided.
    pub board: Arc<dyn ConflictBoard>,
}

/// What the actor is told.
pub enum ConflictMsg {
    /// See what is left to do.
    Look,
}

/// The actor.
pub struct ConflictActor {
    args: Arc<ConflictArgs>,
    /// Whether people know that it waits for one of them.
    told: bool,
}

impl Node for ConflictActor {
    const KIND: &'static str = "conflict";
    const CAPACITY: usize = 4;
    type Msg = ConflictMsg;
    type Args = ConflictArgs;

    fn start(args: &Arc<ConflictArgs>, ctx: &Context<ConflictMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(ConflictMsg::Look);
        Ok(Self { args: args.clone(), told: false })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ConflictMsg>,
        msg: ConflictMsg,
    ) -> Result<(), NodeError> {
        let ConflictMsg::Look = msg;
        let record = match self.read(ctx).await? {
            Ok(Some(record)) => record,
            Ok(None) => {
                ctx.stop("there is no such conflict");
                return Ok(());
            }
            Err(error) => {
                // A damaged record is no reason to fail again and again.
                tracing::error!(conflict = %self.args.id, %error, "a conflict cannot be read");
                ctx.cast_after(UNREADABLE_AGAIN_AFTER, ConflictMsg::Look);
                return Ok(());
            }
        };
        if let Some(resolution) = &record.resolution {
            // By somebody else, or by an earlier life of this actor.
            self.args.board.tell(&record.conflict, Some(resolution));
            ctx.stop("it is resolved");
            return Ok(());
        }
        let id = self.args.id;
        let (board, tree) = (self.args.board.clone(), record.genesis.clone());
        let twin = ctx.waiting(tokio::task::spawn_blocking(move || board.twin(&tree))).await?;
        let decided = match twin {
            Ok(twin) => {
                let asked = twin.ask(|reply| DeviceMsg::Resolve { id, reply }, DECISION_TIME_MAX);
                ctx.waiting(asked).await.map_err(|error| error.to_string())
            }
            Err(error) => Err(error.to_string()),
        };
        match decided {
            Ok(Ok(Some(resolution))) => {
                self.args.board.tell(&record.conflict, Some(&resolution));
                ctx.stop("it is resolved");
            }
            Ok(Ok(None)) => self.wait_for_a_person(ctx).await?,
            Ok(Err(error)) => self.try_again(ctx, &error.to_string()),
            Err(error) => self.try_again(ctx, &error),
        }
        Ok(())
    }

    fn label(_: &ConflictMsg) -> &'static str {
        "look"
    }
}

impl ConflictActor {
    async fn read(
        &self,
        ctx: &Context<ConflictMsg>,
    ) -> Result<Result<Option<ConflictRecord>, ReadError>, NodeError> {
        let (board, id) = (self.args.board.clone(), self.args.id);
        Ok(ctx.waiting(tokio::task::spawn_blocking(move || board.conflict(id))).await?)
    }

    /// The twin decides nothing: a person has to, or somebody has meanwhile.
    async fn wait_for_a_person(&mut self, ctx: &Context<ConflictMsg>) -> Result<(), NodeError> {
        match self.read(ctx).await?.ok().flatten() {
            Some(record) => match &record.resolution {
                None => {
                    if !self.told {
                        self.told = true;
                        self.args.board.tell(&record.conflict, None);
                    }
                    ctx.rest(None);
                }
                Some(resolution) => {
                    self.args.board.tell(&record.conflict, Some(resolution));
                    ctx.stop("it is resolved");
                }
            },
            None => ctx.stop("there is no such conflict"),
        }
        Ok(())
    }

    fn try_again(&self, ctx: &Context<ConflictMsg>, why: &str) {
        tracing::debug!(conflict = %self.args.id, why, "a conflict's twin is asked again later");
        ctx.cast_after(AGAIN_AFTER, ConflictMsg::Look);
    }
}
