//! Links and enrolments between honest sides, and what is out of turn.

use protocol::ErrorCode;
use protocol::clock::ClockQuality;
use protocol::compress::Compression;
use protocol::session::handshake::{Answerer, Caller, HANDSHAKE_FRAME_BYTES_MAX, Intent};
use protocol::session::{Input, Now, Output, Session};
use protocol::wire::{
    self, Ack, Message, MessageKind, Ping, VERSION_MAX, VERSION_MIN, VersionRange,
};

use super::store::{DEVICE, Store, assert_same, device_key};
use super::world::{BASE_MS, Link, Side, answerer, caller, device_chain, token};

#[test]
fn a_link_is_established_in_five_frames_and_entries_flow_both_ways() {
    let (mut device, mut brain) = (Store::device(), Store::brain());
    device.write("a", 1, BASE_MS);
    device.seal();
    brain.write("b", 2, BASE_MS);
    brain.seal();
    let mut link = Link::connect(device, brain, 1);
    link.run();
    let first: Vec<_> = link.delivered.iter().take(5).copied().collect();
    let expected = [
        (true, MessageKind::Hello),
        (false, MessageKind::HelloReply),
        (false, MessageKind::Auth),
        (true, MessageKind::Auth),
        (false, MessageKind::Welcome),
    ];
    assert_eq!(first, expected);
    link.caller.write(3, link.now_ms);
    link.answerer.write(2, link.now_ms);
    link.run();
    assert_same(&link.caller.store, &link.answerer.store);
    let (log, device) = (link.caller.store.log(), &link.caller);
    assert_eq!(device.store.tree.vector().get(&log), 4);
    let acked = Output::Acked { log, stored: 4, sealed: 4 };
    assert!(device.events.contains(&acked), "the device hears that all of it is sealed there");
}

#[test]
fn the_welcome_tells_the_brains_clock() {
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    link.answerer.wall_ahead_ms = 5_000;
    link.run();
    let welcomed = Output::Welcomed { connection: 1, offset_ms: 5_000 };
    assert!(link.caller.events.contains(&welcomed), "{:?}", link.caller.events);
}

#[test]
fn a_device_enrols_with_its_token() {
    let mut config = caller(&Store::device(), 1);
    config.intent = Intent::Enrol { token: token() };
    let mut link = Link::between(config, Store::device(), answerer(1), Store::brain());
    link.run();
    let [Output::Enrol(peer, shown)] = &link.answerer.events[..] else {
        panic!("{:?}", link.answerer.events)
    };
    assert_eq!((peer.device, peer.key, shown), (DEVICE, device_key().public(), &token()));
    assert_eq!(peer.certificate, None);
    let [Output::Enrolled(enrolled)] = &link.caller.events[..] else {
        panic!("{:?}", link.caller.events)
    };
    assert_eq!(enrolled.certificate, device_chain());
    assert_eq!((link.caller.ended_as(), link.answerer.ended_as()), (None, None));
}

#[test]
fn a_certificate_for_another_key_is_no_enrolment() {
    let mut config = caller(&Store::device(), 1);
    config.keypair = super::store::key(9);
    config.intent = Intent::Enrol { token: token() };
    let mut link = Link::between(config, Store::device(), answerer(1), Store::brain());
    link.run();
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::BadCertificate, false)));
    assert_eq!(link.caller.events, []);
}

#[test]
fn a_denied_device_learns_why() {
    let mut answerer = Session::answerer(answerer(1));
    let mut device = Side::new(Session::caller(caller(&Store::device(), 1)), Store::device());
    device.feed(Input::Connected, 0);
    let now = Now { wall_ms: BASE_MS, mono_ms: 0, quality: ClockQuality::Synchronised };
    while let Some(frame) = device.outbox.pop_front() {
        for output in answerer.handle(Input::Frame(&frame), now) {
            let denied = match output {
                Output::Authorise(_) => {
                    let error = protocol::session::error(ErrorCode::Fenced, "authorise", "newer");
                    answerer.handle(Input::Denied(error), now)
                }
                output => vec![output],
            };
            for output in denied {
                if let Output::Send(frame) = output {
                    device.feed(Input::Frame(&frame), 0);
                }
            }
        }
    }
    assert_eq!(device.ended_as(), Some((ErrorCode::Fenced, true)));
}

#[test]
fn a_version_mismatch_names_both_ranges() {
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    let hello = link.caller.outbox.pop_front().expect("a hello");
    let Ok(Message::Hello(mut hello)) = wire::decode(&hello) else { panic!("a hello") };
    hello.versions = VersionRange { min: VERSION_MAX + 1, max: VERSION_MAX + 3 };
    link.forge_to_answerer(&Message::Hello(hello));
    let ended = link.answerer.ended.clone().expect("closed");
    assert_eq!(ended.error.code, ErrorCode::VersionUnsupported);
    let theirs = format!("{} to {}", VERSION_MAX + 1, VERSION_MAX + 3);
    let ours = format!("{VERSION_MIN} to {VERSION_MAX}");
    let text = &ended.error.message;
    assert!(text.contains(&theirs) && text.contains(&ours), "{text}");
    link.run();
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::VersionUnsupported, true)));
}

#[test]
fn a_frame_before_its_time_is_unexpected() {
    let ping = Message::Ping(Ping { sent_ms: 1 });
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    link.forge_to_answerer(&ping);
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::UnexpectedFrame, false)));

    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    link.forge_to_caller(&ping);
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::UnexpectedFrame, false)));
}

#[test]
fn a_second_hello_is_unexpected() {
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    let hello = link.caller.outbox[0].clone();
    link.caller.outbox.push_back(hello.clone());
    link.run();
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::UnexpectedFrame, false)));

    let mut link = Link::established();
    link.answerer.feed(Input::Frame(&hello), link.now_ms);
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::UnexpectedFrame, false)));
}

#[test]
fn nothing_is_acknowledged_before_the_heads() {
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    while !link.answerer.session.is_established() {
        assert!(link.step(true));
    }
    let (tree, log) = (link.caller.store.tree.id(), link.caller.store.log());
    let ack = Ack { tree, log, stored: 0, sealed: 0, credit_bytes: 1 };
    link.forge_to_answerer(&Message::Ack(ack));
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::UnexpectedFrame, false)));
}

#[test]
fn a_long_frame_is_refused_before_it_is_read() {
    let long = vec![0xFF; HANDSHAKE_FRAME_BYTES_MAX + 1];
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    link.answerer.feed(Input::Frame(&long), 0);
    link.caller.feed(Input::Frame(&long), 0);
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::TooLarge, false)));
    assert_eq!(link.caller.ended_as(), Some((ErrorCode::TooLarge, false)));

    let just_fits = &long[..HANDSHAKE_FRAME_BYTES_MAX];
    let mut link = Link::connect(Store::device(), Store::brain(), 1);
    link.answerer.feed(Input::Frame(just_fits), 0);
    assert_eq!(link.answerer.ended_as(), Some((ErrorCode::VersionUnsupported, false)));
}

#[test]
fn entries_are_compressed_as_both_sides_can() {
    let cases = [
        (Compression::Zstd.bit() | Compression::Gzip.bit(), Compression::Zstd),
        (Compression::Gzip.bit(), Compression::Gzip),
        (0, Compression::None),
    ];
    for (compressions, expected) in cases {
        let (mut device, mut brain) = (Store::device(), Store::brain());
        for n in 0..200 {
            device.write("a", n, BASE_MS);
            brain.write("b", n, BASE_MS);
        }
        let config = Caller { compressions, ..caller(&device, 1) };
        let both = Answerer { compressions: 0b111, ..answerer(1) };
        let mut link = Link::between(config, device, both, brain);
        let mut flags = Vec::new();
        loop {
            let outboxes = link.caller.outbox.iter().chain(&link.answerer.outbox);
            let entries = outboxes.filter(|frame| frame[2] == MessageKind::Entries as u8);
            flags.extend(entries.map(|frame| frame[3]));
            if !link.step(true) {
                break;
            }
        }
        assert!(
            !flags.is_empty() && flags.iter().all(|flag| *flag == expected.number()),
            "{flags:?}"
        );
        assert_eq!(link.caller.store.logs, link.answerer.store.logs);
    }
}

#[test]
fn after_the_end_a_session_says_nothing() {
    let mut link = Link::established();
    let error = protocol::session::error(ErrorCode::GoingAway, "drain", "restarting");
    link.answerer.feed(Input::Close { error, retry_after_ms: Some(700) }, link.now_ms);
    link.run();
    let ended = link.caller.ended.clone().expect("closed");
    assert_eq!((ended.by_peer, ended.retry_after_ms), (true, Some(700)));
    assert_eq!(ended.error.code, ErrorCode::GoingAway);
    link.caller.write(1, link.now_ms);
    link.caller.feed(Input::Tick, link.now_ms + 1_000_000);
    assert!(link.caller.outbox.is_empty());
    assert_eq!(link.caller.session.next_tick_ms(), None);
}
