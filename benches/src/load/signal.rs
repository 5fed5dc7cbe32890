//! What a device writes: seeded, and never the same value twice in a row.

use protocol::state::{Path, Value};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};

/// How many sensors a device has; an update changes one of them.
const SENSORS: usize = 8;

/// The sensors of one device.
pub(in crate::load) struct Signal {
    random: SmallRng,
    paths: Vec<Path>,
    next: usize,
    payload_bytes: Option<usize>,
    written: u64,
}

impl Signal {
    pub(in crate::load) fn new(seed: u64, payload_bytes: Option<usize>) -> anyhow::Result<Self> {
        let paths = (0..SENSORS).map(|n| Path::new(&format!("reported/sensor/{n}/celsius")));
        let paths = paths.collect::<Result<Vec<_>, _>>()?;
        let random = SmallRng::seed_from_u64(seed);
        Ok(Self { random, paths, next: 0, payload_bytes, written: 0 })
    }

    /// The next leaf with its new value.
    pub(in crate::load) fn next(&mut self) -> (Path, Value) {
        let path = self.paths[self.next].clone();
        self.next = (self.next + 1) % self.paths.len();
        // A round of the sensors is even, the next odd: no sensor repeats its value.
        let odd = self.written / SENSORS as u64 % 2;
        self.written += 1;
        let value = match self.payload_bytes {
            None => {
                let hundredths = 2 * self.random.random_range(900..4_500) + odd;
                Value::float(hundredths as f64 / 100.0).unwrap_or_else(|_| 0.into())
            }
            Some(bytes) => Value::from(self.text(bytes, odd)),
        };
        (path, value)
    }

    fn text(&mut self, bytes: usize, odd: u64) -> String {
        const LETTERS: &[u8; 64] =
            b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
        let mut text = String::with_capacity(bytes);
        text.push(if odd == 1 { '1' } else { '0' });
        while text.len() < bytes {
            let mut bits: u64 = self.random.random();
            for _ in 0..10.min(bytes - text.len()) {
                text.push(LETTERS[(bits & 63) as usize] as char);
                bits >>= 6;
            }
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn values(seed: u64, payload_bytes: Option<usize>) -> Vec<(Path, Value)> {
        let mut signal = Signal::new(seed, payload_bytes).expect("valid paths");
        (0..2_000).map(|_| signal.next()).collect()
    }

    #[test]
    fn a_seed_repeats_a_run_and_another_does_not() {
        assert_eq!(values(1, None), values(1, None));
        assert_ne!(values(1, None), values(2, None));
    }

    #[test]
    fn a_sensor_never_repeats_its_value() {
        for payload_bytes in [None, Some(1), Some(1_000)] {
            let mut last = HashMap::new();
            for (path, value) in values(3, payload_bytes) {
                assert_ne!(last.insert(path, value.clone()), Some(value));
            }
        }
    }

    #[test]
    fn a_text_has_the_bytes_asked_for() {
        for bytes in [1, 100, 4_096] {
            let signal = values(4, Some(bytes));
            assert!(signal.iter().all(|(_, value)| value.size_bytes() == bytes));
        }
    }
}
