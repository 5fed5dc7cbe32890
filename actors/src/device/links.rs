//! The connections of a twin, and what they are told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use protocol::DeviceId;
use protocol::history::{LogId, VersionVector};

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
    /// Something could not be delivered: it may never be said again, so the connection is to attach
    /// anew. Set where there is no actor at hand.
    broken: Arc<AtomicBool>,
    /// What of the brain's own logs the device has made durable, as far as it has said.
    pub(super) delivered: VersionVector,
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
        let (broken, delivered) = (Arc::default(), VersionVector::default());
        Self { connection, device, peer, since_ms, events, broken, delivered, refused: None }
    }
}

/// The connections, by number.
#[derive(Debug, Default)]
pub struct Links(BTreeMap<u64, Link>);

/// Where a connection is told something.
#[derive(Debug, Clone)]
pub(super) struct Ear {
    connection: u64,
    events: LinkSender,
    broken: Arc<AtomicBool>,
}

impl Links {
    pub(super) fn add(&mut self, link: Link) {
        self.0.retain(|_, known| known.device != link.device && !known.events.is_closed());
        self.0.insert(link.connection, link);
    }

    pub(super) fn remove(&mut self, connection: u64) {
        self.0.remove(&connection);
    }

    /// Lets those go that something could not be delivered to.
    pub(super) fn drop_broken(&mut self) {
        self.0.retain(|_, link| !link.broken.load(Ordering::Acquire));
    }

    pub(super) fn remove_device(&mut self, device: DeviceId) {
        self.0.retain(|_, link| link.device != device);
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

    /// Whether a device has said that it has made an entry durable.
    pub(super) fn delivered(&self, log: &LogId, seq: u64) -> bool {
        self.0.values().any(|link| link.delivered.contains(log, seq))
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

    pub(super) fn ears(&self) -> Vec<Ear> {
        self.0.values().map(Link::ear).collect()
    }

    pub(super) fn send(&self, connection: u64, event: LinkEvent) {
        if let Some(link) = self.0.get(&connection) {
            link.ear().deliver(event);
        }
    }

    /// Tells all of them something that holds for each.
    pub(super) fn tell(&self, event: &LinkEvent) {
        for link in self.0.values() {
            event.for_everybody().into_iter().for_each(|event| link.ear().deliver(event));
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

    /// Delivers them.
    pub(super) fn deliver(self, to: &[Ear]) {
        for ear in to.iter().filter(|ear| Some(ear.connection) != self.origin) {
            let copies = self.events.iter().filter_map(LinkEvent::for_everybody);
            copies.for_each(|event| ear.deliver(event));
        }
        if let Some(origin) = to.iter().find(|ear| Some(ear.connection) == self.origin) {
            self.events.into_iter().for_each(|event| origin.deliver(event));
        }
    }
}

impl Link {
    fn ear(&self) -> Ear {
        let Self { connection, events, broken, .. } = self;
        Ear { connection: *connection, events: events.clone(), broken: broken.clone() }
    }
}

impl Ear {
    /// Tells something. A connection that has no room is gone, or does not keep up.
    pub(super) fn deliver(&self, event: LinkEvent) {
        if let Err(error) = self.events.try_send(Box::new(event)) {
            tracing::debug!(%error, "news for a connection that is gone");
            self.broken.store(true, Ordering::Release);
        }
    }
}
