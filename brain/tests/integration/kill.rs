//! The brain is killed at random moments under load; what it had acknowledged is there.

use std::time::Duration;

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::history::LogId;
use serde_json::Value as Json;

use crate::harness::{brain, count, device};

const DEVICES: usize = 4;

/// `FLEET_KILLS` asks for another number of kills.
fn kills() -> u32 {
    std::env::var("FLEET_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_of_the_brain() {
    let kills = kills();
    let seed = std::env::var("FLEET_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    let mut random = Random(seed);
    let mut brain = brain();
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(device(&brain).await);
    }
    let mut acknowledged = 0;
    for _ in 0..kills {
        let run = Duration::from_millis(50 + random.next() % 400);
        let loads: Vec<_> = devices.drain(..).map(|device| tokio::spawn(load(device))).collect();
        tokio::time::sleep(run).await;
        brain.kill().expect("kills");
        for load in loads {
            devices.push(load.await.expect("the load does not panic"));
        }
        brain.restart().expect("starts again, above its high-water mark");
        acknowledged = devices.iter().map(LightDevice::stored).sum();
        for device in &devices {
            assert_nothing_is_missing(&brain, device);
        }
    }
    println!("kills: {kills}, seed: {seed}, acknowledged entries: {acknowledged}, lost: 0");
    assert!(acknowledged > u64::from(kills), "the load was too light to show anything");
    for device in &mut devices {
        device.connect().await.expect("connects");
        let all = |device: &LightDevice| device.stored() == device.written();
        device.run_until(all, Duration::from_secs(30)).await.expect("the rest arrives");
        assert_nothing_is_missing(&brain, device);
    }
}

/// Writes and waits for acknowledgements, up to 16 in flight, until the brain is gone.
async fn load(mut device: LightDevice) -> LightDevice {
    while device.connect().await.is_ok() {
        while device.is_connected() {
            while device.written() < device.stored() + 16 {
                let next = device.written() + 1;
                device.write("reported/count", count(next)).expect("a valid path");
            }
            let before = device.stored();
            let sealing = device.written().is_multiple_of(64);
            let said = match sealing {
                true => device.seal().await,
                false => device.offer().await,
            };
            let moved = |device: &LightDevice| device.stored() > before;
            if said.is_err() || device.run_until(moved, Duration::from_secs(20)).await.is_err() {
                return device;
            }
        }
    }
    device
}

/// The history holds every acknowledged entry once, in order, with its value, and the state is
/// what they fold to.
fn assert_nothing_is_missing(brain: &Brain, device: &LightDevice) {
    let id = device.membership.device;
    if device.stored() == 0 {
        return;
    }
    let counts = counts(brain, &id.to_string(), device.log());
    let acknowledged = device.stored() as usize;
    assert!(
        counts.len() >= acknowledged,
        "{acknowledged} were acknowledged, {} are there",
        counts.len()
    );
    let expected: Vec<u64> = (1..=counts.len() as u64).collect();
    assert_eq!(counts, expected, "each once, in order");
    let state = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    assert_eq!(state["state"]["reported/count"].as_u64(), counts.last().copied());
}

/// The values of `reported/count` in a device's history, oldest first.
fn counts(brain: &Brain, id: &str, log: LogId) -> Vec<u64> {
    let mut counts = Vec::new();
    let mut before = String::new();
    loop {
        let page = brain
            .get(&format!("/api/v1/devices/{id}/history?limit=1000{before}"))
            .expect("a history");
        for change in page["changes"].as_array().into_iter().flatten() {
            assert_eq!(change["author"], log.author.to_string().as_str());
            let delta = &change["delta"];
            let value = ["added", "modified"].map(|key| delta[key]["reported/count"].as_u64());
            counts.push(value.into_iter().flatten().next().expect("every entry counts"));
        }
        match &page["next"] {
            Json::Number(next) => before = format!("&before={next}"),
            _ => break,
        }
    }
    counts.reverse();
    counts
}

/// A small generator, so that a run repeats from its seed.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        // SplitMix64, by Sebastiano Vigna.
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }
}
