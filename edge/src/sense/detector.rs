//! Which readings are worth an entry.

use std::collections::BTreeMap;

use protocol::history::Change;
use protocol::state::{Path, Value};

/// A sensor that is not there this many times in a row is gone, not hiccuping.
const ABSENT_SAMPLES_MAX: u32 = 3;

/// One value of one sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// The leaf.
    pub path: Path,
    /// The value.
    pub value: Value,
    /// How far it may move unreported.
    pub band: Band,
}

/// How far a value may move unreported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Band {
    /// Not at all.
    Exact,
    /// By less than this, in the value's own unit.
    Within(f64),
}

/// Compares each sample of one group of sensors with what was reported last.
///
/// A value inside its dead band is not reported, until it has been silent for so long that a
/// slow drift should be seen. An equal value never is: it would change nothing.
#[derive(Debug, Clone, Default)]
pub struct Detector {
    reported: BTreeMap<Path, Reported>,
}

#[derive(Debug, Clone)]
struct Reported {
    value: Value,
    at_ms: u64,
    absent: u32,
}

impl Detector {
    /// What of a sample to report. `now_ms` and `max_silence_ms` are of a clock that never jumps.
    ///
    /// Call [`confirm`](Self::confirm) once it is written.
    pub fn detect(
        &mut self,
        readings: &[Reading],
        now_ms: u64,
        max_silence_ms: u64,
    ) -> Vec<Change> {
        for known in self.reported.values_mut() {
            known.absent += 1;
        }
        let mut changes = Vec::new();
        for reading in readings {
            let known = self.reported.get_mut(&reading.path);
            let news = known.is_none_or(|known| {
                known.absent = 0;
                let silent_ms = now_ms.saturating_sub(known.at_ms);
                let moved = reading.band.is_left(&known.value, &reading.value);
                reading.value != known.value && (moved || silent_ms >= max_silence_ms)
            });
            if news {
                changes.push((reading.path.clone(), Some(reading.value.clone())));
            }
        }
        let gone = self.reported.iter().filter(|(_, known)| known.absent >= ABSENT_SAMPLES_MAX);
        changes.extend(gone.map(|(path, _)| (path.clone(), None)));
        changes
    }

    /// Changes were written.
    pub fn confirm(&mut self, changes: &[Change], now_ms: u64) {
        for (path, value) in changes {
            match value {
                Some(value) => {
                    let known = Reported { value: value.clone(), at_ms: now_ms, absent: 0 };
                    self.reported.insert(path.clone(), known);
                }
                None => {
                    self.reported.remove(path);
                }
            }
        }
    }
}

impl Band {
    fn is_left(self, old: &Value, new: &Value) -> bool {
        match (self, old.as_f64(), new.as_f64()) {
            (Self::Within(band), Some(old), Some(new)) => (new - old).abs() >= band,
            _ => old != new,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SILENCE_MS: u64 = 900_000;

    fn celsius(value: f64) -> Reading {
        Reading {
            path: Path::new("reported/thermal/cpu_celsius").expect("a path"),
            value: Value::float(value).expect("finite"),
            band: Band::Within(0.5),
        }
    }

    fn sample(detector: &mut Detector, value: f64, now_ms: u64) -> usize {
        let changes = detector.detect(&[celsius(value)], now_ms, SILENCE_MS);
        detector.confirm(&changes, now_ms);
        changes.len()
    }

    #[test]
    fn values_inside_the_band_are_not_reported() {
        let mut detector = Detector::default();
        assert_eq!(sample(&mut detector, 50.0, 0), 1);
        assert_eq!(sample(&mut detector, 50.4, 1), 0);
        assert_eq!(sample(&mut detector, 49.6, 2), 0);
        assert_eq!(sample(&mut detector, 50.5, 3), 1);
        assert_eq!(sample(&mut detector, 50.1, 4), 0);
    }

    #[test]
    fn a_slow_drift_is_reported_in_the_end_and_an_equal_value_never() {
        let mut detector = Detector::default();
        sample(&mut detector, 50.0, 0);
        assert_eq!(sample(&mut detector, 50.0, SILENCE_MS), 0);
        assert_eq!(sample(&mut detector, 50.1, SILENCE_MS), 1);
    }

    #[test]
    fn what_was_not_written_is_reported_again() {
        let mut detector = Detector::default();
        assert_eq!(detector.detect(&[celsius(50.0)], 0, SILENCE_MS).len(), 1);
        assert_eq!(detector.detect(&[celsius(50.0)], 1, SILENCE_MS).len(), 1);
    }

    #[test]
    fn a_sensor_that_went_is_removed_after_three_samples() {
        let mut detector = Detector::default();
        sample(&mut detector, 50.0, 0);
        assert!(detector.detect(&[], 1, SILENCE_MS).is_empty());
        assert!(detector.detect(&[], 2, SILENCE_MS).is_empty());
        let changes = detector.detect(&[], 3, SILENCE_MS);
        assert_eq!(changes, [(celsius(0.0).path, None)]);
    }
}
