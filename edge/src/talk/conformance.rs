//! What every transport does, whatever carries it.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{sink, stream};
use protocol::clock::ClockQuality;
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::handshake::{Answerer, Answering, Caller, EXPORTER_BYTES, Intent};
use protocol::session::{Input, Limits, Now, Output, Session};
use protocol::wire::FRAME_BYTES_MAX;
use protocol::{BrainId, DeviceId, FleetId, PublicKey};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::Role;

use super::frames::{Broken, FrameStream, Frames};

/// The two ends of a connection, and what each says of it that only the two can know.
struct Ends {
    ours: Frames,
    theirs: Frames,
    exporters: [[u8; EXPORTER_BYTES]; 2],
    /// Whatever has to live as long as our end does, and as both do.
    _ours_held: Box<dyn std::any::Any + Send>,
    _held: Box<dyn std::any::Any + Send>,
}

fn ends(ours: Frames, theirs: Frames) -> Ends {
    let (_ours_held, _held) = (Box::new(()), Box::new(()));
    Ends { ours, theirs, exporters: [[5; EXPORTER_BYTES]; 2], _ours_held, _held }
}

async fn in_memory() -> Ends {
    let (to_them, from_us) = mpsc::channel(4);
    let (to_us, from_them) = mpsc::channel(4);
    let (ours, theirs) = (over_channels(to_them, from_them), over_channels(to_us, from_us));
    ends(ours, theirs)
}

fn over_channels(sender: mpsc::Sender<Bytes>, receiver: mpsc::Receiver<Bytes>) -> Frames {
    let sink = sink::unfold(sender, |sender, frame: Bytes| async move {
        sender.send(frame).await.map_err(Broken::new)?;
        Ok(sender)
    });
    let stream = stream::unfold(receiver, |mut receiver| async move {
        let frame = receiver.recv().await?;
        Some((Ok(frame), receiver))
    });
    Frames::new(sink, stream)
}

async fn web_socket() -> Ends {
    let (one, other) = tokio::io::duplex(8 << 10);
    let ours = WebSocketStream::from_raw_socket(one, Role::Client, None).await;
    let theirs = WebSocketStream::from_raw_socket(other, Role::Server, None).await;
    let (ours, theirs) = (Frames::over_web_socket(ours), Frames::over_web_socket(theirs));
    ends(ours, theirs)
}

#[cfg(feature = "peers")]
async fn quic() -> Ends {
    use crate::peers::PeerSettings;
    use crate::peers::quic::{Meeting, meet};

    let settings = PeerSettings {
        listen: std::net::SocketAddr::from(([127, 0, 0, 1], 0)),
        discovery: false,
        ..PeerSettings::default()
    };
    let (caller, answerer) = (device(1).1, device(2).1);
    let ours = Meeting::open(&caller, &settings).await.expect("opens");
    let theirs = Meeting::open(&answerer, &settings).await.expect("opens");
    let addresses = theirs.addresses();
    let calling = async {
        let met = ours.call(answerer.public(), &addresses).await.expect("reached");
        let mut opened = met.open().await.expect("opens");
        // The other end hears of a stream once something is said over it.
        let mut hello = VecDeque::from([Bytes::from_static(b"hello")]);
        opened.frames.sink.drain(&mut hello).await.expect("sent");
        opened
    };
    let answering = async {
        let met = meet(theirs.next().await.expect("a call")).await.expect("proved");
        assert_eq!(met.key, caller.public(), "the transport proves keys");
        let mut opened = met.open().await.expect("opens");
        assert_eq!(&*opened.frames.stream.next().await.expect("a frame").expect("whole"), b"hello");
        opened
    };
    let (called, answered) = tokio::join!(calling, answering);
    Ends {
        ours: called.frames,
        theirs: answered.frames,
        exporters: [called.exporter, answered.exporter],
        _ours_held: Box::new(called.connection),
        _held: Box::new((ours, theirs, answered.connection)),
    }
}

/// Runs a case over every transport.
async fn every_transport<F: Future<Output = ()>>(case: impl Fn(&'static str, Ends) -> F) {
    let patience = Duration::from_secs(20);
    timeout(patience, case("in memory", in_memory().await)).await.expect("ends");
    timeout(patience, case("WebSocket", web_socket().await)).await.expect("ends");
    #[cfg(feature = "peers")]
    timeout(patience, case("QUIC", quic().await)).await.expect("ends");
}

fn queue(frames: &[Bytes]) -> VecDeque<Bytes> {
    frames.iter().cloned().collect()
}

async fn send(frames: &mut Frames, sent: &[Bytes]) {
    frames.sink.drain(&mut queue(sent)).await.expect("sent");
}

async fn take(stream: &mut FrameStream, count: usize) -> Vec<Bytes> {
    let mut received = Vec::new();
    for _ in 0..count {
        received.push(stream.next().await.expect("a frame").expect("whole"));
    }
    received
}

#[tokio::test]
async fn frames_come_whole_and_in_order_both_ways_at_once() {
    every_transport(|name, ends| async move {
        let mut ends = ends;
        let sizes = [1, 2, 100, 4_096, FRAME_BYTES_MAX, 7, FRAME_BYTES_MAX - 1];
        let sent: Vec<_> = (0u8..).zip(sizes).map(|(n, size)| Bytes::from(vec![n; size])).collect();
        let back: Vec<_> = sent.iter().rev().cloned().collect();
        let Ends { ours, theirs, .. } = &mut ends;
        let (mut to_them, mut to_us) = (queue(&sent), queue(&back));
        let (one, other, here, there) = tokio::join!(
            ours.sink.drain(&mut to_them),
            theirs.sink.drain(&mut to_us),
            take(&mut ours.stream, sent.len()),
            take(&mut theirs.stream, sent.len()),
        );
        one.expect("sent");
        other.expect("sent");
        assert!(there == sent && here == back, "{name}");
    })
    .await;
}

#[tokio::test]
async fn what_one_end_closes_ends_at_the_other_after_everything_that_was_said() {
    every_transport(|name, ends| async move {
        let mut last = VecDeque::from([Bytes::from_static(b"good"), Bytes::from_static(b"bye")]);
        let Ends { mut ours, mut theirs, _ours_held, _held, .. } = ends;
        // A WebSocket says goodbye both ways.
        let listen = async {
            assert_eq!(take(&mut theirs.stream, 2).await, ["good", "bye"], "{name}");
            assert!(!matches!(theirs.stream.next().await, Some(Ok(_))), "{name}");
        };
        let close = async move {
            let _ = timeout(Duration::from_secs(2), ours.sink.close(&mut last)).await;
            drop(ours);
        };
        tokio::join!(close, listen);
    })
    .await;
}

#[tokio::test]
async fn a_connection_that_is_dropped_ends_at_the_other_end() {
    every_transport(|name, ends| async move {
        let Ends { ours, mut theirs, _ours_held: ours_held, _held, .. } = ends;
        drop((ours, ours_held));
        assert!(!matches!(theirs.stream.next().await, Some(Ok(_))), "{name}");
    })
    .await;
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn both_ends_of_quic_know_something_of_their_connection_that_nobody_else_does() {
    let (one, other) = (quic().await, quic().await);
    assert_eq!(one.exporters[0], one.exporters[1]);
    assert_ne!(one.exporters[0], other.exporters[0], "another connection");
}

#[cfg(feature = "peers")]
#[tokio::test]
async fn a_device_is_reached_at_any_of_its_addresses_and_nobody_else_is_there() {
    use std::net::SocketAddr;

    use crate::peers::PeerSettings;
    use crate::peers::quic::{Meeting, meet};

    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let settings = PeerSettings { listen, discovery: false, ..PeerSettings::default() };
    let ours = Meeting::open(&device(1).1, &settings).await.expect("opens");
    let theirs = Meeting::open(&device(2).1, &settings).await.expect("opens");
    let dead = SocketAddr::from(([127, 0, 0, 1], 9));
    let addresses = [&[dead], &theirs.addresses()[..]].concat();
    let answer = async { meet(theirs.next().await.expect("a call")).await };
    let (met, answered) = tokio::join!(ours.call(device(2).1.public(), &addresses), answer);
    assert_eq!(met.expect("reached").key, device(2).1.public());
    answered.expect("proved");
    // Where that address is another device's, the call is none.
    let addresses = theirs.addresses();
    let strange = ours.call(device(3).1.public(), &addresses);
    let answer = async { meet(theirs.next().await.expect("a call")).await };
    let (met, answered) = tokio::join!(strange, answer);
    assert!(met.is_err() && answered.is_err());
}

#[tokio::test]
async fn two_devices_prove_themselves_over_any_of_them() {
    every_transport(|name, ends| async move {
        let mut ends = ends;
        let (mut ours, mut theirs) = sessions(ends.exporters);
        let now = || Now { wall_ms: 1_000, mono_ms: 0, quality: ClockQuality::Rtc };
        let mut said = ours.handle(Input::Connected, now());
        while !(ours.is_established() && theirs.is_established()) {
            send(&mut ends.ours, &frames_of(said)).await;
            let frame = take(&mut ends.theirs.stream, 1).await.remove(0);
            let mut answers = theirs.handle(Input::Frame(&frame), now());
            if answers.iter().any(|answer| matches!(answer, Output::Authorise(_))) {
                answers.extend(theirs.handle(Input::Admitted { connection: 1 }, now()));
            }
            let answers = frames_of(answers);
            send(&mut ends.theirs, &answers).await;
            said = Vec::new();
            for frame in take(&mut ends.ours.stream, answers.len()).await {
                said.extend(ours.handle(Input::Frame(&frame), now()));
            }
            let over = said.iter().any(|output| matches!(output, Output::Closed(_)));
            assert!(!over, "{name}: {said:?}");
        }
    })
    .await;
}

fn frames_of(outputs: Vec<Output>) -> Vec<Bytes> {
    let frames = outputs.into_iter().filter_map(|output| match output {
        Output::Send(frame) => Some(Bytes::from(frame)),
        _ => None,
    });
    frames.collect()
}

const FLEET: FleetId = FleetId([1; 16]);

fn device(number: u8) -> (DeviceId, Keypair) {
    (DeviceId([number; 16]), Keypair::from_seed(&[number; 32]))
}

fn sessions(exporters: [[u8; EXPORTER_BYTES]; 2]) -> (Session, Session) {
    let (root, brain) = (Keypair::from_seed(&[8; 32]), Keypair::from_seed(&[9; 32]));
    let subject = Subject::Brain(BrainId([9; 16]));
    let issuer = Certificate::issue(&root, FLEET, subject, brain.public(), Validity::ALWAYS);
    let chain = |(device, keypair): &(DeviceId, Keypair)| {
        let subject = Subject::Device(*device, None);
        let leaf = Certificate::issue(&brain, FLEET, subject, keypair.public(), Validity::ALWAYS);
        Chain { leaf, issuer: Some(issuer.clone()) }
    };
    let (one, other) = (device(1), device(2));
    let brains: std::sync::Arc<[PublicKey]> = [brain.public()].into();
    let caller = Session::caller(Caller {
        fleet: FLEET,
        root: root.public(),
        device: one.0,
        keypair: one.1.clone(),
        intent: Intent::Peer {
            certificate: chain(&one),
            key: other.1.public(),
            brains: brains.clone(),
        },
        compressions: 0,
        challenge: [1; 32],
        exporter: exporters[0],
    });
    let answerer = Session::answerer(Answerer {
        fleet: FLEET,
        root: root.public(),
        who: Answering::Device(other.0),
        brains,
        keypair: other.1.clone(),
        certificate: chain(&other),
        compressions: 0,
        challenge: [2; 32],
        exporter: exporters[1],
        limits: Limits::default(),
    });
    (caller, answerer)
}
