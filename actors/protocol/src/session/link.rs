//! The lasting part of a session: one conversation for each tree, and the heartbeat.
//!
//! The link between a device and a brain is about the tree of the device, and may be about shared
//! trees beside; one between devices is about shared trees alone. A side that holds one says so with [`Share`]; once both have, entries of that tree go both ways
//! just as those of the device's tree, with a credit of their own. Either side may
//! [`Leave`] it again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::replication::Replication;
use super::{Failure, Input, Now, Output, Replica, error, offset_ms};
use crate::compress::Compression;
use crate::history::{Genesis, TreeKind};
use crate::wire::{self, Heads, Leave, LogPosition, Message, Ping, Pong, Share};
use crate::{ErrorCode, PublicKey, TreeId};

/// A link is given up after so many heartbeats of silence.
const SILENT_HEARTBEATS_MAX: u64 = 2;
/// The most shared trees of a link.
pub const SHARED_TREES_MAX: usize = 64;
/// How many bytes of entries of a shared tree may be sent ahead of acknowledgements.
pub(super) const SHARED_CREDIT_BYTES: u32 = 64 << 10;

/// What the handshake settled.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) version: u8,
    pub(super) compression: Compression,
    pub(super) heartbeat_ms: u32,
    /// Whether this side pings.
    pub(super) pings: bool,
    pub(super) credit_to_send: u32,
    pub(super) credit_given: u32,
    /// The key at the other end.
    pub(super) peer: PublicKey,
    /// Whether this side is a brain, whose word is enough for what it passes on.
    pub(super) is_brain: bool,
    /// Whether the other is.
    pub(super) peer_is_brain: bool,
}

/// The lasting part of a session.
#[derive(Debug)]
pub(super) struct Link {
    terms: Terms,
    /// The keys of the brains that this side knows.
    brains: Arc<[PublicKey]>,
    /// The device's tree; none between devices.
    main: Option<Replication>,
    shared: BTreeMap<TreeId, Shared>,
    last_heard_ms: u64,
    next_ping_ms: u64,
}

/// How far both sides are with a shared tree.
#[derive(Debug)]
enum Shared {
    /// The peer holds it; this side has not said so.
    Offered(Vec<LogPosition>),
    /// This side holds it, and the peer may.
    Open(Box<Replication>),
    /// This side has left it. What the peer sent before it knew is passed over.
    Left,
}

impl Link {
    pub(super) fn start(
        terms: Terms,
        brains: Arc<[PublicKey]>,
        replica: Option<Replica>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Self {
        let heads = |replica: &Replica| Heads { tree: replica.tree, logs: replica.logs.clone() };
        let heads = replica.as_ref().map(heads);
        let main = |replica| Replication::new(terms, brains.clone(), TreeKind::Device, replica);
        let this = Self {
            main: replica.map(main),
            brains,
            shared: BTreeMap::new(),
            last_heard_ms: now.mono_ms,
            next_ping_ms: now.mono_ms + u64::from(terms.heartbeat_ms),
            terms,
        };
        if let Some(heads) = heads {
            this.send(&Message::Heads(heads), outputs);
        }
        this
    }

    pub(super) fn next_tick_ms(&self) -> u64 {
        let silent_at = self.silent_at_ms();
        if self.terms.pings { self.next_ping_ms.min(silent_at) } else { silent_at }
    }

    pub(super) fn handle(
        &mut self,
        input: Input<'_>,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        match input {
            Input::Frame(frame) => {
                self.last_heard_ms = now.mono_ms;
                let message = wire::decode(frame)?;
                self.message(message, frame.len(), now, outputs)
            }
            Input::Share { genesis, replica, root } => self.share(genesis, *replica, root, outputs),
            Input::Leave(tree) => {
                if let Some(shared) = self.shared.get_mut(&tree) {
                    *shared = Shared::Left;
                    self.send(&Message::Leave(Leave { tree }), outputs);
                }
                Ok(())
            }
            Input::OfShared { tree, input } => match self.shared.get_mut(&tree) {
                Some(Shared::Open(open)) => {
                    of_shared(tree, outputs, |outputs| open.handle(*input, now, outputs))
                }
                // It was left meanwhile.
                Some(Shared::Offered(_) | Shared::Left) | None => Ok(()),
            },
            Input::Tick => self.tick(now, outputs),
            input => match &mut self.main {
                Some(main) => main.handle(input, now, outputs),
                None => Ok(()),
            },
        }
    }

    fn message(
        &mut self,
        message: Message,
        frame_bytes: usize,
        now: Now,
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        match message {
            Message::Share(share) => self.peer_shares(share, outputs),
            Message::Leave(Leave { tree }) => {
                if self.shared.remove(&tree).is_some() {
                    outputs.push(Output::Left(tree));
                }
                Ok(())
            }
            Message::Ping(Ping { sent_ms }) => {
                self.send(&Message::Pong(Pong { sent_ms, now_ms: now.wall_ms }), outputs);
                Ok(())
            }
            Message::Pong(pong) => {
                let round_trip_ms = now.mono_ms.saturating_sub(pong.sent_ms);
                let theirs_ms = pong.now_ms.saturating_add(round_trip_ms / 2);
                let offset_ms = offset_ms(theirs_ms, now.wall_ms);
                outputs.push(Output::ClockSample { offset_ms, round_trip_ms });
                Ok(())
            }
            Message::Close(close) => Err(Failure::Peer(close)),
            message => {
                let main = self.main.as_ref().map(Replication::tree);
                let of = message.tree().filter(|tree| Some(*tree) != main);
                let known = of.and_then(|tree| Some((tree, self.shared.get_mut(&tree)?)));
                match known {
                    Some((tree, Shared::Open(open))) => of_shared(tree, outputs, |outputs| {
                        open.message(message, frame_bytes, outputs)
                    }),
                    // Said before the peer knew what this side does about the tree.
                    Some((_, Shared::Left | Shared::Offered(_))) => Ok(()),
                    None => match &mut self.main {
                        Some(main) => main.message(message, frame_bytes, outputs),
                        None => {
                            let text = "peer speaks of a tree that it does not share";
                            Err(Failure::new(ErrorCode::UnknownTree, "take frame", text))
                        }
                    },
                }
            }
        }
    }

    /// The peer holds a shared tree.
    fn peer_shares(&mut self, share: Share, outputs: &mut Vec<Output>) -> Result<(), Failure> {
        let Share { genesis, logs, root } = share;
        let tree = genesis.tree_id();
        if genesis.kind == TreeKind::Device || !genesis.has_fitting_name() {
            let text = "peer shares a tree that is no group's and no site's";
            return Err(Failure::new(ErrorCode::Malformed, "take shared tree", text));
        }
        match self.shared.get_mut(&tree) {
            Some(Shared::Open(open)) => {
                // A second time, it answers to what this side said before it left in between.
                open.begin_again();
                of_shared(tree, outputs, |outputs| open.peer_heads(logs, outputs))
            }
            Some(Shared::Offered(_) | Shared::Left) | None => {
                self.make_room(tree)?;
                self.shared.insert(tree, Shared::Offered(logs.clone()));
                outputs.push(Output::Offered { genesis, logs, root });
                Ok(())
            }
        }
    }

    /// This side holds a shared tree.
    fn share(
        &mut self,
        genesis: Genesis,
        replica: Replica,
        root: [u8; 32],
        outputs: &mut Vec<Output>,
    ) -> Result<(), Failure> {
        let (tree, kind) = (replica.tree, genesis.kind);
        let offered = match self.shared.get_mut(&tree) {
            Some(Shared::Open(_)) => return Ok(()),
            Some(Shared::Offered(logs)) => Some(std::mem::take(logs)),
            Some(Shared::Left) | None => None,
        };
        self.make_room(tree)?;
        self.send(&Message::Share(Share { genesis, logs: replica.logs.clone(), root }), outputs);
        let credit = SHARED_CREDIT_BYTES;
        let terms = Terms { credit_to_send: credit, credit_given: credit, ..self.terms };
        let brains = self.brains.clone();
        let mut open = Box::new(Replication::new(terms, brains, kind, replica));
        let heard = match offered {
            Some(logs) => of_shared(tree, outputs, |outputs| open.peer_heads(logs, outputs)),
            None => Ok(()),
        };
        self.shared.insert(tree, Shared::Open(open));
        heard
    }

    /// Refuses a shared tree where there are too many; those that were left go first.
    fn make_room(&mut self, tree: TreeId) -> Result<(), Failure> {
        if self.shared.contains_key(&tree) || self.shared.len() < SHARED_TREES_MAX {
            return Ok(());
        }
        self.shared.retain(|_, shared| !matches!(shared, Shared::Left));
        if self.shared.len() < SHARED_TREES_MAX {
            return Ok(());
        }
        let text = format!("a link has room for {SHARED_TREES_MAX} shared trees");
        Err(Failure::new(ErrorCode::TooLarge, "share tree", text))
    }

    fn tick(&mut self, now: Now, outputs: &mut Vec<Output>) -> Result<(), Failure> {
        if now.mono_ms >= self.silent_at_ms() {
            let silent_ms = now.mono_ms - self.last_heard_ms;
            let text = format!("nothing heard for {silent_ms} ms");
            return Err(Failure::Ours(error(ErrorCode::TimedOut, "wait for heartbeat", text)));
        }
        if self.terms.pings && now.mono_ms >= self.next_ping_ms {
            self.next_ping_ms = now.mono_ms + u64::from(self.terms.heartbeat_ms);
            self.send(&Message::Ping(Ping { sent_ms: now.mono_ms }), outputs);
        }
        Ok(())
    }

    fn silent_at_ms(&self) -> u64 {
        self.last_heard_ms + SILENT_HEARTBEATS_MAX * u64::from(self.terms.heartbeat_ms)
    }

    fn send(&self, message: &Message, outputs: &mut Vec<Output>) {
        let frame = wire::encode(message, self.terms.version, Compression::None);
        outputs.push(Output::Send(frame));
    }
}

/// What the conversation about a shared tree says, under the tree's name. Frames bear it already.
fn of_shared(
    tree: TreeId,
    outputs: &mut Vec<Output>,
    act: impl FnOnce(&mut Vec<Output>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut said = Vec::new();
    let result = act(&mut said);
    outputs.extend(said.into_iter().map(|output| match output {
        Output::Send(frame) => Output::Send(frame),
        output => Output::OfShared { tree, output: Box::new(output) },
    }));
    result
}
