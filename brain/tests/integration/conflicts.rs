//! Changes that did not know of each other: noticed, decided, explained.

use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::state::Value as Leaf;
use serde_json::{Value, json};

use crate::harness::{
    SOON, brain, command, count, device, json as printed, node, pause, until, way,
};

/// A device with an older copy of its disk: it knows nothing of what the other has written.
fn restored(brain: &Brain, device: &LightDevice) -> LightDevice {
    LightDevice::new(device.membership.clone(), way(brain))
}

async fn write(device: &mut LightDevice, leaves: &[(&str, Leaf)]) {
    for (path, value) in leaves {
        device.write(path, value.clone()).expect("written");
    }
    device.offer().await.expect("offered");
    let all = device.written();
    device.run_until(|device| device.stored() == all, SOON).await.expect("stored");
}

/// Two lives of a device that write the same leaf, the second without knowing of the first.
pub(crate) async fn fork(
    brain: &Brain,
    policy: Option<Value>,
    values: [u64; 2],
) -> [LightDevice; 2] {
    let mut first = device(brain).await;
    first.connect().await.expect("connects");
    if let Some(policy) = policy {
        let target = format!("/api/v1/devices/{}/conflict-policy", first.membership.device);
        let (status, answer) = brain.call("PUT", &target, Some(&policy)).expect("answers");
        assert_eq!(status, 200, "{answer}");
        first.run_until(|device| device.tree.policy() == 1, SOON).await.expect("has the policy");
    }
    write(&mut first, &[("reported/limit", count(values[0])), ("reported/first", count(1))]).await;
    first.disconnect();
    // Which of them is later follows from their clocks.
    tokio::time::sleep(Duration::from_millis(5)).await;
    let mut second = restored(brain, &first);
    second.write("reported/limit", count(values[1])).expect("written");
    second.write("reported/second", count(1)).expect("written");
    second.connect().await.expect("connects");
    second.offer().await.expect("offered");
    second.run_until(|device| device.stored() == 2, SOON).await.expect("stored");
    [first, second]
}

fn conflicts(brain: &Brain, device: &LightDevice) -> Vec<Value> {
    let target = format!("/api/v1/devices/{}/conflicts", device.membership.device);
    brain.get(&target).expect("a list").as_array().expect("a list").clone()
}

/// The one conflict of a device, once it has come so far.
pub(crate) fn conflict(brain: &Brain, device: &LightDevice, status: &str) -> Value {
    let began = Instant::now();
    loop {
        let found = conflicts(brain, device);
        assert!(found.len() <= 1, "{found:?}");
        if found.first().is_some_and(|conflict| conflict["status"] == status) {
            return found[0].clone();
        }
        assert!(began.elapsed() < SOON, "never {status}: {found:?}");
        pause();
    }
}

fn why(brain: &Brain, device: &LightDevice, path: &str) -> Value {
    let id = device.membership.device.to_string();
    printed(brain, &["why", &id, path])[0].clone()
}

fn state(brain: &Brain, device: &LightDevice) -> Value {
    let target = format!("/api/v1/devices/{}/state", device.membership.device);
    brain.get(&target).expect("a state")["state"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_lives_of_a_device_that_did_not_know_of_each_other_make_one_conflict() {
    let mut brain = brain();
    let [first, second] = fork(&brain, None, [1, 2]).await;
    let found = conflict(&brain, &second, "resolved");
    let keys: Vec<_> = found.as_object().expect("an object").keys().cloned().collect();
    for key in ["id", "type", "states", "timestamp", "status"] {
        assert!(keys.iter().any(|found| found == key), "{keys:?}");
    }
    assert_eq!(found["type"], "version_fork");
    assert_eq!(found["path"], "reported/limit", "what only one of them wrote is none");
    assert_eq!(found["states"].as_array().map(Vec::len), Some(2));
    let end = &found["resolution"];
    let keys: Vec<_> = end.as_object().expect("an object").keys().cloned().collect();
    assert_eq!(keys, ["conflict_id", "metadata", "result", "strategy", "timestamp"]);
    assert_eq!((&end["conflict_id"], &end["strategy"]), (&found["id"], &json!("hardware_truth")));
    assert_eq!(end["result"], 2, "both are from hardware, so the later counts");
    assert_eq!(state(&brain, &second)["reported/limit"], 2);
    assert_eq!(state(&brain, &second)["reported/first"], 1, "nothing else is lost");
    let why = why(&brain, &second, "reported/limit");
    assert_eq!(why["value"], 2);
    assert_eq!(why["set_by"]["principal"], "sensor:test");
    assert_eq!(why["conflict"]["id"], found["id"]);
    let mut sides: Vec<_> =
        why["conflict"]["sides"].as_array().expect("sides").iter().map(|s| &s["value"]).collect();
    sides.sort_by_key(|side| side.as_i64());
    assert_eq!(sides, [1, 2]);
    // Each piece of evidence can be fetched by its id.
    let id = found["id"].as_str().expect("an id");
    assert_eq!(brain.get(&format!("/api/v1/conflicts/{id}")).expect("is there"), found);
    assert_eq!(brain.call("GET", "/api/v1/conflicts/xyz", None).expect("answers").0, 400);
    let none = "0".repeat(64);
    let (status, _) =
        brain.call("GET", &format!("/api/v1/conflicts/{none}"), None).expect("answers");
    assert_eq!(status, 404);
    drop(first);
    brain.stop().expect("stops");
    brain.restart().expect("starts");
    assert_eq!(conflicts(&brain, &second), [found], "the record outlives the brain");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_policy_of_a_tree_decides_and_goes_to_the_device_with_it() {
    let brain = brain();
    let safest = json!({ "rules": [
        { "paths": "reported/limit", "strategy": { "safest_value": "lowest" }, "severity": "critical" }
    ]});
    let [_, second] = fork(&brain, Some(safest.clone()), [40, 80]).await;
    let found = conflict(&brain, &second, "resolved");
    assert_eq!(found["severity"], "critical");
    assert_eq!(found["resolution"]["strategy"], "safest_value");
    assert_eq!(found["resolution"]["result"], 40, "the lower limit, although it is the older one");
    assert_eq!(found["resolution"]["metadata"]["policy"], "1");
    assert_eq!(state(&brain, &second)["reported/limit"], 40);
    let id = second.membership.device.to_string();
    let target = format!("/api/v1/devices/{id}/conflict-policy");
    let policy = brain.get(&target).expect("a policy");
    assert_eq!((&policy["version"], &policy["policy"]), (&json!(1), &safest));
    let wrong = json!({ "rules": [{ "paths": "a*", "strategy": "manual" }] });
    let (status, why) = brain.call("PUT", &target, Some(&wrong)).expect("answers");
    assert_eq!(status, 400, "{why}");
    assert!(why["detail"].as_str().is_some_and(|text| text.contains("whole segment")), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_person_decides_the_conflict_waits_also_through_a_restart() {
    let mut brain = brain();
    let manual = json!({ "rules": [{ "paths": "reported/limit", "strategy": "manual" }] });
    let [first, mut second] = fork(&brain, Some(manual), [40, 80]).await;
    let found = conflict(&brain, &second, "open");
    let path = format!("brain/jobs/conflicts/{}", found["id"].as_str().expect("an id"));
    until(&brain, &path, |node| node["status"] == "passive");
    assert_eq!(
        state(&brain, &second)["reported/limit"],
        40,
        "nothing new takes effect meanwhile: {found}"
    );
    let told = why(&brain, &second, "reported/limit");
    assert_eq!(told["conflict"]["waits_for_a_person"], true, "{told}");
    second.disconnect();
    brain.stop().expect("stops");
    brain.restart().expect("starts");
    brain.wait_ready().expect("ready");
    until(&brain, &path, |node| node["status"] == "passive");
    // Whoever has seen both sides and writes the leaf has decided.
    let (log, written) = (first.log(), first.written());
    let knows_both =
        |device: &LightDevice| device.tree.log(&log).is_some_and(|known| known.seq == written);
    second.connect().await.expect("connects");
    second.run_until(knows_both, SOON).await.expect("hears of the other side");
    second.write("reported/limit", count(60)).expect("written");
    second.offer().await.expect("offered");
    second.run_until(|device| device.stored() == 3, SOON).await.expect("stored");
    let found = conflict(&brain, &second, "resolved");
    assert_eq!(found["resolution"]["strategy"], "entry");
    assert_eq!(found["resolution"]["result"], 60);
    assert_eq!(state(&brain, &second)["reported/limit"], 60);
    let began = Instant::now();
    while node(&brain, &path).is_some() {
        assert!(began.elapsed() < SOON, "its actor does not end");
        pause();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn why_names_who_set_a_leaf_over_what_and_what_holds_it_back() {
    let brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let id = device.membership.device.to_string();
    for speed in [1, 2] {
        let reason = format!("--reason=speed {speed}");
        let leaf = format!("fan/speed={speed}");
        let done = command(&brain, &["device", "set", &id, &leaf, &reason]).status();
        assert!(done.expect("runs").success());
    }
    let told = why(&brain, &device, "desired/fan/speed");
    assert_eq!((&told["value"], &told["before"]["value"]), (&json!(2), &json!(1)));
    assert_eq!(told["set_by"]["reason"], "speed 2");
    assert_eq!(told["set_by"]["source"], "operator");
    assert_eq!(told["before"]["reason"], "speed 1");
    assert_eq!(told["device"]["in_force"], false);
    assert_eq!(told["device"]["held_by"], json!([{ "hold": "under_way" }]));
    write(&mut device, &[("reported/apply_errors/fan/speed", Leaf::from("no such fan"))]).await;
    device.disconnect();
    let offline = |told: &Value| told["device"]["held_by"][0]["hold"] == "offline";
    let began = Instant::now();
    let told = loop {
        let told = why(&brain, &device, "desired/fan/speed");
        if offline(&told) {
            break told;
        }
        assert!(began.elapsed() < SOON, "{told}");
        pause();
    };
    let error = json!({ "hold": "apply_error", "message": "no such fan" });
    assert_eq!(told["device"]["held_by"][1], error);
    device.connect().await.expect("connects");
    write(&mut device, &[("reported/applied/fan/speed", count(2))]).await;
    let told = why(&brain, &device, "desired/fan/speed");
    assert_eq!(told["device"], json!({ "applied": 2, "in_force": true, "held_by": [] }));
    // For people: one leaf at length, several in a table, an unknown one with an error.
    let text = |args: &[&str]| {
        let output = command(&brain, args).output().expect("runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    let one = text(&["why", &id, "desired/fan/speed"]);
    assert!(one.contains("before that: 1") && one.contains("the device has applied it"), "{one}");
    let all = text(&["why", &id, "reported"]);
    assert!(all.contains("reported/applied/fan/speed") && all.contains("PRINCIPAL"), "{all}");
    assert!(text(&["conflict", "list", &id]).contains("no conflict has come up"));
    let output = command(&brain, &["why", &id, "desired/nothing"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("does not exist"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_a_condition_happens_at_that_version_only_and_a_restore_is_a_new_version() {
    let brain = brain();
    let device = device(&brain).await;
    let id = device.membership.device.to_string();
    let desired = format!("/api/v1/devices/{id}/desired");
    let patch = |speed: u64, tag: &str| {
        let body = json!({ "fan/speed": speed });
        brain.call_with("PATCH", &desired, Some(&body), &[("if-match", tag)]).expect("answers")
    };
    assert_eq!(patch(1, "\"0\"").0, 200);
    assert_eq!(patch(2, "\"1\"").0, 200);
    let (status, stale) = patch(3, "\"1\"");
    assert_eq!((status, &stale["error"]["code"]), (412, &json!("PRECONDITION_FAILED")), "{stale}");
    assert_eq!(patch(3, "nonsense").0, 400);
    assert_eq!(state(&brain, &device)["desired/fan/speed"], 2);
    let set = command(&brain, &["device", "set", &id, "fan/speed=4", "--if-version=1"]).output();
    let set = set.expect("runs");
    assert_eq!(set.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&set.stderr).contains("at version 2, not 1"), "{set:?}");
    let restored = printed(&brain, &["device", "restore", &id, "--version=1", "--reason=noise"]);
    assert_eq!(restored["version"], 3);
    assert_eq!(state(&brain, &device)["desired/fan/speed"], 1);
    let told = why(&brain, &device, "desired/fan/speed");
    assert_eq!(told["set_by"]["reason"], "restored to version 1: noise");
    let (status, _) = brain
        .call("POST", &format!("/api/v1/devices/{id}/restore?version=99"), None)
        .expect("answers");
    assert_eq!(status, 404);
}

#[test]
fn what_is_desired_of_a_sensor_loses_to_what_it_measures_and_is_flagged() {
    const LEAF: &str = "machine/memory_total_bytes";
    let mut brain = brain();
    let member = crate::groups::member(&brain);
    let measured = |brain: &Brain| {
        let state = brain.get(&format!("/api/v1/devices/{}/state", member.id)).expect("a state");
        state["state"][format!("reported/{LEAF}")].clone()
    };
    let began = Instant::now();
    while measured(&brain).is_null() {
        assert!(began.elapsed() < SOON, "no sensor reports");
        pause();
    }
    let set = |brain: &Brain, value: &str| {
        let leaf = format!("{LEAF}={value}");
        let done = command(brain, &["device", "set", &member.id, &leaf]).output().expect("runs");
        assert!(done.status.success(), "{done:?}");
    };
    let resolved = |brain: &Brain| {
        let began = Instant::now();
        loop {
            let found =
                brain.get(&format!("/api/v1/devices/{}/conflicts", member.id)).expect("a list");
            if found[0]["status"] == "resolved" {
                assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
                return found[0].clone();
            }
            assert!(began.elapsed() < SOON, "never resolved: {found}");
            pause();
        }
    };
    set(&brain, "17");
    let found = resolved(&brain);
    assert_eq!(found["type"], "physical");
    assert_eq!(found["path"], format!("desired/{LEAF}"));
    assert_eq!(found["resolution"]["strategy"], "hardware_truth");
    let result = &found["resolution"]["result"];
    assert_eq!(result, &measured(&brain), "{found}");
    let delta = printed(&brain, &["device", "delta", &member.id]);
    let held = delta["leaves"][LEAF]["held_by"].as_array().expect("holds").clone();
    let physical = held.iter().find(|hold| hold["hold"] == "physical");
    assert!(physical.is_some(), "it is flagged: {delta}");
    // The same wish is the same conflict, also for a brain that starts anew.
    brain.kill().expect("kills");
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    assert_eq!(resolved(&brain)["id"], found["id"]);
    // It ends with the wish, and another wish is another conflict.
    set(&brain, "");
    let delta = printed(&brain, &["device", "delta", &member.id]);
    assert!(!delta.to_string().contains("physical"), "{delta}");
}
