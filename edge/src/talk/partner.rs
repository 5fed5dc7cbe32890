//! Who is at the other end, and what that makes different.

use std::collections::BTreeMap;

use actors::supervise::Address;
use protocol::PublicKey;
use protocol::history::LogId;
use tokio::sync::{oneshot, watch};
use url::Url;

use super::topic::Topic;
use crate::peers::Contact;
use crate::status::Board;
use crate::track::{self, Via};

/// Who is at the other end of a conversation.
pub(crate) enum Partner<'a> {
    /// A brain.
    Brain(Brain<'a>),
    /// Another device.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "nobody is met"))]
    Peer(Peer),
}

/// A brain, and what is there for it alone.
pub(crate) struct Brain<'a> {
    pub(super) board: &'a Board,
    /// The device's own tree.
    pub(super) own: Topic,
    /// The key that the answering brain showed; proved once the session is welcomed.
    pub(super) key: Option<PublicKey>,
    pub(super) heads_seen: bool,
    /// Changes when another brain is to be called.
    server: watch::Receiver<Option<Url>>,
    /// Is told once the session is established.
    welcomed: Option<oneshot::Sender<()>>,
}

/// What happens on this side of a link to a brain.
pub(super) enum PartnerNews {
    /// The own log of the device's tree durably stands further than before.
    OwnTreeMoved,
    /// Another brain is to be called.
    CalledElsewhere,
}

/// Another device.
pub(crate) struct Peer {
    /// Its key, which the transport has proved.
    pub(crate) key: PublicKey,
    /// Whether this side called it.
    pub(crate) is_called: bool,
    /// What is told about the link to it.
    pub(crate) contact: Contact,
    /// Up to where it has made each log durable.
    acked: BTreeMap<LogId, u64>,
}

impl Peer {
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "nobody is met"))]
    pub(crate) fn new(key: PublicKey, is_called: bool, contact: Contact) -> Self {
        Self { key, is_called, contact, acked: BTreeMap::new() }
    }

    /// It is sent entries above a number.
    pub(super) fn is_sent(&mut self, log: LogId, after: u64) {
        self.acked.entry(log).or_insert(after);
    }

    /// It has made entries durable, up to a number.
    pub(super) fn acked(&mut self, log: LogId, stored: u64, now_ms: u64) {
        // What it had before is nothing that it was given.
        let before = self.acked.insert(log, stored).unwrap_or(stored);
        let entries = stored.saturating_sub(before);
        self.contact.update(|seen| {
            seen.entries_out += entries;
            seen.last_sync_ms = Some(now_ms);
        });
    }
}

impl<'a> Brain<'a> {
    pub(crate) fn new(
        track: &Address<track::Msg>,
        board: &'a Board,
        server: watch::Receiver<Option<Url>>,
        welcomed: oneshot::Sender<()>,
    ) -> Self {
        let mut own = Topic::new(track.clone(), board);
        own.position.mark_changed();
        Self { board, own, key: None, heads_seen: false, server, welcomed: Some(welcomed) }
    }
}

impl Partner<'_> {
    /// Whether this side called it.
    pub(super) fn is_called(&self) -> bool {
        match self {
            Self::Brain(_) => true,
            Self::Peer(peer) => peer.is_called,
        }
    }

    /// Over which kind of link something comes.
    pub(super) fn via(&self) -> Via {
        match self {
            Self::Brain(_) => Via::Brain,
            Self::Peer(_) => Via::Peer,
        }
    }

    /// The device's own tree, where the conversation is about it.
    pub(super) fn own(&self) -> Option<&Topic> {
        match self {
            Self::Brain(brain) => Some(&brain.own),
            Self::Peer(_) => None,
        }
    }

    pub(super) fn own_mut(&mut self) -> Option<&mut Topic> {
        match self {
            Self::Brain(brain) => Some(&mut brain.own),
            Self::Peer(_) => None,
        }
    }

    /// Waits for what concerns this side alone; the own tree is looked at where `own_too`. May be
    /// dropped at any await.
    pub(super) async fn news(&mut self, own_too: bool) -> PartnerNews {
        let Self::Brain(Brain { own, server, .. }) = self else {
            return std::future::pending().await;
        };
        tokio::select! {
            Ok(()) = server.changed() => PartnerNews::CalledElsewhere,
            Ok(()) = own.position.changed(), if own_too => PartnerNews::OwnTreeMoved,
            else => std::future::pending().await,
        }
    }

    pub(super) fn frame_received(&self, frame: &[u8]) {
        match self {
            Self::Brain(brain) => brain.board.metrics().frame_received(frame),
            Self::Peer(peer) => peer.contact.update(|seen| seen.bytes_in += frame.len() as u64),
        }
    }

    pub(super) fn frame_sent(&self, frame: &[u8]) {
        match self {
            Self::Brain(brain) => brain.board.metrics().frame_sent(frame),
            Self::Peer(peer) => peer.contact.update(|seen| seen.bytes_out += frame.len() as u64),
        }
    }

    /// Entries of the other side, or passed on by it, are durable here.
    pub(super) fn entries_taken(&self, entries: u64, now_ms: u64) {
        if let Self::Peer(peer) = self {
            peer.contact.update(|seen| {
                seen.entries_in += entries;
                seen.last_sync_ms = Some(now_ms);
            });
        }
    }

    pub(super) fn session_welcomed(&mut self, now_ms: u64) {
        match self {
            Self::Brain(brain) => {
                if let Some(welcomed) = brain.welcomed.take() {
                    // Whoever does not wait for it does not need it.
                    let _ = welcomed.send(());
                }
                brain.board.update(|status| {
                    status.online = true;
                    status.since_ms = now_ms;
                    status.sessions += 1;
                    status.last_error = None;
                    status.alert = None;
                });
                brain.board.metrics().session_welcomed();
            }
            Self::Peer(peer) => peer.contact.connected(now_ms),
        }
    }

    pub(super) fn session_over(&self, now_ms: u64) {
        match self {
            Self::Brain(brain) => {
                brain.board.metrics().session_over();
                brain.board.update(|status| {
                    status.online = false;
                    status.since_ms = now_ms;
                });
            }
            Self::Peer(peer) => peer.contact.disconnected(now_ms),
        }
    }
}
