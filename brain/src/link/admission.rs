//! How fast connections are taken.

/// A token bucket: so many a second, and so many at once after a pause.
#[derive(Debug, Clone)]
pub struct Pace {
    per_second: f64,
    burst: f64,
    tokens: f64,
    last_ms: u64,
}

impl Pace {
    /// A full bucket.
    pub fn new(per_second: u32, burst: u32, now_ms: u64) -> Self {
        let burst = f64::from(burst.max(1));
        Self { per_second: f64::from(per_second.max(1)), burst, tokens: burst, last_ms: now_ms }
    }

    /// Goes on at another pace.
    pub fn set(&mut self, per_second: u32) {
        self.per_second = f64::from(per_second.max(1));
        self.burst = self.per_second;
        self.tokens = self.tokens.min(self.burst);
    }

    /// Takes one token, or says how long to wait for it, in milliseconds.
    pub fn take(&mut self, now_ms: u64) -> Result<(), u64> {
        let passed_ms = now_ms.saturating_sub(self.last_ms) as f64;
        self.last_ms = self.last_ms.max(now_ms);
        self.tokens = (self.tokens + passed_ms * self.per_second / 1_000.0).min(self.burst);
        if self.tokens >= 1.0 {
            self.tokens -= 1.0;
            return Ok(());
        }
        let missing = 1.0 - self.tokens;
        Err((missing * 1_000.0 / self.per_second).ceil().max(1.0) as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_taken_and_then_the_pace_holds() {
        let mut pace = Pace::new(10, 3, 0);
        assert_eq!([pace.take(0), pace.take(0), pace.take(0)], [Ok(()); 3]);
        assert_eq!(pace.take(0), Err(100));
        assert_eq!(pace.take(100), Ok(()));
        assert_eq!(pace.take(100), Err(100));
    }

    #[test]
    fn another_pace_holds_at_once() {
        let mut pace = Pace::new(100, 100, 0);
        pace.set(2);
        assert_eq!([pace.take(0), pace.take(0), pace.take(0)], [Ok(()), Ok(()), Err(500)]);
    }

    #[test]
    fn a_clock_that_stands_still_gives_nothing() {
        let mut pace = Pace::new(1_000, 1, 50);
        assert_eq!(pace.take(50), Ok(()));
        assert!(pace.take(50).is_err());
        assert!(pace.take(40).is_err());
    }
}
