//! Device actors over the real store.

use std::sync::Arc;
use std::time::Duration;

use actors::device::{
    BrainAuthor, Commits, DeviceActor, DeviceArgs, DeviceMsg, Precondition, TreeOf, WriteOutcome,
};
use actors::supervise::{
    Address, Child, ChildPolicy, DynamicSupervisor, Env, Root, SetPolicy, Strategy, Supervisor,
};
use brain::clock::SystemClock;
use brain::store::{Store, StoreConfig, WhichVersion};
use protocol::clock::ClockQuality;
use protocol::history::Provenance;
use protocol::keys::Keypair;
use protocol::state::{Path, State, StateSource, VersionedState};
use protocol::{DeviceId, ErrorCode, FleetId, SyncError};
use tokio::task::JoinSet;

use crate::harness::count;

const TIME: Duration = Duration::from_secs(60);
const FLEET: FleetId = FleetId([1; 16]);

struct Rig {
    root: Root,
    devices: DynamicSupervisor<DeviceActor>,
    store: Store,
    twin: Address<DeviceMsg>,
    _folder: tempfile::TempDir,
}

async fn rig() -> Rig {
    let folder = tempfile::tempdir().expect("temporary folder");
    let config =
        StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(folder.path().join("store")) };
    let store = Store::open(config, FLEET, false).expect("the store opens");
    let devices =
        DynamicSupervisor::<DeviceActor>::new(SetPolicy::dynamic(), ChildPolicy::default(), 200);
    let tree = Supervisor::new(SetPolicy::with(Strategy::OneForOne)).child(Child::dynamic(
        "devices",
        ChildPolicy::supervisor(),
        &devices,
    ));
    let root = Root::start("test", tree, Env::default()).await.expect("starts");
    let twin = devices.start_child("twin", args(&store, 2)).expect("starts");
    Rig { root, devices, store, twin, _folder: folder }
}

impl Rig {
    fn another(&self, number: u8) -> Address<DeviceMsg> {
        let args = args(&self.store, number);
        self.devices.start_child(number.to_string(), args).expect("starts")
    }
}

fn args(store: &Store, number: u8) -> Arc<DeviceArgs> {
    let keypair = Keypair::from_seed(&[3; 32]);
    let brains = [keypair.public()].into();
    Arc::new(DeviceArgs {
        of: TreeOf::Device { device: DeviceId([number; 16]), keys: Vec::new() },
        fleet: FLEET,
        brain: BrainAuthor { keypair, epoch: 1, brains },
        store: Arc::new(store.clone()),
        conflicts: Arc::new(()),
        clock: Arc::new(SystemClock::new(ClockQuality::Synchronised)),
        epochs: brain::random_epoch,
        commits: Commits::default(),
    })
}

async fn write(twin: &Address<DeviceMsg>, path: &str, n: u64) -> Result<WriteOutcome, SyncError> {
    let changes = vec![(Path::new(path).expect("valid"), Some(count(n)))];
    let provenance = Provenance::new(StateSource::Operator, "user:test", "counting");
    let message = |reply| DeviceMsg::Write {
        changes,
        provenance,
        only_if: Precondition::default(),
        trace: None,
        reply,
    };
    twin.ask(message, TIME).await.expect("an answer")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sixteen_writers_get_versions_without_gaps_or_doubles() {
    const WRITERS: u64 = 16;
    const WRITES: u64 = 1_000;
    let rig = rig().await;
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let twin = rig.twin.clone();
        writers.spawn(async move {
            let path = format!("desired/writer-{writer}");
            let mut versions = Vec::new();
            for n in 1..=WRITES {
                versions.push(write(&twin, &path, n).await.expect("written").version);
            }
            versions
        });
    }
    let mut versions: Vec<u64> = writers.join_all().await.into_iter().flatten().collect();
    versions.sort_unstable();
    assert_eq!(versions, (1..=WRITERS * WRITES).collect::<Vec<_>>());
    let counts = rig.store.commit_counts();
    println!("{} commits in {} fsyncs", counts.commits, counts.syncs);
    assert!(counts.syncs < counts.commits / 2, "writers share fsyncs: {counts:?}");
    rig.root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_on_one_device_take_turns_and_those_on_many_share_their_way_to_the_disk() {
    const OPERATIONS: u64 = 100;
    let rig = rig().await;
    let mut one = JoinSet::new();
    for n in 1..=OPERATIONS {
        let twin = rig.twin.clone();
        one.spawn(async move { write(&twin, "desired/same", n).await.expect("written").version });
    }
    let mut versions = one.join_all().await;
    versions.sort_unstable();
    assert_eq!(versions, (1..=OPERATIONS).collect::<Vec<_>>(), "one after the other");
    let before = rig.store.commit_counts();
    let mut many = JoinSet::new();
    for number in 0..OPERATIONS {
        let twin = rig.another(number as u8 + 100);
        many.spawn(async move { write(&twin, "desired/same", 1).await.expect("written").version });
    }
    assert!(many.join_all().await.into_iter().all(|version| version == 1));
    let syncs = rig.store.commit_counts().syncs - before.syncs;
    println!("{OPERATIONS} devices at once took {syncs} fsyncs");
    assert!(syncs <= OPERATIONS / 2, "they waited for each other: {syncs} fsyncs");
    rig.root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unchanged_value_makes_no_version() {
    let rig = rig().await;
    let first = write(&rig.twin, "desired/a", 1).await.expect("written");
    let again = write(&rig.twin, "desired/a", 1).await.expect("accepted");
    assert_eq!((first.version, again.version, again.entry), (1, 1, None));
    rig.root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_brain_does_not_write_what_is_the_devices() {
    let rig = rig().await;
    let refused = write(&rig.twin, "reported/a", 1).await.expect_err("not the brain's");
    assert_eq!(refused.code, ErrorCode::Forbidden);
    assert_eq!(write(&rig.twin, "desired/a", 1).await.expect("goes on").version, 1);
    rig.root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn saving_a_version_again_is_the_same_or_a_fork() {
    let rig = rig().await;
    let save = async |version, leaves: &[(&str, u64)]| {
        let leaf = |(path, n): &(&str, u64)| (Path::new(path).expect("valid"), count(*n));
        let state = VersionedState {
            version,
            state: leaves.iter().map(leaf).collect::<State>(),
            timestamp: 0,
            source: StateSource::Operator,
            metadata: Default::default(),
        };
        let provenance = Provenance::new(StateSource::Operator, "user:test", "saved");
        let message = |reply| DeviceMsg::SaveState { state, provenance, trace: None, reply };
        let outcome = rig.twin.ask(message, TIME).await.expect("an answer");
        outcome.map(|outcome| outcome.version).map_err(|error| error.code)
    };
    assert_eq!(save(1, &[("desired/a", 1)]).await, Ok(1));
    assert_eq!(save(1, &[("desired/a", 1)]).await, Ok(1));
    assert_eq!(save(1, &[("desired/a", 2)]).await, Err(ErrorCode::VersionForked));
    assert_eq!(save(3, &[("desired/a", 2)]).await, Err(ErrorCode::VersionFuture));
    assert_eq!(save(2, &[("reported/a", 2)]).await, Err(ErrorCode::Forbidden));
    assert_eq!(save(2, &[("tags/b", 2)]).await, Ok(2));
    assert_eq!(save(1, &[("desired/a", 1)]).await, Err(ErrorCode::VersionStale));
    rig.root.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_snapshot_during_writes_is_the_state_at_one_version() {
    let rig = rig().await;
    let writer = {
        let twin = rig.twin.clone();
        tokio::spawn(async move {
            for n in 1..=200 {
                write(&twin, "desired/a", n).await.expect("written");
                write(&twin, "desired/b", n).await.expect("written");
            }
        })
    };
    write(&rig.twin, "desired/c", 1).await.expect("written");
    let mut versions = Vec::new();
    while !writer.is_finished() {
        let message = |reply| DeviceMsg::Snapshot { reply };
        versions.push(rig.twin.ask(message, TIME).await.expect("an answer").expect("kept"));
    }
    writer.await.expect("writes");
    versions.dedup();
    let number = 1;
    let kept: Vec<u64> =
        rig.store.snapshots(number).expect("reads").iter().map(|info| info.version).collect();
    assert!(versions.iter().all(|version| kept.contains(version)), "{versions:?} in {kept:?}");
    for version in versions {
        let at = |which| rig.store.state(number, which).expect("reads").expect("there");
        let (state, before) = (at(WhichVersion::At(version)), at(WhichVersion::At(version - 1)));
        // One version is one write: a torn read would show two.
        let changed = protocol::state::diff(&before.state, &state.state).len();
        assert_eq!((state.version, changed), (version, 1));
    }
    rig.root.stop().await;
}
