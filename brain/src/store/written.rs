//! Stores with trees in them, for the tests of this folder.

use std::path::Path as FsPath;

use actors::device::{BrainAuthor, Twin};
use actors::ports::{TreeNumber, TreeStore};
use protocol::clock::ClockQuality;
use protocol::history::{Genesis, Provenance, TreeKind};
use protocol::keys::Keypair;
use protocol::session::Now;
use protocol::state::{Path, StateSource, Value};
use protocol::{DeviceId, FleetId};

use super::{Store, StoreConfig};

const FLEET: FleetId = FleetId([1; 16]);

/// Writes `count` values into the tree of a device.
pub(super) fn write(store: &Store, device: DeviceId, count: i64) -> TreeNumber {
    let genesis = Genesis { kind: TreeKind::Device, fleet: FLEET, name: device.to_string() };
    let keypair = Keypair::from_seed(&[3; 32]);
    let brains = [keypair.public()].into();
    let brain = BrainAuthor { keypair, epoch: 1, brains };
    let loaded = store.load(&genesis).expect("loads");
    let mut twin = Twin::new(device, Vec::new(), brain, loaded);
    let now = Now { wall_ms: 1_000, mono_ms: 0, quality: ClockQuality::Synchronised };
    for n in 0..count {
        let path = Path::new(&format!("desired/{}", n % 7)).expect("a path");
        let provenance = Provenance::new(StateSource::Operator, "user:ada", "test");
        let changes = vec![(path, Some(Value::from(n)))];
        let written = twin.write(changes, provenance, now).expect("admitted").expect("new");
        store.commit(written.commit, Box::new(|done| done.expect("durable")));
    }
    store.probe();
    twin.number()
}

/// A store in a folder, whatever room the disk has.
pub(super) fn open(folder: &FsPath) -> Store {
    let config = StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(folder) };
    Store::open(config, FLEET, false).expect("opens")
}
