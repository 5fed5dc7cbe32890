//! Batches: what unpacks packs again, and keeps its limits.

#![no_main]

use fuzz::fleet::{BASE_MS, genesis};
use fuzz::{canonical, memory, must, seeds};
use libfuzzer_sys::fuzz_target;
use protocol::codec;
use protocol::history::{Admission, ENTRY_BYTES_MAX, Role, TEXT_BYTES_MAX, Tree, admit};
use protocol::state::{PATH_BYTES_MAX, VALUE_BYTES_MAX};
use protocol::wire::{BATCH_ENTRIES_MAX, Batch};

/// A batch of 256 KiB unpacks to no more than this: its texts may repeat with every entry.
const HELD_BYTES_MAX: usize = 32 << 20;

fuzz_target!(init: seeds::write(seeds), |input: &[u8]| {
    memory::bounded(HELD_BYTES_MAX, || check(input));
});

fn check(input: &[u8]) {
    let Ok(batch) = codec::decode::<Batch>(input) else { return };
    let encoded = codec::encode(&batch);
    assert_eq!(must(codec::decode::<Batch>(&encoded), "an own batch decodes"), batch);
    let (first_seq, length, last_seq) = (batch.first_seq, batch.len(), batch.last_seq());
    let (tree, log, mut prev) = (batch.tree, batch.log, batch.prev);
    let unpacked = match batch.unpack() {
        Ok(unpacked) => unpacked,
        Err(error) => {
            let _ = (error.code(), error.to_string());
            return;
        }
    };
    assert!(unpacked.len() == length && (1..=BATCH_ENTRIES_MAX).contains(&length));
    for ((id, entry), seq) in unpacked.iter().zip(first_seq..) {
        assert_eq!((entry.tree, entry.log, entry.seq, entry.prev), (tree, log, seq, prev));
        assert_eq!(*id, entry.id(), "the id is the hash of the entry");
        let texts = [&entry.provenance.principal, &entry.provenance.reason];
        assert!(texts.into_iter().all(|text| text.len() <= TEXT_BYTES_MAX));
        for (path, value) in entry.delta.changes() {
            assert!(path.as_str().len() <= PATH_BYTES_MAX);
            assert!(value.is_none_or(|value| value.size_bytes() <= VALUE_BYTES_MAX));
        }
        assert_eq!(canonical::read_entry(&entry.canonical()).as_ref(), Some(entry));
        prev = *id;
    }
    assert_eq!(unpacked.last().map(|(_, entry)| entry.seq), Some(last_seq));
    let entries: Vec<_> = unpacked.iter().map(|(_, entry)| entry.clone()).collect();
    let again = must(Batch::pack(&entries), "what unpacks packs");
    assert_eq!(must(again.unpack(), "what packs unpacks"), unpacked);
    fold(unpacked);
}

/// The door takes or refuses each entry; what it takes can be applied.
fn fold(unpacked: Vec<(protocol::EntryId, protocol::history::Entry)>) {
    let mut tree = Tree::new(genesis());
    let now_ms = BASE_MS + 10_000;
    for (id, entry) in unpacked {
        match admit(&tree, &entry, id, Role::Owner(fuzz::fleet::DEVICE), now_ms) {
            Ok(Admission::New) => {
                assert!(entry.canonical().len() <= ENTRY_BYTES_MAX);
                tree.apply(&entry, id);
            }
            Ok(Admission::Known) => {}
            Err(refusal) => {
                let _ = (refusal.code(), refusal.is_fatal(), refusal.to_string());
            }
        }
    }
    let _ = (tree.root(), tree.state(), tree.effective(now_ms));
}

fn seeds() -> Vec<seeds::Seed> {
    let mut all: Vec<_> =
        seeds::records().into_iter().filter(|(name, _)| name == "batch").collect();
    let metered = |count: u64| {
        let mut prev = protocol::history::Entry::NO_PREV;
        let entries: Vec<_> = (1..=count)
            .map(|seq| {
                let script = [1, 0, 0, (seq % 4) as u8, 1, 2, seq as u8, (seq >> 8) as u8];
                let mut script = fuzz::script::Script::new(&script);
                let mut entry =
                    fuzz::fleet::entry(&mut script, fuzz::fleet::device_log(), seq, prev);
                entry.hlc.wall_ms = BASE_MS + seq;
                prev = entry.id();
                entry
            })
            .collect();
        codec::encode(&must(Batch::pack(&entries), "consecutive"))
    };
    for count in [1, 10, 100, 1_024] {
        all.push((format!("metered_{count}"), metered(count)));
    }
    all
}
