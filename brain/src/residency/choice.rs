//! Which twins leave memory, and which the tree.

use std::time::Duration;

use protocol::DeviceId;
use serde::{Deserialize, Serialize};

/// Under memory pressure a look lets this share of the twins in memory go, at least one.
const SHORT_SHARE: usize = 4;
/// Whoever was needed within this time stays, however short memory is: it would be back at once.
const NEEDED_LATELY: Duration = Duration::from_secs(1);

/// How long twins stay, and how many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Residency {
    /// A twin that nobody has needed for so many milliseconds leaves memory.
    pub idle_after_ms: u64,
    /// One that is passive, and whose device is away, leaves the tree after so many milliseconds.
    pub forget_after_ms: u64,
    /// So many twins may be in memory; those needed longest ago go first.
    pub twins_max: usize,
    /// When the brain takes more memory than this, twins leave early; 0 stands for four fifths of
    /// what the machine or the control group has.
    pub memory_high_bytes: u64,
}

impl Default for Residency {
    fn default() -> Self {
        Self {
            idle_after_ms: 60_000,
            forget_after_ms: 600_000,
            twins_max: 50_000,
            memory_high_bytes: 0,
        }
    }
}

/// A twin that might leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Twin {
    /// Its device.
    pub device: DeviceId,
    /// Whether it has left memory already.
    pub passive: bool,
    /// Whether its device is connected.
    pub connected: bool,
    /// How long nobody has needed it.
    pub idle: Duration,
}

/// Who is to leave.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Memory, those needed longest ago first.
    pub rest: Vec<DeviceId>,
    /// The tree.
    pub forget: Vec<DeviceId>,
}

/// Decides who leaves; `short` says that memory is.
pub fn choose(mut twins: Vec<Twin>, rules: &Residency, short: bool) -> Choice {
    twins.sort_by_key(|twin| (std::cmp::Reverse(twin.idle), twin.device));
    let after = Duration::from_millis;
    let away = twins.iter().filter(|twin| twin.passive && !twin.connected);
    let forget =
        away.filter(|twin| twin.idle >= after(rules.forget_after_ms)).map(|twin| twin.device);
    let forget = forget.collect();
    twins.retain(|twin| !twin.passive);
    let too_many = twins.len().saturating_sub(rules.twins_max);
    let for_room = if short { twins.len().div_ceil(SHORT_SHARE) } else { 0 };
    let early = too_many.max(for_room);
    let leaves = |(at, twin): &(usize, &Twin)| {
        twin.idle >= after(rules.idle_after_ms) || *at < early && twin.idle >= NEEDED_LATELY
    };
    let rest = twins.iter().enumerate().filter(leaves).map(|(_, twin)| twin.device).collect();
    Choice { rest, forget }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn twin(number: u8, idle_secs: u64) -> Twin {
        let idle = Duration::from_secs(idle_secs);
        Twin { device: DeviceId([number; 16]), passive: false, connected: true, idle }
    }

    fn rest(twins: &[Twin], rules: &Residency, short: bool) -> Vec<u8> {
        choose(twins.to_vec(), rules, short).rest.into_iter().map(|device| device.0[0]).collect()
    }

    #[test]
    fn whoever_is_idle_long_enough_rests_connected_or_not() {
        let rules = Residency::default();
        let away = Twin { connected: false, ..twin(3, 61) };
        assert_eq!(rest(&[twin(1, 59), twin(2, 60), away], &rules, false), [3, 2]);
    }

    #[test]
    fn when_there_are_too_many_those_needed_longest_ago_rest_first() {
        let rules = Residency { twins_max: 2, ..Residency::default() };
        let twins = [twin(1, 5), twin(2, 9), twin(3, 7), twin(4, 2)];
        assert_eq!(rest(&twins, &rules, false), [2, 3]);
    }

    #[test]
    fn a_passive_twin_counts_for_no_limit_and_does_not_rest_again() {
        let rules = Residency { twins_max: 1, ..Residency::default() };
        let passive = Twin { passive: true, ..twin(1, 500) };
        assert_eq!(rest(&[passive, twin(2, 5)], &rules, false), [0; 0]);
    }

    #[test]
    fn when_memory_is_short_a_quarter_rests_but_nobody_who_is_at_work() {
        let rules = Residency::default();
        let twins: Vec<_> = (0..8).map(|number| twin(number, u64::from(number))).collect();
        assert_eq!(rest(&twins, &rules, true), [7, 6]);
        assert_eq!(rest(&[twin(1, 0)], &rules, true), [0; 0]);
    }

    #[test]
    fn the_tree_forgets_only_who_is_passive_and_away() {
        let rules = Residency::default();
        let away = Twin { passive: true, connected: false, ..twin(1, 600) };
        let twins = vec![
            away,
            Twin { connected: true, ..away },
            Twin { idle: Duration::from_secs(599), ..away },
            Twin { passive: false, ..away },
        ];
        assert_eq!(choose(twins, &rules, false).forget, [DeviceId([1; 16])]);
    }
}
