//! What leaves may be: refused where they are written, held where they are there already.

use std::process::Command;
use std::time::Instant;

use benches::brain::Brain;
use serde_json::{Value, json};

use crate::edge_process::{Edge, enroll};
use crate::harness::{SOON, brain, command, edge_binary, json as printed, order, pause};

const SETTING: &str = "sense/thermal/period_ms";

fn constrain(brain: &Brain, id: &str, constraints: &Value) {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let text = json!({ "constraints": constraints }).to_string();
    std::fs::write(&file, text).expect("writes");
    let path = file.path().to_str().expect("text");
    order(brain, &["constraint", "set", id, "--file", path, "--reason", "to be safe"]);
}

fn refused(brain: &Brain, args: &[&str]) -> String {
    let output = command(brain, args).output().expect("runs");
    assert!(!output.status.success(), "{args:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn wait(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "never: {what}");
        pause();
    }
}

#[test]
fn what_a_constraint_forbids_is_refused_by_brain_and_edge_and_held_where_it_is_there() {
    let (brain, folder) = (brain(), tempfile::tempdir().expect("a folder"));
    enroll(&brain, folder.path());
    let _edge = Edge::run(folder.path());
    let devices = || printed(&brain, &["device", "list"]);
    wait("online", || devices()[0]["online"] == true);
    let id = devices()[0]["id"].as_str().expect("text").to_owned();
    let applied = || {
        let state = printed(&brain, &["device", "show", &id]);
        state["state"][format!("reported/applied/{SETTING}")].clone()
    };
    order(&brain, &["device", "set", &id, &format!("{SETTING}=20000")]);
    wait("applied", || applied() == 20_000);
    let range = json!({ "paths": "desired/sense/*/period_ms", "min": 500, "max": 60_000 });
    constrain(&brain, &id, &json!([{ "name": "period", "range": range }]));
    let said = refused(&brain, &["device", "set", &id, &format!("{SETTING}=100")]);
    assert!(said.contains("CONSTRAINT_VIOLATED") && said.contains("\"period\""), "{said}");
    let by_hand = |value: &str| {
        let args = ["override", "set", SETTING, value, "--for", "1h", "--reason", "test"];
        let mut edge = Command::new(edge_binary());
        let output = edge.args(args).arg("--data-dir").arg(folder.path()).output().expect("runs");
        (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    // The edge has the constraint with its tree, and needs nobody to ask.
    wait("refused at the device", || !by_hand("100").0);
    let (_, said) = by_hand("100");
    assert!(said.contains("\"period\""), "{said}");
    // A stricter one finds what is there already: that stays in force and is named.
    let never = format!("desired/{SETTING} > 10000");
    constrain(&brain, &id, &json!([{ "name": "often enough", "never": never }]));
    let view = printed(&brain, &["constraint", "show", &id]);
    assert_eq!(view["held"][format!("desired/{SETTING}")], "often enough", "{view}");
    order(&brain, &["device", "set", &id, &format!("{SETTING}=9000")]);
    wait("applied", || applied() == 9_000);
    let view = printed(&brain, &["constraint", "show", &id]);
    assert_eq!((view["held"].clone(), view["version"].clone()), (json!({}), json!(2)));
    let bad = json!([{ "name": "a", "never": "online" }]);
    let target = format!("/api/v1/devices/{id}/constraints");
    let (status, answer) =
        brain.call("PUT", &target, Some(&json!({ "constraints": bad }))).expect("answers");
    assert_eq!(status, 400, "{answer}");
}
