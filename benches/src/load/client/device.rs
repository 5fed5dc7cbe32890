//! A device that keeps no more than what is not acknowledged yet.
//!
//! It speaks through the same [`Session`] as every edge, keeps a replica of its tree, and signs
//! its log as the design says. What it leaves out is the disk: that is the brain's to wait for.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::bail;
use protocol::EntryId;
use protocol::clock::Hlc;
use protocol::compress::Compression;
use protocol::history::{
    Admission, Author, Draft, Entry, Genesis, Head, LogId, Provenance, Role, SignedHead, Tree,
    TreeKind, VersionVector, admit,
};
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Input, Output, Replica, Session};
use protocol::state::{Path, Scalar, StateSource, Value};
use protocol::trace::{EntryTrace, TraceContext};
use protocol::wire::{BATCH_ENTRIES_MAX, LogPosition};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::Bytes;

use super::meters::Meters;
use crate::device::{LINK_PATH, Membership, now, random};
use crate::link::{RawLink, Target};
use crate::load::signal::Signal;

/// The most entries that a device leaves without a signature.
const UNSIGNED_MAX: u64 = 256;
/// How long it leaves entries without one.
const UNSIGNED_TIME_MAX: Duration = Duration::from_secs(1);
/// How long a handshake may take.
const HANDSHAKE_TIME_MAX: Duration = Duration::from_secs(30);
/// The leaf by which operators tell devices a number.
const TOLD: &str = "desired/bench/number";

/// One device.
pub(super) struct LeanDevice {
    number: usize,
    membership: Membership,
    target: Target,
    meters: Rc<Meters>,
    signal: Signal,
    told: Path,
    tree: Tree,
    author: Author,
    /// What the brain has yet to acknowledge, with the moment when it was due.
    pending: VecDeque<(Entry, Instant)>,
    /// Since when there are entries without a signature.
    unsigned_since: Option<Instant>,
    /// The share of updates that are traced, and what decides which.
    traced: (f64, SmallRng),
    /// The traces of what is not offered yet.
    traces: Vec<EntryTrace>,
    started: Instant,
    connection: Option<(RawLink, Session)>,
}

impl LeanDevice {
    pub(super) fn new(
        number: usize,
        membership: Membership,
        target: Target,
        meters: Rc<Meters>,
        signal: Signal,
    ) -> anyhow::Result<Self> {
        let name = membership.device.to_string();
        let genesis = Genesis { kind: TreeKind::Device, fleet: membership.fleet, name };
        let epoch = u64::from_be_bytes(*random().first_chunk().expect("8 of 32 bytes"));
        let log = LogId { author: membership.keypair.public(), epoch };
        Ok(Self {
            number,
            membership,
            target,
            meters,
            signal,
            told: Path::new(TOLD)?,
            tree: Tree::new(genesis),
            author: Author::new(log, Hlc::default()),
            pending: VecDeque::new(),
            unsigned_since: None,
            traced: (0.0, SmallRng::seed_from_u64(0)),
            traces: Vec::new(),
            started: Instant::now(),
            connection: None,
        })
    }

    /// Traces a share of the updates from now on.
    pub(super) fn trace(&mut self, share: f64, random: SmallRng) {
        self.traced = (share, random);
    }

    /// How many updates the brain has yet to acknowledge.
    pub(super) fn pending(&self) -> usize {
        self.pending.len()
    }

    pub(super) fn is_connected(&self) -> bool {
        self.connection.is_some()
    }

    /// Connects and shakes hands.
    pub(super) async fn connect(&mut self) -> anyhow::Result<()> {
        let link =
            RawLink::open_to(&self.target, LINK_PATH, Some(&self.membership.api_key)).await?;
        let Membership { fleet, root, device, keypair, certificate, .. } = self.membership.clone();
        let positions =
            self.tree.heads().map(|head| LogPosition::of(&self.tree, head.log)).collect();
        let replica = Replica {
            tree: self.tree.id(),
            logs: positions,
            floor: VersionVector::default(),
            ends: Vec::new(),
            author: keypair.public(),
        };
        let mut session = Session::caller(Caller {
            fleet,
            root,
            device,
            keypair,
            intent: Intent::Link { certificate, replica },
            compressions: Compression::Zstd.bit(),
            challenge: random(),
            exporter: link.exporter,
        });
        let outputs = session.handle(Input::Connected, now(self.started));
        self.connection = Some((link, session));
        let shaking = async {
            self.carry_out(outputs).await?;
            while self.connection.as_ref().is_some_and(|(_, session)| !session.is_established()) {
                let frame = self.next_frame().await?;
                self.take(frame).await?;
            }
            anyhow::Ok(())
        };
        let shaken = timeout(HANDSHAKE_TIME_MAX, shaking).await;
        match (shaken, self.is_connected()) {
            (Ok(Ok(())), true) => {}
            (Ok(Err(error)), _) => return self.give_up(&error.to_string()),
            (Ok(Ok(())), false) => bail!("the brain hung up"),
            (Err(_), _) => return self.give_up("the handshake took too long"),
        }
        // An earlier connection may have broken before the brain heard of the last head.
        match self.tree.log(&self.author.log()).and_then(|log| log.signed) {
            Some(signed) => self.feed(Input::Sealed(signed)).await,
            None => Ok(()),
        }
    }

    /// Drops the connection without a word.
    pub(super) fn disconnect(&mut self) {
        if let Some((link, _)) = self.connection.take() {
            link.abort();
        }
    }

    /// Writes an update that was due at `due`.
    pub(super) fn write(&mut self, due: Instant) {
        let (path, value) = self.signal.next();
        let provenance = Provenance::new(StateSource::Hardware, "sensor:bench", "changed");
        let changes = vec![(path, Some(value))];
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let time = now(self.started);
        // No sensor repeats its value, so there is always something to write.
        let Some(entry) = self.author.write(&self.tree, draft, time.wall_ms, time.quality) else {
            return;
        };
        self.tree.apply(&entry, entry.id());
        let (share, random) = &mut self.traced;
        if random.random::<f64>() < *share {
            let (trace_id, span_id) = (random.random(), random.random());
            let context = TraceContext { trace_id, span_id, flags: 1 };
            self.traces.push(EntryTrace { seq: entry.seq, context });
        }
        self.pending.push_back((entry, due));
        self.unsigned_since.get_or_insert(due);
        self.meters.written();
    }

    /// Offers what was written since to the brain, and signs it when that is due.
    pub(super) async fn offer(&mut self) -> anyhow::Result<()> {
        let log = self.author.log();
        let position = LogPosition::of(&self.tree, log);
        for trace in std::mem::take(&mut self.traces) {
            self.feed(Input::Traced { log, trace }).await?;
        }
        self.feed(Input::Stored { log, position, consumed_bytes: 0 }).await?;
        if position.seq - position.sealed >= UNSIGNED_MAX { self.sign().await } else { Ok(()) }
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn next_tick(&self) -> Option<Instant> {
        let signing = self.unsigned_since.map(|since| since + UNSIGNED_TIME_MAX);
        let (_, session) = self.connection.as_ref()?;
        let session = session.next_tick_ms().map(|ms| self.started + Duration::from_millis(ms));
        [signing, session].into_iter().flatten().min()
    }

    /// Signs, pings, or gives a silent brain up.
    pub(super) async fn tick(&mut self) -> anyhow::Result<()> {
        if self.unsigned_since.is_some_and(|since| since.elapsed() >= UNSIGNED_TIME_MAX) {
            self.sign().await?;
        }
        self.feed(Input::Tick).await
    }

    /// The next frame; none when there is no connection, or its end. Nothing is lost where the
    /// wait is dropped.
    pub(super) async fn next_frame(&mut self) -> anyhow::Result<Option<Bytes>> {
        match &mut self.connection {
            Some((link, _)) => link.next().await,
            None => Ok(None),
        }
    }

    /// Deals with what [`next_frame`](Self::next_frame) gave.
    pub(super) async fn take(&mut self, frame: Option<Bytes>) -> anyhow::Result<()> {
        match frame {
            Some(frame) => {
                self.meters.frame_received(frame.len());
                self.feed(Input::Frame(&frame)).await
            }
            None => {
                self.connection = None;
                Ok(())
            }
        }
    }

    async fn sign(&mut self) -> anyhow::Result<()> {
        self.unsigned_since = None;
        let log = self.author.log();
        let Some(state) = self.tree.log(&log) else { return Ok(()) };
        let head = Head { tree: self.tree.id(), log, seq: state.seq, id: state.head };
        let signed = SignedHead::sign(&self.membership.keypair, head);
        self.tree.take_signed_head(signed);
        self.feed(Input::Sealed(signed)).await
    }

    async fn feed(&mut self, input: Input<'_>) -> anyhow::Result<()> {
        let Some((_, session)) = &mut self.connection else { return Ok(()) };
        let outputs = session.handle(input, now(self.started));
        self.carry_out(outputs).await
    }

    async fn carry_out(&mut self, outputs: Vec<Output>) -> anyhow::Result<()> {
        let mut queue = VecDeque::from(outputs);
        while let Some(output) = queue.pop_front() {
            let answer = match output {
                Output::Send(frame) => {
                    self.meters.frame_sent(frame.len());
                    let Some((link, _)) = &mut self.connection else { return Ok(()) };
                    if link.send(frame).await.is_err() {
                        self.connection = None;
                        return Ok(());
                    }
                    None
                }
                Output::Fetch { log, after, bytes_max } => Some(self.fetch(log, after, bytes_max)),
                Output::Ingest { log, entries, bytes } => Some(self.ingest(log, entries, bytes)),
                Output::TakeSignedHead(signed) => {
                    self.tree.take_signed_head(signed);
                    let log = signed.head.log;
                    let position = LogPosition::of(&self.tree, log);
                    Some(Input::Stored { log, position, consumed_bytes: 0 })
                }
                Output::Acked { log, stored, .. } => {
                    self.acked(log, stored);
                    None
                }
                Output::Closed(ended) => {
                    self.connection = None;
                    bail!("{}", ended.error);
                }
                Output::PeerRefused(refuse) => bail!("the brain refuses: {}", refuse.error),
                _ => None,
            };
            if let (Some(answer), Some((_, session))) = (answer, &mut self.connection) {
                queue.extend(session.handle(answer, now(self.started)));
            }
        }
        Ok(())
    }

    fn acked(&mut self, log: LogId, stored: u64) {
        if log != self.author.log() {
            return;
        }
        let now = Instant::now();
        while self.pending.front().is_some_and(|(entry, _)| entry.seq <= stored) {
            if let Some((_, due)) = self.pending.pop_front() {
                self.meters.stored(now.saturating_duration_since(due).as_micros() as u64);
            }
        }
    }

    fn fetch(&self, log: LogId, after: u64, bytes_max: usize) -> Input<'static> {
        let mut bytes = 0;
        let own = log == self.author.log();
        let entries = self.pending.iter().filter(|(entry, _)| own && entry.seq > after);
        let entries = entries.map(|(entry, _)| entry).take_while(|entry| {
            let fits = bytes == 0 || bytes + size_bytes(entry) <= bytes_max;
            bytes += size_bytes(entry);
            fits
        });
        Input::Fetched { log, entries: entries.take(BATCH_ENTRIES_MAX).cloned().collect() }
    }

    fn ingest(&mut self, log: LogId, entries: Vec<(EntryId, Entry)>, bytes: u32) -> Input<'static> {
        let wall_ms = now(self.started).wall_ms;
        for (id, entry) in entries {
            let own = entry.log.author == self.membership.keypair.public();
            let role = if own { Role::Owner(self.membership.device) } else { Role::Brain };
            if let Ok(Admission::New) = admit(&self.tree, &entry, id, role, wall_ms) {
                let told = entry.delta.changes().find(|(path, _)| **path == self.told);
                if let Some((_, Some(Value::Scalar(Scalar::Int(number))))) = told {
                    self.meters.told(self.number, *number);
                }
                self.tree.apply(&entry, id);
            }
        }
        let position = LogPosition::of(&self.tree, log);
        Input::Stored { log, position, consumed_bytes: bytes }
    }

    fn give_up(&mut self, error: &str) -> anyhow::Result<()> {
        self.connection = None;
        bail!("{error}")
    }
}

/// About how many bytes an entry takes in a batch.
fn size_bytes(entry: &Entry) -> usize {
    let values = entry.delta.changes().filter_map(|(_, value)| value);
    32 + values.map(Value::size_bytes).sum::<usize>()
}
