//! Faults of the disk: damage, an old copy, too little room.

use edge::agent::{Agent, StartError};
use edge::spool::SpoolError;
use edge::track::WriteError;
use protocol::state::Value;

use crate::peer::{Peer, until};
use crate::{alone, by_test, enqueue, folder, joining, number, numbers, path};

async fn drained(agent: &Agent) {
    until("an empty queue", || agent.status().online && agent.status().queue_depth == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_spool_is_set_aside_and_the_brain_gives_the_history_back() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let device = agent.device_id();
    enqueue(&agent, 1..=5).await;
    drained(&agent).await;
    agent.stop().await;
    let spool = dir.path().join("spool.db");
    let mut bytes = std::fs::read(&spool).expect("a spool");
    let middle = bytes.len() / 2;
    bytes[middle..].fill(0xA5);
    std::fs::write(&spool, bytes).expect("damaged");
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts all the same");
    let aside = std::fs::read_dir(dir.path()).expect("listed").flatten();
    let aside = aside.filter(|f| f.file_name().to_string_lossy().starts_with("spool.damaged-"));
    assert!(aside.count() >= 1);
    assert_eq!(agent.device_id(), device);
    until("damage reported", || peer.value(device, "reported/spool/damage").is_some()).await;
    enqueue(&agent, 6..=8).await;
    drained(&agent).await;
    assert_eq!(numbers(&peer.entries_of(device)), (1..=8).collect::<Vec<_>>());
    let same =
        async || agent.state().await.expect("a state").root == peer.root_of(device).expect("known");
    for _ in 0..200 {
        if same().await {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(same().await, "roots differ");
    agent.stop().await;
}

/// The disk goes back in time; `offline` numbers are written before the brain is seen again.
async fn restored_from_an_old_copy(offline: std::ops::RangeInclusive<i64>) {
    let (dir, peer) = (folder(), Peer::start().await);
    let (spool, copy) = (dir.path().join("spool.db"), dir.path().join("copy"));
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let device = agent.device_id();
    enqueue(&agent, 1..=5).await;
    drained(&agent).await;
    agent.stop().await;
    std::fs::copy(&spool, &copy).expect("copied");
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    enqueue(&agent, 6..=9).await;
    drained(&agent).await;
    agent.stop().await;
    std::fs::copy(&copy, &spool).expect("restored");
    peer.set_mode(crate::peer::Mode::Down);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let last = *offline.end();
    enqueue(&agent, offline.clone()).await;
    peer.set_mode(crate::peer::Mode::Up);
    drained(&agent).await;
    enqueue(&agent, last + 1..=last + 1).await;
    let device_value = || peer.value(device, "reported/test/number");
    until("the last value", || device_value() == Some(Value::from(last + 1))).await;
    drained(&agent).await;
    let root = agent.state().await.expect("a state").root;
    assert_eq!(Some(root), peer.root_of(device));
    let entries = peer.entries_of(device);
    let epochs: std::collections::BTreeSet<_> = entries.iter().map(|e| e.log.epoch).collect();
    assert!(epochs.len() >= 2, "a log that others know more of is not continued");
    for n in offline {
        assert!(numbers(&entries).contains(&n), "{n} is lost");
    }
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_from_yesterday_forks_no_log() {
    restored_from_an_old_copy(101..=103).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spool_from_yesterday_with_more_offline_entries_than_were_lost_converges() {
    restored_from_an_old_copy(101..=120).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_is_told_and_counted() {
    let dir = folder();
    let mut config = alone(&dir);
    config.limits.queue_bytes_max = 4_000;
    let agent = Agent::start(config).await.expect("starts");
    let mut written = 0;
    let error = loop {
        match agent.enqueue(number(written), by_test()).await {
            Ok(_) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, WriteError::QueueFull { limit_bytes: 4_000 }));
    assert!(agent.status().queue_full >= 1 && agent.status().queue_bytes < 8_000);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_unchanged_state_makes_no_entry_and_a_changed_key_one_of_one_key() {
    let dir = folder();
    let agent = Agent::start(alone(&dir)).await.expect("starts");
    let first = agent.enqueue(number(1), by_test()).await.expect("durable").expect("a change");
    assert_eq!(agent.enqueue(number(1), by_test()).await.expect("no change"), None);
    let mut changes = number(1);
    changes.push((path("reported/test/other"), Some(Value::from(2))));
    let second = agent.enqueue(changes, by_test()).await.expect("durable").expect("a change");
    assert_eq!(second.log, first.log);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_path_that_is_not_the_devices_is_refused_here_already() {
    let dir = folder();
    let agent = Agent::start(alone(&dir)).await.expect("starts");
    let changes = vec![(path("desired/a"), Some(Value::from(1)))];
    let error = agent.enqueue(changes, by_test()).await.expect_err("not the device's");
    assert!(matches!(error, WriteError::Refused(_)), "{error}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_agents_do_not_share_a_folder() {
    let dir = folder();
    let agent = Agent::start(alone(&dir)).await.expect("starts");
    let error = Agent::start(alone(&dir)).await.expect_err("in use");
    assert!(matches!(error, StartError::Spool(SpoolError::InUse)), "{error}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parts_that_are_killed_come_back_lose_nothing_and_are_in_the_journal() {
    const PARTS: [&str; 5] = ["track", "spool", "uplink", "apply", "sense"];
    let (dir, peer) = (folder(), Peer::start().await);
    let mut config = joining(&dir, &peer);
    config.local_api = true;
    let agent = Agent::start(config).await.expect("starts");
    let device = agent.device_id();
    let mut next = 1;
    for part in PARTS {
        enqueue(&agent, next..=next + 2).await;
        next += 3;
        assert!(agent.tree().kill(&format!("edge/{part}")), "{part} is there");
        enqueue(&agent, next..=next + 2).await;
        next += 3;
    }
    drained(&agent).await;
    assert_eq!(numbers(&peer.entries_of(device)), (1..next).collect::<Vec<_>>());
    let restarts: u64 = agent.tree().snapshot().iter().map(|node| node.restarts).sum();
    assert!(restarts >= 5);
    agent.stop().await;
    let journal = std::fs::read_to_string(dir.path().join("crashes/crashes-00000001.jsonl"));
    let journal = journal.expect("a journal");
    for part in PARTS {
        let told = |line: &str| {
            line.contains(&format!("\"path\":\"edge/{part}\"")) && line.contains("\"killed\"")
        };
        assert!(journal.lines().any(told), "{part} in {journal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_changes_fleets_brings_its_leaves_along() {
    let (dir, first, second) = (folder(), Peer::start().await, Peer::of_fleet(2).await);
    let agent = Agent::start(joining(&dir, &first)).await.expect("starts");
    let device = agent.device_id();
    enqueue(&agent, 1..=2).await;
    drained(&agent).await;
    agent.stop().await;
    std::fs::remove_file(dir.path().join("enrolment.json")).expect("enrolled");
    let agent = Agent::start(joining(&dir, &second)).await.expect("starts");
    drained(&agent).await;
    until("the leaf", || second.value(device, "reported/test/number") == Some(Value::from(2)))
        .await;
    assert_eq!(numbers(&second.entries_of(device)), [2]);
    agent.stop().await;
}
