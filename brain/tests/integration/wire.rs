//! What crosses the network, and what peers that stall can do.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use benches::brain::Brain;
use benches::device::LightDevice;
use benches::link::RawLink;
use rustls::crypto::ring::default_provider;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsConnector;

use crate::harness::{brain, count, device, way};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_1_2_is_refused() {
    let brain = brain();
    for (version, expected) in [(&rustls::version::TLS12, false), (&rustls::version::TLS13, true)] {
        let mut roots = RootCertStore::empty();
        let authority = brain.authority().expect("an authority");
        roots.add(CertificateDer::from_pem_slice(&authority).expect("PEM")).expect("a root");
        let config = ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[version])
            .expect("supported")
            .with_root_certificates(roots)
            .with_no_client_auth();
        let stream = TcpStream::connect(brain.devices).await.expect("connects");
        let name = ServerName::try_from("localhost").expect("a name");
        let shaken = TlsConnector::from(Arc::new(config)).connect(name, stream).await;
        assert_eq!(shaken.is_ok(), expected, "{version:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_capture_of_the_wire_shows_neither_paths_nor_values_nor_keys() {
    let brain = brain();
    let (address, captured) = tap(&brain).await;
    let mut device = device(&brain).await;
    device.way.brain = address;
    device.connect().await.expect("connects through the tap");
    device.write("reported/secret_path", "secret value".into()).expect("valid");
    device.offer().await.expect("offers");
    let stored = |device: &LightDevice| device.stored() == 1;
    device.run_until(stored, Duration::from_secs(10)).await.expect("stored");
    let bytes = captured.lock().expect("no panic").clone();
    assert!(bytes.len() > 1_000, "something was captured");
    let key = device.membership.api_key.clone();
    for secret in ["secret_path", "secret value", &key, "x-api-key"] {
        let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
        assert!(!found, "{secret} crossed in plain text");
    }
}

/// A proxy that keeps a copy of everything.
async fn tap(brain: &Brain) -> (std::net::SocketAddr, Arc<Mutex<Vec<u8>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let address = listener.local_addr().expect("an address");
    let captured = Arc::new(Mutex::new(Vec::new()));
    let (kept, target) = (captured.clone(), brain.devices);
    tokio::spawn(async move {
        while let Ok((inner, _)) = listener.accept().await {
            let outer = TcpStream::connect(target).await.expect("connects");
            let (inner_read, inner_write) = inner.into_split();
            let (outer_read, outer_write) = outer.into_split();
            tokio::spawn(copy(inner_read, outer_write, kept.clone()));
            tokio::spawn(copy(outer_read, inner_write, kept.clone()));
        }
    });
    (address, captured)
}

async fn copy(
    mut from: impl AsyncReadExt + Unpin,
    mut to: impl AsyncWriteExt + Unpin,
    kept: Arc<Mutex<Vec<u8>>>,
) {
    let mut buffer = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        kept.lock().expect("no panic").extend_from_slice(&buffer[..read]);
        if to.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
}

/// The most that one stalled connection may cost the brain.
const BYTES_PER_CONNECTION_MAX: u64 = 256 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn peers_that_never_read_cost_bounded_memory_and_nobody_else_notices() {
    const STALLED: u64 = 100;
    let brain = brain();
    let mut stalled = Vec::new();
    for _ in 0..STALLED {
        let mut device = device(&brain).await;
        device.connect().await.expect("connects");
        stalled.push(device);
    }
    let before = memory_bytes(&brain);
    // More for each of them than credit and buffers hold; none of them reads again.
    let text = "x".repeat(15_000);
    for device in &stalled {
        let path = format!("/api/v1/devices/{}/desired", device.membership.device);
        let leaves: serde_json::Map<_, _> =
            (0..30).map(|n| (format!("blob/{n}"), text.clone().into())).collect();
        for (name, value) in leaves {
            let body = serde_json::json!({ name: value });
            assert_eq!(brain.call("PATCH", &path, Some(&body)).expect("answers").0, 200);
        }
    }
    let grown = memory_bytes(&brain).saturating_sub(before);
    println!("{STALLED} stalled peers: the brain grew by {} KiB", grown >> 10);
    // The states themselves, in the twins; memtables and the cache of states, which are bounded by
    // settings; and the connections.
    let states = STALLED * 30 * 15_000;
    let bound = states + (64 << 20) + (32 << 20) + STALLED * BYTES_PER_CONNECTION_MAX;
    assert!(grown < bound, "{grown} of at most {bound} bytes");
    let mut witness = device(&brain).await;
    witness.connect().await.expect("connects");
    witness.write("reported/count", count(1)).expect("valid");
    witness.offer().await.expect("offers");
    let stored = |device: &LightDevice| device.stored() == 1;
    witness.run_until(stored, Duration::from_secs(5)).await.expect("is served at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_entries_that_are_refused_costs_bounded_memory() {
    use protocol::wire::{self, Message, VERSION_MAX};
    let brain = brain();
    let subject = device(&brain).await;
    let mut link = crate::hostile::established(&subject).await;
    // Entries of a log that does not begin at its beginning: each is refused, but all are read.
    let mut author = protocol::history::Author::new(subject.log(), Default::default());
    let provenance = protocol::history::Provenance::new(
        protocol::state::StateSource::Hardware,
        "sensor:flood",
        "flood",
    );
    let path = protocol::state::Path::new("reported/flood").expect("valid");
    let draft = protocol::history::Draft {
        changes: vec![(path, Some("x".repeat(15_000).into()))],
        provenance,
        lease_until_ms: None,
    };
    let quality = protocol::clock::ClockQuality::Synchronised;
    let mut entry = author.write(&subject.tree, draft, 1, quality).expect("a change");
    entry.seq = 7;
    let batch = protocol::wire::Batch::pack(&[entry]).expect("packs");
    let none = protocol::compress::Compression::None;
    let frame = wire::encode(&Message::Entries(batch), VERSION_MAX, none);
    let before = memory_bytes(&brain);
    let mut sent = 0;
    while sent < 256 << 20 && send(&mut link, frame.clone()).await {
        sent += frame.len();
    }
    let grown = memory_bytes(&brain).saturating_sub(before);
    println!("the brain grew by {} KiB over a flood of {} KiB", grown >> 10, sent >> 10);
    assert!(sent > 1 << 20, "the flood was one");
    assert!(grown < 32 << 20, "{grown}");
}

async fn send(link: &mut RawLink, frame: Vec<u8>) -> bool {
    let sending = tokio::time::timeout(Duration::from_secs(2), link.send(frame)).await;
    matches!(sending, Ok(Ok(())))
}

fn memory_bytes(brain: &Brain) -> u64 {
    let pid = brain.pid().expect("it runs").as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("reads");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a figure");
    let kib: u64 = line.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    kib << 10
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_path_or_key_is_told_by_http() {
    let brain = brain();
    let way = way(&brain);
    for (path, key, expected) in [
        ("/v1/link", None, "401"),
        ("/v1/link", Some("fb_00000000000000000000000000000000_00"), "401"),
        ("/nothing", None, "404"),
    ] {
        let opened = RawLink::open(way.brain, None, way.tls.clone(), path, key).await;
        let error = opened.err().expect("refused").to_string();
        assert!(error.contains(expected), "{path}: {error}");
    }
}
