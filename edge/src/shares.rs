//! The trees that this device shares with others: those of its groups.
//!
//! Each has a spool of its own and a keeper in front of it, as the device's tree has. A link opens
//! one when the brain shares it; from then on it is there, also without the brain, until the
//! device's folder goes.

mod request;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use actors::supervise::{
    Address, Child, ChildPolicy, DynamicSupervisor, SetPolicy, StartChildError,
};
use protocol::history::{GROUPS_PREFIX, Genesis, TreeKind};
use protocol::session::SHARED_TREES_MAX;
use protocol::state::{Path, State};
use protocol::{DeviceId, FleetId, PublicKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use request::{Request, RequestError};

use crate::clock::Clock;
use crate::disk::{self, DiskError};
use crate::identity::Identity;
use crate::spool::{self, Place, SpoolNode, Store};
use crate::status::Board;
use crate::track::{self, Limits, Track};

/// How much of a shared tree may wait for the brain, is kept, and is taken from other devices.
const LIMITS: Limits =
    Limits { queue_bytes_max: 8 << 20, retain_bytes: 4 << 20, entry_bytes_max: 32 << 20 };
/// Where they lie in the data folder.
const FOLDER: &str = "shared";

/// The shared trees, by name of the group. Cheap to clone.
#[derive(Clone)]
pub struct Shares {
    shared: Arc<Inner>,
}

struct Inner {
    setup: Setup,
    spools: DynamicSupervisor<SpoolNode>,
    keepers: DynamicSupervisor<Track>,
    /// What each of them tells, through all restarts. The lock is taken when one opens, and when
    /// somebody looks.
    boards: RwLock<BTreeMap<String, (Genesis, Store, Board)>>,
    moved: Arc<watch::Sender<u64>>,
    /// Counts how often the members of one of them changed.
    members: Arc<watch::Sender<u64>>,
}

/// What keepers are built from.
#[derive(Debug, Clone)]
pub struct Setup {
    /// This device.
    pub identity: Identity,
    /// Where everything of the device lies.
    pub data_dir: PathBuf,
    /// Where its own tree is kept: shared ones are kept likewise.
    pub place: Place,
    /// The time.
    pub clock: Clock,
    /// For how long what comes is gathered into one commit.
    pub commit_delay: Duration,
}

/// A shared tree that is open.
#[derive(Debug, Clone)]
pub struct Share {
    /// The group.
    pub name: String,
    /// Its keeper.
    pub track: Address<track::Msg>,
    /// What that tells.
    pub board: Board,
}

/// How a shared tree is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ShareStatus {
    /// The group.
    pub group: String,
    /// Whether this device may write in it.
    pub member: bool,
    /// The root hash, as hexadecimal digits: the same on every member that is up to date.
    pub root: String,
    /// How many own entries wait for the brain.
    pub waiting: u64,
    /// How many leaves the members share.
    pub leaves: u64,
    /// What they share, by path below `shared/`; only where one group was asked for.
    pub shared: BTreeMap<String, serde_json::Value>,
}

/// Why a shared tree does not open.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    /// There are too many.
    #[error("a device has room for {SHARED_TREES_MAX} shared trees")]
    TooMany,
    /// Its folder cannot be made.
    #[error("the folder of a shared tree cannot be made")]
    Folder(#[from] DiskError),
    /// Its keeper does not start.
    #[error("the keeper of a shared tree does not start")]
    Start(#[from] StartChildError),
}

impl Shares {
    /// None yet.
    pub fn new(setup: Setup, policy: ChildPolicy) -> Self {
        let set = SetPolicy::default();
        Self {
            shared: Arc::new(Inner {
                setup,
                spools: DynamicSupervisor::new(set, policy, SHARED_TREES_MAX),
                keepers: DynamicSupervisor::new(set, policy, SHARED_TREES_MAX),
                boards: RwLock::default(),
                moved: Arc::new(watch::Sender::new(0)),
                members: Arc::new(watch::Sender::new(0)),
            }),
        }
    }

    /// The branches of the supervision tree that hold their spools and their keepers.
    pub fn branches(&self) -> [Child; 2] {
        let policy = ChildPolicy::supervisor();
        let spools = Child::dynamic("shared-spools", policy, &self.shared.spools);
        [spools, Child::dynamic("shared-trees", policy, &self.shared.keepers)]
    }

    /// Opens those that lie in the data folder. Blocks.
    pub fn open_known(&self, fleet: FleetId) {
        let Ok(folders) = std::fs::read_dir(self.shared.setup.data_dir.join(FOLDER)) else {
            return;
        };
        for folder in folders.filter_map(Result::ok) {
            let name = folder.file_name();
            let group = name.to_str().and_then(|name| name.strip_prefix("group-"));
            let genesis =
                group.map(|group| Genesis { kind: TreeKind::Group, fleet, name: group.to_owned() });
            let Some(genesis) = genesis.filter(Genesis::has_fitting_name) else { continue };
            if let Err(error) = self.open(&genesis) {
                let group = genesis.name;
                tracing::error!(
                    group,
                    error = &error as &dyn std::error::Error,
                    "shared tree is not open"
                );
            }
        }
    }

    /// The keeper of a shared tree, which is made where there is none. Blocks.
    pub fn open(&self, genesis: &Genesis) -> Result<Share, ShareError> {
        let (store, board) = self.ground(genesis)?;
        let Inner { setup, spools, keepers, .. } = &*self.shared;
        let name = genesis.name.clone();
        let spool = spools.ensure_child(&*name, || Arc::new(store.clone()))?;
        let args = || {
            Arc::new(track::Args {
                identity: setup.identity.clone(),
                fleet: Some(genesis.fleet),
                shared: Some(genesis.clone()),
                issuer: None,
                spool,
                store,
                board: board.clone(),
                clock: setup.clock.clone(),
                limits: LIMITS,
                commit_delay: setup.commit_delay,
            })
        };
        let track = keepers.ensure_child(&*name, args)?;
        Ok(Share { name, track, board })
    }

    /// Whether there is no room for one more.
    pub fn is_full(&self, group: &str) -> bool {
        let boards = self.shared.boards.read().unwrap_or_else(PoisonError::into_inner);
        boards.len() >= SHARED_TREES_MAX && !boards.contains_key(group)
    }

    /// Closes and removes those that a device with this state of its own tree is in no more.
    pub async fn forget_others(&self, own: &State) {
        let gone = self.names().into_iter().filter(|name| !is_in(own, name));
        for name in gone {
            let Inner { setup, spools, keepers, boards, .. } = &*self.shared;
            keepers.stop_child(&name).await;
            spools.stop_child(&name).await;
            boards.write().unwrap_or_else(PoisonError::into_inner).remove(&name);
            let folder = setup.data_dir.join(FOLDER).join(format!("group-{name}"));
            if let Err(error) = tokio::fs::remove_dir_all(&folder).await {
                let folder = folder.display();
                tracing::warn!(%error, %folder, "the folder of a former group stays");
            }
        }
    }

    /// The keeper of a group's tree, where it is open. Blocks.
    pub fn find(&self, group: &str) -> Option<Share> {
        let boards = self.shared.boards.read().unwrap_or_else(PoisonError::into_inner);
        let genesis = boards.get(group).map(|(genesis, ..)| genesis.clone())?;
        drop(boards);
        self.open(&genesis).ok()
    }

    /// The names of those that are open.
    pub fn names(&self) -> Vec<String> {
        let boards = self.shared.boards.read().unwrap_or_else(PoisonError::into_inner);
        boards.keys().cloned().collect()
    }

    /// Counts whenever one of them moves.
    pub fn watch_moves(&self) -> watch::Receiver<u64> {
        self.shared.moved.subscribe()
    }

    /// Counts whenever the members of one of them change.
    pub fn watch_members(&self) -> watch::Receiver<u64> {
        self.shared.members.subscribe()
    }

    /// Whether members changed since somebody had seen so many changes.
    pub(crate) fn members_changed(&self, seen: &mut u64) -> bool {
        let now = *self.shared.members.borrow();
        std::mem::replace(seen, now) != now
    }

    /// The trees of which both keys are current members.
    pub(crate) fn mutual(&self, one: &PublicKey, other: &PublicKey) -> Vec<Genesis> {
        let boards = self.shared.boards.read().unwrap_or_else(PoisonError::into_inner);
        let has_both = |board: &Board| {
            let members = board.members();
            members.contains_key(one) && members.contains_key(other)
        };
        let mutual = boards.values().filter(|(_, _, board)| has_both(board));
        mutual.map(|(genesis, ..)| genesis.clone()).collect()
    }

    /// Whether nobody is known to be a member of a tree, as of one that is not here.
    pub(crate) fn has_no_members(&self, genesis: &Genesis) -> bool {
        let boards = self.shared.boards.read().unwrap_or_else(PoisonError::into_inner);
        boards.get(&genesis.name).is_none_or(|(_, _, board)| board.members().is_empty())
    }

    /// Who is a current member of a tree together with this key: the device, and of which.
    pub fn peers_of(&self, own: &PublicKey) -> BTreeMap<PublicKey, (DeviceId, Vec<String>)> {
        let boards = self.shared.boards.read().unwrap_or_else(PoisonError::into_inner);
        let mut peers: BTreeMap<PublicKey, (DeviceId, Vec<String>)> = BTreeMap::new();
        for (name, (_, _, board)) in &*boards {
            let members = board.members();
            if !members.contains_key(own) {
                continue;
            }
            for (key, device) in members.iter().filter(|(key, _)| *key != own) {
                peers.entry(*key).or_insert((*device, Vec::new())).1.push(name.clone());
            }
        }
        peers
    }

    fn ground(&self, genesis: &Genesis) -> Result<(Store, Board), ShareError> {
        let Inner { setup, boards, moved, members, .. } = &*self.shared;
        let mut boards = boards.write().unwrap_or_else(PoisonError::into_inner);
        if let Some((known, store, board)) = boards.get(&genesis.name)
            && known == genesis
        {
            return Ok((store.clone(), board.clone()));
        }
        if boards.len() >= SHARED_TREES_MAX {
            return Err(ShareError::TooMany);
        }
        let place = match &setup.place {
            Place::Memory => Place::Memory,
            Place::File(_, options) => {
                let folder = setup.data_dir.join(FOLDER).join(format!("group-{}", genesis.name));
                disk::create_private_dir(&folder)?;
                Place::File(spool::path_in(&folder), *options)
            }
        };
        let store = Store::new(place, setup.clock.clone());
        let board = Board::new(setup.identity.device, setup.clock.wall_ms());
        let board = board.telling(moved.clone(), members.clone());
        let ground = (store.clone(), board.clone());
        boards.insert(genesis.name.clone(), (genesis.clone(), store, board));
        Ok(ground)
    }
}

/// Whether a device with this state of its own tree is in a group.
pub fn is_in(own: &State, group: &str) -> bool {
    let path = Path::new(&format!("{GROUPS_PREFIX}/{group}"));
    path.is_ok_and(|path| own.contains_key(&path))
}

impl Share {
    /// How it is doing, on a device with this state of its own tree.
    pub async fn status(
        &self,
        own: &State,
        patience: Duration,
    ) -> Result<ShareStatus, track::WriteError> {
        let shown = self.track.ask(track::Msg::State, patience).await?;
        let shared = shown
            .state
            .iter()
            .filter_map(|(path, value)| Some((path.below("shared")?.to_owned(), value.to_json())));
        let shared: BTreeMap<_, _> = shared.collect();
        Ok(ShareStatus {
            group: self.name.clone(),
            member: shown.may_write && is_in(own, &self.name),
            root: data_encoding::HEXLOWER.encode(&shown.root),
            waiting: self.board.status().queue_depth,
            leaves: shared.len() as u64,
            shared,
        })
    }
}

impl std::fmt::Debug for Shares {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shares").field("setup", &self.shared.setup).finish_non_exhaustive()
    }
}
