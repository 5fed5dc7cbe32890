//! The door of a tree: every reason to refuse an entry, with its code; none changes the tree.

use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{
    Admission, Cut, ENTRY_BYTES_MAX, Entry, EntryKind, Genesis, Head, LEAVES_MAX, LOGS_MAX, LogId,
    Provenance, Refusal, Role, SignedHead, TEXT_BYTES_MAX, Tree, TreeKind, VersionVector, admit,
};
use protocol::keys::Keypair;
use protocol::state::{Path, Scalar, StateDelta, StateSource, Value};
use protocol::{DeviceId, EntryId, ErrorCode, FleetId, PublicKey, TreeId};

const NOW_MS: u64 = 1_700_000_000_000;
const DEVICE: DeviceId = DeviceId([0xD1; 16]);
const OWNER: Role = Role::Owner(DEVICE);

fn genesis() -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FleetId([1; 16]), name: DEVICE.to_string() }
}

fn device_key() -> Keypair {
    Keypair::from_seed(&[3; 32])
}

fn device_log() -> LogId {
    LogId { author: device_key().public(), epoch: 1 }
}

fn brain_log() -> LogId {
    LogId { author: PublicKey([2; 32]), epoch: 1 }
}

fn set(text: &str, value: impl Into<Value>) -> StateDelta {
    let mut delta = StateDelta::default();
    delta.added.insert(Path::new(text).expect("valid"), value.into());
    delta
}

/// An entry that follows `log`'s head in `tree` and is in order.
fn next(tree: &Tree, log: LogId, delta: StateDelta) -> Entry {
    let (seq, prev) = tree.log(&log).map_or((0, Entry::NO_PREV), |log| (log.seq, log.head));
    Entry {
        tree: tree.id(),
        log,
        seq: seq + 1,
        prev,
        seen: VersionVector::default(),
        hlc: Hlc { wall_ms: NOW_MS - 1_000 + seq, counter: 0 },
        clock: ClockQuality::Synchronised,
        provenance: Provenance::new(StateSource::Edge, "user:ada", "test"),
        policy: 0,
        kind: EntryKind::STATE,
        schema: 1,
        lease_until_ms: None,
        delta,
        extra: Vec::new(),
    }
}

fn grow(tree: &mut Tree, log: LogId, role: Role, delta: StateDelta) -> EntryId {
    let entry = next(tree, log, delta);
    let id = entry.id();
    assert_eq!(admit(tree, &entry, id, role, NOW_MS), Ok(Admission::New));
    tree.apply(&entry, id);
    id
}

/// A tree with three entries of the device and two of a brain.
fn tree() -> Tree {
    let mut tree = Tree::new(genesis());
    for n in 0..3 {
        grow(&mut tree, device_log(), OWNER, set("reported/n", n));
    }
    for n in 0..2 {
        grow(&mut tree, brain_log(), Role::Brain, set("desired/n", n));
    }
    tree
}

/// The refusal of an entry, after a check that the question changed nothing.
fn refusal(tree: &Tree, entry: &Entry, role: Role) -> Refusal {
    let before = tree.clone();
    let refusal = admit(tree, entry, entry.id(), role, NOW_MS).expect_err("not in order");
    assert_eq!(*tree, before);
    refusal
}

/// The kinds of disorder that are not refused under their code.
fn disorders_taken() -> Vec<&'static str> {
    let tree = tree();
    type Break = fn(&mut Entry);
    let cases: [(&str, ErrorCode, Break); 14] = [
        ("another tree", ErrorCode::UnknownTree, |e| e.tree = TreeId([9; 32])),
        ("a gap", ErrorCode::SequenceGap, |e| e.seq = 5),
        ("another entry at the head", ErrorCode::Equivocation, |e| e.seq = 3),
        ("number 0", ErrorCode::Equivocation, |e| e.seq = 0),
        ("another past", ErrorCode::Equivocation, |e| e.prev = EntryId([9; 32])),
        ("a cause beyond a log's head", ErrorCode::MissingCause, |e| {
            e.seen.advance(brain_log(), 3)
        }),
        ("a cause in an unknown log", ErrorCode::MissingCause, |e| {
            e.seen.advance(LogId { author: PublicKey([9; 32]), epoch: 1 }, 1);
        }),
        ("its own log as a cause", ErrorCode::MissingCause, |e| e.seen.advance(device_log(), 3)),
        ("60.001 s ahead", ErrorCode::ClockAhead, |e| e.hlc.wall_ms = NOW_MS + 60_001),
        ("dated as the entry before", ErrorCode::Malformed, |e| e.hlc.wall_ms -= 1),
        ("a path named twice", ErrorCode::Malformed, |e| {
            e.delta.removed.insert(Path::new("reported/n").expect("valid"));
        }),
        ("a long principal", ErrorCode::TooLarge, |e| {
            e.provenance.principal = "p".repeat(TEXT_BYTES_MAX + 1);
        }),
        ("a long reason", ErrorCode::TooLarge, |e| {
            e.provenance.reason = "r".repeat(TEXT_BYTES_MAX + 1);
        }),
        ("too many bytes", ErrorCode::TooLarge, |e| e.extra = vec![0; ENTRY_BYTES_MAX]),
    ];
    let taken = cases.into_iter().filter(|(name, code, break_it)| {
        let mut entry = next(&tree, device_log(), set("reported/n", 7));
        assert_eq!(admit(&tree, &entry, entry.id(), OWNER, NOW_MS), Ok(Admission::New), "{name}");
        break_it(&mut entry);
        let before = tree.clone();
        let answer = admit(&tree, &entry, entry.id(), OWNER, NOW_MS);
        assert_eq!(tree, before, "the question changes nothing");
        answer.map_err(|refusal| refusal.code()) != Err(*code)
    });
    taken.map(|(name, ..)| name).collect()
}

#[test]
fn every_disorder_is_refused_under_its_code() {
    assert_eq!(disorders_taken(), Vec::<&str>::new());
}

#[test]
fn limits_are_met_exactly() {
    let tree = tree();
    let admitted = |change: &dyn Fn(&mut Entry)| {
        let mut entry = next(&tree, device_log(), set("reported/n", 7));
        change(&mut entry);
        admit(&tree, &entry, entry.id(), OWNER, NOW_MS)
    };
    let base = next(&tree, device_log(), set("reported/n", 7)).canonical().len();
    let room = ENTRY_BYTES_MAX - base;
    assert_eq!(admitted(&|e| e.extra = vec![0; room]), Ok(Admission::New));
    let found = ENTRY_BYTES_MAX + 1;
    let too_large = Refusal::TooLarge { what: "entry", found, limit: ENTRY_BYTES_MAX };
    assert_eq!(admitted(&|e| e.extra = vec![0; room + 1]), Err(too_large));
    assert_eq!(admitted(&|e| e.provenance.reason = "r".repeat(TEXT_BYTES_MAX)), Ok(Admission::New));
    assert_eq!(admitted(&|e| e.hlc.wall_ms = NOW_MS + 59_999), Ok(Admission::New));
    assert_eq!(admitted(&|e| e.hlc.wall_ms = NOW_MS + 60_000), Ok(Admission::New));
    let counted = |e: &mut Entry| (e.hlc.wall_ms, e.hlc.counter) = (e.hlc.wall_ms - 1, 1);
    assert_eq!(admitted(&counted), Ok(Admission::New), "the counter alone is later");
}

#[test]
fn each_role_writes_its_own_segments_only() {
    let tree = tree();
    let cases = [
        (OWNER, "reported/a", true),
        (OWNER, "override/a", true),
        (OWNER, "claims/a", true),
        (OWNER, "desired/a", false),
        (OWNER, "tags/a", false),
        (OWNER, "shared/a", false),
        (Role::Brain, "desired/a", true),
        (Role::Brain, "tags/a", true),
        (Role::Brain, "reported/a", false),
        (Role::Brain, "override/a", false),
        (Role::Member(DEVICE), "reported/a", false),
        (Role::Member(DEVICE), "desired/a", false),
    ];
    for (role, path, allowed) in cases {
        let log = if role == Role::Brain { brain_log() } else { device_log() };
        let entry = next(&tree, log, set(path, 1));
        match admit(&tree, &entry, entry.id(), role, NOW_MS) {
            Ok(Admission::New) => assert!(allowed, "{role:?} {path}"),
            other => {
                let refused = other.expect_err("a new entry is not known");
                assert!(!allowed && refused.code() == ErrorCode::Forbidden, "{role:?} {path}");
                assert_eq!(refusal(&tree, &entry, role), refused);
            }
        }
    }
}

#[test]
fn one_forbidden_path_refuses_the_whole_entry() {
    let tree = tree();
    let mut delta = set("reported/a", 1);
    delta.removed.insert(Path::new("desired/n").expect("valid"));
    let entry = next(&tree, device_log(), delta);
    assert_eq!(refusal(&tree, &entry, OWNER).code(), ErrorCode::Forbidden);
}

#[test]
fn a_full_tree_takes_no_further_leaf_but_changes_those_it_has() {
    let mut tree = Tree::new(genesis());
    let path = |n: usize| Path::new(&format!("reported/{n:05}")).expect("valid");
    for first in (0..LEAVES_MAX).step_by(1_000) {
        let mut delta = StateDelta::default();
        delta.added.extend((first..first + 1_000).map(|n| (path(n), Value::from(true))));
        grow(&mut tree, device_log(), OWNER, delta);
    }
    assert_eq!(tree.leaves().len(), LEAVES_MAX);
    let entry = next(&tree, device_log(), set("reported/more", 1));
    let full = Refusal::TreeFull { what: "leaves", limit: LEAVES_MAX };
    assert_eq!((refusal(&tree, &entry, OWNER), full.code()), (full, ErrorCode::TreeFull));
    grow(&mut tree, device_log(), OWNER, set("reported/00007", 1));
}

#[test]
fn a_tree_full_of_logs_takes_no_further_log() {
    let mut tree = Tree::new(genesis());
    for epoch in 0..LOGS_MAX as u64 {
        let log = LogId { epoch, ..device_log() };
        let entry = next(&tree, log, set("reported/n", 1));
        tree.apply(&entry, entry.id());
    }
    let entry = next(&tree, brain_log(), set("desired/n", 1));
    let full = Refusal::TreeFull { what: "logs", limit: LOGS_MAX };
    assert_eq!(refusal(&tree, &entry, Role::Brain), full);
    let known = LogId { epoch: 5, ..device_log() };
    let entry = next(&tree, known, set("reported/m", 1));
    assert_eq!(admit(&tree, &entry, entry.id(), OWNER, NOW_MS), Ok(Admission::New));
}

/// What the door says to the three entries that the tree has.
fn asked_again() -> Vec<Result<Admission, Refusal>> {
    let tree = tree();
    let mut again = Tree::new(genesis());
    let ask = |n: i64| {
        let entry = next(&again, device_log(), set("reported/n", n));
        again.apply(&entry, entry.id());
        admit(&tree, &entry, entry.id(), OWNER, NOW_MS)
    };
    (0..3).map(ask).collect()
}

#[test]
fn what_is_here_already_is_known() {
    assert_eq!(asked_again(), vec![Ok(Admission::Known); 3]);
}

#[cfg(feature = "planted-faults")]
mod planted {
    use protocol::planted::{Fault, plant};

    use super::*;

    #[test]
    fn a_door_that_knows_no_entry_again_is_noticed() {
        let _planted = plant(Fault::DedupOff);
        // Broken: an entry is taken once, and a log has one entry of each number.
        assert_eq!(asked_again(), vec![Ok(Admission::New); 3]);
        assert_eq!(disorders_taken(), ["another entry at the head", "number 0"]);
    }

    #[test]
    fn a_door_without_a_bound_on_clocks_is_noticed() {
        let _planted = plant(Fault::ClockBoundOff);
        // Broken: what is dated more than 60 s ahead is not taken.
        assert_eq!(disorders_taken(), ["60.001 s ahead"]);
    }
}

#[test]
fn a_cut_log_ends_where_it_was_cut() {
    let mut tree = tree();
    let id = tree.log(&device_log()).expect("known").head;
    let late = next(&tree, device_log(), set("reported/n", 9));
    let cut = Cut::seal(&device_key(), tree.id(), device_log(), 3, id);
    assert_eq!(tree.take_cut(cut), []);
    let refused = refusal(&tree, &late, OWNER);
    assert_eq!(refused, Refusal::LogCut { log: device_log(), seq: 4, last_seq: 3 });
    assert_eq!(refused.code(), ErrorCode::LogCut);
}

#[test]
fn a_lower_cut_drops_what_lies_above_it_and_a_higher_one_changes_nothing() {
    let mut tree = tree();
    grow(&mut tree, device_log(), OWNER, set("reported/late", Value::List(vec![Scalar::Int(1)])));
    let cut = |last_seq: u64| {
        Cut::seal(&device_key(), tree.id(), device_log(), last_seq, EntryId([last_seq as u8; 32]))
    };
    let (low, high) = (cut(3), cut(4));
    assert_eq!(tree.take_cut(low), [Path::new("reported/late").expect("valid")]);
    assert_eq!(tree.vector().get(&device_log()), 3);
    let before = tree.clone();
    assert_eq!(tree.take_cut(high), []);
    assert_eq!(tree, before);
}

#[test]
fn a_cause_above_the_end_of_its_log_is_no_cause() {
    // The brain had seen entry 4 of the device's log before that log was cut at 3.
    let mut tree = tree();
    let mut entry = next(&tree, brain_log(), set("desired/n", 9));
    entry.seen.advance(device_log(), 4);
    assert_eq!(refusal(&tree, &entry, Role::Brain).code(), ErrorCode::MissingCause);
    let id = tree.log(&device_log()).expect("known").head;
    tree.take_cut(Cut::seal(&device_key(), tree.id(), device_log(), 3, id));
    assert_eq!(admit(&tree, &entry, entry.id(), Role::Brain, NOW_MS), Ok(Admission::New));
}

#[test]
fn a_signed_head_counts_only_as_far_as_the_log_is_here_and_agrees() {
    let mut tree = tree();
    let id = tree.log(&device_log()).expect("known").head;
    let sign = |seq, id| {
        let head = Head { tree: tree.id(), log: device_log(), seq, id };
        SignedHead::sign(&device_key(), head)
    };
    let (beyond, forked, low, good) =
        (sign(4, id), sign(3, EntryId([9; 32])), sign(2, EntryId([2; 32])), sign(3, id));
    assert!(!tree.take_signed_head(beyond));
    assert!(!tree.take_signed_head(forked));
    assert!(tree.take_signed_head(good));
    assert!(!tree.take_signed_head(low), "a lower head is no news");
    assert_eq!(tree.sealed().get(&device_log()), 3);
}
