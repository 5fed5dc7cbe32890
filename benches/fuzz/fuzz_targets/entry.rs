//! Entries: one canonical form, one id, the same over the wire, and a door that never panics.
//!
//! The input's first byte chooses: canonical bytes for the independent reader, or a script that
//! writes, admits and applies entries of three authors.

#![no_main]

use fuzz::fleet::{self, BASE_MS, DEVICE, genesis, key};
use fuzz::script::{Script, ScriptWriter};
use fuzz::{canonical, memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec;
use protocol::history::{Admission, ENTRY_BYTES_MAX, Entry, LogId, Refusal, Role, Tree, admit};
use protocol::wire::Batch;

const HELD_BYTES_MAX: usize = 16 << 20;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    let Some((how, rest)) = input.split_first() else { return };
    memory::bounded(HELD_BYTES_MAX, || match how % 2 {
        0 => read(rest),
        _ => write(Script::new(rest)),
    });
});

/// What the reader takes for an entry is that entry's canonical form, and no other's.
fn read(bytes: &[u8]) {
    let Some(entry) = canonical::read_entry(bytes) else { return };
    assert_eq!(entry.canonical(), bytes, "an entry has one canonical form");
    assert_eq!(entry.id().0, *blake3_of(bytes), "the id is the hash of the form");
    if entry.delta.changes().all(|(_, value)| value.is_none_or(|value| value.check().is_ok())) {
        over_the_wire(&entry);
    }
}

fn blake3_of(bytes: &[u8]) -> Box<[u8; 32]> {
    Box::new(*blake3::hash(bytes).as_bytes())
}

/// Admits and applies entries of the device, the brain and a stranger, in any order.
fn write(mut script: Script<'_>) {
    let mut tree = Tree::new(genesis());
    let roles = [Role::Brain, Role::Owner(DEVICE), Role::Member(DEVICE)];
    for _ in 0..64 {
        if script.is_over() {
            break;
        }
        let who = script.below(3);
        let log =
            LogId { author: key(2 + who as u8).public(), epoch: u64::from(script.byte() % 2) };
        let known = tree.log(&log).map(|known| (known.seq, known.head, known.hlc));
        let (seq, prev, last) = known.unwrap_or((0, Entry::NO_PREV, Default::default()));
        let skew = script.below(8);
        let (seq, prev) = match skew {
            0 => (script.number(), prev),
            1 => (seq + 1, Entry::NO_PREV),
            _ => (seq + 1, prev),
        };
        let mut entry = fleet::entry(&mut script, log, seq, prev);
        if skew > 3 {
            // Like an honest author: later than before, and aware of all that is here.
            entry.hlc.wall_ms = last.wall_ms.max(BASE_MS) + 1;
            let mut seen = tree.vector();
            seen.remove(&log);
            entry.seen = seen;
        }
        if entry.delta.changes().all(|(_, value)| value.is_none_or(|value| value.check().is_ok())) {
            over_the_wire(&entry);
        }
        let id = entry.id();
        let before = tree.clone();
        match admit(&tree, &entry, id, roles[who], BASE_MS) {
            Ok(Admission::New) => {
                assert!(entry.canonical().len() <= ENTRY_BYTES_MAX && entry.delta.is_disjoint());
                let touched = tree.apply(&entry, id);
                assert_eq!(
                    touched.len(),
                    if entry.kind.is_known() { entry.delta.len() } else { 0 }
                );
                assert_eq!(
                    admit(&tree, &entry, id, roles[who], BASE_MS),
                    Ok(Admission::Known),
                    "an entry is taken once"
                );
            }
            Ok(Admission::Known) => assert!(seq <= known.map_or(0, |(seq, ..)| seq)),
            Err(refusal) => {
                let _: (_, String) = (refusal.code(), refusal.to_string());
                let fatal = refusal.is_fatal();
                assert!(!matches!(refusal, Refusal::MissingCause { .. }) || !fatal);
                assert_eq!(tree, before, "a refusal changes nothing");
            }
        }
        let restored = Tree::restore(genesis(), tree.logs().to_vec(), tree.leaves().clone());
        assert_eq!(restored.root(), tree.root(), "a tree is its logs and leaves");
    }
    let _ = (tree.state(), tree.effective(BASE_MS));
}

/// Packed and unpacked, an entry is the same and has the same id.
fn over_the_wire(entry: &Entry) {
    assert_eq!(canonical::read_entry(&entry.canonical()).as_ref(), Some(entry));
    let texts = [&entry.provenance.principal, &entry.provenance.reason];
    let sound = entry.delta.is_disjoint()
        && entry.seq < u64::MAX
        && texts.into_iter().all(|text| text.len() <= protocol::history::TEXT_BYTES_MAX);
    if !sound {
        return;
    }
    let batch = must(Batch::pack(std::slice::from_ref(entry)), "one entry is a batch");
    let batch: Batch = must(codec::decode(&codec::encode(&batch)), "an own batch decodes");
    assert_eq!(must(batch.unpack(), "an own batch unpacks"), [(entry.id(), entry.clone())]);
}

fn seeds() -> Vec<seeds::Seed> {
    let with = |how: u8, bytes: &[u8]| [&[how], bytes].concat();
    let mut all: Vec<_> = seeds::canonical_entries()
        .into_iter()
        .map(|(name, bytes)| (name, with(0, &bytes)))
        .collect();
    // Twelve honest steps of each author in turn.
    let mut script = ScriptWriter::default();
    for n in 0..12u8 {
        script =
            script.byte(n % 3).byte(0).byte(4).byte(1).byte(0).byte([3, 0, 3][usize::from(n % 3)]);
        script = script.byte(n % 4).byte(1).byte(1).byte(n).byte(0).byte(n % 5);
        script = script.bytes(b"user:ada").bytes(b"test").byte(0).byte(n).byte(0).byte(0).byte(0);
    }
    all.push(("three_authors".to_owned(), with(1, &script.finish())));
    all
}
