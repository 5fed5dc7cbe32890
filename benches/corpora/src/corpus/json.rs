//! Documents in which the boards of a fleet describe themselves: nested, regular, and each of
//! another board.

use serde_json::{Value, json};

use super::BEGIN_MS;
use crate::rng::SplitMix64;

/// The documents, without end.
#[derive(Debug)]
pub struct Documents {
    random: SplitMix64,
    number: u64,
}

impl Documents {
    /// The corpus of this seed.
    pub fn new(seed: u64) -> Self {
        Self { random: SplitMix64::part(seed, 3), number: 0 }
    }

    fn packages(&mut self) -> Vec<Value> {
        let known = [
            ("edge", "0.1.0"),
            ("linux-image-arm64", "6.1.119-1"),
            ("openssl", "3.0.15-1~deb12u1"),
            ("plc-gateway", "2.4.1"),
            ("nginx-light", "1.22.1-9+deb12u1"),
            ("chrony", "4.3-2+deb12u1"),
        ];
        let random = &mut self.random;
        let package = |(name, version): &(&str, &str), held| json!({ "name": name, "version": version, "held": held, "origin": "Debian:12/stable" });
        known.iter().map(|known| package(known, random.happens(20))).collect()
    }

    fn interface(&mut self, name: &str, site: i64) -> Value {
        let random = &mut self.random;
        let mac: Vec<_> = (0..3).map(|_| random.hex(2)).collect();
        let address = format!("10.{site}.{}.{}", random.between(0, 3), random.between(2, 254));
        json!({
            "name": name,
            "mac": format!("dc:a6:32:{}", mac.join(":")),
            "addresses": [{ "family": "inet", "address": address, "prefix": 22 }],
            "mtu": 1500,
            "statistics": {
                "receive_bytes": random.below(1 << 36),
                "transmit_bytes": random.below(1 << 34),
                "receive_errors": 0,
                "transmit_errors": 0,
            },
        })
    }

    fn disk(&mut self) -> Value {
        let random = &mut self.random;
        let (total, available) =
            (31_268_536_320_u64, random.between(4_000, 26_000) as u64 * 1_048_576);
        json!({
            "device": "/dev/mmcblk0p2",
            "mount": "/",
            "filesystem": "ext4",
            "total_bytes": total,
            "available_bytes": available,
            "wear_percent": random.between(0, 40),
        })
    }
}

impl Iterator for Documents {
    type Item = Value;

    fn next(&mut self) -> Option<Value> {
        self.number += 1;
        let packages = self.packages();
        let site = self.random.between(1, 9);
        let interfaces = [self.interface("eth0", site), self.interface("wlan0", site)];
        let disk = self.disk();
        let random = &mut self.random;
        let models = [
            ("Raspberry Pi 4 Model B Rev 1.5", 4),
            ("Raspberry Pi 5 Model B Rev 1.0", 4),
            ("Radxa ROCK 5B", 8),
        ];
        let (model, cores) = *random.pick(&models);
        let serial = random.hex(16);
        let sensors: Vec<_> = ["cpu_thermal", "gpu_thermal", "board"]
            .into_iter()
            .map(|name| {
                let celsius = random.between(3_800, 7_900) as f64 / 100.0;
                json!({ "name": name, "kind": "temperature", "unit": "celsius", "value": celsius })
            })
            .collect();
        let load: Vec<_> = (0..3).map(|_| random.between(1, 400) as f64 / 100.0).collect();
        Some(json!({
            "schema": "device/v1",
            "id": random.hex(32),
            "name": format!("board-{:05}", self.number),
            "site": format!("plant-{site}"),
            "reported_at_ms": BEGIN_MS + self.number * 250 + random.below(250),
            "hardware": {
                "model": model,
                "serial": serial,
                "architecture": "aarch64",
                "cores": cores,
                "memory_total_bytes": 4_045_733_888_u64,
            },
            "system": {
                "os": { "name": "Debian GNU/Linux", "version": "12", "codename": "bookworm" },
                "kernel": "6.1.0-28-arm64",
                "boot_id": random.hex(32),
                "uptime_seconds": random.below(9_000_000),
                "load": load,
                "clock": { "synchronised": !random.happens(10), "source": "ntp", "offset_us": random.step(2_000) },
            },
            "network": { "interfaces": interfaces },
            "storage": [disk],
            "sensors": sensors,
            "packages": packages,
            "tags": ["production", "line-a"],
        }))
    }
}
