//! Counting over a sliding window.

use std::{
    collections::{HashMap, VecDeque},
    time::Duration,
};

/// The times of what happened within a window.
#[derive(Clone, Debug, Default)]
pub(super) struct Window {
    times: VecDeque<Duration>,
}

impl Window {
    /// Notes that it happened now, and says how often it did within the window.
    pub(super) fn push(&mut self, now: Duration, within: Duration) -> u32 {
        self.times.push_back(now);
        let threshold = now.saturating_sub(within);
        while self.times.front().is_some_and(|time| *time < threshold) {
            self.times.pop_front();
        }
        u32::try_from(self.times.len()).unwrap_or(u32::MAX)
    }

    pub(super) fn clear(&mut self) {
        self.times = VecDeque::new();
    }
}

/// Who was seen within a window, each counted once.
#[derive(Clone, Debug, Default)]
pub(super) struct DistinctWindow {
    sightings: VecDeque<(Duration, u64)>,
    latest: HashMap<u64, Duration>,
}

impl DistinctWindow {
    /// Notes a sighting, and says how many different ones were seen.
    pub(super) fn push(&mut self, who: u64, now: Duration, within: Duration) -> u32 {
        self.sightings.push_back((now, who));
        self.latest.insert(who, now);
        let threshold = now.saturating_sub(within);
        while let Some((time, who)) = self.sightings.front().copied()
            && time < threshold
        {
            self.sightings.pop_front();
            if self.latest.get(&who) == Some(&time) {
                self.latest.remove(&who);
            }
        }
        u32::try_from(self.latest.len()).unwrap_or(u32::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_lies_exactly_the_window_back_still_counts() {
        let mut window = Window::default();
        assert_eq!(window.push(secs(10), secs(5)), 1);
        assert_eq!(window.push(secs(15), secs(5)), 2);
        assert_eq!(window.push(secs(16), secs(5)), 2);
    }

    #[test]
    fn one_child_counts_once_and_until_its_latest_failure_is_out() {
        let mut window = DistinctWindow::default();
        assert_eq!(window.push(1, secs(0), secs(5)), 1);
        assert_eq!(window.push(1, secs(4), secs(5)), 1);
        assert_eq!(window.push(2, secs(8), secs(5)), 2);
        assert_eq!(window.push(3, secs(10), secs(5)), 2);
    }
}
