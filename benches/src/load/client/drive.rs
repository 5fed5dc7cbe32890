//! One device, doing as its client is told.

use std::rc::Rc;
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::SmallRng;
use tokio::sync::{Semaphore, watch};
use tokio::time::sleep_until;

use super::device::LeanDevice;
use super::meters::Meters;
use crate::load::order::{Writing, clock_us};

/// How long a device waits after a connection that was not made, at least and at most.
const AGAIN_MS: std::ops::Range<u64> = 50..200;

/// What all devices are to do.
#[derive(Clone)]
pub(super) struct Plan {
    /// Whether to be connected, and with how many others at once to become so.
    pub(super) online: Option<Rc<Semaphore>>,
    /// What to write; its number tells one order from the next.
    pub(super) writing: Option<(u64, Writing)>,
}

/// How far a device is with what it is to write.
struct Progress {
    writing: Writing,
    left: u64,
    /// With a rate: when the next update is due.
    due: Instant,
}

impl Progress {
    /// Devices with a rate begin at random moments of their interval, not in step.
    fn start(writing: Writing, random: &mut SmallRng) -> Self {
        let phase = if writing.rate > 0.0 { random.random::<f64>() / writing.rate } else { 0.0 };
        let due = Instant::now() + Duration::from_secs_f64(phase);
        Self { writing, left: writing.updates.unwrap_or(u64::MAX), due }
    }

    /// Writes what is due and fits the window, and says whether that was anything.
    ///
    /// An update that is due and finds the window full is late from the moment it was due.
    fn write(&mut self, device: &mut LeanDevice, meters: &Meters) -> bool {
        let now = Instant::now();
        let mut wrote = false;
        while self.left > 0 && device.pending() < self.writing.in_flight {
            let due = if self.writing.rate > 0.0 { self.due } else { now };
            if due > now {
                break;
            }
            device.write(due);
            wrote = true;
            self.left -= 1;
            if self.writing.updates.is_some() {
                meters.to_write.set(meters.to_write.get().saturating_sub(1));
            }
            if self.writing.rate > 0.0 {
                self.due += Duration::from_secs_f64(1.0 / self.writing.rate);
            }
        }
        wrote
    }

    /// When the next update is due; none where an acknowledgement has to come before that.
    fn next(&self, device: &LeanDevice) -> Option<Instant> {
        (self.left > 0 && device.pending() < self.writing.in_flight).then_some(self.due)
    }
}

/// Does as the plan says until the client is gone.
pub(super) async fn drive(
    mut device: LeanDevice,
    mut plans: watch::Receiver<Plan>,
    meters: Rc<Meters>,
    mut random: SmallRng,
) {
    let mut progress = None;
    let mut order = 0;
    while plans.has_changed().is_ok() {
        let plan = plans.borrow_and_update().clone();
        match plan.writing {
            Some((number, writing)) if number > order => {
                order = number;
                progress = Some(Progress::start(writing, &mut random));
            }
            Some(_) => {}
            None => progress = None,
        }
        match &plan.online {
            None if device.is_connected() => {
                device.disconnect();
                meters.disconnected();
            }
            Some(turns) if !device.is_connected() => {
                if let Err(error) = connect(&mut device, turns, &meters).await {
                    meters.lost(format!("{error:#}"));
                    let pause = Duration::from_millis(random.random_range(AGAIN_MS));
                    tokio::time::sleep(pause).await;
                    continue;
                }
            }
            _ => {}
        }
        let online = device.is_connected();
        let served = serve(&mut device, &mut progress, &mut plans, &meters).await;
        if let Err(error) = &served {
            meters.lost(format!("{error:#}"));
            device.disconnect();
        }
        if online && !device.is_connected() {
            if served.is_ok() {
                meters.lost("the brain closed the connection".to_owned());
            }
            meters.disconnected();
        }
    }
}

async fn connect(
    device: &mut LeanDevice,
    turns: &Semaphore,
    meters: &Meters,
) -> anyhow::Result<()> {
    let _turn = turns.acquire().await?;
    let began = clock_us();
    device.connect().await?;
    meters.connected(clock_us() - began);
    Ok(())
}

/// Writes, sends and receives until there is a new plan or the connection ends.
async fn serve(
    device: &mut LeanDevice,
    progress: &mut Option<Progress>,
    plans: &mut watch::Receiver<Plan>,
    meters: &Meters,
) -> anyhow::Result<()> {
    let online = device.is_connected();
    let far = Instant::now() + Duration::from_secs(86_400);
    let timer = sleep_until(far.into());
    tokio::pin!(timer);
    // What was written while there was no connection is offered by the handshake.
    while device.is_connected() == online {
        let mut next = device.next_tick();
        if let Some(progress) = progress {
            if progress.write(device, meters) {
                device.offer().await?;
            }
            next = [next, progress.next(device)].into_iter().flatten().min();
        }
        let wake = next.unwrap_or(far);
        if timer.deadline().into_std() != wake {
            timer.as_mut().reset(wake.into());
        }
        tokio::select! {
            biased;
            frame = device.next_frame(), if online => {
                let frame = frame?;
                device.take(frame).await?;
            }
            _ = plans.changed() => return Ok(()),
            () = &mut timer => {
                if device.next_tick().is_some_and(|at| at <= Instant::now()) {
                    device.tick().await?;
                }
            }
        }
    }
    Ok(())
}
