//! The system's clocks.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use actors::device::Clock;
use protocol::clock::ClockQuality;
use protocol::session::Now;

/// The wall clock and a monotonic one that starts with the process.
#[derive(Debug, Clone)]
pub struct SystemClock {
    started: Instant,
    quality: ClockQuality,
}

impl SystemClock {
    /// The system's clocks, the wall clock being as good as `quality` says.
    pub fn new(quality: ClockQuality) -> Self {
        Self { started: Instant::now(), quality }
    }

    /// The moment at which the monotonic clock shows `mono_ms`.
    pub fn instant(&self, mono_ms: u64) -> tokio::time::Instant {
        (self.started + Duration::from_millis(mono_ms)).into()
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Now {
        // A clock before 1970 is a clock that was never set.
        let wall = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Now {
            wall_ms: wall.as_millis() as u64,
            mono_ms: self.started.elapsed().as_millis() as u64,
            quality: self.quality,
        }
    }
}
