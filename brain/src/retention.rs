//! Letting go of histories that are older, or larger, than they are to be.
//!
//! Tree after tree, at a pace that nobody notices. A history goes on from a snapshot: it takes the
//! place of the entries before it, signed by the brain, and a device that lacks some of those gets
//! it as a checkpoint. What people asked snapshots of stays readable at those versions.

mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use actors::device::{Clock, DeviceMsg, Unprunable};
use actors::ports::{ReadError, TreeNumber, TreeRecord};
use actors::supervise::{Context, Node, NodeError};
use protocol::history::Genesis;

use crate::config::Live;
use crate::devices::{Devices, TwinError};
use crate::store::{Store, StoreHealth};

pub use plan::{Beginning, Plan, Retention, plan};

/// How often some trees are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// So many at a time: ten thousand within nine minutes.
const TREES_AT_ONCE: usize = 20;
/// How long a tree is left alone that could not be shortened.
const REST: Duration = Duration::from_secs(600);
/// How long a twin may take to let go of the beginning of its history.
const TWIN_TIME_MAX: Duration = Duration::from_secs(30);

/// What was let go since the start. Clones share it.
#[derive(Debug, Clone, Default)]
pub struct Pruned(Arc<AtomicU64>);

impl Pruned {
    /// How many times the beginning of a history was let go.
    pub fn trees(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// What the actor starts from.
pub struct RetentionArgs {
    /// Where trees are kept.
    pub store: Store,
    /// Who writes them.
    pub devices: Devices,
    /// The rules.
    pub settings: Live,
    /// What was let go.
    pub pruned: Pruned,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The actor.
pub struct RetentionKeeper {
    args: Arc<RetentionArgs>,
    /// The tree that was looked at last.
    last: TreeNumber,
    /// Trees that could not be shortened, until when they are left alone.
    rests: BTreeMap<TreeNumber, Instant>,
}

/// What it is told.
pub enum RetentionMsg {
    /// Look at some trees.
    LookDue,
}

impl Node for RetentionKeeper {
    const KIND: &'static str = "retention";
    type Msg = RetentionMsg;
    type Args = RetentionArgs;

    fn start(args: &Arc<RetentionArgs>, ctx: &Context<RetentionMsg>) -> Result<Self, NodeError> {
        ctx.cast_after(LOOK_EVERY, RetentionMsg::LookDue);
        Ok(Self { args: args.clone(), last: 0, rests: BTreeMap::new() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<RetentionMsg>,
        msg: RetentionMsg,
    ) -> Result<(), NodeError> {
        let RetentionMsg::LookDue = msg;
        ctx.cast_after(LOOK_EVERY, RetentionMsg::LookDue);
        if self.args.store.health() != StoreHealth::Ok {
            // No commit is taken now.
            return Ok(());
        }
        self.rests.retain(|_, until| *until > Instant::now());
        let (args, after) = (self.args.clone(), self.last);
        let look = move || args.look(after);
        let Looked { due, last } = ctx.waiting(tokio::task::spawn_blocking(look)).await??;
        for (number, genesis, plan) in due {
            if !self.rests.contains_key(&number) && !self.carry_out(ctx, &genesis, plan).await? {
                self.rests.insert(number, Instant::now() + REST);
            }
        }
        self.last = last.unwrap_or(0);
        Ok(())
    }

    fn label(_: &RetentionMsg) -> &'static str {
        "look_due"
    }
}

/// What a look came to.
struct Looked {
    /// The trees whose histories are to begin later.
    due: Vec<(TreeNumber, Genesis, Plan)>,
    /// The tree that was looked at last; none after the last of all.
    last: Option<TreeNumber>,
}

impl RetentionArgs {
    fn look(&self, after: TreeNumber) -> Result<Looked, ReadError> {
        let rules = self.settings.get().history;
        let now_ms = self.clock.now().wall_ms;
        let (records, last) = self.store.tree_records(after, TREES_AT_ONCE)?;
        let mut due = Vec::new();
        for (number, record) in records {
            match self.plan_for(&rules, number, &record, now_ms) {
                Ok(Some(plan)) => due.push((number, record.genesis, plan)),
                Ok(None) => {}
                // It is named by the consistency check; others can be looked at all the same.
                Err(error @ ReadError::Corrupt { .. }) => {
                    tracing::warn!(tree = record.genesis.name, %error, "a history stays as it is");
                }
                Err(error) => return Err(error),
            }
        }
        Ok(Looked { due, last })
    }

    fn plan_for(
        &self,
        rules: &Retention,
        number: TreeNumber,
        record: &TreeRecord,
        now_ms: u64,
    ) -> Result<Option<Plan>, ReadError> {
        let base = self.store.base(number)?;
        if record.snapshot <= base.as_ref().map_or(0, |base| base.version) {
            return Ok(None);
        }
        let mut failed = None;
        let beginnings = self.store.beginnings(number);
        let intact = beginnings.map_while(|beginning| beginning.map_err(|e| failed = Some(e)).ok());
        let plan = plan(rules, base.as_ref(), intact, record.written_bytes, now_ms);
        failed.map_or(Ok(plan), Err)
    }
}

impl RetentionKeeper {
    /// Says whether it was done.
    async fn carry_out(
        &self,
        ctx: &Context<RetentionMsg>,
        genesis: &Genesis,
        plan: Plan,
    ) -> Result<bool, NodeError> {
        let Plan { version, kept } = plan;
        let name = &genesis.name;
        let (devices, of) = (self.args.devices.clone(), genesis.clone());
        let keeper = tokio::task::spawn_blocking(move || devices.keeper_of(&of));
        let keeper = match ctx.waiting(keeper).await? {
            Ok(keeper) => keeper,
            // Since it was looked at.
            Err(TwinError::Retired { .. }) => return Ok(false),
            Err(error) => {
                tracing::warn!(tree = name, %error, "a history stays as it is");
                return Ok(false);
            }
        };
        let prune = |reply| DeviceMsg::Prune { version, kept, reply };
        let answer = ctx.waiting(keeper.ask(prune, TWIN_TIME_MAX)).await;
        let done = matches!(answer, Ok(Ok(Ok(_))));
        match answer {
            Ok(Ok(Ok(base))) => {
                self.args.pruned.0.fetch_add(1, Ordering::Relaxed);
                tracing::info!(
                    tree = name,
                    version = base.version,
                    "the beginning of a history was let go"
                );
            }
            Ok(Ok(Err(Unprunable::NotWithin))) => {}
            Ok(Ok(Err(unprunable @ (Unprunable::Unsigned | Unprunable::TooLarge)))) => {
                tracing::warn!(tree = name, version, reason = %unprunable, "a history stays as it is");
            }
            Ok(Err(error)) => tracing::warn!(tree = name, %error, "a history stays as it is"),
            Err(error) => tracing::warn!(tree = name, %error, "a history stays as it is"),
        }
        Ok(done)
    }
}
