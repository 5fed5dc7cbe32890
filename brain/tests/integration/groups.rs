//! Trees that the members of a group share: real edges, a real brain.

use std::path::Path;
use std::process::{Command, Output};
use std::time::Instant;

use benches::brain::Brain;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::edge_process::{Edge, enroll};
use crate::harness::{
    SOON, act, brain, command, edge_binary, json as printed, order, pause, until,
};

/// A device with its folder, its agent and its id.
pub(crate) struct Member {
    pub(crate) folder: TempDir,
    pub(crate) edge: Option<Edge>,
    pub(crate) id: String,
}

pub(crate) fn member(brain: &Brain) -> Member {
    let folder = tempfile::tempdir().expect("a folder");
    enroll(brain, folder.path());
    let mut member = Member { edge: Some(Edge::run(folder.path())), folder, id: String::new() };
    wait("online", || status(&member).is_some_and(|status| status["online"] == true));
    member.id = status(&member).expect("a status")["device_id"].as_str().expect("text").to_owned();
    member
}

pub(crate) fn call(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(edge_binary());
    command.args(args).args(["--output", "json", "--data-dir"]).arg(folder);
    command.output().expect("runs")
}

pub(crate) fn status(member: &Member) -> Option<Value> {
    serde_json::from_slice(&call(member.folder.path(), &["status"]).stdout).ok()
}

/// What a device holds of the group.
pub(crate) fn share(member: &Member) -> Option<Value> {
    let output = call(member.folder.path(), &["shared", "list"]);
    let shares: Vec<Value> = serde_json::from_slice(&output.stdout).ok()?;
    shares.into_iter().find(|share| share["group"] == "north")
}

pub(crate) fn leaf(member: &Member, path: &str) -> Option<Value> {
    let output = call(member.folder.path(), &["shared", "show", "north"]);
    let share: Value = serde_json::from_slice(&output.stdout).ok()?;
    share["shared"].get(path).cloned()
}

pub(crate) fn set(member: &Member, leaf: &str) {
    let output = call(member.folder.path(), &["shared", "set", "north", leaf, "--reason", "test"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

pub(crate) fn wait(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < SOON, "never: {what}");
        pause();
    }
}

/// A brain with a group of two devices that share its tree.
fn group() -> (Brain, [Member; 2]) {
    let brain = brain();
    let members = [member(&brain), member(&brain)];
    order(&brain, &["group", "create", "north", "--description", "the north gate"]);
    order(&brain, &["group", "add", "north", &members[0].id, &members[1].id]);
    for member in &members {
        wait("is a member", || share(member).is_some_and(|share| share["member"] == true));
    }
    (brain, members)
}

/// The roots that the brain and the members have.
pub(crate) fn roots(brain: &Brain, members: &[Member]) -> Vec<Value> {
    let groups = printed(brain, &["group", "list"]);
    let held =
        members.iter().map(|member| share(member).map_or(Value::Null, |s| s["root"].clone()));
    [groups[0]["root"].clone()].into_iter().chain(held).collect()
}

pub(crate) fn agree(brain: &Brain, members: &[Member]) {
    wait("all hold the same", || {
        let roots = roots(brain, members);
        roots.windows(2).all(|pair| pair[0] == pair[1])
    });
}

#[test]
fn what_one_writes_reaches_the_brain_and_the_other_members() {
    let (brain, members) = group();
    set(&members[0], "gate/open=true");
    wait("the other has it", || leaf(&members[1], "gate/open") == Some(json!(true)));
    order(&brain, &["group", "set", "north", "gate/code=17", "--reason", "the night shift"]);
    for member in &members {
        wait("the brain's is here", || leaf(member, "gate/code") == Some(json!(17)));
    }
    agree(&brain, &members);
    let state = printed(&brain, &["group", "show", "north"]);
    assert_eq!(state["state"]["shared/gate/open"], true);
    let why = printed(&brain, &["group", "why", "north", "shared/gate/open"]);
    let principal = why[0]["set_by"]["principal"].as_str().expect("text").to_owned();
    assert!(principal.starts_with("local:uid-"), "{why}");
    let history = printed(&brain, &["group", "history", "north"]);
    assert_eq!(history["changes"][0]["reason"], "the night shift", "{history}");
}

#[test]
fn what_members_write_while_the_brain_is_away_is_a_conflict_that_all_decide_alike() {
    let (mut brain, members) = group();
    set(&members[0], "gate/limit=1");
    wait("the other has it", || leaf(&members[1], "gate/limit") == Some(json!(1)));
    agree(&brain, &members);
    brain.stop().expect("stops");
    set(&members[0], "gate/limit=20");
    pause();
    set(&members[1], "gate/limit=30");
    set(&members[0], "gate/by=first");
    assert_eq!(leaf(&members[0], "gate/limit"), Some(json!(20)));
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    wait("the conflict is decided", || {
        let conflicts = printed(&brain, &["group", "conflicts", "north"]);
        conflicts.as_array().is_some_and(|c| c.len() == 1 && c[0]["status"] == "resolved")
    });
    for member in &members {
        wait("the later one is shown", || leaf(member, "gate/limit") == Some(json!(30)));
        wait("the other leaf as well", || leaf(member, "gate/by") == Some(json!("first")));
    }
    agree(&brain, &members);
    let why = printed(&brain, &["group", "why", "north", "shared/gate/limit"]);
    let sides = why[0]["conflict"]["sides"].as_array().expect("sides").len();
    assert_eq!((why[0]["value"].clone(), sides), (json!(30), 2), "{why}");
    // Whoever writes it again, having seen both, settles it for all.
    set(&members[1], "gate/limit=25");
    wait("settled", || leaf(&members[0], "gate/limit") == Some(json!(25)));
    agree(&brain, &members);
    let why = printed(&brain, &["group", "why", "north", "shared/gate/limit"]);
    assert_eq!(why[0]["conflict"], Value::Null, "{why}");
    brain.stop().expect("stops");
}

#[test]
fn one_that_leaves_writes_no_more_and_what_it_wrote_stays() {
    let (brain, members) = group();
    set(&members[0], "gate/open=true");
    wait("the other has it", || leaf(&members[1], "gate/open") == Some(json!(true)));
    order(&brain, &["group", "remove", "north", &members[0].id]);
    wait("it knows", || share(&members[0]).is_some_and(|share| share["member"] == false));
    let refused = call(members[0].folder.path(), &["shared", "set", "north", "gate/open=false"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(!refused.status.success() && said.contains("no member"), "{said}");
    set(&members[1], "gate/open=17");
    wait("the brain has it", || {
        printed(&brain, &["group", "show", "north"])["state"]["shared/gate/open"] == 17
    });
    assert_eq!(leaf(&members[0], "gate/open"), Some(json!(true)), "it hears no more of it");
    let again = command(&brain, &["group", "remove", "north", &members[0].id]).output();
    assert!(!again.expect("runs").status.success(), "it is no member");
    order(&brain, &["group", "add", "north", &members[0].id]);
    wait("it is up to date", || leaf(&members[0], "gate/open") == Some(json!(17)));
    set(&members[0], "gate/back=true");
    wait("it writes again", || leaf(&members[1], "gate/back") == Some(json!(true)));
    agree(&brain, &members);
}

#[test]
fn one_that_was_put_out_and_taken_in_again_while_it_was_away_goes_on_with_the_others() {
    let (brain, [mut first, second]) = group();
    set(&second, "gate/limit=3");
    wait("the first has it", || leaf(&first, "gate/limit") == Some(json!(3)));
    set(&first, "gate/first=true");
    wait("the second has that", || leaf(&second, "gate/first") == Some(json!(true)));
    first.edge.take().expect("it runs").stop();
    // It comes up without its brain and writes over what the other wrote.
    let nowhere = [("FLEET_SERVER_URL", "wss://127.0.0.1:1")];
    let away = Edge::run_with(first.folder.path(), &nowhere);
    wait("it is up", || leaf(&first, "gate/limit") == Some(json!(3)));
    for n in 1..=5 {
        set(&first, &format!("gate/limit={}", 100 + n));
    }
    order(&brain, &["group", "remove", "north", &first.id]);
    order(&brain, &["group", "add", "north", &first.id]);
    away.stop();
    first.edge = Some(Edge::run(first.folder.path()));
    // What it wrote after it was out counts nowhere, and what that had replaced is back.
    wait("it has what the others have", || leaf(&first, "gate/limit") == Some(json!(3)));
    set(&first, "gate/back=true");
    wait("what it writes now is signed and passed on", || {
        leaf(&second, "gate/back") == Some(json!(true))
    });
    agree(&brain, &[first, second]);
}

#[test]
fn the_actor_of_a_group_is_killed_and_its_members_lose_nothing() {
    let (brain, members) = group();
    let path = "brain/devices/groups/north";
    let sessions = |member: &Member| status(member).expect("a status")["sessions"].clone();
    let before = members.each_ref().map(sessions);
    for n in 1..=3 {
        assert_eq!(act(&brain, path, "kill"), 204);
        set(&members[0], &format!("n={n}"));
        wait("the other has it", || leaf(&members[1], "n") == Some(json!(n)));
    }
    until(&brain, path, |node| node["restarts"].as_u64() >= Some(3) && node["kind"] == "group");
    agree(&brain, &members);
    assert_eq!(members.each_ref().map(sessions), before, "their connections stayed");
}

#[test]
fn a_group_has_a_fitting_name_and_known_members() {
    let brain = brain();
    for name in ["North", "-north", "", "a b", "0123456789abcdef0123456789abcdef"] {
        let target = format!("/api/v1/groups/{}", name.replace(' ', "%20"));
        let (status, _) = brain.call("PUT", &target, Some(&json!({}))).expect("answers");
        assert!([400, 404, 405].contains(&status), "{name:?} gives {status}");
    }
    let nobody = "/api/v1/groups/north/members/00000000000000000000000000000001";
    assert_eq!(brain.call("PUT", nobody, None).expect("answers").0, 404);
    assert_eq!(brain.call("GET", "/api/v1/groups/north", None).expect("answers").0, 404);
    order(&brain, &["group", "create", "north"]);
    assert_eq!(brain.call("PUT", nobody, None).expect("answers").0, 404);
    let found = brain.get("/api/v1/groups/north").expect("a group");
    assert_eq!((found["members"].clone(), found["version"].clone()), (json!([]), json!(1)));
}
