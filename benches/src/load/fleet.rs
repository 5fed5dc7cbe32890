//! A brain with its client processes.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Resource, getrlimit};

use super::brain_metrics::StoreCounts;
use super::measure::{Usage, usage};
use super::order::{Answer, Counts, Enrol, Order, Until, Writing};
use crate::brain::Brain;

/// What a brain needs open beside a socket for each device, its database above all.
const OPEN_FILES_BESIDE: u64 = 1_000;
/// How many devices are connecting at once, where that is not what is measured.
const CONNECT_AT_ONCE: usize = 64;
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
}

/// A brain and its devices.
pub(super) struct Fleet {
    pub(super) brain: Brain,
    pub(super) devices: usize,
    /// The devices' ids, in the order of the clients.
    pub(super) ids: Vec<String>,
    clients: Vec<Client>,
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
        let arguments: &[_] = if plan.tls { &[] } else { &["--plain-text"] };
        let brain = Brain::start_asking(&plan.binary, &plan.folder, &environment, arguments)?;
        brain.wait_ready()?;
        let mut fleet = Self { brain, devices: plan.devices, ids: Vec::new(), clients: Vec::new() };
        fleet.enrol(plan)?;
        Ok(fleet)
    }

    fn enrol(&mut self, plan: &Plan) -> anyhow::Result<()> {
        let token = self.brain.enrolment_token(u32::try_from(plan.devices)?)?;
        let authority = String::from_utf8(self.brain.authority()?)?;
        let clients = plan.devices.div_ceil(plan.devices_per_client);
        for number in 0..clients {
            let devices = plan.devices / clients + usize::from(number < plan.devices % clients);
            let last = u8::try_from(number + 2).context("there are too many clients")?;
            let mut client = Client::start()?;
            client.tell(&Order::Enrol(Enrol {
                brain: self.brain.devices,
                source: IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)),
                authority: plan.tls.then(|| authority.clone()),
                token: token.clone(),
                devices,
                seed: plan.seed.wrapping_add(number as u64),
                payload_bytes: plan.payload_bytes,
                traced_share: plan.traced_share,
            }))?;
            self.clients.push(client);
        }
        for client in &mut self.clients {
            match client.hear()? {
                Answer::Enrolled { ids } => self.ids.extend(ids),
                answer => bail!("a client answers {answer:?}"),
            }
        }
        Ok(())
    }

    /// Tells every client the same, and waits until each has done it.
    pub(super) fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        self.ask(order).map(drop)
    }

    /// Connects all devices, and waits for that.
    pub(super) fn connect(&mut self) -> anyhow::Result<()> {
        self.tell(&Order::Connect { at_once: CONNECT_AT_ONCE })?;
        self.wait(Until::Connected).map(drop)
    }

    /// Drops all connections, and waits for that.
    pub(super) fn disconnect(&mut self) -> anyhow::Result<()> {
        self.tell(&Order::Disconnect)?;
        self.wait(Until::Disconnected).map(drop)
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
        let time_max_ms = TIME_MAX.as_millis() as u64;
        let answers = self.ask(&Order::Await { until, time_max_ms })?;
        let times = answers.into_iter().map(|answer| match answer {
            Answer::Done { at_us } => Ok(at_us),
            answer => bail!("a client answers {answer:?}"),
        });
        Ok(times.collect::<anyhow::Result<Vec<_>>>()?.into_iter().max().unwrap_or_default())
    }

    /// Waits until every device was told a number; when that was, in the order of the ids.
    pub(super) fn told(&mut self, number: i64) -> anyhow::Result<Vec<u64>> {
        let time_max_ms = TIME_MAX.as_millis() as u64;
        let mut times = Vec::with_capacity(self.devices);
        for answer in self.ask(&Order::Await { until: Until::Told(number), time_max_ms })? {
            match answer {
                Answer::Told { at_us } => times.extend(at_us),
                answer => bail!("a client answers {answer:?}"),
            }
        }
        Ok(times)
    }

    /// All counters now.
    pub(super) fn sample(&mut self) -> anyhow::Result<Sample> {
        let store = StoreCounts::read(&self.brain)?;
        let counts = self.ask(&Order::Snapshot)?.into_iter().map(|answer| match answer {
            Answer::Snapshot(counts) => Ok(*counts),
            answer => bail!("a client answers {answer:?}"),
        });
        let counts = counts.collect::<anyhow::Result<_>>()?;
        let at = Instant::now();
        let brain = usage(self.brain_pid()?)?;
        let mut clients = Usage::default();
        for client in &self.clients {
            let used = usage(client.process.id())?;
            clients.cpu += used.cpu;
            clients.written_bytes += used.written_bytes;
        }
        Ok(Sample { at, brain, clients, store, counts })
    }

    /// The brain's process.
    pub(super) fn brain_pid(&self) -> anyhow::Result<u32> {
        Ok(u32::try_from(self.brain.pid()?.as_raw_nonzero().get())?)
    }

    /// The folder of the brain's database.
    pub(super) fn database(&self) -> PathBuf {
        self.brain.data().join("store")
    }

    /// The bytes of the database's files.
    pub(super) fn data_bytes(&self) -> anyhow::Result<u64> {
        let mut total = 0;
        for file in fs::read_dir(self.database())? {
            // RocksDB may have removed it meanwhile.
            total += file?.metadata().map_or(0, |file| file.len());
        }
        Ok(total)
    }

    fn ask(&mut self, order: &Order) -> anyhow::Result<Vec<Answer>> {
        for client in &mut self.clients {
            client.tell(order)?;
        }
        self.clients.iter_mut().map(Client::hear).collect()
    }
}

/// A client process; it ends with its standard input.
struct Client {
    process: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

impl Client {
    fn start() -> anyhow::Result<Self> {
        let mut process = Command::new(std::env::current_exe()?)
            .arg("client")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("a client process does not start")?;
        let orders = process.stdin.take().context("standard input is piped")?;
        let answers = process.stdout.take().context("standard output is piped")?;
        Ok(Self { process, orders, answers: BufReader::new(answers) })
    }

    fn tell(&mut self, order: &Order) -> anyhow::Result<()> {
        let mut line = serde_json::to_vec(order)?;
        line.push(b'\n');
        Ok(self.orders.write_all(&line)?)
    }

    fn hear(&mut self) -> anyhow::Result<Answer> {
        let mut line = String::new();
        if self.answers.read_line(&mut line)? == 0 {
            bail!("a client process ended; what it said is above");
        }
        match serde_json::from_str(&line)? {
            Answer::Failed { error } => bail!(error),
            answer => Ok(answer),
        }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        // It holds nothing that must be kept.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
