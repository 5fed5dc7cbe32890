//! The agent's figures: they add up, and are shown.

use edge::agent::Agent;
use edge::track::QueueAccount;
use telemetry::Meters;

use crate::peer::{Peer, until};
use crate::{alone, enqueue, folder, joining};

fn account(agent: &Agent) -> QueueAccount {
    let account = agent.metrics().account();
    assert!(account.balances(), "{account:?}");
    assert_eq!(account.queued, agent.status().queue_depth, "{account:?}");
    account
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_enqueued_is_acknowledged_queued_or_refused_also_over_a_restart() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(alone(&dir)).await.expect("starts without a network");
    enqueue(&agent, 1..=20).await;
    let before = account(&agent);
    assert!(before.enqueued >= 20 && before.queued == before.enqueued, "{before:?}");
    agent.stop().await;

    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    until("an empty queue", || {
        agent.status().online && agent.status().queue_depth == 0 && account(&agent).queued == 0
    })
    .await;
    let after = account(&agent);
    assert_eq!(after.recovered, before.queued, "{after:?}");
    // The device joined a fleet, so what it had written was written again there.
    let rewritten = after.refused["REWRITTEN"];
    assert!(rewritten >= after.recovered, "{after:?}");
    assert_eq!(after.acknowledged, after.recovered + after.enqueued - rewritten, "{after:?}");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_turned_away_is_counted() {
    let dir = folder();
    let mut config = alone(&dir);
    config.limits.queue_bytes_max = 4_000;
    let agent = Agent::start(config).await.expect("starts");
    let mut turned_away = 0;
    for n in 0..200 {
        let written = agent.enqueue(crate::number(n), crate::by_test()).await;
        turned_away += u64::from(written.is_err());
    }
    let account = account(&agent);
    assert!(turned_away > 0);
    assert!(account.refused["QUEUE_FULL"] >= turned_away, "{account:?}");
    assert!(agent.metrics().queue_is_full());
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn figures_are_shown_under_the_names_of_the_guide() {
    let (dir, peer) = (folder(), Peer::start().await);
    let agent = Agent::start(joining(&dir, &peer)).await.expect("starts");
    let meters = Meters::scraped_only();
    assert_eq!(agent.metrics().scrape(), None);
    agent.metrics().observe(&meters);
    enqueue(&agent, 1..=200).await;
    until("an empty queue", || agent.status().online && agent.status().queue_depth == 0).await;
    let text = agent.metrics().scrape().expect("figures");
    let lines = text.lines().map(|line| Ok(line.to_owned()));
    let parsed = prometheus_parse::Scrape::parse(lines).expect("Prometheus text");
    let figure = |name: &str, label: &str| {
        let of = |sample: &&prometheus_parse::Sample| {
            sample.metric == name
                && (label.is_empty() || sample.labels.values().any(|value| value == label))
        };
        let sample = parsed.samples.iter().find(of);
        match sample.unwrap_or_else(|| panic!("{name} {label} in\n{text}")).value {
            prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => {
                value
            }
            ref other => panic!("{name} is {other:?}"),
        }
    };
    assert!(figure("fleet_queue_enqueued_total", "") >= 200.0);
    assert_eq!(figure("fleet_queue_depth", ""), 0.0);
    assert_eq!(figure("fleet_uplink_sessions_total", "welcomed"), 1.0);
    assert!(figure("fleet_spool_commits_total", "") >= 1.0);
    assert!(figure("fleet_spool_size_bytes", "") > 0.0);
    assert!(figure("fleet_sensor_reads_total", "thermal") >= 1.0);
    assert!(figure("fleet_uplink_sync_duration_seconds", "") >= 0.0);
    let (sent, plain) = (
        figure("fleet_uplink_io_bytes_total", "transmit"),
        figure("fleet_uplink_transmit_uncompressed_bytes_total", ""),
    );
    assert!(sent > 0.0 && plain >= sent, "{sent} of {plain}");
    guide_names_everything(&text);
    agent.stop().await;
}

/// Every figure stands in the guide with its type.
fn guide_names_everything(text: &str) {
    let guide = "../ops/guides/metrics.md";
    let guide = std::fs::read_to_string(guide).expect("the guide");
    for line in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').expect("a name and a type");
        let row = format!("| `{name}` | {kind} |");
        assert!(name == "target_info" || guide.contains(&row), "no row with {row}");
    }
}
