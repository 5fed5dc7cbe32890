//! Which of a device's connections counts.
//!
//! The newest does, and ends the one before it: a device that lost its network comes back before
//! the brain has noticed. Two machines with one identity do the same to each other again and
//! again; that pattern is a cloned identity, and both are kept out for a while.

/// So many live connections may be ended by newer ones ...
const FENCINGS_MAX: usize = 5;
/// ... within this time, before the identity counts as cloned.
const WITHIN_MS: u64 = 60_000;
/// How long the first quarantine lasts; each further one twice as long as the one before.
const QUARANTINE_MS: u64 = 60_000;
/// The longest quarantine.
const QUARANTINE_MS_MAX: u64 = 3_600_000;

/// What to do with a new connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Take it, and end the one before it.
    Attach,
    /// A newer one is here already.
    Stale,
    /// Two machines share the identity.
    Cloned {
        /// How long to stay away, in milliseconds.
        retry_after_ms: u32,
    },
}

/// What is remembered of a device's connections.
#[derive(Debug, Default)]
pub struct Fencing {
    /// When live connections were ended by newer ones.
    fencings_ms: Vec<u64>,
    quarantines: u32,
    quarantined_until_ms: u64,
}

impl Fencing {
    /// Decides about connection `new`, while `current` is alive, at `now_ms` of a clock that
    /// never jumps.
    pub fn on_attach(&mut self, current: Option<u64>, new: u64, now_ms: u64) -> Verdict {
        if let Some(left_ms) = self.quarantined_for_ms(now_ms) {
            return Verdict::Cloned { retry_after_ms: clamp(left_ms) };
        }
        match current {
            None => return Verdict::Attach,
            Some(current) if current >= new => return Verdict::Stale,
            Some(_) => {}
        }
        self.fencings_ms.retain(|at| now_ms.saturating_sub(*at) < WITHIN_MS);
        self.fencings_ms.push(now_ms);
        if self.fencings_ms.len() <= FENCINGS_MAX {
            return Verdict::Attach;
        }
        self.fencings_ms.clear();
        let doubled = QUARANTINE_MS << self.quarantines.min(16);
        let lasts_ms = doubled.min(QUARANTINE_MS_MAX);
        self.quarantines += 1;
        self.quarantined_until_ms = now_ms + lasts_ms;
        Verdict::Cloned { retry_after_ms: clamp(lasts_ms) }
    }

    /// How much longer the device is kept out, in milliseconds.
    pub fn quarantined_for_ms(&self, now_ms: u64) -> Option<u64> {
        self.quarantined_until_ms.checked_sub(now_ms).filter(|left| *left > 0)
    }
}

fn clamp(ms: u64) -> u32 {
    u32::try_from(ms).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_that_comes_back_replaces_its_old_connection() {
        let mut fencing = Fencing::default();
        assert_eq!(fencing.on_attach(None, 1, 0), Verdict::Attach);
        assert_eq!(fencing.on_attach(Some(1), 2, 10), Verdict::Attach);
        assert_eq!(fencing.on_attach(Some(2), 1, 20), Verdict::Stale);
    }

    #[test]
    fn two_that_keep_fencing_each_other_are_kept_out() {
        let mut fencing = Fencing::default();
        let mut verdict = Verdict::Attach;
        for n in 0..6 {
            verdict = fencing.on_attach(Some(n), n + 1, n * 1_000);
        }
        assert_eq!(verdict, Verdict::Cloned { retry_after_ms: 60_000 });
        assert!(matches!(fencing.on_attach(None, 9, 6_000), Verdict::Cloned { .. }));
        assert_eq!(fencing.on_attach(None, 10, 70_000), Verdict::Attach);
    }

    #[test]
    fn rare_fencings_are_forgotten() {
        let mut fencing = Fencing::default();
        for n in 0..100 {
            assert_eq!(fencing.on_attach(Some(n), n + 1, n * 15_000), Verdict::Attach);
        }
    }
}
