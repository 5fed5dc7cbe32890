//! Looking for a commit by its time.

use std::ops::RangeInclusive;

use protocol::state::Version;

/// So often the times of the ends are trusted to tell where to look; then it is halved as well.
const GUESSES: u32 = 4;

/// The versions among which the last one committed by some time lies. Commit times never fall.
#[derive(Debug)]
pub(super) struct Between {
    /// The last one known to be committed by then.
    pub(super) low: Version,
    /// When that was, where it is known.
    pub(super) low_ms: Option<u64>,
    /// The last one that may have been.
    pub(super) high: Version,
    /// A time after `ms` before which all up to `high` were committed, or at which.
    pub(super) high_ms: u64,
    /// How many versions were looked at.
    pub(super) tried: u32,
}

impl Between {
    /// The version to look at, above `low` and up to `high`: where it would lie if commits came
    /// evenly, and from some time on the middle every other time, so that bursts cost no more than
    /// twice what halving does.
    pub(super) fn guess(&self, ms: u64) -> Version {
        let width = self.high - self.low;
        let Some(low_ms) = self.low_ms else { return self.low + 1 };
        let step = if self.tried >= GUESSES && self.tried.is_multiple_of(2) {
            width / 2
        } else {
            let span_ms = self.high_ms.saturating_sub(low_ms).max(1);
            let into_ms = ms.saturating_sub(low_ms).min(span_ms);
            (u128::from(width) * u128::from(into_ms) / u128::from(span_ms)) as u64
        };
        self.low + step.clamp(1, width)
    }

    /// Takes in that `versions`, with the one looked at, were committed at `at_ms`.
    pub(super) fn narrow(&mut self, versions: RangeInclusive<Version>, at_ms: u64, ms: u64) {
        self.tried += 1;
        if at_ms <= ms {
            (self.low, self.low_ms) = (*versions.end(), Some(at_ms));
        } else {
            (self.high, self.high_ms) = (versions.start() - 1, at_ms);
            self.low_ms.get_or_insert(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Finds `ms` in commits of so many versions, so many milliseconds after one another.
    fn find(commits: &[(u64, u64)], ms: u64) -> (Version, u32) {
        let mut rows = Vec::new();
        let (mut version, mut at_ms) = (0, 0);
        for (versions, after_ms) in commits {
            at_ms += after_ms;
            rows.push((version + 1..=version + versions, at_ms));
            version += versions;
        }
        let mut between = Between { low: 0, low_ms: None, high: version, high_ms: at_ms, tried: 0 };
        while between.low < between.high {
            let guess = between.guess(ms);
            let (versions, at_ms) =
                rows.iter().find(|(versions, _)| versions.contains(&guess)).expect("in between");
            between.narrow(versions.clone(), *at_ms, ms);
        }
        let expected =
            rows.iter().rfind(|(_, at_ms)| *at_ms <= ms).map_or(0, |(versions, _)| *versions.end());
        assert_eq!(between.low, expected);
        (between.low, between.tried)
    }

    #[test]
    fn where_commits_come_evenly_a_few_looks_are_enough() {
        let commits = vec![(1, 1_000); 100_000];
        for ms in (500..100_000_000).step_by(7_654_321) {
            let (_, tried) = find(&commits, ms);
            assert!(tried <= 4, "{tried} for {ms}");
        }
    }

    proptest! {
        #[test]
        fn every_time_is_found_however_commits_came(
            commits in prop::collection::vec((1u64..20, prop_oneof![0u64..3, 0u64..1_000_000]), 1..200),
            ms in 0u64..20_000_000,
        ) {
            let (_, tried) = find(&commits, ms);
            prop_assert!(tried <= 4 + 2 * 12, "{tried}");
        }
    }
}
