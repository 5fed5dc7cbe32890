//! Addresses of devices, as people gave them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use protocol::DeviceId;
use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskError};

const FILE: &str = "peers.json";
/// More addresses of one device help nobody.
const ADDRESSES_MAX: usize = 8;
/// Nor do more devices than a tree may have members.
const DEVICES_MAX: usize = 500;

/// Where devices are reached that are not found by themselves.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Book {
    devices: BTreeMap<DeviceId, Vec<SocketAddr>>,
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// A device is reached at an address, too.
    Add {
        /// The device.
        device: DeviceId,
        /// Host and port, over UDP.
        address: SocketAddr,
    },
    /// The addresses given for a device hold no longer.
    Remove {
        /// The device.
        device: DeviceId,
    },
}

/// Why the addresses cannot be read or changed.
#[derive(Debug, thiserror::Error)]
pub enum BookError {
    /// The file cannot be read or written.
    #[error("addresses of peers are not accessible")]
    Disk(#[from] DiskError),
    /// The file does not parse.
    #[error("{} does not hold addresses of peers; remove it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        #[source]
        source: serde_json::Error,
    },
    /// There is no room.
    #[error("there is room for {DEVICES_MAX} devices with {ADDRESSES_MAX} addresses each")]
    Full,
    /// There is nothing to remove.
    #[error("no address was given for device {device}; see `edge peer list`")]
    Unknown {
        /// The device.
        device: DeviceId,
    },
}

impl Book {
    /// Reads it from a data folder; an empty one where there is none. Blocks.
    pub fn load(data_dir: &Path) -> Result<Self, BookError> {
        let path = data_dir.join(FILE);
        let Some(text) = disk::read_optional(&path)? else { return Ok(Self::default()) };
        serde_json::from_slice(&text).map_err(|source| BookError::Malformed { path, source })
    }

    /// Writes it into a data folder. Blocks.
    pub fn store(&self, data_dir: &Path) -> Result<(), BookError> {
        let text = serde_json::to_vec_pretty(self).expect("ids and addresses are texts");
        Ok(disk::write_private(&data_dir.join(FILE), &text)?)
    }

    /// The addresses given for a device.
    pub fn addresses(&self, device: &DeviceId) -> Vec<SocketAddr> {
        self.devices.get(device).cloned().unwrap_or_default()
    }

    /// Does what is asked.
    pub fn change(&mut self, request: &Request) -> Result<(), BookError> {
        match request {
            Request::Add { device, address } => {
                let is_new = !self.devices.contains_key(device);
                if is_new && self.devices.len() >= DEVICES_MAX {
                    return Err(BookError::Full);
                }
                let addresses = self.devices.entry(*device).or_default();
                if addresses.contains(address) {
                    return Ok(());
                }
                if addresses.len() >= ADDRESSES_MAX {
                    return Err(BookError::Full);
                }
                addresses.push(*address);
                Ok(())
            }
            Request::Remove { device } => {
                let gone = self.devices.remove(device);
                gone.map(drop).ok_or(BookError::Unknown { device: *device })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICE: DeviceId = DeviceId([7; 16]);

    fn add(port: u16) -> Request {
        Request::Add { device: DEVICE, address: SocketAddr::from(([10, 0, 0, 7], port)) }
    }

    #[test]
    fn what_was_given_is_there_after_a_restart_and_can_be_taken_back() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut book = Book::load(dir.path()).expect("empty");
        book.change(&add(1)).expect("added");
        book.change(&add(1)).expect("known");
        book.store(dir.path()).expect("stored");
        let mut book = Book::load(dir.path()).expect("loads");
        assert_eq!(book.addresses(&DEVICE).len(), 1);
        book.change(&Request::Remove { device: DEVICE }).expect("removed");
        let again = book.change(&Request::Remove { device: DEVICE });
        assert!(matches!(again, Err(BookError::Unknown { .. })), "{again:?}");
    }

    #[test]
    fn a_device_has_a_few_addresses_at_most() {
        let mut book = Book::default();
        let added = (1..20).take_while(|port| book.change(&add(*port)).is_ok()).count();
        assert_eq!(added, ADDRESSES_MAX);
    }
}
