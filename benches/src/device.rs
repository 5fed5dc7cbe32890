//! A device that keeps its log in memory.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Context, bail};
use protocol::clock::{ClockQuality, Hlc};
use protocol::compress::Compression;
use protocol::history::{
    Admission, Author, Draft, Entry, Genesis, Head, LogId, Provenance, Role, SignedHead, Tree,
    TreeKind, VersionVector, admit,
};
use protocol::keys::{Chain, EnrolmentToken, Keypair};
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Ended, Input, Now, Output, Replica, Session};
use protocol::state::{Path, StateSource, Value};
use protocol::wire::{LogPosition, Refuse, TokenProof};
use protocol::{DeviceId, FleetId, PublicKey};
use rustls::ClientConfig;
use tokio::time::timeout;

use crate::link::RawLink;

/// Where devices enrol.
pub const ENROL_PATH: &str = "/v1/enrol";
/// Where enrolled devices connect.
pub const LINK_PATH: &str = "/v1/link";

/// How a device reaches its brain.
#[derive(Clone)]
pub struct Way {
    /// The brain's device listener.
    pub brain: SocketAddr,
    /// The loopback address to call from, where ports of one run out.
    pub source: Option<SocketAddr>,
    /// Trust in the brain's authority. Without it there is no TLS, which only a lab brain takes.
    pub tls: Option<Arc<ClientConfig>>,
}

/// Who a device is.
#[derive(Clone)]
pub struct Membership {
    /// The fleet.
    pub fleet: FleetId,
    /// The fleet's root key.
    pub root: PublicKey,
    /// The device.
    pub device: DeviceId,
    /// Its key.
    pub keypair: Keypair,
    /// Its certificate.
    pub certificate: Chain,
    /// Its API key.
    pub api_key: String,
}

/// A device in memory.
pub struct LightDevice {
    /// Who it is.
    pub membership: Membership,
    /// How it reaches its brain.
    pub way: Way,
    /// Its replica of its tree.
    pub tree: Tree,
    /// What the brain has acknowledged of each log: stored, and sealed.
    pub acked: BTreeMap<LogId, (u64, u64)>,
    /// How the last session ended.
    pub ended: Option<Ended>,
    /// What the brain did not take, the last of it.
    pub refused: Option<Refuse>,
    author: Author,
    entries: BTreeMap<LogId, Vec<Entry>>,
    started: Instant,
    connection: Option<(RawLink, Session)>,
}

impl Membership {
    /// Enrols a new device, whose key is made from `seed`.
    pub async fn enrol(way: &Way, token: &str, seed: [u8; 32]) -> anyhow::Result<Self> {
        let tls = way.tls.clone();
        let link = RawLink::open(way.brain, way.source, tls, ENROL_PATH, None).await?;
        Self::enrol_over(link, token, seed).await
    }

    /// The same over a link to the enrolment path.
    pub async fn enrol_over(
        mut link: RawLink,
        token: &str,
        seed: [u8; 32],
    ) -> anyhow::Result<Self> {
        let token: EnrolmentToken = token.parse()?;
        let keypair = Keypair::from_seed(&seed);
        let device = DeviceId(*keypair.public().0.first_chunk().context("16 of 32 bytes")?);
        let proof = TokenProof { number: token.number, secret: token.secret, name: String::new() };
        let mut session = Session::caller(Caller {
            fleet: token.fleet,
            root: token.root,
            device,
            keypair: keypair.clone(),
            intent: Intent::Enrol { token: proof },
            compressions: 0,
            challenge: random(),
            exporter: link.exporter,
        });
        let now = now(Instant::now());
        let mut outputs = session.handle(Input::Connected, now);
        loop {
            for output in outputs {
                match output {
                    Output::Send(frame) => link.send(frame).await?,
                    Output::Enrolled(enrolled) => {
                        return Ok(Self {
                            fleet: token.fleet,
                            root: token.root,
                            device,
                            keypair,
                            certificate: enrolled.certificate,
                            api_key: enrolled.api_key,
                        });
                    }
                    Output::Closed(ended) => bail!("enrolment ended: {}", ended.error),
                    _ => {}
                }
            }
            let frame = link.receive().await?.context("the brain hung up")?;
            outputs = session.handle(Input::Frame(&frame), now);
        }
    }
}

impl LightDevice {
    /// A device with an empty log.
    pub fn new(membership: Membership, way: Way) -> Self {
        let name = membership.device.to_string();
        let genesis = Genesis { kind: TreeKind::Device, fleet: membership.fleet, name };
        let epoch = u64::from_be_bytes(*random().first_chunk().expect("8 of 32 bytes"));
        let log = LogId { author: membership.keypair.public(), epoch };
        Self {
            membership,
            way,
            tree: Tree::new(genesis),
            acked: BTreeMap::new(),
            ended: None,
            refused: None,
            author: Author::new(log, Hlc::default()),
            entries: BTreeMap::new(),
            started: Instant::now(),
            connection: None,
        }
    }

    /// The log that it writes.
    pub fn log(&self) -> LogId {
        self.author.log()
    }

    /// What the brain has acknowledged of its log.
    pub fn stored(&self) -> u64 {
        self.acked.get(&self.log()).map_or(0, |acked| acked.0)
    }

    /// What of that is under a signed head.
    pub fn sealed(&self) -> u64 {
        self.acked.get(&self.log()).map_or(0, |acked| acked.1)
    }

    /// How many entries it has written.
    pub fn written(&self) -> u64 {
        self.tree.log(&self.log()).map_or(0, |log| log.seq)
    }

    /// Writes a leaf; nothing happens where it has that value.
    pub fn write(&mut self, path: &str, value: Value) -> anyhow::Result<()> {
        let provenance = Provenance::new(StateSource::Hardware, "sensor:test", "changed");
        let changes = vec![(Path::new(path)?, Some(value))];
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let now = self.now();
        let Some(entry) = self.author.write(&self.tree, draft, now.wall_ms, now.quality) else {
            return Ok(());
        };
        self.keep(entry);
        Ok(())
    }

    /// Takes an entry into its own log, whatever it says.
    pub fn keep(&mut self, entry: Entry) {
        self.tree.apply(&entry, entry.id());
        self.entries.entry(entry.log).or_default().push(entry);
    }

    /// The entries of a log that it has, in order.
    pub fn entries(&self, log: &LogId) -> &[Entry] {
        self.entries.get(log).map_or(&[], Vec::as_slice)
    }

    /// Connects and shakes hands.
    pub async fn connect(&mut self) -> anyhow::Result<()> {
        self.ended = None;
        let (tls, key) = (self.way.tls.clone(), self.membership.api_key.clone());
        let way = &self.way;
        let link = RawLink::open(way.brain, way.source, tls, LINK_PATH, Some(&key)).await?;
        let Membership { fleet, root, device, keypair, certificate, .. } = self.membership.clone();
        let positions = self.tree.heads().map(|head| self.position(&head.log)).collect();
        let replica = Replica {
            tree: self.tree.id(),
            logs: positions,
            floor: VersionVector::default(),
            ends: Vec::new(),
            author: keypair.public(),
        };
        let session = Session::caller(Caller {
            fleet,
            root,
            device,
            keypair,
            intent: Intent::Link { certificate, replica },
            compressions: Compression::Zstd.bit(),
            challenge: random(),
            exporter: link.exporter,
        });
        self.connection = Some((link, session));
        self.feed(Input::Connected).await?;
        self.run_until(|device| device.is_connected(), Duration::from_secs(30)).await?;
        if !self.is_connected() {
            let ended = self.ended.as_ref().map(|ended| ended.error.to_string());
            bail!("not connected: {}", ended.unwrap_or_else(|| "the brain hung up".to_owned()));
        }
        Ok(())
    }

    /// Whether the session stands.
    pub fn is_connected(&self) -> bool {
        self.connection.as_ref().is_some_and(|(_, session)| session.is_established())
    }

    /// Drops the connection without a word.
    pub fn disconnect(&mut self) {
        self.connection = None;
    }

    /// Offers what was written since to the brain.
    pub async fn offer(&mut self) -> anyhow::Result<()> {
        let position = self.position(&self.log());
        self.feed(Input::Stored { log: self.log(), position, consumed_bytes: 0 }).await
    }

    /// Signs what was written, and tells the brain.
    pub async fn seal(&mut self) -> anyhow::Result<()> {
        match self.sign() {
            Some(signed) => self.feed(Input::Sealed(signed)).await,
            None => Ok(()),
        }
    }

    /// Signs what was written.
    pub fn sign(&mut self) -> Option<SignedHead> {
        let log = self.log();
        let state = self.tree.log(&log)?;
        let head = Head { tree: self.tree.id(), log, seq: state.seq, id: state.head };
        let signed = SignedHead::sign(&self.membership.keypair, head);
        self.tree.take_signed_head(signed);
        Some(signed)
    }

    /// Serves the session until `done`, the end of the connection, or the deadline, which is an
    /// error.
    pub async fn run_until(
        &mut self,
        mut done: impl FnMut(&Self) -> bool,
        deadline: Duration,
    ) -> anyhow::Result<()> {
        let serve = async {
            while !done(self) {
                let Some((link, session)) = &mut self.connection else { break };
                let now_ms = self.started.elapsed().as_millis() as u64;
                let wait = session.next_tick_ms().map_or(60_000, |at| at.saturating_sub(now_ms));
                match timeout(Duration::from_millis(wait), link.receive()).await {
                    Ok(frame) => match frame? {
                        Some(frame) => self.feed(Input::Frame(&frame)).await?,
                        None => self.connection = None,
                    },
                    Err(_) => self.feed(Input::Tick).await?,
                }
            }
            Ok(())
        };
        timeout(deadline, serve).await.context("the device waited too long")?
    }

    /// Feeds the session and carries out what it says.
    pub async fn feed(&mut self, input: Input<'_>) -> anyhow::Result<()> {
        let now = self.now();
        let Some((_, session)) = &mut self.connection else { return Ok(()) };
        let mut queue = std::collections::VecDeque::from(session.handle(input, now));
        while let Some(output) = queue.pop_front() {
            let answer = match output {
                Output::Send(frame) => {
                    let Some((link, _)) = &mut self.connection else { return Ok(()) };
                    if link.send(frame).await.is_err() {
                        self.connection = None;
                        return Ok(());
                    }
                    None
                }
                Output::Fetch { log, after, .. } => Some(self.fetch(log, after)),
                Output::Ingest { log, entries, bytes } => Some(self.ingest(log, entries, bytes)),
                Output::TakeSignedHead(signed) => {
                    self.tree.take_signed_head(signed);
                    let log = signed.head.log;
                    let position = self.position(&log);
                    Some(Input::Stored { log, position, consumed_bytes: 0 })
                }
                Output::TakeCheckpoint(checkpoint) => {
                    self.tree.merge(&checkpoint)?;
                    for (log, _) in checkpoint.vector().iter() {
                        let (log, position) = (*log, self.position(log));
                        let stored = Input::Stored { log, position, consumed_bytes: 0 };
                        if let Some((_, session)) = &mut self.connection {
                            queue.extend(session.handle(stored, now));
                        }
                    }
                    None
                }
                Output::Acked { log, stored, sealed } => {
                    self.acked.insert(log, (stored, sealed));
                    None
                }
                Output::PeerRefused(refuse) => {
                    self.refused = Some(refuse);
                    None
                }
                Output::Closed(ended) => {
                    self.ended = Some(ended);
                    self.connection = None;
                    return Ok(());
                }
                _ => None,
            };
            if let (Some(answer), Some((_, session))) = (answer, &mut self.connection) {
                queue.extend(session.handle(answer, now));
            }
        }
        Ok(())
    }

    fn fetch(&self, log: LogId, after: u64) -> Input<'static> {
        let entries = self.entries.get(&log).into_iter().flatten();
        let entries = entries.filter(|entry| entry.seq > after).take(256).cloned().collect();
        Input::Fetched { log, entries }
    }

    fn ingest(
        &mut self,
        log: LogId,
        entries: Vec<(protocol::EntryId, Entry)>,
        bytes: u32,
    ) -> Input<'static> {
        let now = self.now();
        for (id, entry) in entries {
            let own = entry.log.author == self.membership.keypair.public();
            let role = if own { Role::Owner(self.membership.device) } else { Role::Brain };
            if let Ok(Admission::New) = admit(&self.tree, &entry, id, role, now.wall_ms) {
                self.tree.apply(&entry, id);
                self.entries.entry(entry.log).or_default().push(entry);
            }
        }
        Input::Stored { log, position: self.position(&log), consumed_bytes: bytes }
    }

    fn position(&self, log: &LogId) -> LogPosition {
        LogPosition::of(&self.tree, *log)
    }

    fn now(&self) -> Now {
        now(self.started)
    }
}

/// The time of this machine, whose monotonic clock began at `started`.
pub fn now(started: Instant) -> Now {
    let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Now {
        wall_ms: wall.as_millis() as u64,
        mono_ms: started.elapsed().as_millis() as u64,
        quality: ClockQuality::Synchronised,
    }
}

/// 32 random bytes.
pub fn random() -> [u8; 32] {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).expect("the system has a random generator");
    bytes
}
