//! Percentiles of times, and medians of rounds.

use serde::Serialize;

/// Percentiles of some times, in microseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(in crate::load) struct Latency {
    pub(in crate::load) count: u64,
    pub(in crate::load) p50_us: u64,
    pub(in crate::load) p99_us: u64,
    pub(in crate::load) p999_us: u64,
    pub(in crate::load) max_us: u64,
}

impl Latency {
    /// Of values in microseconds with how often each occurred, in any order.
    pub(in crate::load) fn of(values: impl IntoIterator<Item = (u64, u64)>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_unstable();
        let count = values.iter().map(|(_, times)| times).sum();
        let at = |share: f64| {
            let rank = ((count as f64 * share).ceil() as u64).max(1);
            let mut below = 0;
            let reached = values.iter().find(|(_, times)| {
                below += times;
                below >= rank
            });
            reached.map_or(0, |(value, _)| *value)
        };
        let max_us = values.last().map_or(0, |(value, _)| *value);
        Self { count, p50_us: at(0.5), p99_us: at(0.99), p999_us: at(0.999), max_us }
    }
}

/// A figure over rounds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize)]
pub(in crate::load) struct Spread {
    pub(in crate::load) median: f64,
    pub(in crate::load) min: f64,
    pub(in crate::load) max: f64,
}

impl Spread {
    /// Of one value for each round; zeros of none.
    pub(in crate::load) fn of(values: impl IntoIterator<Item = f64>) -> Self {
        let mut values: Vec<_> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        let (Some(&min), Some(&max)) = (values.first(), values.last()) else {
            return Self::default();
        };
        let middle = values.len() / 2;
        let median = match values.len() % 2 {
            0 => (values[middle - 1] + values[middle]) / 2.0,
            _ => values[middle],
        };
        Self { median, min, max }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_values_that_occurred() {
        let latency = Latency::of((1..=1_000).rev().map(|us| (us, 1)));
        let expected =
            Latency { count: 1_000, p50_us: 500, p99_us: 990, p999_us: 999, max_us: 1_000 };
        assert_eq!(latency, expected);
    }

    #[test]
    fn one_outlier_shows_only_where_it_belongs() {
        let latency = Latency::of([(10, 998), (5_000, 2)]);
        assert_eq!((latency.p50_us, latency.p99_us, latency.p999_us), (10, 10, 5_000));
    }

    #[test]
    fn nothing_has_no_percentiles() {
        assert_eq!(Latency::of([]), Latency::default());
    }

    #[test]
    fn the_median_of_an_even_number_lies_between() {
        let spread = Spread::of([4.0, 1.0, 2.0, 3.0]);
        assert_eq!(spread, Spread { median: 2.5, min: 1.0, max: 4.0 });
    }
}
