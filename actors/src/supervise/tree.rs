//! The live tree, for everybody to see.
//!
//! Each node has a cell of atomics that only it and its supervisor write, so
//! that looking on costs the actors nothing. The cells are found by path in
//! sharded maps that are touched when nodes come and go, and by those who look.

mod activity;
mod cell;
mod info;

use std::{
    collections::{BTreeMap, HashMap, VecDeque, hash_map::Entry},
    fmt,
    hash::{BuildHasher, RandomState},
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::Duration,
};

use serde::{Serialize, Serializer};
use tokio::sync::broadcast;
use tokio::time::Instant;

pub use info::{Census, Change, Dead, Handling, Idle, NodeInfo, Status};

pub(super) use activity::{Activity, Labels};
pub(super) use cell::{Live, NodeCell};

use super::{crash::Digest, spec::ChildId};

/// More than there are threads that start nodes.
const SHARDS: usize = 32;
/// How many changes somebody who looks on may be behind.
const CHANGES: usize = 1_024;
/// How many of those who left are remembered.
const GRAVES: usize = 128;

/// A place in the tree: the ids from the root down, such as `brain/devices/7`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TreePath(Arc<str>);

impl TreePath {
    pub(super) fn root(name: &str) -> Self {
        Self(name.into())
    }

    pub(super) fn child(&self, id: &ChildId) -> Self {
        Self(format!("{}/{id}", self.0).into())
    }

    /// The path as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for TreePath {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TreePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", &*self.0)
    }
}

impl Serialize for TreePath {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&self.0)
    }
}

/// Everyone in one tree. Clones show the same tree.
#[derive(Clone)]
pub struct TreeView {
    forest: Arc<Forest>,
}

struct Forest {
    shards: [RwLock<HashMap<TreePath, Arc<NodeCell>>>; SHARDS],
    hasher: RandomState,
    /// The zero of all times in the tree.
    epoch: Instant,
    changes: broadcast::Sender<Change>,
    /// Who left lately, and when.
    graves: Mutex<VecDeque<(NodeInfo, Duration)>>,
}

impl TreeView {
    /// A view of a tree that is yet to be started.
    pub fn new() -> Self {
        Self {
            forest: Arc::new(Forest {
                shards: std::array::from_fn(|_| RwLock::default()),
                hasher: RandomState::new(),
                epoch: Instant::now(),
                changes: broadcast::Sender::new(CHANGES),
                graves: Mutex::default(),
            }),
        }
    }

    /// Everyone, sorted by path.
    ///
    /// Each node is shown as it is at some moment during the call, not all at
    /// the same moment.
    pub fn snapshot(&self) -> Vec<NodeInfo> {
        let mut cells = Vec::new();
        for shard in &self.forest.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            cells.extend(shard.values().cloned());
        }
        let now = self.now();
        let mut nodes: Vec<NodeInfo> = cells.iter().map(|cell| cell.info(now)).collect();
        nodes.sort_by(|a, b| a.path.cmp(&b.path));
        nodes
    }

    /// How many there are of each kind, and how they are: for figures, at a small part of what a
    /// snapshot takes.
    pub fn census(&self) -> BTreeMap<&'static str, Census> {
        let mut kinds = BTreeMap::<_, Census>::new();
        for shard in &self.forest.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            shard.values().for_each(|cell| cell.count(kinds.entry(cell.kind()).or_default()));
        }
        kinds
    }

    /// One node.
    pub fn get(&self, path: &str) -> Option<NodeInfo> {
        self.find(path).map(|cell| cell.info(self.now()))
    }

    /// How many nodes there are.
    pub fn len(&self) -> usize {
        let len = |shard: &RwLock<HashMap<_, _>>| {
            shard.read().unwrap_or_else(PoisonError::into_inner).len()
        };
        self.forest.shards.iter().map(len).sum()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How long a node will still be left alone; none where it is not quarantined.
    pub fn quarantined_for(&self, path: &str) -> Option<Duration> {
        self.find(path)?.quarantined_for(self.now())
    }

    /// Kills the current life of a node, to watch it come back.
    ///
    /// False if there is no such node or it is not alive. Code that does not
    /// await goes on to its next await.
    pub fn kill(&self, path: &str) -> bool {
        self.find(path).is_some_and(|cell| cell.kill())
    }

    /// Stops a node in good order and starts it again, with the siblings that its supervisor's
    /// strategy names; one that waits or is quarantined starts at once.
    ///
    /// False if there is no such node, or if it is the root.
    pub fn restart(&self, path: &str) -> bool {
        self.find(path).is_some_and(|cell| cell.restart())
    }

    /// Lets a node out of its quarantine. False if there is no such node, or if it is in none.
    pub fn release(&self, path: &str) -> bool {
        self.find(path).is_some_and(|cell| cell.release())
    }

    /// Every change of a node's status from now on. Whoever falls behind is told how much was
    /// missed, and looks at a [`snapshot`](Self::snapshot) again.
    pub fn changes(&self) -> broadcast::Receiver<Change> {
        self.forest.changes.subscribe()
    }

    /// The cell of a path; one that is already there keeps its record.
    pub(super) fn register(
        &self,
        path: &TreePath,
        make: impl FnOnce() -> NodeCell,
    ) -> Arc<NodeCell> {
        let mut shard = self.shard(path.as_str()).write().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(shard.entry(path.clone()).or_insert_with(|| Arc::new(make())))
    }

    /// The same for a path that must be free; none if it is not.
    pub(super) fn enter(&self, path: &TreePath, cell: NodeCell) -> Option<Arc<NodeCell>> {
        let mut shard = self.shard(path.as_str()).write().unwrap_or_else(PoisonError::into_inner);
        match shard.entry(path.clone()) {
            Entry::Occupied(_) => None,
            Entry::Vacant(place) => Some(Arc::clone(place.insert(Arc::new(cell)))),
        }
    }

    pub(super) fn remove(&self, path: &TreePath) {
        let mut shard = self.shard(path.as_str()).write().unwrap_or_else(PoisonError::into_inner);
        let removed = shard.remove(path);
        drop(shard);
        if let Some(cell) = removed {
            cell.gone();
            self.bury(&cell);
        }
    }

    /// The nodes that left the tree lately, the last one first, each with how long ago that was.
    pub fn dead(&self) -> Vec<Dead> {
        let now = self.now();
        let graves = self.forest.graves.lock().unwrap_or_else(PoisonError::into_inner);
        let dead = |(node, at): &(NodeInfo, Duration)| Dead {
            node: node.clone(),
            ago: now.saturating_sub(*at),
        };
        graves.iter().rev().map(dead).collect()
    }

    fn bury(&self, cell: &NodeCell) {
        let now = self.now();
        let mut graves = self.forest.graves.lock().unwrap_or_else(PoisonError::into_inner);
        if graves.len() == GRAVES {
            graves.pop_front();
        }
        graves.push_back((cell.info(now), now));
    }

    /// Has a message handled again that killed its node three times. False if there is no such
    /// node.
    pub fn pardon(&self, path: &str, digest: Digest) -> bool {
        self.find(path).is_some_and(|cell| cell.pardon(digest))
    }

    /// Orders a fault from a node. False if there is no such node, or if it handles no messages.
    #[cfg(feature = "chaos")]
    pub fn order(&self, path: &str, chaos: super::chaos::Chaos) -> bool {
        self.find(path).is_some_and(|cell| cell.order(chaos))
    }

    /// The nodes of a kind that are up or passive, each with how long ago it was last told
    /// something by others.
    pub fn idle(&self, kind: &str) -> Vec<Idle> {
        let now = self.now();
        let mut idle = Vec::new();
        for shard in &self.forest.shards {
            let shard = shard.read().unwrap_or_else(PoisonError::into_inner);
            let of_kind = shard.values().filter(|cell| cell.kind() == kind);
            idle.extend(of_kind.filter_map(|cell| {
                let passive = match cell.status() {
                    Status::Running => false,
                    Status::Passive => true,
                    _ => return None,
                };
                let idle = now.saturating_sub(cell.last_used());
                Some(Idle { id: cell.id().clone(), passive, idle })
            }));
        }
        idle
    }

    /// Where cells say that they changed.
    pub(super) fn changed(&self) -> broadcast::Sender<Change> {
        self.forest.changes.clone()
    }

    pub(super) fn epoch(&self) -> Instant {
        self.forest.epoch
    }

    pub(super) fn now(&self) -> Duration {
        self.forest.epoch.elapsed()
    }

    fn find(&self, path: &str) -> Option<Arc<NodeCell>> {
        self.shard(path).read().unwrap_or_else(PoisonError::into_inner).get(path).cloned()
    }

    fn shard(&self, path: &str) -> &RwLock<HashMap<TreePath, Arc<NodeCell>>> {
        let hash = self.forest.hasher.hash_one(path);
        &self.forest.shards[usize::try_from(hash % SHARDS as u64).unwrap_or(0)]
    }
}

impl Default for TreeView {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for TreeView {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TreeView").finish_non_exhaustive()
    }
}
