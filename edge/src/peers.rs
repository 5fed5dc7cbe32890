//! The other devices that this one talks to, without a brain in between.
//!
//! Whoever is a member of a shared tree together with this device is its peer: the tree says so,
//! and with which key. Peers find each other on the local network, or at addresses that people
//! give. Each is a supervised actor that keeps one QUIC connection, over which the protocol's
//! session runs as it does with a brain. Of two devices, the one with the smaller key calls; the
//! other one does where no call comes.

mod book;
#[cfg(feature = "peers")]
mod link;
#[cfg(feature = "peers")]
mod node;
#[cfg(feature = "peers")]
pub(crate) mod quic;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

use protocol::{DeviceId, PublicKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

pub use book::{Book, BookError, Request};
#[cfg(feature = "peers")]
pub use link::PeerLink;
#[cfg(feature = "peers")]
pub use node::{Args, Peers};

/// The most devices that one talks to.
pub const PEERS_MAX: usize = 500;

/// How a device meets its peers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PeerSettings {
    /// Whether it does at all.
    pub enabled: bool,
    /// Where it is reached, over UDP. Port 0 is any: peers find it by discovery alone.
    pub listen: SocketAddr,
    /// Whether it looks for peers on the local network, and shows itself there, by multicast DNS.
    pub discovery: bool,
}

impl Default for PeerSettings {
    fn default() -> Self {
        Self { enabled: true, listen: SocketAddr::from(([0, 0, 0, 0], 0)), discovery: true }
    }
}

/// How it goes with a peer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PeerStatus {
    /// The device.
    pub device: DeviceId,
    /// Its key.
    pub key: PublicKey,
    /// The groups that both are members of.
    pub groups: Vec<String>,
    /// Whether a session with it lasts.
    pub connected: bool,
    /// Since when that is so, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// Which side called, while connected.
    pub called_by: Option<CalledBy>,
    /// Where it was reached last.
    pub address: Option<String>,
    /// The round trip to it, in milliseconds, as measured at the beginning.
    pub round_trip_ms: Option<f64>,
    /// The addresses that people gave.
    pub given: Vec<SocketAddr>,
    /// How many sessions were welcomed since the start.
    pub sessions: u64,
    /// How many calls failed one after the other.
    pub failed_calls: u32,
    /// How many entries came from it, its own and others'.
    pub entries_in: u64,
    /// How many entries it has taken from this device.
    pub entries_out: u64,
    /// How many bytes of frames came from it.
    pub bytes_in: u64,
    /// How many bytes of frames went to it.
    pub bytes_out: u64,
    /// When an entry last crossed, in milliseconds since the Unix epoch.
    pub last_sync_ms: Option<u64>,
    /// What went wrong last.
    pub last_error: Option<String>,
}

/// What an agent tells of its peers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Known {
    /// Where this device is reached, over UDP; nowhere while it meets nobody.
    pub listening: Vec<SocketAddr>,
    /// The devices that it shares trees with.
    pub peers: Vec<PeerStatus>,
}

/// Which side of a link called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CalledBy {
    /// This device.
    Us,
    /// The peer.
    Them,
}

impl PeerStatus {
    fn new(device: DeviceId, key: PublicKey, now_ms: u64) -> Self {
        Self {
            device,
            key,
            groups: Vec::new(),
            connected: false,
            since_ms: now_ms,
            called_by: None,
            address: None,
            round_trip_ms: None,
            given: Vec::new(),
            sessions: 0,
            failed_calls: 0,
            entries_in: 0,
            entries_out: 0,
            bytes_in: 0,
            bytes_out: 0,
            last_sync_ms: None,
            last_error: None,
        }
    }
}

/// What is told about peers, through all restarts. Cheap to clone.
#[derive(Debug, Clone)]
pub struct PeersBoard {
    peers: Arc<watch::Sender<BTreeMap<PublicKey, PeerStatus>>>,
    /// Counts how often somebody asked to sync now.
    wanted: Arc<watch::Sender<u64>>,
    /// Counts how often addresses were given or taken back.
    book: Arc<watch::Sender<u64>>,
    /// Where this device is reached.
    listening: Arc<watch::Sender<Vec<SocketAddr>>>,
}

impl Default for PeersBoard {
    fn default() -> Self {
        Self {
            peers: Arc::new(watch::Sender::new(BTreeMap::new())),
            wanted: Arc::new(watch::Sender::new(0)),
            book: Arc::new(watch::Sender::new(0)),
            listening: Arc::new(watch::Sender::new(Vec::new())),
        }
    }
}

impl PeersBoard {
    /// All peers.
    pub fn all(&self) -> Vec<PeerStatus> {
        self.peers.borrow().values().cloned().collect()
    }

    /// Follows how it goes with all peers.
    pub fn watch(&self) -> watch::Receiver<BTreeMap<PublicKey, PeerStatus>> {
        self.peers.subscribe()
    }

    /// Which devices are connected and which are not.
    pub fn connected(&self) -> BTreeMap<DeviceId, bool> {
        let mut devices = BTreeMap::new();
        for peer in self.peers.borrow().values() {
            *devices.entry(peer.device).or_default() |= peer.connected;
        }
        devices
    }

    /// Calls all peers that are not connected now, whatever failed before.
    pub fn sync_now(&self) {
        self.wanted.send_modify(|times| *times += 1);
    }

    /// Follows how often somebody asked to sync now.
    pub fn watch_wanted(&self) -> watch::Receiver<u64> {
        self.wanted.subscribe()
    }

    /// Addresses were given or taken back.
    pub fn book_changed(&self) {
        self.book.send_modify(|times| *times += 1);
    }

    /// Follows how often that was.
    pub fn watch_book(&self) -> watch::Receiver<u64> {
        self.book.subscribe()
    }

    /// Where this device is reached by its peers, over UDP.
    pub fn listening(&self) -> Vec<SocketAddr> {
        self.listening.borrow().clone()
    }

    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "nobody is met"))]
    fn listens_at(&self, addresses: Vec<SocketAddr>) {
        self.listening.send_replace(addresses);
    }

    /// These are the peers from now on: device, key, and the groups that both are in.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "nobody is met"))]
    fn set(&self, now: &BTreeMap<PublicKey, (DeviceId, Vec<String>)>, book: &Book, now_ms: u64) {
        self.peers.send_modify(|known| {
            known.retain(|key, _| now.contains_key(key));
            for (key, (device, groups)) in now {
                let new = || PeerStatus::new(*device, *key, now_ms);
                let status = known.entry(*key).or_insert_with(new);
                status.groups = groups.clone();
                status.given = book.addresses(device);
            }
        });
    }

    /// Where to tell how it goes with a peer.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "nobody is met"))]
    fn contact(&self, key: PublicKey) -> Contact {
        Contact { key, board: self.clone() }
    }
}

/// Where to tell how it goes with one peer.
#[derive(Debug, Clone)]
pub struct Contact {
    key: PublicKey,
    board: PeersBoard,
}

impl Contact {
    /// The addresses that people gave for it.
    #[cfg_attr(not(feature = "peers"), expect(dead_code, reason = "nobody is met"))]
    fn given(&self) -> Vec<SocketAddr> {
        self.board.peers.borrow().get(&self.key).map_or_else(Vec::new, |peer| peer.given.clone())
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut PeerStatus)) {
        self.board.peers.send_if_modified(|known| {
            let status = known.get_mut(&self.key);
            status.map(change).is_some()
        });
    }

    pub(crate) fn connected(&self, now_ms: u64) {
        self.update(|status| {
            status.connected = true;
            status.since_ms = now_ms;
            status.sessions += 1;
            status.failed_calls = 0;
            status.last_error = None;
        });
    }

    pub(crate) fn disconnected(&self, now_ms: u64) {
        self.update(|status| {
            status.connected = false;
            status.since_ms = now_ms;
            status.called_by = None;
        });
    }
}
