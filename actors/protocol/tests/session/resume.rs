//! Connections that break, and what the next one makes of it.

use protocol::compress::Compression;
use protocol::session::{Input, Output};
use protocol::wire::{self, Batch, Message, MessageKind, VERSION_MAX};

use super::store::{Store, assert_same};
use super::world::{BASE_MS, Link};

/// Numbers that follow from a seed.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        let factor = 6_364_136_223_846_793_005;
        self.0 = self.0.wrapping_mul(factor).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// A device and a brain that know nothing of each other yet.
fn strangers() -> (Store, Store) {
    let (mut device, mut brain) = (Store::device(), Store::brain());
    for n in 0..8 {
        device.write("start", n, BASE_MS);
        brain.write("start", n, BASE_MS);
    }
    device.seal();
    brain.seal();
    (device, brain)
}

/// Delivers up to `frames` frames; both sides go on writing while they talk.
fn talk(link: &mut Link, frames: usize) -> usize {
    for n in 0..frames {
        if !link.step(n % 3 != 0) {
            return n;
        }
        link.now_ms += 10;
        if n < 24 && n % 4 == 1 {
            link.caller.write(1 + n as u64 % 3, link.now_ms);
        }
        if n < 24 && n % 5 == 2 {
            link.answerer.write(2, link.now_ms);
        }
    }
    frames
}

#[test]
fn a_connection_cut_at_any_frame_is_resumed() {
    let whole = {
        let (device, brain) = strangers();
        let mut link = Link::connect(device, brain, 1);
        let frames = talk(&mut link, usize::MAX);
        assert_same(&link.caller.store, &link.answerer.store);
        frames
    };
    assert!(whole > 40, "{whole} frames are enough to cut at");
    for cut_at in 0..=whole {
        let (device, brain) = strangers();
        let mut link = Link::connect(device, brain, 1);
        talk(&mut link, cut_at);
        let now_ms = link.now_ms;
        let (mut device, mut brain) = link.cut();
        // Both go on while they are apart.
        device.write("apart", cut_at as i64, BASE_MS + now_ms);
        device.seal();
        brain.write("apart", cut_at as i64, BASE_MS + now_ms);
        brain.seal();
        let mut link = Link::connect(device, brain, 2);
        link.run();
        assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
        assert_same(&link.caller.store, &link.answerer.store);
        let duplicates = link.caller.store.duplicates + link.answerer.store.duplicates;
        assert_eq!(duplicates, 0, "cut at frame {cut_at}: nothing crosses twice");
    }
}

#[test]
fn two_hundred_seeds_of_drops_end_in_one_state() {
    for seed in 0..200 {
        let mut random = Random(seed);
        let (device, brain) = strangers();
        let mut link = Link::connect(device, brain, 1);
        let mut epoch = 1;
        for _ in 0..120 {
            let now_ms = link.now_ms;
            match random.below(16) {
                0 => {
                    let n = random.below(250) as u8;
                    let (mut device, brain) = link.cut();
                    if random.below(3) == 0 {
                        epoch += 1;
                        device.open_epoch(epoch);
                    }
                    link = Link::connect(device, brain, n);
                    link.now_ms = now_ms;
                }
                1 | 2 => link.caller.write(1 + random.below(5), now_ms),
                3 | 4 => link.answerer.write(1 + random.below(5), now_ms),
                5 => link.answerer.paused = true,
                6 => link.resume_store(),
                _ => {
                    link.step(random.below(2) == 0);
                }
            }
            link.now_ms += random.below(50);
        }
        let now_ms = link.now_ms;
        let (device, brain) = link.cut();
        let mut link = Link::connect(device, brain, 251);
        link.now_ms = now_ms;
        link.run();
        assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None), "seed {seed}");
        assert!(link.caller.events.iter().all(|e| !matches!(e, Output::PeerRefused(_))));
        assert_same(&link.caller.store, &link.answerer.store);
    }
}

#[test]
fn an_empty_brain_gets_everything_back_in_causal_order() {
    // Device and brain take turns over several epochs, so that every log has causes in others.
    let (mut device, mut brain) = strangers();
    for epoch in 2..6 {
        let mut link = Link::connect(device, brain, epoch as u8);
        link.run();
        for _ in 0..3 {
            link.caller.write(2, link.now_ms);
            link.run();
            link.answerer.write(2, link.now_ms);
            link.run();
        }
        (device, brain) = link.cut();
        device.open_epoch(100 - epoch);
        brain.open_epoch(20 - 3 * epoch);
    }
    let mut restored = Store::brain();
    restored.open_epoch(1_000);
    let mut link = Link::connect(device, restored, 9);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
    assert_eq!(link.answerer.store.tree.root(), brain.tree.root());
    let refused = link.caller.events.iter().any(|e| matches!(e, Output::PeerRefused(_)));
    assert!(!refused, "no entry came before its causes");
    let behind = link.answerer.events.iter().filter(|e| matches!(e, Output::OwnLogBehind { .. }));
    assert_eq!(behind.count(), 4, "the brain hears of each of its logs that it lost");
}

#[test]
fn a_device_whose_disk_went_back_learns_so_and_goes_on_in_a_new_epoch() {
    let mut link = Link::established();
    link.caller.write(3, link.now_ms);
    link.run();
    let backup = link.caller.store.clone();
    link.caller.write(4, link.now_ms);
    link.run();
    let (_, brain) = link.cut();
    let log = backup.log();
    let mut link = Link::connect(backup, brain, 2);
    link.run();
    assert_eq!(link.caller.events[1..], [Output::OwnLogBehind { log, theirs: 7, ours: 3 }]);
    link.caller.store.open_epoch(2);
    link.caller.write(2, link.now_ms);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
    assert_eq!(link.caller.store.tree.vector().get(&log), 7, "what it had lost came back");
}

#[test]
fn a_log_rewritten_from_a_backup_is_not_acknowledged() {
    let mut link = Link::established();
    link.caller.write(3, link.now_ms);
    link.run();
    let mut backup = link.caller.store.clone();
    link.caller.write(1, link.now_ms);
    link.run();
    let (_, brain) = link.cut();
    backup.write("rewritten", 1, BASE_MS + 5_000);
    let log = backup.log();
    let mut link = Link::connect(backup, brain, 2);
    link.run();
    assert_eq!(link.caller.events[1..], [Output::OwnLogBehind { log, theirs: 4, ours: 4 }]);
}

#[test]
fn a_lost_acknowledgement_is_made_up_for_by_the_next_heads() {
    let mut link = Link::established();
    link.caller.write(5, link.now_ms);
    while !link.caller.outbox.is_empty() {
        link.step(true);
    }
    let log = link.caller.store.log();
    assert!(
        !link.caller.events.iter().any(|e| matches!(e, Output::Acked { .. })),
        "all acks are lost"
    );
    let (device, brain) = link.cut();
    let mut link = Link::connect(device, brain, 2);
    link.run();
    assert_eq!(link.caller.events[1..], [Output::Acked { log, stored: 5, sealed: 5 }]);
    let kinds: Vec<_> = link.delivered.iter().map(|(_, kind)| *kind).collect();
    assert!(!kinds.contains(&MessageKind::Entries), "nothing is sent again");
    assert!(!kinds.contains(&MessageKind::SignedHead), "no seal is sent again");
}

#[test]
fn a_lost_seal_is_sent_over_the_next_connection() {
    let mut link = Link::established();
    link.caller.write(5, link.now_ms);
    while link.caller.outbox.len() > 1 {
        link.step(true);
    }
    let log = link.caller.store.log();
    assert_eq!(link.answerer.store.tree.sealed().get(&log), 0);
    let (device, brain) = link.cut();
    let mut link = Link::connect(device, brain, 2);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
}

#[test]
fn what_is_written_during_the_handshake_is_sent() {
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    link.step(true);
    link.caller.write(2, link.now_ms);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
    assert_eq!(link.caller.store.tree.vector().get(&link.caller.store.log()), 2);
}

#[test]
fn an_answer_that_nobody_asked_for_sends_nothing() {
    let mut link = Link::established();
    link.caller.write(4, link.now_ms);
    link.run();
    let log = link.caller.store.log();
    for after in [0, 2, 4] {
        let entries = link.caller.store.fetch(log, after, 1 << 20);
        link.caller.feed(Input::Fetched { log, entries }, link.now_ms);
    }
    assert!(link.caller.outbox.is_empty());
    link.caller.write(1, link.now_ms);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
}

#[test]
fn a_read_that_the_peer_overtook_is_repeated_from_where_it_stands() {
    let mut link = Link::established();
    let mut elsewhere = Store::device();
    elsewhere.open_epoch(9);
    let first = elsewhere.write("a", 1, BASE_MS);
    elsewhere.write("a", 2, BASE_MS);
    let (log, position) = (elsewhere.log(), elsewhere.position(elsewhere.log()));
    let now = link.caller.now(link.now_ms);
    let session = &mut link.caller.session;

    let outputs = session.handle(Input::Stored { log, position, consumed_bytes: 0 }, now);
    assert!(matches!(outputs[..], [Output::Fetch { after: 0, .. }]), "{outputs:?}");
    let batch = Message::Entries(Batch::pack(&[first]).expect("one entry"));
    let frame = wire::encode(&batch, VERSION_MAX, Compression::None);
    let outputs = session.handle(Input::Frame(&frame), now);
    assert!(matches!(outputs[..], [Output::Ingest { .. }]), "{outputs:?}");
    let entries = elsewhere.fetch(log, 0, 1 << 20);
    let outputs = session.handle(Input::Fetched { log, entries }, now);
    assert!(matches!(outputs[..], [Output::Fetch { after: 1, .. }]), "{outputs:?}");
}
