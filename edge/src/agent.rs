//! The whole agent as one value.

mod parts;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{
    ChildPolicy, CrashJournal, Env, JournalError, JournalLimits, Node, Root, RootError, TreeView,
};
use actors::trace::{Sampler, context_of};
use protocol::DeviceId;
use protocol::clock::ClockQuality;
use protocol::history::{Change, Draft, Provenance};
use protocol::state::{State, Value};
use protocol::wire::LogPosition;
use telemetry::LogLevel;
use tokio::sync::watch;
use url::Url;

use crate::clock::{Clock, Signs};
use crate::config::Secret;
use crate::enrolment::{Enrolment, EnrolmentError, Request};
use crate::identity::{self, Identity, IdentityError};
use crate::metrics::Metrics;
use crate::peers::{PeerSettings, PeersBoard};
use crate::sense::{BoardSource, SenseSettings};
use crate::shares::{self, Shares};
use crate::spool::{self, Place, SpoolError, Store};
use crate::status::{Board, Status};
use crate::track::{self, Limits, Track, WriteError};
use crate::uplink;
use parts::Parts;

/// What is kept of crashes: flash is small, and a week without anybody looking is not long.
const CRASHES: JournalLimits =
    JournalLimits { bytes_max: 1 << 20, age_max: Duration::from_secs(90 * 24 * 60 * 60) };

/// Everything that an agent is made from.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Where everything of this device lies.
    pub data_dir: PathBuf,
    /// The board to read.
    pub board: BoardSource,
    /// Where entries are kept.
    pub spool: Place,
    /// How much may wait and is kept.
    pub limits: Limits,
    /// For how long changes are gathered into one commit.
    pub commit_delay: Duration,
    /// The id to take at the first start.
    pub device_id: Option<DeviceId>,
    /// How to join a fleet, if it is known.
    pub request: Option<Request>,
    /// The brain's address by configuration.
    pub server: Option<Url>,
    /// The API key by configuration.
    pub api_key: Option<Secret>,
    /// The certificate authority by configuration.
    pub ca_pem: Option<String>,
    /// The compressions to offer, as bits.
    pub compressions: u8,
    /// How it meets other devices.
    pub peers: PeerSettings,
    /// The sensors' settings.
    pub sense: SenseSettings,
    /// Programs that desired state may run.
    pub hooks_dir: Option<PathBuf>,
    /// How often it is looked whether what was applied still holds.
    pub verify_every: Duration,
    /// Where the system shows how good its clock is.
    pub signs: Signs,
    /// Whether to answer on the local socket.
    pub local_api: bool,
    /// Which samples and changes are traced.
    pub sampler: Sampler,
    /// Where figures and health are shown to the network, if anywhere.
    pub metrics_listen: Option<SocketAddr>,
    /// The log's level, if this agent owns the log.
    pub log_level: Option<LogLevel>,
}

/// Why an agent does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// The enrolment cannot be read.
    #[error(transparent)]
    Enrolment(#[from] EnrolmentError),
    /// The spool cannot be opened.
    #[error(transparent)]
    Spool(#[from] SpoolError),
    /// The parts do not start.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The keeper of the tree does not come up.
    #[error(transparent)]
    Track(#[from] WriteError),
    /// A task of the start was cancelled.
    #[error("start was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

/// A running agent. Dropped, it stops in the background.
#[derive(Debug)]
pub struct Agent {
    root: Root,
    identity: Identity,
    board: Board,
    clock: Clock,
    sampler: Sampler,
    track: actors::supervise::Address<track::Msg>,
    shares: Shares,
    peers: PeersBoard,
    crashes: Option<CrashJournal>,
}

/// The device's state at one moment.
#[derive(Debug, Clone, PartialEq)]
pub struct AgentState {
    /// Every leaf with its value.
    pub state: State,
    /// The root hash of the tree.
    pub root: [u8; 32],
}

impl AgentConfig {
    /// The agent of this machine, with everything at its default.
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        let root = hw::Root::real().with_data(&data_dir);
        Self {
            board: BoardSource::Linux(root),
            spool: Place::File(spool::path_in(&data_dir), spool::Options::default()),
            data_dir,
            limits: Limits {
                queue_bytes_max: 64 << 20,
                retain_bytes: 16 << 20,
                entry_bytes_max: 96 << 20,
            },
            commit_delay: Duration::from_millis(5),
            device_id: None,
            request: None,
            server: None,
            api_key: None,
            ca_pem: None,
            compressions: uplink::all_compressions(),
            peers: PeerSettings::default(),
            sense: SenseSettings::default(),
            hooks_dir: None,
            verify_every: Duration::from_secs(60),
            signs: Signs::default(),
            local_api: true,
            sampler: Sampler::NEVER,
            metrics_listen: None,
            log_level: None,
        }
    }

    /// The agent of a simulated machine.
    pub fn simulated(data_dir: impl Into<PathBuf>, seed: u64) -> Self {
        let board = BoardSource::Simulated(seed);
        let peers = PeerSettings { enabled: false, ..PeerSettings::default() };
        Self { board, peers, local_api: false, ..Self::new(data_dir) }
    }
}

/// What is read of the disk before anything starts.
struct Ground {
    opened: identity::Opened,
    enrolment: Option<Enrolment>,
    store: Store,
    clock: Clock,
    crashes: Option<CrashJournal>,
}

impl Agent {
    /// Starts an agent; it comes up without a network as well.
    pub async fn start(config: AgentConfig) -> Result<Self, StartError> {
        let before = config.clone();
        let ground = tokio::task::spawn_blocking(move || prepare(&before)).await??;
        let Ground { opened, enrolment, store, clock, crashes } = ground;
        let identity::Opened { identity, copied_from, id_not_taken } = opened;
        if let Some(asked) = id_not_taken {
            tracing::warn!(%asked, ours = %identity.device, "device id is not taken");
        }
        let board = Board::new(identity.device, clock.wall_ms());
        if let Place::File(file, _) = &config.spool {
            board.metrics().spool_is(file.clone());
        }
        board.update(|status| {
            if let Some(enrolment) = &enrolment {
                status.enrolled = true;
                status.fleet = Some(enrolment.fleet);
                status.name = Some(enrolment.name.clone());
            }
        });
        tracing::info!(device_id = %identity.device, enrolled = enrolment.is_some(), "agent starts");
        let track = actors::supervise::Address::new(Track::CAPACITY);
        let tree = TreeView::new();
        let mut env = Env { tree: tree.clone(), ..Env::default() };
        if let Some(crashes) = crashes.clone() {
            env.crashes = Arc::new(crashes);
        }
        let setup = shares::Setup {
            identity: identity.clone(),
            data_dir: config.data_dir.clone(),
            place: config.spool.clone(),
            clock: clock.clone(),
            commit_delay: config.commit_delay,
        };
        let shares = Shares::new(setup, ChildPolicy::default());
        let parts = Parts {
            config,
            identity,
            enrolment,
            store,
            clock,
            board,
            track,
            shares,
            peers: PeersBoard::default(),
            tree,
            crashes,
        };
        let root = Root::start("edge", parts.supervisor(), env).await?;
        let Parts {
            config, identity, enrolment, clock, board, track, shares, peers, crashes, ..
        } = parts;
        if let Some(enrolment) = enrolment {
            let known = shares.clone();
            tokio::task::spawn_blocking(move || known.open_known(enrolment.fleet)).await?;
        }
        let sampler = config.sampler;
        let agent = Self { root, identity, board, clock, sampler, track, shares, peers, crashes };
        agent.report_start(copied_from).await?;
        Ok(agent)
    }

    /// The device's id.
    pub fn device_id(&self) -> DeviceId {
        self.identity.device
    }

    /// How the agent is doing.
    pub fn status(&self) -> Status {
        self.board.status()
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        self.board.metrics()
    }

    /// Follows how the agent is doing.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.board.watch_status()
    }

    /// The agent's clock.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The agent's parts, live.
    pub fn tree(&self) -> &TreeView {
        self.root.tree()
    }

    /// The device's state now.
    pub async fn state(&self) -> Result<AgentState, WriteError> {
        let shown = self.track.ask(track::Msg::State, track::PATIENCE).await?;
        Ok(AgentState { state: shown.state, root: shown.root })
    }

    /// The trees that the device shares with others.
    pub fn shares(&self) -> &Shares {
        &self.shares
    }

    /// How it goes with other devices.
    pub fn peers(&self) -> &PeersBoard {
        &self.peers
    }

    /// Writes changes and comes back when they are durable, with where the log then stands; none
    /// if they change nothing.
    pub async fn enqueue(
        &self,
        changes: Vec<Change>,
        provenance: Provenance,
    ) -> Result<Option<LogPosition>, WriteError> {
        let draft = Draft { changes, provenance, lease_until_ms: None };
        // Where there is no randomness nothing is sampled.
        let sampled = getrandom::u64().is_ok_and(|random| self.sampler.samples(random));
        let span = sampled
            .then(|| tracing::info_span!(target: "fleet::trace", parent: None, "entry.enqueue"));
        track::write(&self.track, draft, span.as_ref().and_then(context_of)).await
    }

    /// Has a thread watch that the agent still moves; see [`Root::watch`].
    pub fn watch(
        &self,
        patience: Duration,
        pulse: Duration,
        alive: impl FnMut() + Send + 'static,
        stalled: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        self.root.watch(patience, pulse, alive, stalled)
    }

    /// Comes back when the agent gives up, which an orderly stop is not.
    pub async fn gave_up(&self) -> RootError {
        self.root.escalated().await
    }

    /// Seals, ends the session, marks the stop as clean, and closes the spool.
    pub async fn stop(self) {
        self.root.stop().await;
        if let Some(crashes) = self.crashes {
            // A panic there has been reported by the panic hook.
            let _ = tokio::task::spawn_blocking(move || crashes.flush()).await;
        }
        tracing::info!("agent is stopped");
    }

    async fn report_start(&self, copied_from: Option<PathBuf>) -> Result<(), StartError> {
        let Some(aside) = copied_from else { return Ok(()) };
        let path = aside.display().to_string();
        tracing::warn!(set_aside = path, "data folder is a copy; this is another device now");
        let changes = [
            ("reported/identity/copied_image_at_ms", Value::from(self.clock.wall_ms() as i64)),
            ("reported/identity/set_aside", Value::from(path)),
        ];
        track::write(&self.track, track::report("agent", "copied image", changes), None).await?;
        Ok(())
    }
}

fn prepare(config: &AgentConfig) -> Result<Ground, StartError> {
    let clock = Clock::new(config.signs.clone(), 0);
    let machine = config.board.machine_identity();
    let opened = identity::open(&config.data_dir, config.device_id, &machine, clock.wall_ms())?;
    let enrolment = Enrolment::load(&config.data_dir)?;
    let store = Store::new(config.spool.clone(), clock.clone());
    let loaded = store.with(|spool| spool.load())?;
    if let Some(author) = loaded.map(|loaded| loaded.author)
        && clock.quality() != ClockQuality::Synchronised
    {
        clock.correct(author.clock_offset_ms);
        // Without a battery, the clock starts long before the last stop.
        let behind_ms = author.clock_floor_ms.saturating_sub(clock.wall_ms());
        clock.correct(i64::try_from(behind_ms).unwrap_or(0));
    }
    // Of simulated devices there are many, and nobody asks them.
    let crashes = config.local_api.then(|| journal(config, clock.clone())).flatten();
    Ok(Ground { opened, enrolment, store, clock, crashes })
}

/// A device does its work also where its crashes cannot be kept, such as on a full disk.
fn journal(config: &AgentConfig, clock: Clock) -> Option<CrashJournal> {
    let folder = config.data_dir.join("crashes");
    let opened = CrashJournal::open(folder, CRASHES, move || clock.wall_ms());
    let failed = |error: &JournalError| {
        tracing::error!(error = error as &dyn std::error::Error, "crashes are not kept");
    };
    opened.inspect_err(failed).ok()
}
