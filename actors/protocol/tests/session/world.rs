//! A caller and an answerer, each the shell of a session, with a wire between them.

use std::collections::VecDeque;

use protocol::clock::ClockQuality;
use protocol::compress::Compression;
use protocol::history::{Checkpoint, Cut, Entry, LogId, SignedHead};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::handshake::{Answerer, Answering, Caller, Intent};
use protocol::session::{Ended, Input, Limits, Now, Output, Session};
use protocol::wire::{self, Enrolled, Message, MessageKind, TokenProof, VERSION_MAX};
use protocol::{BrainId, DeviceId, EntryId, ErrorCode};

use super::store::{DEVICE, FLEET, Store, brain_key, device_key, key, root_key};

pub(crate) const BASE_MS: u64 = 1_700_000_000_000;
pub(crate) const BRAIN: BrainId = BrainId([0xB1; 16]);

pub(crate) fn brain_chain() -> Chain {
    let (subject, key) = (Subject::Brain(BRAIN), brain_key().public());
    let leaf = Certificate::issue(&root_key(), FLEET, subject, key, Validity::ALWAYS);
    Chain { leaf, issuer: None }
}

pub(crate) fn device_chain() -> Chain {
    let (subject, key) = (Subject::Device(DEVICE, None), device_key().public());
    let leaf = Certificate::issue(&brain_key(), FLEET, subject, key, Validity::ALWAYS);
    Chain { leaf, issuer: Some(brain_chain().leaf) }
}

pub(crate) fn token() -> TokenProof {
    TokenProof { number: 77, secret: [0x5E; 32], name: "crane 4".into() }
}

/// What a device brings to its connection number `n`.
pub(crate) fn caller(store: &Store, n: u8) -> Caller {
    Caller {
        fleet: FLEET,
        root: root_key().public(),
        device: DEVICE,
        keypair: device_key(),
        intent: Intent::Link { certificate: device_chain(), replica: store.replica() },
        compressions: Compression::Zstd.bit() | Compression::Gzip.bit(),
        challenge: [n; 32],
        exporter: [n ^ 0x55; 32],
    }
}

/// What a brain brings to its connection number `n`.
pub(crate) fn answerer(n: u8) -> Answerer {
    Answerer {
        fleet: FLEET,
        root: root_key().public(),
        who: Answering::Brain(BRAIN),
        brains: [].into(),
        keypair: brain_key(),
        certificate: brain_chain(),
        compressions: Compression::Zstd.bit(),
        challenge: [n ^ 0xAA; 32],
        exporter: [n ^ 0x55; 32],
        limits: Limits::default(),
    }
}

/// The device with key 7.
pub(crate) fn other_device() -> (DeviceId, Keypair, Chain) {
    let (device, key) = (DeviceId([0xD2; 16]), key(7));
    let subject = Subject::Device(device, None);
    let leaf = Certificate::issue(&brain_key(), FLEET, subject, key.public(), Validity::ALWAYS);
    (device, key, Chain { leaf, issuer: Some(brain_chain().leaf) })
}

/// What a device brings to its connection number `n` to the device with key 7.
pub(crate) fn peer_caller(n: u8) -> Caller {
    let (_, other, _) = other_device();
    let intent = Intent::Peer {
        certificate: device_chain(),
        key: other.public(),
        brains: [brain_key().public()].into(),
    };
    Caller { intent, ..caller(&Store::device(), n) }
}

/// What the device with key 7 brings to its connection number `n`.
pub(crate) fn peer_answerer(n: u8) -> Answerer {
    let (device, keypair, certificate) = other_device();
    let who = Answering::Device(device);
    let brains = [brain_key().public()].into();
    Answerer { who, brains, keypair, certificate, ..answerer(n) }
}

/// What the store does, one after the other: a head is no use before its entries.
enum Work {
    Ingest(LogId, Vec<(EntryId, Entry)>, u32),
    TakeSignedHead(SignedHead),
    TakeCut(Cut),
    TakeCheckpoint(Box<Checkpoint>),
}

/// One side: a session and the shell around it.
pub(crate) struct Side {
    pub(crate) session: Session,
    pub(crate) store: Store,
    /// Frames that this side has sent and the other has not got.
    pub(crate) outbox: VecDeque<Vec<u8>>,
    /// What the session reported, oldest first.
    pub(crate) events: Vec<Output>,
    pub(crate) ended: Option<Ended>,
    /// While set, the store's work waits for [`Link::resume_store`].
    pub(crate) paused: bool,
    pub(crate) wall_ahead_ms: u64,
    pub(crate) mono_ahead_ms: u64,
    held: VecDeque<Work>,
    introduced: bool,
    is_peer: bool,
}

impl Side {
    pub(crate) fn new(session: Session, store: Store) -> Self {
        Self {
            session,
            store,
            outbox: VecDeque::new(),
            events: Vec::new(),
            ended: None,
            paused: false,
            wall_ahead_ms: 0,
            mono_ahead_ms: 0,
            held: VecDeque::new(),
            introduced: false,
            is_peer: false,
        }
    }

    pub(crate) fn wall_ms(&self, now_ms: u64) -> u64 {
        BASE_MS + now_ms + self.wall_ahead_ms
    }

    pub(crate) fn now(&self, now_ms: u64) -> Now {
        Now {
            wall_ms: self.wall_ms(now_ms),
            mono_ms: now_ms + self.mono_ahead_ms,
            quality: ClockQuality::Synchronised,
        }
    }

    /// Feeds an input in and carries out what follows.
    pub(crate) fn feed(&mut self, input: Input<'_>, now_ms: u64) {
        let now = self.now(now_ms);
        for output in self.session.handle(input, now) {
            self.perform(output, now_ms);
        }
        if self.session.is_established() && !self.introduced {
            self.introduced = true;
            for log in self.store.tree.logs().to_vec() {
                if let Some(cut) = log.cut {
                    self.feed(Input::CutMade(cut), now_ms);
                }
                if let Some(signed) = log.signed {
                    self.feed(Input::Sealed(signed), now_ms);
                }
            }
        }
    }

    fn perform(&mut self, output: Output, now_ms: u64) {
        match output {
            Output::Send(frame) => self.outbox.push_back(frame),
            Output::Fetch { log, after, bytes_max } => {
                let entries = self.store.fetch(log, after, bytes_max);
                self.feed(Input::Fetched { log, entries }, now_ms);
            }
            Output::Ingest { log, entries, bytes } => {
                self.enqueue(Work::Ingest(log, entries, bytes), now_ms);
            }
            Output::TakeSignedHead(signed) => self.enqueue(Work::TakeSignedHead(signed), now_ms),
            Output::TakeCut(cut) => self.enqueue(Work::TakeCut(cut), now_ms),
            Output::FetchCheckpoint => {
                let checkpoint = Box::new(self.store.checkpoint());
                self.events.push(Output::FetchCheckpoint);
                self.feed(Input::Checkpoint(checkpoint), now_ms);
            }
            Output::TakeCheckpoint(checkpoint) => {
                self.enqueue(Work::TakeCheckpoint(checkpoint), now_ms);
            }
            Output::Authorise(_) if self.is_peer => {
                self.feed(Input::Admitted { connection: 1 }, now_ms);
            }
            Output::Authorise(_) => {
                let replica = self.store.replica();
                self.feed(Input::Authorised { connection: 1, replica }, now_ms);
            }
            Output::Enrol(peer, token) => {
                self.events.push(Output::Enrol(peer, token));
                let enrolled = Enrolled {
                    certificate: device_chain(),
                    api_key: "fbk_secret".into(),
                    now_ms: self.wall_ms(now_ms),
                };
                self.feed(Input::EnrolmentGranted(Box::new(enrolled)), now_ms);
            }
            Output::Closed(ended) => self.ended = Some(ended),
            event => self.events.push(event),
        }
    }

    /// Lets the store go on.
    pub(crate) fn resume(&mut self, now_ms: u64) {
        self.paused = false;
        self.work(now_ms);
    }

    fn enqueue(&mut self, work: Work, now_ms: u64) {
        self.held.push_back(work);
        if !self.paused {
            self.work(now_ms);
        }
    }

    fn work(&mut self, now_ms: u64) {
        while let Some(work) = self.held.pop_front() {
            match work {
                Work::Ingest(log, entries, bytes) => self.ingest(log, entries, bytes, now_ms),
                Work::TakeSignedHead(signed) => {
                    if self.store.tree.take_signed_head(signed) {
                        self.stored(signed.head.log, 0, now_ms);
                    }
                }
                Work::TakeCheckpoint(checkpoint) => {
                    self.store.tree.merge(&checkpoint).expect("of one history");
                    for (log, _) in checkpoint.vector().iter() {
                        self.stored(*log, 0, now_ms);
                    }
                }
                Work::TakeCut(cut) => {
                    let log = cut.log;
                    self.store.take_cut(cut);
                    self.stored(log, 0, now_ms);
                }
            }
        }
    }

    fn ingest(
        &mut self,
        log: LogId,
        entries: Vec<(EntryId, Entry)>,
        consumed_bytes: u32,
        now_ms: u64,
    ) {
        match self.store.ingest(entries, self.wall_ms(now_ms)) {
            Ok(()) => self.stored(log, consumed_bytes, now_ms),
            Err((seq, error, fatal)) => {
                self.feed(Input::Refused { log, seq, error, consumed_bytes, fatal }, now_ms);
            }
        }
    }

    /// Tells the session where a log stands.
    pub(crate) fn stored(&mut self, log: LogId, consumed_bytes: u32, now_ms: u64) {
        let position = self.store.position(log);
        self.feed(Input::Stored { log, position, consumed_bytes }, now_ms);
    }

    /// Writes `count` leaves and signs the head.
    pub(crate) fn write(&mut self, count: u64, now_ms: u64) {
        let log = self.store.log();
        for _ in 0..count {
            let n = self.store.position(log).seq;
            let value = format!("{}:{n}", log.epoch);
            self.store.write(&format!("leaf{}", n % 5), value, self.wall_ms(now_ms));
            self.stored(log, 0, now_ms);
        }
        let signed = self.store.seal();
        self.feed(Input::Sealed(signed), now_ms);
    }

    pub(crate) fn ended_as(&self) -> Option<(ErrorCode, bool)> {
        self.ended.as_ref().map(|ended| (ended.error.code, ended.by_peer))
    }
}

/// The connection of two sides.
pub(crate) struct Link {
    pub(crate) caller: Side,
    pub(crate) answerer: Side,
    pub(crate) now_ms: u64,
    /// The kinds of all frames delivered, in order, with whether the caller sent it.
    pub(crate) delivered: Vec<(bool, MessageKind)>,
}

impl Link {
    /// Connects two stores by their connection number `n`; nothing is delivered yet.
    pub(crate) fn connect(device: Store, brain: Store, n: u8) -> Self {
        Self::between(caller(&device, n), device, answerer(n), brain)
    }

    /// Connects two stores by these settings; nothing is delivered yet.
    pub(crate) fn between(caller: Caller, device: Store, answerer: Answerer, brain: Store) -> Self {
        let mut link = Self {
            caller: Side::new(Session::caller(caller), device),
            answerer: Side::new(Session::answerer(answerer), brain),
            now_ms: 1_000,
            delivered: Vec::new(),
        };
        link.caller.feed(Input::Connected, link.now_ms);
        link
    }

    /// An established link of empty stores.
    pub(crate) fn established() -> Self {
        let mut link = Self::connect(Store::device(), Store::brain(), 1);
        link.run();
        assert!(link.caller.session.is_established() && link.answerer.session.is_established());
        link
    }

    /// An established link of two devices, the second with key 7.
    pub(crate) fn of_peers() -> Self {
        let mut link = Self::between_peers(peer_caller(1), peer_answerer(1));
        link.run();
        assert!(link.caller.session.is_established() && link.answerer.session.is_established());
        link
    }

    /// Connects two devices by these settings.
    pub(crate) fn between_peers(caller: Caller, answerer: Answerer) -> Self {
        let mut link = Self::between(caller, Store::device(), answerer, Store::device());
        link.answerer.is_peer = true;
        link
    }

    /// Breaks the connection: what is under way is lost.
    pub(crate) fn cut(self) -> (Store, Store) {
        (self.caller.store, self.answerer.store)
    }

    /// Delivers the next frame of the caller, or else of the answerer.
    pub(crate) fn step(&mut self, caller_first: bool) -> bool {
        let caller_sends = match (self.caller.outbox.is_empty(), self.answerer.outbox.is_empty()) {
            (true, true) => return false,
            (caller_empty, false) => !caller_empty && caller_first,
            (false, true) => true,
        };
        let (from, to) = if caller_sends {
            (&mut self.caller, &mut self.answerer)
        } else {
            (&mut self.answerer, &mut self.caller)
        };
        let frame = from.outbox.pop_front().expect("checked above");
        let kind = wire::decode(&frame).expect("a session's own frame").kind();
        self.delivered.push((caller_sends, kind));
        to.feed(Input::Frame(&frame), self.now_ms);
        true
    }

    /// Delivers until nobody has anything to say.
    pub(crate) fn run(&mut self) {
        let mut frames = 0;
        while self.step(true) {
            frames += 1;
            assert!(frames < 100_000, "the two sides never fall silent");
        }
    }

    /// Lets time pass for both, with the ticks that fall due.
    pub(crate) fn wait(&mut self, ms: u64) {
        let until_ms = self.now_ms + ms;
        loop {
            let due = |side: &Side| side.session.next_tick_ms().map(|due| due - side.mono_ahead_ms);
            let next = due(&self.caller).into_iter().chain(due(&self.answerer)).min();
            let Some(next_ms) = next.filter(|next| *next <= until_ms) else { break };
            self.now_ms = self.now_ms.max(next_ms);
            self.caller.feed(Input::Tick, self.now_ms);
            self.answerer.feed(Input::Tick, self.now_ms);
            self.run();
        }
        self.now_ms = until_ms;
    }

    /// Lets the answerer's store go on.
    pub(crate) fn resume_store(&mut self) {
        self.answerer.resume(self.now_ms);
    }

    /// Gives the answerer a message that the caller's session did not send.
    pub(crate) fn forge_to_answerer(&mut self, message: &Message) {
        let frame = wire::encode(message, VERSION_MAX, Compression::None);
        self.answerer.feed(Input::Frame(&frame), self.now_ms);
    }

    /// Gives the caller a message that the answerer's session did not send.
    pub(crate) fn forge_to_caller(&mut self, message: &Message) {
        let frame = wire::encode(message, VERSION_MAX, Compression::None);
        self.caller.feed(Input::Frame(&frame), self.now_ms);
    }
}

/// The frames of a kind in an outbox, decoded.
pub(crate) fn sent(side: &Side, kind: MessageKind) -> Vec<Message> {
    let messages = side.outbox.iter().map(|frame| wire::decode(frame).expect("own frame"));
    messages.filter(|message| message.kind() == kind).collect()
}

/// How many bytes of entries wait in an outbox.
pub(crate) fn entries_bytes(side: &Side) -> usize {
    let entries = side.outbox.iter().filter(|frame| frame[2] == MessageKind::Entries as u8);
    entries.map(Vec::len).sum()
}

/// Whether a secret occurs in what a side sent.
pub(crate) fn reveals(side: &Side, secret: &[u8]) -> bool {
    side.outbox.iter().any(|frame| frame.windows(secret.len()).any(|part| part == secret))
}
