//! Errors as they reach people: where they arose, how they came about, what to do about them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Instant;

use benches::brain::Brain;
use protocol::DeviceId;
use rocksdb::{DB, IteratorMode, Options};
use serde_json::{Value, json};

use crate::edge_process::{Edge, enroll};
use crate::harness::{SOON, brain, command, count, device, json as printed, order, pause};

/// How often a request is sent whose connection breaks.
const TRIES_MAX: u32 = 20;

/// What every problem has, whatever it is about.
fn check(problem: &Value) {
    let keys = |value: &Value| -> Vec<String> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(keys(&problem["error"]), ["code", "message", "recoverable", "source"], "{problem}");
    let source = &problem["error"]["source"];
    assert_eq!(keys(source), ["component", "layer", "operation"], "{problem}");
    for text in [&source["layer"], &source["component"], &source["operation"], &problem["detail"]] {
        assert!(text.as_str().is_some_and(|text| !text.is_empty()), "{problem}");
    }
    for key in ["class", "impact", "scope", "guidance", "title"] {
        assert!(problem[key].as_str().is_some_and(|text| !text.is_empty()), "{key} of {problem}");
    }
    assert!(problem["options"].as_array().is_some_and(|options| !options.is_empty()), "{problem}");
    let causes = problem["causes"].as_array().expect("causes");
    assert!(causes.len() >= 2, "{problem}");
    assert_eq!(causes[0]["layer"], "api", "the request comes first: {problem}");
    for cause in causes {
        assert_eq!(keys(cause), ["component", "layer", "message", "operation"], "{problem}");
    }
    let own = causes.iter().find(|cause| cause["message"] == problem["error"]["message"]);
    let own = own.expect("the error itself is one of them");
    for key in ["layer", "component", "operation"] {
        assert_eq!(own[key], source[key], "{problem}");
    }
}

fn layers(causes: &Value) -> Vec<&str> {
    let causes = causes.as_array().into_iter().flatten();
    causes.filter_map(|cause| cause["layer"].as_str()).collect()
}

/// Method, path and body of a request; the status that it is answered with; and the error's code,
/// layer, component and operation.
type Asked = (&'static str, String, Option<Value>, u16, [&'static str; 4]);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_error_says_where_it_arose() {
    let brain = brain();
    let mut device = device(&brain).await;
    let id = device.membership.device;
    device.connect().await.expect("connects");
    device.write("reported/count", count(1)).expect("valid");
    device.offer().await.expect("offers");
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    let nobody = "0".repeat(32);
    let desired = format!("/api/v1/devices/{id}/desired");
    assert_eq!(brain.call("PATCH", &desired, Some(&json!({ "a": 1 }))).expect("answers").0, 200);
    let rules = json!({ "constraints": [{ "name": "speed", "range":
        { "paths": "desired/fan/*", "min": 0, "max": 9 } }] });
    let constraints = format!("/api/v1/devices/{id}/constraints");
    let (status, answer) = brain.call("PUT", &constraints, Some(&rules)).expect("answers");
    assert_eq!(status, 200, "{answer}");
    let states = format!("/api/v1/devices/{id}/states");
    let current = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    let version = current["version"].as_u64().expect("a version");
    let with = |version: u64, leaf: &str| {
        let mut state = current.clone();
        state["version"] = json!(version);
        state["state"][leaf] = json!(5);
        state
    };
    let (own, other) = (format!("/api/v1/devices/{id}"), format!("/api/v1/devices/{nobody}"));
    let table: Vec<Asked> = vec![
        (
            "GET",
            "/api/v1/devices/xyz".into(),
            None,
            400,
            ["BAD_REQUEST", "api", "request", "parse id"],
        ),
        (
            "GET",
            format!("{own}/state?at=noon"),
            None,
            400,
            ["BAD_REQUEST", "api", "request", "parse time"],
        ),
        (
            "GET",
            format!("{own}/history?limit=many"),
            None,
            400,
            ["BAD_REQUEST", "api", "devices", "read request"],
        ),
        (
            "GET",
            "/api/v1/devices?query=and".into(),
            None,
            400,
            ["BAD_REQUEST", "api", "request", "parse query"],
        ),
        (
            "PATCH",
            desired.clone(),
            Some(json!([1])),
            422,
            ["BAD_REQUEST", "api", "devices", "read request"],
        ),
        (
            "PATCH",
            desired.clone(),
            Some(json!({ "../a": 1 })),
            400,
            ["BAD_REQUEST", "api", "request", "parse leaves"],
        ),
        (
            "PATCH",
            desired.clone(),
            Some(json!({ "a": "x".repeat(2 << 20) })),
            413,
            ["TOO_LARGE", "api", "devices", "read body"],
        ),
        ("PATCH", own.clone(), None, 405, ["BAD_REQUEST", "api", "devices", "route"]),
        ("DELETE", own.clone(), None, 400, ["BAD_REQUEST", "api", "request", "read query"]),
        ("GET", "/api/v1/nothing".into(), None, 404, ["NOT_FOUND", "api", "router", "route"]),
        ("GET", other, None, 404, ["NOT_FOUND", "store", "read", "look up"]),
        ("GET", "/api/v1/groups/none".into(), None, 404, ["NOT_FOUND", "store", "read", "look up"]),
        (
            "POST",
            "/api/v1/tree/none/restart".into(),
            None,
            404,
            ["NOT_FOUND", "api", "tree", "find"],
        ),
        (
            "POST",
            "/api/v1/backups".into(),
            None,
            400,
            ["BAD_REQUEST", "brain", "backup", "back up"],
        ),
        (
            "PATCH",
            format!("{desired}?if=desired/a%20%3D%202"),
            Some(json!({ "a": 3 })),
            412,
            ["PRECONDITION_FAILED", "brain", "device", "write"],
        ),
        (
            "PATCH",
            desired.clone(),
            Some(json!({ "fan/rpm": 10 })),
            422,
            ["CONSTRAINT_VIOLATED", "brain", "device", "write"],
        ),
        (
            "PUT",
            states.clone(),
            Some(with(version, "desired/a")),
            409,
            ["VERSION_FORKED", "brain", "device", "save state"],
        ),
        (
            "PUT",
            states.clone(),
            Some(with(1, "desired/a")),
            409,
            ["VERSION_STALE", "brain", "device", "save state"],
        ),
        (
            "PUT",
            states.clone(),
            Some(with(version + 9, "desired/a")),
            409,
            ["VERSION_FUTURE", "brain", "device", "save state"],
        ),
        (
            "PUT",
            states,
            Some(with(version + 1, "reported/count")),
            403,
            ["FORBIDDEN", "brain", "device", "save state"],
        ),
    ];
    for (method, path, body, status, [code, layer, component, operation]) in table {
        // A body that is not read to its end may break the connection before the answer is seen.
        let call = |_| brain.call(method, &path, body.as_ref()).ok();
        let (answered, problem) = (0..TRIES_MAX).find_map(call).expect("answers");
        assert_eq!(answered, status, "{method} {path}: {problem}");
        check(&problem);
        let place = json!({ "layer": layer, "component": component, "operation": operation });
        assert_eq!(problem["error"]["code"], code, "{method} {path}: {problem}");
        assert_eq!(problem["error"]["source"], place, "{method} {path}: {problem}");
    }
    let (status, answer) =
        brain.call("DELETE", &format!("{own}?reason=sold"), None).expect("answers");
    assert_eq!(status, 200, "{answer}");
    let (status, problem) = brain.call("GET", &own, None).expect("answers");
    assert_eq!((status, &problem["error"]["code"]), (410, &json!("RETIRED")), "{problem}");
    check(&problem);
    let url = format!("http://{}/api/v1/devices", brain.api);
    let agent: ureq::Agent =
        ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let problem: Value =
        agent.get(url).call().expect("answers").body_mut().read_json().expect("JSON");
    check(&problem);
    assert_eq!(problem["error"]["code"], "UNAUTHENTICATED");
    let place = json!({ "layer": "api", "component": "auth", "operation": "check token" });
    assert_eq!(problem["error"]["source"], place);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_brain_finds_by_itself_is_one_error_with_its_subject_until_it_passes() {
    let (brain, id) = brain_with_a_damaged_history().await;
    let noticed = wait(&brain, "the damage is noticed", |brain| {
        let errors = brain.get("/api/v1/errors?status=open").ok()?;
        errors.as_array()?.iter().find(|error| error["code"] == "CORRUPT").cloned()
    });
    assert_eq!(noticed["subject"], json!(id), "{noticed}");
    let place = json!({ "layer": "store", "component": "consistency",
        "operation": "compare with history" });
    assert_eq!(noticed["source"], place);
    let one = format!("/api/v1/errors/{}", noticed["id"]);
    let later = wait(&brain, "another look", |brain| {
        let report = brain.get("/api/v1/consistency").ok()?;
        (report["rounds"].as_u64() >= Some(3)).then(|| brain.get(&one).expect("the error"))
    });
    assert_eq!(later, noticed, "what lasts is noticed once");
    let (status, problem) = brain.call("GET", "/api/v1/errors/99", None).expect("answers");
    assert_eq!(status, 404);
    check(&problem);
    let listed = printed(&brain, &["error", "list", "--subject", &id.to_string()]);
    assert_eq!(listed, json!([noticed]));
    let number = noticed["id"].to_string();
    let shown = command(&brain, &["error", "show", &number]).output().expect("runs");
    let said = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(said.contains("(CORRUPT)") && said.contains("open, noticed 1 times"), "{said}");
}

/// A brain, and a device of it whose only change is damaged on the disk.
async fn brain_with_a_damaged_history() -> (Brain, DeviceId) {
    let mut brain = brain();
    let mut device = device(&brain).await;
    let id = device.membership.device;
    device.connect().await.expect("connects");
    device.write("reported/count", count(1)).expect("valid");
    device.offer().await.expect("offers");
    device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
    drop(device);
    brain.stop().expect("stops");
    damage(brain.data(), "history");
    brain.restart().expect("starts");
    brain.wait_ready().expect("ready");
    (brain, id)
}

/// Flips a bit of the first record of a family, as a disk does.
fn damage(data: &Path, family: &str) {
    let (folder, options) = (data.join("store"), Options::default());
    let families = DB::list_cf(&options, &folder).expect("families");
    let db = DB::open_cf(&options, &folder, families).expect("opens");
    let handle = db.cf_handle(family).expect("is there");
    let (key, value) =
        db.iterator_cf(handle, IteratorMode::Start).next().expect("a record").expect("reads");
    let mut flipped = value.to_vec();
    let middle = flipped.len() / 2;
    flipped[middle] ^= 1;
    db.put_cf(handle, &key, &flipped).expect("written");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn damage_on_the_disk_is_told_from_the_request_down_to_the_disk_and_nothing_else_is() {
    let (brain, id) = brain_with_a_damaged_history().await;
    let target = format!("/api/v1/devices/{id}/history");
    let (status, problem) = brain.call("GET", &target, None).expect("answers");
    assert_eq!(status, 500, "{problem}");
    check(&problem);
    assert_eq!(problem["error"]["code"], "CORRUPT");
    assert_eq!(problem["class"], "hardware");
    let place = json!({ "layer": "store", "component": "read", "operation": "get" });
    assert_eq!(problem["error"]["source"], place);
    assert_eq!(layers(&problem["causes"]), ["api", "brain", "store", "hardware"], "{problem}");
    assert_eq!(problem["causes"][0]["operation"], "GET /api/v1/devices/{id}/history");
    let text = problem.to_string().to_lowercase();
    let data = brain.data().to_str().expect("text").to_lowercase();
    for internal in [&data[..], "rocksdb", ".sst", "::", "0x", "key "] {
        assert!(!text.contains(internal), "{internal} in {text}");
    }
    // People and programs are told the same.
    let told = command(&brain, &["device", "history", &id.to_string()]).output().expect("runs");
    let said = String::from_utf8_lossy(&told.stderr).into_owned();
    assert_eq!(told.status.code(), Some(1), "{said}");
    for line in ["damaged record in history (CORRUPT)", "from hardware, disk", "what to do: stop"] {
        assert!(said.contains(line), "{line} in {said}");
    }
    assert!(told.stdout.is_empty());
    let told = command(&brain, &["device", "history", &id.to_string(), "--output", "json"])
        .output()
        .expect("runs");
    assert_eq!(told.status.code(), Some(1));
    let printed: Value = serde_json::from_slice(&told.stdout).expect("the problem");
    assert_eq!(printed, problem);
}

fn wait<T>(brain: &Brain, what: &str, find: impl Fn(&Brain) -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = find(brain) {
            return found;
        }
        assert!(began.elapsed() < SOON, "never: {what}");
        pause();
    }
}

#[test]
fn a_hook_that_fails_is_told_from_the_brain_down_to_the_hardware() {
    let (brain, folder) = (brain(), tempfile::tempdir().expect("a folder"));
    let hooks = folder.path().join("hooks");
    std::fs::create_dir(&hooks).expect("made");
    let fan = hooks.join("fan");
    std::fs::write(&fan, "#!/bin/sh\necho no fan here >&2\nexit 3\n").expect("written");
    std::fs::set_permissions(&fan, PermissionsExt::from_mode(0o755)).expect("executable");
    enroll(&brain, folder.path());
    let hooks = hooks.to_str().expect("text");
    let _edge = Edge::run_with(folder.path(), &[("FLEET_EDGE_HOOKS_DIR", hooks)]);
    let id = wait(&brain, "online", |brain| {
        let devices = printed(brain, &["device", "list"]);
        let online = devices[0]["online"] == true;
        online.then(|| devices[0]["id"].as_str().expect("text").to_owned())
    });
    order(&brain, &["device", "set", &id, "hooks/fan=full"]);
    let held = |held_by: &Value| -> Option<Value> {
        let holds = held_by.as_array()?;
        holds.iter().find(|hold| hold["hold"] == "apply_error").cloned()
    };
    let hold = wait(&brain, "the hook fails", |brain| {
        let delta = brain.get(&format!("/api/v1/devices/{id}/delta")).ok()?;
        held(&delta["leaves"]["hooks/fan"]["held_by"])
    });
    assert!(hold["message"].as_str().is_some_and(|text| text.contains("no fan here")), "{hold}");
    assert_eq!(layers(&hold["causes"]), ["brain", "edge", "hardware"], "{hold}");
    let why = brain.get(&format!("/api/v1/devices/{id}/why?path=desired/hooks/fan")).expect("why");
    assert_eq!(held(&why[0]["device"]["held_by"]), Some(hold), "{why}");
    let told = command(&brain, &["why", &id, "desired/hooks/fan"]).output().expect("runs");
    let said = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(said.contains("from hardware/hook/run program: hook ended with"), "{said}");
    // Once it works, nothing is told any more.
    std::fs::write(&fan, "#!/bin/sh\nexit 0\n").expect("written");
    order(&brain, &["device", "set", &id, "hooks/fan=half"]);
    wait(&brain, "the hook works", |brain| {
        let state = brain.get(&format!("/api/v1/devices/{id}/state")).ok()?;
        let leaf = |prefix: &str| state["state"][format!("reported/{prefix}/hooks/fan")].clone();
        (leaf("applied") == "half" && leaf("apply_causes").is_null()).then_some(())
    });
}
