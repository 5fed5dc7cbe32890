//! The command line, as people type it.

use std::process::{Command, Output, Stdio};

use benches::brain::Brain;
use serde_json::Value;

use crate::harness::{BRAIN, brain, device};

fn run(brain: &Brain, args: &[&str]) -> Output {
    Command::new(BRAIN)
        .args(args)
        .env("FLEET_BRAIN_URL", format!("http://{}", brain.api))
        .env("FLEET_BRAIN_TOKEN_FILE", brain.data().join("admin.token"))
        .output()
        .expect("runs")
}

fn json(output: &Output) -> Value {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn devices_are_listed_shown_set_and_their_history_told() {
    let brain = brain();
    let id = device(&brain).await.membership.device.to_string();
    let short = &id[..8];
    let list = json(&run(&brain, &["device", "list", "--output", "json"]));
    assert_eq!(list[0]["id"], id.as_str());
    let table = run(&brain, &["device", "list"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("offline"));
    let set = [
        "device",
        "set",
        short,
        "fan/rpm=900",
        "mode=eco",
        "--reason",
        "trial",
        "--output",
        "json",
    ];
    assert_eq!(json(&run(&brain, &set))["version"], 1);
    let shown = json(&run(&brain, &["device", "show", &id, "--output", "json"]));
    assert_eq!(shown["state"]["desired/fan/rpm"], 900);
    assert_eq!(shown["state"]["desired/mode"], "eco");
    let removed = ["device", "set", short, "mode="];
    assert!(run(&brain, &removed).status.success());
    let history = run(&brain, &["device", "history", short]);
    let text = String::from_utf8_lossy(&history.stdout).into_owned();
    for word in ["operator", "user:admin", "trial", "desired/fan/rpm = 900", "desired/mode removed"]
    {
        assert!(text.contains(word), "{word} in {text}");
    }
    let old = json(&run(&brain, &["device", "show", short, "--version", "1", "--output", "json"]));
    assert_eq!(old["state"]["desired/mode"], "eco");
}

#[test]
fn failures_say_what_to_do_and_exit_with_one() {
    let brain = brain();
    let unknown = run(&brain, &["device", "show", "nobody"]);
    assert_eq!(unknown.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("brain device list"));
    let usage = run(&brain, &["device", "nonsense"]);
    assert_eq!(usage.status.code(), Some(2));
    let nobody = Command::new(BRAIN)
        .args(["device", "list", "--url", "http://127.0.0.1:1"])
        .env("FLEET_BRAIN_TOKEN", "fbt_x")
        .output()
        .expect("runs");
    assert_eq!(nobody.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&nobody.stderr).contains("is it running"));
    let again = Command::new(BRAIN).arg("init").arg("--data-dir").arg(brain.data()).output();
    let again = again.expect("runs");
    assert_eq!(again.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&again.stderr).contains("nothing was changed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_who_leaves_early_is_no_failure_to_shout_about() {
    let brain = brain();
    let _device = device(&brain).await;
    let mut listing = Command::new(BRAIN)
        .args(["device", "list"])
        .env("FLEET_BRAIN_URL", format!("http://{}", brain.api))
        .env("FLEET_BRAIN_TOKEN_FILE", brain.data().join("admin.token"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    drop(listing.stdout.take());
    let said = listing.wait_with_output().expect("ends").stderr;
    assert_eq!(String::from_utf8_lossy(&said), "");
}

#[test]
fn a_stopped_brain_exits_with_zero() {
    let mut brain = brain();
    assert!(brain.stop().expect("stops").success());
}

#[test]
fn a_bad_setting_is_named() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let file = folder.path().join("brain.toml");
    std::fs::write(&file, "heartbeat_ms = 'often'\n").expect("writes");
    let output = Command::new(BRAIN)
        .args(["serve", "--data-dir"])
        .arg(folder.path())
        .arg("--config")
        .arg(&file)
        .output()
        .expect("runs");
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.contains("heartbeat_ms") && text.contains("brain.toml"), "{text}");
}
