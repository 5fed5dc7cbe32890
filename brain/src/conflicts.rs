//! The actors of open conflicts.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use actors::conflict::{ConflictActor, ConflictArgs, ConflictBoard, ConflictMsg};
use actors::device::DeviceMsg;
use actors::ports::{ConflictDesk, ConflictRecord, ReadError};
use actors::supervise::{
    Address, Child, ChildPolicy, Context, DynamicSupervisor, Node, NodeError, SetPolicy,
};
use arc_swap::ArcSwapOption;
use protocol::conflict::{Conflict, Resolution};
use protocol::history::Genesis;
use protocol::{ConflictId, SyncError};

use crate::devices::Devices;
use crate::store::{Store, not_found};

/// So many conflicts are seen to at once; the others wait for their turn.
const OPEN_MAX: usize = 10_000;
/// How often it is looked whether an open conflict has no actor.
const SWEEP_EVERY: Duration = Duration::from_secs(10);

/// The open conflicts, each with its actor. Cheap to clone.
#[derive(Clone)]
pub struct Conflicts {
    shared: Arc<Shared>,
}

struct Shared {
    actors: DynamicSupervisor<ConflictActor>,
    store: Store,
    /// The twins hear of this before they are there themselves. Taken back at the end: they hold
    /// this as well.
    devices: ArcSwapOption<Devices>,
    /// Those that wait for a person, the eldest first. They give way to others where there is no
    /// room: their records stay, and whatever ends them needs no actor.
    waiting: Mutex<VecDeque<ConflictId>>,
}

impl Conflicts {
    /// The conflicts that a store holds.
    pub fn new(store: Store, set: SetPolicy, actor: ChildPolicy) -> Self {
        let actors = DynamicSupervisor::new(set, actor, OPEN_MAX);
        let (devices, waiting) = (ArcSwapOption::empty(), Mutex::default());
        Self { shared: Arc::new(Shared { actors, store, devices, waiting }) }
    }

    /// Where trees are found: given once, before the tree starts.
    pub fn decide_with(&self, devices: Devices) {
        self.shared.devices.store(Some(Arc::new(devices)));
    }

    /// Lets the twins go: nothing is decided any more.
    pub fn close(&self) {
        self.shared.devices.store(None);
    }

    /// The branch of the supervision tree that holds them.
    pub fn branch(&self) -> Child {
        Child::dynamic("conflicts", ChildPolicy::supervisor(), &self.shared.actors)
    }

    /// Starts the actor of a conflict; false where there is no room.
    fn see_to(&self, id: ConflictId) -> bool {
        let args = || Arc::new(ConflictArgs { id, board: self.shared.clone() });
        match self.shared.actors.ensure_child(id.to_string(), args) {
            Ok(_) => true,
            Err(error) => {
                tracing::debug!(conflict = %id, %error, "a conflict waits for its actor");
                false
            }
        }
    }
}

impl ConflictDesk for Conflicts {
    fn noticed(&self, id: ConflictId) {
        if self.see_to(id) {
            return;
        }
        let mut waiting = self.shared.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(eldest) = waiting.pop_front() {
            self.shared.actors.dismiss_child(&eldest.to_string());
        }
        // Its place is free a moment later: the next sweep takes it.
    }

    fn ended(&self, id: ConflictId) {
        if let Some(actor) = self.shared.actors.find(&id.to_string()) {
            // One with a full mailbox looks anyway.
            let _ = actor.try_cast(ConflictMsg::Look);
        }
    }
}

impl ConflictBoard for Shared {
    fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRecord>, ReadError> {
        self.store.conflict(id)
    }

    fn twin(&self, tree: &Genesis) -> Result<Address<DeviceMsg>, SyncError> {
        let missing = || not_found(&format!("the tree of {}", tree.name));
        let devices = self.devices.load_full().ok_or_else(missing)?;
        devices.keeper_of(tree).map_err(|error| error.to_sync_error())
    }

    fn tell(&self, conflict: &Conflict, resolution: Option<&Resolution>) {
        let Conflict { id, path, .. } = conflict;
        match resolution {
            Some(end) => {
                tracing::info!(conflict = %id, %path, strategy = end.strategy, "conflict resolved");
            }
            None => {
                tracing::warn!(conflict = %id, %path, "a conflict waits for a person");
                let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
                waiting.push_back(*id);
                if waiting.len() > OPEN_MAX {
                    waiting.pop_front();
                }
            }
        }
    }
}

/// The actor that finds open conflicts without an actor: after a start, and where there were too
/// many at once.
pub struct ConflictKeeper {
    conflicts: Arc<Conflicts>,
}

/// What it is told.
pub enum ConflictKeeperMsg {
    /// Look.
    SweepDue,
}

impl Node for ConflictKeeper {
    const KIND: &'static str = "conflict-keeper";
    type Msg = ConflictKeeperMsg;
    type Args = Conflicts;

    fn start(
        conflicts: &Arc<Conflicts>,
        ctx: &Context<ConflictKeeperMsg>,
    ) -> Result<Self, NodeError> {
        ctx.cast_self(ConflictKeeperMsg::SweepDue);
        Ok(Self { conflicts: conflicts.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ConflictKeeperMsg>,
        msg: ConflictKeeperMsg,
    ) -> Result<(), NodeError> {
        let ConflictKeeperMsg::SweepDue = msg;
        let store = self.conflicts.shared.store.clone();
        let reading = tokio::task::spawn_blocking(move || store.open_conflicts(OPEN_MAX));
        let open = ctx.waiting(reading).await?;
        let actors = &self.conflicts.shared.actors;
        let unseen = open.into_iter().filter(|id| actors.find(&id.to_string()).is_none());
        for id in unseen {
            if !self.conflicts.see_to(id) {
                break;
            }
        }
        ctx.cast_after(SWEEP_EVERY, ConflictKeeperMsg::SweepDue);
        Ok(())
    }

    fn label(_: &ConflictKeeperMsg) -> &'static str {
        "sweep_due"
    }
}
