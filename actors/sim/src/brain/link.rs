//! The brain's side of a connection.

use std::collections::{BTreeMap, VecDeque};

use actors::ports::LinkEvent;
use protocol::compress::Compression;
use protocol::history::Checkpoint;
use protocol::session::handshake::{Answerer, Answering};
use protocol::session::{Input, Output, Replica, Session, error};
use protocol::{DeviceId, ErrorCode, SyncError, TreeId};

use super::groups::OFFER_AGAIN_MS;
use super::{BrainEvent, SimBrain};
use crate::fleet::{self, Whose};
use crate::network::LinkId;

/// How long a handshake may take.
const HANDSHAKE_MS_MAX: u64 = 10_000;

/// A connection.
pub(super) struct Connection {
    session: Session,
    /// Known once it has proved itself.
    pub(super) device: Option<DeviceId>,
    /// The groups that the device is in, by their trees.
    pub(super) groups: BTreeMap<TreeId, Whose>,
    /// When it is looked which groups it is in.
    pub(super) groups_due_ms: Option<u64>,
    handshake_due_ms: u64,
    /// What the session said and nobody has carried out yet, in its order.
    outputs: VecDeque<Output>,
    carrying_out: bool,
}

impl Connection {
    pub(super) fn next_due_ms(&self) -> Option<u64> {
        let handshake = (!self.session.is_established()).then_some(self.handshake_due_ms);
        [handshake, self.session.next_tick_ms(), self.groups_due_ms].into_iter().flatten().min()
    }

    /// Whose tree is meant on this link.
    fn whose(&self, of: Option<TreeId>) -> Option<Whose> {
        match of {
            Some(tree) => self.groups.get(&tree).copied(),
            None => self.device.map(Whose::Device),
        }
    }
}

impl SimBrain {
    /// Somebody calls.
    pub fn connected(&mut self, link: LinkId) {
        let session = Session::answerer(Answerer {
            fleet: fleet::FLEET,
            root: fleet::root_key().public(),
            who: Answering::Brain(fleet::BRAIN),
            brains: [fleet::brain_public()].into(),
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
            groups: BTreeMap::new(),
            groups_due_ms: None,
            handshake_due_ms: self.now().mono_ms + HANDSHAKE_MS_MAX,
            outputs: VecDeque::new(),
            carrying_out: false,
        };
        self.connections.insert(link, connection);
    }

    /// A frame came.
    pub fn frame(&mut self, link: LinkId, frame: &[u8]) {
        self.feed(link, None, Input::Frame(frame));
        self.complete();
    }

    /// The link is gone.
    pub fn broken(&mut self, link: LinkId) {
        self.forget(link);
    }

    pub(super) fn tick_link(&mut self, link: LinkId, now_ms: u64) {
        let Some(connection) = self.connections.get_mut(&link) else { return };
        if !connection.session.is_established() && connection.handshake_due_ms <= now_ms {
            let text = "the handshake took too long";
            return self.close(link, error(ErrorCode::TimedOut, "serve", text), None);
        }
        if connection.groups_due_ms.take_if(|due_ms| *due_ms <= now_ms).is_some() {
            self.look_at_groups(link);
        }
        self.feed(link, None, Input::Tick);
    }

    pub(super) fn link_event(&mut self, link: LinkId, of: Option<TreeId>, event: LinkEvent) {
        let input = match event {
            LinkEvent::Stored { log, position, consumed_bytes, .. } => {
                Input::Stored { log, position, consumed_bytes }
            }
            LinkEvent::Refused { log, seq, error, consumed_bytes, fatal: true } if of.is_some() => {
                let refused = Input::Refused { log, seq, error, consumed_bytes, fatal: false };
                self.feed(link, of, refused);
                return self.leave_for(link, of, OFFER_AGAIN_MS);
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
            // What a group's actor is through with, the device need not be.
            LinkEvent::Close { retry_after_ms, .. } if of.is_some() => {
                let after_ms = retry_after_ms.map_or(OFFER_AGAIN_MS, u64::from);
                return self.leave_for(link, of, after_ms);
            }
            LinkEvent::Close { error, retry_after_ms } => Input::Close { error, retry_after_ms },
            LinkEvent::GroupsChanged => return self.look_at_groups(link),
        };
        self.feed(link, of, input);
    }

    pub(super) fn authorised(&mut self, link: LinkId, connection: u64, replica: Replica) {
        self.feed(link, None, Input::Authorised { connection, replica });
        self.look_at_groups(link);
    }

    pub(super) fn checkpoint(&mut self, link: LinkId, of: Option<TreeId>, checkpoint: Checkpoint) {
        self.feed(link, of, Input::Checkpoint(Box::new(checkpoint)));
    }

    pub(super) fn deny(&mut self, link: LinkId, error: SyncError) {
        self.feed(link, None, Input::Denied(error));
    }

    pub(super) fn close(&mut self, link: LinkId, error: SyncError, retry_after_ms: Option<u32>) {
        self.feed(link, None, Input::Close { error, retry_after_ms });
    }

    /// Gives a session an event of a tree and carries out what follows.
    pub(super) fn feed(&mut self, id: LinkId, of: Option<TreeId>, input: Input<'_>) {
        let input = match of {
            Some(tree) => Input::OfShared { tree, input: Box::new(input) },
            None => input,
        };
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
        match output {
            Output::Send(frame) => self.events.push(BrainEvent::Send(id, frame)),
            Output::Authorise(peer) => {
                if let Some(connection) = self.connections.get_mut(&id) {
                    connection.device = Some(peer.device);
                }
                if let Err(error) = self.attach(peer.device, id) {
                    self.deny(id, error);
                }
            }
            Output::Left(tree) => self.left_by_device(id, tree),
            Output::Closed(ended) => {
                if !ended.by_peer {
                    self.events.push(BrainEvent::SessionEnded(ended.error.code));
                }
                self.events.push(BrainEvent::HangUp(id));
                self.forget(id);
            }
            Output::OfShared { tree, output } => self.perform_of(id, Some(tree), *output),
            output => self.perform_of(id, None, output),
        }
    }

    /// Carries out what a session says of a tree.
    fn perform_of(&mut self, id: LinkId, of: Option<TreeId>, output: Output) {
        let whose = self.connections.get(&id).and_then(|connection| connection.whose(of));
        let Some(whose) = whose else { return };
        match output {
            Output::Fetch { log, after, bytes_max } => {
                let entries = self.fetch(whose, log, after, bytes_max);
                self.feed(id, of, Input::Fetched { log, entries });
            }
            Output::FetchCheckpoint => self.fetch_checkpoint(whose, id, of),
            Output::Ingest { log, entries, bytes } => self.ingest(whose, id, log, entries, bytes),
            Output::TakeSignedHead(signed) => self.take_signed_head(whose, signed),
            Output::TakeCut(cut) => self.take_cut(whose, cut),
            Output::PeerLogBehind { log } => self.end_lost(whose, log),
            Output::PeerRefused(refuse) => self.refused_by_peer(whose, id, of, refuse),
            Output::Acked { log, stored, .. } => {
                self.events.push(BrainEvent::DeviceAcked { link: id, whose, log, stored });
            }
            _ => {}
        }
    }

    fn forget(&mut self, id: LinkId) {
        self.connections.remove(&id);
        for seat in self.seats.values_mut() {
            seat.links.retain(|_, link| *link != id);
        }
    }
}
