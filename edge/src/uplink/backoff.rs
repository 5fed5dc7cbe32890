//! How long to wait before calling again.

use std::time::Duration;

/// The first wait, and the least.
const FIRST: Duration = Duration::from_secs(1);
/// No wait is longer than this unless the brain asks for it.
const LONGEST: Duration = Duration::from_secs(300);
/// Where only people can help, no wait is shorter unless the brain asks for it.
const SLOW: Duration = Duration::from_secs(30);
/// A session that lasted this long was a good one: the next wait is the first again.
const LASTED: Duration = Duration::from_secs(30);

/// Counts failed calls and says how long to wait.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// A call failed, or its session ended after `lasted`. Says how long to wait: a random time
    /// between a second and a bound that doubles, and what the brain asked for at least.
    ///
    /// `random` is from 0 to 1. Thousands of devices that lost their brain at once come back
    /// spread over the bound.
    pub fn next(
        &mut self,
        lasted: Duration,
        retry_after: Option<Duration>,
        random: f64,
    ) -> Duration {
        if Self::is_good(lasted) {
            self.failures = 0;
        }
        let bound = FIRST.saturating_mul(1 << self.failures.min(16)).min(LONGEST);
        self.failures = self.failures.saturating_add(1);
        at_least(retry_after, between(FIRST, bound, random), random)
    }

    /// A call failed with what would fail again: the wait is long from the beginning.
    pub fn next_slow(&mut self, retry_after: Option<Duration>, random: f64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        at_least(retry_after, between(SLOW, LONGEST, random), random)
    }

    /// Whether a session that lasted so long was a good one.
    pub fn is_good(lasted: Duration) -> bool {
        lasted >= LASTED
    }
}

fn between(least: Duration, most: Duration, random: f64) -> Duration {
    least + (most - least).mul_f64(random.clamp(0.0, 1.0))
}

/// A fleet that is told one moment to come back must not come at that moment.
fn at_least(asked: Option<Duration>, wait: Duration, random: f64) -> Duration {
    asked.map_or(wait, |least| wait.max(least + FIRST.mul_f64(random.clamp(0.0, 1.0))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_doubles_up_to_five_minutes() {
        let mut backoff = Backoff::default();
        let mut wait = || backoff.next(Duration::ZERO, None, 1.0).as_secs();
        let waits: Vec<_> = (0..11).map(|_| wait()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
    }

    #[test]
    fn a_session_that_lasted_starts_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..5 {
            backoff.next(Duration::ZERO, None, 1.0);
        }
        assert_eq!(backoff.next(LASTED, None, 1.0), FIRST);
        assert_eq!(backoff.next(Duration::ZERO, None, 1.0), 2 * FIRST);
    }

    #[test]
    fn no_wait_is_shorter_than_a_second_or_than_the_brain_asks() {
        let mut backoff = Backoff::default();
        for _ in 0..9 {
            assert_eq!(backoff.next(Duration::ZERO, None, 0.0), FIRST);
        }
        let asked = Duration::from_secs(60);
        assert_eq!(backoff.next(Duration::ZERO, Some(asked), 0.0), asked);
    }
}
