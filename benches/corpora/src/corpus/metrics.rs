//! A day of one board's metrics.
//!
//! Every minute all series are sampled at one moment. Temperatures follow the hour and the load,
//! counters grow, gauges walk; a sample carries its name, value, timestamp in nanoseconds and
//! labels, as collectors write them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::BEGIN_MS;
use crate::rng::SplitMix64;

/// How many series a board has; all are sampled each minute.
pub const SERIES: usize = 29;

/// Between samples.
const PERIOD_NS: u64 = 60_000_000_000;
/// A collector wakes up so much late at most: its timer's slack and a busy processor.
const JITTER_NS: u64 = 4_000_000;

/// One sample.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metric {
    /// The series' name.
    pub name: String,
    /// The value.
    pub value: f64,
    /// When, in nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// What tells series of one name apart.
    pub labels: BTreeMap<String, String>,
}

/// The samples, without end.
#[derive(Debug)]
pub struct Metrics {
    random: SplitMix64,
    board: Vec<(String, String)>,
    series: Vec<Series>,
    /// How busy the board is, in permille.
    busy: i64,
    minute: u64,
    timestamp_ns: u64,
    next: usize,
}

#[derive(Debug)]
struct Series {
    name: &'static str,
    labels: Vec<(&'static str, &'static str)>,
    /// In units of 1 / `scale`.
    value: i64,
    scale: i64,
    kind: Motion,
}

/// How a series moves from minute to minute.
#[derive(Debug, Clone, Copy)]
enum Motion {
    /// Grows by `idle` and by `busy` for each permille of load.
    Counter { idle: i64, busy: i64 },
    /// Goes to a place between `cold` and `hot` that the load and the hour say.
    Warmth { cold: i64, hot: i64 },
    /// Walks between two bounds.
    Walk { least: i64, most: i64, step: i64 },
    /// Is the load itself, times this.
    Load { factor: i64 },
    /// Never moves.
    Fixed,
}

impl Metrics {
    /// The corpus of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix64::part(seed, 1);
        let pair = |name: &str, value: String| (name.to_owned(), value);
        let board = vec![
            pair("device", random.hex(32)),
            pair("site", format!("plant-{}", random.between(1, 9))),
        ];
        Self {
            series: series(&mut random),
            board,
            busy: 150,
            minute: 0,
            timestamp_ns: BEGIN_MS * 1_000_000 + random.below(JITTER_NS),
            next: 0,
            random,
        }
    }

    /// All series move on by a minute.
    fn tick(&mut self) {
        self.minute += 1;
        self.timestamp_ns =
            BEGIN_MS * 1_000_000 + self.minute * PERIOD_NS + self.random.below(JITTER_NS);
        // Work comes in the day and in bursts.
        let rest = 80 + day_permille(self.minute) / 4;
        let burst = if self.random.happens(30) { 500 } else { 0 };
        self.busy =
            (self.busy + (rest - self.busy) / 8 + burst + self.random.step(40)).clamp(5, 1_000);
        for series in &mut self.series {
            series.tick(self.busy, self.minute, &mut self.random);
        }
    }
}

impl Iterator for Metrics {
    type Item = Metric;

    fn next(&mut self) -> Option<Metric> {
        if self.next == self.series.len() {
            self.next = 0;
            self.tick();
        }
        let series = &self.series[self.next];
        self.next += 1;
        let own =
            series.labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Some(Metric {
            name: series.name.to_owned(),
            value: series.value as f64 / series.scale as f64,
            timestamp: self.timestamp_ns,
            labels: self.board.iter().cloned().chain(own).collect(),
        })
    }
}

impl Series {
    fn tick(&mut self, busy: i64, minute: u64, random: &mut SplitMix64) {
        match self.kind {
            Motion::Counter { idle, busy: more } => {
                self.value += idle + more * busy / 1_000 + random.between(0, idle / 20 + 1);
            }
            Motion::Warmth { cold, hot } => {
                let room = (hot - cold) * day_permille(minute) / 3_000;
                let goal = cold + room + (hot - cold) * busy / 1_500;
                self.value += (goal - self.value) / 4 + random.step((hot - cold) / 40 + 1);
            }
            Motion::Walk { least, most, step } => {
                self.value = (self.value + random.step(step)).clamp(least, most);
            }
            Motion::Load { factor } => self.value = busy * factor + random.between(0, factor),
            Motion::Fixed => {}
        }
    }
}

/// How far the day is: 0 at night, 1,000 at two in the afternoon, a parabola in between.
pub(super) fn day_permille(minute: u64) -> i64 {
    let from_noon = (minute % 1_440) as i64 - 840;
    let half = 480;
    if from_noon.abs() >= half {
        return 0;
    }
    1_000 - from_noon * from_noon * 1_000 / (half * half)
}

fn series(random: &mut SplitMix64) -> Vec<Series> {
    type Labels = Vec<(&'static str, &'static str)>;
    let mut all = Vec::new();
    let mut add = |name, labels: Labels, value, scale, kind| {
        all.push(Series { name, labels, value, scale, kind });
    };
    let mut start = |most: i64| random.between(most / 2, most);
    for cpu in ["0", "1", "2", "3"] {
        let of = |mode| vec![("cpu", cpu), ("mode", mode)];
        let name = "cpu_seconds_total";
        add(
            name,
            of("idle"),
            start(900_000_000),
            100,
            Motion::Counter { idle: 5_000, busy: -3_000 },
        );
        add(name, of("user"), start(50_000_000), 100, Motion::Counter { idle: 60, busy: 2_600 });
        add(name, of("system"), start(20_000_000), 100, Motion::Counter { idle: 30, busy: 700 });
    }
    add("load1", vec![], 60, 100, Motion::Load { factor: 4 });
    for (zone, hot) in [("cpu", 78_000), ("gpu", 74_000), ("board", 55_000)] {
        let kind = Motion::Warmth { cold: 38_000, hot };
        add("temperature_celsius", vec![("zone", zone)], 41_000, 1_000, kind);
    }
    add("fan_rpm", vec![("fan", "pwm-fan")], 1_200, 1, Motion::Warmth { cold: 900, hot: 4_800 });
    let walk = |least, most, step| Motion::Walk { least, most, step };
    add("rail_volts", vec![("rail", "5v")], 5_080, 1_000, walk(4_900, 5_150, 6));
    add("rail_volts", vec![("rail", "3v3")], 3_301, 1_000, walk(3_270, 3_330, 3));
    add("supply_watts", vec![], 3_900, 1_000, Motion::Warmth { cold: 2_700, hot: 8_200 });
    // Memory is counted in pages, disks in blocks, both of 4 KiB.
    add("memory_available_pages", vec![], 620_000, 1, walk(200_000, 900_000, 2_500));
    add("memory_total_pages", vec![], 974_000, 1, Motion::Fixed);
    add(
        "disk_available_blocks",
        vec![("mount", "/")],
        5_400_000,
        1,
        walk(5_000_000, 5_600_000, 12),
    );
    for (interface, traffic) in [("eth0", 90_000), ("wlan0", 2_000)] {
        let kind = Motion::Counter { idle: traffic, busy: traffic * 9 };
        add("network_receive_bytes_total", vec![("interface", interface)], start(1 << 33), 1, kind);
        add(
            "network_transmit_bytes_total",
            vec![("interface", interface)],
            start(1 << 31),
            1,
            kind,
        );
    }
    add("network_errors_total", vec![("interface", "eth0")], 3, 1, Motion::Fixed);
    add("uptime_seconds", vec![], start(4_000_000), 1, Motion::Counter { idle: 60, busy: 0 });
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_minute_samples_every_series_at_one_moment() {
        assert_eq!(series(&mut SplitMix64::new(1)).len(), SERIES);
        let day: Vec<_> = Metrics::new(1).take(1_440 * SERIES).collect();
        for minute in day.chunks(SERIES) {
            assert!(minute.iter().all(|sample| sample.timestamp == minute[0].timestamp));
            assert!(minute.iter().all(|sample| sample.value.is_finite()));
        }
        let last_ms = day.last().map(|sample| sample.timestamp / 1_000_000);
        assert_eq!(last_ms.map(|ms| (ms - BEGIN_MS) / 60_000), Some(1_439));
    }

    #[test]
    fn counters_only_grow_and_the_day_is_warmer_than_the_night() {
        let day: Vec<_> = Metrics::new(3).take(1_440 * SERIES).collect();
        let of = |name: &'static str, label: &'static str| {
            let ours = move |sample: &&Metric| {
                sample.name == name && sample.labels.values().any(|value| value == label)
            };
            day.iter().filter(ours).map(|sample| sample.value).collect::<Vec<_>>()
        };
        for counter in
            [of("network_receive_bytes_total", "eth0"), of("network_transmit_bytes_total", "wlan0")]
        {
            assert!(counter.is_sorted(), "a counter never falls");
        }
        let celsius = of("temperature_celsius", "cpu");
        let mean = |values: &[f64]| values.iter().sum::<f64>() / values.len() as f64;
        assert!(mean(&celsius[780..900]) > mean(&celsius[..120]) + 3.0);
    }
}
