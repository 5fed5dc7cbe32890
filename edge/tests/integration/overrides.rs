//! What a person at the device sets in place of what is desired.

use std::time::Duration;

use edge::agent::Agent;
use edge::local_api::{StatusError, ask, order};
use edge::overrides::{Override, Request};
use protocol::state::Value;
use serde_json::{Value as Json, json};

use crate::peer::{Mode, Peer, until};
use crate::{alone, folder, joining, path};

const SETTING: &str = "sense/thermal/period_ms";

fn request(value: Json, for_ms: Option<u64>) -> Request {
    Request { path: SETTING.into(), value, for_ms, reason: "the sensor is new".into() }
}

async fn applies(agent: &Agent, wanted: i64) {
    let leaf = path(&format!("reported/applied/{SETTING}"));
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    loop {
        let state = agent.state().await.expect("a state").state;
        if state.get(&leaf) == Some(&Value::from(wanted)) {
            return;
        }
        assert!(std::time::Instant::now() < patience, "{:?} is applied", state.get(&leaf));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_holds_for_its_lease_on_both_sides_also_while_the_brain_is_away() {
    let (dir, peer) = (folder(), Peer::start().await);
    let mut config = joining(&dir, &peer);
    config.local_api = true;
    let agent = Agent::start(config).await.expect("starts");
    until("online", || agent.status().online).await;
    let device = agent.device_id();
    let brain_shows = |wanted: i64| {
        let now_ms = peer.now().wall_ms;
        let effective = peer.devices()[&device].tree.effective(now_ms);
        effective.get(SETTING) == Some(&Value::from(wanted))
    };
    peer.desire(device, SETTING, Some(Value::from(50_000)));
    applies(&agent, 50_000).await;
    let set: Vec<Override> =
        order(dir.path(), "/overrides", &request(json!(40_000), Some(600_000))).await.expect("set");
    assert!(set[0].holds && set[0].desired == Some(Value::from(50_000)), "{set:?}");
    applies(&agent, 40_000).await;
    until("the brain shows the override", || brain_shows(40_000)).await;
    let by = |entries: Vec<protocol::history::Entry>| {
        let last = entries.into_iter().rfind(|entry| entry.lease_until_ms.is_some());
        last.expect("an override").provenance
    };
    let provenance = by(peer.entries_of(device));
    assert!(provenance.principal.starts_with("local:uid-"), "{provenance:?}");
    assert_eq!(provenance.reason, "the sensor is new");
    // The same value for another time is a change as well.
    order::<Vec<Override>>(dir.path(), "/overrides", &request(json!(40_000), Some(1_500)))
        .await
        .expect("shortened");
    let lease = || {
        let tree = &peer.devices()[&device].tree;
        let shown = tree.decision(&path(&format!("override/{SETTING}")));
        shown.and_then(|shown| shown.by.candidate.lease_until_ms)
    };
    until("the brain knows", || lease().is_some_and(|until| until < peer.now().wall_ms + 60_000))
        .await;
    peer.set_mode(Mode::Down);
    applies(&agent, 50_000).await;
    until("the brain shows what is desired", || brain_shows(50_000)).await;
    let ended: Vec<Override> = ask(dir.path(), "/overrides").await.expect("a list");
    assert!(!ended[0].holds, "{ended:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_override_can_be_ended_before_its_time_and_a_wrong_one_says_what_is_wrong() {
    let dir = folder();
    let mut config = alone(&dir);
    config.local_api = true;
    let agent = Agent::start(config).await.expect("starts");
    let socket = edge::local_api::socket_in(dir.path());
    until("the socket", || socket.exists()).await;
    let set = |request: Request| {
        let dir = dir.path().to_owned();
        async move { order::<Vec<Override>>(&dir, "/overrides", &request).await }
    };
    set(request(json!(40_000), Some(600_000))).await.expect("set");
    applies(&agent, 40_000).await;
    let left = set(request(Json::Null, None)).await.expect("cleared");
    assert_eq!(left, []);
    let leaf = path(&format!("reported/applied/{SETTING}"));
    let patience = std::time::Instant::now() + Duration::from_secs(20);
    while agent.state().await.expect("a state").state.contains_key(&leaf) {
        assert!(std::time::Instant::now() < patience, "it is still applied");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let refused = set(request(json!(1), None)).await.expect_err("no lease");
    assert!(matches!(&refused, StatusError::Refused { why } if why.contains("how long")));
    let refused = set(request(json!({ "a": 1 }), Some(5_000))).await.expect_err("an object");
    assert!(matches!(&refused, StatusError::Refused { why } if why.contains("an object")));
    agent.stop().await;
}
