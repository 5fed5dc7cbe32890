//! What is durable.

use std::collections::{BTreeMap, HashSet};

use actors::ports::{Base, Prune, Segment, Snapshot, TreeCommit, TreeNumber, TreeRecord};
use protocol::history::{Entry, Leaf, LogId, Tree};
use protocol::state::{Path, Version};
use protocol::wire::BATCH_ENTRIES_MAX;
use protocol::{EntryId, TreeId};

use super::Violation;

/// What an entry takes beside its changes, about.
const ENTRY_OVERHEAD_BYTES: usize = 16;

/// The durable trees.
#[derive(Default)]
pub(super) struct Disk {
    trees: BTreeMap<TreeNumber, StoredTree>,
    numbers: BTreeMap<TreeId, TreeNumber>,
}

/// A tree as it is on disk.
#[derive(Debug, Clone)]
pub struct StoredTree {
    number: TreeNumber,
    record: TreeRecord,
    leaves: BTreeMap<Path, Leaf>,
    /// For each log by number, its entries in order.
    logs: BTreeMap<u32, Vec<(EntryId, Entry)>>,
    /// The entries in the order of commits: the log's number and the place in it.
    order: Vec<(u32, usize)>,
    ids: HashSet<EntryId>,
    snapshots: BTreeMap<Version, Snapshot>,
    /// Where the history begins for whoever reads it. The judge looks at all of it.
    base: Option<Base>,
}

impl Disk {
    pub(super) fn tree(&self, id: TreeId) -> Option<&StoredTree> {
        self.trees.get(self.numbers.get(&id)?)
    }

    pub(super) fn trees(&self) -> impl Iterator<Item = &StoredTree> {
        self.trees.values()
    }

    pub(super) fn write(&mut self, commit: &TreeCommit, violations: &mut Vec<Violation>) {
        let id = commit.record.genesis.tree_id();
        if !self.trees.contains_key(&commit.number) {
            if commit.segments.is_empty() {
                // The tree's number is taken for good by its first entry.
                return;
            }
            let record = TreeRecord { version: 0, committed_ms: 0, ..commit.record.clone() };
            self.numbers.insert(id, commit.number);
            self.trees.insert(commit.number, StoredTree::new(commit.number, record));
        }
        if let Some(tree) = self.trees.get_mut(&commit.number) {
            tree.write(commit, violations);
        }
    }

    pub(super) fn range(
        &self,
        tree: TreeNumber,
        log: u32,
        after: u64,
        bytes_max: usize,
    ) -> Vec<(EntryId, Entry)> {
        let Some(tree) = self.trees.get(&tree) else { return Vec::new() };
        let entries = tree.logs.get(&log);
        let after = after.max(tree.floor(log));
        let entries = entries.and_then(|entries| entries.get(after as usize..)).unwrap_or_default();
        let mut bytes = 0;
        let fits = entries.iter().take(BATCH_ENTRIES_MAX).take_while(|(_, entry)| {
            let first = bytes == 0;
            bytes += protocol::codec::encode(&entry.delta).len() + ENTRY_OVERHEAD_BYTES;
            first || bytes <= bytes_max
        });
        fits.cloned().collect()
    }

    pub(super) fn snapshot(&self, tree: TreeNumber, version: Version) -> Option<Snapshot> {
        self.trees.get(&tree)?.snapshots.get(&version).cloned()
    }
}

impl StoredTree {
    fn new(number: TreeNumber, record: TreeRecord) -> Self {
        Self {
            number,
            record,
            leaves: BTreeMap::new(),
            logs: BTreeMap::new(),
            order: Vec::new(),
            ids: HashSet::new(),
            snapshots: BTreeMap::new(),
            base: None,
        }
    }

    /// Where its history begins, when it was pruned.
    pub fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// The versions that there are snapshots of.
    pub fn snapshots(&self) -> impl Iterator<Item = Version> {
        self.snapshots.keys().copied()
    }

    /// Up to which entry a log, by its number, cannot be read any more.
    fn floor(&self, log: u32) -> u64 {
        let state = self.record.logs.get(log as usize);
        let base = self.base.as_ref();
        state.zip(base).map_or(0, |(state, base)| base.floor.get(&state.log))
    }

    /// The store's name of it.
    pub fn number(&self) -> TreeNumber {
        self.number
    }

    /// Its row.
    pub fn record(&self) -> &TreeRecord {
        &self.record
    }

    /// Its leaves.
    pub fn leaves(&self) -> &BTreeMap<Path, Leaf> {
        &self.leaves
    }

    /// The replica that a twin makes of it.
    pub fn replica(&self) -> Tree {
        let TreeRecord { genesis, logs, .. } = self.record.clone();
        Tree::restore(genesis, logs, self.leaves.clone())
    }

    /// Its entries, in the order in which they were committed.
    pub fn history(&self) -> impl Iterator<Item = &(EntryId, Entry)> {
        self.order.iter().filter_map(|(log, at)| self.logs.get(log)?.get(*at))
    }

    /// Whether an entry counts: its log did not end below it.
    pub fn counts(&self, entry: &Entry) -> bool {
        let state = self.record.logs.iter().find(|state| state.log == entry.log);
        let cut = state.and_then(|state| state.cut.as_ref());
        cut.is_none_or(|cut| entry.seq <= cut.last_seq)
    }

    /// The id of an entry.
    pub fn entry_id(&self, log: &LogId, seq: u64) -> Option<EntryId> {
        let number = self.record.logs.iter().position(|state| state.log == *log)?;
        let entries = self.logs.get(&(number as u32))?;
        entries.get(seq.checked_sub(1)? as usize).map(|(id, _)| *id)
    }

    /// Whether it holds an entry.
    pub fn contains(&self, id: &EntryId) -> bool {
        self.ids.contains(id)
    }

    /// Folds the history anew and compares. Logs may be met in another order: one that ended before
    /// its first entry is in the row and not in the history.
    pub(super) fn fold_again(&self) -> Option<Violation> {
        let id = self.record.genesis.tree_id();
        let mut tree = Tree::new(self.record.genesis.clone());
        for (id, entry) in self.history().filter(|(_, entry)| self.counts(entry)) {
            tree.apply(entry, *id);
        }
        let kept = self.replica();
        let same = tree.root() == kept.root()
            && tree.state() == kept.state()
            && tree.vector() == kept.vector();
        (!same).then_some(Violation::Fold { tree: id, entries: self.order.len() })
    }

    fn write(&mut self, commit: &TreeCommit, violations: &mut Vec<Violation>) {
        let tree = commit.record.genesis.tree_id();
        let before = &self.record;
        let known = commit.record.logs.iter().map(|state| state.log);
        if !before.logs.iter().map(|state| state.log).eq(known.take(before.logs.len())) {
            violations.push(Violation::Row { tree, what: "the order of logs" });
        }
        if commit.record.committed_ms < before.committed_ms {
            violations.push(Violation::Dated { tree, version: commit.record.version });
        }
        let mut version = before.version;
        self.record = commit.record.clone();
        for segment in &commit.segments {
            if segment.first_version != version + 1 {
                let (expected, found) = (version + 1, segment.first_version);
                violations.push(Violation::Version { tree, expected, found });
            }
            version += segment.batch.len() as u64;
            self.append(segment, violations);
        }
        // A fold without what a cut took is a version of its own, with a snapshot and no entry.
        let is_refold = commit.segments.is_empty()
            && commit.record.version == version + 1
            && commit.snapshots.iter().any(|snapshot| snapshot.version == version + 1);
        if commit.record.version != version && !is_refold {
            let (expected, found) = (version, commit.record.version);
            violations.push(Violation::Version { tree, expected, found });
        }
        self.snapshots.extend(commit.snapshots.iter().map(|made| (made.version, made.clone())));
        if let Some(Prune { base, kept, .. }) = &commit.prune {
            let stays = |version: &Version| *version >= base.version || kept.contains(version);
            self.snapshots.retain(|version, _| stays(version));
            if !self.snapshots.contains_key(&base.version) {
                violations.push(Violation::Row { tree, what: "where the history begins" });
            }
            self.base = Some(base.clone());
        }
        for (path, leaf) in &commit.leaves {
            match leaf {
                Some(leaf) => self.leaves.insert(path.clone(), leaf.clone()),
                None => self.leaves.remove(path),
            };
        }
        for (number, state) in (0u32..).zip(&self.record.logs) {
            let entries = self.logs.get(&number).map_or(&[][..], Vec::as_slice);
            let kept = entries.len() as u64;
            let last = state.cut.as_ref().map_or(kept, |cut| cut.last_seq.min(kept));
            let head = entries.get(..last as usize).and_then(<[_]>::last);
            let head = head.map_or(Entry::NO_PREV, |(id, _)| *id);
            if state.seq != last || state.head != head {
                violations.push(Violation::Row { tree, what: "where a log stands" });
            }
            if let Some(signed) = &state.signed
                && self.entry_id(&state.log, signed.head.seq) != Some(signed.head.id)
            {
                violations.push(Violation::Row { tree, what: "which entry was signed" });
            }
        }
    }

    fn append(&mut self, segment: &Segment, violations: &mut Vec<Violation>) {
        let tree = self.record.genesis.tree_id();
        let (number, log) = (segment.log, segment.batch.log);
        if self.record.logs.get(number as usize).map(|state| state.log) != Some(log) {
            violations.push(Violation::LogNumber { tree, number, log });
        }
        let unpacked = match segment.batch.clone().unpack() {
            Ok(unpacked) => unpacked,
            Err(error) => {
                let (version, detail) = (segment.first_version, error.to_string());
                return violations.push(Violation::Segment { tree, version, detail });
            }
        };
        let entries = self.logs.entry(number).or_default();
        for (id, entry) in unpacked {
            let expected = entries.len() as u64 + 1;
            if entry.seq != expected {
                violations.push(Violation::Sequence { tree, log, expected, found: entry.seq });
                // What does not fit is not kept: folding it would be a panic.
                return;
            }
            if entry.prev != entries.last().map_or(Entry::NO_PREV, |(id, _)| *id) {
                violations.push(Violation::Chain { tree, log, seq: entry.seq });
                return;
            }
            if !self.ids.insert(id) {
                violations.push(Violation::Twice { tree, id });
            }
            self.order.push((number, entries.len()));
            entries.push((id, entry));
        }
    }
}
