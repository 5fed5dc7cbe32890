use std::path::Path as FsPath;

use actors::device::{BrainAuthor, Twin};
use actors::ports::TreeStore;
use protocol::clock::ClockQuality;
use protocol::history::{Provenance, TreeKind};
use protocol::keys::{Certificate, Chain, Keypair, Subject, Validity};
use protocol::session::Now;
use protocol::state::{Path, StateSource, Value};
use protocol::{DeviceId, FleetId};

use super::*;
use crate::store::rocks::META;
use crate::store::written::{open, write};
use crate::store::{Burial, DeviceRecord, StoreConfig, Verified};

const FLEET: FleetId = FleetId([1; 16]);

fn record(device: DeviceId) -> DeviceRecord {
    let keypair = Keypair::from_seed(&[9; 32]);
    let (subject, validity) =
        (Subject::Device(device, None), Validity { from_ms: 0, until_ms: u64::MAX });
    let leaf = Certificate::issue(&keypair, FLEET, subject, keypair.public(), validity);
    DeviceRecord {
        device,
        name: "pump".into(),
        key: keypair.public(),
        certificate: Chain { leaf, issuer: None },
        api_key_id: 1,
        api_key_sha256: [5; 32],
        enrolled_ms: 1,
        enrolled_by: 1,
    }
}

fn enrol(store: &Store, device: DeviceId) -> Result<(), CommitError> {
    store.change_registry(vec![RegistryChange::Device(Box::new(record(device)))])
}

fn genesis(device: DeviceId) -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FLEET, name: device.to_string() }
}

fn bury(store: &Store, device: DeviceId, at_ms: u64) -> Tombstone {
    let (principal, reason) = ("user:ada".to_owned(), "it is broken".to_owned());
    let burial = Burial { genesis: genesis(device), at_ms, principal, reason };
    store.bury(burial).expect("durable").expect("a tombstone")
}

fn twin(store: &Store, device: DeviceId) -> Twin {
    let keypair = Keypair::from_seed(&[3; 32]);
    let brains = [keypair.public()].into();
    let brain = BrainAuthor { keypair, epoch: 1, brains };
    Twin::new(device, Vec::new(), brain, store.load(&genesis(device)).expect("loads"))
}

/// What becomes of a write by a twin.
fn written_by(store: &Store, twin: &mut Twin, n: i64) -> Result<(), CommitError> {
    let now = Now { wall_ms: 2_000, mono_ms: 0, quality: ClockQuality::Synchronised };
    let changes = vec![(Path::new("desired/late").expect("a path"), Some(Value::from(n)))];
    let provenance = Provenance::new(StateSource::Operator, "user:ada", "test");
    let written = twin.write(changes, provenance, now).expect("admitted").expect("new");
    let (tell, told) = std::sync::mpsc::channel();
    store.commit(written.commit, Box::new(move |done| tell.send(done).expect("is waited for")));
    told.recv().expect("an answer")
}

fn remove(store: &Store, tombstone: &Tombstone) {
    let tree = tombstone.tree.expect("a tree");
    while store.remove_conflicts(tree).expect("removed").is_some() {}
    store.remove_rows(tree).expect("removed");
    store.removal_finished(&tombstone.genesis).expect("noted");
}

fn verify(folder: &FsPath) -> Verified {
    crate::store::verify(&StoreConfig::new(folder), FLEET, |_, _| {}).expect("opens")
}

#[test]
fn what_a_retired_device_leaves_is_removed_and_its_number_is_not_given_again() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let [first, second] = [DeviceId([1; 16]), DeviceId([2; 16])];
    for device in [first, second] {
        enrol(&store, device).expect("durable");
    }
    write(&store, first, 20);
    let number = write(&store, second, 400);
    let mut late = twin(&store, second);
    let root = late.tree().root();
    let tombstone = bury(&store, second, 7);
    assert_eq!((tombstone.version, tombstone.root), (400, Some(root)));
    assert_eq!(tombstone.device.as_ref().map(|former| &*former.name), Some("pump"));
    assert_eq!(bury(&store, second, 8), tombstone, "the first stays");
    assert_eq!(store.device(second).expect("reads"), None);
    assert_eq!(written_by(&store, &mut late, 1), Err(CommitError::Retired));
    let mut anew = twin(&store, second);
    for n in 2..4 {
        assert_eq!(written_by(&store, &mut anew, n), Err(CommitError::Retired));
    }
    assert_eq!(enrol(&store, second), Err(CommitError::Retired));
    assert!(store.check_trees(0, 10).expect("reads").iter().all(|tree| tree.differs.is_none()));
    store.shut_down();
    drop(store);
    let verified = verify(folder.path());
    assert_eq!((verified.damage, verified.tombstones, verified.trees), (vec![], 1, 1));
    // Whatever became of the process, what is doomed is known.
    let store = open(folder.path());
    assert_eq!(store.doomed(10).expect("reads"), std::slice::from_ref(&tombstone));
    remove(&store, &tombstone);
    assert_eq!(store.doomed(10).expect("reads"), []);
    for family in OF_A_TREE {
        assert_eq!(store.rocks.has_below(family, &keys::tree(number)), Ok(false), "{family}");
    }
    let mut anew = twin(&store, second);
    assert_eq!(written_by(&store, &mut anew, 1), Err(CommitError::Retired));
    assert!(write(&store, DeviceId([3; 16]), 1) > number);
    store.shut_down();
    drop(store);
    let verified = verify(folder.path());
    assert_eq!((verified.damage, verified.tombstones, verified.trees), (vec![], 1, 2));
}

#[test]
fn rows_that_are_left_and_a_device_beside_its_tombstone_are_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let device = DeviceId([1; 16]);
    enrol(&store, device).expect("durable");
    let number = write(&store, device, 20);
    let tombstone = bury(&store, device, 7);
    // It says that nothing is left, and all of it is.
    store.removal_finished(&tombstone.genesis).expect("noted");
    let mut batch = WriteBatch::default();
    store.rocks.put(&mut batch, crate::store::rocks::DEVICES, &device.0, &record(device));
    store.rocks.write(batch).expect("writes");
    store.shut_down();
    drop(store);
    let named: Vec<_> =
        verify(folder.path()).damage.into_iter().map(|damage| damage.what).collect();
    let left = format!("its tree {number} has left rows in history");
    assert_eq!(named, ["what was retired is there as well", &left]);
}

#[test]
fn the_eldest_tombstones_go_first_and_none_of_which_something_is_left() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let devices = [1, 2, 3, 4].map(|n| DeviceId([n; 16]));
    for (device, at_ms) in devices.into_iter().zip([40, 10, 30, 20]) {
        enrol(&store, device).expect("durable");
        write(&store, device, 1);
        let tombstone = bury(&store, device, at_ms);
        // Of the eldest something is left.
        if at_ms != 10 {
            remove(&store, &tombstone);
        }
    }
    assert_eq!(store.trim_tombstones(4).expect("trims"), 0);
    assert_eq!(store.trim_tombstones(3).expect("trims"), 1);
    let left = store.retired_devices(None, 10).expect("reads");
    assert_eq!(left.iter().map(|left| left.at_ms).collect::<Vec<_>>(), [40, 10, 30]);
    let after = store.retired_devices(Some(devices[0]), 1).expect("reads");
    assert_eq!(after.iter().map(|left| left.at_ms).collect::<Vec<_>>(), [10]);
    store.shut_down();
}

#[test]
fn a_database_from_before_tombstones_is_opened_and_verified_as_it_is() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    write(&store, DeviceId([1; 16]), 3);
    store.shut_down();
    drop(store);
    let options = rocksdb::Options::default();
    let families = rocksdb::DB::list_cf(&options, folder.path()).expect("families");
    let mut db = rocksdb::DB::open_cf(&options, folder.path(), families).expect("opens");
    for family in [TOMBSTONES, DOOMED] {
        db.drop_cf(family).expect("was there");
    }
    assert!(db.cf_handle(META).is_some());
    drop(db);
    assert_eq!(verify(folder.path()).damage, []);
    let store = open(folder.path());
    assert_eq!(store.doomed(1).expect("reads"), []);
    store.shut_down();
}
