//! A side that keeps its old entries no longer, and a checkpoint in their place.

use protocol::ErrorCode;
use protocol::codec;
use protocol::session::Input;
use protocol::state::Value;
use protocol::wire::{CheckpointPart, Message, MessageKind, PART_BYTES_MAX};

use super::store::Store;
use super::world::{BASE_MS, Link};

/// A brain that has written and pruned, and goes on writing.
fn pruned_brain(count: u64) -> Store {
    let mut brain = Store::brain();
    for n in 0..count {
        brain.write(&format!("old{}", n % 7), n as i64, BASE_MS);
    }
    brain.seal();
    brain.prune();
    for n in 0..5 {
        brain.write("new", n, BASE_MS);
    }
    brain.seal();
    brain
}

fn assert_alike(link: &Link) {
    let (device, brain) = (&link.caller.store.tree, &link.answerer.store.tree);
    assert_eq!(device.vector(), brain.vector());
    assert_eq!(device.root(), brain.root());
    assert_eq!(device.state(), brain.state());
    assert_eq!(device.sealed(), brain.sealed());
    assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
}

fn checkpoints(link: &Link) -> usize {
    link.delivered.iter().filter(|(_, kind)| *kind == MessageKind::Checkpoint).count()
}

#[test]
fn who_stands_below_what_is_kept_gets_a_checkpoint_and_the_entries_after_it() {
    let mut device = Store::device();
    // It has written meanwhile, and that stays.
    device.write("own", 7, BASE_MS);
    device.seal();
    let mut link = Link::connect(device, pruned_brain(300), 1);
    link.run();
    assert_alike(&link);
    assert_eq!(checkpoints(&link), 1);
    let kept = link.caller.store.logs.values().map(Vec::len).max();
    assert_eq!(kept, Some(5), "the entries that the brain has");
    // The next connection has nothing to say about it.
    let (device, brain) = link.cut();
    let mut again = Link::connect(device, brain, 2);
    again.run();
    assert_alike(&again);
    assert_eq!(checkpoints(&again), 0);
    again.answerer.write(3, again.now_ms);
    again.caller.write(2, again.now_ms);
    again.run();
    assert_alike(&again);
}

#[test]
fn who_has_what_was_pruned_gets_entries_only() {
    let (mut device, mut brain) = (Store::device(), Store::brain());
    for store in [&mut device, &mut brain] {
        store.write("start", 1, BASE_MS);
        store.seal();
    }
    let mut link = Link::connect(device, brain, 1);
    link.run();
    link.answerer.store.prune();
    let floor = link.answerer.store.floor();
    link.answerer.feed(Input::Pruned(floor), link.now_ms);
    link.answerer.write(3, link.now_ms);
    link.run();
    assert_alike(&link);
    let (device, mut brain) = link.cut();
    brain.write("more", 2, BASE_MS);
    brain.seal();
    let mut link = Link::connect(device, brain, 2);
    link.run();
    assert_alike(&link);
    assert_eq!(checkpoints(&link), 0);
}

#[test]
fn a_large_checkpoint_comes_in_parts_and_one_cut_in_between_comes_anew() {
    let mut brain = Store::brain();
    for n in 0..60u8 {
        let noise: String =
            (0..8_000u32).map(|i| char::from(b'a' + ((i * i + 7) % 23) as u8)).collect();
        brain.write(&format!("leaf{n}"), Value::from(format!("{n}{noise}").as_str()), BASE_MS);
    }
    brain.seal();
    brain.prune();
    let mut link = Link::connect(Store::device(), brain, 1);
    while checkpoints(&link) < 3 {
        assert!(link.step(true), "a checkpoint of many parts");
    }
    let (device, brain) = link.cut();
    assert!(device.tree.leaves().is_empty());
    let mut link = Link::connect(device, brain, 2);
    link.run();
    assert_alike(&link);
    assert!(checkpoints(&link) >= 480_000 / PART_BYTES_MAX);
}

#[test]
fn what_is_pruned_while_connected_is_made_up_for() {
    let mut link = Link::established();
    link.caller.paused = true;
    link.answerer.write(2, link.now_ms);
    link.answerer.store.prune();
    let floor = link.answerer.store.floor();
    link.answerer.feed(Input::Pruned(floor), link.now_ms);
    link.answerer.write(2, link.now_ms);
    link.run();
    link.caller.paused = false;
    link.caller.resume(link.now_ms);
    link.run();
    assert_alike(&link);
}

#[test]
fn a_device_that_sends_a_checkpoint_is_turned_away() {
    let mut link = Link::established();
    let tree = link.caller.store.tree.id();
    let bytes = vec![0; 100];
    link.forge_to_answerer(&Message::Checkpoint(CheckpointPart { tree, part: 0, parts: 1, bytes }));
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::UnexpectedFrame, false)));
}

#[test]
fn parts_out_of_order_too_many_or_unsigned_end_the_connection() {
    let brain = pruned_brain(3);
    let good = codec::encode(&brain.checkpoint());
    let mut forged = brain.checkpoint();
    forged.leaves.clear();
    let mut stolen = brain.checkpoint();
    stolen.authority = super::store::key(9).public();
    let tree = brain.tree.id();
    let part =
        |part, parts, bytes: &[u8]| CheckpointPart { tree, part, parts, bytes: bytes.to_vec() };
    let full = vec![0; PART_BYTES_MAX];
    let too_much: Vec<_> = (0..100).map(|n| part(n, 200, &full)).collect();
    let cases: [(&[CheckpointPart], ErrorCode); 6] = [
        (&[part(1, 2, &good)], ErrorCode::Malformed),
        (&[part(0, 0, &good)], ErrorCode::Malformed),
        (&[part(0, 1, &[1, 2, 3])], ErrorCode::Truncated),
        (&[part(0, 1, &codec::encode(&forged))], ErrorCode::BadSignature),
        (&[part(0, 1, &codec::encode(&stolen))], ErrorCode::BadSignature),
        (&too_much, ErrorCode::TooLarge),
    ];
    for (parts, code) in cases {
        let mut link = Link::established();
        for part in parts {
            link.forge_to_caller(&Message::Checkpoint(part.clone()));
        }
        assert_eq!(link.caller.ended_as().map(|(code, _)| code), Some(code), "{}", parts.len());
    }
    // A good one is handed over; whether its signer is a brain is for the shell to say.
    let mut link = Link::established();
    link.forge_to_caller(&Message::Checkpoint(part(0, 1, &good)));
    assert_eq!(link.caller.ended_as(), None);
    assert_eq!(link.caller.store.tree.log(&brain.log()).map(|log| log.seq), Some(3));
}
