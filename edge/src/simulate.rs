//! Many simulated devices in one process.
//!
//! Each is a whole agent: its own key, spool, tree and connection. They share the runtime and its
//! pool of threads for blocking work.

use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

use crate::agent::{Agent, AgentConfig, StartError};
use crate::config::SpoolKind;
use crate::enrolment::{Enrolment, EnrolmentError, Request};
use crate::sense::SenseSettings;
use crate::spool::{self, Place};

/// A simulated device has little of everything, there being many of them.
const SPOOL_OPTIONS: spool::Options = spool::Options { cache_kib: 64, checkpoint_pages: 64 };
const PROGRESS_EVERY: Duration = Duration::from_secs(2);

/// What to simulate.
#[derive(Debug, Clone)]
pub struct Simulation {
    /// How many devices.
    pub count: u32,
    /// The number of the first: each number is a device of its own, also over restarts.
    pub first: u32,
    /// The brain's address.
    pub server: String,
    /// A token for all of them.
    pub token: String,
    /// Where each has a folder of its own.
    pub data_dir: PathBuf,
    /// Over how long their starts are spread.
    pub spread: Duration,
    /// Where each keeps its entries.
    pub spool: SpoolKind,
    /// The sensors' settings.
    pub sense: SenseSettings,
}

/// How far a simulation has come.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Progress {
    /// How many have started.
    pub started: usize,
    /// How many belong to the fleet.
    pub enrolled: usize,
    /// How many have a session.
    pub online: usize,
    /// How many entries wait, of all together.
    pub queue_depth: u64,
    /// How many entries were written, by all together.
    pub entries_written: u64,
}

/// Runs until `stop` turns true. `tell` hears how far it has come, every few seconds.
///
/// # Errors
/// If the token or the address is none, or a device does not start.
pub async fn run(
    simulation: Simulation,
    mut stop: watch::Receiver<bool>,
    mut tell: impl FnMut(Progress),
) -> Result<(), StartError> {
    let mut agents: Vec<Agent> = Vec::new();
    let mut starting = JoinSet::new();
    let mut next = 0;
    let gap = simulation.spread / simulation.count.max(1);
    let began = Instant::now();
    let mut progress = interval(PROGRESS_EVERY);
    progress.set_missed_tick_behavior(MissedTickBehavior::Delay);
    while !*stop.borrow() {
        let due = began + gap * next;
        tokio::select! {
            _ = stop.changed() => {}
            _ = progress.tick() => tell(Progress::of(&agents)),
            () = tokio::time::sleep_until(due), if next < simulation.count => {
                let config = simulation.config(simulation.first + next)?;
                starting.spawn(Agent::start(config));
                next += 1;
            }
            Some(started) = starting.join_next() => agents.push(started??),
        }
    }
    tell(Progress::of(&agents));
    while let Some(started) = starting.join_next().await {
        agents.push(started??);
    }
    stop_all(agents).await;
    Ok(())
}

impl Simulation {
    fn config(&self, number: u32) -> Result<AgentConfig, EnrolmentError> {
        let data_dir = self.data_dir.join(format!("edge-{number:05}"));
        let name = format!("sim-{number:05}");
        let request = Request::new(&self.server, &self.token, &name)?;
        let mut config = AgentConfig::simulated(&data_dir, u64::from(number));
        config.spool = match self.spool {
            SpoolKind::Sqlite => Place::File(spool::path_in(&data_dir), SPOOL_OPTIONS),
            SpoolKind::Memory => Place::Memory,
        };
        config.server = Some(request.server.clone());
        config.request = Some(request);
        config.sense = self.sense.clone();
        Ok(config)
    }
}

impl Progress {
    fn of(agents: &[Agent]) -> Self {
        let mut progress = Self { started: agents.len(), ..Self::default() };
        for status in agents.iter().map(Agent::status) {
            progress.enrolled += usize::from(status.enrolled);
            progress.online += usize::from(status.online);
            progress.queue_depth += status.queue_depth;
            progress.entries_written += status.entries_written;
        }
        progress
    }
}

/// How many devices of a folder are enrolled: what a second run starts from.
pub fn enrolled_in(data_dir: &std::path::Path) -> usize {
    let folders = std::fs::read_dir(data_dir).into_iter().flatten().flatten();
    folders.filter(|folder| matches!(Enrolment::load(&folder.path()), Ok(Some(_)))).count()
}

async fn stop_all(agents: Vec<Agent>) {
    /// Each stop writes and waits for the disk.
    const AT_ONCE: usize = 64;
    let mut stopping = JoinSet::new();
    for agent in agents {
        while stopping.len() >= AT_ONCE {
            stopping.join_next().await;
        }
        stopping.spawn(agent.stop());
    }
    while stopping.join_next().await.is_some() {
        // Leaves time to those that are being stopped.
        sleep(Duration::ZERO).await;
    }
}
