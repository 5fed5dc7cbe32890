//! The machine of the model.

use std::time::Duration;

use super::{Capacity, Load, Machine, Traffic, Usage};
use crate::sim::{CORES, World};
use crate::units::{Bytes, LoadAverage, Percent};
use crate::{Missing, Readings};

const MEMORY_BYTES: u64 = 4 << 30;
const DISK_BYTES: u64 = 32 << 30;

/// Four cores, 4 GiB of memory and a 32 GiB card.
pub(crate) struct Simulated {
    world: World,
    previous: Option<Sample>,
}

#[derive(Clone, Copy)]
struct Sample {
    at: Duration,
    busy_seconds: f64,
}

impl Simulated {
    pub(crate) fn new(world: World) -> Simulated {
        Simulated { world, previous: None }
    }
}

impl Machine for Simulated {
    fn read(&mut self, now: Duration) -> Readings<Usage> {
        let moment = self.world.at(now);
        let sample = Sample { at: moment.at, busy_seconds: moment.busy_seconds };
        let cpu_percent = self.previous.and_then(|previous| {
            let passed = sample.at.checked_sub(previous.at)?.as_secs_f64();
            let busy = sample.busy_seconds - previous.busy_seconds;
            (passed > 0.0).then(|| Percent::clamped(busy * 100.0 / passed))
        });
        self.previous = Some(sample);
        let [load1, load5, load15] =
            moment.load_averages.map(|load| LoadAverage::clamped((load * 100.0).round() / 100.0));
        let usage = Usage {
            cpu_percent,
            cores: Some(CORES),
            load: Some(Load { load1, load5, load15 }),
            memory: capacity(MEMORY_BYTES, moment.memory_used),
            disk: capacity(DISK_BYTES, moment.disk_used),
            network: Some(Traffic {
                received: Bytes::new(moment.received_bytes as u64),
                sent: Bytes::new(moment.sent_bytes as u64),
            }),
            uptime: Some(moment.at),
        };
        Readings { values: usage, faults: Vec::new() }
    }

    fn missing(&self) -> Vec<Missing> {
        Vec::new()
    }
}

fn capacity(total: u64, used: f64) -> Option<Capacity> {
    let used = (total as f64 * used.clamp(0.0, 1.0)) as u64;
    let available = Bytes::new(total.saturating_sub(used));
    Capacity::new(Bytes::new(total), available).ok()
}
