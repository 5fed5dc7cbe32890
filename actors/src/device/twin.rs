//! A twin: the brain's replica of a device's tree or of a group's, and what the brain writes
//! into it.
//!
//! Pure: every call takes the time and gives back the commit to make. The twin is ahead of the
//! store until that commit is durable; when a commit fails, the twin is dropped and loaded again.

use std::borrow::Cow;
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use protocol::history::{
    Admission, Author, Change, Draft, ENTRY_BYTES_MAX, Entry, GROUPS_PREFIX, Head, LogId, LogState,
    Provenance, Refusal, Role, SignedHead, Tree, admit, stranger,
};
use protocol::keys::Keypair;
use protocol::session::{Now, Replica};
use protocol::state::{Path, State, StateDelta, StateSource, Value, Version};
use protocol::wire::{Batch, LogPosition};
use protocol::{ConflictId, DeviceId, EntryId, PublicKey};

pub use cut::CutAnswer;
pub use prune::Unprunable;
pub use reissue::{OwnEntries, Reissued};

mod conflicts;
mod cut;
mod members;
mod prune;
mod reissue;
mod snapshots;

use crate::ports::{Base, LoadedTree, Segment, TreeCommit, TreeRecord};

/// So many ids of entries that are not signed yet are kept at hand. An author signs after 256
/// entries at the latest, and may be that far ahead again when its signature arrives.
const UNSIGNED_IDS_MAX: usize = 1_024;

/// Who the brain is when it writes.
#[derive(Debug, Clone)]
pub struct BrainAuthor {
    /// Its key.
    pub keypair: Keypair,
    /// The epoch of this start.
    pub epoch: u64,
    /// The keys of all certified brains, this one's included.
    pub brains: Arc<[PublicKey]>,
}

impl BrainAuthor {
    /// The same author, in a new epoch where its log has ended among `logs`.
    pub fn in_open_log(mut self, logs: &[LogState], epochs: impl FnOnce() -> u64) -> Self {
        let log = LogId { author: self.keypair.public(), epoch: self.epoch };
        if logs.iter().any(|state| state.log == log && state.cut.is_some()) {
            self.epoch = epochs();
        }
        self
    }
}

/// The brain's replica of a tree.
#[derive(Debug)]
pub struct Twin {
    /// The device whose tree it is, with its keys; none where it is a group's.
    owner: Option<(DeviceId, Vec<PublicKey>)>,
    brain: BrainAuthor,
    tree: Tree,
    author: Author,
    number: u64,
    generation: u64,
    version: Version,
    committed_ms: u64,
    source: StateSource,
    snapshot: Version,
    written_bytes: u64,
    /// Where the history begins, when it was pruned.
    base: Option<Base>,
    /// The ids of the latest entries, by log and number, until a signed head covers them.
    unsigned: VecDeque<(LogId, u64, EntryId)>,
    /// The conflicts that are there, by leaf.
    conflicts: BTreeMap<Path, ConflictId>,
}

/// What became of entries that came over a link.
#[derive(Debug)]
pub struct Ingested {
    /// What to make durable; none where nothing was new.
    pub commit: Option<TreeCommit>,
    /// Where the log stands with that.
    pub position: LogPosition,
    /// How many entries were new.
    pub new: usize,
    /// Entries below the log's head, known by number only: their ids need a look at history.
    pub known: Vec<(u64, EntryId)>,
    /// The first entry that is not taken; those after it are not taken either.
    pub refused: Option<(u64, Refusal)>,
    /// The canonical bytes of that entry, as many as an entry may take.
    pub refused_bytes: Vec<u8>,
}

/// What the brain wrote.
#[derive(Debug)]
pub struct Written {
    /// What to make durable.
    pub commit: TreeCommit,
    /// The entry's id.
    pub id: EntryId,
    /// The version that it makes.
    pub version: Version,
    /// What it changes.
    pub delta: StateDelta,
    /// Where the log stands with it.
    pub position: LogPosition,
}

/// Why a state cannot be saved under a version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SaveError {
    /// That version exists with other content.
    #[error("version {version} exists with other content")]
    Forked {
        /// The version.
        version: Version,
    },
    /// That version is past, and its content is not here to compare.
    #[error("version {version} is past; the tree is at {current}")]
    Past {
        /// The version.
        version: Version,
        /// The tree's version.
        current: Version,
    },
    /// Versions in between do not exist.
    #[error("version {version} is not the next; the tree is at {current}")]
    Future {
        /// The version.
        version: Version,
        /// The tree's version.
        current: Version,
    },
    /// The state changes leaves that are not the brain's to write.
    #[error("the brain may not write {path}")]
    Forbidden {
        /// The first such leaf.
        path: Path,
    },
}

impl Twin {
    /// A twin of what the store has of a device's tree.
    pub fn new(
        device: DeviceId,
        device_keys: Vec<PublicKey>,
        brain: BrainAuthor,
        loaded: LoadedTree,
    ) -> Self {
        Self::load(Some((device, device_keys)), brain, loaded)
    }

    /// A twin of what the store has of a group's tree.
    pub fn of_group(brain: BrainAuthor, loaded: LoadedTree) -> Self {
        Self::load(None, brain, loaded)
    }

    fn load(
        owner: Option<(DeviceId, Vec<PublicKey>)>,
        brain: BrainAuthor,
        loaded: LoadedTree,
    ) -> Self {
        let LoadedTree { number, generation, record, leaves, base } = loaded;
        let TreeRecord { genesis, version, committed_ms, source, snapshot, written_bytes, logs } =
            record;
        let tree = Tree::restore(genesis, logs, leaves);
        let log = LogId { author: brain.keypair.public(), epoch: brain.epoch };
        // The timestamps of a log that ended may be what it was ended for.
        let going_on = tree.logs().iter().filter(|log| log.cut.is_none());
        let last = going_on.map(|log| log.hlc).max().unwrap_or_default();
        let conflicts = conflicts::all(&tree);
        Self {
            owner,
            author: Author::new(log, last),
            brain,
            tree,
            number,
            generation,
            version,
            committed_ms,
            source,
            snapshot,
            written_bytes,
            base,
            unsigned: VecDeque::new(),
            conflicts,
        }
    }

    /// The replica.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The store's name of the tree.
    pub fn number(&self) -> u64 {
        self.number
    }

    /// The number of the last commit.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether the device has written knowing an entry.
    pub fn has_seen(&self, log: &LogId, seq: u64) -> bool {
        let keys = self.owner.as_ref().map_or(&[][..], |(_, keys)| keys);
        let mut own = self.tree.logs().iter().filter(|state| keys.contains(&state.log.author));
        own.any(|state| state.context.contains(log, seq))
    }

    /// The latest entry of this brain that set or removed one of these leaves.
    pub fn last_written<'a>(
        &self,
        paths: impl IntoIterator<Item = &'a Path>,
    ) -> Option<(LogId, u64)> {
        let own = self.brain.keypair.public();
        let sides = paths.into_iter().flat_map(|path| self.tree.sides(path));
        let written = sides.filter(|side| side.log.author == own);
        written.max_by_key(|side| side.candidate.hlc).map(|side| (side.log, side.candidate.seq))
    }

    /// Where the tree stands, for a session.
    pub fn replica(&self) -> Replica {
        Replica {
            tree: self.tree.id(),
            logs: self.tree.heads().map(|head| self.position(&head.log)).collect(),
            ends: self.ends(),
            floor: self.floor(),
            author: self.brain.keypair.public(),
        }
    }

    fn ends(&self) -> Vec<(LogId, u64)> {
        let ended = self.tree.logs().iter();
        ended.filter_map(|state| Some((state.log, state.cut.as_ref()?.last_seq))).collect()
    }

    /// Takes entries of one log that came over the device's link.
    pub fn ingest(&mut self, entries: Vec<(EntryId, Entry)>, now: Now) -> Ingested {
        let log = entries.first().map(|(_, entry)| entry.log).unwrap_or(self.author.log());
        let mut refused = None;
        let mut refused_bytes = Vec::new();
        let mut known = Vec::new();
        let mut fresh = Vec::with_capacity(entries.len());
        for (id, entry) in entries {
            let admission = match self.role(&entry.log) {
                Some(role) => admit(&self.tree, &entry, id, role, now.wall_ms),
                None => Err(stranger(&self.tree, &entry)),
            };
            match admission {
                Ok(Admission::Known) => known.push((entry.seq, id)),
                Ok(Admission::New) => {
                    let touched = self.tree.apply(&entry, id);
                    if self.unsigned.len() == UNSIGNED_IDS_MAX {
                        self.unsigned.pop_front();
                    }
                    self.unsigned.push_back((entry.log, entry.seq, id));
                    // The check above leaves nothing that could move the clock too far.
                    let _ = self.author.clock_mut().observe(entry.hlc, now.wall_ms);
                    fresh.push((entry, touched));
                }
                Err(refusal) => {
                    refused_bytes = entry.canonical();
                    refused_bytes.truncate(ENTRY_BYTES_MAX);
                    refused = Some((entry.seq, refusal));
                    break;
                }
            }
        }
        let new = fresh.len();
        let commit = (new > 0).then(|| self.commit_entries(fresh, now));
        Ingested { commit, position: self.position(&log), new, known, refused, refused_bytes }
    }

    /// Writes into `desired/` or `tags/`; none where that changes nothing.
    pub fn write(
        &mut self,
        changes: Vec<Change>,
        provenance: Provenance,
        now: Now,
    ) -> Result<Option<Written>, Refusal> {
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let Some(entry) = self.author.write(&self.tree, draft, now.wall_ms, now.quality) else {
            return Ok(None);
        };
        if let Some(broken) = self.tree.broken_by(&entry.delta, now.wall_ms) {
            return Err(broken.into());
        }
        let id = entry.id();
        // The brain's own clock may lie behind what it has seen; only the rest of the door applies.
        let by = now.wall_ms.max(entry.hlc.wall_ms);
        admit(&self.tree, &entry, id, Role::Brain, by)?;
        let delta = entry.delta.clone();
        let touched = self.tree.apply(&entry, id);
        let log = entry.log;
        let commit = self.commit_entries(vec![(entry, touched)], now);
        let position = self.position(&log);
        Ok(Some(Written { commit, id, version: self.version, delta, position }))
    }

    /// The changes that make `desired/` hold exactly these leaves, given relative to it.
    pub fn replace_desired(&self, desired: &State) -> Vec<Change> {
        let stale = self
            .tree
            .state()
            .into_keys()
            .filter(|path| path.below("desired").is_some() && !desired.contains_key(path));
        let removals = stale.map(|path| (path, None)).collect::<Vec<_>>();
        let settings = desired.iter().map(|(path, value)| (path.clone(), Some(value.clone())));
        settings.chain(removals).collect()
    }

    /// The changes that make `state` the version `version`. Saving the state that a version
    /// already has changes nothing.
    pub fn save(&self, version: Version, state: &State) -> Result<Vec<Change>, SaveError> {
        let current = self.version;
        let now = self.tree.state();
        match version {
            v if v == current && now == *state => return Ok(Vec::new()),
            v if v == current => return Err(SaveError::Forked { version }),
            v if v < current => return Err(SaveError::Past { version, current }),
            v if v > current + 1 => return Err(SaveError::Future { version, current }),
            _ => {}
        }
        let delta = protocol::state::diff(&now, state);
        let kind = self.tree.genesis().kind;
        if let Some((path, _)) = delta.changes().find(|(path, _)| {
            // A policy is checked before it is written, which a state as a whole is not.
            // Nor can a state put a device into a group.
            let kept = path.first_segment() == "policy" || path.below(GROUPS_PREFIX).is_some();
            !Role::Brain.may_write(kind, path) || kept
        }) {
            return Err(SaveError::Forbidden { path: path.clone() });
        }
        Ok(delta.changes().map(|(path, value)| (path.clone(), value.cloned())).collect())
    }

    /// Takes a signed head whose signature is checked; none where it says nothing new, or where
    /// its entry is neither the log's last nor at hand: see [`id_of`](Self::id_of).
    pub fn take_signed_head(&mut self, signed: SignedHead) -> Option<(TreeCommit, LogPosition)> {
        let Head { log, seq, id, .. } = signed.head;
        (self.id_of(&log, seq) == Some(id)).then(|| self.take_proved_head(signed)).flatten()
    }

    /// The id of an applied entry, where it is at hand; else it has to be looked up in history.
    pub fn id_of(&self, log: &LogId, seq: u64) -> Option<EntryId> {
        let known = self.tree.log(log)?;
        if known.seq == seq {
            return Some(known.head);
        }
        let unsigned = self.unsigned.iter().rev();
        unsigned.filter(|(of, n, _)| of == log && *n == seq).map(|(_, _, id)| *id).next()
    }

    /// Takes a signed head whose id has been compared with the history.
    pub fn take_proved_head(&mut self, signed: SignedHead) -> Option<(TreeCommit, LogPosition)> {
        if !self.tree.take_signed_head(signed) {
            return None;
        }
        let Head { log, seq, .. } = signed.head;
        self.unsigned.retain(|(of, n, _)| *of != log || *n > seq);
        Some((self.commit_row(), self.position(&log)))
    }

    /// Signs the brain's own log, where it has unsigned entries.
    pub fn seal(&mut self) -> Option<(TreeCommit, SignedHead, LogPosition)> {
        let log = self.tree.log(&self.author.log()).filter(|log| log.seq > log.sealed())?;
        let head = Head { tree: self.tree.id(), log: log.log, seq: log.seq, id: log.head };
        let signed = SignedHead::sign(&self.brain.keypair, head);
        self.tree.take_signed_head(signed);
        Some((self.commit_row(), signed, self.position(&head.log)))
    }

    /// A commit that changes nothing: it is durable when everything before it is.
    pub fn settle(&self) -> TreeCommit {
        self.commit_row()
    }

    /// The value of a leaf.
    pub fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.tree.value(path)
    }

    fn position(&self, log: &LogId) -> LogPosition {
        LogPosition::of(&self.tree, *log)
    }

    fn commit_entries(&mut self, fresh: Vec<(Entry, Vec<Path>)>, now: Now) -> TreeCommit {
        let due = self.snapshot_is_due(fresh.len() as u64);
        self.commit_applied(fresh, due, now)
    }

    fn commit_with_snapshot(&mut self, entry: Entry, touched: Vec<Path>, now: Now) -> TreeCommit {
        self.commit_applied(vec![(entry, touched)], true, now)
    }

    fn commit_applied(
        &mut self,
        fresh: Vec<(Entry, Vec<Path>)>,
        due: bool,
        now: Now,
    ) -> TreeCommit {
        let first_version = self.version + 1;
        self.version += fresh.len() as u64;
        self.committed_ms = self.committed_ms.max(now.wall_ms);
        let (entries, touched): (Vec<_>, Vec<_>) = fresh.into_iter().unzip();
        if let Some(last) = entries.last() {
            self.source = last.provenance.source;
        }
        let log = entries.first().and_then(|entry| self.tree.log_number(&entry.log));
        let log = log.expect("an applied entry's log is known");
        let batch = Batch::pack(&entries).expect("admitted entries of one log are consecutive");
        self.written_bytes += batch.size_bytes() as u64;
        let snapshot = due.then(|| self.take_snapshot(false));
        let mut commit = self.commit_row();
        commit.segments = vec![Segment { first_version, log, at_ms: self.committed_ms, batch }];
        let mut paths: Vec<Path> = touched.into_iter().flatten().collect();
        paths.sort_unstable();
        paths.dedup();
        commit.conflicts = self.conflicts_of(&paths, conflicts::BY_ENTRY);
        commit.leaves = paths
            .into_iter()
            .map(|path| {
                let leaf = self.tree.leaves().get(&path).cloned();
                (path, leaf)
            })
            .collect();
        commit.snapshots.extend(snapshot);
        commit
    }

    fn commit_row(&self) -> TreeCommit {
        TreeCommit {
            number: self.number,
            generation: self.generation,
            record: TreeRecord {
                genesis: self.tree.genesis().clone(),
                version: self.version,
                committed_ms: self.committed_ms,
                source: self.source,
                snapshot: self.snapshot,
                written_bytes: self.written_bytes,
                logs: self.tree.logs().to_vec(),
            },
            segments: Vec::new(),
            leaves: Vec::new(),
            snapshots: Vec::new(),
            conflicts: Vec::new(),
            prune: None,
        }
    }
}
