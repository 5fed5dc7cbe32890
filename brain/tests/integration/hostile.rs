//! Peers that mean no good, and what they get.

use std::time::{Duration, Instant};

use benches::device::{LightDevice, Membership, now, random};
use benches::link::RawLink;
use protocol::clock::Hlc;
use protocol::compress::Compression;
use protocol::history::{Entry, Provenance};
use protocol::keys::Keypair;
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Input, Output, Session};
use protocol::state::{Path, StateDelta, StateSource};
use protocol::wire::{self, Batch, Message, VERSION_MAX};
use protocol::{DeviceId, ErrorCode};
use tokio_tungstenite::tungstenite::Message as WsMessage;

use crate::harness::{brain, count, device, way};

const SOON: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_recorded_handshake_is_refused_by_this_and_by_another_brain() {
    let first = brain();
    let other = brain();
    let known = device(&first).await;
    let recorded = record_handshake(&known).await;
    for target in [&first, &other] {
        let way = way(target);
        let key = &known.membership.api_key;
        let opened = RawLink::open(way.brain, None, way.tls, "/v1/link", Some(key)).await;
        // The other brain does not know the API key and does not even upgrade; asked to enrol it
        // listens, and refuses the recording all the same.
        let mut link = match opened {
            Ok(link) => link,
            Err(_) => {
                let way = crate::harness::way(target);
                RawLink::open(way.brain, None, way.tls, "/v1/enrol", None).await.expect("opens")
            }
        };
        for frame in &recorded {
            // A brain that has hung up takes no more.
            let _ = link.send(frame.clone()).await;
        }
        let code = last_code(&mut link).await;
        let refused = [ErrorCode::BadSignature, ErrorCode::WrongFleet];
        assert!(code.is_some_and(|code| refused.contains(&code)), "{code:?}");
    }
}

/// The frames that a device sends until it is welcome.
async fn record_handshake(device: &LightDevice) -> Vec<Vec<u8>> {
    let way = device.way.clone();
    let key = device.membership.api_key.clone();
    let mut link =
        RawLink::open(way.brain, None, way.tls, "/v1/link", Some(&key)).await.expect("opens");
    let mut session = Session::caller(caller(&device.membership, device, link.exporter));
    let mut sent = Vec::new();
    let at = now(Instant::now());
    let mut outputs = session.handle(Input::Connected, at);
    while !session.is_established() {
        for output in outputs {
            if let Output::Send(frame) = output {
                sent.push(frame.clone());
                link.send(frame).await.expect("sends");
            }
        }
        let frame = link.receive().await.expect("receives").expect("an answer");
        outputs = session.handle(Input::Frame(&frame), at);
    }
    sent
}

fn caller(membership: &Membership, device: &LightDevice, exporter: [u8; 32]) -> Caller {
    let Membership { fleet, root, device: id, keypair, certificate, .. } = membership.clone();
    let replica = protocol::session::Replica {
        tree: device.tree.id(),
        logs: Vec::new(),
        floor: protocol::history::VersionVector::default(),
        ends: Vec::new(),
        author: keypair.public(),
    };
    Caller {
        fleet,
        root,
        device: id,
        keypair,
        intent: Intent::Link { certificate, replica },
        compressions: Compression::Zstd.bit(),
        challenge: random(),
        exporter,
    }
}

/// The code of the Close frame with which a brain ends a connection.
async fn last_code(link: &mut RawLink) -> Option<ErrorCode> {
    let mut code = None;
    while let Ok(Some(frame)) = link.receive().await {
        if let Ok(Message::Close(close)) = wire::decode(&frame) {
            code = Some(close.error.code);
        }
    }
    code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_key_role_or_fleet_is_refused_by_its_code() {
    let brain = brain();
    let honest = device(&brain).await;
    let other = device(&brain).await;
    let foreign = self::brain();
    let stranger = device(&foreign).await;
    let attempt = async |change: &dyn Fn(&mut Membership)| {
        let mut membership = honest.membership.clone();
        change(&mut membership);
        let mut liar = LightDevice::new(membership, honest.way.clone());
        let error = liar.connect().await.expect_err("refused").to_string();
        liar.ended.map(|ended| ended.error.code).ok_or(error)
    };
    let wrong_key = |m: &mut Membership| m.keypair = Keypair::from_seed(&random());
    assert_eq!(attempt(&wrong_key).await, Ok(ErrorCode::BadCertificate));
    let other_name = |m: &mut Membership| m.device = DeviceId([9; 16]);
    assert_eq!(attempt(&other_name).await, Ok(ErrorCode::WrongRole));
    let other_certificate = |m: &mut Membership| {
        m.certificate = other.membership.certificate.clone();
        m.device = other.membership.device;
        m.keypair = other.membership.keypair.clone();
    };
    // A whole other device behind the API key of this one.
    assert_eq!(attempt(&other_certificate).await, Ok(ErrorCode::Unauthenticated));
    let foreign_certificate =
        |m: &mut Membership| m.certificate = stranger.membership.certificate.clone();
    assert_eq!(attempt(&foreign_certificate).await, Ok(ErrorCode::BadCertificate));
    let foreign_fleet = |m: &mut Membership| m.fleet = stranger.membership.fleet;
    assert_eq!(attempt(&foreign_fleet).await, Ok(ErrorCode::WrongFleet));
    let no_key = |m: &mut Membership| m.api_key = "fb_nonsense".to_owned();
    let refused = attempt(&no_key).await.expect_err("not even upgraded");
    assert!(refused.contains("401"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_used_up_and_a_made_up_one_is_worth_nothing() {
    let brain = brain();
    let way = way(&brain);
    let token = brain.enrolment_token(1).expect("a token");
    Membership::enrol(&way, &token, random()).await.expect("the first one joins");
    let Err(error) = Membership::enrol(&way, &token, random()).await else {
        panic!("a used token lets nobody in")
    };
    assert!(error.to_string().contains("BAD_TOKEN"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_are_none_end_the_connection_and_nothing_else() {
    let brain = brain();
    let mut witness = device(&brain).await;
    witness.connect().await.expect("connects");
    let subject = device(&brain).await;
    let bomb = {
        let (used, body) = protocol::compress::compress(vec![0; 8 << 20], Compression::Zstd);
        let mut frame = vec![VERSION_MAX, 1, 7, used.number()];
        frame.extend_from_slice(&body);
        frame
    };
    let long_list =
        [&[VERSION_MAX, 1, 6, 0][..], &[7; 32], &[253], &(1u64 << 63).to_le_bytes()].concat();
    let close = protocol::wire::Close {
        error: protocol::session::error(ErrorCode::GoingAway, "x", "some text"),
        retry_after_ms: None,
    };
    let mut not_utf8 = wire::encode(&Message::Close(close), VERSION_MAX, Compression::None);
    let at = not_utf8.windows(4).position(|text| text == b"text").expect("the text");
    not_utf8[at] = 0xFF;
    let bad_path = {
        let mut author = protocol::history::Author::new(subject.log(), Hlc::default());
        let changes = vec![(Path::new("reported/xyz").expect("valid"), Some(count(1)))];
        let provenance = Provenance::new(StateSource::Hardware, "sensor:x", "x");
        let draft = protocol::history::Draft { changes, provenance, lease_until_ms: None };
        let quality = protocol::clock::ClockQuality::Synchronised;
        let entry = author.write(&subject.tree, draft, 1, quality).expect("a change");
        let batch = Message::Entries(Batch::pack(&[entry]).expect("packs"));
        let mut frame = wire::encode(&batch, VERSION_MAX, Compression::None);
        let at = frame.windows(3).position(|text| text == b"xyz").expect("the path");
        frame[at..at + 3].copy_from_slice(b"/..");
        frame
    };
    let cases = [
        (vec![], ErrorCode::Truncated),
        (vec![9, 1, 12, 0, 1], ErrorCode::VersionUnsupported),
        (vec![1, 9, 12, 0, 1], ErrorCode::CodecUnknown),
        (vec![1, 1, 99, 0, 1], ErrorCode::Malformed),
        (vec![1, 1, 12, 0xF0, 1], ErrorCode::Malformed),
        (vec![1, 1, 12, 0, 1, 2, 3], ErrorCode::Malformed),
        (vec![1; 65], ErrorCode::UnexpectedFrame),
        (bomb, ErrorCode::DecompressionBomb),
        (long_list, ErrorCode::Truncated),
        (not_utf8, ErrorCode::NotUtf8),
        (bad_path, ErrorCode::BadPath),
    ];
    for (frame, expected) in cases {
        let mut link = established(&subject).await;
        link.send(frame.clone()).await.expect("sends");
        let code = last_code(&mut link).await;
        let hello_again = expected == ErrorCode::UnexpectedFrame;
        let fits = code == Some(expected) || (hello_again && code == Some(ErrorCode::Malformed));
        let counted = format!("fleet_link_closed_total{{reason=\"{}\"}}", code.expect("a code"));
        assert!(brain.metric(&counted).expect("is counted") >= 1.0);
        assert!(fits, "{:?}: {code:?} instead of {expected:?}", &frame[..frame.len().min(12)]);
    }
    let mut link = established(&subject).await;
    link.send(vec![0; 70_000]).await.expect("sends");
    assert_eq!(last_code(&mut link).await, Some(ErrorCode::TooLarge));
    let mut link = established(&subject).await;
    link.send_message(WsMessage::text("{}")).await.expect("sends");
    assert_eq!(last_code(&mut link).await, Some(ErrorCode::Malformed));
    witness.write("reported/count", count(1)).expect("valid");
    witness.offer().await.expect("offers");
    witness.run_until(|device| device.stored() == 1, SOON).await.expect("still served");
}

/// A link of `device` after its handshake.
pub(crate) async fn established(device: &LightDevice) -> RawLink {
    let way = device.way.clone();
    let key = device.membership.api_key.clone();
    let mut link =
        RawLink::open(way.brain, None, way.tls, "/v1/link", Some(&key)).await.expect("opens");
    let mut session = Session::caller(caller(&device.membership, device, link.exporter));
    let at = now(Instant::now());
    let mut outputs = session.handle(Input::Connected, at);
    loop {
        for output in outputs {
            if let Output::Send(frame) = output {
                link.send(frame).await.expect("sends");
            }
        }
        if session.is_established() {
            return link;
        }
        let frame = link.receive().await.expect("receives").expect("an answer");
        outputs = session.handle(Input::Frame(&frame), at);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn entries_that_are_not_the_devices_to_write_change_nothing() {
    let brain = brain();
    let mut honest = device(&brain).await;
    honest.connect().await.expect("connects");
    honest.write("reported/count", count(1)).expect("valid");
    honest.offer().await.expect("offers");
    honest.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    honest.disconnect();
    let id = honest.membership.device;
    let state = |brain: &benches::brain::Brain| {
        brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state")
    };
    let before = state(&brain);
    let victim = device(&brain).await;
    let forged = |change: &dyn Fn(&mut Entry)| {
        let log = honest.tree.log(&honest.log()).expect("its log");
        let mut delta = StateDelta::default();
        delta.added.insert(Path::new("reported/forged").expect("valid"), count(1));
        let mut entry = Entry {
            tree: honest.tree.id(),
            log: honest.log(),
            seq: 2,
            prev: log.head,
            seen: Default::default(),
            hlc: Hlc { wall_ms: log.hlc.wall_ms + 1, counter: 0 },
            clock: protocol::clock::ClockQuality::Synchronised,
            provenance: Provenance::new(StateSource::Hardware, "sensor:forged", "forged"),
            policy: 0,
            kind: protocol::history::EntryKind::STATE,
            schema: 1,
            lease_until_ms: None,
            delta,
            extra: Vec::new(),
        };
        change(&mut entry);
        entry
    };
    type Change = Box<dyn Fn(&mut Entry)>;
    let desired = Path::new("desired/forged").expect("valid");
    let stranger = Keypair::from_seed(&random()).public();
    let brain_key = honest.membership.certificate.leaf.issuer;
    let victim_tree = victim.tree.id();
    let cases: Vec<(ErrorCode, Change)> = vec![
        (
            ErrorCode::Forbidden,
            Box::new(move |e| {
                e.delta.added = [(desired.clone(), count(1))].into();
            }),
        ),
        (
            ErrorCode::Forbidden,
            Box::new(move |e| {
                e.log.author = stranger;
                e.seq = 1;
                e.prev = Entry::NO_PREV;
            }),
        ),
        (
            ErrorCode::Forbidden,
            Box::new(move |e| {
                e.log.author = brain_key;
                e.seq = 1;
                e.prev = Entry::NO_PREV;
            }),
        ),
        (ErrorCode::UnknownTree, Box::new(move |e| e.tree = victim_tree)),
        (ErrorCode::Equivocation, Box::new(|e| e.prev = protocol::EntryId([7; 32]))),
        (
            ErrorCode::Equivocation,
            Box::new(|e| {
                e.seq = 1;
                e.prev = Entry::NO_PREV;
            }),
        ),
        (ErrorCode::SequenceGap, Box::new(|e| e.seq = 9)),
        (ErrorCode::ClockAhead, Box::new(|e| e.hlc.wall_ms += 61_000)),
        (ErrorCode::Malformed, Box::new(|e| e.hlc = Hlc::default())),
        (ErrorCode::TooLarge, Box::new(|e| e.provenance.reason = "x".repeat(513))),
    ];
    for (expected, change) in cases {
        let mut link = established(&honest).await;
        let batch = Batch::pack(&[forged(&*change)]).expect("packs");
        let entries = wire::encode(&Message::Entries(batch), VERSION_MAX, Compression::None);
        link.send(entries).await.expect("sends");
        assert_eq!(refusal_code(&mut link).await, Some(expected));
    }
    assert_eq!(state(&brain), before, "nothing changed");
    let other =
        brain.call("GET", &format!("/api/v1/devices/{}/state", victim.membership.device), None);
    assert_eq!(other.expect("answers").0, 404, "the victim's tree is untouched");
    honest.connect().await.expect("the honest device is still welcome");
}

/// The code of the first Refuse or Close frame.
async fn refusal_code(link: &mut RawLink) -> Option<ErrorCode> {
    while let Ok(Some(frame)) = link.receive().await {
        match wire::decode(&frame) {
            Ok(Message::Refuse(refuse)) => return Some(refuse.error.code),
            Ok(Message::Close(close)) => return Some(close.error.code),
            _ => {}
        }
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_says_nothing_or_drips_is_dropped_within_ten_seconds() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let brain = brain();
    let started = Instant::now();
    let mut silent = tokio::net::TcpStream::connect(brain.devices).await.expect("connects");
    let mut dripping = tokio::net::TcpStream::connect(brain.devices).await.expect("connects");
    let drip = async {
        // The beginning of a TLS record, a byte at a time.
        for byte in [22u8, 3, 1, 2, 0].iter().cycle() {
            if dripping.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    };
    let wait = async {
        let mut end = [0; 1];
        let _ = silent.read(&mut end).await;
    };
    tokio::time::timeout(Duration::from_secs(20), async { tokio::join!(drip, wait) })
        .await
        .expect("both are dropped");
    assert!(started.elapsed() < Duration::from_secs(13), "{:?}", started.elapsed());
    assert!(started.elapsed() > Duration::from_secs(1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_sends_no_more_than_64_kib() {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let brain = brain();
    let way = way(&brain);
    let stream = tokio::net::TcpStream::connect(brain.devices).await.expect("connects");
    let name = rustls_pki_types::ServerName::try_from("localhost").expect("a name");
    let connector = tokio_rustls::TlsConnector::from(way.tls.expect("TLS"));
    let stream = connector.connect(name, stream).await.expect("shakes hands");
    let (mut read, mut write) = tokio::io::split(stream);
    let flood = async {
        let _ = write.write_all(b"GET /v1/enrol HTTP/1.1\r\n").await;
        let mut sent = 0;
        while write.write_all(b"X-Header: xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\r\n").await.is_ok()
        {
            sent += 50;
            tokio::task::yield_now().await;
            if sent > 64 << 20 {
                panic!("the brain reads without end");
            }
        }
    };
    let end = async {
        let mut byte = [0; 1];
        let _ = read.read(&mut byte).await;
    };
    let started = Instant::now();
    tokio::select! { () = flood => {}, () = end => {} }
    assert!(started.elapsed() < Duration::from_secs(5), "dropped at its bytes, not its time");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_machines_with_one_identity_are_kept_out() {
    let brain = brain();
    let original = device(&brain).await;
    let mut twins = [
        LightDevice::new(original.membership.clone(), original.way.clone()),
        LightDevice::new(original.membership.clone(), original.way.clone()),
    ];
    let mut refused = None;
    for round in 0..12 {
        let twin = &mut twins[round % 2];
        if twin.connect().await.is_err() {
            refused = twin.ended.as_ref().map(|ended| ended.error.code);
            break;
        }
    }
    assert_eq!(refused, Some(ErrorCode::ClonedIdentity));
    let id = original.membership.device;
    let shown = brain.get(&format!("/api/v1/devices/{id}")).expect("the device");
    assert!(shown["quarantined_until"].is_u64(), "{shown}");
    assert_eq!(shown["online"], false);
}
