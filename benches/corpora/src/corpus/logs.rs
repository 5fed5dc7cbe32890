//! Lines of the services on one board.
//!
//! Each line comes from a template with parameters that repeat as they do in practice: a few
//! units, interfaces and peers, many numbers, and ids that occur a handful of times.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::BEGIN_MS;
use crate::rng::SplitMix64;

/// One line.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LogLine {
    /// When, in nanoseconds since the Unix epoch.
    pub timestamp: u64,
    /// How important it is.
    pub level: String,
    /// The service.
    pub target: String,
    /// The text.
    pub message: String,
    /// What the text says apart from words.
    pub fields: BTreeMap<String, String>,
}

/// The lines, without end.
#[derive(Debug)]
pub struct Logs {
    random: SplitMix64,
    timestamp_ns: u64,
    device: String,
    process: BTreeMap<&'static str, i64>,
    requests: Vec<String>,
    temperature_milli: i64,
}

type Field = (&'static str, String);

impl Logs {
    /// The corpus of this seed.
    pub fn new(seed: u64) -> Self {
        let mut random = SplitMix64::part(seed, 2);
        let device = random.hex(32);
        let services = ["edge", "kernel", "systemd", "NetworkManager", "nginx", "plc-gateway"];
        let process = services.map(|service| (service, random.between(300, 4_000))).into();
        let timestamp_ns = BEGIN_MS * 1_000_000;
        let requests = Vec::new();
        Self { random, timestamp_ns, device, process, requests, temperature_milli: 51_000 }
    }

    /// An id that a few lines in a row share, as those of one request do.
    fn request(&mut self) -> String {
        if self.requests.is_empty() || self.random.happens(300) {
            let id = self.random.hex(16);
            self.requests.push(id);
            if self.requests.len() > 4 {
                self.requests.remove(0);
            }
        }
        let newest = self.requests.len() as u64;
        let at = self.random.below(newest) as usize;
        self.requests[at].clone()
    }

    fn line(&mut self) -> (&'static str, &'static str, &'static str, Vec<Field>) {
        match self.random.below(100) {
            0..=29 => {
                let request = self.request();
                let random = &mut self.random;
                let path = *random.pick(&["/api/state", "/api/metrics", "/healthz", "/api/jobs"]);
                let status = *random.pick(&["200", "200", "200", "200", "204", "304", "404"]);
                let fields = vec![
                    ("request", request),
                    ("method", "GET".to_owned()),
                    ("path", path.to_owned()),
                    ("status", status.to_owned()),
                    ("duration_us", random.between(180, 9_000).to_string()),
                ];
                ("info", "nginx", "request served", fields)
            }
            30..=49 => {
                self.temperature_milli =
                    (self.temperature_milli + self.random.step(900)).clamp(38_000, 84_000);
                let celsius = format!(
                    "{}.{:03}",
                    self.temperature_milli / 1_000,
                    self.temperature_milli % 1_000
                );
                let fields = vec![("sensor", "cpu_thermal".to_owned()), ("celsius", celsius)];
                ("debug", "edge", "sensor sampled", fields)
            }
            50..=69 => {
                let random = &mut self.random;
                let fields = vec![
                    ("register", (40_001 + random.below(24)).to_string()),
                    ("value", random.between(0, 4_095).to_string()),
                    ("station", random.between(1, 4).to_string()),
                ];
                ("info", "plc-gateway", "register read", fields)
            }
            70..=81 => {
                let random = &mut self.random;
                let entries = random.between(1, 40);
                let fields = vec![
                    ("entries", entries.to_string()),
                    ("bytes", (entries * 24 + random.between(40, 90)).to_string()),
                    ("round_trip_ms", random.between(4, 60).to_string()),
                ];
                ("info", "edge", "entries acknowledged", fields)
            }
            82..=89 => {
                let random = &mut self.random;
                let unit =
                    *random.pick(&["logrotate.service", "apt-daily.service", "fstrim.service"]);
                let message =
                    *random.pick(&["Starting unit", "Finished unit", "Deactivated successfully"]);
                ("info", "systemd", message, vec![("unit", unit.to_owned())])
            }
            90..=94 => {
                let random = &mut self.random;
                let fields = vec![
                    ("interface", (*random.pick(&["eth0", "wlan0"])).to_owned()),
                    ("signal_dbm", random.between(-80, -40).to_string()),
                ];
                ("info", "NetworkManager", "connectivity checked", fields)
            }
            95..=97 => {
                let random = &mut self.random;
                let fields = vec![
                    ("station", random.between(1, 4).to_string()),
                    ("attempt", random.between(1, 3).to_string()),
                ];
                ("warn", "plc-gateway", "station did not answer, trying again", fields)
            }
            98 => {
                let address = format!("{:#010x}", self.random.below(1 << 32));
                let fields = vec![("device", "mmc0".to_owned()), ("address", address)];
                ("warn", "kernel", "tuning execution failed", fields)
            }
            _ => {
                let fields = vec![("wait_ms", self.random.between(500, 30_000).to_string())];
                ("error", "edge", "the link is down, calling again", fields)
            }
        }
    }
}

impl Iterator for Logs {
    type Item = LogLine;

    fn next(&mut self) -> Option<LogLine> {
        // Lines come in bursts: most within a millisecond of each other, a few seconds apart.
        let gap_ns = if self.random.happens(120) { 2_000_000_000 } else { 900_000 };
        self.timestamp_ns += self.random.below(gap_ns) + 1;
        let (level, target, message, fields) = self.line();
        let common = [("device", self.device.clone()), ("pid", self.process[target].to_string())];
        let fields = common.into_iter().chain(fields);
        Some(LogLine {
            timestamp: self.timestamp_ns,
            level: level.to_owned(),
            target: target.to_owned(),
            message: message.to_owned(),
            fields: fields.map(|(name, value)| (name.to_owned(), value)).collect(),
        })
    }
}
