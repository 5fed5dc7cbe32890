//! A brain as far as a device can tell: TLS, WebSocket, and the protocol's answering side over
//! trees in memory. It can be switched off or fall silent.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures_util::{SinkExt, StreamExt};
use protocol::clock::{ClockQuality, Hlc};
use protocol::history::{
    Admission, Author, Draft, Entry, Head, LogId, Provenance, Refold, Role, SignedHead, Tree, admit,
};
use protocol::keys::{Certificate, Chain, EnrolmentToken, Keypair, Subject, Validity};
use protocol::session::handshake::{Answerer, Answering, EXPORTER_BYTES, EXPORTER_LABEL};
use protocol::session::{Input, Limits, Now, Output, Replica, Session, error};
use protocol::state::{Path, StateSource, Value};
use protocol::wire::{Enrolled, LogPosition};
use protocol::{BrainId, DeviceId, ErrorCode, FleetId};
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use sha2::{Digest, Sha256};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_tungstenite::tungstenite::Message;

pub(crate) const HEARTBEAT_MS: u32 = 400;
const SECRET: [u8; 32] = [0x5E; 32];

/// The brain's double.
#[derive(Clone)]
pub(crate) struct Peer(Arc<Shared>);

struct Shared {
    port: u16,
    fleet: FleetId,
    tls: Arc<rustls::ServerConfig>,
    ca_der: Vec<u8>,
    root: Keypair,
    brain: Keypair,
    started: Instant,
    connections: AtomicU64,
    mode: watch::Sender<Mode>,
    changed: watch::Sender<u64>,
    devices: Mutex<BTreeMap<DeviceId, Device>>,
}

/// How the brain behaves towards the network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// It answers.
    Up,
    /// It refuses and cuts connections.
    Down,
    /// It holds connections and neither reads nor writes.
    Silent,
}

/// One device's tree at the brain.
pub(crate) struct Device {
    pub(crate) tree: Tree,
    pub(crate) logs: BTreeMap<LogId, Vec<Entry>>,
    author: Author,
}

impl Peer {
    pub(crate) async fn start() -> Self {
        Self::of_fleet(1).await
    }

    pub(crate) async fn of_fleet(number: u8) -> Self {
        let mut ca = rcgen::CertificateParams::new(Vec::new()).expect("parameters");
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_key = rcgen::KeyPair::generate().expect("a key");
        let ca = rcgen::CertifiedIssuer::self_signed(ca, ca_key).expect("a certificate");
        let key = rcgen::KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let leaf = rcgen::CertificateParams::new(names).expect("parameters");
        let leaf = leaf.signed_by(&key, &ca).expect("a certificate");
        let ca_der = ca.der().to_vec();
        let chain = vec![leaf.der().clone(), CertificateDer::from(ca_der.clone())];
        let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a server");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("bound").port();
        let peer = Self(Arc::new(Shared {
            port,
            fleet: FleetId([number; 16]),
            tls: Arc::new(tls),
            ca_der,
            root: Keypair::from_seed(&[number; 32]),
            brain: Keypair::from_seed(&[number + 100; 32]),
            started: Instant::now(),
            connections: AtomicU64::new(0),
            mode: watch::Sender::new(Mode::Up),
            changed: watch::Sender::new(0),
            devices: Mutex::default(),
        }));
        tokio::spawn(peer.clone().listen(listener));
        peer
    }

    pub(crate) fn url(&self) -> String {
        format!("wss://localhost:{}", self.0.port)
    }

    pub(crate) fn token(&self) -> EnrolmentToken {
        EnrolmentToken {
            fleet: self.0.fleet,
            root: self.0.root.public(),
            tls_ca_sha256: Sha256::digest(&self.0.ca_der).into(),
            number: 1,
            secret: SECRET,
        }
    }

    pub(crate) fn set_mode(&self, mode: Mode) {
        self.0.mode.send_replace(mode);
    }

    pub(crate) fn now(&self) -> Now {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        Now {
            wall_ms: since.as_millis() as u64,
            mono_ms: self.0.started.elapsed().as_millis() as u64,
            quality: ClockQuality::Synchronised,
        }
    }

    pub(crate) fn devices(&self) -> MutexGuard<'_, BTreeMap<DeviceId, Device>> {
        self.0.devices.lock().expect("not poisoned")
    }

    /// The entries of all logs of a device, in the order of their timestamps.
    pub(crate) fn entries_of(&self, device: DeviceId) -> Vec<Entry> {
        let devices = self.devices();
        let logs = devices.get(&device).map(|device| &device.logs);
        let own = |log: &&LogId| log.author != self.0.brain.public();
        let mut entries: Vec<Entry> = logs
            .into_iter()
            .flat_map(|logs| logs.keys().filter(own).flat_map(|log| logs[log].clone()))
            .collect();
        entries.sort_by_key(|entry| entry.hlc);
        entries
    }

    pub(crate) fn value(&self, device: DeviceId, path: &str) -> Option<Value> {
        let path = Path::new(path).expect("a path");
        self.devices().get(&device)?.tree.value(&path).map(|value| value.into_owned())
    }

    pub(crate) fn root_of(&self, device: DeviceId) -> Option<[u8; 32]> {
        Some(self.devices().get(&device)?.tree.root())
    }

    /// Writes desired state.
    pub(crate) fn desire(&self, device: DeviceId, path: &str, value: Option<Value>) {
        let now = self.now();
        {
            let mut devices = self.devices();
            let Device { tree, logs, author } = devices.get_mut(&device).expect("known");
            let path = Path::new(&format!("desired/{path}")).expect("a path");
            let draft = Draft {
                changes: vec![(path, value)],
                provenance: Provenance::new(StateSource::Operator, "user:test", "test"),
                lease_until_ms: None,
            };
            let entry = author.write(tree, draft, now.wall_ms, now.quality).expect("a change");
            tree.apply(&entry, entry.id());
            logs.entry(entry.log).or_default().push(entry);
        }
        self.0.changed.send_modify(|count| *count += 1);
    }

    async fn listen(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            if *self.0.mode.borrow() != Mode::Down {
                let peer = self.clone();
                tokio::spawn(async move {
                    let mut mode = peer.0.mode.subscribe();
                    tokio::select! {
                        _ = mode.wait_for(|mode| *mode == Mode::Down) => {}
                        _ = peer.clone().serve(stream) => {}
                    }
                });
            }
        }
    }

    async fn serve(self, stream: TcpStream) -> Option<()> {
        let stream = TlsAcceptor::from(self.0.tls.clone()).accept(stream).await.ok()?;
        let exporter = stream
            .get_ref()
            .1
            .export_keying_material([0; EXPORTER_BYTES], EXPORTER_LABEL, None)
            .expect("TLS 1.3");
        let mut socket = tokio_tungstenite::accept_async(stream).await.ok()?;
        let mut talk = Talk::new(self.clone(), exporter);
        let (mut mode, mut changed) = (self.0.mode.subscribe(), self.0.changed.subscribe());
        loop {
            for frame in talk.outbox.drain(..) {
                socket.send(Message::Binary(frame.into())).await.ok()?;
            }
            if talk.over {
                return socket.close(None).await.ok();
            }
            if *mode.borrow_and_update() == Mode::Silent {
                mode.wait_for(|mode| *mode != Mode::Silent).await.ok()?;
            }
            tokio::select! {
                biased;
                _ = mode.changed() => {}
                _ = changed.changed() => talk.tell_brains_news(),
                message = socket.next() => match message? {
                    Ok(Message::Binary(frame)) => talk.feed(Input::Frame(&frame)),
                    Ok(_) => {}
                    Err(_) => return None,
                },
            }
        }
    }
}

struct Talk {
    peer: Peer,
    session: Session,
    device: Option<DeviceId>,
    outbox: Vec<Vec<u8>>,
    over: bool,
}

impl Talk {
    fn new(peer: Peer, exporter: [u8; EXPORTER_BYTES]) -> Self {
        let brain_id = BrainId([0xB1; 16]);
        let (root, brain) = (peer.0.root.clone(), peer.0.brain.clone());
        let session = Session::answerer(Answerer {
            fleet: peer.0.fleet,
            root: root.public(),
            who: Answering::Brain(brain_id),
            brains: [].into(),
            certificate: Chain { leaf: peer.brain_certificate(), issuer: None },
            keypair: brain,
            compressions: 0b111,
            challenge: [3; 32],
            exporter,
            limits: Limits { heartbeat_ms: HEARTBEAT_MS, ..Limits::default() },
        });
        Self { peer, session, device: None, outbox: Vec::new(), over: false }
    }

    fn feed(&mut self, input: Input<'_>) {
        let outputs = self.session.handle(input, self.peer.now());
        for output in outputs {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send(frame) => self.outbox.push(frame),
            Output::Closed(_) => self.over = true,
            Output::Enrol(device, token) => {
                if token.secret != SECRET {
                    let error = error(ErrorCode::BadToken, "enrol", "unknown token");
                    return self.feed(Input::Denied(error));
                }
                let subject = Subject::Device(device.device, None);
                let (brain, key) = (&self.peer.0.brain, device.key);
                let leaf =
                    Certificate::issue(brain, self.peer.0.fleet, subject, key, Validity::ALWAYS);
                let issuer = Some(self.peer.brain_certificate());
                let certificate = Chain { leaf, issuer };
                let now_ms = self.peer.now().wall_ms;
                let api_key = "key-of-the-test".to_owned();
                let enrolled = Enrolled { certificate, api_key, now_ms };
                self.feed(Input::EnrolmentGranted(Box::new(enrolled)));
                self.over = true;
            }
            Output::Authorise(device) => {
                self.device = Some(device.device);
                let author = self.peer.0.brain.public();
                let replica = {
                    let mut devices = self.peer.devices();
                    let Device { tree, .. } = devices.entry(device.device).or_insert_with(|| {
                        let log = LogId { author, epoch: 1 };
                        Device {
                            tree: Tree::new(edge::track::genesis(self.peer.0.fleet, device.device)),
                            logs: BTreeMap::new(),
                            author: Author::new(log, Hlc::default()),
                        }
                    });
                    let logs =
                        tree.logs().iter().map(|log| LogPosition::of(tree, log.log)).collect();
                    {
                        let floor = protocol::history::VersionVector::default();
                        Replica { tree: tree.id(), logs, floor, ends: Vec::new(), author }
                    }
                };
                let connection = 1 + self.peer.0.connections.fetch_add(1, Ordering::Relaxed);
                self.feed(Input::Authorised { connection, replica });
                self.tell_brains_news();
            }
            Output::Fetch { log, after, .. } => {
                let entries = self.with(|device| {
                    let entries = device.logs.get(&log).cloned().unwrap_or_default();
                    entries.into_iter().filter(|entry| entry.seq > after).take(50).collect()
                });
                self.feed(Input::Fetched { log, entries });
            }
            Output::Ingest { log, entries, bytes } => self.ingest(log, entries, bytes),
            Output::TakeSignedHead(signed) => {
                let log = signed.head.log;
                let position = self.with(|device| {
                    device.tree.take_signed_head(signed);
                    LogPosition::of(&device.tree, log)
                });
                self.feed(Input::Stored { log, position, consumed_bytes: 0 });
            }
            Output::TakeCut(cut) => self.with(|device| {
                if let Some(entries) = device.logs.get_mut(&cut.log) {
                    entries.retain(|entry| entry.seq <= cut.last_seq);
                }
                let mut refold = Refold::of(device.tree.take_cut(cut));
                device.logs.values().flatten().for_each(|entry| refold.take(&device.tree, entry));
                let leaves = refold.finish(&device.tree);
                device.tree.put_refolded(leaves);
            }),
            _ => {}
        }
    }

    fn ingest(&mut self, log: LogId, entries: Vec<(protocol::EntryId, Entry)>, bytes: u32) {
        let (device_id, now_ms) = (self.device.expect("authorised"), self.peer.now().wall_ms);
        let (position, refused) = self.with(|device| {
            let mut refused = None;
            for (id, entry) in entries {
                match admit(&device.tree, &entry, id, Role::Owner(device_id), now_ms) {
                    Ok(Admission::Known) => {}
                    Ok(Admission::New) => {
                        device.tree.apply(&entry, id);
                        device.logs.entry(log).or_default().push(entry);
                    }
                    Err(refusal) => {
                        refused = Some((entry.seq, refusal));
                        break;
                    }
                }
            }
            (LogPosition::of(&device.tree, log), refused)
        });
        self.feed(Input::Stored { log, position, consumed_bytes: bytes });
        if let Some((seq, refusal)) = refused {
            let error = error(refusal.code(), "admit", refusal.to_string());
            self.feed(Input::Refused { log, seq, error, consumed_bytes: 0, fatal: false });
        }
    }

    /// The brain's own log, and the seal under it.
    fn tell_brains_news(&mut self) {
        if self.device.is_none() || !self.session.is_established() {
            return;
        }
        let brain = self.peer.0.brain.clone();
        let news = self.with(|device| {
            let log = device.author.log();
            let state = device.tree.log(&log)?;
            let head = Head { tree: device.tree.id(), log, seq: state.seq, id: state.head };
            let signed = SignedHead::sign(&brain, head);
            device.tree.take_signed_head(signed);
            Some((LogPosition::of(&device.tree, log), signed))
        });
        if let Some((position, signed)) = news {
            self.feed(Input::Stored { log: position.log, position, consumed_bytes: 0 });
            self.feed(Input::Sealed(signed));
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Device) -> T) -> T {
        let device = self.device.expect("authorised");
        act(self.peer.devices().get_mut(&device).expect("known"))
    }
}

impl Peer {
    fn brain_certificate(&self) -> Certificate {
        let subject = Subject::Brain(BrainId([0xB1; 16]));
        let key = self.0.brain.public();
        Certificate::issue(&self.0.root, self.0.fleet, subject, key, Validity::ALWAYS)
    }
}

/// Waits until something holds.
pub(crate) async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let patience = Instant::now() + Duration::from_secs(30);
    while !holds() {
        assert!(Instant::now() < patience, "never came about: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
