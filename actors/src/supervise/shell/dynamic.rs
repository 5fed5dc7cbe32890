//! Supervisors whose children come and go.

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, PoisonError, RwLock, RwLockWriteGuard, Weak,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use arc_swap::ArcSwapOption;
use ractor::ActorRef;
use tokio::sync::oneshot;

use super::{
    ShellMsg,
    child::{ChildFactory, Launch, NodeFactory, Running, Starting},
    supervisor::{Supervisor, SupervisorFactory},
};
use crate::supervise::{
    address::{Address, Gauge, Rouse},
    core::Incarnation,
    node::Node,
    spec::{ChildId, ChildPolicy, ChildSpec, Rules, SetPolicy, Strategy},
    tell::tell,
};

/// More than there are threads that start children of one set.
const SHARDS: usize = 16;

/// Why a child was not started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StartChildError {
    /// There is one of that name, or it has not left yet.
    #[error("{id} is there already")]
    Exists {
        /// The name.
        id: ChildId,
    },
    /// There are as many as there may be.
    #[error("there are {limit} children already")]
    Full {
        /// How many there may be.
        limit: usize,
    },
    /// The supervisor itself is not running.
    #[error("the supervisor is down")]
    Down,
}

/// A supervisor of many nodes of one kind that are started and stopped as they
/// come and go, and are found by name.
///
/// Clones are handles to the same set. A handle can be made, and given to
/// whoever needs it, before the supervisor runs as somebody's
/// [`Child`](super::Child::dynamic). When the supervisor itself is restarted
/// the set begins empty, and the addresses of its former children are down.
pub struct DynamicSupervisor<N: Node> {
    set: Arc<Set<N>>,
}

struct Set<N: Node> {
    child: ChildPolicy,
    limit: usize,
    len: AtomicUsize,
    shards: [RwLock<HashMap<ChildId, Address<N::Msg>>>; SHARDS],
    hasher: RandomState,
    supervisor: SupervisorFactory,
    live: ArcSwapOption<ActorRef<ShellMsg>>,
}

impl<N: Node> DynamicSupervisor<N> {
    /// A set of at most `limit` children who all live by the same rules.
    ///
    /// Whatever the policy says, the strategy is [`Strategy::Dynamic`].
    pub fn new(policy: SetPolicy, child: ChildPolicy, limit: usize) -> Self {
        let policy = SetPolicy { strategy: Strategy::Dynamic, ..policy };
        Self {
            set: Arc::new(Set {
                child,
                limit,
                len: AtomicUsize::new(0),
                shards: std::array::from_fn(|_| RwLock::default()),
                hasher: RandomState::new(),
                supervisor: SupervisorFactory::new(Supervisor::new(policy)),
                live: ArcSwapOption::empty(),
            }),
        }
    }

    /// Starts a child.
    ///
    /// This does not wait for it: messages sent to the address wait. If it
    /// does not come up, it is restarted and quarantined like one that fails
    /// later.
    pub fn start_child(
        &self,
        id: impl Into<ChildId>,
        args: Arc<N::Args>,
    ) -> Result<Address<N::Msg>, StartChildError> {
        let id = id.into();
        let live = self.set.live.load();
        let live = live.as_ref().ok_or(StartChildError::Down)?;
        let mut shard = self.set.write(id.as_str());
        let address = self.set.enter(&mut shard, &id)?;
        let member: Arc<dyn ChildFactory> = Arc::new(Member {
            id: id.clone(),
            node: NodeFactory::<N>::new(address.clone(), args),
            set: Arc::downgrade(&self.set),
        });
        let add = ShellMsg::Add(ChildSpec::new(id, self.set.child), member);
        // Sent before anybody can find the child, and ask to stop it.
        let sent = tell(live, add);
        drop(shard);
        // One that is not taken gives its name back when it is dropped, which
        // needs the lock.
        sent.map(|()| address).map_err(|_| StartChildError::Down)
    }

    /// The child of that name, or a new one.
    pub fn ensure_child(
        &self,
        id: impl Into<ChildId>,
        args: impl FnOnce() -> Arc<N::Args>,
    ) -> Result<Address<N::Msg>, StartChildError> {
        let id = id.into();
        if let Some(address) = self.find(id.as_str()) {
            return Ok(address);
        }
        match self.start_child(id.clone(), args()) {
            // Somebody else was faster.
            Err(StartChildError::Exists { id }) => {
                self.find(id.as_str()).ok_or(StartChildError::Exists { id })
            }
            started => started,
        }
    }

    /// The address of a child.
    pub fn find(&self, id: &str) -> Option<Address<N::Msg>> {
        self.set.shard(id).read().unwrap_or_else(PoisonError::into_inner).get(id).cloned()
    }

    /// Stops a child and comes back when it is gone and its name is free.
    ///
    /// False if there was none.
    pub async fn stop_child(&self, id: &str) -> bool {
        if self.find(id).is_none() {
            return false;
        }
        let (gone, wait) = oneshot::channel();
        if let Some(live) = self.set.live.load_full() {
            let _ = tell(&live, ShellMsg::Remove(ChildId::from(id), gone));
        }
        // Either somebody says so, or nobody is left to say it.
        let _ = wait.await;
        true
    }

    /// Has a child leave if it is passive and nothing waits for it.
    pub fn dismiss_child(&self, id: &str) {
        if let Some(live) = self.set.live.load().as_ref() {
            let _ = tell(live, ShellMsg::Dismiss(ChildId::from(id)));
        }
    }

    /// Lets a child out of its quarantine.
    pub fn release_child(&self, id: &str) {
        if let Some(live) = self.set.live.load().as_ref() {
            let _ = tell(live, ShellMsg::Release(ChildId::from(id)));
        }
    }

    /// How many children there are, in whatever state.
    pub fn len(&self) -> usize {
        self.set.len.load(Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The names of all children, in no order.
    pub fn ids(&self) -> Vec<ChildId> {
        let mut ids = Vec::with_capacity(self.len());
        for shard in &self.set.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            ids.extend(shard.keys().cloned());
        }
        ids
    }

    pub(super) fn factory(&self) -> Arc<dyn ChildFactory> {
        Arc::new(SetFactory { set: Arc::clone(&self.set) })
    }
}

impl<N: Node> Clone for DynamicSupervisor<N> {
    fn clone(&self) -> Self {
        Self { set: Arc::clone(&self.set) }
    }
}

impl<N: Node> fmt::Debug for DynamicSupervisor<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DynamicSupervisor")
            .field("kind", &N::KIND)
            .field("len", &self.len())
            .finish_non_exhaustive()
    }
}

impl<N: Node> Set<N> {
    /// Takes a name.
    fn enter(
        &self,
        shard: &mut HashMap<ChildId, Address<N::Msg>>,
        id: &ChildId,
    ) -> Result<Address<N::Msg>, StartChildError> {
        let Entry::Vacant(place) = shard.entry(id.clone()) else {
            return Err(StartChildError::Exists { id: id.clone() });
        };
        if self.len.fetch_add(1, Relaxed) >= self.limit {
            self.len.fetch_sub(1, Relaxed);
            return Err(StartChildError::Full { limit: self.limit });
        }
        Ok(place.insert(Address::new(N::CAPACITY)).clone())
    }

    /// Frees a name, unless it is another's by now.
    fn leave(&self, id: &ChildId, address: &Address<N::Msg>) {
        let mut shard = self.write(id.as_str());
        if shard.get(id.as_str()).is_some_and(|of| of.same(address)) {
            shard.remove(id.as_str());
            self.len.fetch_sub(1, Relaxed);
        }
    }

    fn write(&self, id: &str) -> RwLockWriteGuard<'_, HashMap<ChildId, Address<N::Msg>>> {
        self.shard(id).write().unwrap_or_else(PoisonError::into_inner)
    }

    fn shard(&self, id: &str) -> &RwLock<HashMap<ChildId, Address<N::Msg>>> {
        let hash = self.hasher.hash_one(id);
        &self.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

/// Starts the supervisor of a set.
struct SetFactory<N: Node> {
    set: Arc<Set<N>>,
}

impl<N: Node> ChildFactory for SetFactory<N> {
    fn kind(&self) -> &'static str {
        "supervisor"
    }

    fn gauge(&self) -> Option<Weak<dyn Gauge>> {
        None
    }

    fn start(&self, launch: Launch) -> Starting<'_> {
        Box::pin(async move {
            let running = self.set.supervisor.start(launch).await?;
            if let Running::Supervisor { actor } = &running {
                self.set.live.store(Some(Arc::new(actor.clone())));
            }
            Ok(running)
        })
    }

    fn rules(&self, path: &str) -> Option<(SetPolicy, Vec<Rules>)> {
        let (set, _) = self.set.supervisor.rules(path)?;
        let each = Rules { path: format!("{path}/*"), child: Some(self.set.child), set: None };
        Some((set, vec![each]))
    }

    fn over(&self, _life: Incarnation) {
        self.set.live.store(None);
    }

    fn close(&self) {}
}

/// Starts one child of a set, and gives its name back when it is dropped: that
/// happens when the child has ended for good, and also when the supervisor
/// never got to know of it.
struct Member<N: Node> {
    id: ChildId,
    node: NodeFactory<N>,
    set: Weak<Set<N>>,
}

impl<N: Node> ChildFactory for Member<N> {
    fn kind(&self) -> &'static str {
        self.node.kind()
    }

    fn gauge(&self) -> Option<Weak<dyn Gauge>> {
        self.node.gauge()
    }

    fn start(&self, launch: Launch) -> Starting<'_> {
        self.node.start(launch)
    }

    fn over(&self, life: Incarnation) {
        self.node.over(life);
    }

    fn rest(&self, life: Incarnation, rouse: Rouse) {
        self.node.rest(life, rouse);
    }

    fn close_passive(&self) -> bool {
        self.node.close_passive()
    }

    fn close(&self) {
        self.node.close();
    }
}

impl<N: Node> Drop for Member<N> {
    fn drop(&mut self) {
        self.node.close();
        if let Some(set) = self.set.upgrade() {
            set.leave(&self.id, self.node.address());
        }
    }
}
