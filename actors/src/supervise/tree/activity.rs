//! What a node is doing, in a few atomics.

use std::{
    sync::{
        PoisonError, RwLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use super::NodeCell;

/// The upper bits of the packed word name the label, the lower the microsecond:
/// nine years of them, and 65 thousand labels.
const TIME_BITS: u32 = 48;

/// What a node is doing since when, and what it has spent so far.
///
/// Only the node writes, so these are plain stores. The packed word changes
/// with every message: that it stays the same for long means no progress.
#[derive(Default)]
pub(crate) struct Activity {
    current: AtomicU64,
    /// When a message from somebody else came to its turn last.
    used_micros: AtomicU64,
    busy_nanos: AtomicU64,
    slowest_nanos: AtomicU64,
    /// It waits for others.
    excused: AtomicBool,
    labels: RwLock<Vec<&'static str>>,
}

impl Activity {
    /// A handler begins.
    pub(crate) fn begin(&self, label: u16, since: Duration, idle: bool) {
        if !idle {
            self.used_micros.store(since.as_micros() as u64, Relaxed);
        }
        let micros = since.as_micros() as u64 & ((1 << TIME_BITS) - 1);
        let label = u64::from(label) + 1;
        self.current.store(label << TIME_BITS | micros, Relaxed);
    }

    /// The handler still runs, and gets on.
    pub(crate) fn renew(&self, now: Duration) {
        if let Some(label) = (self.current.load(Relaxed) >> TIME_BITS).checked_sub(1) {
            self.begin(label as u16, now, true);
        }
    }

    /// The handler has come to its end.
    pub(crate) fn end(&self, took: Duration) {
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        let busy = self.busy_nanos.load(Relaxed);
        self.busy_nanos.store(busy.saturating_add(nanos), Relaxed);
        if nanos > self.slowest_nanos.load(Relaxed) {
            self.slowest_nanos.store(nanos, Relaxed);
        }
        self.current.store(0, Relaxed);
    }

    /// It waits for others, or does so no more.
    pub(crate) fn excuse(&self, waits: bool) {
        self.excused.store(waits, Relaxed);
    }

    pub(crate) fn is_excused(&self) -> bool {
        self.excused.load(Relaxed)
    }

    /// A new life does nothing yet.
    pub(crate) fn clear(&self) {
        self.excused.store(false, Relaxed);
        self.current.store(0, Relaxed);
    }

    /// The handler that runs, and since when.
    pub(crate) fn current(&self) -> Option<(&'static str, Duration)> {
        let current = self.current.load(Relaxed);
        let index = (current >> TIME_BITS).checked_sub(1)?;
        let labels = self.labels.read().unwrap_or_else(PoisonError::into_inner);
        let label = labels.get(usize::try_from(index).ok()?)?;
        let micros = current & ((1 << TIME_BITS) - 1);
        Some((label, Duration::from_micros(micros)))
    }

    pub(crate) fn last_used(&self) -> Duration {
        Duration::from_micros(self.used_micros.load(Relaxed))
    }

    pub(crate) fn busy(&self) -> Duration {
        Duration::from_nanos(self.busy_nanos.load(Relaxed))
    }

    pub(crate) fn slowest(&self) -> Duration {
        Duration::from_nanos(self.slowest_nanos.load(Relaxed))
    }

    fn intern(&self, label: &'static str) -> u16 {
        let mut labels = self.labels.write().unwrap_or_else(PoisonError::into_inner);
        let known = labels.iter().position(|known| *known == label);
        let index = known.unwrap_or_else(|| {
            labels.push(label);
            labels.len() - 1
        });
        // Whoever has more labels than this sees wrong ones, and no worse.
        u16::try_from(index).unwrap_or(u16::MAX - 1)
    }
}

/// A guard's own memory of the labels it has used, to leave the lock alone.
#[derive(Default)]
pub(crate) struct Labels(Vec<(&'static str, u16)>);

impl Labels {
    pub(crate) fn index(&mut self, label: &'static str, cell: &NodeCell) -> u16 {
        // The same constant nearly always has the same address; if not, it is
        // only looked up once more.
        let known = self.0.iter().find(|(known, _)| std::ptr::eq::<str>(*known, label));
        if let Some((_, index)) = known {
            return *index;
        }
        let index = cell.activity().intern(label);
        self.0.push((label, index));
        index
    }
}
