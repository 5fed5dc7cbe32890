//! Power cuts, as SIGKILL gives them: a child enqueues and says so, dies at some moment, and what
//! it said must be there.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use edge::agent::Agent;
use edge::spool::{Options, Spool, SqliteSpool, path_in};
use protocol::PublicKey;

use crate::{alone, by_test, folder, number, numbers};

const FOLDER: &str = "EDGE_TEST_FOLDER";
const FIRST: &str = "EDGE_TEST_FIRST";

/// `FLEET_KILLS` asks for another number of kills.
fn rounds() -> usize {
    std::env::var("FLEET_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(20)
}

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by what_enqueue_answered_survives_a_kill"]
async fn child() {
    let (Ok(dir), Ok(first)) = (std::env::var(FOLDER), std::env::var(FIRST)) else { return };
    let mut config = alone(&folder());
    config.spool = edge::spool::Place::File(path_in(dir.as_ref()), Options::default());
    config.data_dir = dir.into();
    let agent = Agent::start(config).await.expect("starts");
    for n in first.parse().expect("a number").. {
        agent.enqueue(number(n), by_test()).await.expect("durable").expect("a change");
        println!("\nenqueued {n}");
    }
}

#[tokio::test]
async fn what_enqueue_answered_survives_a_kill() {
    let dir = folder();
    let (mut first, mut said) = (1i64, Vec::new());
    let rounds = rounds();
    for round in 0..rounds {
        let mut child = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "kill::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, dir.path())
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(child.stdout.take().expect("piped"));
        let reader = std::thread::spawn(move || {
            let lines = lines.lines().map_while(Result::ok);
            let n = |line: String| line.strip_prefix("enqueued ")?.parse::<i64>().ok();
            lines.filter_map(n).collect::<Vec<_>>()
        });
        // Some die while they start, some in the middle of their work.
        let mut random = [0; 2];
        getrandom::fill(&mut random).expect("randomness");
        let mut wait_ms = u64::from(u16::from_le_bytes(random) % 250);
        if round % 4 != 0 {
            wait_ms += 150;
        }
        tokio::time::sleep(Duration::from_millis(wait_ms)).await;
        child.kill().expect("killed");
        child.wait().expect("gone");
        said.extend(reader.join().expect("read"));
        let kept = kept(dir.path());
        let missing: Vec<_> = said.iter().filter(|n| !kept.contains(n)).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} were said to be durable");
        assert!(kept.is_sorted(), "round {round}: out of order");
        // What was committed and not yet said counts as well.
        first = kept.last().copied().unwrap_or(0).max(first - 1) + 1;
    }
    println!("kills: {rounds}, entries said to be durable: {}, lost: 0", said.len());
    assert!(said.len() > rounds, "the children did some work: {}", said.len());
}

/// The numbers in a spool, which is intact.
fn kept(dir: &std::path::Path) -> Vec<i64> {
    let path = path_in(dir);
    if !path.exists() {
        return Vec::new();
    }
    let raw = rusqlite::Connection::open(&path).expect("opens");
    let check: String =
        raw.query_row("PRAGMA integrity_check", [], |row| row.get(0)).expect("checks");
    assert_eq!(check, "ok");
    drop(raw);
    let (mut spool, loaded) = SqliteSpool::open(&path, Options::default()).expect("intact");
    let Some(loaded) = loaded else { return Vec::new() };
    let authors: Vec<PublicKey> = loaded.logs.iter().map(|log| log.state.log.author).collect();
    assert!(authors.len() <= 1, "a kill is no reason for a new epoch");
    if authors.is_empty() {
        return Vec::new();
    }
    numbers(&spool.range(0, 0, usize::MAX).expect("reads"))
}
