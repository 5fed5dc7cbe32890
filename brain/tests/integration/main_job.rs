//! The main job with the real `edge`: enrol, sense, store, set, apply, report.

use std::time::{Duration, Instant};

use benches::brain::Brain;
use serde_json::{Value, json};

use crate::edge_process::{Edge, enroll};
use crate::harness::{brain, pause};

const SOON: Duration = Duration::from_secs(30);

/// Waits until the only device fits, and gives it back with its state.
fn wait_for(brain: &Brain, what: &str, fits: impl Fn(&Value, &Value) -> bool) -> (Value, Value) {
    let until = Instant::now() + SOON;
    loop {
        let devices = brain.get("/api/v1/devices").expect("devices");
        let device = &devices["devices"][0];
        let id = device["id"].as_str().unwrap_or_default();
        let state = brain.call("GET", &format!("/api/v1/devices/{id}/state"), None);
        let state = state.expect("answers").1["state"].clone();
        if fits(device, &state) {
            return (device.clone(), state);
        }
        assert!(Instant::now() < until, "{what}: {device} {state}");
        pause();
    }
}

#[test]
fn a_sensor_value_travels_to_the_store_and_a_setting_comes_back_applied() {
    let brain = brain();
    let folder = tempfile::tempdir().expect("temporary folder");
    enroll(&brain, folder.path());
    let edge = Edge::run(folder.path());
    let (device, state) = wait_for(&brain, "reports its machine", |device, state| {
        device["online"] == true && state["reported/machine/memory_available_bytes"].is_number()
    });
    assert_eq!(device["name"], "this-machine");
    let total = state["reported/machine/memory_total_bytes"].as_u64().expect("its memory");
    let known = std::fs::read_to_string("/proc/meminfo").expect("reads");
    let kib: u64 = known.split_whitespace().nth(1).expect("a number").parse().expect("a number");
    assert_eq!(total, kib * 1024, "the real memory of this machine");
    let id = device["id"].as_str().expect("an id");
    let history = brain.get(&format!("/api/v1/devices/{id}/history")).expect("a history");
    let change = &history["changes"][0];
    for key in ["source", "principal", "reason"] {
        assert!(change[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {change}");
    }
    let desired = format!("/api/v1/devices/{id}/desired");
    let period = json!({ "sense/machine/period_ms": 1_500, "nonsense": 1 });
    assert_eq!(brain.call("PATCH", &desired, Some(&period)).expect("answers").0, 200);
    wait_for(&brain, "applies what it can", |_, state| {
        state["reported/applied/sense/machine/period_ms"] == 1_500
            && state["reported/apply_errors/nonsense"].is_string()
    });
    edge.stop();
    wait_for(&brain, "is seen to leave", |device, _| device["online"] == false);
}

#[test]
fn what_happens_while_the_brain_is_away_arrives_in_order_once() {
    let mut brain = brain();
    let folder = tempfile::tempdir().expect("temporary folder");
    enroll(&brain, folder.path());
    let mut edge = Edge::run(folder.path());
    let (device, _) = wait_for(&brain, "connects", |device, _| device["online"] == true);
    let id = device["id"].as_str().expect("an id").to_owned();
    let desired = format!("/api/v1/devices/{id}/desired");
    let often = json!({ "sense/machine/period_ms": 200, "sense/machine/dead_band_cpu_percent": 0.01,
        "sense/machine/dead_band_load": 0.001 });
    brain.call("PATCH", &desired, Some(&often)).expect("answers");
    wait_for(&brain, "samples often", |_, state| {
        state["reported/applied/sense/machine/period_ms"] == 200
    });
    let before = device_version(&brain, &id);
    brain.kill().expect("kills");
    // Killed and started in between: what it wrote is on its disk.
    for _ in 0..3 {
        (0..10).for_each(|_| pause());
        edge.kill();
        edge = Edge::run(folder.path());
    }
    (0..10).for_each(|_| pause());
    brain.restart().expect("starts");
    wait_for(&brain, "sends what it kept", |device, _| {
        device["online"] == true && device["version"].as_u64() > Some(before + 3)
    });
    let history =
        brain.get(&format!("/api/v1/devices/{id}/history?limit=1000")).expect("a history");
    let mut last = std::collections::BTreeMap::new();
    for change in history["changes"].as_array().expect("changes").iter().rev() {
        let log = change["author"].as_str().expect("a key").to_owned();
        let (seq, happened) = (change["seq"].as_u64(), change["happened"].as_u64());
        let previous = last.insert(log.clone(), (seq, happened));
        if let Some((previous_seq, previous_time)) = previous {
            // A new epoch begins at 1; within one there is no gap and no double.
            let next = previous_seq.map(|seq| seq + 1);
            assert!(seq == next || seq == Some(1), "{log}: {seq:?} after {previous_seq:?}");
            assert!(happened >= previous_time || seq == Some(1), "{change}");
        }
    }
}

fn device_version(brain: &Brain, id: &str) -> u64 {
    let device = brain.get(&format!("/api/v1/devices/{id}")).expect("the device");
    device["version"].as_u64().expect("a version")
}
