//! The connections of a twin, and what they are told.

use std::collections::BTreeMap;

use protocol::DeviceId;
use protocol::history::LogId;

use crate::ports::{LinkEvent, LinkSender};
use crate::trace::Spans;

/// A connection, as the actor knows it.
#[derive(Debug)]
pub struct Link {
    pub(super) connection: u64,
    pub(super) device: DeviceId,
    pub(super) peer: String,
    pub(super) since_ms: u64,
    events: LinkSender,
    /// The last entry that was not taken: what follows it in its log is not looked at.
    pub(super) refused: Option<(LogId, u64)>,
}

impl Link {
    pub(super) fn new(
        connection: u64,
        device: DeviceId,
        peer: String,
        since_ms: u64,
        events: LinkSender,
    ) -> Self {
        Self { connection, device, peer, since_ms, events, refused: None }
    }
}

/// The connections, by number.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<u64, Link>);

impl Links {
    pub(super) fn add(&mut self, link: Link) {
        self.0.retain(|_, known| known.device != link.device && !known.events.is_closed());
        self.0.insert(link.connection, link);
    }

    pub(super) fn remove(&mut self, connection: u64) {
        self.0.remove(&connection);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn has(&self, connection: u64) -> bool {
        self.0.contains_key(&connection)
    }

    pub(super) fn get_mut(&mut self, connection: u64) -> Option<&mut Link> {
        self.0.get_mut(&connection)
    }

    /// One that is alive.
    pub(super) fn any(&self) -> Option<&Link> {
        self.0.values().find(|link| !link.events.is_closed())
    }

    /// The highest number among those that are alive.
    pub(super) fn newest(&self) -> Option<u64> {
        let alive = self.0.values().rev().find(|link| !link.events.is_closed());
        alive.map(|link| link.connection)
    }

    pub(super) fn without_closed(mut self) -> Self {
        self.0.retain(|_, link| !link.events.is_closed());
        self
    }

    /// Entries of a log that was refused are looked at again.
    pub(super) fn log_goes_on(&mut self, log: &LogId) {
        for link in self.0.values_mut() {
            link.refused.take_if(|(refused, _)| refused == log);
        }
    }

    pub(super) fn senders(&self) -> Vec<(u64, LinkSender)> {
        self.0.values().map(|link| (link.connection, link.events.clone())).collect()
    }

    pub(super) fn send(&self, connection: u64, event: LinkEvent) {
        if let Some(link) = self.0.get(&connection) {
            deliver(&link.events, event);
        }
    }

    /// Tells all of them something that holds for each.
    pub(super) fn tell(&self, event: &LinkEvent) {
        for link in self.0.values() {
            event.for_everybody().into_iter().for_each(|event| {
                deliver(&link.events, event);
            });
        }
    }
}

/// What connections hear of a commit.
#[derive(Debug, Default)]
pub(super) struct News {
    /// The connection whose message brought the commit.
    origin: Option<u64>,
    events: Vec<LinkEvent>,
}

impl News {
    /// For all, of nobody's making.
    pub(super) fn all(events: Vec<LinkEvent>) -> Self {
        Self { origin: None, events }
    }

    /// For the connection that brought it about, and for the others what concerns them.
    pub(super) fn of(connection: u64, events: Vec<LinkEvent>) -> Self {
        Self { origin: Some(connection), events }
    }

    pub(super) fn push(&mut self, event: LinkEvent) {
        self.events.push(event);
    }

    /// The acknowledgement of the peer's entries, where there is one, is part of these spans.
    pub(super) fn acknowledge_in(&mut self, spans: Spans) {
        let acknowledging = self.events.iter_mut().find_map(|event| match event {
            LinkEvent::Stored { consumed_bytes: 1.., acknowledging, .. } => Some(acknowledging),
            _ => None,
        });
        if let Some(acknowledging) = acknowledging {
            *acknowledging = spans;
        }
    }

    /// Delivers them. Gives back the connections that have no room: what they would miss may
    /// never be said again.
    pub(super) fn deliver(self, to: &[(u64, LinkSender)]) -> Vec<u64> {
        let mut full = Vec::new();
        for (connection, sender) in to.iter().filter(|(number, _)| Some(*number) != self.origin) {
            let copies: Vec<_> = self.events.iter().filter_map(LinkEvent::for_everybody).collect();
            let delivered = copies.into_iter().map(|event| deliver(sender, event));
            if delivered.filter(|delivered| !delivered).count() > 0 {
                full.push(*connection);
            }
        }
        let origin = to.iter().find(|(number, _)| Some(*number) == self.origin);
        if let Some((_, sender)) = origin {
            self.events.into_iter().for_each(|event| {
                deliver(sender, event);
            });
        }
        full
    }
}

/// Passes news to a connection; false where it has no room. One that does not keep up with
/// acknowledgements of its own entries, which its credit bounds, has ended or is about to.
pub(super) fn deliver(events: &LinkSender, event: LinkEvent) -> bool {
    match events.try_send(Box::new(event)) {
        Ok(()) => true,
        Err(error) => {
            tracing::debug!(%error, "news for a connection that is gone");
            false
        }
    }
}
