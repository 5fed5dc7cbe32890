//! How long to wait: arithmetic that never overflows.

use std::time::Duration;

use crate::supervise::spec::{Backoff, Quarantine};

/// A small seeded generator (SplitMix64): good enough to spread restarts, and
/// the same schedule gives the same waits again.
#[derive(Clone, Debug)]
pub(super) struct Chance(u64);

impl Chance {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number from 0 up to, and without, 1.
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^= z >> 31;
        // The 53 bits that a double can hold exactly.
        (z >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// The wait before the `streak`-th restart in a row, counted from 1.
pub(super) fn backoff(rule: &Backoff, streak: u32, chance: &mut Chance) -> Duration {
    let Some(wait) = streak.checked_sub(rule.immediate).filter(|wait| *wait > 0) else {
        return Duration::ZERO;
    };
    let exponent = i32::try_from(wait - 1).unwrap_or(i32::MAX);
    let max = rule.max.max(rule.min).as_secs_f64();
    // `f64::max` and `min` pass over a NaN, so nonsense in the rule is harmless.
    let grown = rule.min.as_secs_f64() * rule.factor.max(1.0).powi(exponent);
    let full = grown.min(max);
    let share = rule.jitter.clamp(0.0, 1.0).max(0.0) * chance.unit();
    Duration::try_from_secs_f64(full * (1.0 - share)).unwrap_or(rule.max)
}

/// How long the `count`-th quarantine in a row lasts, counted from 1.
pub(super) fn quarantine(rule: &Quarantine, count: u32) -> Duration {
    2u32.checked_pow(count.saturating_sub(1))
        .and_then(|factor| rule.min.checked_mul(factor))
        .map_or(rule.max, |grown| grown.min(rule.max))
        .max(rule.min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_tries_may_come_at_once() {
        let rule = Backoff { immediate: 2, jitter: 0.0, ..Backoff::default() };
        let waits = [1, 2, 3, 4].map(|streak| backoff(&rule, streak, &mut Chance::new(0)));
        let zero = Duration::ZERO;
        assert_eq!(waits, [zero, zero, rule.min, rule.min * 2]);
    }

    #[test]
    fn waits_grow_by_the_factor_up_to_the_maximum() {
        let rule = Backoff {
            min: Duration::from_millis(100),
            max: Duration::from_secs(1),
            factor: 2.0,
            jitter: 0.0,
            ..Backoff::default()
        };
        let mut chance = Chance::new(1);
        let waits: Vec<u128> =
            (1..=6).map(|streak| backoff(&rule, streak, &mut chance).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(backoff(&rule, u32::MAX, &mut chance), rule.max);
    }

    #[test]
    fn jitter_only_shortens() {
        let rule = Backoff { jitter: 0.5, ..Backoff::default() };
        let mut chance = Chance::new(7);
        for streak in 1..100 {
            let full = backoff(&Backoff { jitter: 0.0, ..rule }, streak, &mut chance);
            let wait = backoff(&rule, streak, &mut chance);
            assert!(wait <= full && wait >= full / 2, "{wait:?} of {full:?}");
        }
    }

    #[test]
    fn nonsense_rules_do_not_panic() {
        for factor in [f64::NAN, f64::INFINITY, -1.0] {
            for jitter in [f64::NAN, 7.0, -7.0] {
                let rule = Backoff { factor, jitter, ..Backoff::default() };
                assert!(backoff(&rule, 9, &mut Chance::new(3)) <= rule.max);
            }
        }
    }

    #[test]
    fn quarantines_double_up_to_the_maximum() {
        let rule = Quarantine {
            min: Duration::from_secs(30),
            max: Duration::from_secs(100),
            ..Quarantine::default()
        };
        let secs = [1, 2, 3, u32::MAX].map(|count| quarantine(&rule, count).as_secs());
        assert_eq!(secs, [30, 60, 100, 100]);
    }
}
