//! REST, as clients see it.

use std::io::{BufRead, BufReader};
use std::time::Duration;

use benches::device::LightDevice;
use serde_json::json;

use crate::harness::{SOON, brain, count, device};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_route_but_health_and_login_needs_a_token() {
    let brain = brain();
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let status = |method: &str, path: &str, token: &str| {
        let url = format!("http://{}{path}", brain.api);
        let request = ureq::http::Request::builder().method(method).uri(url);
        let request = request.header("authorization", token).body(()).expect("a request");
        let response = agent.run(request).expect("answers");
        (
            response.status().as_u16(),
            response.headers()["content-type"].to_str().expect("text").to_owned(),
        )
    };
    let openapi = brain.get("/api/v1/openapi.json").expect("a description");
    let paths = openapi["paths"].as_object().expect("paths");
    assert!(paths.len() > 8, "{:?}", paths.keys());
    for (path, methods) in paths {
        let path = path.replace("{id}", &"0".repeat(32));
        if ["/healthz", "/readyz", "/api/v1/login"].contains(&path.as_str()) {
            continue;
        }
        for method in methods.as_object().expect("methods").keys() {
            let method = method.to_uppercase();
            for token in ["", "Bearer nonsense", "Basic nonsense"] {
                let problem = "application/problem+json".to_owned();
                let answer = status(&method, &path, token);
                assert_eq!(answer, (401, problem), "{method} {path} with {token:?}");
            }
        }
    }
    assert_eq!(status("GET", "/healthz", "").0, 200);
    assert_eq!(status("GET", "/readyz", "").0, 200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_can_be_read_as_state_history_and_at_a_time() {
    let brain = brain();
    let mut device = device(&brain).await;
    let id = device.membership.device;
    device.connect().await.expect("connects");
    for n in 1..=3 {
        device.write("reported/count", count(n)).expect("valid");
        device.offer().await.expect("offers");
        let stored = |device: &LightDevice| device.stored() == n;
        device.run_until(stored, Duration::from_secs(10)).await.expect("stored");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let path = |rest: &str| format!("/api/v1/devices/{id}{rest}");
    let shown = brain.get(&path("")).expect("the device");
    assert_eq!((&shown["online"], &shown["version"]), (&json!(true), &json!(3)));
    let history = brain.get(&path("/history?limit=2")).expect("a history");
    let changes = history["changes"].as_array().expect("changes");
    assert_eq!(
        (changes.len(), &changes[0]["version"], &history["next"]),
        (2, &json!(3), &json!(2))
    );
    let first = &brain.get(&path("/history?before=2")).expect("a page")["changes"][0];
    assert_eq!(first["source"], "hardware");
    assert_eq!((&first["principal"], &first["reason"]), (&json!("sensor:test"), &json!("changed")));
    let at = changes[1]["timestamp"].as_u64().expect("a time");
    let time = jiff::Timestamp::from_millisecond(at as i64).expect("a time");
    for (query, expected) in [
        (String::new(), 3),
        ("?version=1".to_owned(), 1),
        (format!("?at={time}"), 2),
        (format!("?happened_at={time}"), 2),
    ] {
        let state = brain.get(&path(&format!("/state{query}"))).expect("a state");
        assert_eq!(state["state"]["reported/count"], expected, "{query}");
        let keys: Vec<_> = state.as_object().expect("an object").keys().collect();
        assert_eq!(keys, ["metadata", "source", "state", "timestamp", "version"]);
    }
    assert_eq!(brain.get(&path("/versions")).expect("versions")["last"], 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn desired_state_reaches_the_device_and_its_root_is_equal() {
    let brain = brain();
    let mut device = device(&brain).await;
    let id = device.membership.device;
    device.connect().await.expect("connects");
    let desired = format!("/api/v1/devices/{id}/desired");
    let (status, answer) = brain
        .call(
            "PUT",
            &format!("{desired}?reason=trial"),
            Some(&json!({ "fan/rpm": 900, "mode": "eco" })),
        )
        .expect("answers");
    assert_eq!(status, 200, "{answer}");
    let arrived = |device: &LightDevice| {
        device.tree.state().iter().any(|(path, _)| path.as_str() == "desired/fan/rpm")
    };
    device.run_until(arrived, Duration::from_secs(10)).await.expect("arrives");
    let (status, _) =
        brain.call("PUT", &desired, Some(&json!({ "mode": "eco" }))).expect("answers");
    assert_eq!(status, 200);
    let gone = |device: &LightDevice| !arrived(device);
    device.run_until(gone, Duration::from_secs(10)).await.expect("is taken back");
    // The brain signs what it wrote within a second.
    let sealed = |device: &LightDevice| device.tree.sealed() == device.tree.vector();
    device.run_until(sealed, Duration::from_secs(5)).await.expect("is signed");
    let state = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    let root = data_encoding::HEXLOWER.encode(&device.tree.root());
    assert_eq!(state["metadata"]["root"], root.as_str());
    let history = brain.get(&format!("/api/v1/devices/{id}/history")).expect("a history");
    assert_eq!(history["changes"][1]["reason"], "trial");
    assert_eq!(history["changes"][1]["source"], "operator");
    assert_eq!(history["changes"][1]["principal"], "user:admin");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_requests_are_problems_with_a_code() {
    let brain = brain();
    let known = device(&brain).await.membership.device;
    let get = |path: String| {
        let (status, problem) = brain.call("GET", &path, None).expect("answers");
        (status, problem["error"]["code"].as_str().unwrap_or_default().to_owned())
    };
    let nobody = "0".repeat(32);
    assert_eq!(get("/api/v1/devices/xyz".into()), (400, "BAD_REQUEST".into()));
    assert_eq!(get(format!("/api/v1/devices/{nobody}")), (404, "NOT_FOUND".into()));
    assert_eq!(get(format!("/api/v1/devices/{known}/state")), (404, "NOT_FOUND".into()));
    assert_eq!(get(format!("/api/v1/devices/{known}/state?at=noon")), (400, "BAD_REQUEST".into()));
    assert_eq!(get("/api/v1/nothing".into()), (404, "NOT_FOUND".into()));
    let patch = |body| {
        let path = format!("/api/v1/devices/{known}/desired");
        brain.call("PATCH", &path, Some(&body)).expect("answers").0
    };
    assert_eq!(patch(json!({ "a": { "b": 1 } })), 400);
    assert_eq!(patch(json!({ "../reported/a": 1 })), 400);
    assert_eq!(patch(json!({ "a": 18_446_744_073_709_551_615_u64 })), 400);
    assert_eq!(patch(json!({ "a": 1 })), 200);
    let unknown = format!("/api/v1/devices/{nobody}/desired");
    assert_eq!(brain.call("PATCH", &unknown, Some(&json!({ "a": 1 }))).expect("answers").0, 404);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn changes_come_as_they_are_committed_and_what_is_kept_is_compared_with_the_histories() {
    let brain = brain();
    let mut device = device(&brain).await;
    let id = device.membership.device;
    device.connect().await.expect("connects");
    let url = format!("http://{}/api/v1/changes/events?name={id}", brain.api);
    let token = format!("Bearer {}", brain.token().expect("a token"));
    let agent: ureq::Agent = ureq::Agent::config_builder().build().into();
    let answer = agent.get(url).header("authorization", token).call().expect("answers");
    let mut events = BufReader::new(answer.into_body().into_reader()).lines();
    device.write("reported/count", count(7)).expect("valid");
    device.offer().await.expect("offers");
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    let data = events.find_map(|line| {
        let line = line.expect("a line");
        line.strip_prefix("data: ").map(str::to_owned)
    });
    let change: serde_json::Value = serde_json::from_str(&data.expect("an event")).expect("JSON");
    assert_eq!((&change["name"], &change["version"]), (&json!(id), &json!(1)));
    assert_eq!(change["delta"]["added"]["reported/count"], 7, "{change}");
    let began = std::time::Instant::now();
    loop {
        let report = brain.get("/api/v1/consistency").expect("a report");
        assert_eq!(report["diverged"], json!({}), "{report}");
        if report["rounds"].as_u64() >= Some(2) && report["checked"].as_u64() >= Some(1) {
            break;
        }
        assert!(began.elapsed() < SOON, "{report}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
