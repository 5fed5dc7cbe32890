//! A brain with its client processes.

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Resource, getrlimit};

use super::brain_metrics::StoreCounts;
use super::crowd::Crowd;
use super::database::bytes_in;
use super::measure::{Usage, usage};
use super::order::{Counts, Order, Until, Writing};
use crate::brain::Brain;

/// What a brain needs open beside a socket for each device, its database above all.
const OPEN_FILES_BESIDE: u64 = 1_000;
/// How long the devices may take to get where they were told to.
pub(super) const TIME_MAX: Duration = Duration::from_secs(300);

/// What a fleet is made of.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    /// The lab brain.
    pub(super) binary: PathBuf,
    /// Where the brain's data goes.
    pub(super) folder: PathBuf,
    pub(super) devices: usize,
    pub(super) devices_per_client: usize,
    pub(super) tls: bool,
    pub(super) seed: u64,
    pub(super) payload_bytes: Option<usize>,
    /// Where the brain sends its spans.
    pub(super) otlp_endpoint: Option<SocketAddr>,
    /// The share of updates that devices trace.
    pub(super) traced_share: f64,
    /// Settings of the brain, in TOML.
    pub(super) settings: String,
}

/// A brain and its devices.
pub(super) struct Fleet {
    pub(super) brain: Brain,
    pub(super) devices: usize,
    /// The devices' ids, in the order of the clients.
    pub(super) ids: Vec<String>,
    crowd: Crowd,
}

/// All counters at one moment.
pub(super) struct Sample {
    at: Instant,
    pub(super) brain: Usage,
    pub(super) clients: Usage,
    pub(super) store: StoreCounts,
    /// What each client counted since the sample before.
    pub(super) counts: Vec<Counts>,
}

impl Sample {
    /// The counters of a brain and of some of its devices now.
    pub(super) fn of(brain: &Brain, crowd: &mut Crowd) -> anyhow::Result<Self> {
        let store = StoreCounts::read(brain)?;
        let counts = crowd.counts()?;
        let at = Instant::now();
        let clients = crowd.usage()?;
        Ok(Self { at, brain: usage(process(brain)?)?, clients, store, counts })
    }

    /// The time since an earlier sample.
    pub(super) fn since(&self, before: &Self) -> Duration {
        self.at - before.at
    }
}

impl Fleet {
    /// Starts a brain in an empty folder, and enrols the devices.
    pub(super) fn start(plan: &Plan) -> anyhow::Result<Self> {
        let files = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
        if plan.devices as u64 > files.saturating_sub(OPEN_FILES_BESIDE) {
            bail!(
                "a process may hold {files} files here, too few for {} devices: raise the hard \
                 limit (`ulimit -Hn`) or give fewer --devices",
                plan.devices
            );
        }
        fs::create_dir_all(&plan.folder)?;
        // What is measured is what the brain can take, not what it lets in by default.
        let mut environment = vec![("FLEET_BRAIN_CONNECTIONS_PER_SECOND", "1000000")];
        let endpoint = plan.otlp_endpoint.map(|address| format!("http://{address}"));
        environment.extend(endpoint.as_deref().map(|to| ("FLEET_BRAIN_OTLP_ENDPOINT", to)));
        let settings = plan.folder.join("brain.toml");
        fs::write(&settings, &plan.settings)?;
        environment.push(("FLEET_BRAIN_CONFIG", settings.to_str().context("a path in UTF-8")?));
        let arguments: &[_] = if plan.tls { &[] } else { &["--plain-text"] };
        let brain = Brain::start_asking(&plan.binary, &plan.folder, &environment, arguments)?;
        brain.wait_ready()?;
        let crowd = Crowd::enrol(&brain, plan, 0)?;
        Ok(Self { brain, devices: plan.devices, ids: crowd.ids.clone(), crowd })
    }

    /// More devices of the same brain, in client processes of their own.
    pub(super) fn others(&self, plan: &Plan) -> anyhow::Result<Crowd> {
        Crowd::enrol(&self.brain, plan, self.crowd.clients())
    }

    /// Tells every client the same, and waits until each has done it.
    pub(super) fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        self.crowd.tell(order)
    }

    /// Connects all devices, and waits for that.
    pub(super) fn connect(&mut self) -> anyhow::Result<()> {
        self.crowd.connect()
    }

    /// Drops all connections, and waits for that.
    pub(super) fn disconnect(&mut self) -> anyhow::Result<()> {
        self.crowd.disconnect()
    }

    /// Lets every device write so many updates, one after the other.
    pub(super) fn write(&mut self, updates: u64) -> anyhow::Result<()> {
        self.tell(&Order::Write(Writing { in_flight: 1, rate: 0.0, updates: Some(updates) }))
    }

    /// Stops the brain in good order and starts it again.
    pub(super) fn restart(&mut self) -> anyhow::Result<()> {
        self.brain.stop()?;
        self.brain.restart()?;
        self.brain.wait_ready()
    }

    /// Waits for all devices; the moment when the last was there.
    pub(super) fn wait(&mut self, until: Until) -> anyhow::Result<u64> {
        self.crowd.wait(until)
    }

    /// Waits until every device was told a number; when that was, in the order of the ids.
    pub(super) fn told(&mut self, number: i64) -> anyhow::Result<Vec<u64>> {
        self.crowd.told(number)
    }

    /// All counters now.
    pub(super) fn sample(&mut self) -> anyhow::Result<Sample> {
        Sample::of(&self.brain, &mut self.crowd)
    }

    /// The brain's process.
    pub(super) fn brain_pid(&self) -> anyhow::Result<u32> {
        process(&self.brain)
    }

    /// The folder of the brain's database.
    pub(super) fn database(&self) -> PathBuf {
        self.brain.data().join("store")
    }

    /// The bytes of the database's files.
    pub(super) fn data_bytes(&self) -> anyhow::Result<u64> {
        bytes_in(&self.database())
    }
}

/// The number of a brain's process.
pub(super) fn process(brain: &Brain) -> anyhow::Result<u32> {
    Ok(u32::try_from(brain.pid()?.as_raw_nonzero().get())?)
}
