//! `load conflicts`: changes that did not know of each other, decided one by one.
//!
//! Device actors over a store on disk in this process, without connections. Two lives of each
//! device write the same leaf and never hear of each other, so that every update is a conflict.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actors::account::InFlight;
use actors::conflict::{ConflictActor, ConflictArgs, ConflictBoard};
use actors::device::{BrainAuthor, Commits, DeviceActor, DeviceArgs, DeviceMsg, TreeOf};
use actors::ports::{ConflictDesk, ConflictRecord, ReadError};
use actors::supervise::{Address, Child, ChildPolicy, DynamicSupervisor, Env, Root, Supervisor};
use brain::clock::SystemClock;
use brain::config::Supervision;
use brain::store::{Store, StoreConfig, not_found};
use protocol::clock::{ClockQuality, Hlc};
use protocol::conflict::{Conflict, Resolution};
use protocol::history::{Author, Draft, Genesis, LogId, Provenance, Tree, TreeKind};
use protocol::keys::Keypair;
use protocol::session::Now;
use protocol::state::{Path, StateSource, Value};
use protocol::{ConflictId, DeviceId, FleetId, SyncError};
use serde::Serialize;
use tokio::sync::mpsc;

use super::measure::{Latency, Spread, usage};
use super::report::{Section, figure, spread};
use super::{Settings, Workspace, note};
use crate::device::now;

const DEVICES: usize = 250;
/// Conflicting updates in a second, if nobody says otherwise.
const RATE: f64 = 1_000.0;
/// How long anything may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What 99 of 100 conflicts may take from the update to the word that they are decided.
const TARGET_US: u64 = 50_000;
const FLEET: FleetId = FleetId([1; 16]);

#[derive(Debug, Serialize)]
struct Round {
    conflicts_per_second: f64,
    /// From the update's arrival until people are told how its conflict is decided.
    decided: Latency,
    cpu_us_per_conflict: f64,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let rounds = runtime.block_on(measure(settings, workspace))?;
    let of = |field: fn(&Round) -> f64| Spread::of(rounds.iter().map(field));
    let p99 = of(|round| round.decided.p99_us as f64);
    let columns = ["conflicts/s", "p50 ms", "p99 ms", "CPU µs/conflict"];
    let row = vec![
        figure(of(|round| round.conflicts_per_second).median),
        figure(of(|round| round.decided.p50_us as f64).median / 1e3),
        spread(&of(|round| round.decided.p99_us as f64 / 1e3)),
        figure(of(|round| round.cpu_us_per_conflict).median),
    ];
    let about = format!(
        "Two lives of each of {} devices write the same leaf without knowing of each other; each \
         update is a conflict, kept with it, decided by an actor of its own in a commit of its own; \
         {} rounds of {} s, medians. The process also writes the entries.",
        settings.devices_or(DEVICES),
        settings.rounds,
        settings.seconds,
    );
    let met = if p99.median <= TARGET_US as f64 { "met" } else { "missed" };
    let verdict = format!("Target: 99 of 100 decided within {} ms, {met}.", TARGET_US / 1_000);
    Ok(Section::new("conflicts", about, &columns, vec![row], &rounds)?.with_notes([verdict]))
}

async fn measure(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Vec<Round>> {
    let devices = settings.devices_or(DEVICES);
    let rate = if settings.rate > 0.0 { settings.rate } else { RATE };
    note(format!("conflicts: {rate} a second, of {devices} devices"));
    let mut rig = Rig::start(workspace, devices).await?;
    rig.write(devices * 2, rate).await?;
    rig.settle().await?;
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        note(format!("conflicts: round {}", number + 1));
        rig.board.take();
        let before = usage(std::process::id())?;
        let began = Instant::now();
        let updates = (rate * settings.seconds) as usize;
        rig.write(updates, rate).await?;
        rig.settle().await?;
        let seconds = began.elapsed().as_secs_f64();
        let cpu = (usage(std::process::id())? - before).cpu;
        let decided = rig.board.take();
        let count = decided.len();
        anyhow::ensure!(count == updates, "{count} of {updates} conflicts are decided");
        rounds.push(Round {
            conflicts_per_second: count as f64 / seconds,
            decided: Latency::of(decided.into_iter().map(|us| (us, 1))),
            cpu_us_per_conflict: cpu.as_secs_f64() * 1e6 / count as f64,
        });
    }
    rig.root.stop().await;
    Ok(rounds)
}

/// One life of a device.
struct Life {
    tree: Tree,
    author: Author,
}

struct Device {
    twin: Address<DeviceMsg>,
    lives: [Life; 2],
}

struct Rig {
    root: Root,
    devices: Vec<Device>,
    board: Arc<Board>,
    written: usize,
    began: Instant,
}

impl Rig {
    async fn start(workspace: &Workspace, devices: usize) -> anyhow::Result<Self> {
        let folder = workspace.next("conflicts");
        std::fs::create_dir_all(&folder)?;
        let config =
            StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(folder.join("store")) };
        let store = Store::open(config, FLEET, false)?;
        let rules = Supervision::default();
        let twins = DynamicSupervisor::<DeviceActor>::new(rules.shard, rules.device, devices);
        let actors = DynamicSupervisor::new(rules.conflicts, rules.conflict, 10_000);
        let tree = Supervisor::new(rules.devices)
            .child(Child::dynamic("devices", ChildPolicy::supervisor(), &twins))
            .child(Child::dynamic("conflicts", ChildPolicy::supervisor(), &actors));
        let root = Root::start("load", tree, Env::default()).await?;
        let board = Arc::new(Board {
            store: store.clone(),
            twins: Mutex::default(),
            arrived: Mutex::default(),
            decided: Mutex::default(),
        });
        let desk = Arc::new(Desk { actors, board: board.clone() });
        let mut rig = Self { root, devices: Vec::new(), board, written: 0, began: Instant::now() };
        for number in 0..devices {
            rig.devices.push(device(number, &twins, &store, &desk).await?);
            let twin = rig.devices[number].twin.clone();
            lock(&rig.board.twins).insert(genesis(number).name, twin);
        }
        Ok(rig)
    }

    /// Writes updates at an even pace, the devices in turn, their lives in turn.
    async fn write(&mut self, updates: usize, rate: f64) -> anyhow::Result<()> {
        let began = Instant::now();
        let devices = self.devices.len();
        for n in 0..updates {
            let due = began + Duration::from_secs_f64(n as f64 / rate);
            tokio::time::sleep_until(due.into()).await;
            let (number, life) = (self.written % devices, self.written / devices % 2);
            self.written += 1;
            let Device { twin, lives } = &mut self.devices[number];
            let Life { tree, author } = &mut lives[life];
            let path = Path::new("reported/n")?;
            let draft = Draft {
                changes: vec![(path, Some(Value::from(self.written as i64)))],
                provenance: Provenance::new(StateSource::Hardware, "sensor:bench", "changed"),
                lease_until_ms: None,
            };
            let Now { wall_ms, quality, .. } = now(self.began);
            let Some(entry) = author.write(tree, draft, wall_ms, quality) else { continue };
            let id = entry.id();
            tree.apply(&entry, id);
            lock(&self.board.arrived).insert((entry.log, entry.seq), Instant::now());
            let message = DeviceMsg::EntriesCame {
                connection: 1,
                log: entry.log,
                entries: vec![(id, entry)],
                bytes: 100,
                in_flight: InFlight::default(),
                traces: Vec::new(),
            };
            twin.cast(message, TIME_MAX).await.map_err(|refused| refused.refusal())?;
        }
        Ok(())
    }

    /// Waits until no conflict is open.
    async fn settle(&self) -> anyhow::Result<()> {
        let began = Instant::now();
        let mut before = usize::MAX;
        loop {
            let decided = lock(&self.board.decided).len();
            let store = self.board.store.clone();
            let open = tokio::task::spawn_blocking(move || store.open_conflicts(1)).await?;
            if open.is_empty() && decided == before {
                return Ok(());
            }
            anyhow::ensure!(began.elapsed() < TIME_MAX, "conflicts stay open");
            before = decided;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

async fn device(
    number: usize,
    twins: &DynamicSupervisor<DeviceActor>,
    store: &Store,
    desk: &Arc<Desk>,
) -> anyhow::Result<Device> {
    let (key, brain) = (key(number), Keypair::from_seed(&[7; 32]));
    let args = DeviceArgs {
        of: TreeOf::Device { device: id(number), keys: vec![key.public()] },
        fleet: FLEET,
        brain: BrainAuthor { brains: [brain.public()].into(), keypair: brain, epoch: 1 },
        store: Arc::new(store.clone()),
        conflicts: desk.clone(),
        clock: Arc::new(SystemClock::new(ClockQuality::Synchronised)),
        epochs: brain::random_epoch,
        commits: Commits::default(),
    };
    let twin = twins.start_child(number.to_string(), Arc::new(args))?;
    let (link, mut events) = mpsc::channel(64);
    tokio::spawn(async move { while events.recv().await.is_some() {} });
    let attach = |reply| DeviceMsg::Attach {
        connection: 1,
        device: id(number),
        peer: "load".into(),
        link,
        reply,
    };
    twin.ask(attach, TIME_MAX).await??;
    let life = |epoch| {
        let log = LogId { author: key.public(), epoch };
        Life { tree: Tree::new(genesis(number)), author: Author::new(log, Hlc::default()) }
    };
    Ok(Device { twin, lives: [life(1), life(2)] })
}

fn id(number: usize) -> DeviceId {
    let mut id = [0; 16];
    id[..8].copy_from_slice(&(number as u64).to_be_bytes());
    DeviceId(id)
}

fn key(number: usize) -> Keypair {
    let mut seed = [9; 32];
    seed[..8].copy_from_slice(&(number as u64).to_be_bytes());
    Keypair::from_seed(&seed)
}

fn genesis(number: usize) -> Genesis {
    Genesis { kind: TreeKind::Device, fleet: FLEET, name: id(number).to_string() }
}

/// Starts an actor for each conflict.
struct Desk {
    actors: DynamicSupervisor<ConflictActor>,
    board: Arc<Board>,
}

impl ConflictDesk for Desk {
    fn noticed(&self, id: ConflictId) {
        let args = || Arc::new(ConflictArgs { id, board: self.board.clone() });
        // One that has no actor stays open, which the scenario notices.
        let _ = self.actors.ensure_child(id.to_string(), args);
    }

    fn ended(&self, _id: ConflictId) {}
}

struct Board {
    store: Store,
    twins: Mutex<HashMap<String, Address<DeviceMsg>>>,
    arrived: Mutex<HashMap<(LogId, u64), Instant>>,
    /// In microseconds.
    decided: Mutex<Vec<u64>>,
}

impl Board {
    fn take(&self) -> Vec<u64> {
        std::mem::take(&mut lock(&self.decided))
    }
}

impl ConflictBoard for Board {
    fn conflict(&self, id: ConflictId) -> Result<Option<ConflictRecord>, ReadError> {
        self.store.conflict(id)
    }

    fn twin(&self, tree: &Genesis) -> Result<Address<DeviceMsg>, SyncError> {
        lock(&self.twins).get(&tree.name).cloned().ok_or_else(|| not_found(&tree.name))
    }

    fn tell(&self, conflict: &Conflict, resolution: Option<&Resolution>) {
        let arrived = lock(&self.arrived);
        let sides = conflict.states.iter().map(|side| arrived.get(&(side.log, side.seq)));
        // The conflict came with the later side; the other is older by a turn.
        if let (Some(_), Some(began)) = (resolution, sides.flatten().max()) {
            lock(&self.decided).push(began.elapsed().as_micros() as u64);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
