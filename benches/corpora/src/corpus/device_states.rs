//! Entries of one device's tree, as the agent writes them: what left its dead band at a sample of
//! a group of sensors, under the agent's paths and provenances.

use std::collections::BTreeMap;

use protocol::clock::ClockQuality;
use protocol::history::{Author, Draft, Entry, Genesis, LogId, Provenance, Tree, TreeKind};
use protocol::state::{Path, StateDelta, StateSource, Value};
use protocol::{DeviceId, EntryId, FleetId, PublicKey};
use serde::Serialize;

use super::BEGIN_MS;
use super::metrics::day_permille;
use crate::rng::SplitMix64;

/// Between samples of one group.
const PERIOD_MS: u64 = 5_000;

/// The entries, without end.
#[derive(Debug)]
pub struct DeviceStates {
    random: SplitMix64,
    tree: Tree,
    author: Author,
    now_ms: u64,
    group: usize,
    sensors: BTreeMap<&'static str, Vec<Sensor>>,
}

/// A value that is reported when it leaves its dead band.
#[derive(Debug)]
struct Sensor {
    path: &'static str,
    /// In units of 1 / `scale`; whole where `scale` is 0.
    value: i64,
    scale: i64,
    least: i64,
    most: i64,
    step: i64,
    band: i64,
    reported: Option<i64>,
}

/// An entry as people read it.
#[derive(Debug, Serialize)]
pub struct Readable<'a> {
    id: EntryId,
    seq: u64,
    happened_ms: u64,
    source: StateSource,
    principal: &'a str,
    reason: &'a str,
    delta: &'a StateDelta,
}

impl<'a> From<&'a Entry> for Readable<'a> {
    fn from(entry: &'a Entry) -> Self {
        let Provenance { source, principal, reason } = &entry.provenance;
        let (id, seq, happened_ms) = (entry.id(), entry.seq, entry.hlc.wall_ms);
        Self { id, seq, happened_ms, source: *source, principal, reason, delta: &entry.delta }
    }
}

impl DeviceStates {
    /// The corpus of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix64::part(seed, 4);
        let mut bytes = || std::array::from_fn(|_| random.next() as u8);
        let (fleet, device) = (FleetId([0xF1; 16]), DeviceId(bytes_16(&bytes())));
        let key = PublicKey(bytes());
        let genesis = Genesis { kind: TreeKind::Device, fleet, name: device.to_string() };
        let log = LogId { author: key, epoch: random.next() };
        Self {
            random,
            tree: Tree::new(genesis),
            author: Author::new(log, Default::default()),
            now_ms: BEGIN_MS,
            group: 0,
            sensors: sensors(),
        }
    }

    /// The tree that the entries so far fold to.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// Samples the next group.
    fn sample(&mut self) -> Option<Entry> {
        let groups: Vec<_> = self.sensors.keys().copied().collect();
        let name = groups[self.group % groups.len()];
        self.group += 1;
        self.now_ms += PERIOD_MS / groups.len() as u64 + self.random.below(4);
        let minute = (self.now_ms - BEGIN_MS) / 60_000;
        let mut changes = Vec::new();
        for sensor in self.sensors.get_mut(name)? {
            let warm = (sensor.most - sensor.least) * day_permille(minute) / 4_000;
            let pull = (sensor.least + warm - sensor.value) / 400;
            let moved = sensor.value + pull + self.random.step(sensor.step);
            sensor.value = moved.clamp(sensor.least, sensor.most);
            let news = sensor.reported.is_none_or(|old| (old - sensor.value).abs() > sensor.band);
            if news {
                sensor.reported = Some(sensor.value);
                let path = Path::new(sensor.path).expect("the paths here are sound");
                changes.push((path, Some(sensor.leaf())));
            }
        }
        let provenance =
            Provenance::new(StateSource::Hardware, &format!("sensor:{name}"), "sampled");
        let draft = Draft { changes, provenance, lease_until_ms: None };
        let quality = ClockQuality::Synchronised;
        let entry = self.author.write(&self.tree, draft, self.now_ms, quality)?;
        self.tree.apply(&entry, entry.id());
        Some(entry)
    }
}

fn bytes_16(bytes: &[u8; 32]) -> [u8; 16] {
    std::array::from_fn(|at| bytes[at])
}

impl Iterator for DeviceStates {
    type Item = Entry;

    fn next(&mut self) -> Option<Entry> {
        loop {
            if let Some(entry) = self.sample() {
                return Some(entry);
            }
        }
    }
}

impl Sensor {
    fn leaf(&self) -> Value {
        match self.scale {
            0 => Value::from(self.value),
            scale => Value::float(self.value as f64 / scale as f64).expect("finite"),
        }
    }
}

fn sensors() -> BTreeMap<&'static str, Vec<Sensor>> {
    let sensor = |path, scale, (least, most), step, band| Sensor {
        path,
        value: (least + most) / 2,
        scale,
        least,
        most,
        step,
        band,
        reported: None,
    };
    let thermal = vec![
        sensor("reported/thermal/cpu_celsius", 1_000, (38_000, 84_000), 700, 500),
        sensor("reported/thermal/gpu_celsius", 1_000, (38_000, 80_000), 500, 500),
        sensor("reported/thermal/board_celsius", 1_000, (25_000, 60_000), 150, 500),
        sensor("reported/thermal/pwm_fan_rpm", 0, (900, 4_800), 120, 100),
    ];
    let power = vec![
        sensor("reported/power/rails/5v_volts", 1_000, (4_900, 5_150), 25, 50),
        sensor("reported/power/rails/3v3_volts", 1_000, (3_270, 3_330), 8, 50),
        sensor("reported/power/supplies/dc/watts", 1_000, (2_700, 8_200), 300, 500),
    ];
    let machine = vec![
        sensor("reported/machine/cpu_percent", 10, (0, 1_000), 60, 50),
        sensor("reported/machine/load1", 100, (0, 400), 20, 25),
        sensor(
            "reported/machine/memory_available_bytes",
            0,
            (1 << 30, 3 << 30),
            24 << 20,
            40 << 20,
        ),
        sensor(
            "reported/machine/disk_available_bytes",
            0,
            (20 << 30, 24 << 30),
            9 << 20,
            150 << 20,
        ),
    ];
    BTreeMap::from([("machine", machine), ("power", power), ("thermal", thermal)])
}
