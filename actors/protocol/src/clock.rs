//! Hybrid logical clocks.
//!
//! An [`Hlc`] follows the wall clock while that moves forward and counts while it does not, so
//! that an author's timestamps only grow. Ordering between authors that know of each other comes
//! from causal context; the clock decides only between edits that do not, and dates them.

use serde::{Deserialize, Serialize};

/// How far ahead of its receiver a timestamp may be, in milliseconds. Beyond it the entry is
/// neither stored nor relayed, and nobody's clock moves.
pub const AHEAD_MS_MAX: u64 = 60_000;

/// A hybrid logical timestamp.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Hlc {
    /// Milliseconds since the Unix epoch.
    pub wall_ms: u64,
    /// Tells apart timestamps of one millisecond.
    pub counter: u32,
}

/// How good the author's wall clock was when it dated an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ClockQuality {
    /// Disciplined by NTP, PTP or GNSS.
    Synchronised,
    /// Neither synchronised nor kept by a real-time clock.
    Unsynchronised,
    /// Kept by a battery-backed real-time clock, not synchronised since the start.
    Rtc,
}

impl ClockQuality {
    /// The number in canonical bytes.
    pub fn number(self) -> u8 {
        match self {
            Self::Synchronised => 0,
            Self::Unsynchronised => 1,
            Self::Rtc => 2,
        }
    }
}

/// A timestamp from too far in the future.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("timestamp is {ahead_ms} ms ahead of this clock, more than {AHEAD_MS_MAX} ms")]
pub struct ClockAhead {
    /// By how much.
    pub ahead_ms: u64,
    /// What the receiver's clock showed.
    pub receiver_ms: u64,
}

/// Refuses a timestamp that is more than [`AHEAD_MS_MAX`] ahead of `now_ms`.
pub fn check_not_ahead(hlc: Hlc, now_ms: u64) -> Result<(), ClockAhead> {
    #[cfg(feature = "planted-faults")]
    if crate::planted::is(crate::planted::Fault::ClockBoundOff) {
        return Ok(());
    }
    let ahead_ms = hlc.wall_ms.saturating_sub(now_ms);
    if ahead_ms > AHEAD_MS_MAX {
        return Err(ClockAhead { ahead_ms, receiver_ms: now_ms });
    }
    Ok(())
}

/// An author's clock. Its timestamps grow strictly, whatever the wall clock does.
#[derive(Debug, Clone, Default)]
pub struct HlcClock {
    last: Hlc,
}

impl HlcClock {
    /// A clock that goes on after `last`.
    pub fn resume(last: Hlc) -> Self {
        Self { last }
    }

    /// The last timestamp given out or observed.
    pub fn last(&self) -> Hlc {
        self.last
    }

    /// A timestamp above every earlier one.
    pub fn tick(&mut self, now_ms: u64) -> Hlc {
        self.last = if now_ms > self.last.wall_ms {
            Hlc { wall_ms: now_ms, counter: 0 }
        } else {
            match self.last.counter.checked_add(1) {
                Some(counter) => Hlc { wall_ms: self.last.wall_ms, counter },
                None => Hlc { wall_ms: self.last.wall_ms.saturating_add(1), counter: 0 },
            }
        };
        self.last
    }

    /// Takes note of another author's timestamp, so that the next own one is above it.
    ///
    /// A timestamp too far ahead moves nothing and is refused.
    pub fn observe(&mut self, remote: Hlc, now_ms: u64) -> Result<(), ClockAhead> {
        check_not_ahead(remote, now_ms)?;
        self.last = self.last.max(remote);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_timestamp_61_s_ahead_moves_nothing() {
        let mut clock = HlcClock::resume(Hlc { wall_ms: 1_000, counter: 0 });
        let remote = Hlc { wall_ms: 62_001, counter: 0 };
        let error = clock.observe(remote, 1_000).expect_err("too far ahead");
        assert_eq!(error.ahead_ms, 61_001);
        assert_eq!(clock.last().wall_ms, 1_000);
    }

    #[test]
    fn an_exhausted_counter_borrows_a_millisecond() {
        let mut clock = HlcClock::resume(Hlc { wall_ms: 5, counter: u32::MAX });
        assert_eq!(clock.tick(5), Hlc { wall_ms: 6, counter: 0 });
    }

    proptest! {
        #[test]
        fn timestamps_grow_whatever_the_wall_clock_does(walls in proptest::collection::vec(any::<u64>(), 1..50)) {
            let mut clock = HlcClock::default();
            let mut last = clock.last();
            for wall in walls {
                if last.wall_ms == u64::MAX && last.counter == u32::MAX { break; }
                let next = clock.tick(wall);
                prop_assert!(next > last);
                last = next;
            }
        }

        #[test]
        fn others_move_a_clock_by_60_s_at_most(now in 0u64..1 << 40, remote in any::<u64>()) {
            let mut clock = HlcClock::resume(Hlc { wall_ms: now, counter: 0 });
            let _ = clock.observe(Hlc { wall_ms: remote, counter: 0 }, now);
            prop_assert!(clock.last().wall_ms <= now + AHEAD_MS_MAX);
        }
    }
}
