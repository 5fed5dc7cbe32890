//! `edge run`.

use std::path::PathBuf;
use std::time::Duration;

use actors::trace::Sampler;
use anyhow::Context;
use edge::agent::{Agent, AgentConfig};
use edge::clock::Signs;
use edge::config::{Config, SpoolKind};
use edge::enrolment::{REQUEST_FILE, Request};
use edge::spool::Place;
use edge::tls;
use edge::track::Limits;
use serde_json::{Value, json};
use telemetry::{Log, LogLevel, Service, Telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{asked_to_end, block_on};

/// How long the root of the supervision tree may handle no message.
const STALLED_AFTER: Duration = Duration::from_secs(30);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The brain's address, wss://HOST:PORT; kept once a session with it came about.
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// How to join a fleet at the first start: a TOML file with server, token and perhaps name.
    #[arg(long, value_name = "FILE")]
    enroll_file: Option<PathBuf>,
    /// Where entries are kept.
    #[arg(long, value_name = "KIND")]
    spool: Option<SpoolKind>,
    /// Programs that desired state may run, each by its name under desired/hooks/.
    #[arg(long, value_name = "DIR")]
    hooks_dir: Option<PathBuf>,
    /// Trust this certificate authority (PEM) instead of the one found at enrolment.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
}

impl Arguments {
    pub(super) fn flags(&self) -> Vec<(&'static str, Value)> {
        let path = |path: &Option<PathBuf>| path.as_ref().map(|path| json!(path));
        let given = [
            ("server_url", self.server.as_ref().map(|server| json!(server))),
            ("enroll_file", path(&self.enroll_file)),
            ("spool.kind", self.spool.map(|kind| json!(kind))),
            ("hooks_dir", path(&self.hooks_dir)),
            ("ca_file", path(&self.ca_file)),
        ];
        given.into_iter().filter_map(|(key, value)| Some((key, value?))).collect()
    }
}

/// Runs the agent; `again` reads the configuration once more.
pub(super) fn run(
    config: &Config,
    log: &Log,
    again: impl Fn() -> anyhow::Result<Config> + Send + 'static,
) -> anyhow::Result<()> {
    let agent = agent_config(config, log.level().clone())?;
    let mut telemetry = None;
    let result = block_on(2, 16, async {
        // From now on it does not end the process.
        let hangup = signal(SignalKind::hangup())?;
        let agent = Agent::start(agent).await.context("the agent does not start")?;
        let service = Service {
            name: "fleet-edge",
            version: env!("CARGO_PKG_VERSION"),
            instance: agent.device_id().to_string(),
        };
        let started = Telemetry::start(&service, config.otlp()?.as_ref(), log)?;
        agent.metrics().observe(started.meters());
        telemetry = Some(started);
        notify(&[sd_notify::NotifyState::Ready]);
        watch(&agent)?;
        listen_for_reloads(hangup, config.clone(), log.level().clone(), again);
        let outcome = tokio::select! {
            reason = asked_to_end() => {
                tracing::info!(reason = reason?, "agent is asked to stop");
                Ok(())
            }
            reason = agent.gave_up() => Err(anyhow::Error::new(reason)),
        };
        notify(&[sd_notify::NotifyState::Stopping]);
        agent.stop().await;
        outcome.context("the agent gave up; its log says why")
    });
    if let Some(telemetry) = telemetry {
        telemetry.shutdown();
    }
    result
}

/// The agent that a configuration describes.
fn agent_config(config: &Config, log_level: LogLevel) -> anyhow::Result<AgentConfig> {
    let data_dir = &config.data_dir;
    let mut agent = AgentConfig::new(data_dir);
    if config.spool.kind == SpoolKind::Memory {
        agent.spool = Place::Memory;
    }
    agent.limits = Limits {
        queue_bytes_max: config.spool.queue_bytes_max,
        retain_bytes: config.spool.retain_bytes,
        entry_bytes_max: config.spool.queue_bytes_max + config.spool.retain_bytes,
    };
    agent.commit_delay = config.commit_delay();
    agent.device_id = config.device_id()?;
    let hostname = agent.board.machine_identity().hostname;
    let request = config.enroll_file.clone().unwrap_or_else(|| data_dir.join(REQUEST_FILE));
    agent.request = Request::load(&request, hostname.as_deref().unwrap_or("device"))?;
    agent.server = config.server()?;
    agent.api_key = config.api_key.clone();
    agent.ca_pem = config.ca_file.as_deref().map(tls::read_ca).transpose()?;
    agent.peers = config.peers.clone();
    agent.sense = config.sense.clone();
    agent.hooks_dir = config.hooks_dir.clone();
    agent.verify_every = config.verify_every();
    agent.signs = Signs { trusted: config.clock.trusted, ..Signs::default() };
    agent.local_api = config.local_api;
    if config.otlp()?.is_some() {
        agent.sampler = Sampler::new(config.trace_sample_ratio);
    }
    agent.metrics_listen = config.metrics_listen;
    agent.log_level = Some(log_level);
    Ok(agent)
}

/// Reads the configuration again whenever SIGHUP comes. What is logged can change while the agent
/// runs, and nothing else: where anything else would, nothing does.
fn listen_for_reloads(
    mut hangup: Signal,
    mut config: Config,
    log: LogLevel,
    again: impl Fn() -> anyhow::Result<Config> + Send + 'static,
) {
    tokio::spawn(async move {
        while hangup.recv().await.is_some() {
            match reload(&config, &log, &again) {
                Ok(new) if new == config => tracing::info!("settings read again; nothing changed"),
                Ok(new) => {
                    let (before, after) = (&config.log.level, &new.log.level);
                    tracing::info!(before, after, "settings read again: the log changed");
                    config = new;
                }
                Err(error) => tracing::error!("settings stay as they are: {error:#}"),
            }
        }
    });
}

fn reload(
    config: &Config,
    log: &LogLevel,
    again: &impl Fn() -> anyhow::Result<Config>,
) -> anyhow::Result<Config> {
    let new = again()?;
    let mut possible = config.clone();
    possible.log.level.clone_from(&new.log.level);
    anyhow::ensure!(possible == new, "all but log.level can only change with a restart");
    // What desired state says of the log stays, where the settings say nothing new.
    if new != *config {
        log.configure(&new.log.level)?;
    }
    Ok(new)
}

/// Ends the process when nothing moves any more, for the service manager to start it again; and
/// shows the service manager that it does, where that wants to know.
fn watch(agent: &Agent) -> std::io::Result<()> {
    let asked = sd_notify::watchdog_enabled();
    let patience = asked.map_or(STALLED_AFTER, |asked| asked.min(STALLED_AFTER));
    agent.watch(
        patience,
        // An agent at rest wakes as rarely as it can.
        patience,
        || notify(&[sd_notify::NotifyState::Watchdog]),
        move || {
            tracing::error!(?patience, "nothing moves any more; the process ends");
            // Whatever is to be waited for now would not come.
            std::process::abort();
        },
    )
}

/// Outside of systemd nobody listens, which is no failure.
fn notify(state: &[sd_notify::NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::debug!(%error, "service manager is not told");
    }
}
