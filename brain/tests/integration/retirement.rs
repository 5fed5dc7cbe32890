//! Devices that leave the fleet for good, and groups that are deleted.

use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::{LightDevice, Membership, random};
use rocksdb::{DB, IteratorMode, Options};
use serde_json::{Value, json};

use crate::conflicts::{conflict, fork};
use crate::edge_process::Edge;
use crate::groups::{call, leaf, member, set, share, status, wait};
use crate::harness::{
    BRAIN, SOON, brain, command, count, device, edge_binary, json as printed, node, order, pause,
    way,
};

/// Within so long a retired device has no session any more.
const AT_ONCE: Duration = Duration::from_secs(5);
/// What a tree has rows in, and where it stands that they are to go.
const OF_A_TREE: [&str; 9] = [
    "trees",
    "history",
    "log_ends",
    "leaves",
    "snapshots",
    "bases",
    "origins",
    "conflicts",
    "doomed",
];

fn retire(brain: &Brain, id: &str) -> (u16, Value) {
    let target = format!("/api/v1/devices/{id}?reason=it%20is%20broken");
    brain.call("DELETE", &target, None).expect("answers")
}

/// How many rows a family has, beside a brain that runs.
fn rows(brain: &Brain, families: &[&str]) -> usize {
    let folder = brain.data().join("store");
    let options = Options::default();
    let all = DB::list_cf(&options, &folder).expect("families");
    // What a brain removes while it is opened is there the next time.
    let Ok(db) = DB::open_cf_for_read_only(&options, &folder, all, false) else {
        return usize::MAX;
    };
    let count = |family: &&str| {
        let handle = db.cf_handle(family).expect("is there");
        db.iterator_cf(handle, IteratorMode::Start).count()
    };
    families.iter().map(count).sum()
}

fn verify(brain: &Brain) -> Value {
    let arguments = ["verify", "--output", "json", "--data-dir"];
    let output = Command::new(BRAIN).args(arguments).arg(brain.data()).output().expect("runs");
    let report = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(output.status.success(), "{report}");
    report
}

/// A device that has written, and is connected.
async fn at_work(brain: &Brain, entries: u64) -> LightDevice {
    let mut device = device(brain).await;
    device.connect().await.expect("connects");
    for n in 1..=entries {
        device.write("reported/n", count(n)).expect("written");
    }
    device.offer().await.expect("offered");
    device.run_until(|device| device.stored() == entries, SOON).await.expect("stored");
    device.seal().await.expect("sealed");
    device
}

/// Every question about what was retired is answered with what its tombstone says.
fn is_gone(brain: &Brain, tree: &str, rests: &[&str], said: &[&str]) {
    for rest in rests {
        let (status, body) =
            brain.call("GET", &format!("/api/v1/{tree}{rest}"), None).expect("answers");
        assert_eq!((status, &body["title"]), (410, &json!("RETIRED")), "{rest}: {body}");
        let detail = body["detail"].as_str().expect("text");
        assert!(said.iter().all(|word| detail.contains(word)), "{detail}");
    }
}

fn enroll(brain: &Brain, folder: &Path) -> Output {
    let token = brain.enrolment_token(1).expect("a token");
    Command::new(edge_binary())
        .args(["enroll", "--output", "json", "--data-dir"])
        .arg(folder)
        .args(["--server", &format!("wss://{}", brain.devices), "--token", &token])
        .output()
        .expect("runs")
}

#[test]
fn a_device_that_is_retired_at_work_is_told_so_and_calls_no_more() {
    let brain = brain();
    let [mut first, second] = [member(&brain), member(&brain)];
    order(&brain, &["group", "create", "north"]);
    order(&brain, &["group", "add", "north", &first.id, &second.id]);
    wait("is a member", || share(&first).is_some_and(|share| share["member"] == true));
    set(&first, "gate/open=true");
    wait("the other has it", || leaf(&second, "gate/open") == Some(json!(true)));
    let began = Instant::now();
    let left =
        printed(&brain, &["device", "retire", &first.id, "--reason", "it is broken", "--yes"]);
    let version = left["version"].as_u64().expect("a number");
    assert!(version > 0 && left["root"].is_string(), "{left}");
    let retired =
        || status(&first).and_then(|status| status["retired"].as_str().map(str::to_owned));
    wait("is told", || retired().is_some());
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    let said = retired().expect("a text");
    assert!(said.contains("RETIRED") && said.contains("it is broken"), "{said}");
    wait("is offline", || status(&first).is_some_and(|status| status["online"] == false));
    // Neither does it call, nor does the brain hear of it in any other way.
    let refused = || {
        let scraped = brain.metrics().expect("scrapes");
        let lines = scraped.lines().filter(|line| line.starts_with("fleet_connection_refused"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let before = (refused(), status(&first).expect("a status")["sessions"].clone());
    (0..80).for_each(|_| pause());
    assert_eq!((refused(), status(&first).expect("a status")["sessions"].clone()), before);
    let twin = |id: &str| {
        let nodes = brain.get("/api/v1/tree").expect("a tree");
        nodes
            .as_array()
            .into_iter()
            .flatten()
            .any(|node| node["path"].as_str().is_some_and(|path| path.ends_with(id)))
    };
    assert!(!twin(&first.id) && twin(&second.id), "its twin has left the tree");
    let tree = format!("devices/{}", first.id);
    let said = [&*format!("version {version}"), "user:admin", "it is broken"];
    is_gone(&brain, &tree, &["", "/state", "/history", "/why", "/delta", "/versions"], &said);
    let desired = brain.call("PATCH", &format!("/api/v1/{tree}/desired"), Some(&json!({ "a": 1 })));
    assert_eq!(desired.expect("answers").0, 410);
    let listed = printed(&brain, &["device", "list"]);
    assert_eq!(listed.as_array().map(Vec::len), Some(1), "{listed}");
    let retired = printed(&brain, &["device", "list", "--retired"]);
    assert_eq!((&retired[0]["id"], &retired[0]["version"]), (&json!(first.id), &json!(version)));
    let north = brain.get("/api/v1/groups/north").expect("a group");
    let members = north["members"].as_array().expect("members");
    assert!(members.iter().all(|member| member["device"] == *second.id), "{north}");
    // What it wrote stays with the others.
    assert_eq!(leaf(&second, "gate/open"), Some(json!(true)));
    set(&second, "gate/open=false");
    let again = command(&brain, &["device", "retire", &first.id, "--reason", "x"]).output();
    let again = String::from_utf8_lossy(&again.expect("runs").stderr).into_owned();
    assert!(again.contains("RETIRED") && again.contains("enrols again"), "{again}");
    // Started again, it still knows, and joins as another device once its agent is stopped.
    first.edge.take().expect("it runs").stop();
    let anew = Edge::run(first.folder.path());
    wait("knows", || status(&first).is_some_and(|status| status["retired"].is_string()));
    let running = enroll(&brain, first.folder.path());
    let advice = String::from_utf8_lossy(&running.stderr).into_owned();
    assert!(!running.status.success() && advice.contains("stop it"), "{advice}");
    anew.stop();
    let joined = enroll(&brain, first.folder.path());
    assert!(joined.status.success(), "{}", String::from_utf8_lossy(&joined.stderr));
    let joined: Value = serde_json::from_slice(&joined.stdout).expect("JSON");
    assert_ne!(joined["device_id"], *first.id);
    first.edge = Some(Edge::run(first.folder.path()));
    wait("is online", || status(&first).is_some_and(|status| status["online"] == true));
    let now = status(&first).expect("a status");
    assert_eq!((&now["device_id"], &now["retired"]), (&joined["device_id"], &Value::Null));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_retired_device_joins_no_more_and_its_rows_leave_the_disk() {
    let mut brain = brain();
    let stays = at_work(&brain, 20).await;
    let (way, seed) = (way(&brain), random());
    let token = brain.enrolment_token(1).expect("a token");
    let membership = Membership::enrol(&way, &token, seed).await.expect("enrols");
    let mut goes = LightDevice::new(membership, way.clone());
    goes.connect().await.expect("connects");
    for n in 1..=300 {
        goes.write("reported/n", count(n)).expect("written");
    }
    goes.offer().await.expect("offered");
    goes.run_until(|device| device.stored() == 300, SOON).await.expect("stored");
    let id = goes.membership.device.to_string();
    let (of_stays, all) = (20, rows(&brain, &["history"]));
    assert!(all > 1, "{all}");
    let (status, left) = retire(&brain, &id);
    assert_eq!((status, &left["version"]), (200, &json!(300)), "{left}");
    goes.run_until(|device| device.ended.is_some(), AT_ONCE).await.expect("ends");
    let ended = goes.ended.take().expect("it has ended");
    assert_eq!(ended.error.code, protocol::ErrorCode::Retired, "{ended:?}");
    let refused = goes.connect().await.expect_err("its key opens nothing");
    assert!(format!("{refused:#}").contains("410"), "{refused:#}");
    let token = brain.enrolment_token(1).expect("a token");
    let refused = Membership::enrol(&way, &token, seed).await.err().expect("its id is taken");
    assert!(refused.to_string().contains("RETIRED"), "{refused:#}");
    // The token is still good for another one.
    Membership::enrol(&way, &token, random()).await.expect("enrols");
    wait("nothing is doomed", || rows(&brain, &["doomed"]) == 0);
    let report = verify(&brain);
    assert_eq!((&report["tombstones"], &report["trees"]), (&json!(1), &json!(1)), "{report}");
    assert_eq!(report["entries"], of_stays, "{report}");
    let consistent = brain.get("/api/v1/consistency").expect("a report");
    assert_eq!(consistent["diverged"], json!({}), "{consistent}");
    let rows = printed(&brain, &["audit", "list"]);
    let row = rows
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["operation"] == "DELETE /api/v1/devices/{id}");
    let row = row.expect("it is noted");
    assert_eq!((&row["outcome"], &row["reason"]), (&json!(200), &json!("it is broken")), "{row}");
    // It is all the same after a restart.
    drop(stays);
    brain.stop().expect("stops");
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    goes.connect().await.expect_err("its key opens nothing");
    is_gone(&brain, &format!("devices/{id}"), &["/state"], &["version 300", "user:admin"]);
    let (status, _) = retire(&brain, &id);
    assert_eq!(status, 410);
    verify(&brain);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removal_that_was_cut_off_goes_on_after_the_restart() {
    let mut brain = brain();
    let goes = at_work(&brain, 600).await;
    let id = goes.membership.device.to_string();
    assert_eq!(retire(&brain, &id).0, 200);
    brain.kill().expect("kills");
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    wait("nothing of it is left", || rows(&brain, &OF_A_TREE) == 0);
    assert_eq!(verify(&brain)["tombstones"], 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_open_conflict_ends_with_its_device() {
    let brain = brain();
    let manual = json!({ "rules": [{ "paths": "reported/limit", "strategy": "manual" }] });
    let [_first, second] = fork(&brain, Some(manual), [40, 80]).await;
    let found = conflict(&brain, &second, "open");
    let actor = format!("brain/jobs/conflicts/{}", found["id"].as_str().expect("an id"));
    wait("it has an actor", || node(&brain, &actor).is_some());
    assert_eq!(retire(&brain, &second.membership.device.to_string()).0, 200);
    wait("its actor is gone", || node(&brain, &actor).is_none());
    let families = ["conflicts", "conflict_ids", "open_conflicts"];
    wait("its rows are gone", || rows(&brain, &families) == 0);
    verify(&brain);
}

#[test]
fn the_members_of_a_deleted_group_are_put_out_and_its_name_stays_taken() {
    let brain = brain();
    let members = [member(&brain), member(&brain)];
    order(&brain, &["group", "create", "north"]);
    order(&brain, &["group", "add", "north", &members[0].id, &members[1].id]);
    for member in &members {
        wait("is a member", || share(member).is_some_and(|share| share["member"] == true));
    }
    set(&members[0], "gate/open=true");
    wait("the other has it", || leaf(&members[1], "gate/open") == Some(json!(true)));
    let left = printed(&brain, &["group", "delete", "north", "--reason", "moved", "--yes"]);
    assert!(left["version"].as_u64() > Some(1), "{left}");
    for member in &members {
        wait("is out", || share(member).is_none_or(|share| share["member"] == false));
        let refused = call(member.folder.path(), &["shared", "set", "north", "gate/open=false"]);
        assert!(!refused.status.success(), "nobody writes there");
        let tags = brain.get(&format!("/api/v1/devices/{}/state", member.id)).expect("a state");
        assert_eq!(tags["state"]["tags/groups/north"], Value::Null, "{tags}");
    }
    let said = [&*format!("version {}", left["version"]), "user:admin", "moved"];
    is_gone(&brain, "groups/north", &["", "/state", "/history", "/why", "/conflicts"], &said);
    let again = command(&brain, &["group", "create", "north"]).output().expect("runs");
    let again = String::from_utf8_lossy(&again.stderr).into_owned();
    assert!(again.contains("RETIRED") && again.contains("another name"), "{again}");
    assert_eq!(printed(&brain, &["group", "list"]), json!([]));
    wait("nothing is doomed", || rows(&brain, &["doomed"]) == 0);
    let report = verify(&brain);
    assert_eq!((&report["trees"], &report["tombstones"]), (&json!(2), &json!(1)), "{report}");
    // Its members go on without it.
    order(&brain, &["group", "create", "south"]);
    order(&brain, &["group", "add", "south", &members[0].id]);
    assert!(members.iter().all(|m| status(m).is_some_and(|s| s["online"] == true)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_retired_without_a_reason_or_by_mistake() {
    let brain = brain();
    let device = device(&brain).await;
    let id = device.membership.device;
    let target = format!("/api/v1/devices/{id}");
    assert_eq!(brain.call("DELETE", &target, None).expect("answers").0, 400);
    let blank = format!("{target}?reason=%20");
    assert_eq!(brain.call("DELETE", &blank, None).expect("answers").0, 400);
    let conditional = [("if-match", "\"3\"")];
    let on_condition = format!("{target}?reason=x");
    let answer = brain.call_with("DELETE", &on_condition, None, &conditional);
    assert_eq!(answer.expect("answers").0, 400);
    let nobody = "/api/v1/devices/00000000000000000000000000000001?reason=x";
    assert_eq!(brain.call("DELETE", nobody, None).expect("answers").0, 404);
    let none = "/api/v1/groups/south?reason=x";
    assert_eq!(brain.call("DELETE", none, None).expect("answers").0, 404);
    assert_eq!(brain.get(&target).expect("it is there")["version"], 0);
    // One that never wrote anything leaves no tree.
    let (status, left) = retire(&brain, &id.to_string());
    assert_eq!((status, &left["version"], &left["root"]), (200, &json!(0), &Value::Null));
    let page = brain.get("/api/v1/devices?retired=true&limit=1").expect("a page");
    assert_eq!((&page["retired"][0]["id"], &page["next"]), (&json!(id), &Value::Null));
    let asked = "/api/v1/devices?retired=true&query=online";
    assert_eq!(brain.call("GET", asked, None).expect("answers").0, 400);
}
