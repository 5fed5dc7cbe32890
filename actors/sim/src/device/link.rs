//! The device's side of a connection.

use std::collections::VecDeque;

use protocol::compress::Compression;
use protocol::history::{LogId, Refusal, Role, VersionVector};
use protocol::session::handshake::{Caller, Intent};
use protocol::session::{Ended, Input, Output, Replica, Session, error};
use protocol::{EntryId, ErrorCode, SyncError};

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
    /// What to tell the session once what it is about is durable.
    after_sync: Vec<Answer>,
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

    pub(super) fn has_heard(&self) -> bool {
        self.heard
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
            logs: self.disk.positions(),
            floor: VersionVector::default(),
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
            after_sync: Vec::new(),
            leave_due_ms: None,
            outputs: VecDeque::new(),
            carrying_out: false,
        });
        self.feed(Input::Connected);
    }

    /// A frame came.
    pub fn frame(&mut self, link: LinkId, frame: &[u8]) {
        let Some(current) = self.link.as_mut().filter(|current| current.id == link) else { return };
        // The brain's first words after the handshake are its heads.
        current.heard = current.is_established();
        self.feed(Input::Frame(frame));
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
            self.feed(Input::Tick);
        }
    }

    /// Signs what is durable and not signed.
    pub(super) fn seal(&mut self) {
        self.sync();
        self.seal_due_ms = None;
        let signed = self.disk.seal(&self.keypair);
        self.disk.sync();
        for signed in signed {
            self.feed(Input::Sealed(signed));
        }
    }

    /// Tells the session what has become durable.
    pub(super) fn after_sync(&mut self) {
        let Some(link) = &mut self.link else { return };
        let answers = std::mem::take(&mut link.after_sync);
        for answer in answers {
            match answer {
                Answer::Stored { log, consumed_bytes } => {
                    let position = self.position(log);
                    self.feed(Input::Stored { log, position, consumed_bytes });
                }
                Answer::Refused { log, seq, error } => {
                    let (consumed_bytes, fatal) = (0, false);
                    self.feed(Input::Refused { log, seq, error, consumed_bytes, fatal });
                }
            }
        }
        let log = self.disk.log();
        let position = self.position(log);
        if position.seq > 0 {
            self.feed(Input::Stored { log, position, consumed_bytes: 0 });
        }
    }

    /// Gives the session an event and carries out what follows.
    pub(super) fn feed(&mut self, input: Input<'_>) {
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
                self.introduce();
            }
            Output::ClockSample { offset_ms, .. } => self.clock_error(offset_ms),
            Output::Fetch { log, after, bytes_max } => {
                let entries = self.disk.range(log, after, bytes_max);
                self.feed(Input::Fetched { log, entries });
            }
            Output::Ingest { log, entries, bytes } => self.ingest(log, entries, bytes),
            Output::TakeSignedHead(signed) => {
                self.disk.take_signed_head(signed);
                self.disk.sync();
                let log = signed.head.log;
                let position = self.position(log);
                self.feed(Input::Stored { log, position, consumed_bytes: 0 });
            }
            Output::TakeCheckpoint(checkpoint) => self.take_checkpoint(&checkpoint),
            Output::Acked { log, stored, sealed } => {
                self.acknowledged(log, stored, sealed);
                self.events.push(DeviceEvent::Acked { log, stored, sealed });
                self.renew_patience();
            }
            Output::PeerRefused(refuse) => {
                self.events.push(DeviceEvent::Refused(refuse.error.code));
                self.refused(refuse);
            }
            Output::OwnLogBehind { log, .. } => {
                if log == self.disk.log() {
                    self.open_epoch();
                }
                self.events.push(DeviceEvent::OwnLogBehind);
            }
            Output::Closed(ended) => self.ended(&ended),
            // The brain never ends a log and shares no tree, and devices are not called.
            Output::TakeCut(_)
            | Output::Offered { .. }
            | Output::FetchCheckpoint
            | Output::Left(_)
            | Output::OfShared { .. }
            | Output::Traced { .. }
            | Output::Authorise(_)
            | Output::Enrol(..)
            | Output::Enrolled(_) => {}
        }
    }

    /// Ends the connection.
    pub(super) fn leave(&mut self, code: ErrorCode, why: &str) {
        self.feed(Input::Close { error: error(code, "leave", why), retry_after_ms: None });
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

    /// Says what the session does not know: what of the own logs is signed, and which ended.
    fn introduce(&mut self) {
        self.seal();
        let own = self.keypair.public();
        let (cuts, seals) = self.disk.ends_of(own);
        for cut in cuts {
            self.feed(Input::CutMade(cut));
        }
        for position in self.disk.positions().into_iter().filter(|p| p.log.author == own) {
            self.feed(Input::Stored { log: position.log, position, consumed_bytes: 0 });
        }
        for signed in seals {
            self.feed(Input::Sealed(signed));
        }
    }

    fn ingest(
        &mut self,
        log: LogId,
        entries: Vec<(EntryId, protocol::history::Entry)>,
        consumed_bytes: u32,
    ) {
        let own = log.author == self.keypair.public();
        let role = if own { Role::Owner(self.id) } else { Role::Brain };
        let now = self.now();
        let mut refused = None;
        for (id, entry) in entries {
            let seq = entry.seq;
            match self.disk.ingest(id, entry, role, now) {
                // It came from the brain, so the brain has it.
                Ok(_) if own => self.acknowledged(log, seq, 0),
                Ok(_) => {}
                Err(refusal) => {
                    refused = Some((seq, refusal));
                    break;
                }
            }
        }
        let refused = refused.map(|(seq, refusal)| self.refuse_brain(log, seq, &refusal));
        self.sync_soon();
        if let Some(link) = &mut self.link {
            link.after_sync.push(Answer::Stored { log, consumed_bytes });
            link.after_sync.extend(refused);
            // Nothing may be new, and the credit is to go back all the same.
            self.disk.touch();
        }
    }

    fn refuse_brain(&mut self, log: LogId, seq: u64, refusal: &Refusal) -> Answer {
        let code = refusal.code();
        self.events.push(DeviceEvent::RefusedBrain(code));
        // The brain sends that log no more over this link, so the device calls anew: when its
        // clock may be right again, or at once where a frame is missing.
        let wait_ms = if code == ErrorCode::ClockAhead { 5_000 } else { 0 };
        let due_ms = self.mono_ms() + wait_ms;
        if let Some(link) = &mut self.link {
            link.leave_due_ms.get_or_insert(due_ms);
        }
        Answer::Refused { log, seq, error: error(code, "admit entry", refusal.to_string()) }
    }

    fn renew_patience(&mut self) {
        if !self.impatient {
            return;
        }
        let own = self.keypair.public();
        let waits = self.disk.positions().iter().any(|position| {
            let (stored, sealed) = self.acked.get(&position.log).copied().unwrap_or_default();
            position.log.author == own && (stored < position.seq || sealed < position.sealed)
        });
        let due_ms = self.mono_ms() + PATIENCE_MS;
        if let Some(link) = &mut self.link {
            link.patience_due_ms = (waits && link.is_established()).then_some(due_ms);
        }
    }
}
