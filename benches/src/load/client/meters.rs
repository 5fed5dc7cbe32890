//! What the devices of a client count. One thread serves them all.

use std::cell::{Cell, RefCell};
use std::sync::Arc;

use hdrhistogram::Histogram;

use crate::link::WireBytes;
use crate::load::order::{Counts, clock_us};

/// The longest time that histograms tell apart, in microseconds: ten minutes.
const TIME_US_MAX: u64 = 600_000_000;

/// Counters and states of all devices together.
pub(super) struct Meters {
    /// Devices that are connected now.
    pub(super) connected: Cell<usize>,
    /// Updates that wait for acknowledgement now.
    pub(super) pending: Cell<u64>,
    /// Updates that devices were told to write and have yet to.
    pub(super) to_write: Cell<u64>,
    pub(super) wire: Arc<WireBytes>,
    stored: Cell<u64>,
    lost: Cell<u64>,
    last_error: RefCell<Option<String>>,
    latency: RefCell<Histogram<u64>>,
    connect: RefCell<Histogram<u64>>,
    frames: [Cell<u64>; 4],
    /// What operators told each device last, and when.
    told: RefCell<Vec<(i64, u64)>>,
    /// When any of the states above changed last.
    changed_us: Cell<u64>,
    last: RefCell<Totals>,
}

/// The counters that only grow, as of the last snapshot.
#[derive(Debug, Clone, Copy, Default)]
struct Totals {
    stored: u64,
    lost: u64,
    frames: [u64; 4],
    wire: [u64; 2],
}

impl Meters {
    pub(super) fn new(devices: usize) -> anyhow::Result<Self> {
        Ok(Self {
            connected: Cell::new(0),
            pending: Cell::new(0),
            to_write: Cell::new(0),
            wire: Arc::default(),
            stored: Cell::new(0),
            lost: Cell::new(0),
            last_error: RefCell::default(),
            latency: RefCell::new(Histogram::new_with_max(TIME_US_MAX, 3)?),
            connect: RefCell::new(Histogram::new_with_max(TIME_US_MAX, 3)?),
            frames: Default::default(),
            told: RefCell::new(vec![(0, 0); devices]),
            changed_us: Cell::new(0),
            last: RefCell::default(),
        })
    }

    /// A device is connected, after so many microseconds.
    pub(super) fn connected(&self, took_us: u64) {
        self.connected.set(self.connected.get() + 1);
        self.connect.borrow_mut().saturating_record(took_us);
        self.changed_us.set(clock_us());
    }

    /// A device is no longer connected.
    pub(super) fn disconnected(&self) {
        self.connected.set(self.connected.get() - 1);
        self.changed_us.set(clock_us());
    }

    /// A connection ended by itself, or was not made.
    pub(super) fn lost(&self, error: String) {
        self.lost.set(self.lost.get() + 1);
        *self.last_error.borrow_mut() = Some(error);
    }

    pub(super) fn written(&self) {
        self.pending.set(self.pending.get() + 1);
    }

    /// An update is acknowledged, so many microseconds after it was due.
    pub(super) fn stored(&self, took_us: u64) {
        self.stored.set(self.stored.get() + 1);
        self.pending.set(self.pending.get() - 1);
        self.latency.borrow_mut().saturating_record(took_us);
        if self.pending.get() == 0 {
            self.changed_us.set(clock_us());
        }
    }

    pub(super) fn frame_sent(&self, bytes: usize) {
        add(&self.frames[0], 1);
        add(&self.frames[1], bytes as u64);
    }

    pub(super) fn frame_received(&self, bytes: usize) {
        add(&self.frames[2], 1);
        add(&self.frames[3], bytes as u64);
    }

    /// An operator told a device a number.
    pub(super) fn told(&self, device: usize, number: i64) {
        self.told.borrow_mut()[device] = (number, clock_us());
    }

    /// When each device was told this number, once all were.
    pub(super) fn all_told(&self, number: i64) -> Option<Vec<u64>> {
        let told = self.told.borrow();
        told.iter().map(|(last, at_us)| (*last == number).then_some(*at_us)).collect()
    }

    pub(super) fn changed_us(&self) -> u64 {
        self.changed_us.get()
    }

    /// What was counted since the last call.
    pub(super) fn snapshot(&self) -> Counts {
        let now = Totals {
            stored: self.stored.get(),
            lost: self.lost.get(),
            frames: [0, 1, 2, 3].map(|n| self.frames[n].get()),
            wire: [self.wire.sent(), self.wire.received()],
        };
        let last = self.last.replace(now);
        let frames = [0, 1, 2, 3].map(|n| now.frames[n] - last.frames[n]);
        Counts {
            at_us: clock_us(),
            stored: now.stored - last.stored,
            pending: self.pending.get(),
            lost: now.lost - last.lost,
            last_error: self.last_error.take(),
            latency_us: drain(&self.latency),
            connect_us: drain(&self.connect),
            wire_sent: now.wire[0] - last.wire[0],
            wire_received: now.wire[1] - last.wire[1],
            frames_sent: frames[0],
            frame_bytes_sent: frames[1],
            frames_received: frames[2],
            frame_bytes_received: frames[3],
        }
    }
}

fn add(counter: &Cell<u64>, more: u64) {
    counter.set(counter.get() + more);
}

fn drain(histogram: &RefCell<Histogram<u64>>) -> Vec<(u64, u64)> {
    let mut histogram = histogram.borrow_mut();
    let values = histogram.iter_recorded();
    let values = values.map(|step| (step.value_iterated_to(), step.count_at_value())).collect();
    histogram.reset();
    values
}
