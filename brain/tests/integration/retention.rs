//! Histories that are let go from the beginning, and what stands in their place.

use std::time::{Duration, Instant};

use actors::device::{Twin, Unprunable};
use actors::ports::{ReadError, TreeStore};
use brain::store::{Store, WhichVersion, verify};
use protocol::ErrorCode;
use protocol::state::{State, Version};
use serde_json::{Value, json};

use crate::edge_process::Edge;
use crate::groups::{agree, leaf, member, roots, set, share, wait};
use crate::harness::{BRAIN, SOON, brain_with, device, json as printed, order};
use crate::store::{FLEET, at, commit, config, open, twin, write};

fn prune(store: &Store, twin: &mut Twin, version: Version, kept: &[Version]) {
    let snapshot = store.snapshot(twin.number(), version).expect("reads").expect("a snapshot");
    let pruned = twin.prune(&snapshot, kept.to_vec(), at(1_000_000)).expect("within");
    commit(store, pruned).expect("durable");
}

#[test]
fn what_is_kept_reads_as_before_and_what_is_not_says_so() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let store = open(folder.path());
    let mut first = twin(&store, 1);
    let number = first.number();
    let mut states: Vec<State> = (1..=100).map(|n| write(&store, &mut first, n)).collect();
    commit(&store, first.snapshot()).expect("durable");
    states.extend((101..=700).map(|n| write(&store, &mut first, n)));
    let versions: Vec<_> =
        store.snapshots(number).expect("reads").iter().map(|info| info.version).collect();
    let after = |version| *versions.iter().find(|other| **other > version).expect("one a while");
    let (begin, later) = (after(300), after(600));
    prune(&store, &mut first, begin, &[100]);
    states.extend((701..=720).map(|n| write(&store, &mut first, n)));
    let check = |store: &Store| {
        let read = |which| Ok(store.state(number, which)?.map(|at| (at.version, at.state.clone())));
        let gone = |error: ReadError| {
            assert_eq!(error.to_sync_error().code, ErrorCode::HistoryPruned);
            let ReadError::Pruned { version, at_ms } = error else { panic!("{error}") };
            assert_eq!((version, at_ms), (begin, begin * 10));
        };
        for (version, state) in (1..).zip(&states) {
            let expected = Ok(Some((version, state.clone())));
            if version >= begin {
                assert_eq!(read(WhichVersion::At(version)), expected);
                assert_eq!(read(WhichVersion::CommittedBy(version * 10 + 9)), expected);
                assert_eq!(read(WhichVersion::HappenedBy(version * 10)), expected);
                continue;
            }
            match version {
                100 => assert_eq!(read(WhichVersion::At(version)), expected),
                _ => gone(read(WhichVersion::At(version)).expect_err("gone")),
            }
            gone(read(WhichVersion::CommittedBy(version * 10)).expect_err("gone"));
            gone(read(WhichVersion::HappenedBy(version * 10)).expect_err("gone"));
        }
        let history = store.history(number, Version::MAX, 1_000).expect("reads");
        assert!(history.iter().map(|change| change.version).eq((begin + 1..=720).rev()));
        assert!(history.iter().all(|change| change.entry.id() == change.id));
        let snapshots = store.snapshots(number).expect("reads");
        let kept: Vec<_> = snapshots.iter().map(|info| info.version).collect();
        assert_eq!(kept[..2], [100, begin]);
        assert!(kept.contains(&later));
        let gone = store.replay(number, 100, |_, _| std::ops::ControlFlow::Continue(()));
        let Err(ReadError::Pruned { version, .. }) = gone else { panic!("{gone:?}") };
        assert_eq!(version, begin);
        let replayed = store.replay(number, 720, |_, _| std::ops::ControlFlow::Continue(()));
        let replayed = replayed.expect("reads").expect("there");
        assert_eq!(replayed.root, replayed.kept);
        assert!(store.check_trees(0, 10).expect("reads").iter().all(|tree| tree.differs.is_none()));
        assert_eq!(store.range(number, 0, begin, usize::MAX).expect("reads")[0].1.seq, begin + 1);
    };
    check(&store);
    store.shut_down();
    drop((store, first));
    let store = open(folder.path());
    check(&store);
    // Whoever loads it goes on where it is, and prunes further.
    let mut second = twin(&store, 2);
    assert_eq!(second.base().map(|base| base.version), Some(begin));
    let snapshot = store.snapshot(number, begin).expect("reads").expect("there");
    assert_eq!(second.prune(&snapshot, Vec::new(), at(1)).err(), Some(Unprunable::NotWithin));
    prune(&store, &mut second, later, &[]);
    // The history may begin with the present, and a snapshot of that is there already.
    let last = write(&store, &mut second, 721);
    commit(&store, second.snapshot()).expect("durable");
    prune(&store, &mut second, 721, &[]);
    commit(&store, second.seal().expect("unsigned").0).expect("durable");
    commit(&store, second.snapshot()).expect("durable");
    assert_eq!(second.tree().state(), last);
    let snapshots = store.snapshots(number).expect("reads");
    assert!(snapshots.iter().map(|info| info.version).eq([721]));
    store.shut_down();
    drop((store, second));
    let verified = verify(&config(folder.path()), FLEET, |_, _| {}).expect("opens");
    assert_eq!(verified.damages, 0, "{:?}", verified.damage);
    assert_eq!(verified.entries, 0);
}

/// A brain that keeps next to nothing.
fn forgetful() -> benches::brain::Brain {
    brain_with(BRAIN, "[history]\nbytes_max = 1000\n")
}

fn first_version(brain: &benches::brain::Brain, id: &str) -> u64 {
    let versions = brain.get(&format!("/api/v1/devices/{id}/versions")).expect("versions");
    versions["first"].as_u64().expect("a number")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_device_that_lacks_what_was_let_go_gets_a_checkpoint() {
    let brain = forgetful();
    let mut device = device(&brain).await;
    let id = device.membership.device.to_string();
    let target = format!("/api/v1/devices/{id}/desired");
    for n in 0..600 {
        let body = json!({ "n": n, (format!("leaf/{}", n % 5)): n });
        assert_eq!(brain.call("PATCH", &target, Some(&body)).expect("answers").0, 200);
    }
    let began = Instant::now();
    while first_version(&brain, &id) < 512 {
        assert!(began.elapsed() < SOON, "its history is never let go");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Who set a value is known for as long as it stands.
    order(&brain, &["device", "set", &id, "kept=1", "--reason", "stays"]);
    let begins = first_version(&brain, &id);
    for n in 0..600 {
        let body = json!({ "n": 600 + n });
        assert_eq!(brain.call("PATCH", &target, Some(&body)).expect("answers").0, 200);
    }
    while first_version(&brain, &id) < begins + 256 {
        assert!(began.elapsed() < 2 * SOON, "its history is not let go again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let why = printed(&brain, &["why", &id, "desired/kept"]);
    assert_eq!(why[0]["set_by"]["reason"], "stays", "{why}");
    assert!(why[0]["set_by"]["version"].as_u64() < Some(first_version(&brain, &id)), "{why}");
    assert_eq!(why[0]["before"], Value::Null, "{why}");
    let gone = brain.call("GET", &format!("/api/v1/devices/{id}/state?version=3"), None);
    let (status, body) = gone.expect("answers");
    assert_eq!((status, body["error"]["code"].as_str()), (410, Some("HISTORY_PRUNED")), "{body}");
    let kept = 1_201 - first_version(&brain, &id) as usize;
    assert!(kept < 600, "{kept} entries are kept");
    device.connect().await.expect("connects");
    let all = |device: &benches::device::LightDevice| {
        device
            .tree
            .state()
            .iter()
            .any(|(path, value)| path.as_str() == "desired/n" && value.as_f64() == Some(1199.0))
    };
    device.run_until(all, SOON).await.expect("the brain's last entry came");
    let brains = device.tree.logs().iter().filter(|log| log.log != device.log());
    let entries: usize = brains.map(|log| device.entries(&log.log).len()).sum();
    assert!(entries <= kept, "{entries} entries came, and a checkpoint in place of the others");
    let state = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    assert_eq!(state["metadata"]["root"], data_encoding::HEXLOWER.encode(&device.tree.root()));
    assert!(brain.metric("fleet_history_prunes_total").expect("a metric") >= 1.0);
}

#[test]
fn who_joins_or_comes_back_after_the_beginning_was_let_go_holds_what_all_hold() {
    let brain = forgetful();
    let mut members = vec![member(&brain), member(&brain)];
    order(&brain, &["group", "create", "north"]);
    order(&brain, &["group", "add", "north", &members[0].id, &members[1].id]);
    for member in &members {
        wait("is a member", || share(member).is_some_and(|share| share["member"] == true));
    }
    set(&members[0], "gate/early=1");
    wait("the other has it", || leaf(&members[1], "gate/early") == Some(json!(1)));
    // One goes, with something that nobody has heard of.
    drop(members[1].edge.take());
    for n in 0..600 {
        let body = json!({ "gate/n": n });
        let (status, answer) =
            brain.call("PATCH", "/api/v1/groups/north/shared", Some(&body)).expect("answers");
        assert_eq!(status, 200, "{answer}");
    }
    let pruned = |changes: &Value| changes["changes"].as_array().map_or(0, Vec::len) < 400;
    wait("the beginning is let go", || {
        pruned(&printed(&brain, &["group", "history", "north", "--limit", "1000"]))
    });
    members[1].edge = Some(Edge::run(members[1].folder.path()));
    let late = member(&brain);
    order(&brain, &["group", "add", "north", &late.id]);
    members.push(late);
    for member in &members {
        wait("has the last", || leaf(member, "gate/n") == Some(json!(599)));
        wait("has the first as well", || leaf(member, "gate/early") == Some(json!(1)));
    }
    wait("writes", || share(&members[2]).is_some_and(|share| share["member"] == true));
    set(&members[2], "gate/late=1");
    set(&members[1], "gate/back=1");
    for member in &members {
        wait("all have it", || {
            leaf(member, "gate/late").is_some() && leaf(member, "gate/back").is_some()
        });
    }
    wait("all hold the same", || {
        let roots = roots(&brain, &members);
        roots.windows(2).all(|pair| pair[0] == pair[1])
    });
    agree(&brain, &members);
}
