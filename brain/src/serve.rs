//! The brain, put together.

mod keepers;

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use actors::device::{BrainAuthor, Clock};
use actors::ports::Evidence;
use actors::supervise::{
    Child, ChildPolicy, CrashJournal, CrashSink, Env, JournalError, JournalLimits, Root, RootError,
    Supervisor,
};
use protocol::clock::ClockQuality;
use telemetry::Meters;

use crate::api::{Api, ApiArgs, ApiServer, ChangeFeed, LoginCode, new_api_token, router};
use crate::backup::{BackupArgs, BackupKeeper, Backups};
use crate::clock::SystemClock;
use crate::config::{Config, Live};
use crate::conflicts::{ConflictKeeper, Conflicts};
use crate::consistency::{ConsistencyArgs, ConsistencyKeeper, Findings};
use crate::devices::Devices;
use crate::enrolment::{Enrolment, EnrolmentArgs};
use crate::errors::{ErrorWatch, ErrorWatchArgs, Errors};
use crate::files::{self, Readers};
use crate::identity::{Identity, IdentityError};
use crate::link::{Accounts, Connections, DeviceListener, Drain, Ingress, ListenerArgs, Presence};
use crate::metrics::{Metrics, Sources};
use crate::removal::{RemovalArgs, RemovalKeeper};
use crate::residency::{ResidencyArgs, ResidencyKeeper};
use crate::retention::{Pruned, RetentionArgs, RetentionKeeper};
use crate::retirement::Retirement;
use crate::store::{OpenError, RegistryChange, Store, StoreConfig, StoreHealth, folder_in};
use crate::tls::{Certificates, TlsError, TlsFiles};

/// How long connections may take to go when the brain stops.
const DRAIN_TIME_MAX: Duration = Duration::from_secs(10);
/// How long `/readyz` tells of a failed store before the process ends.
const FAILURE_SHOWN: Duration = Duration::from_secs(2);

/// How many connections the system may keep for a listener; it may be set to allow fewer.
const CONNECTIONS_WAITING_MAX: i32 = 4_096;

/// The file in the data folder that holds the first API token.
pub const ADMIN_TOKEN_FILE: &str = "admin.token";

/// The file in the data folder that is there while a fleet is being made.
const UNFINISHED_FILE: &str = "init.unfinished";

/// Why the brain does not start, or ends.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// No crash journal.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// No usable identity.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// No usable store.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// No usable TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// An address cannot be listened on.
    #[error("cannot listen on {address} for {purpose}: is a brain running there already?")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Devices or the API.
        purpose: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file of the data folder cannot be written.
    #[error("{path} cannot be written")]
    File {
        /// The file.
        path: std::path::PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Plain text may not leave the machine.
    #[cfg(feature = "plain-text")]
    #[error("{address} is no loopback address: plain text is for benches on one machine")]
    PlainTextOffLoopback {
        /// The address.
        address: SocketAddr,
    },
    /// A first token could not be stored.
    #[error("the first API token cannot be stored")]
    Token(#[from] actors::ports::CommitError),
    /// The supervision tree gave up.
    #[error(transparent)]
    Root(#[from] RootError),
    /// The store failed while the brain ran.
    #[error("the store failed ({detail}); nothing is acknowledged any more, start again")]
    StoreFailed {
        /// What the database said.
        detail: String,
    },
}

/// A brain that runs.
pub struct Running {
    root: Root,
    conflicts: Conflicts,
    crashes: CrashJournal,
    drain: Arc<Drain>,
    store: Store,
    settings: Live,
    clock: SystemClock,
    login: Arc<LoginCode>,
    api_tls: bool,
    /// Where devices connect.
    pub device_address: SocketAddr,
    /// Where the API is.
    pub api_address: SocketAddr,
}

/// Makes a fleet in a data folder: its keys, a certificate authority, a store, and a first API
/// token in [`ADMIN_TOKEN_FILE`].
///
/// An init that was interrupted is taken up where it stopped: the fleet that it had made is kept.
pub fn init(data: &Path) -> Result<Identity, ServeError> {
    let unfinished = data.join(UNFINISHED_FILE);
    let file_error = |path: &Path| {
        let path = path.to_owned();
        move |source| ServeError::File { path, source }
    };
    let identity = match Identity::load(data) {
        Ok(interrupted) if unfinished.exists() => interrupted,
        Err(IdentityError::Absent { .. }) => {
            files::replace(&unfinished, b"", Readers::Everybody)
                .map_err(file_error(&unfinished))?;
            fail::fail_point!("init.begun");
            Identity::create(data, crate::random_bytes)?
        }
        // It says what is there.
        _ => Identity::create(data, crate::random_bytes)?,
    };
    TlsFiles::in_folder(data).create_authority()?;
    // One small record: the reserve is for what the fleet writes later.
    let config = StoreConfig { disk_reserve_bytes: 0, ..StoreConfig::new(folder_in(data)) };
    let store = Store::open(config, identity.fleet, false)?;
    fail::fail_point!("init.store_made");
    let now_ms = SystemClock::new(ClockQuality::Unsynchronised).now().wall_ms;
    let (token, record) = new_api_token("user:admin", now_ms, None);
    store.change_registry(vec![RegistryChange::ApiToken(record)])?;
    store.shut_down();
    fail::fail_point!("init.token_stored");
    let path = data.join(ADMIN_TOKEN_FILE);
    files::replace(&path, format!("{token}\n").as_bytes(), Readers::Owner)
        .map_err(file_error(&path))?;
    fail::fail_point!("init.token_file_made");
    files::remove(&unfinished).map_err(file_error(&unfinished))?;
    fail::fail_point!("init.finished");
    Ok(identity)
}

/// Whether a data folder has no fleet yet, or one whose init was interrupted.
pub fn needs_init(data: &Path) -> bool {
    data.join(UNFINISHED_FILE).exists()
        || matches!(Identity::load(data), Err(IdentityError::Absent { .. }))
}

/// What is asked of one start alone.
#[derive(Debug, Clone, Copy, Default)]
pub struct Start {
    /// Start although acknowledged data is missing.
    pub accept_loss: bool,
    /// Take devices without TLS, on a loopback address.
    #[cfg(feature = "plain-text")]
    pub plain_text: bool,
}

/// Starts the brain of a data folder.
pub async fn start(
    data: &Path,
    config: &Config,
    asked: Start,
    meters: Meters,
) -> Result<Running, ServeError> {
    #[cfg(feature = "plain-text")]
    if asked.plain_text && !config.device_listen.ip().is_loopback() {
        return Err(ServeError::PlainTextOffLoopback { address: config.device_listen });
    }
    let identity = Identity::load(data)?;
    let device_socket = listen(config.device_listen, "devices")?;
    let api_socket = listen(config.api_listen, "the API")?;
    let tls = TlsFiles::in_folder(data);
    tls.create_authority()?;
    tls.renew(&config.names)?;
    let certificates = Certificates::load(tls.clone())?;
    let key_certificates = certificates.clone();
    let mut store_config = StoreConfig::new(folder_in(data));
    store_config.disk_reserve_bytes = config.disk_reserve_bytes;
    let store = Store::open(store_config, identity.fleet, asked.accept_loss)?;
    let quality = match config.clock_synchronised {
        true => ClockQuality::Synchronised,
        false => ClockQuality::Unsynchronised,
    };
    let clock = SystemClock::new(quality);
    let shared_clock: Arc<dyn Clock> = Arc::new(clock.clone());
    let metrics = Arc::new(Metrics::new(&meters));
    let of_syncs = metrics.clone();
    store.on_sync(move |report| of_syncs.synced(report));
    let accounts = Accounts::default();
    let author = BrainAuthor {
        keypair: identity.keypair.clone(),
        // A store may have gone back in time without anybody noticing: a new epoch at every
        // start never gives a number out twice.
        epoch: crate::random_epoch(),
        brains: [identity.keypair.public()].into(),
    };
    let rules = &config.supervision;
    let presence = Presence::default();
    let enrolment_args = EnrolmentArgs {
        identity: identity.clone(),
        store: store.clone(),
        clock: shared_clock.clone(),
    };
    let (enrolment, enrolment_address) =
        Child::node::<Enrolment>("enrolment", rules.part, Arc::new(enrolment_args));
    let wall_ms = || SystemClock::new(ClockQuality::Unsynchronised).now().wall_ms;
    let crashes = CrashJournal::open(data.join("crashes"), JournalLimits::default(), wall_ms)?;
    let sinks: Vec<Arc<dyn CrashSink>> = vec![metrics.clone(), Arc::new(crashes.clone())];
    let env = Env { crashes: Arc::new(sinks), timings: metrics.clone(), ..Env::default() };
    let conflicts = Conflicts::new(store.clone(), rules.conflicts, rules.conflict);
    let devices = Devices::new(
        identity.fleet,
        author,
        store.clone(),
        Arc::new(conflicts.clone()),
        shared_clock.clone(),
        env.tree.clone(),
        rules,
    );
    conflicts.decide_with(devices.clone());
    let deciding = conflicts.clone();
    let pruned = Pruned::default();
    let sources = Sources {
        store: store.clone(),
        pruned: pruned.clone(),
        devices: devices.clone(),
        tree: env.tree.clone(),
        accounts: accounts.clone(),
    };
    sources.observe(&meters);
    let changes = ChangeFeed::default();
    store.add_hook(Arc::new(changes.clone())).map_err(OpenError::Thread)?;
    let (findings, errors) = (Findings::default(), Errors::default());
    let removed_findings = findings.clone();
    let of_evidence = errors.clone();
    store.on_evidence(move |Evidence { device, at_ms, error, .. }| {
        of_evidence.happened(error, Some(device.to_string()), *at_ms);
    });
    let login = Arc::new(LoginCode::default());
    let settings = Live::new(config.clone());
    let backups = Backups::new(data, store.clone(), Arc::new(identity.clone()), settings.clone());
    // The API is part of the tree whose rules it shows.
    let made_rules = Arc::new(OnceLock::new());
    let api = Api {
        store: store.clone(),
        devices: devices.clone(),
        tree: env.tree.clone(),
        rules: made_rules.clone(),
        crashes: crashes.clone(),
        identity: Arc::new(identity.clone()),
        tls_ca_sha256: tls.authority_sha256()?,
        clock: clock.clone(),
        metrics: metrics.clone(),
        meters,
        accounts: accounts.clone(),
        presence: presence.clone(),
        changes,
        findings: findings.clone(),
        errors: errors.clone(),
        backups: backups.clone(),
        login: login.clone(),
    };
    let drain = Arc::new(Drain::default());
    let ingress = Arc::new(Ingress::new(
        identity,
        store.clone(),
        devices.clone(),
        enrolment_address,
        clock.clone(),
        settings.clone(),
        metrics,
        accounts,
        presence.clone(),
        drain.clone(),
    ));
    let (connections, connections_address) =
        Child::node::<Connections>("connections", rules.part, ingress.clone());
    let residency = ResidencyArgs {
        settings: settings.clone(),
        tree: env.tree.clone(),
        devices: devices.clone(),
        presence,
    };
    let addresses =
        (local(&device_socket, config.device_listen), local(&api_socket, config.api_listen));
    let listener = ListenerArgs {
        socket: device_socket,
        certificates: certificates.clone(),
        handshakes_max: config.handshakes_max,
        ingress: ingress.clone(),
        connections: connections_address,
        #[cfg(feature = "plain-text")]
        plain_text: asked.plain_text,
    };
    let routes = router(api);
    let api_args = ApiArgs {
        socket: api_socket,
        certificates: config.api_tls.then_some(certificates),
        routes,
    };
    let error_watch = ErrorWatchArgs {
        store: store.clone(),
        findings: findings.clone(),
        tree: env.tree.clone(),
        errors,
        clock: shared_clock.clone(),
    };
    let consistency = ConsistencyArgs {
        store: store.clone(),
        settings: settings.clone(),
        findings,
        clock: Arc::new(clock.clone()),
    };
    let retention = RetentionArgs {
        store: store.clone(),
        devices: devices.clone(),
        settings: settings.clone(),
        pruned,
        clock: Arc::new(clock.clone()),
    };
    let removal = RemovalArgs {
        retirement: Retirement { store: store.clone(), devices: devices.clone() },
        conflicts: Arc::new(conflicts.clone()),
        findings: removed_findings,
    };
    let backup = BackupArgs { backups, clock: Arc::new(clock.clone()) };
    let keys = keepers::KeyArgs { certificates: key_certificates, settings: settings.clone() };
    let tree =
        Supervisor::new(rules.root)
            .child(Child::supervisor("devices", ChildPolicy::supervisor(), devices.supervisor()))
            .child(Child::supervisor(
                "ingress",
                ChildPolicy::supervisor(),
                Supervisor::new(rules.ingress)
                    .child(connections)
                    .child(node::<DeviceListener>("device-listener", rules.part, listener))
                    .child(node::<ApiServer>("api", rules.part, api_args)),
            ))
            .child(Child::supervisor(
                "jobs",
                ChildPolicy::supervisor(),
                Supervisor::new(rules.jobs)
                    .child(conflicts.branch())
                    .child(node::<ConflictKeeper>("conflict-keeper", rules.part, conflicts)),
            ))
            // The youngest: their restarts take no device and no connection along.
            .child(enrolment)
            .child(node::<ResidencyKeeper>("residency", rules.part, residency))
            .child(node::<keepers::KeyWatch>("keys", rules.part, keys))
            .child(node::<ConsistencyKeeper>("consistency", rules.part, consistency))
            .child(node::<ErrorWatch>("errors", rules.part, error_watch))
            .child(node::<RetentionKeeper>("retention", rules.part, retention))
            .child(node::<RemovalKeeper>("removal", rules.part, removal))
            .child(node::<BackupKeeper>("backup", rules.part, backup))
            .child(node::<keepers::StoreWatch>("store", rules.part, store.clone()))
            .child(node::<keepers::JournalWatch>("journal", rules.part, crashes.clone()));
    // Nobody else sets it.
    let _ = made_rules.set(tree.rules("brain"));
    let root = Root::start("brain", tree, env).await?;
    let (device_address, api_address) = addresses;
    let api_tls = config.api_tls;
    Ok(Running {
        root,
        conflicts: deciding,
        crashes,
        drain,
        store,
        settings,
        clock,
        login,
        api_tls,
        device_address,
        api_address,
    })
}

impl Running {
    /// The settings in force, to read and to change.
    pub fn settings(&self) -> Live {
        self.settings.clone()
    }

    /// The address of the page.
    pub fn page_url(&self) -> String {
        let scheme = if self.api_tls { "https" } else { "http" };
        format!("{scheme}://{}", self.api_address)
    }

    /// A code that a page or a command line exchanges for a token, once.
    pub fn login_code(&self) -> String {
        self.login.issue(self.clock.now().wall_ms)
    }

    /// Has a thread watch that the brain still moves; see [`Root::watch`].
    pub fn watch(
        &self,
        patience: Duration,
        pulse: Duration,
        alive: impl FnMut() + Send + 'static,
        stalled: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<()> {
        self.root.watch(patience, pulse, alive, stalled)
    }

    /// Runs until `stop` comes, and ends in good order; or until the store or the tree fails.
    ///
    /// At `stop`, connections are let go in waves, each device with a time of its own to come
    /// back; `hurry` cuts that short. Then the parts are stopped, the youngest first.
    pub async fn run_until(
        self,
        stop: impl Future<Output = ()>,
        hurry: impl Future<Output = ()>,
    ) -> Result<(), ServeError> {
        let Self { root, conflicts, crashes, drain, store, settings, .. } = self;
        let mut health = store.watch_health();
        let failed = async move {
            let failed = |health: &StoreHealth| matches!(health, StoreHealth::Failed { .. });
            match health.wait_for(failed).await.map(|health| health.clone()) {
                Ok(StoreHealth::Failed { detail, .. }) => detail,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            () = stop => {}
            error = root.escalated() => {
                // What led to this is wanted most.
                let _ = tokio::task::spawn_blocking(move || crashes.flush()).await;
                return Err(error.into());
            }
            detail = failed => {
                tracing::error!(detail, "the store failed");
                // Long enough for monitoring to see why; nothing is acknowledged meanwhile.
                tokio::time::sleep(FAILURE_SHOWN).await;
                return Err(ServeError::StoreFailed { detail });
            }
        }
        let pace = settings.get().connections_per_second;
        tracing::info!(connections = drain.connections(), "connections are let go");
        tokio::select! {
            () = drain.run(pace) => {}
            () = hurry => tracing::info!("asked again: not waiting for connections"),
            () = tokio::time::sleep(DRAIN_TIME_MAX) => {
                tracing::warn!(connections = drain.connections(), "connections are cut off");
            }
        }
        root.stop().await;
        conflicts.close();
        let closing = tokio::task::spawn_blocking(move || {
            crashes.flush();
            store.shut_down();
        });
        // A panic there has been reported by the panic hook.
        let _ = closing.await;
        Ok(())
    }
}

fn node<N: actors::supervise::Node>(id: &str, policy: ChildPolicy, args: N::Args) -> Child {
    Child::node::<N>(id, policy, Arc::new(args)).0
}

fn listen(address: SocketAddr, purpose: &'static str) -> Result<TcpListener, ServeError> {
    let error = |source| ServeError::Listen { address, purpose, source };
    let socket = TcpListener::bind(address).map_err(error)?;
    // The library lets 128 wait; what comes on top in a storm would wait a second for TCP to try
    // again. Calling it twice only moves the limit.
    rustix::net::listen(&socket, CONNECTIONS_WAITING_MAX).map_err(|e| error(e.into()))?;
    socket.set_nonblocking(true).map_err(error)?;
    Ok(socket)
}

fn local(socket: &TcpListener, asked: SocketAddr) -> SocketAddr {
    socket.local_addr().unwrap_or(asked)
}
