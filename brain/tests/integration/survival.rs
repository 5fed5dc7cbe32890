//! What a connected device notices when its actor fails, or leaves memory: nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::state::Path;
use serde_json::json;

use crate::harness::{BRAIN, SOON, act, brain_with, count, device, node, pause, twin, until};

/// A device's actor that may fail as often as it likes.
const HARDY: &str = "[supervision.device.intensity]\nrestarts = 100000\nwithin_ms = 60000\n\
    [supervision.device.backoff]\nimmediate = 1000000\n";

async fn write(device: &mut LightDevice, entries: std::ops::Range<u64>) {
    for n in entries {
        device.write(&format!("reported/n{}", n % 30), count(n)).expect("written");
    }
    device.offer().await.expect("offered");
}

fn account(brain: &Brain, device: &LightDevice) -> serde_json::Value {
    let path = format!("/api/v1/devices/{}", device.membership.device);
    brain.get(&path).expect("a device")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_survives_the_crashes_of_its_twin_and_nothing_is_lost_or_applied_twice() {
    const ENTRIES: u64 = 3_000;
    const BATCH: u64 = 50;
    const KILLS: u64 = 30;
    let brain = Arc::new(brain_with(BRAIN, HARDY));
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    write(&mut device, 0..1).await;
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    let before = account(&brain, &device);
    let (path, over) = (twin(&brain), Arc::new(AtomicBool::new(false)));
    let killed = Arc::new(AtomicU64::new(0));
    let killer = std::thread::spawn({
        let (brain, path, over) = (brain.clone(), path.clone(), over.clone());
        let killed = killed.clone();
        move || {
            while !over.load(Ordering::Relaxed) {
                let hit = act(&brain, &path, "kill") == 204;
                killed.fetch_add(u64::from(hit), Ordering::Relaxed);
            }
        }
    });
    for first in (1..ENTRIES).step_by(BATCH as usize) {
        // Spread over all of it, however fast the entries go.
        let began = std::time::Instant::now();
        while killed.load(Ordering::Relaxed) < first * KILLS / ENTRIES {
            assert!(began.elapsed() < SOON, "nobody is killed");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        write(&mut device, first..(first + BATCH).min(ENTRIES)).await;
        device.seal().await.expect("sealed");
        let behind = move |device: &LightDevice| device.stored() + 4 * BATCH >= first;
        device.run_until(behind, SOON).await.expect("goes on");
    }
    device.run_until(|device| device.stored() == ENTRIES, SOON).await.expect("stored");
    over.store(true, Ordering::Relaxed);
    killer.join().expect("ends");
    let sealed = |device: &LightDevice| device.sealed() == ENTRIES;
    device.run_until(sealed, SOON).await.expect("sealed, although the news may have been lost");
    assert!(device.is_connected() && device.ended.is_none(), "{:?}", device.ended);
    let after = account(&brain, &device);
    assert_eq!(after["connected_since"], before["connected_since"], "one connection all the time");
    assert_eq!(after["entries"]["stored"], ENTRIES, "{}", after["entries"]);
    assert_eq!(after["version"], ENTRIES, "no entry made two versions");
    let figures = |name: &str| after["entries"][name].as_u64().unwrap_or_default();
    let refused = after["entries"]["refused"].as_object().expect("reasons");
    let lost: u64 = refused.values().filter_map(serde_json::Value::as_u64).sum();
    assert_eq!(
        figures("received"),
        figures("stored") + figures("duplicate") + lost + figures("in_flight")
    );
    let restarts = node(&brain, &path).expect("is there")["restarts"].as_u64();
    println!("killed {killed:?} times, restarted {restarts:?}; {}", after["entries"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_writes_reaches_the_device_through_crashes() {
    let brain = brain_with(BRAIN, HARDY);
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let path = twin(&brain);
    for n in 1..=20 {
        assert_eq!(act(&brain, &path, "kill"), 204);
        set(&brain, &device, n);
        let sees = move |device: &LightDevice| desired(device, n);
        device.run_until(sees, SOON).await.expect("the device hears of it");
    }
    assert!(device.is_connected() && device.ended.is_none());
}

fn set(brain: &Brain, device: &LightDevice, n: u64) {
    let path = format!("/api/v1/devices/{}/desired", device.membership.device);
    let leaves = json!({ "n": n });
    // An answer may be lost with the actor that was to give it: then it is asked again.
    for _ in 0..50 {
        let (status, _) = brain.call("PATCH", &path, Some(&leaves)).expect("answers");
        if status == 200 {
            return;
        }
        pause();
    }
    panic!("never written");
}

fn desired(device: &LightDevice, n: u64) -> bool {
    device.tree.value(&Path::new("desired/n").expect("valid")).as_deref() == Some(&count(n))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_twin_leaves_memory_and_nobody_notices() {
    let brain = brain_with(BRAIN, "[residency]\nidle_after_ms = 300\nforget_after_ms = 1000\n");
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    write(&mut device, 0..3).await;
    device.run_until(|device| device.stored() == 3, SOON).await.expect("stored");
    let path = twin(&brain);
    let passive = |node: &serde_json::Value| node["status"] == "passive";
    for round in 1..=3u64 {
        let rests = until(&brain, &path, passive);
        assert_eq!((&rests["restarts"], &rests["last_crash"]), (&0.into(), &json!(null)));
        let shown = account(&brain, &device);
        assert_eq!(shown["online"], true, "a look does not wake it");
        assert!(node(&brain, &path).as_ref().is_some_and(passive));
        // An operator wakes it, and the device hears of what is written.
        set(&brain, &device, round);
        let sees = move |device: &LightDevice| desired(device, round);
        device.run_until(sees, SOON).await.expect("the device hears of it");
        until(&brain, &path, passive);
        // The device wakes it.
        write(&mut device, 3 * round..3 * round + 3).await;
        let stored = 3 * round + 3;
        device.run_until(|device| device.stored() == stored, SOON).await.expect("stored");
    }
    assert!(device.is_connected() && device.ended.is_none());
    until(&brain, &path, passive);
    device.disconnect();
    let began = std::time::Instant::now();
    while node(&brain, &path).is_some() {
        assert!(began.elapsed() < SOON, "it stays although its device is away");
        pause();
    }
    device.connect().await.expect("connects again");
    write(&mut device, 12..13).await;
    device.run_until(|device| device.stored() == 13, SOON).await.expect("stored");
    let dead = brain.get("/api/v1/tree/dead").expect("the dead");
    assert!(dead.as_array().into_iter().flatten().any(|node| node["path"] == path.as_str()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_memory_is_short_twins_leave_it_early() {
    let brain = brain_with(BRAIN, "[residency]\nmemory_high_bytes = 1\nforget_after_ms = 4000\n");
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let path = twin(&brain);
    until(&brain, &path, |node| node["status"] == "passive");
    write(&mut device, 0..1).await;
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    assert!(device.is_connected() && device.ended.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_is_accounted_for_and_the_device_comes_back() {
    let brain = brain_with(BRAIN, "");
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let nodes = brain.get("/api/v1/tree").expect("a tree");
    let connections: Vec<_> = nodes
        .as_array()
        .into_iter()
        .flatten()
        .filter(|node| node["kind"] == "connection")
        .collect();
    let path = match connections.as_slice() {
        [one] => one["path"].as_str().expect("text").to_owned(),
        // That of the enrolment may linger.
        more => more.last().expect("a connection")["path"].as_str().expect("text").to_owned(),
    };
    assert!(path.starts_with("brain/ingress/connections/127.0.0.1:"), "{path}");
    assert_eq!(act(&brain, &path, "kill"), 204);
    device.run_until(|_| false, SOON).await.ok();
    assert!(!device.is_connected());
    assert_eq!(account(&brain, &device)["online"], false);
    // It is written down by somebody else, who may come later.
    crate::groups::wait("its end is on record", || {
        let crashes = brain.get("/api/v1/crashes").expect("crashes");
        crashes[0]["path"] == path.as_str() && crashes[0]["decision"] == "let_go"
    });
    device.connect().await.expect("connects again");
    assert_eq!(account(&brain, &device)["online"], true);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(brain.metric("fleet_link_active").expect("a figure"), 1.0);
}
