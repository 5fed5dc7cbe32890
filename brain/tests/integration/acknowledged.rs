//! How far a change has come: stored, delivered, applied.

use std::time::Instant;

use serde_json::{Value, json};

use crate::edge_process::Edge;
use crate::groups::member;
use crate::harness::{SOON, brain, command};

#[test]
fn a_change_is_waited_for_as_far_as_is_asked_and_what_holds_it_is_said() {
    let brain = brain();
    let mut member = member(&brain);
    let target = format!("/api/v1/devices/{}/desired", member.id);
    let set = |body: Value, wait: &str| {
        let began = Instant::now();
        let asked = format!("{target}?{wait}");
        let (status, answer) = brain.call("PATCH", &asked, Some(&body)).expect("answers");
        (status, answer["acknowledged"].clone(), answer["held_by"].clone(), began.elapsed())
    };
    let period = |ms: u64| json!({ "sense/thermal/period_ms": ms });
    let (status, level, ..) = set(period(300), "");
    assert_eq!((status, level), (200, json!("stored")));
    let (status, level, held, took) = set(period(400), "wait=applied");
    assert_eq!((status, level, held), (200, json!("applied"), Value::Null));
    assert!(took < SOON / 2, "{took:?}");
    let (status, level, ..) = set(period(450), "wait=delivered");
    assert_eq!((status, level), (200, json!("delivered")));
    // It changes nothing, and is in force.
    let (status, level, ..) = set(period(450), "wait=applied");
    assert_eq!((status, level), (200, json!("applied")));
    let coffee = json!({ "coffee": 3 });
    let (status, level, held, _) = set(coffee, "wait=applied&timeout_ms=2000");
    assert_eq!((status, level), (202, json!("delivered")));
    assert_eq!(held["coffee"][0]["hold"], "apply_error", "{held}");

    drop(member.edge.take());
    let away = || {
        let device = brain.get(&format!("/api/v1/devices/{}", member.id)).expect("a device");
        device["connected_since"].is_null()
    };
    let began = Instant::now();
    while !away() {
        assert!(began.elapsed() < SOON, "it never goes");
        crate::harness::pause();
    }
    let (status, level, held, _) = set(period(500), "wait=delivered&timeout_ms=500");
    assert_eq!((status, level), (202, json!("stored")));
    assert_eq!(held["sense/thermal/period_ms"][0]["hold"], "offline", "{held}");
    // Asked once more, nothing is written, and it has come no further.
    let (status, level, held, _) = set(period(500), "wait=applied&timeout_ms=500");
    assert_eq!((status, level), (202, json!("stored")));
    assert_eq!(held["sense/thermal/period_ms"][0]["hold"], "offline", "{held}");
    let set = ["device", "set", &member.id, "sense/thermal/period_ms=600"];
    let wait = ["--wait", "applied", "--timeout", "1"];
    let refused = command(&brain, &[&set[..], &wait[..]].concat()).output().expect("runs");
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1));
    assert!(said.contains("not applied within 1 s") && said.contains("offline"), "{said}");
    // It comes back while somebody waits.
    let waiting = command(&brain, &["device", "set", &member.id, "sense/thermal/period_ms=700"])
        .args(["--wait", "applied"])
        .spawn();
    let mut waiting = waiting.expect("runs");
    member.edge = Some(Edge::run(member.folder.path()));
    assert!(waiting.wait().expect("ends").success());
    let unknown = brain.call("PATCH", &format!("{target}?wait=soon"), Some(&period(800)));
    assert_eq!(unknown.expect("answers").0, 400);
}
