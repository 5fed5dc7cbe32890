//! Devices that talk to each other while the brain is away: real edges, a real brain, QUIC.

use std::path::Path;
use std::time::{Duration, Instant};

use benches::brain::Brain;
use serde_json::{Value, json};

use crate::edge_process::{Edge, enroll};
use crate::groups::{Member, agree, call, leaf, set, share, status, wait};
use crate::harness::{brain, json as printed, order, pause};

/// Nobody is found by multicast, where other tests' devices are as well.
const MEETS: [(&str, &str); 3] = [
    ("FLEET_EDGE_PEERS__ENABLED", "true"),
    ("FLEET_EDGE_PEERS__LISTEN", "127.0.0.1:0"),
    ("FLEET_EDGE_PEERS__DISCOVERY", "false"),
];

fn member(brain: &Brain) -> Member {
    let folder = tempfile::tempdir().expect("a folder");
    enroll(brain, folder.path());
    let edge = Edge::run_with(folder.path(), &MEETS);
    let mut member = Member { edge: Some(edge), folder, id: String::new() };
    wait("online", || status(&member).is_some_and(|status| status["online"] == true));
    member.id = status(&member).expect("a status")["device_id"].as_str().expect("text").to_owned();
    member
}

/// A brain with a group of so many devices that share its tree.
fn group<const N: usize>() -> (Brain, [Member; N]) {
    let brain = brain();
    let members = [(); N].map(|()| member(&brain));
    order(&brain, &["group", "create", "north"]);
    for member in &members {
        order(&brain, &["group", "add", "north", &member.id]);
    }
    for member in &members {
        wait("all are members", || {
            peers(member)["peers"].as_array().is_some_and(|p| p.len() == N - 1)
        });
    }
    (brain, members)
}

fn peers(member: &Member) -> Value {
    let output = call(member.folder.path(), &["peer", "list"]);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// What a device says of another.
fn peer(member: &Member, other: &Member) -> Value {
    let known = peers(member);
    let all = known["peers"].as_array().cloned().unwrap_or_default();
    all.into_iter().find(|peer| peer["device"] == other.id.as_str()).unwrap_or_default()
}

fn ordered(folder: &Path, args: &[&str]) {
    let output = call(folder, args);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Tells two devices where the other one is.
fn introduce(one: &Member, other: &Member) {
    for (from, to) in [(one, other), (other, one)] {
        let address = peers(to)["listening"][0].as_str().expect("an address").to_owned();
        ordered(from.folder.path(), &["peer", "add", &to.id, &address]);
    }
    for member in [one, other] {
        ordered(member.folder.path(), &["sync", "now"]);
    }
    wait("they are connected", || {
        peer(one, other)["connected"] == true && peer(other, one)["connected"] == true
    });
}

/// Whoever wrote signs within a second, and tells the others.
fn let_them_sign() {
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(2) {
        pause();
    }
}

fn root(member: &Member) -> Value {
    share(member).map_or(Value::Null, |share| share["root"].clone())
}

fn same_roots(members: &[Member]) -> bool {
    let roots: Vec<_> = members.iter().map(root).collect();
    roots[0] != Value::Null && roots.windows(2).all(|pair| pair[0] == pair[1])
}

#[test]
fn what_is_written_while_the_brain_is_away_goes_from_device_to_device_and_then_to_the_brain() {
    let (mut brain, members) = group::<3>();
    // In a line: the first and the last never meet.
    introduce(&members[0], &members[1]);
    introduce(&members[1], &members[2]);
    set(&members[0], "gate/limit=1");
    agree(&brain, &members);
    brain.stop().expect("stops");
    for n in 0..5 {
        set(&members[0], &format!("first/n={n}"));
        set(&members[2], &format!("last/n={n}"));
    }
    for (member, path) in [(&members[2], "first/n"), (&members[0], "last/n")] {
        wait("it came over the one in between", || leaf(member, path) == Some(json!(4)));
    }
    // Both ends write the same leaf: all decide alike, and nobody asked the brain.
    set(&members[0], "gate/limit=20");
    set(&members[2], "gate/limit=30");
    wait("all three hold the same", || {
        leaf(&members[1], "gate/limit").is_some_and(|limit| limit != json!(1))
            && same_roots(&members)
    });
    let between = peer(&members[1], &members[0]);
    assert!(between["entries_in"].as_u64() >= Some(6), "{between}");
    assert_eq!(peer(&members[0], &members[2])["connected"], false);
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    agree(&brain, &members);
    let history = printed(&brain, &["group", "history", "north", "--limit", "100"]);
    let changes = history["changes"].as_array().expect("changes").len();
    assert!(changes >= 13, "{history}");
    for member in &members {
        wait("nothing waits", || share(member).is_some_and(|share| share["waiting"] == 0));
    }
}

#[test]
fn what_one_passed_on_before_it_died_is_not_lost_with_it() {
    let (mut brain, [mut first, second]) = group::<2>();
    introduce(&first, &second);
    brain.stop().expect("stops");
    set(&first, "gate/open=true");
    wait("the other has it", || leaf(&second, "gate/open") == Some(json!(true)));
    let_them_sign();
    first.edge.take().expect("it runs").kill();
    drop(first);
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    wait("the brain has it from the other", || {
        printed(&brain, &["group", "show", "north"])["state"]["shared/gate/open"] == true
    });
}

#[test]
fn a_brain_that_comes_back_with_an_old_disk_gets_from_devices_what_it_has_lost() {
    let (mut brain, members) = group::<3>();
    introduce(&members[0], &members[1]);
    introduce(&members[1], &members[2]);
    set(&members[0], "gate/limit=1");
    agree(&brain, &members);
    brain.stop().expect("stops");
    let old = tempfile::tempdir().expect("a folder");
    copy(&brain.data().join("store"), &old.path().join("store"));
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    // What the brain and the members write now is on no disk of the brain's afterwards.
    order(&brain, &["group", "set", "north", "gate/code=17", "--reason", "the night shift"]);
    for member in &members {
        wait("the brain's is here", || leaf(member, "gate/code") == Some(json!(17)));
    }
    set(&members[2], "gate/open=true");
    agree(&brain, &members);
    let_them_sign();
    brain.stop().expect("stops");
    set(&members[0], "gate/limit=2");
    wait("all hold the same without it", || same_roots(&members));
    let store = brain.data().join("store");
    std::fs::remove_dir_all(&store).expect("the disk is gone");
    copy(&old.path().join("store"), &store);
    brain.restart().expect("starts");
    brain.wait_ready().expect("gets ready");
    agree(&brain, &members);
    let state = printed(&brain, &["group", "show", "north"])["state"].clone();
    assert_eq!(state["shared/gate/code"], 17, "{state}");
    assert_eq!(state["shared/gate/open"], true, "{state}");
    assert_eq!(state["shared/gate/limit"], 2, "{state}");
    let why = printed(&brain, &["group", "why", "north", "shared/gate/code"]);
    assert_eq!(why[0]["set_by"]["reason"], "the night shift", "{why}");
    // It goes on as before.
    order(&brain, &["group", "set", "north", "gate/code=18"]);
    for member in &members {
        wait("the brain's is here", || leaf(member, "gate/code") == Some(json!(18)));
    }
    agree(&brain, &members);
}

fn copy(from: &Path, to: &Path) {
    let output = std::process::Command::new("cp").arg("-a").args([from, to]).output();
    assert!(output.expect("runs").status.success(), "{} is copied", from.display());
}

#[test]
fn one_that_was_put_out_is_nobodys_peer_any_more() {
    let (brain, members) = group::<2>();
    introduce(&members[0], &members[1]);
    order(&brain, &["group", "remove", "north", &members[1].id]);
    wait("the other has forgotten it", || peer(&members[0], &members[1]) == Value::Null);
    set(&members[0], "gate/code=17");
    agree(&brain, &members[..1]);
    for _ in 0..10 {
        pause();
    }
    assert_eq!(leaf(&members[1], "gate/code"), None);
    // It goes on calling at the address that it knows, and is turned away.
    ordered(members[1].folder.path(), &["sync", "now"]);
    pause();
    assert_eq!(leaf(&members[1], "gate/code"), None);
}
