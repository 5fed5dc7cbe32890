//! Checking everything that lies in a data folder, and naming what is damaged.
//!
//! Every record has to match its checksum. Beyond that each tree is folded from its history, from
//! the first entry on: hashes, chains, signatures, snapshots, leaves and the row of the tree have
//! to agree. The database is opened to read only, beside a running brain if need be.

mod tombstones;

use std::collections::{BTreeMap, BTreeSet};

use actors::ports::{Base, ConflictRecord, ReadError, Segment, Snapshot, TreeNumber, TreeRecord};
use data_encoding::HEXLOWER;
use protocol::history::{Candidate, Checkpoint, Entry, Leaf, LogId, LogState, Tree};
use protocol::state::{Path, Version};
use protocol::{EntryId, FleetId};
use rocksdb::Direction;
use serde::Serialize;

use super::mark::MarkFile;
use super::rocks::{
    AUDIT, BASES, CONFLICT_IDS, CONFLICTS, DOOMED, FAMILIES, HISTORY, LEAVES, LOG_ENDS, Reach,
    Rocks, SNAPSHOTS, TOMBSTONES, TREE_IDS, TREES, unpack,
};
use super::{AuditChecked, OpenError, StoreConfig, audit, keys};

/// So many damages are listed; more are only counted.
const LISTED_MAX: usize = 1_000;

/// Something that is not as it was written.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// Which kind of record.
    pub family: &'static str,
    /// Which record: its tree and version or path where they are known, else its key.
    pub record: String,
    /// What is wrong with it.
    pub what: String,
}

/// What a check came to.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Verified {
    /// How many records of each kind match their checksums.
    pub records: BTreeMap<&'static str, u64>,
    /// How many trees were folded.
    pub trees: u64,
    /// How many entries that took.
    pub entries: u64,
    /// How many signatures hold.
    pub signatures: u64,
    /// How many snapshots are what the entries before them come to.
    pub snapshots: u64,
    /// How many tombstones there are of devices and groups.
    pub tombstones: u64,
    /// How many damages were found.
    pub damages: u64,
    /// The first of them.
    pub damage: Vec<Damage>,
}

impl Verified {
    fn found(&mut self, family: &'static str, record: impl Into<String>, what: impl Into<String>) {
        self.damages += 1;
        if self.damage.len() < LISTED_MAX {
            self.damage.push(Damage { family, record: record.into(), what: what.into() });
        }
    }

    fn unreadable(&mut self, family: &'static str, record: impl Into<String>, error: &ReadError) {
        self.found(family, record, error.to_string());
    }
}

/// Checks a database. `progress` is told how many trees are done, of how many.
pub fn verify(
    config: &StoreConfig,
    fleet: FleetId,
    mut progress: impl FnMut(u64, u64),
) -> Result<Verified, OpenError> {
    // Before the database, since a running brain goes on with both.
    let folder = config.folder.clone();
    let mark = MarkFile::in_folder(&folder).read();
    let mark = mark.map_err(|source| OpenError::Mark { folder, source })?;
    let rocks = Rocks::open_to_read(config, fleet)?;
    let mut verified = Verified::default();
    let last = rocks.latest_write();
    if let Some(mark) = mark.filter(|mark| last < *mark) {
        let what = format!("it ends at write {last}, but {mark} had been acknowledged");
        verified.found("database", "the last writes", what);
    }
    for family in FAMILIES {
        check_records(&rocks, family, &mut verified);
    }
    let trees: Vec<_> = rocks.scan_all::<TreeRecord>(TREES).filter_map(Result::ok).collect();
    for (done, (key, record)) in (0..).zip(&trees) {
        progress(done, trees.len() as u64);
        let Ok(number) = key.as_ref().try_into().map(TreeNumber::from_be_bytes) else {
            verified.found(TREES, HEXLOWER.encode(key), "the key is no number");
            continue;
        };
        TreeCheck::new(&rocks, number, record, &mut verified).run();
    }
    progress(trees.len() as u64, trees.len() as u64);
    check_conflicts(&rocks, &mut verified);
    tombstones::check(&rocks, &mut verified);
    // What cannot be read is named already.
    if let Ok(AuditChecked { broken_at: Some(number), .. }) = audit::check(&rocks) {
        verified.found(AUDIT, format!("row {number}"), "it is not what was written, or is missing");
    }
    Ok(verified)
}

fn check_records(rocks: &Rocks, family: &'static str, verified: &mut Verified) {
    let mut intact = 0;
    for (key, checked) in rocks.checked(family) {
        match checked {
            Ok(()) => intact += 1,
            Err(error) => {
                let record =
                    key.map_or_else(|| "after the last one".to_owned(), |key| name(family, &key));
                verified.unreadable(family, record, &error);
            }
        }
    }
    verified.records.insert(family, intact);
}

/// A record's key, for people.
fn name(family: &'static str, key: &[u8]) -> String {
    if [TOMBSTONES, DOOMED].contains(&family) {
        // A letter for the kind comes first.
        return String::from_utf8_lossy(key.get(1..).unwrap_or_default()).into_owned();
    }
    let Some((tree, rest)) = key.split_first_chunk::<8>() else { return HEXLOWER.encode(key) };
    let tree = TreeNumber::from_be_bytes(*tree);
    match (family, rest.first_chunk::<8>()) {
        (LEAVES, _) => {
            format!("tree {tree}, {}", String::from_utf8_lossy(rest))
        }
        (HISTORY | SNAPSHOTS | CONFLICTS, Some(version)) => {
            format!("tree {tree}, version {}", Version::from_be_bytes(*version))
        }
        (TREES | BASES, _) => format!("tree {tree}"),
        _ => HEXLOWER.encode(key),
    }
}

fn check_conflicts(rocks: &Rocks, verified: &mut Verified) {
    let rows = rocks.scan_all::<ConflictRecord>(CONFLICTS).filter_map(Result::ok);
    for (key, record) in rows {
        let id = record.conflict.id;
        let listed = rocks.get::<[u8; 24]>(CONFLICT_IDS, &id.0);
        if !matches!(&listed, Ok(Some(at)) if at[..] == key[..]) {
            verified.found(CONFLICTS, name(CONFLICTS, &key), "it cannot be found by its id");
        }
    }
}

/// The check of one tree.
struct TreeCheck<'a> {
    rocks: &'a Rocks,
    number: TreeNumber,
    record: &'a TreeRecord,
    verified: &'a mut Verified,
    tree: Tree,
    version: Version,
    /// The ids of entries that signatures and cuts name.
    named: BTreeMap<(LogId, u64), Option<EntryId>>,
    snapshots: BTreeSet<Version>,
}

impl<'a> TreeCheck<'a> {
    fn new(
        rocks: &'a Rocks,
        number: TreeNumber,
        record: &'a TreeRecord,
        verified: &'a mut Verified,
    ) -> Self {
        let signed = record.logs.iter().filter_map(|log| log.signed);
        let mut named: BTreeMap<_, _> =
            signed.map(|signed| ((signed.head.log, signed.head.seq), None)).collect();
        let cuts = record.logs.iter().filter_map(|log| log.cut.as_ref());
        named.extend(cuts.map(|cut| ((cut.log, cut.last_seq), None)));
        let tree = Tree::new(record.genesis.clone());
        let snapshots = BTreeSet::new();
        Self { rocks, number, record, verified, tree, version: 0, named, snapshots }
    }

    fn run(mut self) {
        self.verified.trees += 1;
        let id = self.tree.id();
        match self.rocks.get::<TreeNumber>(TREE_IDS, &id.0) {
            Ok(Some(number)) if number == self.number => {}
            // A tree without a commit has a row only.
            _ if self.record.version == 0 => {}
            Ok(_) => self.found(TREE_IDS, "the tree cannot be found by its id"),
            Err(_) => {}
        }
        let from = keys::tree(self.number);
        for row in self.rocks.scan::<Snapshot>(SNAPSHOTS, &from, Direction::Forward) {
            // What cannot be read is named already.
            let Ok((key, _)) = row else { continue };
            let Some(version) = keys::version_of(self.number, &key) else { break };
            self.snapshots.insert(version);
        }
        if self.begin() && self.fold() {
            self.check_end();
        }
        self.check_signatures();
    }

    fn found(&mut self, family: &'static str, what: impl Into<String>) {
        let record = format!("tree {}, version {}", self.number, self.version);
        self.verified.found(family, record, what);
    }

    /// Begins with what stands in place of what was pruned; false where that is not there.
    fn begin(&mut self) -> bool {
        let Ok(Some(base)) = self.rocks.get::<Base>(BASES, &keys::tree(self.number)) else {
            return true;
        };
        self.version = base.version;
        let key = keys::versioned(self.number, base.version);
        let kept = self.rocks.get::<Snapshot>(SNAPSHOTS, &key).ok().flatten();
        let Some(Snapshot { logs, leaves, .. }) = kept else {
            self.found(BASES, "the snapshot that the history begins with is missing");
            return false;
        };
        let Base { authority, signature, .. } = base;
        let checkpoint = Checkpoint { tree: self.tree.id(), logs, leaves, authority, signature };
        // Whether it was a brain is judged where a checkpoint is taken.
        if let Err(error) = checkpoint.verify(|_| true) {
            self.found(BASES, format!("what stands in place of what was pruned: {error}"));
            return false;
        }
        self.verified.signatures += 1;
        let Checkpoint { logs, leaves, .. } = checkpoint;
        self.tree = Tree::restore(self.record.genesis.clone(), logs, leaves);
        true
    }

    /// Folds the whole history; false where that came to an end too soon.
    fn fold(&mut self) -> bool {
        let rocks = self.rocks;
        let from = keys::tree(self.number);
        for row in rocks.scan::<Segment>(HISTORY, &from, Direction::Forward) {
            let Ok((key, segment)) = row else {
                self.found(HISTORY, "what follows this version cannot be read");
                return false;
            };
            if keys::version_of(self.number, &key).is_none() {
                break;
            }
            if !self.go_to(segment.first_version - 1) || !self.take(segment) {
                return false;
            }
        }
        self.go_to(self.record.version)
    }

    /// Goes on to a version that no entries lead to: the leaves were folded again there, and a
    /// snapshot was kept.
    fn go_to(&mut self, version: Version) -> bool {
        if self.version == version {
            return true;
        }
        let key = keys::versioned(self.number, version);
        let kept = self.rocks.get::<Snapshot>(SNAPSHOTS, &key).ok().flatten();
        match kept.filter(|_| self.version < version) {
            Some(Snapshot { logs, leaves, .. }) => {
                self.tree = Tree::restore(self.record.genesis.clone(), logs, leaves);
                self.version = version;
                true
            }
            None => {
                self.found(
                    HISTORY,
                    format!("the versions after this one up to {version} are missing"),
                );
                false
            }
        }
    }

    fn take(&mut self, segment: Segment) -> bool {
        let (first_version, log) = (segment.first_version, segment.log);
        let end = keys::log_end(self.number, log, segment.batch.last_seq());
        match self.rocks.get::<Version>(LOG_ENDS, &end) {
            Ok(Some(found)) if found == first_version => {}
            Ok(_) => self.found(LOG_ENDS, "the entries that follow cannot be found by their log"),
            Err(_) => {}
        }
        let entries = match unpack(segment) {
            Ok(entries) => entries,
            Err(error) => {
                self.found(HISTORY, error.to_string());
                return false;
            }
        };
        for (id, entry) in entries {
            let named_log = self.record.logs.get(log as usize).map(|state| state.log);
            if named_log != Some(entry.log) || entry.tree != self.tree.id() {
                self.found(HISTORY, "the next entry is of another log or tree");
                return false;
            }
            let (seq, head) =
                self.tree.log(&entry.log).map_or((0, Entry::NO_PREV), |log| (log.seq, log.head));
            if entry.seq != seq + 1 || entry.prev != head {
                self.found(HISTORY, "the next entry does not follow the one before it in its log");
                return false;
            }
            self.tree.apply(&entry, id);
            self.version += 1;
            self.verified.entries += 1;
            if let Some(named) = self.named.get_mut(&(entry.log, entry.seq)) {
                *named = Some(id);
            }
            if self.snapshots.contains(&self.version) {
                self.check_snapshot();
            }
        }
        true
    }

    fn check_snapshot(&mut self) {
        let key = keys::versioned(self.number, self.version);
        let Ok(Some(snapshot)) = self.rocks.get::<Snapshot>(SNAPSHOTS, &key) else { return };
        // One that was made after a cut has what a fold without it has not.
        let is_of_cut = snapshot.logs.iter().any(|log| {
            let folded = self.tree.log(&log.log).map_or(0, |log| log.seq);
            log.cut.as_ref().is_some_and(|cut| cut.last_seq < folded)
        });
        let same =
            sides(&snapshot.leaves, &snapshot.logs) == sides(self.tree.leaves(), self.tree.logs());
        match same {
            true => self.verified.snapshots += 1,
            false if is_of_cut => {
                self.tree =
                    Tree::restore(self.record.genesis.clone(), snapshot.logs, snapshot.leaves);
            }
            false => self.found(SNAPSHOTS, "the snapshot is not what the entries come to"),
        }
    }

    /// The leaves and the row have to be what the history comes to.
    fn check_end(&mut self) {
        let stands = |log: &LogState| (log.seq > 0).then_some((log.log, (log.seq, log.head)));
        let row: BTreeMap<_, _> = self.record.logs.iter().filter_map(stands).collect();
        let folded: BTreeMap<_, _> = self.tree.logs().iter().filter_map(stands).collect();
        if row != folded {
            self.found(TREES, "the tree's row is not where its history ends");
        }
        // What cannot be read is named already.
        let Ok(leaves) = self.rocks.leaves(Reach::Disk, self.number) else { return };
        let kept = sides(&leaves, &self.record.logs);
        let folded = sides(self.tree.leaves(), self.tree.logs());
        for path in kept.keys().chain(folded.keys()).collect::<BTreeSet<_>>() {
            if kept.get(path) != folded.get(path) {
                let record = format!("tree {}, {path}", self.number);
                let what = "the leaf is not what its history comes to";
                self.verified.found(LEAVES, record, what);
            }
        }
    }

    fn check_signatures(&mut self) {
        for log in &self.record.logs {
            if let Some(signed) = &log.signed {
                let id = self.named.get(&(log.log, signed.head.seq)).copied().flatten();
                let holds = signed.verify().is_ok() && id.is_none_or(|id| id == signed.head.id);
                match holds {
                    true => self.verified.signatures += 1,
                    false => {
                        let seq = signed.head.seq;
                        self.found(
                            TREES,
                            format!("the signature under entry {seq} of a log does not hold"),
                        );
                    }
                }
            }
            if let Some(cut) = &log.cut {
                // Who has the authority to cut is judged where a cut is taken.
                match cut.verify(|_| true) {
                    Ok(()) => {
                        let id = self.named.get(&(cut.log, cut.last_seq)).copied().flatten();
                        if id.is_some_and(|id| id != cut.last_id) {
                            self.found(TREES, "a log ends with another entry than its cut names");
                        }
                        self.verified.signatures += 1;
                    }
                    Err(error) => {
                        self.found(TREES, format!("the end of a log does not hold: {error}"))
                    }
                }
            }
        }
    }
}

type Side = (LogId, u64, Candidate);

/// Leaves with their candidates in order, named by their logs and not by the logs' places.
fn sides(leaves: &BTreeMap<Path, Leaf>, logs: &[LogState]) -> BTreeMap<Path, Vec<Side>> {
    let side = |candidate: &Candidate| {
        let log = logs.get(candidate.log as usize)?.log;
        Some((log, candidate.seq, Candidate { log: 0, ..candidate.clone() }))
    };
    let of = |leaf: &Leaf| {
        let mut sides: Vec<_> = leaf.candidates.iter().filter_map(side).collect();
        sides.sort_by_key(|(log, seq, _)| (*log, *seq));
        sides
    };
    leaves.iter().map(|(path, leaf)| (path.clone(), of(leaf))).collect()
}
