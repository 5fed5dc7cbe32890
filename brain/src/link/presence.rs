//! Which devices are connected.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, PoisonError, RwLock};

use protocol::DeviceId;

/// The devices with a connection. Cheap to clone.
///
/// The lock is taken when a device comes or goes, and when somebody looks. A twin that is not in
/// memory need not be woken to tell whether its device is there.
#[derive(Debug, Clone, Default)]
pub struct Presence {
    by_device: Arc<RwLock<HashMap<DeviceId, Present>>>,
}

/// That a device is connected.
#[derive(Debug)]
pub struct Stay {
    presence: Presence,
    device: DeviceId,
    connection: u64,
}

impl Drop for Stay {
    fn drop(&mut self) {
        self.presence.leave(self.device, self.connection);
    }
}

/// A device's connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Present {
    /// Its number.
    pub connection: u64,
    /// Where the device is.
    pub peer: SocketAddr,
    /// Since when, in milliseconds since the Unix epoch.
    pub since_ms: u64,
}

impl Presence {
    /// A device's connection is here, until what is given back is dropped; it replaces one with a
    /// lower number.
    pub fn enter(&self, device: DeviceId, present: Present) -> Stay {
        let mut by_device = self.by_device.write().unwrap_or_else(PoisonError::into_inner);
        let known = by_device.entry(device).or_insert(present);
        if known.connection < present.connection {
            *known = present;
        }
        Stay { presence: self.clone(), device, connection: present.connection }
    }

    fn leave(&self, device: DeviceId, connection: u64) {
        let mut by_device = self.by_device.write().unwrap_or_else(PoisonError::into_inner);
        if by_device.get(&device).is_some_and(|present| present.connection == connection) {
            by_device.remove(&device);
        }
    }

    /// The connection of a device.
    pub fn of(&self, device: DeviceId) -> Option<Present> {
        let by_device = self.by_device.read().unwrap_or_else(PoisonError::into_inner);
        by_device.get(&device).copied()
    }

    /// How many devices are connected.
    pub fn len(&self) -> usize {
        self.by_device.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_older_connection_does_not_take_a_device_away() {
        let (presence, device) = (Presence::default(), DeviceId([1; 16]));
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let at = |connection| Present { connection, peer, since_ms: connection };
        let older = presence.enter(device, at(1));
        let newer = presence.enter(device, at(2));
        drop(older);
        assert_eq!(presence.of(device), Some(at(2)));
        // The older one was slow to be let in.
        let late = presence.enter(device, at(1));
        assert_eq!(presence.of(device), Some(at(2)));
        drop((newer, late));
        assert!(presence.is_empty());
    }
}
