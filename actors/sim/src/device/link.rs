//! The device's side of a connection.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use protocol::compress::Compression;
use protocol::history::{Entry, LogId, Refusal, VersionVector};
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Ended, Input, Output, Replica, Session, error};
use protocol::{EntryId, ErrorCode, SyncError, TreeId};

use super::{DeviceEvent, SimDevice};
use crate::fleet;
use crate::network::LinkId;

/// How long a handshake may take.
const HANDSHAKE_MS_MAX: u64 = 10_000;
/// How long an impatient device waits for an acknowledgement.
const PATIENCE_MS: u64 = 3_000;
/// How long a device waits before it calls again, at least and at most.
const RETRY_MS: std::ops::Range<u64> = 100..2_000;

/// A connection.
#[derive(Debug)]
pub(super) struct Link {
    id: LinkId,
    session: Session,
    /// Whether the brain has said where its logs stand.
    heard: bool,
    handshake_due_ms: u64,
    patience_due_ms: Option<u64>,
    /// The shared trees that both sides speak of.
    open: BTreeSet<TreeId>,
    /// What to tell the session of a tree once what it is about is durable.
    after_sync: BTreeMap<Option<TreeId>, Vec<Answer>>,
    /// When the link is given up, because an entry was refused that may be taken later.
    leave_due_ms: Option<u64>,
    /// What the session said and nobody has carried out yet. What follows from carrying out the
    /// first comes behind the last: frames leave in the order in which the session made them.
    outputs: VecDeque<Output>,
    carrying_out: bool,
}

/// What became of entries of the brain.
#[derive(Debug)]
enum Answer {
    Stored { log: LogId, consumed_bytes: u32 },
    Refused { log: LogId, seq: u64, error: SyncError },
}

impl Link {
    pub(super) fn is_established(&self) -> bool {
        self.session.is_established()
    }

    /// Whether the brain has said where its logs of a tree stand.
    pub(super) fn has_heard(&self, of: Option<TreeId>) -> bool {
        self.heard && self.speaks_of(of)
    }

    /// Whether the session has yet to be told what became of entries.
    pub(super) fn owes_answers(&self, of: Option<TreeId>) -> bool {
        self.after_sync.contains_key(&of)
    }

    /// Whether a tree is spoken of: the device's own always is.
    fn speaks_of(&self, of: Option<TreeId>) -> bool {
        of.is_none_or(|tree| self.open.contains(&tree))
    }

    pub(super) fn open(&mut self, tree: TreeId) {
        self.open.insert(tree);
    }

    pub(super) fn shut(&mut self, tree: TreeId) {
        self.open.remove(&tree);
        self.after_sync.remove(&Some(tree));
    }

    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let handshake = (!self.is_established()).then_some(self.handshake_due_ms);
        let tick = self.session.next_tick_ms();
        [handshake, tick, self.patience_due_ms, self.leave_due_ms].into_iter().flatten().min()
    }
}

impl SimDevice {
    /// When the device wants to call the brain; none while it is connected.
    pub fn call_due_ms(&self) -> Option<u64> {
        self.link.is_none().then_some(self.call_due_ms)
    }

    /// The link that the device has.
    pub fn link(&self) -> Option<LinkId> {
        self.link.as_ref().map(|link| link.id)
    }

    /// The brain did not answer the call.
    pub fn call_failed(&mut self) {
        self.retry_in(0);
    }

    /// A link to the brain is up.
    pub fn connected(&mut self, link: LinkId) {
        let replica = Replica {
            tree: self.tree().id(),
            logs: self.own.disk.positions(),
            floor: VersionVector::default(),
            ends: Vec::new(),
            author: self.keypair.public(),
        };
        let session = Session::caller(Caller {
            fleet: fleet::FLEET,
            root: fleet::root_key().public(),
            device: self.id,
            keypair: self.keypair.clone(),
            intent: Intent::Link { certificate: self.certificate.clone(), replica },
            compressions: Compression::Zstd.bit(),
            challenge: self.random.bytes(),
            exporter: fleet::exporter(link),
        });
        self.link = Some(Link {
            id: link,
            session,
            heard: false,
            handshake_due_ms: self.mono_ms() + HANDSHAKE_MS_MAX,
            patience_due_ms: None,
            open: BTreeSet::new(),
            after_sync: BTreeMap::new(),
            leave_due_ms: None,
            outputs: VecDeque::new(),
            carrying_out: false,
        });
        self.feed(None, Input::Connected);
    }

    /// A frame came.
    pub fn frame(&mut self, link: LinkId, frame: &[u8]) {
        let Some(current) = self.link.as_mut().filter(|current| current.id == link) else { return };
        // The brain's first words after the handshake are its heads.
        current.heard = current.is_established();
        self.feed(None, Input::Frame(frame));
    }

    /// The link is gone.
    pub fn broken(&mut self, link: LinkId) {
        if self.link() == Some(link) {
            self.link = None;
            self.retry_in(0);
        }
    }

    pub(super) fn tick_link(&mut self, now_ms: u64) {
        let Some(link) = &mut self.link else { return };
        let due = |due: Option<u64>| due.is_some_and(|due| due <= now_ms);
        let waiting_too_long = due(link.patience_due_ms);
        if !link.is_established() && link.handshake_due_ms <= now_ms {
            self.leave(ErrorCode::TimedOut, "the brain says nothing");
        } else if waiting_too_long {
            self.leave(ErrorCode::TimedOut, "no acknowledgement came");
        } else if due(link.leave_due_ms) {
            self.leave(ErrorCode::GoingAway, "an entry of the brain may be taken now");
        } else {
            self.feed(None, Input::Tick);
        }
    }

    /// Signs what is written of a tree and not signed.
    pub(super) fn seal(&mut self, of: Option<TreeId>) {
        self.sync(of);
        let keypair = self.keypair.clone();
        let Some(holding) = self.holding_mut(of) else { return };
        holding.seal_due_ms = None;
        let signed = holding.disk.seal(&keypair);
        holding.disk.sync();
        if let Some(signed) = signed {
            self.feed(of, Input::Sealed(signed));
        }
    }

    /// Tells the session what has become durable of a tree.
    pub(super) fn after_sync(&mut self, of: Option<TreeId>) {
        let Some(link) = self.link.as_mut().filter(|link| link.speaks_of(of)) else { return };
        for answer in link.after_sync.remove(&of).unwrap_or_default() {
            match answer {
                Answer::Stored { log, consumed_bytes } => self.stored(of, log, consumed_bytes),
                Answer::Refused { log, seq, error } => {
                    let (consumed_bytes, fatal) = (0, false);
                    self.feed(of, Input::Refused { log, seq, error, consumed_bytes, fatal });
                }
            }
        }
        let log = self.holding(of).map(|holding| holding.disk.log());
        if let Some(log) = log.filter(|log| self.position(of, *log).is_some_and(|at| at.seq > 0)) {
            self.stored(of, log, 0);
        }
    }

    /// Tells the session where a log stands.
    pub(super) fn stored(&mut self, of: Option<TreeId>, log: LogId, consumed_bytes: u32) {
        if let Some(position) = self.position(of, log) {
            self.feed(of, Input::Stored { log, position, consumed_bytes });
        }
    }

    /// Gives the session an event of a tree and carries out what follows.
    pub(super) fn feed(&mut self, of: Option<TreeId>, input: Input<'_>) {
        let input = match of {
            Some(tree) => Input::OfShared { tree, input: Box::new(input) },
            None => input,
        };
        let now = self.now();
        let Some(link) = &mut self.link else { return };
        link.outputs.extend(link.session.handle(input, now));
        if std::mem::replace(&mut link.carrying_out, true) {
            return;
        }
        while let Some(link) = &mut self.link {
            let id = link.id;
            match link.outputs.pop_front() {
                Some(output) => self.perform(id, output),
                None => {
                    link.carrying_out = false;
                    break;
                }
            }
        }
        if self.link.as_ref().is_some_and(|link| link.patience_due_ms.is_none()) {
            self.renew_patience();
        }
    }

    fn perform(&mut self, link: LinkId, output: Output) {
        match output {
            Output::Send(frame) => self.events.push(DeviceEvent::Send(link, frame)),
            Output::Welcomed { offset_ms, .. } => {
                self.clock_error(offset_ms);
                self.introduce(None);
            }
            Output::ClockSample { offset_ms, .. } => self.clock_error(offset_ms),
            Output::Offered { genesis, logs, root } => self.offered(genesis, &logs, root),
            Output::Left(tree) => {
                if let Some(link) = &mut self.link {
                    link.shut(tree);
                }
            }
            Output::Closed(ended) => self.ended(&ended),
            Output::OfShared { tree, output } => {
                if self.link.as_ref().is_some_and(|link| link.speaks_of(Some(tree))) {
                    self.perform_of(Some(tree), *output);
                }
            }
            output => self.perform_of(None, output),
        }
    }

    /// Carries out what the session says of a tree.
    fn perform_of(&mut self, of: Option<TreeId>, output: Output) {
        match output {
            Output::Fetch { log, after, bytes_max } => {
                let holding = self.holding(of);
                let entries = holding.map(|holding| holding.disk.range(log, after, bytes_max));
                self.vouch(of, log, after, entries.as_deref().unwrap_or_default());
                self.feed(of, Input::Fetched { log, entries: entries.unwrap_or_default() });
            }
            Output::Ingest { log, entries, bytes } => self.ingest(of, log, entries, bytes),
            Output::TakeSignedHead(signed) => {
                let log = signed.head.log;
                if let Some(holding) = self.holding_mut(of) {
                    holding.disk.take_signed_head(signed);
                    holding.disk.sync();
                }
                self.stored(of, log, 0);
            }
            Output::TakeCut(cut) => self.take_cut(of, cut),
            Output::TakeCheckpoint(checkpoint) => self.take_checkpoint(of, &checkpoint),
            Output::Acked { log, stored, sealed } => {
                if let Some(holding) = self.holding_mut(of) {
                    holding.acknowledged(log, stored, sealed);
                    let whose = holding.whose;
                    let comes_anew = holding.may_come_anew();
                    self.events.push(DeviceEvent::Acked { whose, log, stored, sealed });
                    if let Some(tree) = of.filter(|_| comes_anew) {
                        return self.leave_tree(tree);
                    }
                }
                self.renew_patience();
            }
            Output::PeerRefused(refuse) => {
                self.events.push(DeviceEvent::Refused(refuse.error.code));
                self.refused(of, refuse);
            }
            Output::OwnLogBehind { log, .. } => {
                if self.holding(of).is_some_and(|holding| holding.disk.log() == log) {
                    self.open_epoch(of);
                }
                if let Some(holding) = self.holding_mut(of) {
                    holding.is_muted = false;
                }
                self.events.push(DeviceEvent::OwnLogBehind);
            }
            // Devices are not called, and have no checkpoints.
            _ => {}
        }
    }

    /// Gives what its author signed of another's log that this device is about to pass on.
    fn vouch(&mut self, of: Option<TreeId>, log: LogId, after: u64, entries: &[Entry]) {
        let Some(last) = entries.last().filter(|_| log.author != self.keypair.public()) else {
            return;
        };
        let holding = self.holding(of);
        let signed = holding.and_then(|holding| holding.disk.seal_within(log, after, last.seq));
        if let Some(signed) = signed {
            self.feed(of, Input::Vouched(signed));
        }
    }

    /// Ends the connection.
    pub(super) fn leave(&mut self, code: ErrorCode, why: &str) {
        let error = error(code, "leave", why);
        self.feed(None, Input::Close { error, retry_after_ms: None });
    }

    fn ended(&mut self, ended: &Ended) {
        if !ended.by_peer {
            self.events.push(DeviceEvent::SessionEnded(ended.error.code));
        }
        if let Some(link) = self.link.take() {
            self.events.push(DeviceEvent::HangUp(link.id));
        }
        self.retry_in(ended.retry_after_ms.map_or(0, u64::from));
    }

    fn retry_in(&mut self, at_least_ms: u64) {
        let jitter = self.random.within(&RETRY_MS);
        self.call_due_ms = self.mono_ms() + at_least_ms + jitter;
    }

    /// Says what the session does not know of a tree: what of the own logs is signed, and which
    /// ended.
    pub(super) fn introduce(&mut self, of: Option<TreeId>) {
        self.seal(of);
        let own = self.keypair.public();
        let Some(holding) = self.holding(of) else { return };
        let (cuts, seals) = holding.disk.ends_of(own);
        let positions = holding.disk.positions();
        for cut in cuts {
            self.feed(of, Input::CutMade(cut));
        }
        for position in positions.into_iter().filter(|position| position.log.author == own) {
            self.stored(of, position.log, 0);
        }
        for signed in seals {
            self.feed(of, Input::Sealed(signed));
        }
    }

    fn ingest(
        &mut self,
        of: Option<TreeId>,
        log: LogId,
        entries: Vec<(EntryId, Entry)>,
        consumed_bytes: u32,
    ) {
        let is_own = log.author == self.keypair.public();
        let (now, device) = (self.now(), self.id);
        let mut refused = None;
        let Some(holding) = self.holding_mut(of) else { return };
        for (id, entry) in entries {
            let seq = entry.seq;
            match holding.disk.ingest(id, entry, device, now) {
                // It came from the brain, so the brain has it.
                Ok(_) if is_own => holding.acknowledged(log, seq, 0),
                Ok(_) => {}
                Err(refusal) => {
                    refused = Some((seq, refusal));
                    break;
                }
            }
        }
        let due_ms = now.mono_ms + super::COMMIT_DELAY_MS;
        holding.sync_due_ms.get_or_insert(due_ms);
        let refused = refused.map(|(seq, refusal)| self.refuse_brain(of, log, seq, &refusal));
        if let Some(link) = &mut self.link {
            let answers = link.after_sync.entry(of).or_default();
            answers.push(Answer::Stored { log, consumed_bytes });
            answers.extend(refused);
        }
    }

    fn refuse_brain(
        &mut self,
        of: Option<TreeId>,
        log: LogId,
        seq: u64,
        refusal: &Refusal,
    ) -> Answer {
        let code = refusal.code();
        self.events.push(DeviceEvent::RefusedBrain(code));
        // The brain sends that log no more over this link, so the device calls anew: when its
        // clock may be right again, or at once where a frame is missing. A shared tree is offered
        // again.
        let wait_ms = if code == ErrorCode::ClockAhead { 5_000 } else { 0 };
        let due_ms = self.mono_ms() + wait_ms;
        if let Some(link) = self.link.as_mut().filter(|_| of.is_none()) {
            link.leave_due_ms.get_or_insert(due_ms);
        }
        Answer::Refused { log, seq, error: error(code, "admit entry", refusal.to_string()) }
    }

    fn renew_patience(&mut self) {
        if !self.impatient {
            return;
        }
        let own = self.keypair.public();
        let waits = self.own.disk.positions().iter().any(|position| {
            let acked = self.own.acked.get(&position.log).copied();
            let (stored, sealed) = acked.unwrap_or_default();
            position.log.author == own && (stored < position.seq || sealed < position.sealed)
        });
        let due_ms = self.mono_ms() + PATIENCE_MS;
        if let Some(link) = &mut self.link {
            link.patience_due_ms = (waits && link.is_established()).then_some(due_ms);
        }
    }
}
