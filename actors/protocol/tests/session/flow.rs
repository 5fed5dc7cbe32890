//! Credit, acknowledgements and the heartbeat.

use protocol::ErrorCode;
use protocol::compress::Compression;
use protocol::history::LogId;
use protocol::session::handshake::Answerer;
use protocol::session::{Input, Limits, Output};
use protocol::wire::{
    self, Ack, BATCH_PLAIN_BYTES, Batch, FRAME_BYTES_MAX, LogPosition, Message, MessageKind,
    VERSION_MAX,
};

use super::store::{Store, assert_same};
use super::world::{BASE_MS, Link, answerer, caller, entries_bytes, sent};

const HEARTBEAT_MS: u64 = 15_000;

/// A device with logs of `entries` entries each, 4 KiB to the entry and not to be compressed.
fn bulky_device(logs: u64, entries: u64) -> Store {
    let mut device = Store::device();
    for epoch in 0..logs {
        device.open_epoch(epoch);
        for n in 0..entries {
            let mut noise = [0; 2_048];
            let mut hash = blake3::Hasher::new();
            hash.update(&[epoch as u8, n as u8]).finalize_xof().fill(&mut noise);
            let text: String = noise.iter().map(|byte| format!("{byte:02x}")).collect();
            device.write("noise", text, BASE_MS);
        }
        device.seal();
    }
    device
}

#[test]
fn a_slow_store_bounds_what_is_sent_and_loses_nothing() {
    for logs in [1, 6] {
        let device = bulky_device(logs, 120 / logs);
        let limits = Limits { credit_bytes: 100 << 10, ..Limits::default() };
        let mut config = caller(&device, 1);
        config.compressions = 0;
        let brain = Answerer { limits, ..answerer(1) };
        let mut link = Link::between(config, device, brain, Store::brain());
        link.answerer.paused = true;
        let mut sent_bytes = 0;
        while link.step(true) {
            sent_bytes += entries_bytes(&link.caller);
            assert!(link.caller.outbox.len() < 100);
            while entries_bytes(&link.caller) > 0 {
                link.step(true);
            }
        }
        let credit = limits.credit_bytes as usize;
        assert!(sent_bytes > credit / 2, "{sent_bytes} bytes: the credit is used");
        assert!(sent_bytes <= credit + FRAME_BYTES_MAX, "{sent_bytes} bytes with {logs} logs");
        assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
        assert!(link.answerer.store.logs.is_empty(), "nothing is stored yet");

        link.resume_store();
        link.run();
        assert_same(&link.caller.store, &link.answerer.store);
        assert_eq!(link.answerer.store.duplicates, 0);
    }
}

#[test]
fn reads_under_way_count_against_the_credit() {
    let mut link = Link::established();
    let device = bulky_device(8, 1);
    let now = link.caller.now(link.now_ms);
    let mut reads = 0;
    for epoch in 0..8 {
        let log = LogId { epoch, ..device.log() };
        let position = device.position(log);
        let stored = Input::Stored { log, position, consumed_bytes: 0 };
        let outputs = link.caller.session.handle(stored, now);
        reads += outputs.iter().filter(|o| matches!(o, Output::Fetch { .. })).count();
    }
    assert_eq!(reads, Limits::default().credit_bytes as usize / FRAME_BYTES_MAX);
}

#[test]
fn who_sends_beyond_the_credit_is_closed_as_overloaded() {
    let mut link = Link::established();
    link.answerer.paused = true;
    let device = bulky_device(1, 150);
    let (mut after, mut bytes) = (0, 0);
    while link.answerer.ended.is_none() {
        let entries = device.fetch(device.log(), after, BATCH_PLAIN_BYTES);
        after += entries.len() as u64;
        let message = Message::Entries(Batch::pack(&entries).expect("consecutive"));
        let frame = wire::encode(&message, VERSION_MAX, Compression::None);
        bytes += frame.len();
        link.answerer.feed(Input::Frame(&frame), link.now_ms);
    }
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::Overloaded, false)));
    let credit = Limits::default().credit_bytes as usize;
    assert!(bytes > credit + FRAME_BYTES_MAX && bytes <= credit + 2 * FRAME_BYTES_MAX, "{bytes}");
    link.run();
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::Overloaded, true)));
}

#[test]
fn a_log_of_thousands_of_small_entries_crosses_in_batches_that_unpack() {
    let mut device = Store::device();
    for n in 0..3_000 {
        device.write("n", n, BASE_MS);
    }
    device.seal();
    let mut link = Link::connect(device, Store::brain(), 1);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
}

/// A link over which five entries are stored and acknowledged.
fn link_of_five() -> (Link, Ack) {
    let mut link = Link::established();
    link.caller.write(5, link.now_ms);
    link.run();
    let (tree, log) = (link.caller.store.tree.id(), link.caller.store.log());
    (link, Ack { tree, log, stored: 5, sealed: 5, credit_bytes: 0 })
}

#[test]
fn a_late_or_repeated_ack_is_ignored() {
    let (mut link, ack) = link_of_five();
    let events = link.caller.events.len();
    for (stored, sealed) in [(3, 2), (5, 5), (0, 0), (5, 4)] {
        link.forge_to_caller(&Message::Ack(Ack { stored, sealed, ..ack.clone() }));
    }
    assert_eq!(link.caller.events.len(), events, "nothing is reported twice or taken back");
    assert!(link.caller.outbox.is_empty() && link.caller.ended.is_none());
    link.caller.write(1, link.now_ms);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
    assert_eq!(link.answerer.store.duplicates, 0, "only the new entry was sent");
}

#[test]
fn an_ack_of_what_was_not_sent_is_malformed() {
    let malformed = Some((ErrorCode::Malformed, false));
    let (mut link, ack) = link_of_five();
    link.forge_to_caller(&Message::Ack(Ack { stored: 6, ..ack.clone() }));
    assert_eq!(link.caller.ended_as(), malformed, "more than there is");

    let (mut link, ack) = link_of_five();
    link.forge_to_caller(&Message::Ack(Ack { stored: 4, sealed: 5, ..ack }));
    assert_eq!(link.caller.ended_as(), malformed, "more sealed than stored");

    let device = bulky_device(1, 150);
    let (tree, log) = (device.tree.id(), device.log());
    let mut link = Link::connect(device, Store::brain(), 1);
    link.answerer.paused = true;
    link.run();
    link.forge_to_caller(&Message::Ack(Ack { tree, log, stored: 150, sealed: 0, credit_bytes: 0 }));
    assert_eq!(link.caller.ended_as(), malformed, "it is here, but the credit ended before it");
}

#[test]
fn what_came_over_another_link_is_not_acknowledged_to_this_peer() {
    let mut link = Link::established();
    let mut elsewhere = Store::device();
    elsewhere.open_epoch(9);
    elsewhere.write("a", 1, BASE_MS);
    elsewhere.seal();
    let LogPosition { log, .. } = elsewhere.position(elsewhere.log());
    let entries = elsewhere.fetch(log, 0, 1 << 20).into_iter().map(|e| (e.id(), e)).collect();
    link.answerer.store.ingest(entries, BASE_MS).expect("in order");
    let signed = elsewhere.tree.logs()[0].signed.expect("sealed");
    link.answerer.store.tree.take_signed_head(signed);
    link.answerer.stored(log, 0, link.now_ms);
    assert!(sent(&link.answerer, MessageKind::Ack).is_empty());
    link.answerer.feed(Input::Sealed(signed), link.now_ms);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
    assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
}

#[test]
fn two_heartbeats_of_silence_end_the_link_on_both_sides() {
    let mut link = Link::established();
    let start_ms = link.now_ms;
    for at_ms in [HEARTBEAT_MS, 2 * HEARTBEAT_MS - 1, 2 * HEARTBEAT_MS] {
        assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
        link.caller.feed(Input::Tick, start_ms + at_ms);
        link.answerer.feed(Input::Tick, start_ms + at_ms);
        // The wire is dead: nothing that was sent arrives.
        link.caller.outbox.clear();
        link.answerer.outbox.clear();
    }
    let timed_out = Some((ErrorCode::TimedOut, false));
    assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (timed_out, timed_out));
}

#[test]
fn answered_pings_keep_a_silent_link() {
    let mut link = Link::established();
    link.wait(40 * HEARTBEAT_MS);
    assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
    let samples = link.caller.events.iter().filter(|e| matches!(e, Output::ClockSample { .. }));
    assert_eq!(samples.count(), 40);
}

#[test]
fn a_pong_measures_the_other_clock_whatever_the_delay() {
    for delay_ms in [0, 80, 3_000] {
        let mut link = Link::established();
        link.answerer.wall_ahead_ms = 5_000;
        link.caller.mono_ahead_ms = 0;
        link.now_ms += HEARTBEAT_MS;
        link.caller.feed(Input::Tick, link.now_ms);
        link.now_ms += delay_ms;
        assert!(link.step(true), "the ping");
        link.now_ms += delay_ms;
        assert!(link.step(false), "the pong");
        let sample = Output::ClockSample { offset_ms: 5_000, round_trip_ms: 2 * delay_ms };
        assert_eq!(link.caller.events.last(), Some(&sample));
    }
}

#[test]
fn the_answerers_heartbeat_holds_for_both() {
    let limits = Limits { heartbeat_ms: 2_000, ..Limits::default() };
    let (device, brain) = (Store::device(), Store::brain());
    let config = Answerer { limits, ..answerer(1) };
    let mut link = Link::between(caller(&device, 1), device, config, brain);
    link.run();
    let due = [&link.caller, &link.answerer].map(|side| side.session.next_tick_ms());
    assert_eq!(due, [Some(link.now_ms + 2_000), Some(link.now_ms + 4_000)]);
}
