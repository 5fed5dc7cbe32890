//! Devices in client processes.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, bail};

use super::fleet::{Plan, TIME_MAX};
use super::measure::{Usage, usage};
use super::order::{Answer, Counts, Enrol, Order, Until};
use crate::brain::Brain;

/// How many devices are connecting at once, where that is not what is measured.
const CONNECT_AT_ONCE: usize = 64;

/// Devices of one brain.
pub(super) struct Crowd {
    /// The devices' ids, in the order of the clients.
    pub(super) ids: Vec<String>,
    clients: Vec<Client>,
}

impl Crowd {
    /// Enrols devices; `before` are the client processes that the brain has already.
    pub(super) fn enrol(brain: &Brain, plan: &Plan, before: usize) -> anyhow::Result<Self> {
        let mut crowd = Self { ids: Vec::new(), clients: Vec::new() };
        let token = brain.enrolment_token(u32::try_from(plan.devices)?)?;
        let authority = String::from_utf8(brain.authority()?)?;
        let clients = plan.devices.div_ceil(plan.devices_per_client);
        for number in 0..clients {
            let devices = plan.devices / clients + usize::from(number < plan.devices % clients);
            let last = u8::try_from(before + number + 2).context("there are too many clients")?;
            let mut client = Client::start()?;
            client.tell(&Order::Enrol(Enrol {
                brain: brain.devices,
                source: IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)),
                authority: plan.tls.then(|| authority.clone()),
                token: token.clone(),
                devices,
                seed: plan.seed.wrapping_add((before + number) as u64),
                payload_bytes: plan.payload_bytes,
                traced_share: plan.traced_share,
            }))?;
            crowd.clients.push(client);
        }
        for client in &mut crowd.clients {
            match client.hear()? {
                Answer::Enrolled { ids } => crowd.ids.extend(ids),
                answer => bail!("a client answers {answer:?}"),
            }
        }
        Ok(crowd)
    }

    /// How many processes there are.
    pub(super) fn clients(&self) -> usize {
        self.clients.len()
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
        let mut times = Vec::with_capacity(self.ids.len());
        for answer in self.ask(&Order::Await { until: Until::Told(number), time_max_ms })? {
            match answer {
                Answer::Told { at_us } => times.extend(at_us),
                answer => bail!("a client answers {answer:?}"),
            }
        }
        Ok(times)
    }

    /// What each client counted since the last time.
    pub(super) fn counts(&mut self) -> anyhow::Result<Vec<Counts>> {
        let counts = self.ask(&Order::Snapshot)?.into_iter().map(|answer| match answer {
            Answer::Snapshot(counts) => Ok(*counts),
            answer => bail!("a client answers {answer:?}"),
        });
        counts.collect()
    }

    /// What the client processes have used.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        let mut clients = Usage::default();
        for client in &self.clients {
            let used = usage(client.process.id())?;
            clients.cpu += used.cpu;
            clients.written_bytes += used.written_bytes;
        }
        Ok(clients)
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
