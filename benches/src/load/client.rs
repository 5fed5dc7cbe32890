//! A client process: as many devices as its sockets allow, on one thread.
//!
//! Its memory, CPU time and sockets are its own, so that those of the brain show alone.

mod device;
mod drive;
mod meters;

use std::io::Write;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use futures_util::{StreamExt, TryStreamExt, stream};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::LocalSet;

use super::order::{Answer, Enrol, Order, Until, Writing, clock_us};
use super::signal::Signal;
use crate::device::{ENROL_PATH, Membership};
use crate::link::{RawLink, Target, tls_config};
use device::LeanDevice;
use drive::{Plan, drive};
use meters::Meters;

/// How many devices enrol at once.
const ENROL_AT_ONCE: usize = 64;
/// How often a condition is looked at. When it came true is noted by itself.
const LOOK_EVERY: Duration = Duration::from_millis(2);

/// Serves orders from standard input until its end.
pub(super) fn run() -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    LocalSet::new().block_on(&runtime, async {
        let (lines, mut orders) = mpsc::channel(1);
        std::thread::spawn(move || {
            for line in std::io::stdin().lines().map_while(Result::ok) {
                if lines.blocking_send(line).is_err() {
                    return;
                }
            }
        });
        let Some(Order::Enrol(enrol)) = next(&mut orders).await? else {
            bail!("devices must be enrolled first");
        };
        let mut client = match Client::start(enrol).await {
            Ok((client, ids)) => {
                say(&Answer::Enrolled { ids })?;
                client
            }
            Err(error) => return say(&Answer::Failed { error: format!("{error:#}") }),
        };
        while let Some(order) = next(&mut orders).await? {
            let answer = client.obey(order).await;
            say(&answer.unwrap_or_else(|error| Answer::Failed { error: format!("{error:#}") }))?;
        }
        Ok(())
    })
}

async fn next(orders: &mut mpsc::Receiver<String>) -> anyhow::Result<Option<Order>> {
    let line = orders.recv().await;
    Ok(line.map(|line| serde_json::from_str(&line)).transpose()?)
}

fn say(answer: &Answer) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, answer)?;
    out.write_all(b"\n")?;
    Ok(out.flush()?)
}

/// The devices of this process.
struct Client {
    devices: usize,
    meters: Rc<Meters>,
    plans: watch::Sender<Plan>,
    orders: u64,
}

impl Client {
    async fn start(enrol: Enrol) -> anyhow::Result<(Self, Vec<String>)> {
        let tls = enrol.authority.as_deref().map(|pem| tls_config(pem.as_bytes())).transpose()?;
        let meters = Rc::new(Meters::new(enrol.devices)?);
        let target = Target {
            brain: enrol.brain,
            source: Some(SocketAddr::new(enrol.source, 0)),
            tls,
            bytes: meters.wire.clone(),
        };
        let memberships: Vec<_> = stream::iter(0..enrol.devices)
            .map(|_| membership(&target, &enrol.token))
            .buffered(ENROL_AT_ONCE)
            .try_collect()
            .await
            .context("a device cannot enrol")?;
        let ids = memberships.iter().map(|member| member.device.to_string()).collect();
        let (plans, plan) = watch::channel(Plan { online: None, writing: None });
        let mut random = SmallRng::seed_from_u64(enrol.seed);
        for (number, membership) in memberships.into_iter().enumerate() {
            let signal = Signal::new(random.random(), enrol.payload_bytes)?;
            let (target, meters) = (target.clone(), meters.clone());
            let mut device = LeanDevice::new(number, membership, target, meters.clone(), signal)?;
            device.trace(enrol.traced_share, SmallRng::seed_from_u64(random.random()));
            let random = SmallRng::seed_from_u64(random.random());
            tokio::task::spawn_local(drive(device, plan.clone(), meters, random));
        }
        // What enrolment took is not the devices' traffic.
        meters.snapshot();
        Ok((Self { devices: enrol.devices, meters, plans, orders: 0 }, ids))
    }

    async fn obey(&mut self, order: Order) -> anyhow::Result<Answer> {
        match order {
            Order::Enrol(_) => bail!("the devices are enrolled already"),
            Order::Connect { at_once } => {
                let turns = Rc::new(Semaphore::new(at_once));
                self.plans.send_modify(|plan| plan.online = Some(turns));
            }
            Order::Disconnect => self.plans.send_modify(|plan| plan.online = None),
            Order::Write(writing) => self.write(writing),
            Order::Rest => {
                self.meters.to_write.set(0);
                self.plans.send_modify(|plan| plan.writing = None);
            }
            Order::Await { until, time_max_ms } => {
                return self.wait(until, Duration::from_millis(time_max_ms)).await;
            }
            Order::Snapshot => return Ok(Answer::Snapshot(Box::new(self.meters.snapshot()))),
        }
        Ok(Answer::Done { at_us: clock_us() })
    }

    fn write(&mut self, writing: Writing) {
        self.orders += 1;
        self.meters.to_write.set(writing.updates.unwrap_or(0) * self.devices as u64);
        self.plans.send_modify(|plan| plan.writing = Some((self.orders, writing)));
    }

    async fn wait(&self, until: Until, time_max: Duration) -> anyhow::Result<Answer> {
        let began = Instant::now();
        loop {
            if let Until::Told(number) = until {
                if let Some(at_us) = self.meters.all_told(number) {
                    return Ok(Answer::Told { at_us });
                }
            } else if self.is(until) {
                return Ok(Answer::Done { at_us: self.meters.changed_us() });
            }
            if began.elapsed() > time_max {
                let counts = self.meters.snapshot();
                bail!(
                    "not {until:?} after {time_max:?}: {} of {} devices are connected, {} updates \
                     wait, {} connections were lost, the last error was: {}",
                    self.meters.connected.get(),
                    self.devices,
                    counts.pending,
                    counts.lost,
                    counts.last_error.as_deref().unwrap_or("none"),
                );
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
    }

    fn is(&self, until: Until) -> bool {
        let meters = &self.meters;
        match until {
            Until::Connected => meters.connected.get() == self.devices,
            Until::Disconnected => meters.connected.get() == 0,
            Until::Stored => meters.to_write.get() == 0 && meters.pending.get() == 0,
            Until::Told(_) => false,
        }
    }
}

async fn membership(target: &Target, token: &str) -> anyhow::Result<Membership> {
    let link = RawLink::open_to(target, ENROL_PATH, None).await?;
    Membership::enrol_over(link, token, crate::device::random()).await
}
