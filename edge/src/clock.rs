//! The clocks of the agent: the shell that reads them, and what is known of how good they are.

use std::path::PathBuf;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use protocol::clock::ClockQuality;
use protocol::session::Now;

/// Tells the time: the system's wall clock, corrected by what the brain said, and a clock that
/// never jumps. Cloning it gives another handle on the same clock.
#[derive(Debug, Clone)]
pub struct Clock {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    started: Instant,
    /// Added to the system's clock, in milliseconds.
    offset_ms: AtomicI64,
    /// A fault of the system's clock, for tests, in milliseconds.
    skew_ms: AtomicI64,
    signs: Signs,
    quality: RwLock<ClockQuality>,
}

/// Where the system shows how good its clock is.
#[derive(Debug, Clone)]
pub struct Signs {
    /// There once the system's clock follows a time server: systemd-timesyncd(8).
    pub synchronised: PathBuf,
    /// There where a battery-backed clock keeps the time.
    pub rtc: PathBuf,
    /// Take the clock for synchronised whatever the signs say: for other daemons than
    /// systemd-timesyncd, which leave no sign.
    pub trusted: bool,
}

impl Default for Signs {
    fn default() -> Self {
        Self {
            synchronised: "/run/systemd/timesync/synchronized".into(),
            rtc: "/sys/class/rtc/rtc0".into(),
            trusted: false,
        }
    }
}

impl Clock {
    /// The system's clock with an offset that an earlier start learned.
    pub fn new(signs: Signs, offset_ms: i64) -> Self {
        let quality = RwLock::new(judge(&signs));
        let shared = Shared {
            started: Instant::now(),
            offset_ms: AtomicI64::new(offset_ms),
            skew_ms: AtomicI64::new(0),
            signs,
            quality,
        };
        Self { shared: Arc::new(shared) }
    }

    /// The time now, both ways of telling it.
    pub fn now(&self) -> Now {
        Now { wall_ms: self.wall_ms(), mono_ms: self.mono_ms(), quality: self.quality() }
    }

    /// Milliseconds since the Unix epoch, corrected.
    pub fn wall_ms(&self) -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let Shared { offset_ms, skew_ms, .. } = &*self.shared;
        let moved = offset_ms.load(Ordering::Relaxed) + skew_ms.load(Ordering::Relaxed);
        (since.as_millis() as u64).saturating_add_signed(moved)
    }

    /// Milliseconds since the agent started, by a clock that never jumps.
    pub fn mono_ms(&self) -> u64 {
        self.shared.started.elapsed().as_millis() as u64
    }

    /// How good the wall clock is, as of the last [`look`](Self::look).
    pub fn quality(&self) -> ClockQuality {
        self.shared.quality.read().map_or(ClockQuality::Unsynchronised, |quality| *quality)
    }

    /// Looks again how good the clock is. Touches the disk.
    ///
    /// A clock that has just been synchronised needs no correction any more.
    pub fn look(&self) -> ClockQuality {
        let judged = judge(&self.shared.signs);
        if let Ok(mut quality) = self.shared.quality.write() {
            let before = std::mem::replace(&mut *quality, judged);
            if judged == ClockQuality::Synchronised && before != judged {
                self.shared.offset_ms.store(0, Ordering::Relaxed);
            }
        }
        judged
    }

    /// What is added to the system's clock, in milliseconds.
    pub fn offset_ms(&self) -> i64 {
        self.shared.offset_ms.load(Ordering::Relaxed)
    }

    /// Adds `error_ms`, by which this clock was found to be behind, to the offset.
    pub fn correct(&self, error_ms: i64) -> i64 {
        self.shared.offset_ms.fetch_add(error_ms, Ordering::Relaxed).saturating_add(error_ms)
    }

    /// Makes the system's clock appear wrong by so much: a fault for tests.
    pub fn skew(&self, skew_ms: i64) {
        self.shared.skew_ms.store(skew_ms, Ordering::Relaxed);
    }
}

fn judge(signs: &Signs) -> ClockQuality {
    if signs.trusted || signs.synchronised.exists() {
        ClockQuality::Synchronised
    } else if signs.rtc.exists() {
        ClockQuality::Rtc
    } else {
        ClockQuality::Unsynchronised
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quality_follows_the_systems_signs() {
        let dir = tempfile::tempdir().expect("a folder");
        let (synchronised, rtc) = (dir.path().join("synchronized"), dir.path().join("rtc0"));
        let signs = Signs { synchronised: synchronised.clone(), rtc: rtc.clone(), trusted: false };
        let clock = Clock::new(signs, 0);
        assert_eq!(clock.quality(), ClockQuality::Unsynchronised);
        clock.correct(5_000);
        std::fs::write(rtc, b"").expect("an RTC");
        assert_eq!(clock.look(), ClockQuality::Rtc);
        std::fs::write(synchronised, b"").expect("synchronised");
        assert_eq!(clock.offset_ms(), 5_000);
        assert_eq!(clock.look(), ClockQuality::Synchronised);
        assert_eq!(clock.offset_ms(), 0);
    }

    #[test]
    fn a_correction_undoes_a_skew() {
        let clock = Clock::new(Signs::default(), 0);
        let before = clock.wall_ms();
        clock.skew(3_600_000);
        clock.correct(-3_600_000);
        assert!(clock.wall_ms().abs_diff(before) < 1_000);
    }
}
