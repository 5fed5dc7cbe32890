//! Every fault in every kind of actor, while a fleet is at work.

use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::ErrorCode;
use protocol::state::Value as Leaf;
use serde_json::{Value, json};

use super::BRAIN_LAB;
use crate::harness::{SOON, act, brain_with, count, device, node, pause, twin, until};

async fn write(device: &mut LightDevice, path: &str, n: u64) {
    device.write(path, count(n)).expect("written");
    device.offer().await.expect("offered");
}

fn quarantine(brain: &Brain) -> Value {
    brain.get("/api/v1/quarantine/messages").expect("messages")
}

/// The first dead letter, which reaches the disk a moment after the device is told.
fn kept(brain: &Brain) -> Value {
    let began = Instant::now();
    loop {
        let letter = quarantine(brain)[0].clone();
        if letter.is_object() {
            return letter;
        }
        assert!(began.elapsed() < SOON, "it is never kept");
        pause();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_entry_that_kills_its_twin_is_put_aside_and_the_device_is_told() {
    let brain = brain_with(BRAIN_LAB, "");
    let (mut device, mut other) = (device(&brain).await, device(&brain).await);
    device.connect().await.expect("connects");
    other.connect().await.expect("connects");
    for n in 1..=6 {
        // In the midst of a batch.
        let path = if n == 4 { "reported/chaos/poison" } else { "reported/n" };
        device.write(path, count(n)).expect("written");
    }
    device.offer().await.expect("offered");
    let told = |device: &LightDevice| {
        device.refused.as_ref().is_some_and(|refuse| refuse.error.code == ErrorCode::DeadLettered)
    };
    device.run_until(told, SOON).await.expect("the device is told");
    assert_eq!(device.refused.as_ref().map(|refuse| refuse.seq), Some(4), "which entry it was");
    let before = |device: &LightDevice| device.stored() == 3;
    device.run_until(before, SOON).await.expect("all before it are stored");
    assert!(device.is_connected() && device.ended.is_none(), "{:?}", device.ended);
    let letter = kept(&brain);
    assert_eq!(quarantine(&brain).as_array().map(Vec::len), Some(1));
    assert_eq!(letter["message"], "entries_came");
    assert!(letter["fault"].as_str().is_some_and(|fault| fault.contains("poisoned")), "{letter}");
    let id = letter["id"].as_str().expect("an id");
    let shown = brain.get(&format!("/api/v1/quarantine/messages/{id}")).expect("is there");
    let path = &shown["content"]["entries"][0]["delta"];
    assert!(path.to_string().contains("reported/chaos/poison"), "{shown}");
    assert!(shown["bytes"].as_str().is_some_and(|bytes| bytes.len() > 20));
    let crashes = brain.get("/api/v1/crashes").expect("crashes");
    let crashes = crashes.as_array().expect("a list");
    assert!((3..=4).contains(&crashes.len()), "retried at most three times: {crashes:?}");
    assert!(
        crashes
            .iter()
            .any(|crash| crash["digest"].as_str().is_some_and(|digest| id.starts_with(digest))),
        "{crashes:?}"
    );
    // Nobody else noticed.
    write(&mut other, "reported/n", 1).await;
    other.run_until(|other| other.stored() == 1, SOON).await.expect("stored");
    assert_eq!(node(&brain, "brain/devices").expect("is there")["restarts"], 0);
    // By another way it is harmless, as after an update that mends the fault.
    let (status, done) = brain.call("POST", &replay(id), None).expect("answers");
    assert_eq!((status, &done["version"]), (200, &json!(4)), "{done}");
    assert_eq!(quarantine(&brain), json!([]));
}

fn replay(id: &str) -> String {
    format!("/api/v1/quarantine/messages/{id}/replay")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_letter_that_still_kills_stays_until_it_is_thrown_away() {
    let brain = brain_with(BRAIN_LAB, "[supervision.device.intensity]\nrestarts = 100\n");
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    write(&mut device, "reported/chaos/deadly", 1).await;
    device.run_until(|device| device.refused.is_some(), SOON).await.expect("told");
    let id = kept(&brain)["id"].as_str().expect("an id").to_owned();
    for failures in [4, 5, 6] {
        let (status, why) = brain.call("POST", &replay(&id), None).expect("answers");
        assert_eq!(status, 503, "{why}");
        until(&brain, &device_path(&brain, &device), |node| node["status"] == "running");
        let crashes = brain.get("/api/v1/crashes").expect("crashes");
        assert_eq!(crashes.as_array().map(Vec::len), Some(failures));
    }
    assert_eq!(quarantine(&brain).as_array().map(Vec::len), Some(1), "{}", quarantine(&brain));
    let letter = format!("/api/v1/quarantine/messages/{id}");
    assert_eq!(brain.call("DELETE", &letter, None).expect("answers").0, 204);
    assert_eq!(quarantine(&brain), json!([]));
    assert_eq!(brain.call("DELETE", &letter, None).expect("answers").0, 404);
    let (status, why) = brain.call("POST", &replay("xyz"), None).expect("answers");
    assert_eq!((status, why["error"]["code"].as_str()), (400, Some("BAD_REQUEST")), "{why}");
}

fn device_path(brain: &Brain, device: &LightDevice) -> String {
    let name = format!("/{}", device.membership.device);
    let nodes = brain.get("/api/v1/tree").expect("a tree");
    let mut paths = nodes.as_array().into_iter().flatten().filter_map(|node| node["path"].as_str());
    paths.find(|path| path.ends_with(&name)).expect("a twin").to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_survives_every_fault_and_the_journal_has_a_record_of_each() {
    let brain = brain_with(
        BRAIN_LAB,
        "[supervision.device]\nstuck_after_ms = 500\n\
         [supervision.device.intensity]\nrestarts = 1000\nwithin_ms = 60000\n",
    );
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let path = twin(&brain);
    // What is recorded of each: a blocked thread is slow, and no more.
    let faults = [
        ("panic", vec!["panic"]),
        ("error", vec!["error"]),
        ("hang", vec!["stuck"]),
        ("spin", vec!["stuck"]),
        ("block", vec![]),
        ("grow", vec!["panic"]),
        ("fail_starts", vec!["panic", "error", "error"]),
    ];
    let mut recorded = 0;
    for (n, (fault, kinds)) in (1u64..).zip(faults) {
        assert_eq!(act(&brain, &path, &format!("chaos/{fault}")), 204, "{fault}");
        write(&mut device, "reported/n", n).await;
        let stored = |device: &LightDevice| device.stored() == n;
        device.run_until(stored, SOON).await.unwrap_or_else(|error| panic!("{fault}: {error}"));
        recorded += kinds.len();
        let crashes = brain.get("/api/v1/crashes").expect("crashes");
        let crashes = crashes.as_array().expect("a list");
        assert_eq!(crashes.len(), recorded, "one record for each, after {fault}: {crashes:?}");
        let mut newest: Vec<_> =
            crashes.iter().take(kinds.len()).map(|crash| crash["fault"].clone()).collect();
        newest.reverse();
        assert_eq!(newest, kinds, "{fault}");
    }
    assert!(device.is_connected() && device.ended.is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_of_actor_comes_back_and_the_others_keep_serving() {
    let brain = brain_with(
        BRAIN_LAB,
        "[supervision.part.intensity]\nrestarts = 1000\nwithin_ms = 60000\n\
         [supervision.root.budget.restarts]\nrestarts = 1000\nwithin_ms = 60000\n\
         [supervision.ingress.budget.restarts]\nrestarts = 1000\nwithin_ms = 60000\n",
    );
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let (mut n, mut records) = (0, 0);
    let parts = ["enrolment", "residency", "keys", "consistency", "errors", "store", "journal"];
    for part in ["ingress/device-listener", "ingress/api"].into_iter().chain(parts) {
        let path = format!("brain/{part}");
        for fault in ["panic", "error", "fail_starts"] {
            let before = node(&brain, &path).expect("is there")["restarts"].as_u64();
            assert_eq!(act(&brain, &path, &format!("chaos/{fault}")), 204, "{part} {fault}");
            n += 1;
            write(&mut device, "reported/n", n).await;
            device.run_until(|device| device.stored() == n, SOON).await.expect("served meanwhile");
            records += if fault == "fail_starts" { 3 } else { 1 };
            let back = |brain: &Brain| {
                let (_, tree) = brain.call("GET", "/api/v1/tree", None).ok()?;
                let node = tree.as_array()?.iter().find(|node| node["path"] == path.as_str())?;
                (node["restarts"].as_u64() > before && node["status"] == "running").then_some(())
            };
            let began = Instant::now();
            // The API is one of them: it does not answer while it is down.
            while back(&brain).is_none() {
                assert!(began.elapsed() < SOON, "{part} does not come back from {fault}");
                pause();
            }
            let crashes = brain.get("/api/v1/crashes?limit=100").expect("crashes");
            assert_eq!(crashes.as_array().map(Vec::len), Some(records), "{part} {fault}");
        }
    }
    assert!(device.is_connected(), "no restart of them ends a connection");
    // What connections stand on takes them along, and they come back; the store stays open.
    for part in ["ingress/connections", "devices"] {
        assert_eq!(act(&brain, &format!("brain/{part}"), "kill"), 204);
        let began = Instant::now();
        loop {
            device.disconnect();
            if device.connect().await.is_ok() {
                break;
            }
            assert!(began.elapsed() < SOON, "no way in after {part}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    write(&mut device, "reported/n", n + 1).await;
    device.run_until(|device| device.stored() == n + 1, SOON).await.expect("stored");
    assert_eq!(node(&brain, "brain").expect("is there")["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_whose_twin_fails_at_every_connect_ends_in_quarantine_and_can_be_let_out() {
    let brain = brain_with(BRAIN_LAB, "");
    let (mut flapping, mut calm) = (device(&brain).await, device(&brain).await);
    calm.connect().await.expect("connects");
    flapping.connect().await.expect("connects");
    let path = device_path(&brain, &flapping);
    let quarantined = |node: &Value| node["status"] == "quarantined";
    let began = Instant::now();
    let mut n = 0;
    while !node(&brain, &path).as_ref().is_some_and(quarantined) {
        assert!(began.elapsed() < SOON, "it is never quarantined");
        act(&brain, &path, "chaos/panic");
        n += 1;
        write(&mut calm, "reported/n", n).await;
        calm.run_until(|calm| calm.stored() == n, SOON).await.expect("nobody else notices");
    }
    let over = |device: &LightDevice| !device.is_connected();
    flapping.run_until(over, SOON).await.expect("it is told to go");
    let ended = flapping.ended.take().expect("with a reason");
    assert_eq!(ended.error.code, ErrorCode::Quarantined);
    assert!(ended.retry_after_ms.is_some_and(|ms| ms >= 1_000), "{ended:?}");
    let refused = flapping.connect().await.expect_err("not while it is quarantined");
    assert!(refused.to_string().contains("QUARANTINED"), "{refused}");
    let release = format!("/api/v1/quarantine/{}/release", path.replace('/', "%2F"));
    assert_eq!(brain.call("POST", &release, None).expect("answers").0, 204);
    flapping.connect().await.expect("it is back");
    flapping.write("reported/n", Leaf::from(1)).expect("written");
    flapping.offer().await.expect("offered");
    flapping.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    assert_eq!(node(&brain, "brain/devices").expect("is there")["restarts"], 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brain_in_which_nothing_moves_ends_for_its_service_manager_to_start_it_again() {
    let environment = [("WATCHDOG_USEC", "1000000")];
    let mut brain = Brain::start_with(BRAIN_LAB, &environment).expect("starts");
    brain.wait_ready().expect("ready");
    // Each takes one thread of the runtime away.
    let threads = std::thread::available_parallelism().expect("is known").get();
    let mut devices = Vec::new();
    for _ in 0..threads {
        let mut device = device(&brain).await;
        device.connect().await.expect("connects");
        devices.push(device);
    }
    let paths: Vec<_> = devices.iter().map(|device| device_path(&brain, device)).collect();
    std::thread::scope(|scope| {
        for path in &paths {
            let target = format!("/api/v1/tree/{}/chaos/stall", path.replace('/', "%2F"));
            let brain = &brain;
            // The answer may never come.
            scope.spawn(move || drop(brain.call("POST", &target, None)));
        }
    });
    let began = Instant::now();
    let status = loop {
        if let Some(status) = brain.ended().expect("is known") {
            break status;
        }
        assert!(began.elapsed() < SOON, "it goes on");
        pause();
    };
    let signal = std::os::unix::process::ExitStatusExt::signal(&status);
    assert_eq!(signal, Some(6), "aborted, which a service manager counts as a failure: {status}");
}
