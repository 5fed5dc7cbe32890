//! The link: joining, resuming, falling silent, and state that flows both ways.

use std::time::{Duration, Instant};

use edge::agent::Agent;
use edge::clock::Signs;
use edge::enrolment::{Enrolment, Request};
use edge::sense::BoardSource;
use protocol::Layer;
use protocol::error::Cause;
use protocol::state::{Scalar, Value};

use crate::peer::{HEARTBEAT_MS, Mode, Peer, until};
use crate::{alone, by_test, enqueue, folder, joining, number, numbers};

async fn online(agent: &Agent) {
    until("online", || agent.status().online).await;
}

async fn drained(agent: &Agent) {
    until("an empty queue", || agent.status().online && agent.status().queue_depth == 0).await;
}

/// Both sides hold the same leaves, to the byte.
async fn assert_converged(agent: &Agent, peer: &Peer) {
    let device = agent.device_id();
    drained(agent).await;
    let patience = Instant::now() + Duration::from_secs(20);
    loop {
        let ours = agent.state().await.expect("a state").root;
        if Some(ours) == peer.root_of(device) {
            return;
        }
        assert!(Instant::now() < patience, "roots differ");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_joins_by_itself_and_its_state_reaches_the_brain() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    online(&agent).await;
    assert_converged(&agent, &peer).await;
    let device = agent.device_id();
    assert!(peer.value(device, "reported/thermal/cpu_celsius").is_some());
    assert!(peer.value(device, "reported/system/hostname").is_some());
    let sealed = || {
        let devices = peer.devices();
        devices[&device].tree.logs().iter().all(|log| log.sealed() == log.seq)
    };
    until("everything sealed", sealed).await;
    let status = agent.status();
    assert!(status.enrolled && status.name.as_deref() == Some("test"));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_another_authority_is_not_believed() {
    let (dir, peer, other) = (folder(), Peer::start().await, Peer::start().await);
    let mut config = joining(&dir, &peer);
    let token = other.token().to_text();
    config.request = Some(Request::new(&peer.url(), &token, "test").expect("a request"));
    let agent = Agent::start(config).await.expect("starts");
    until("an error", || agent.status().last_error.is_some()).await;
    let text = agent.status().last_error.expect("an error");
    assert!(text.contains("not a brain that this device trusts"), "{text}");
    assert!(!agent.status().enrolled);
    assert!(Enrolment::load(dir.path()).expect("reads").is_none());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_that_the_brain_does_not_know_is_told_apart() {
    let (dir, peer) = (folder(), Peer::start().await);
    let mut config = joining(&dir, &peer);
    let mut token = peer.token();
    token.secret = [0; 32];
    config.request = Some(Request::new(&peer.url(), &token.to_text(), "t").expect("a request"));
    let agent = Agent::start(config).await.expect("starts");
    until("an error", || agent.status().last_error.is_some()).await;
    let text = agent.status().last_error.expect("an error");
    assert!(text.contains("BAD_TOKEN") && text.contains("brain enroll-token create"), "{text}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_written_before_joining_is_written_again_in_order() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(alone(&dir)).await.expect("starts without a network");
    enqueue(&agent, 1..=20).await;
    let device = agent.device_id();
    agent.stop().await;
    let agent = Agent::start(alone(&dir)).await.expect("starts again");
    let state = agent.state().await.expect("a state").state;
    assert_eq!(state.get(&crate::path("reported/test/number")), Some(&Value::from(20)));
    enqueue(&agent, 21..=30).await;
    agent.stop().await;
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts and joins");
    assert_eq!(agent.device_id(), device);
    assert_converged(&agent, &peer).await;
    assert_eq!(numbers(&peer.entries_of(device)), (1..=30).collect::<Vec<_>>());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_outage_costs_nothing_and_repeats_nothing() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let device = agent.device_id();
    online(&agent).await;
    enqueue(&agent, 1..=10).await;
    peer.set_mode(Mode::Down);
    until("offline", || !agent.status().online).await;
    enqueue(&agent, 11..=300).await;
    assert!(agent.status().queue_depth >= 290);
    peer.set_mode(Mode::Up);
    assert_converged(&agent, &peer).await;
    assert_eq!(numbers(&peer.entries_of(device)), (1..=300).collect::<Vec<_>>());
    assert!(agent.status().sessions >= 2);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restart_goes_on_in_the_same_log() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let device = agent.device_id();
    online(&agent).await;
    enqueue(&agent, 1..=3).await;
    agent.stop().await;
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts again");
    enqueue(&agent, 4..=6).await;
    assert_converged(&agent, &peer).await;
    let entries = peer.entries_of(device);
    assert_eq!(numbers(&entries), (1..=6).collect::<Vec<_>>());
    assert!(entries.iter().all(|entry| entry.log == entries[0].log));
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_brain_that_fell_silent_is_found_within_two_heartbeats() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let device = agent.device_id();
    assert_converged(&agent, &peer).await;
    peer.set_mode(Mode::Silent);
    let silent = Instant::now();
    enqueue(&agent, 1..=5).await;
    until("offline", || !agent.status().online).await;
    // What was heard last may be almost a heartbeat old when the silence begins.
    let limit = Duration::from_millis(u64::from(2 * HEARTBEAT_MS) + 500);
    assert!(silent.elapsed() <= limit, "{:?}", silent.elapsed());
    assert!(agent.status().queue_depth >= 5, "nothing sent into silence counts as delivered");
    peer.set_mode(Mode::Up);
    assert_converged(&agent, &peer).await;
    assert_eq!(numbers(&peer.entries_of(device)), [1, 2, 3, 4, 5]);
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_ahead_costs_a_new_epoch_and_no_entry() {
    const HOUR_MS: i64 = 3_600_000;
    let (dir, peer) = (folder(), Peer::start().await);
    let mut config = joining(&dir, &peer);
    // A synchronised clock is believed until the brain refuses what it dated.
    config.signs = Signs { trusted: true, ..Signs::default() };
    let agent = Agent::start(config).await.expect("starts");
    let device = agent.device_id();
    assert_converged(&agent, &peer).await;
    agent.clock().skew(HOUR_MS);
    enqueue(&agent, 1..=8).await;
    assert_converged(&agent, &peer).await;
    let entries = peer.entries_of(device);
    assert_eq!(numbers(&entries), (1..=8).collect::<Vec<_>>());
    let now_ms = peer.now().wall_ms;
    assert!(entries.iter().all(|entry| entry.hlc.wall_ms <= now_ms + 60_000));
    let epochs: std::collections::BTreeSet<_> = entries.iter().map(|e| e.log.epoch).collect();
    assert_eq!(epochs.len(), 2);
    assert!(agent.clock().offset_ms() < -HOUR_MS / 2);
    enqueue(&agent, 9..=9).await;
    assert_converged(&agent, &peer).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn desired_state_is_applied_and_reported() {
    let (dir, hooks, peer) = (folder(), folder(), Peer::start().await);
    let out = hooks.path().join("out");
    let script = hooks.path().join("fan");
    std::fs::write(&script, format!("#!/bin/sh\ncat >> {}\n", out.display())).expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&script, mode).expect("executable");
    let mut config = joining(&dir, &peer);
    config.hooks_dir = Some(hooks.path().to_path_buf());
    let agent = Agent::start(config.clone()).await.expect("starts");
    let device = agent.device_id();
    online(&agent).await;
    peer.desire(device, "sense/thermal/period_ms", Some(Value::from(250)));
    peer.desire(device, "sense/thermal/dead_band_celsius", Some(Value::from("wide")));
    peer.desire(device, "hooks/fan", Some(Value::from("full")));
    peer.desire(device, "coffee/strength", Some(Value::from(3)));
    let reported = |path: &str| peer.value(device, &format!("reported/{path}"));
    let applied = || reported("applied/sense/thermal/period_ms") == Some(Value::from(250));
    until("the period applied", applied).await;
    until("the hook applied", || reported("applied/hooks/fan").is_some()).await;
    until("an error", || {
        reported("apply_errors/coffee/strength") == Some(Value::from("no applier"))
    })
    .await;
    until("another error", || reported("apply_errors/sense/thermal/dead_band_celsius").is_some())
        .await;
    peer.desire(device, "coffee/strength", None);
    until("no error", || reported("apply_errors/coffee/strength").is_none()).await;
    assert_converged(&agent, &peer).await;
    agent.stop().await;
    let agent = Agent::start(config).await.expect("starts again");
    online(&agent).await;
    peer.desire(device, "sense/thermal/period_ms", Some(Value::from(500)));
    let applied = || reported("applied/sense/thermal/period_ms") == Some(Value::from(500));
    until("the period applied", applied).await;
    let ran = std::fs::read_to_string(out).expect("the hook ran");
    assert_eq!(ran, "full", "the hook ran once");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sensor_that_gives_no_value_is_reported_with_what_is_wrong_until_it_works() {
    let (dir, board, peer) = (folder(), folder(), Peer::start().await);
    let zone = board.path().join("sys/class/thermal/thermal_zone0");
    std::fs::create_dir_all(&zone).expect("made");
    std::fs::write(zone.join("type"), "cpu-thermal\n").expect("written");
    std::fs::write(zone.join("temp"), "warm\n").expect("written");
    let mut config = joining(&dir, &peer);
    config.board = BoardSource::Linux(hw::Root::under(board.path()));
    config.sense = config.sense.with("thermal/period_ms", &200.into()).expect("allowed");
    let agent = Agent::start(config).await.expect("starts");
    let device = agent.device_id();
    online(&agent).await;
    let told = || match peer.value(device, "reported/sensors/faulty/thermal") {
        Some(Value::List(items)) => {
            let text = |item: &Scalar| match item {
                Scalar::Text(text) => text.parse::<Cause>().expect("a cause"),
                other => panic!("{other:?}"),
            };
            Some(items.iter().map(text).collect::<Vec<_>>())
        }
        _ => None,
    };
    until("a fault", || told().is_some_and(|causes| causes.len() == 2)).await;
    let causes = told().expect("a fault");
    let layers: Vec<_> = causes.iter().map(|cause| cause.place.layer).collect();
    assert_eq!(layers, [Layer::Edge, Layer::Hardware], "{causes:?}");
    assert!(causes[1].message.ends_with("not of the documented form"), "{causes:?}");
    std::fs::write(zone.join("temp"), "48312\n").expect("written");
    until("no fault", || told().is_some_and(|causes| causes.is_empty())).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_changed_by_hand_is_put_right_and_said() {
    let (dir, hooks, peer) = (folder(), folder(), Peer::start().await);
    let fan = hooks.path().join("state");
    for (name, text) in [
        ("fan", format!("cat > {}", fan.display())),
        ("fan.check", format!("test \"$(cat)\" = \"$(cat {})\"", fan.display())),
    ] {
        let script = hooks.path().join(name);
        std::fs::write(&script, format!("#!/bin/sh\n{text}\n")).expect("written");
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, mode).expect("executable");
    }
    let mut config = joining(&dir, &peer);
    config.hooks_dir = Some(hooks.path().to_path_buf());
    config.verify_every = Duration::from_millis(300);
    let agent = Agent::start(config).await.expect("starts");
    let device = agent.device_id();
    online(&agent).await;
    peer.desire(device, "hooks/fan", Some(Value::from("full")));
    let reported = |path: &str| peer.value(device, &format!("reported/{path}"));
    until("the hook applied", || reported("applied/hooks/fan").is_some()).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(reported("drift/hooks/fan"), None, "it holds");
    std::fs::write(&fan, "off").expect("written");
    let state = || std::fs::read_to_string(&fan).ok();
    until("it is put right", || state().as_deref() == Some("full")).await;
    until("it is said", || reported("drift/hooks/fan").is_some()).await;
    assert_eq!(reported("applied/hooks/fan"), Some(Value::from("full")));
    peer.desire(device, "hooks/fan", None);
    until("it goes", || reported("applied/hooks/fan").is_none()).await;
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_new_address_is_given_up_and_a_right_one_kept() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let device = agent.device_id();
    assert_converged(&agent, &peer).await;
    peer.desire(device, "edge/server_url", Some(Value::from("wss://localhost:1")));
    let calls_it = || agent.status().server.as_deref() == Some("wss://localhost:1/");
    until("the new address called", calls_it).await;
    until("the former address back", || agent.status().online).await;
    let right = peer.url().replace("localhost", "127.0.0.1");
    peer.desire(device, "edge/server_url", Some(Value::from(right.clone())));
    let kept = || {
        let enrolment = Enrolment::load(dir.path()).expect("reads").expect("enrolled");
        enrolment.server.as_str().trim_end_matches('/') == right
    };
    until("the right address kept", kept).await;
    agent.enqueue(number(1), by_test()).await.expect("durable");
    assert_converged(&agent, &peer).await;
    agent.stop().await;
}
