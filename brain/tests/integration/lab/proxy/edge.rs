//! A real edge over TLS, through a hop that cuts, delays, splits and corrupts the stream, or falls
//! silent.

use std::path::Path;
use std::process::Command;

use super::*;
use crate::edge_process::{Edge, enroll_over};
use crate::harness::{BRAIN, edge_binary};

/// So many streams are broken before the hop is healed. The edge waits longer after each.
const BREAKS: u64 = 3;

fn rates() -> Rates {
    Rates {
        truncate_permille: 15,
        corrupt_permille: 10,
        half_open_permille: 10,
        split_permille: 200,
        delay_permille: 50,
        delay_ms_max: 50,
        ..Rates::default()
    }
}

/// How many streams were broken, each in one of these ways.
fn breaks(hop: &Proxy) -> u64 {
    ["truncated", "corrupted", "half_open"].map(|kind| hop.fired().of(kind)).iter().sum()
}

/// What the edge says of itself; null while it does not.
fn status(folder: &Path) -> Json {
    let output = Command::new(edge_binary())
        .args(["status", "--output", "json", "--data-dir"])
        .arg(folder)
        .output()
        .expect("runs");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn set(brain: &Brain, id: &str, period_ms: u64) {
    // So small dead bands that almost every sample is an entry.
    let desired = json!({ "sense/machine/period_ms": period_ms,
        "sense/machine/dead_band_cpu_percent": 0.01, "sense/machine/dead_band_load": 0.001 });
    let path = format!("/api/v1/devices/{id}/desired");
    let (status, body) = brain.call("PATCH", &path, Some(&desired)).expect("answers");
    assert_eq!(status, 200, "{body}");
}

/// Entries that are missing, doubled or out of order within their logs.
fn disorder(brain: &Brain, id: &str) -> Vec<String> {
    let mut last = BTreeMap::new();
    let mut disorder = Vec::new();
    for change in history(brain, id) {
        let (author, seq) = (change["author"].to_string(), change["seq"].as_u64());
        let before = last.insert(author.clone(), seq).flatten();
        // A log begins at 1, as does the next of the same author.
        if seq != Some(1) && seq != before.map(|before| before + 1) {
            disorder.push(format!("{author}: {seq:?} after {before:?}"));
        }
    }
    disorder
}

async fn run(seed: u64) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let brain = Brain::start_with(BRAIN, &[("FLEET_BRAIN_HEARTBEAT_MS", "500")]);
    let brain = brain.expect("the brain starts");
    brain.wait_ready().expect("the brain gets ready");
    let hop = hop(&brain, seed, Level::Bytes, rates()).await;
    hop.set_harmful(false);
    enroll_over(&brain, hop.address, folder.path());
    let devices = brain.get("/api/v1/devices").expect("devices");
    let id = devices["devices"][0]["id"].as_str().expect("an id").to_owned();
    hop.set_harmful(true);
    let _edge = Edge::run(folder.path());
    let until = Instant::now() + QUIET;
    let mut writes = 0;
    while breaks(&hop) < BREAKS {
        assert!(Instant::now() < until, "the streams are not broken: {}", hop.fired());
        writes += 1;
        set(&brain, &id, 100 + writes % 100);
        sleep(Duration::from_millis(100)).await;
    }
    hop.set_harmful(false);
    let last_ms = 60_000;
    set(&brain, &id, last_ms);
    // The brain's entry is there, and so is the edge's answer: then both hold the same.
    let applied = "reported/applied/sense/machine/period_ms";
    loop {
        let kept = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
        let edge = status(folder.path());
        let settled = kept["state"][applied] == last_ms
            && edge["queue_depth"] == 0
            && edge["root"] == kept["metadata"]["root"];
        if settled {
            break;
        }
        assert!(Instant::now() < until, "they do not agree: {edge} {kept}");
        sleep(Duration::from_millis(200)).await;
    }
    let entries = history(&brain, &id).len();
    println!(
        "edge, seed {seed}: {entries} entries, {writes} writes, {} connections\n  faults: {}",
        hop.connections(),
        hop.fired(),
    );
    disorder(&brain, &id)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_byte_faults_under_tls_an_edge_and_its_brain_hold_the_same() {
    for seed in seeds(1) {
        println!("to repeat it: FLEET_SEED={seed} FLEET_RUNS=1");
        assert_eq!(run(seed).await, Vec::<String>::new());
    }
}
