//! Whole agents, against a double of the brain, the disk and the kernel's signals.

mod commands;
mod faults;
mod figures;
mod kill;
#[cfg(feature = "lab")]
mod lab;
mod link;
mod overrides;
mod peer;

use edge::agent::{Agent, AgentConfig};
use edge::enrolment::Request;
use protocol::history::{Change, Provenance};
use protocol::state::{Path, StateSource, Value};

use peer::Peer;

/// A simulated device in a folder, which will join the peer's fleet.
fn joining(dir: &tempfile::TempDir, peer: &Peer) -> AgentConfig {
    let mut config = alone(dir);
    let token = peer.token().to_text();
    config.request = Some(Request::new(&peer.url(), &token, "test").expect("a request"));
    config
}

/// A simulated device in a folder, without a fleet. Its sensors are slow, so that tests count
/// their own entries.
fn alone(dir: &tempfile::TempDir) -> AgentConfig {
    let mut config = AgentConfig::simulated(dir.path(), 1);
    for (setting, value) in
        [("thermal/period_ms", 60_000), ("power/period_ms", 60_000), ("machine/period_ms", 60_000)]
    {
        config.sense = config.sense.with(setting, &value.into()).expect("allowed");
    }
    config
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().expect("a folder")
}

fn number(number: i64) -> Vec<Change> {
    vec![(path("reported/test/number"), Some(Value::from(number)))]
}

fn path(text: &str) -> Path {
    Path::new(text).expect("a path")
}

fn by_test() -> Provenance {
    Provenance::new(StateSource::Edge, "test", "test")
}

async fn enqueue(agent: &Agent, numbers: std::ops::RangeInclusive<i64>) {
    for n in numbers {
        agent.enqueue(number(n), by_test()).await.expect("durable");
    }
}

/// The numbers that a test enqueued, in the order in which a brain has them.
fn numbers(entries: &[protocol::history::Entry]) -> Vec<i64> {
    let number = path("reported/test/number");
    let value = |entry: &protocol::history::Entry| {
        let delta = &entry.delta;
        let value = delta.added.get(&number).or_else(|| delta.modified.get(&number))?;
        Some(value.as_f64()? as i64)
    };
    entries.iter().filter_map(value).collect()
}
