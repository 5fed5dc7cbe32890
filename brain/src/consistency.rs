//! Looking all the time whether what is kept is what the histories come to.
//!
//! Tree after tree, at a pace that nobody notices, the entries since the last snapshot are folded and
//! compared with the leaves. What differs is told once a round; `brain verify` says more about it,
//! since it folds from the first entry and checks every hash on the way.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::device::Clock;
use actors::ports::TreeNumber;
use actors::supervise::{Context, Node, NodeError};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::config::Live;
use crate::store::{Store, TreeChecked};

/// How often some trees are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// How often it is asked whether there is anything to do, where looking is off.
const ASK_EVERY: Duration = Duration::from_secs(60);
/// So many trees that differ are named.
const NAMED_MAX: usize = 100;

/// What was found so far.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ConsistencyReport {
    /// How many trees were looked at since the start.
    pub checked: u64,
    /// How many times all of them were.
    pub rounds: u64,
    /// When the last round ended, in milliseconds since the Unix epoch.
    pub round_ended: Option<u64>,
    /// Trees that are not what their histories come to, by their numbers in the store.
    pub diverged: BTreeMap<TreeNumber, Divergence>,
}

/// A tree that is not what its history comes to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Divergence {
    /// Whose tree it is: a device's id, or a group's name.
    pub name: String,
    /// When that was found, in milliseconds since the Unix epoch.
    pub found: u64,
    /// What differs.
    pub what: String,
}

/// The report, as whoever shows it sees it. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct Findings(Arc<Mutex<ConsistencyReport>>);

impl Findings {
    /// What was found so far.
    pub fn report(&self) -> ConsistencyReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A tree is there no longer.
    pub fn forget(&self, tree: TreeNumber) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).diverged.remove(&tree);
    }

    fn note(&self, checked: &TreeChecked, now_ms: u64) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.checked += 1;
        match &checked.differs {
            None => {
                report.diverged.remove(&checked.number);
            }
            Some(what) if report.diverged.len() < NAMED_MAX => {
                let name = checked.name.clone();
                let found = Divergence { name, found: now_ms, what: what.clone() };
                // Told once, until it is mended.
                report.diverged.entry(checked.number).or_insert_with(|| {
                    let (tree, name) = (checked.number, &found.name);
                    tracing::error!(tree, name, what, "a tree is not what its history comes to");
                    found
                });
            }
            Some(_) => {}
        }
    }

    fn round_ended(&self, now_ms: u64) {
        let mut report = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        report.rounds += 1;
        report.round_ended = Some(now_ms);
    }
}

/// What the actor starts from.
pub struct ConsistencyArgs {
    /// Where trees are kept.
    pub store: Store,
    /// How many are looked at in a second.
    pub settings: Live,
    /// Where findings go.
    pub findings: Findings,
    /// The time.
    pub clock: Arc<dyn Clock>,
}

/// The actor.
pub struct ConsistencyKeeper {
    args: Arc<ConsistencyArgs>,
    /// The tree that was looked at last.
    last: TreeNumber,
}

/// What it is told.
pub enum ConsistencyMsg {
    /// Look at some trees.
    LookDue,
}

impl Node for ConsistencyKeeper {
    const KIND: &'static str = "consistency";
    type Msg = ConsistencyMsg;
    type Args = ConsistencyArgs;

    fn start(
        args: &Arc<ConsistencyArgs>,
        ctx: &Context<ConsistencyMsg>,
    ) -> Result<Self, NodeError> {
        ctx.cast_after(LOOK_EVERY, ConsistencyMsg::LookDue);
        Ok(Self { args: args.clone(), last: 0 })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ConsistencyMsg>,
        msg: ConsistencyMsg,
    ) -> Result<(), NodeError> {
        let ConsistencyMsg::LookDue = msg;
        let count = self.args.settings.get().consistency_trees_per_second as usize;
        if count == 0 {
            ctx.cast_after(ASK_EVERY, ConsistencyMsg::LookDue);
            return Ok(());
        }
        let (store, after) = (self.args.store.clone(), self.last);
        let look = move || store.check_trees(after, count);
        let checked = ctx.waiting(tokio::task::spawn_blocking(look)).await??;
        let now_ms = self.args.clock.now().wall_ms;
        checked.iter().for_each(|checked| self.args.findings.note(checked, now_ms));
        self.last = match checked.last() {
            Some(last) if checked.len() == count => last.number,
            _ => {
                self.args.findings.round_ended(now_ms);
                0
            }
        };
        ctx.cast_after(LOOK_EVERY, ConsistencyMsg::LookDue);
        Ok(())
    }

    fn label(_: &ConsistencyMsg) -> &'static str {
        "look_due"
    }
}
