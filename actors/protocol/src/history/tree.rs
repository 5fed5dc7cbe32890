//! A replica of a tree: what its logs fold to.

mod merge;
mod shown;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Candidate, Cut, Entry, Genesis, Head, Leaf, LogId, Member, SignedHead, VersionVector};
use crate::canonical::Writer;
use crate::clock::Hlc;
use crate::conflict::ConflictPolicy;
use crate::constraint::Constraints;
use crate::state::{Path, Value};
use crate::{EntryId, PublicKey, TreeId};

pub use merge::MergeError;

/// The most leaves that a tree may have, removed ones that are still remembered included.
pub const LEAVES_MAX: usize = 10_000;
/// The most logs that a tree may have.
pub const LOGS_MAX: usize = 4_096;
/// The most bytes that a tree's leaves may take, paths included: a snapshot is one record.
pub const TREE_BYTES_MAX: usize = 2 << 20;
/// What a candidate takes beside its value.
const CANDIDATE_BYTES: usize = 32;

/// A replica of a tree.
///
/// Call [`admit`](super::admit) first; [`apply`](Self::apply) then cannot fail. What has to
/// survive a restart are the [`logs`](Self::logs) and the [`leaves`](Self::leaves);
/// [`restore`](Self::restore) makes the same replica of them.
#[derive(Debug, Clone, PartialEq)]
pub struct Tree {
    genesis: Genesis,
    id: TreeId,
    logs: Vec<LogState>,
    index: BTreeMap<LogId, u32>,
    leaves: BTreeMap<Path, Leaf>,
    /// What the leaves take.
    bytes: usize,
    /// What the leaves below [`POLICY_PREFIX`](crate::conflict::POLICY_PREFIX) say, where it can be read.
    policies: BTreeMap<u32, ConflictPolicy>,
    /// What the leaves below [`CONSTRAINTS_PREFIX`](crate::constraint::CONSTRAINTS_PREFIX) say, where
    /// it can be read.
    constraints: BTreeMap<u32, Constraints>,
    /// What the leaves below [`MEMBERS_PREFIX`](super::MEMBERS_PREFIX) say, by key.
    members: BTreeMap<PublicKey, Member>,
}

/// What a replica knows of one log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogState {
    /// The log.
    pub log: LogId,
    /// The number of its last applied entry.
    pub seq: u64,
    /// That entry's id.
    pub head: EntryId,
    /// That entry's timestamp.
    pub hlc: Hlc,
    /// How far that entry's author had seen other logs.
    pub context: VersionVector,
    /// The highest head that the author signed.
    pub signed: Option<SignedHead>,
    /// The log's end, where it has one.
    pub cut: Option<Cut>,
}

impl LogState {
    fn new(log: LogId) -> Self {
        Self {
            log,
            seq: 0,
            head: Entry::NO_PREV,
            hlc: Hlc::default(),
            context: VersionVector::default(),
            signed: None,
            cut: None,
        }
    }

    /// The number of the last entry under a signed head.
    pub fn sealed(&self) -> u64 {
        self.signed.map_or(0, |signed| signed.head.seq)
    }

    /// The last entry up to `seq` that counts: what lies above the log's end is nobody's cause.
    pub(super) fn counted(&self, seq: u64) -> u64 {
        self.cut.as_ref().map_or(seq, |cut| seq.min(cut.last_seq))
    }
}

impl Tree {
    /// The empty tree that begins with `genesis`.
    pub fn new(genesis: Genesis) -> Self {
        let id = genesis.tree_id();
        Self {
            genesis,
            id,
            logs: Vec::new(),
            index: BTreeMap::new(),
            leaves: BTreeMap::new(),
            bytes: 0,
            policies: BTreeMap::new(),
            constraints: BTreeMap::new(),
            members: BTreeMap::new(),
        }
    }

    /// The replica with these logs, in this order, and these leaves.
    pub fn restore(genesis: Genesis, logs: Vec<LogState>, leaves: BTreeMap<Path, Leaf>) -> Self {
        let index = logs.iter().enumerate().map(|(n, state)| (state.log, n as u32)).collect();
        let mut tree = Self { logs, index, leaves, ..Self::new(genesis) };
        tree.measure();
        let paths: Vec<_> = tree.leaves_about_the_tree().cloned().collect();
        tree.read_leaves(&paths);
        tree
    }

    /// The tree's id.
    pub fn id(&self) -> TreeId {
        self.id
    }

    /// The tree's beginning.
    pub fn genesis(&self) -> &Genesis {
        &self.genesis
    }

    /// The logs, in the order in which this replica met them: candidates refer to that order.
    pub fn logs(&self) -> &[LogState] {
        &self.logs
    }

    /// What is known of one log.
    pub fn log(&self, log: &LogId) -> Option<&LogState> {
        self.index.get(log).map(|n| &self.logs[*n as usize])
    }

    /// Whether a log has an end here: its author may not go on in it.
    pub fn has_ended(&self, log: &LogId) -> bool {
        self.log(log).is_some_and(|state| state.cut.is_some())
    }

    /// The place of a log in [`logs`](Self::logs).
    pub fn log_number(&self, log: &LogId) -> Option<u32> {
        self.index.get(log).copied()
    }

    /// Who writes, or wrote, in a shared tree with this key.
    pub fn member(&self, key: &PublicKey) -> Option<Member> {
        self.members.get(key).copied()
    }

    /// Everybody who writes, or wrote, in a shared tree, by key.
    pub fn members(&self) -> impl Iterator<Item = (&PublicKey, &Member)> {
        self.members.iter()
    }

    /// The leaves with their candidates.
    pub fn leaves(&self) -> &BTreeMap<Path, Leaf> {
        &self.leaves
    }

    /// About how many bytes the leaves take, paths included.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// By how many bytes an entry would make the leaves grow; 0 where it makes them shrink.
    pub(super) fn growth(&self, entry: &Entry) -> usize {
        let context = self.log(&entry.log).map(|state| &state.context);
        let is_replaced = |c: &&Candidate| {
            let log = &self.logs[c.log as usize].log;
            *log == entry.log
                || entry.seen.contains(log, c.seq)
                || context.is_some_and(|context| context.contains(log, c.seq))
        };
        let (mut added, mut gone) = (0, 0);
        for (path, value) in entry.delta.changes() {
            added += CANDIDATE_BYTES + value.map_or(0, Value::size_bytes);
            match self.leaves.get(path) {
                Some(leaf) => {
                    gone += leaf.candidates.iter().filter(is_replaced).map(bytes_of).sum::<usize>();
                }
                None => added += path.as_str().len(),
            }
        }
        added.saturating_sub(gone)
    }

    /// How far each log is applied.
    pub fn vector(&self) -> VersionVector {
        self.logs.iter().map(|state| (state.log, state.seq)).collect()
    }

    /// How far each log is under a signed head.
    pub fn sealed(&self) -> VersionVector {
        self.logs.iter().map(|state| (state.log, state.sealed())).collect()
    }

    /// Where each log stands.
    pub fn heads(&self) -> impl Iterator<Item = Head> {
        self.logs.iter().filter(|state| state.seq > 0).map(|state| Head {
            tree: self.id,
            log: state.log,
            seq: state.seq,
            id: state.head,
        })
    }

    /// Applies an admitted entry and returns the leaves it touched.
    ///
    /// # Panics
    /// If the entry does not follow its log's head: it was not admitted.
    pub fn apply(&mut self, entry: &Entry, id: EntryId) -> Vec<Path> {
        let number = self.number_of(entry.log);
        let state = &mut self.logs[number as usize];
        #[cfg(feature = "planted-faults")]
        if entry.seq <= state.seq && crate::planted::is(crate::planted::Fault::DedupOff) {
            (state.seq, state.head) = (entry.seq - 1, entry.prev);
        }
        assert_eq!(entry.seq, state.seq + 1, "an admitted entry follows its log's head");
        assert_eq!(entry.prev, state.head, "an admitted entry names its log's head");
        state.seq = entry.seq;
        state.head = id;
        state.hlc = entry.hlc;
        state.context.merge(&entry.seen);
        if !entry.kind.is_known() {
            return Vec::new();
        }
        let (logs, leaves) = (&self.logs, &mut self.leaves);
        let context = &logs[number as usize].context;
        let seen = |log: u32, seq: u64| {
            if log == number {
                seq < entry.seq
            } else {
                context.contains(&logs[log as usize].log, seq)
            }
        };
        let mut touched = Vec::with_capacity(entry.delta.len());
        for (path, value) in entry.delta.changes() {
            let candidate = Candidate::of(entry, number, value);
            let before = leaves.get(path).map_or(0, |leaf| leaf_bytes(path, leaf));
            let leaf = leaves.entry(path.clone()).or_default();
            leaf.put(candidate, seen);
            self.bytes = self.bytes + leaf_bytes(path, leaf) - before;
            touched.push(path.clone());
        }
        self.read_leaves(&touched);
        touched
    }

    /// Takes a verified signed head of a log; a lower one than known changes nothing.
    ///
    /// Returns whether it raised what is sealed. A head beyond what is applied is not taken, nor
    /// one that contradicts the entry applied last; whoever keeps the history compares the others.
    pub fn take_signed_head(&mut self, signed: SignedHead) -> bool {
        let Some(number) = self.index.get(&signed.head.log) else { return false };
        let state = &mut self.logs[*number as usize];
        let Head { seq, id, .. } = signed.head;
        let fits = seq < state.seq || (seq == state.seq && id == state.head);
        let news = seq > state.sealed() && fits;
        if news {
            state.signed = Some(signed);
        }
        news
    }

    /// Takes a verified cut: the log ends there, and candidates above it are dropped.
    ///
    /// Returns the leaves that lost a candidate. What that candidate had replaced is not here:
    /// the caller [folds those leaves again](super::Refold) from history, or, being the author,
    /// writes them anew.
    pub fn take_cut(&mut self, cut: Cut) -> Vec<Path> {
        let number = self.number_of(cut.log);
        let state = &mut self.logs[number as usize];
        if state.cut.as_ref().is_some_and(|known| known.last_seq <= cut.last_seq) {
            return Vec::new();
        }
        let last_seq = cut.last_seq;
        if state.seq > last_seq {
            state.seq = last_seq;
            state.head = cut.last_id;
            if state.sealed() > last_seq {
                state.signed = None;
            }
        }
        state.cut = Some(cut);
        let mut touched = Vec::new();
        self.leaves.retain(|path, leaf| {
            let before = leaf.candidates.len();
            leaf.candidates.retain(|c| c.log != number || c.seq <= last_seq);
            if leaf.candidates.len() < before {
                touched.push(path.clone());
            }
            !leaf.candidates.is_empty()
        });
        self.measure();
        self.read_leaves(&touched);
        touched
    }

    /// Puts leaves in place that were [folded again](super::Refold).
    pub fn put_refolded(&mut self, leaves: BTreeMap<Path, Option<Leaf>>) {
        let paths: Vec<_> = leaves.keys().cloned().collect();
        for (path, leaf) in leaves {
            match leaf {
                Some(leaf) => self.leaves.insert(path, leaf),
                None => self.leaves.remove(&path),
            };
        }
        self.measure();
        self.read_leaves(&paths);
    }

    /// The hash of every leaf's candidates: equal on every replica that holds the same entries.
    pub fn root(&self) -> [u8; 32] {
        let mut writer = Writer::new("fleet-root-v1");
        writer.raw(&self.id.0);
        for (path, leaf) in self.leaves.iter().filter(|(_, leaf)| leaf.has_value()) {
            let mut candidates: Vec<_> =
                leaf.candidates.iter().map(|c| (self.logs[c.log as usize].log, c)).collect();
            candidates.sort_by_key(|(log, c)| (*log, c.seq));
            writer.text(path.as_str()).len(candidates.len());
            for (log, candidate) in candidates {
                log.write_canonical(&mut writer);
                writer.u64(candidate.seq);
                match &candidate.value {
                    Some(value) => value.write_canonical(writer.u8(1)),
                    None => {
                        writer.u8(0);
                    }
                }
            }
        }
        writer.hash()
    }

    fn measure(&mut self) {
        self.bytes = self.leaves.iter().map(|(path, leaf)| leaf_bytes(path, leaf)).sum();
    }

    fn number_of(&mut self, log: LogId) -> u32 {
        if let Some(number) = self.index.get(&log) {
            return *number;
        }
        let number = self.logs.len() as u32;
        self.logs.push(LogState::new(log));
        self.index.insert(log, number);
        number
    }
}

fn leaf_bytes(path: &Path, leaf: &Leaf) -> usize {
    path.as_str().len() + leaf.candidates.iter().map(bytes_of).sum::<usize>()
}

fn bytes_of(candidate: &Candidate) -> usize {
    CANDIDATE_BYTES + candidate.value.as_ref().map_or(0, Value::size_bytes)
}
