//! Every instrument of the agent, in one place.
//!
//! Names and units follow the OpenTelemetry conventions; `/metrics` shows them as Prometheus
//! spells them. Parts of the agent count in plain atomics, which are read when somebody looks:
//! an agent that nobody asks pays an addition. `ops/guides/metrics.md` says what each means.

mod instruments;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use protocol::wire;
use telemetry::Meters;

use crate::track::QueueAccount;

/// What is counted since the start. The parts of an agent share it through all their restarts.
#[derive(Debug, Default)]
pub struct Metrics {
    pub(crate) frames_received: AtomicU64,
    pub(crate) frames_sent: AtomicU64,
    pub(crate) bytes_received: AtomicU64,
    pub(crate) bytes_sent: AtomicU64,
    pub(crate) bytes_sent_plain: AtomicU64,
    pub(crate) sessions_welcomed: AtomicU64,
    pub(crate) sessions_failed: AtomicU64,
    pub(crate) failures_in_a_row: AtomicU64,
    pub(crate) online: AtomicBool,
    pub(crate) spool_commits: AtomicU64,
    pub(crate) spool_failures: AtomicU64,
    pub(crate) spool_micros: AtomicU64,
    spool_fails: AtomicBool,
    sync: Mutex<Sync>,
    queue: Mutex<Queue>,
    sensors: Mutex<BTreeMap<&'static str, Sensors>>,
    spool_file: OnceLock<PathBuf>,
    meters: OnceLock<Meters>,
}

/// The last time that all that waited was brought to the brain.
#[derive(Debug, Default)]
struct Sync {
    began: Option<Instant>,
    took: Option<Duration>,
}

/// What waits.
#[derive(Debug, Clone, Default)]
pub(crate) struct Queue {
    pub(crate) account: QueueAccount,
    pub(crate) bytes: u64,
    /// When the oldest entry was written, in seconds since the Unix epoch.
    pub(crate) oldest_s: Option<u64>,
    pub(crate) is_full: bool,
}

/// How often sensors of a group were read.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Sensors {
    pub(crate) reads: u64,
    pub(crate) faults: u64,
}

impl Metrics {
    /// From now on the figures are shown and pushed by `meters`.
    pub fn observe(self: &Arc<Self>, meters: &Meters) {
        instruments::observe(self, meters);
        // The first stays: there is one agent that is asked in a process.
        let _ = self.meters.set(meters.clone());
    }

    /// The figures in Prometheus' text format; none before [`observe`](Self::observe).
    pub fn scrape(&self) -> Option<String> {
        self.meters.get().map(Meters::scrape)
    }

    /// The spool is this file.
    pub fn spool_is(&self, file: PathBuf) {
        // The place is settled when the agent starts.
        let _ = self.spool_file.set(file);
    }

    /// A frame came.
    pub fn frame_received(&self, frame: &[u8]) {
        self.frames_received.fetch_add(1, Ordering::Relaxed);
        self.bytes_received.fetch_add(frame.len() as u64, Ordering::Relaxed);
    }

    /// A frame is to be sent.
    pub fn frame_sent(&self, frame: &[u8]) {
        self.frames_sent.fetch_add(1, Ordering::Relaxed);
        self.bytes_sent.fetch_add(frame.len() as u64, Ordering::Relaxed);
        self.bytes_sent_plain.fetch_add(wire::plain_bytes(frame) as u64, Ordering::Relaxed);
    }

    /// The brain welcomed this device: what waits is brought to it now.
    pub fn session_welcomed(&self) {
        self.sessions_welcomed.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.store(0, Ordering::Relaxed);
        self.online.store(true, Ordering::Relaxed);
        self.sync().began = Some(Instant::now());
    }

    /// A session is over.
    pub fn session_over(&self) {
        self.online.store(false, Ordering::Relaxed);
        self.sync().began = None;
    }

    /// A session did not come about.
    pub fn session_failed(&self) {
        self.sessions_failed.fetch_add(1, Ordering::Relaxed);
        self.failures_in_a_row.fetch_add(1, Ordering::Relaxed);
    }

    /// How long the last complete synchronisation took.
    pub fn last_sync(&self) -> Option<Duration> {
        self.sync().took
    }

    /// A commit of the spool ended.
    pub fn spool_committed(&self, took: Duration, durable: bool) {
        let counter = if durable { &self.spool_commits } else { &self.spool_failures };
        counter.fetch_add(1, Ordering::Relaxed);
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.spool_micros.fetch_add(micros, Ordering::Relaxed);
        self.spool_fails.store(!durable, Ordering::Relaxed);
    }

    /// Whether the last commit of the spool failed.
    pub fn spool_fails(&self) -> bool {
        self.spool_fails.load(Ordering::Relaxed)
    }

    /// What waits has changed.
    pub(crate) fn queue_is(&self, queue: Queue) {
        if queue.account.queued == 0 {
            let mut sync = self.sync();
            if let Some(began) = sync.began.take() {
                sync.took = Some(began.elapsed());
            }
        }
        *self.queue.lock().unwrap_or_else(PoisonError::into_inner) = queue;
    }

    /// What became of the entries that this device wrote.
    pub fn account(&self) -> QueueAccount {
        self.queue().account
    }

    /// Whether as much waits as may.
    pub fn queue_is_full(&self) -> bool {
        self.queue().is_full
    }

    /// Sensors of a group were read, and so many of them are faulty.
    pub fn sensors_read(&self, group: &'static str, faults: usize) {
        let mut sensors = self.sensors.lock().unwrap_or_else(PoisonError::into_inner);
        let group = sensors.entry(group).or_default();
        group.reads += 1;
        group.faults += faults as u64;
    }

    pub(crate) fn queue(&self) -> Queue {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn sensors(&self) -> BTreeMap<&'static str, Sensors> {
        self.sensors.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The bytes of the spool's file and of its log.
    pub(crate) fn spool_bytes(&self) -> Option<u64> {
        let file = self.spool_file.get()?;
        let mut log = file.as_os_str().to_owned();
        log.push("-wal");
        let bytes = std::fs::metadata(file).ok()?.len();
        Some(bytes + std::fs::metadata(PathBuf::from(log)).map_or(0, |log| log.len()))
    }

    fn sync(&self) -> std::sync::MutexGuard<'_, Sync> {
        self.sync.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
