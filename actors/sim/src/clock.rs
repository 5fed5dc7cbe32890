//! Time that passes when a test says so.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU8, AtomicU64, Ordering};

use actors::device::Clock;
use protocol::clock::ClockQuality;
use protocol::session::Now;

/// When simulated wall clocks start, in milliseconds since the Unix epoch.
pub const START_MS: u64 = 1_700_000_000_000;
/// Ten years, as far as a clock jumps whose battery died or whose server lies.
pub const TEN_YEARS_MS: i64 = 10 * 365 * 86_400_000;

/// The true time of a simulation: it never goes back. Clones show the same time.
#[derive(Debug, Clone, Default)]
pub struct SimTime(Arc<AtomicU64>);

impl SimTime {
    /// Milliseconds since the simulation began.
    pub fn now_ms(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Lets time pass up to `ms`; what is past stays past.
    pub fn advance_to(&self, ms: u64) {
        self.0.fetch_max(ms, Ordering::Relaxed);
    }

    /// Lets `ms` pass.
    pub fn advance(&self, ms: u64) {
        self.0.fetch_add(ms, Ordering::Relaxed);
    }
}

/// The clock of one machine: a wall clock that may be set and may jump, and a monotonic one that
/// follows the simulation's time whatever the wall clock does. Clones are the same clock.
#[derive(Debug, Clone)]
pub struct SimClock {
    time: SimTime,
    state: Arc<Wall>,
}

#[derive(Debug)]
struct Wall {
    /// By how much the wall clock is wrong.
    error_ms: AtomicI64,
    quality: AtomicU8,
}

const QUALITIES: [ClockQuality; 3] =
    [ClockQuality::Synchronised, ClockQuality::Unsynchronised, ClockQuality::Rtc];

impl SimClock {
    /// A right and synchronised clock of a machine in the world of `time`.
    pub fn new(time: &SimTime) -> Self {
        let state = Wall { error_ms: AtomicI64::new(0), quality: AtomicU8::new(0) };
        Self { time: time.clone(), state: Arc::new(state) }
    }

    /// What a right wall clock shows.
    pub fn true_ms(&self) -> u64 {
        START_MS + self.time.now_ms()
    }

    /// By how much the wall clock is wrong, in milliseconds.
    pub fn error_ms(&self) -> i64 {
        self.state.error_ms.load(Ordering::Relaxed)
    }

    /// Moves the wall clock by `ms`, forward or back.
    pub fn jump(&self, ms: i64) {
        self.state.error_ms.fetch_add(ms, Ordering::Relaxed);
    }

    /// Sets the wall clock right.
    pub fn set_right(&self) {
        self.state.error_ms.store(0, Ordering::Relaxed);
    }

    /// Sets how good the wall clock claims to be.
    pub fn set_quality(&self, quality: ClockQuality) {
        self.state.quality.store(quality.number(), Ordering::Relaxed);
    }

    /// Lets `ms` pass, for all clocks of the same world.
    pub fn advance(&self, ms: u64) {
        self.time.advance(ms);
    }
}

impl Default for SimClock {
    fn default() -> Self {
        Self::new(&SimTime::default())
    }
}

impl Clock for SimClock {
    fn now(&self) -> Now {
        let number = self.state.quality.load(Ordering::Relaxed);
        let quality = QUALITIES.into_iter().find(|quality| quality.number() == number);
        Now {
            wall_ms: self.true_ms().saturating_add_signed(self.error_ms()),
            mono_ms: self.time.now_ms(),
            quality: quality.unwrap_or(ClockQuality::Unsynchronised),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_moves_the_wall_clock_of_one_machine_only() {
        let time = SimTime::default();
        let (a, b) = (SimClock::new(&time), SimClock::new(&time));
        a.jump(TEN_YEARS_MS);
        b.jump(-TEN_YEARS_MS);
        time.advance(5);
        assert_eq!(a.now().wall_ms, START_MS + 5 + TEN_YEARS_MS as u64);
        assert_eq!(b.now().wall_ms, START_MS + 5 - TEN_YEARS_MS as u64);
        assert_eq!((a.now().mono_ms, b.now().mono_ms), (5, 5));
        a.set_right();
        assert_eq!(a.now().wall_ms, START_MS + 5);
    }

    #[test]
    fn monotonic_time_never_goes_back() {
        let time = SimTime::default();
        time.advance_to(10);
        time.advance_to(3);
        assert_eq!(time.now_ms(), 10);
    }
}
