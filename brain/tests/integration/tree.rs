//! The supervision tree, seen and touched from outside, on a real brain.

use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Instant;

use benches::brain::Brain;
use protocol::state::Value as Leaf;
use serde_json::Value;

use crate::harness::{BRAIN, SOON, brain, command, device, json, node, order, twin, until};

fn refused(brain: &Brain, args: &[&str]) -> String {
    let output = command(brain, args).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn is_running(node: &Value) -> bool {
    node["status"] == "running"
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_twin_comes_back_and_the_journal_tells_of_it_also_after_a_restart() {
    let mut brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    device.write("reported/n", Leaf::from(1)).expect("written");
    device.offer().await.expect("offered");
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    let path = twin(&brain);
    let said = order(&brain, &["tree", "kill", &path]);
    assert!(said.contains("brain crashes"), "{said}");
    let back = until(&brain, &path, |node| node["restarts"] == 1 && is_running(node));
    assert_eq!(back["last_crash"]["fault"]["fault"], "killed");
    device.disconnect();
    device.connect().await.expect("connects again");
    device.write("reported/n", Leaf::from(2)).expect("written");
    device.offer().await.expect("offered");
    device.run_until(|device| device.stored() == 2, SOON).await.expect("stored");
    for restarted in [false, true] {
        if restarted {
            brain.kill().expect("dies");
            brain.restart().expect("starts again");
            brain.wait_ready().expect("is ready");
        }
        let crashes = json(&brain, &["crashes", "--below", &path]);
        assert_eq!(crashes.as_array().map(Vec::len), Some(1), "{crashes}");
        let crash = &crashes[0];
        assert_eq!((&crash["kind"], &crash["fault"]), (&"device".into(), &"killed".into()));
        assert_eq!((&crash["decision"], &crash["failures"]), (&"restart".into(), &1.into()));
        assert!(crash["delay_ms"].is_u64() && crash["at_ms"].as_u64() > Some(0), "{crash}");
        assert_eq!(json(&brain, &["crashes", "--below", "brain/ingress"]), Value::Array(vec![]));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_twin_that_fails_too_often_is_quarantined_and_can_be_let_out() {
    let brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let path = twin(&brain);
    let began = Instant::now();
    let quarantined = loop {
        let listed = json(&brain, &["quarantine", "list"]);
        if let Some(node) = listed["actors"].as_array().and_then(|nodes| nodes.first()) {
            break node.clone();
        }
        assert!(began.elapsed() < SOON, "it is never quarantined");
        if node(&brain, &path).as_ref().is_some_and(is_running) {
            order(&brain, &["tree", "kill", &path]);
        }
    };
    assert_eq!(
        (&quarantined["path"], &quarantined["reason"]),
        (&path.clone().into(), &"killed".into())
    );
    assert!(quarantined["remaining_ms"].as_u64() > Some(0), "{quarantined}");
    let last = &json(&brain, &["crashes", "--below", &path, "--limit", "1"])[0];
    assert_eq!(last["decision"], "quarantine", "{last}");
    order(&brain, &["quarantine", "release", &path]);
    until(&brain, &path, is_running);
    assert_eq!(json(&brain, &["quarantine", "list"])["actors"], Value::Array(vec![]));
    let why = refused(&brain, &["quarantine", "release", &path]);
    assert!(why.contains("is running and cannot be released"), "{why}");
    device.disconnect();
    device.connect().await.expect("connects again");
}

#[test]
fn a_restart_takes_those_along_that_build_on_it_and_is_no_crash() {
    let brain = brain();
    let incarnation = |path: &str| node(&brain, path).expect("is there")["incarnation"].as_u64();
    let parts = ["brain/devices", "brain/ingress", "brain/enrolment", "brain/journal"];
    let before = parts.map(incarnation);
    order(&brain, &["tree", "restart", "brain/ingress"]);
    for (path, before) in parts.into_iter().zip(before).skip(1) {
        until(&brain, path, |node| node["incarnation"].as_u64() > before && is_running(node));
    }
    until(&brain, "brain/ingress/api", is_running);
    assert_eq!(json(&brain, &["crashes"]), Value::Array(vec![]));
    assert_eq!(incarnation("brain/devices"), before[0], "it is older");
}

#[test]
fn the_rules_in_force_are_shown_with_what_the_settings_changed() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("brain.toml");
    let rule = "[supervision.device.intensity]\nrestarts = 7\nwithin_ms = 1000\n";
    std::fs::write(&file, rule).expect("writes");
    let file = file.to_str().expect("text");
    let brain = Brain::start_with(BRAIN, &[("FLEET_BRAIN_CONFIG", file)]).expect("starts");
    brain.wait_ready().expect("is ready");
    let rules = json(&brain, &["tree", "--policies"]);
    let of = |path: &str| {
        let mut rules = rules.as_array().into_iter().flatten();
        rules.find(|rules| rules["path"] == path).cloned().expect("is listed")
    };
    assert_eq!(of("brain")["set"]["strategy"], "rest_for_one");
    let device = of("brain/devices/shard-7/*");
    assert_eq!(device["child"]["intensity"]["restarts"], 7);
    assert_eq!(device["child"]["restart"], "transient");
    assert_eq!(of("brain/devices")["set"]["exhausted"], "quarantine");
    let table = command(&brain, &["tree", "--policies"]).output().expect("runs");
    let table = String::from_utf8_lossy(&table.stdout).into_owned();
    assert!(table.contains("7 in 1.0 s") && table.contains("rest for one"), "{table}");
}

#[test]
fn what_cannot_be_done_is_refused_with_a_reason() {
    let brain = brain();
    let nobody = refused(&brain, &["tree", "kill", "brain/nobody"]);
    assert!(nobody.contains("brain tree"), "{nobody}");
    let root = refused(&brain, &["tree", "restart", "brain"]);
    assert!(root.contains("restart the service"), "{root}");
    let (status, _) = brain.call("GET", "/api/v1/crashes?limit=0", None).expect("answers");
    assert_eq!(status, 400);
}

#[test]
fn whoever_watches_sees_the_crash_the_decision_and_the_return() {
    let brain = brain();
    let mut watching = command(&brain, &["tree", "--watch", "--below", "brain/ingress"])
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    let mut lines = BufReader::new(watching.stdout.take().expect("piped")).lines();
    let mut next = move || lines.next().expect("a line").expect("text");
    while !next().contains("running") {}
    order(&brain, &["tree", "kill", "brain/ingress/device-listener"]);
    let mut seen = Vec::new();
    while !seen.last().is_some_and(|line: &String| line.contains("  running (life ")) {
        seen.push(next());
    }
    watching.kill().expect("ends");
    watching.wait().expect("ended");
    let crash = seen.iter().find(|line| line.contains("crashed")).expect("the crash");
    assert!(crash.contains("killed -> restart in ") && crash.contains("failure 1"), "{seen:?}");
}
