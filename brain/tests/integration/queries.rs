//! Devices by what they are, the fleet at a time, writes on a condition, history gone through again.

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::state::Value as Leaf;
use serde_json::{Value, json};

use crate::harness::{SOON, brain, command, count, device, json as printed, order};

/// A connected device that has reported a temperature, with tags.
async fn crane(brain: &Brain, celsius: u64, tags: &[&str]) -> LightDevice {
    let mut device = device(brain).await;
    device.connect().await.expect("connects");
    report(&mut device, "reported/thermal/cpu_celsius", count(celsius)).await;
    let id = device.membership.device.to_string();
    order(brain, &[&["device", "tag", &id], tags].concat());
    device
        .run_until(|device| device.tree.leaves().len() > tags.len(), SOON)
        .await
        .expect("has them");
    device
}

async fn report(device: &mut LightDevice, path: &str, value: Leaf) {
    device.write(path, value).expect("written");
    device.offer().await.expect("offered");
    let all = device.written();
    device.run_until(|device| device.stored() == all, SOON).await.expect("stored");
}

fn id(device: &LightDevice) -> String {
    device.membership.device.to_string()
}

fn meant(brain: &Brain, query: &str) -> Vec<String> {
    let devices = printed(brain, &["device", "list", "--query", query]);
    let ids = devices.as_array().expect("a list").iter().map(|device| device["id"].clone());
    ids.map(|id| id.as_str().expect("text").to_owned()).collect()
}

fn lines(brain: &Brain, args: &[&str]) -> Vec<Value> {
    let output = command(brain, args).args(["--output", "json"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("text");
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

fn now() -> String {
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    let now = jiff::Timestamp::from_millisecond(now.as_millis() as i64).expect("a time");
    now.to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_query_finds_devices_by_state_tags_groups_and_presence() {
    let brain = brain();
    let hot = crane(&brain, 80, &["site=north", "location/zone=B"]).await;
    let mut cold = crane(&brain, 20, &["site=south"]).await;
    order(&brain, &["group", "create", "cranes"]);
    order(&brain, &["group", "add", "cranes", &id(&cold)]);
    let all = meant(&brain, "");
    assert_eq!(all.len(), 2);
    assert_eq!(meant(&brain, "reported/thermal/cpu_celsius > 70"), [id(&hot)]);
    assert_eq!(
        meant(&brain, "tags/site in (north, south) and not has tags/location/zone"),
        [id(&cold)]
    );
    assert_eq!(meant(&brain, "group = cranes"), [id(&cold)]);
    assert_eq!(meant(&brain, "age(reported/thermal/cpu_celsius) < 1h and online").len(), 2);
    cold.disconnect();
    let began = std::time::Instant::now();
    while meant(&brain, "not online") != [id(&cold)] {
        assert!(began.elapsed() < SOON, "it is away");
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let bad = command(&brain, &["device", "list", "--query", "site north"]).output().expect("runs");
    let said = String::from_utf8_lossy(&bad.stderr).into_owned();
    assert!(!bad.status.success() && said.contains("is no field"), "{said}");
    // Whoever is in a group is not said by tags that anybody sets.
    let target = format!("/api/v1/devices/{}/tags", id(&hot));
    let forged = json!({ "groups/cranes": true });
    assert_eq!(brain.call("PATCH", &target, Some(&forged)).expect("answers").0, 400);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_fleet_can_be_seen_as_it_was() {
    let brain = brain();
    let mut first = crane(&brain, 20, &["site=north"]).await;
    let before = now();
    tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    report(&mut first, "reported/thermal/cpu_celsius", count(90)).await;
    let second = crane(&brain, 50, &["site=north"]).await;
    let hot = "reported/thermal/cpu_celsius > 70";
    let celsius = |line: &Value| line["state"]["reported/thermal/cpu_celsius"].clone();
    let now = lines(&brain, &["fleet", "state", "--query", "tags/site = north"]);
    let mut found: Vec<_> =
        now.iter().map(|line| (line["device"].clone(), celsius(line))).collect();
    found.sort_by_key(|(device, _)| device.to_string());
    let mut wanted = vec![(json!(id(&first)), json!(90)), (json!(id(&second)), json!(50))];
    wanted.sort_by_key(|(device, _)| device.to_string());
    assert_eq!(found, wanted);
    let then = lines(&brain, &["fleet", "state", "--query", "tags/site = north", "--at", &before]);
    assert_eq!(then.len(), 1, "the other had no state: {then:?}");
    assert_eq!((then[0]["device"].clone(), celsius(&then[0])), (json!(id(&first)), json!(20)));
    assert_eq!(lines(&brain, &["fleet", "state", "--query", hot, "--at", &before]).len(), 0);
    assert_eq!(lines(&brain, &["fleet", "state", "--query", hot]).len(), 1);
    // The same question has the same answer.
    assert_eq!(
        then,
        lines(&brain, &["fleet", "state", "--query", "tags/site = north", "--at", &before])
    );
    let target = format!("/api/v1/fleet/state?query=online&at={before}");
    assert_eq!(brain.call("GET", &target, None).expect("answers").0, 400, "nobody knows");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_on_a_condition_happens_only_where_that_holds() {
    let brain = brain();
    let device = crane(&brain, 80, &["site=north"]).await;
    let id = id(&device);
    let set = |condition: &str| {
        let args = ["device", "set", &id, "fan=2", "--if", condition];
        let output = command(&brain, &args).output().expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (done, said) = set("reported/thermal/cpu_celsius < 70");
    assert!(!done && said.contains("PRECONDITION_FAILED"), "{said}");
    assert!(!set("name = crane").0, "the twin does not know");
    let state = printed(&brain, &["device", "show", &id]);
    assert_eq!(state["state"]["desired/fan"], Value::Null, "{state}");
    assert_eq!(set("tags/site = north and online"), (true, String::new()));
    let delta = printed(&brain, &["device", "delta", &id]);
    assert_eq!(
        (delta["in_sync"].clone(), delta["leaves"]["fan"]["desired"].clone()),
        (json!(false), json!(2))
    );
    assert_eq!(delta["leaves"]["fan"]["held_by"][0]["hold"], "under_way", "{delta}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_history_gone_through_again_comes_to_the_state_that_is_kept() {
    let brain = brain();
    let mut device = crane(&brain, 20, &["site=north"]).await;
    for celsius in 21..=40 {
        report(&mut device, "reported/thermal/cpu_celsius", count(celsius)).await;
    }
    let id = id(&device);
    let all = lines(&brain, &["replay", &id]);
    let verdict = &all.last().expect("a verdict")["verdict"];
    assert_eq!(
        (verdict["same"].clone(), verdict["version"].clone()),
        (json!(true), json!(all.len() - 1))
    );
    // Each step leads to the root that the state of that version has.
    for version in [1, 7, 15] {
        let step = &all[version - 1]["change"];
        let state = printed(&brain, &["device", "show", &id, "--version", &version.to_string()]);
        assert_eq!(
            (step["version"].clone(), step["root"].clone()),
            (json!(version), state["metadata"]["root"].clone())
        );
    }
    let part = lines(&brain, &["replay", &id, "--to", "7", "--quiet"]);
    assert_eq!((part.len(), part[0]["verdict"]["version"].clone()), (1, json!(7)));
    let beyond = command(&brain, &["replay", &id, "--to", "9999"]).output().expect("runs");
    assert!(!beyond.status.success());
}
