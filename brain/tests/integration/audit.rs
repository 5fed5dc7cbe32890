//! Whatever changes something is noted, and whatever changes a state makes a version.

use std::collections::BTreeSet;

use benches::brain::Brain;
use serde_json::{Value, json};

use crate::harness::{SOON, brain, count, device, json as printed, order};

/// Whose version a request raises.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Raises {
    Nobodys,
    Devices,
    Groups,
    Both,
}

/// A request for every route that is not for reading alone: a later route without one fails the
/// test.
fn requests(id: &str, state: Value) -> Vec<(&'static str, &'static str, String, Value, Raises)> {
    use Raises::{Both, Devices, Groups, Nobodys};
    let of_device = |rest: &str| format!("/api/v1/devices/{id}{rest}");
    let member = format!("/api/v1/groups/north/members/{id}");
    let twin = "/api/v1/tree/brain%2Fdevices%2Fgroups%2Fnorth";
    let letter = "/api/v1/quarantine/messages/0000000000000000-north";
    vec![
        ("PUT", "/api/v1/devices/{id}/states", of_device("/states"), state, Devices),
        ("PUT", "/api/v1/devices/{id}/desired", of_device("/desired"), json!({ "a": 1 }), Devices),
        (
            "PATCH",
            "/api/v1/devices/{id}/desired",
            of_device("/desired"),
            json!({ "b": 2 }),
            Devices,
        ),
        ("PATCH", "/api/v1/devices/{id}/tags", of_device("/tags"), json!({ "site": "x" }), Devices),
        (
            "POST",
            "/api/v1/devices/{id}/restore",
            of_device("/restore?version=1"),
            json!(null),
            Devices,
        ),
        ("POST", "/api/v1/devices/{id}/snapshots", of_device("/snapshots"), json!(null), Nobodys),
        (
            "PUT",
            "/api/v1/devices/{id}/conflict-policy",
            of_device("/conflict-policy"),
            json!({ "rules": [] }),
            Devices,
        ),
        (
            "PUT",
            "/api/v1/devices/{id}/constraints",
            of_device("/constraints"),
            json!({ "constraints": [] }),
            Devices,
        ),
        ("PUT", "/api/v1/groups/{group}", "/api/v1/groups/north".into(), json!({}), Groups),
        (
            "PUT",
            "/api/v1/groups/{group}/constraints",
            "/api/v1/groups/north/constraints".into(),
            json!({ "constraints": [] }),
            Groups,
        ),
        ("PUT", "/api/v1/groups/{group}/members/{device}", member.clone(), json!(null), Both),
        (
            "PATCH",
            "/api/v1/groups/{group}/shared",
            "/api/v1/groups/north/shared".into(),
            json!({ "a": 1 }),
            Groups,
        ),
        (
            "PUT",
            "/api/v1/groups/{group}/conflict-policy",
            "/api/v1/groups/north/conflict-policy".into(),
            json!({ "rules": [] }),
            Groups,
        ),
        ("DELETE", "/api/v1/groups/{group}/members/{device}", member, json!(null), Both),
        ("POST", "/api/v1/enrolment-tokens", "/api/v1/enrolment-tokens".into(), json!({}), Nobodys),
        ("POST", "/api/v1/backups", "/api/v1/backups".into(), json!({}), Nobodys),
        ("POST", "/api/v1/tree/{path}/restart", format!("{twin}/restart"), json!(null), Nobodys),
        ("POST", "/api/v1/tree/{path}/kill", format!("{twin}/kill"), json!(null), Nobodys),
        (
            "POST",
            "/api/v1/quarantine/{path}/release",
            "/api/v1/quarantine/brain%2Fx/release".into(),
            json!(null),
            Nobodys,
        ),
        (
            "POST",
            "/api/v1/quarantine/messages/{id}/replay",
            format!("{letter}/replay"),
            json!(null),
            Nobodys,
        ),
        ("DELETE", "/api/v1/quarantine/messages/{id}", letter.into(), json!(null), Nobodys),
        ("DELETE", "/api/v1/groups/{group}", "/api/v1/groups/north".into(), json!(null), Nobodys),
        ("DELETE", "/api/v1/devices/{id}", of_device(""), json!(null), Nobodys),
    ]
}

/// Routes whose failures are not noted.
const GUESSED_AT: [(&str, &str); 1] = [("POST", "/api/v1/login")];

fn version(brain: &Brain, tree: &str) -> u64 {
    let state = brain.call("GET", &format!("/api/v1/{tree}/state"), None).expect("answers").1;
    state["version"].as_u64().unwrap_or_default()
}

fn last(brain: &Brain) -> Value {
    printed(brain, &["audit", "list", "--limit", "1"])[0].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_request_that_changes_something_is_noted_and_states_change_by_versions_alone() {
    let brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    device.write("reported/a", count(1)).expect("written");
    device.offer().await.expect("offered");
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    let id = device.membership.device.to_string();
    let (own, group) = (format!("devices/{id}"), "groups/north".to_owned());
    let mut state = brain.get(&format!("/api/v1/{own}/state")).expect("a state");
    state["version"] = json!(2);
    state["state"]["desired/c"] = json!(true);
    let requests = requests(&id, state);
    let openapi = brain.get("/api/v1/openapi.json").expect("a description");
    let mut routes = BTreeSet::new();
    for (path, methods) in openapi["paths"].as_object().expect("paths") {
        let methods = methods.as_object().expect("methods").keys().map(|name| name.to_uppercase());
        routes.extend(methods.filter(|name| name != "GET").map(|name| (name, path.clone())));
    }
    let asked = requests.iter().map(|(method, route, ..)| (*method, *route)).chain(GUESSED_AT);
    let asked = asked.map(|(method, route)| (method.to_owned(), route.to_owned())).collect();
    assert_eq!(routes, asked, "every route that changes something has a request here");
    for (method, route, target, body, raises) in requests {
        let before = (version(&brain, &own), version(&brain, &group), last(&brain));
        let separator = if target.contains('?') { "&" } else { "?" };
        let with_reason = format!("{target}{separator}reason=to%20try%20it");
        let body = Some(&body).filter(|body| !body.is_null());
        let (status, answer) = brain.call(method, &with_reason, body).expect("answers");
        let row = last(&brain);
        let number = |row: &Value| row["number"].as_u64().unwrap_or_default();
        assert_eq!(number(&row), number(&before.2) + 1, "{method} {route}: {answer}");
        assert_eq!(row["operation"], format!("{method} {route}"), "{row}");
        assert_eq!(
            (row["outcome"].clone(), row["principal"].clone()),
            (json!(status), json!("user:admin"))
        );
        assert_eq!(
            (row["reason"].clone(), row["before"].clone()),
            (json!("to try it"), before.2["hash"].clone())
        );
        assert_eq!(row["entry"], answer["entry"], "{row}");
        let raised = (version(&brain, &own) > before.0, version(&brain, &group) > before.1);
        let wanted = match raises {
            Raises::Nobodys => (false, false),
            Raises::Devices => (true, false),
            Raises::Groups => (false, true),
            Raises::Both => (true, true),
        };
        assert_eq!(raised, wanted, "{method} {route}: {status} {answer}");
    }
    let before = last(&brain);
    let (status, _) =
        brain.call("POST", "/api/v1/login", Some(&json!({ "code": "X" }))).expect("answers");
    assert_eq!((status, last(&brain)), (401, before));
    assert_eq!(order(&brain, &["audit", "check"]), "");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_joins_is_noted_and_the_list_goes_on_after_a_restart() {
    let mut brain = brain();
    let device = device(&brain).await;
    let joined = last(&brain);
    assert_eq!(
        (joined["operation"].clone(), joined["principal"].clone()),
        (json!("enrol"), json!(format!("device:{}", device.membership.device)))
    );
    brain.stop().expect("stops");
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    brain.enrolment_token(1).expect("a token");
    let after = last(&brain);
    assert_eq!(after["before"], joined["hash"], "{after}");
    let checked = printed(&brain, &["audit", "check"]);
    assert_eq!(
        (checked["broken_at"].clone(), checked["last_hash"].clone()),
        (json!(null), after["hash"].clone())
    );
}
