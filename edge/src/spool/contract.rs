//! What every spool does, whatever is below it.

use std::path::PathBuf;

use protocol::history::{Author, Change, Draft, Entry, Head, LogId, Provenance, SignedHead, Tree};
use protocol::keys::Keypair;
use protocol::state::{Path, StateSource, Value};
use protocol::{DeviceId, FleetId};

use super::*;
use crate::track::genesis;

/// Writes entries of one log and packs them as commits.
struct Writer {
    tree: Tree,
    author: Author,
}

impl Writer {
    fn new() -> Self {
        let log = LogId { author: Keypair::from_seed(&[1; 32]).public(), epoch: 7 };
        let tree = Tree::new(genesis(FleetId([1; 16]), DeviceId([2; 16])));
        Self { tree, author: Author::new(log, Default::default()) }
    }

    fn begin(&self) -> Commit {
        let author = AuthorState { epoch: 7, ..AuthorState::default() };
        let begin = Some(self.tree.genesis().clone());
        Commit { begin, author: Some(author), ..Commit::default() }
    }

    fn entry(&mut self, number: i64) -> (Entry, Commit) {
        let path = Path::new("reported/n").expect("a path");
        let changes: Vec<Change> = vec![(path.clone(), Some(Value::from(number)))];
        let provenance = Provenance::new(StateSource::Edge, "test", "test");
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let quality = protocol::clock::ClockQuality::Synchronised;
        let entry = self.author.write(&self.tree, draft, 1_000, quality).expect("a change");
        self.tree.apply(&entry, entry.id());
        let state = self.tree.log(&entry.log).expect("applied").clone();
        let mut commit = Commit::default();
        commit.entries.push(EntryRecord::new(0, &entry).expect("packs"));
        commit.logs.insert(0, LogRecord { state, delivered: Delivered::default() });
        commit.leaves.insert(path.clone(), self.tree.leaves().get(&path).cloned());
        (entry, commit)
    }

    fn fill(&mut self, spool: &mut dyn Spool, count: i64) -> Vec<Entry> {
        spool.commit(&self.begin()).expect("begun");
        let mut write = |number| {
            let (entry, commit) = self.entry(number);
            spool.commit(&commit).expect("committed");
            entry
        };
        (1..=count).map(&mut write).collect()
    }
}

/// Runs a case over every kind of spool.
fn every_spool(case: impl Fn(&mut dyn Spool)) {
    case(&mut MemorySpool::new());
    let dir = tempfile::tempdir().expect("a folder");
    let (mut spool, _) = open(dir.path().join("spool.db")).expect("opens");
    case(&mut spool);
}

fn open(path: PathBuf) -> Result<(SqliteSpool, Option<Loaded>), SpoolError> {
    SqliteSpool::open(&path, Options::default())
}

#[test]
fn an_empty_spool_holds_nothing() {
    every_spool(|spool| {
        assert!(spool.load().expect("loads").is_none());
        assert!(spool.range(0, 0, 1_000).expect("reads").is_empty());
        assert_eq!(spool.entry_bytes().expect("measures"), 0);
    });
}

#[test]
fn what_was_committed_is_loaded() {
    every_spool(|spool| {
        let mut writer = Writer::new();
        writer.fill(spool, 3);
        let loaded = spool.load().expect("loads").expect("begun");
        let states = loaded.logs.into_iter().map(|log| log.state).collect();
        let restored = Tree::restore(loaded.genesis, states, loaded.leaves);
        assert_eq!(restored, writer.tree);
        assert_eq!(loaded.author.epoch, 7);
    });
}

#[test]
fn a_range_is_in_order_and_within_its_bytes_but_never_empty() {
    every_spool(|spool| {
        let entries = Writer::new().fill(spool, 5);
        assert_eq!(spool.range(0, 0, usize::MAX).expect("reads"), entries);
        assert_eq!(spool.range(0, 3, usize::MAX).expect("reads"), entries[3..]);
        assert_eq!(spool.range(0, 1, 1).expect("reads"), entries[1..2]);
        let sizes = spool.sizes(0, 0).expect("measures");
        let two = sizes.iter().take(2).map(|(_, bytes)| *bytes as usize).sum();
        assert_eq!(spool.range(0, 0, two).expect("reads"), entries[..2]);
        let all: u64 = sizes.iter().map(|(_, bytes)| u64::from(*bytes)).sum();
        assert_eq!(spool.entry_bytes().expect("measures"), all);
    });
}

#[test]
fn the_highest_signature_within_a_range_is_found_until_its_entry_goes() {
    every_spool(|spool| {
        let keypair = Keypair::from_seed(&[1; 32]);
        let entries = Writer::new().fill(spool, 6);
        let signed = |seq: usize| {
            let Entry { tree, log, seq, .. } = entries[seq - 1];
            let head = Head { tree, log, seq, id: entries[seq as usize - 1].id() };
            SignedHead::sign(&keypair, head)
        };
        let seals = [2, 4, 6].map(|seq| (0, signed(seq))).to_vec();
        spool.commit(&Commit { seals, ..Commit::default() }).expect("committed");
        let mut seal = |after, up_to| {
            spool.seal(0, after, up_to).expect("reads").map(|signed| signed.head.seq)
        };
        assert_eq!(
            (seal(0, 6), seal(0, 5), seal(2, 3), seal(6, 6)),
            (Some(6), Some(4), None, None)
        );
        assert_eq!(spool.seal(1, 0, 9).expect("reads"), None, "of another log");
        spool.commit(&Commit { truncate: vec![(0, 5)], ..Commit::default() }).expect("committed");
        assert_eq!(spool.seal(0, 0, 9).expect("reads"), Some(signed(4)));
        spool.prune(&[(0, 4)], u64::MAX).expect("prunes");
        assert_eq!(spool.seal(0, 0, 9).expect("reads"), None);
    });
}

#[test]
fn pruning_takes_the_oldest_and_no_more_than_it_may() {
    every_spool(|spool| {
        let entries = Writer::new().fill(spool, 5);
        let freed = spool.prune(&[(0, 3)], 1).expect("prunes");
        assert!(freed > 1);
        assert_eq!(spool.range(0, 1, usize::MAX).expect("reads"), entries[1..]);
        spool.prune(&[(0, 3)], u64::MAX).expect("prunes");
        assert_eq!(spool.range(0, 3, usize::MAX).expect("reads"), entries[3..]);
        assert!(spool.range(0, 0, usize::MAX).expect("reads").is_empty(), "a gap ends a range");
    });
}

#[test]
fn a_log_that_ended_loses_what_lay_above() {
    every_spool(|spool| {
        let entries = Writer::new().fill(spool, 4);
        let commit = Commit { truncate: vec![(0, 2)], ..Commit::default() };
        spool.commit(&commit).expect("committed");
        assert_eq!(spool.range(0, 0, usize::MAX).expect("reads"), entries[..2]);
    });
}

#[test]
fn another_beginning_forgets_the_former_one() {
    every_spool(|spool| {
        let mut writer = Writer::new();
        writer.fill(spool, 2);
        let other = genesis(FleetId([9; 16]), DeviceId([2; 16]));
        let begin = Commit { begin: Some(other.clone()), ..Commit::default() };
        spool.commit(&begin).expect("committed");
        let loaded = spool.load().expect("loads").expect("begun");
        assert_eq!(loaded.genesis, other);
        assert!(loaded.logs.is_empty() && loaded.leaves.is_empty());
        assert_eq!(loaded.author.epoch, 7, "the author goes on");
    });
}

#[test]
fn a_commit_is_all_or_nothing() {
    every_spool(|spool| {
        let mut writer = Writer::new();
        writer.fill(spool, 1);
        let before = spool.load().expect("loads");
        let (entry, mut commit) = writer.entry(2);
        commit.entries.push(EntryRecord::new(5, &entry).expect("packs"));
        let error = spool.commit(&commit).expect_err("log 5 is nowhere");
        assert!(matches!(error, SpoolError::UnknownLog { number: 5 }));
        assert_eq!(spool.load().expect("loads"), before);
        assert_eq!(spool.range(0, 0, usize::MAX).expect("reads").len(), 1);
    });
}

#[test]
fn brains_are_remembered() {
    every_spool(|spool| {
        Writer::new().fill(spool, 1);
        let brains = BTreeSet::from([Keypair::from_seed(&[3; 32]).public()]);
        let commit = Commit { brains: Some(brains.clone()), ..Commit::default() };
        spool.commit(&commit).expect("committed");
        assert_eq!(spool.load().expect("loads").expect("begun").brains, brains);
    });
}

#[test]
fn that_values_are_missing_is_remembered_until_the_tree_begins_anew() {
    every_spool(|spool| {
        Writer::new().fill(spool, 1);
        let is_incomplete =
            |spool: &mut dyn Spool| spool.load().expect("loads").expect("begun").incomplete;
        assert!(!is_incomplete(spool));
        for incomplete in [true, false] {
            let commit = Commit { incomplete: Some(incomplete), ..Commit::default() };
            spool.commit(&commit).expect("committed");
            spool.commit(&Commit::default()).expect("committed");
            assert_eq!(is_incomplete(spool), incomplete);
        }
    });
}

#[test]
fn a_file_survives_its_process() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("spool.db");
    let mut writer = Writer::new();
    let (mut spool, _) = open(path.clone()).expect("opens");
    let entries = writer.fill(&mut spool, 3);
    drop(spool);
    let (mut spool, loaded) = open(path).expect("opens again");
    assert_eq!(loaded.expect("begun").logs.len(), 1);
    assert_eq!(spool.range(0, 0, usize::MAX).expect("reads"), entries);
}

#[test]
fn a_second_agent_is_refused_and_nothing_is_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("spool.db");
    let (_held, _) = open(path.clone()).expect("opens");
    let error = SqliteSpool::open_or_set_aside(&path, Options::default(), 0).expect_err("held");
    assert!(matches!(error, SpoolError::InUse), "{error}");
    assert!(path.exists());
}

#[test]
fn another_format_is_refused_and_kept() {
    for other in [1, FORMAT_VERSION + 1] {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("spool.db");
        drop(open(path.clone()).expect("opens"));
        let raw = rusqlite::Connection::open(&path).expect("opens");
        raw.pragma_update(None, "user_version", other).expect("written");
        drop(raw);
        let opened = SqliteSpool::open_or_set_aside(&path, Options::default(), 0);
        let (SpoolError::FormatNewer { found } | SpoolError::FormatOlder { found }) =
            opened.expect_err("another")
        else {
            panic!("format {other}");
        };
        assert_eq!(found, other);
        assert!(path.exists());
    }
}

#[test]
fn the_format_before_this_one_is_taken_over_with_all_that_it_holds() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("spool.db");
    let (mut spool, _) = open(path.clone()).expect("opens");
    let entries = Writer::new().fill(&mut spool, 3);
    drop(spool);
    let raw = rusqlite::Connection::open(&path).expect("opens");
    raw.execute_batch("DROP TABLE seals; PRAGMA user_version = 2").expect("as it was");
    drop(raw);
    for _ in 0..2 {
        let (mut spool, loaded) = open(path.clone()).expect("opens");
        assert!(loaded.is_some());
        assert_eq!(spool.range(0, 0, usize::MAX).expect("reads"), entries);
        assert_eq!(spool.seal(0, 0, 9).expect("reads"), None);
    }
}

#[test]
fn a_flipped_bit_in_a_row_is_found_and_the_file_set_aside() {
    for table in ["entries", "leaves", "logs", "meta"] {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("spool.db");
        let (mut spool, _) = open(path.clone()).expect("opens");
        Writer::new().fill(&mut spool, 3);
        drop(spool);
        let raw = rusqlite::Connection::open(&path).expect("opens");
        let sql = format!("UPDATE {table} SET bytes = CAST(bytes || x'00' AS BLOB)");
        raw.execute(&sql, []).expect("damaged");
        drop(raw);
        let opened = SqliteSpool::open_or_set_aside(&path, Options::default(), 77);
        let opened = opened.expect("opens anew");
        let damage = opened.damage.expect("noticed");
        assert!(damage.what.contains(table), "{}", damage.what);
        assert!(damage.set_aside.ends_with("spool.damaged-77.db") && damage.set_aside.exists());
        assert!(opened.loaded.is_none());
    }
}

#[test]
fn garbage_is_set_aside() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("spool.db");
    std::fs::write(&path, vec![0xA5; 8_192]).expect("garbage");
    let opened = SqliteSpool::open_or_set_aside(&path, Options::default(), 1).expect("opens");
    let damage = opened.damage.expect("noticed");
    assert_eq!(std::fs::read(damage.set_aside).expect("kept"), vec![0xA5; 8_192]);
}

#[test]
fn a_full_disk_is_told_and_nothing_is_half_written() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = dir.path().join("spool.db");
    let (mut spool, _) = open(path).expect("opens");
    let mut writer = Writer::new();
    writer.fill(&mut spool, 1);
    spool.limit_pages_to_present();
    let path = Path::new("reported/text").expect("a path");
    let leaf = |text: &str| protocol::history::Leaf {
        candidates: vec![protocol::history::Candidate {
            log: 0,
            seq: 1,
            value: Some(Value::from(text)),
            hlc: Default::default(),
            lease_until_ms: None,
            policy: 0,
            source: protocol::state::StateSource::Hardware,
        }],
    };
    let commit = Commit {
        leaves: [(path.clone(), Some(leaf(&"x".repeat(16_000))))].into(),
        ..Commit::default()
    };
    let error = spool.commit(&commit).expect_err("no room");
    assert!(matches!(error, SpoolError::DiskFull), "{error}");
    assert!(!error.is_damage());
    assert!(!spool.load().expect("loads").expect("begun").leaves.contains_key(&path));
}
