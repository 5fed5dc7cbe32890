//! The brain's side of a connection.

use std::collections::VecDeque;

use actors::ports::LinkEvent;
use protocol::compress::Compression;
use protocol::history::Checkpoint;
use protocol::session::handshake::Answerer;
use protocol::session::{Input, Output, Replica, Session, error};
use protocol::{DeviceId, ErrorCode, SyncError};

use super::{BrainEvent, SimBrain};
use crate::fleet;
use crate::network::LinkId;

/// How long a handshake may take.
const HANDSHAKE_MS_MAX: u64 = 10_000;

/// A connection.
pub(super) struct Connection {
    session: Session,
    /// Known once it has proved itself.
    device: Option<DeviceId>,
    handshake_due_ms: u64,
    /// What the session said and nobody has carried out yet, in its order.
    outputs: VecDeque<Output>,
    carrying_out: bool,
}

impl Connection {
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let handshake = (!self.session.is_established()).then_some(self.handshake_due_ms);
        [handshake, self.session.next_tick_ms()].into_iter().flatten().min()
    }
}

impl SimBrain {
    /// Somebody calls.
    pub fn connected(&mut self, link: LinkId) {
        let session = Session::answerer(Answerer {
            fleet: fleet::FLEET,
            root: fleet::root_key().public(),
            brain: fleet::BRAIN,
            keypair: fleet::brain_key(),
            certificate: fleet::brain_chain(),
            compressions: Compression::Zstd.bit(),
            challenge: self.random.bytes(),
            exporter: fleet::exporter(link),
            limits: self.limits,
        });
        let connection = Connection {
            session,
            device: None,
            handshake_due_ms: self.now().mono_ms + HANDSHAKE_MS_MAX,
            outputs: VecDeque::new(),
            carrying_out: false,
        };
        self.connections.insert(link, connection);
    }

    /// A frame came.
    pub fn frame(&mut self, link: LinkId, frame: &[u8]) {
        self.feed(link, Input::Frame(frame));
        self.complete();
    }

    /// The link is gone.
    pub fn broken(&mut self, link: LinkId) {
        self.forget(link);
    }

    pub(super) fn tick_link(&mut self, link: LinkId, now_ms: u64) {
        let Some(connection) = self.connections.get(&link) else { return };
        if !connection.session.is_established() && connection.handshake_due_ms <= now_ms {
            let text = "the handshake took too long";
            self.close(link, error(ErrorCode::TimedOut, "serve", text), None);
        } else {
            self.feed(link, Input::Tick);
        }
    }

    pub(super) fn link_event(&mut self, link: LinkId, event: LinkEvent) {
        let input = match event {
            LinkEvent::Stored { log, position, consumed_bytes, .. } => {
                Input::Stored { log, position, consumed_bytes }
            }
            LinkEvent::Refused { log, seq, error, consumed_bytes, fatal } => {
                Input::Refused { log, seq, error, consumed_bytes, fatal }
            }
            LinkEvent::Fetched { log, entries } => Input::Fetched { log, entries },
            LinkEvent::Checkpoint(checkpoint) => Input::Checkpoint(checkpoint),
            LinkEvent::Pruned(floor) => Input::Pruned(floor),
            LinkEvent::Sealed(signed) => Input::Sealed(signed),
            LinkEvent::Traced { log, trace } => Input::Traced { log, trace },
            LinkEvent::CutMade(cut) => Input::CutMade(cut),
            LinkEvent::Close { error, retry_after_ms } => Input::Close { error, retry_after_ms },
            // Simulated devices are in no group.
            LinkEvent::GroupsChanged => return,
        };
        self.feed(link, input);
    }

    pub(super) fn authorised(&mut self, link: LinkId, connection: u64, replica: Replica) {
        self.feed(link, Input::Authorised { connection, replica });
    }

    pub(super) fn checkpoint(&mut self, link: LinkId, checkpoint: Checkpoint) {
        self.feed(link, Input::Checkpoint(Box::new(checkpoint)));
    }

    pub(super) fn deny(&mut self, link: LinkId, error: SyncError) {
        self.feed(link, Input::Denied(error));
    }

    pub(super) fn close(&mut self, link: LinkId, error: SyncError, retry_after_ms: Option<u32>) {
        self.feed(link, Input::Close { error, retry_after_ms });
    }

    fn feed(&mut self, id: LinkId, input: Input<'_>) {
        let now = self.now();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        connection.outputs.extend(connection.session.handle(input, now));
        if std::mem::replace(&mut connection.carrying_out, true) {
            return;
        }
        while let Some(connection) = self.connections.get_mut(&id) {
            match connection.outputs.pop_front() {
                Some(output) => self.perform(id, output),
                None => {
                    connection.carrying_out = false;
                    break;
                }
            }
        }
    }

    fn perform(&mut self, id: LinkId, output: Output) {
        let device = self.connections.get(&id).and_then(|connection| connection.device);
        match (output, device) {
            (Output::Send(frame), _) => self.events.push(BrainEvent::Send(id, frame)),
            (Output::Authorise(peer), _) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.device = Some(peer.device);
                }
                if let Err(error) = self.attach(peer.device, id) {
                    self.deny(id, error);
                }
            }
            (Output::Fetch { log, after, bytes_max }, Some(device)) => {
                let entries = self.fetch(device, log, after, bytes_max);
                self.feed(id, Input::Fetched { log, entries });
            }
            (Output::FetchCheckpoint, Some(device)) => self.fetch_checkpoint(device, id),
            (Output::Ingest { log, entries, bytes }, Some(device))
                if self.is_current(device, id) =>
            {
                self.ingest(device, log, entries, bytes);
            }
            (Output::TakeSignedHead(signed), Some(device)) => {
                self.take_signed_head(device, signed);
            }
            (Output::TakeCut(cut), Some(device)) => self.take_cut(device, cut),
            (Output::PeerRefused(refuse), Some(device)) => self.refused_by_peer(device, id, refuse),
            (Output::Acked { log, stored, .. }, Some(device)) => {
                self.events.push(BrainEvent::DeviceAcked { device, log, stored });
            }
            (Output::Closed(ended), _) => {
                if !ended.by_peer {
                    self.events.push(BrainEvent::SessionEnded(ended.error.code));
                }
                self.events.push(BrainEvent::HangUp(id));
                self.forget(id);
            }
            _ => {}
        }
    }

    fn is_current(&self, device: DeviceId, id: LinkId) -> bool {
        let seat = self.seats.get(&device);
        seat.and_then(|seat| seat.link).is_some_and(|(current, _)| current == id)
    }

    fn forget(&mut self, id: LinkId) {
        if let Some(Connection { device: Some(device), .. }) = self.connections.remove(&id) {
            self.detach(device, id);
        }
    }
}
