//! `load twins`: device actors in this process, over a real store.
//!
//! How soon one is back after a crash, how soon a thousand are, and what each takes in memory:
//! resident, and passive. Without connections, which `load idle` measures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actors::device::{
    BrainAuthor, Commits, DeviceActor, DeviceArgs, DeviceMsg, Precondition, TreeOf,
};
use actors::ports::CommitError;
use actors::supervise::{
    Address, Budget, Child, ChildPolicy, DynamicSupervisor, Env, Intensity, Root, SetPolicy,
    Supervisor,
};
use anyhow::Context;
use brain::clock::SystemClock;
use brain::config::Supervision;
use brain::store::{Store, StoreConfig};
use protocol::clock::ClockQuality;
use protocol::history::Provenance;
use protocol::keys::Keypair;
use protocol::state::{Path, StateSource, Value};
use protocol::{DeviceId, FleetId};
use serde::Serialize;
use tokio::task::JoinSet;

use super::measure::{Latency, Spread, memory};
use super::report::{Section, bytes, figure};
use super::{Settings, Workspace, note};

const TWINS: usize = 5_000;
/// How many crash one after the other.
const ONE_BY_ONE: usize = 1_000;
/// How many crash at once.
const AT_ONCE: usize = 1_000;
/// The leaves of each device's state.
const LEAVES: usize = 30;
/// How long anything may take.
const TIME_MAX: Duration = Duration::from_secs(60);
/// What a crash may take until the next answer, in microseconds: the median, and one in a hundred.
const BACK_US_TARGETS: (u64, u64) = (60, 1_000);
/// What a thousand may take together, in milliseconds.
const ALL_BACK_MS_TARGET: f64 = 100.0;
/// The memory of a resident twin.
const RESIDENT_BYTES_TARGET: f64 = 12.0 * 1024.0;

#[derive(Debug, Serialize)]
struct Round {
    /// From the word that has it crash to its next answer.
    back: Latency,
    /// The same question without a crash before.
    answer: Latency,
    /// From the word to the first of so many to the last answer of all.
    all_back_ms: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    twins: usize,
    resident_bytes: f64,
    passive_bytes: f64,
    rounds: Vec<Round>,
}

/// Runs the scenario.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let outcome = runtime.block_on(measure(settings, workspace))?;
    let of = |field: &dyn Fn(&Round) -> f64| Spread::of(outcome.rounds.iter().map(field)).median;
    let (p50, p99) = (of(&|round| round.back.p50_us as f64), of(&|round| round.back.p99_us as f64));
    let all = of(&|round| round.all_back_ms);
    let columns = [
        "twins",
        "answer p50 µs",
        "answer p99 µs",
        "crash to answer p50 µs",
        "crash to answer p99 µs",
        "1,000 at once ms",
        "resident",
        "passive",
    ];
    let row = vec![
        outcome.twins.to_string(),
        figure(of(&|round| round.answer.p50_us as f64)),
        figure(of(&|round| round.answer.p99_us as f64)),
        figure(p50),
        figure(p99),
        figure(all),
        bytes(outcome.resident_bytes),
        bytes(outcome.passive_bytes),
    ];
    let about = format!(
        "Device actors of {LEAVES} leaves each over a store on disk, in one process without \
         connections; {} rounds, medians. Budgets are set so high that nobody is quarantined.",
        settings.rounds
    );
    let met = |met| if met { "met" } else { "missed" };
    let verdict = format!(
        "Targets: back within {} µs at the median, {}, and {} µs for 99 of 100, {}; {AT_ONCE} at \
         once within {ALL_BACK_MS_TARGET} ms, {}; at most {} for a resident twin, {}.",
        BACK_US_TARGETS.0,
        met(p50 <= BACK_US_TARGETS.0 as f64),
        BACK_US_TARGETS.1,
        met(p99 <= BACK_US_TARGETS.1 as f64),
        met(all <= ALL_BACK_MS_TARGET),
        bytes(RESIDENT_BYTES_TARGET),
        met(outcome.resident_bytes <= RESIDENT_BYTES_TARGET),
    );
    Ok(Section::new("twins", about, &columns, vec![row], &outcome)?.with_notes([verdict]))
}

async fn measure(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Outcome> {
    let twins = settings.devices_or(TWINS);
    note(format!("twins: {twins} of {LEAVES} leaves"));
    let rig = Rig::start(workspace).await?;
    rig.fill(twins).await?;
    // What is in memory from writing must not be what is measured: everybody rests first.
    rig.rest(twins).await?;
    let empty = memory(std::process::id())?.anonymous;
    rig.wake(twins).await?;
    let resident = memory(std::process::id())?.anonymous;
    rig.rest(twins).await?;
    let passive = memory(std::process::id())?.anonymous;
    rig.dismiss(twins).await?;
    let gone = memory(std::process::id())?.anonymous;
    rig.wake(twins).await?;
    let mut rounds = Vec::new();
    for number in 0..settings.rounds {
        note(format!("twins: round {}", number + 1));
        rounds.push(rig.round(twins).await?);
    }
    rig.root.stop().await;
    let each = |more: u64, less: u64| more.saturating_sub(less) as f64 / twins as f64;
    // A passive twin keeps its place in the tree, which the empty process had as well.
    let passive_bytes = each(passive.min(empty), gone);
    let resident_bytes = each(resident, passive.min(empty)) + passive_bytes;
    Ok(Outcome { twins, resident_bytes, passive_bytes, rounds })
}

struct Rig {
    root: Root,
    set: DynamicSupervisor<DeviceActor>,
    store: Store,
    keypair: Keypair,
}

impl Rig {
    async fn start(workspace: &Workspace) -> anyhow::Result<Self> {
        let folder = workspace.next("twins");
        std::fs::create_dir_all(&folder)?;
        let config =
            StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(folder.join("store")) };
        let store = Store::open(config, FLEET, false)?;
        let often = Intensity { restarts: 1_000_000, within: Duration::from_secs(1) };
        let mut child = ChildPolicy { intensity: often, ..Supervision::default().device };
        child.backoff.immediate = u32::MAX;
        let set = SetPolicy { budget: Budget::Restarts(often), ..SetPolicy::dynamic() };
        let set = DynamicSupervisor::new(set, child, 1_000_000);
        let tree = Supervisor::new(SetPolicy::default());
        let tree = tree.child(Child::dynamic("devices", ChildPolicy::supervisor(), &set));
        let root = Root::start("load", tree, Env::default()).await?;
        Ok(Self { root, set, store, keypair: Keypair::from_seed(&[7; 32]) })
    }

    fn twin(&self, number: usize) -> anyhow::Result<Address<DeviceMsg>> {
        let args = || {
            let mut device = [0; 16];
            device[..8].copy_from_slice(&(number as u64).to_be_bytes());
            let brains = [self.keypair.public()].into();
            Arc::new(DeviceArgs {
                of: TreeOf::Device { device: DeviceId(device), keys: Vec::new() },
                fleet: FLEET,
                brain: BrainAuthor { keypair: self.keypair.clone(), epoch: 1, brains },
                store: Arc::new(self.store.clone()),
                conflicts: Arc::new(()),
                clock: Arc::new(SystemClock::new(ClockQuality::Synchronised)),
                epochs: brain::random_epoch,
                commits: Commits::default(),
            })
        };
        Ok(self.set.ensure_child(number.to_string(), args)?)
    }

    /// Gives each a state.
    async fn fill(&self, twins: usize) -> anyhow::Result<()> {
        let mut writing = JoinSet::new();
        for number in 0..twins {
            let twin = self.twin(number)?;
            writing.spawn(async move {
                let leaf = |leaf: usize| {
                    let path = Path::new(&format!("desired/group-{}/leaf-{leaf}", leaf % 5));
                    path.map(|path| (path, Some(Value::from(leaf as i64 * 1_000))))
                };
                let changes = (0..LEAVES).map(leaf).collect::<Result<Vec<_>, _>>()?;
                let provenance = Provenance::new(StateSource::Operator, "user:bench", "filled");
                let ask = |reply| DeviceMsg::Write {
                    changes,
                    provenance,
                    only_if: Precondition::default(),
                    trace: None,
                    reply,
                };
                anyhow::Ok(twin.ask(ask, TIME_MAX).await??)
            });
        }
        while let Some(written) = writing.join_next().await {
            written??;
        }
        // Its own log is signed a moment later.
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok(())
    }

    async fn rest(&self, twins: usize) -> anyhow::Result<()> {
        for number in 0..twins {
            self.twin(number)?.cast(DeviceMsg::Rest, TIME_MAX).await.map_err(|e| e.refusal())?;
        }
        self.until("passive", || self.root.tree().idle("device").iter().all(|twin| twin.passive))
            .await
    }

    async fn wake(&self, twins: usize) -> anyhow::Result<()> {
        for number in 0..twins {
            ask(&self.twin(number)?).await?;
        }
        settle().await;
        Ok(())
    }

    async fn dismiss(&self, twins: usize) -> anyhow::Result<()> {
        (0..twins).for_each(|number| self.set.dismiss_child(&number.to_string()));
        self.until("gone", || self.set.is_empty()).await
    }

    async fn until(&self, what: &str, reached: impl Fn() -> bool) -> anyhow::Result<()> {
        let wait = async {
            while !reached() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(TIME_MAX, wait).await.with_context(|| format!("never all {what}"))?;
        settle().await;
        Ok(())
    }

    async fn round(&self, twins: usize) -> anyhow::Result<Round> {
        let (mut answer, mut back) = (Vec::new(), Vec::new());
        for number in 0..ONE_BY_ONE.min(twins) {
            let twin = self.twin(number)?;
            let began = Instant::now();
            ask(&twin).await?;
            answer.push((micros(began), 1));
            let began = Instant::now();
            crash(&twin)?;
            ask(&twin).await?;
            back.push((micros(began), 1));
        }
        let addresses = (0..AT_ONCE.min(twins)).map(|number| self.twin(number));
        let addresses = addresses.collect::<anyhow::Result<Vec<_>>>()?;
        let began = Instant::now();
        addresses.iter().try_for_each(crash)?;
        let mut asked: JoinSet<_> =
            addresses.into_iter().map(|twin| async move { ask(&twin).await }).collect();
        while let Some(answered) = asked.join_next().await {
            answered??;
        }
        let all_back_ms = micros(began) as f64 / 1e3;
        Ok(Round { back: Latency::of(back), answer: Latency::of(answer), all_back_ms })
    }
}

const FLEET: FleetId = FleetId([1; 16]);

/// Has it fail as after a commit that did.
fn crash(twin: &Address<DeviceMsg>) -> anyhow::Result<()> {
    let failed = DeviceMsg::CommitFailed(CommitError::Superseded);
    twin.try_cast(failed).map_err(|refused| refused.refusal().into())
}

async fn ask(twin: &Address<DeviceMsg>) -> anyhow::Result<()> {
    twin.ask(|reply| DeviceMsg::Status { reply }, TIME_MAX).await?;
    Ok(())
}

/// Lets the allocator give back what it does not need.
async fn settle() {
    tokio::time::sleep(Duration::from_millis(1_500)).await;
}

fn micros(began: Instant) -> u64 {
    began.elapsed().as_micros() as u64
}
