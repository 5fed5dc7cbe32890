//! An agent is killed while it enqueues; what it said to be durable is there.

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use edge::agent::Agent;
use edge::enrolment::Request;
use edge::sense::BoardSource;
use edge::spool::{Options, Spool, SqliteSpool, path_in};
use sim::random::Random;

use crate::{alone, by_test, folder, number, numbers};

const FOLDER: &str = "EDGE_TEST_FOLDER";
const FIRST: &str = "EDGE_TEST_FIRST";
/// Address and token of a brain to join before anything is enqueued, with a space between.
pub(crate) const JOIN: &str = "EDGE_TEST_JOIN";
/// The number of the simulated machine.
pub(crate) const MACHINE: &str = "EDGE_TEST_MACHINE";
/// So many entries are enqueued before the agent stops in good order.
pub(crate) const STOP_AFTER: &str = "EDGE_TEST_STOP_AFTER";
/// After so many pages the write-ahead log is folded into the file: often, so that it is met.
const CHECKPOINT_PAGES: u32 = 16;

/// A number that the environment gives.
pub(crate) fn from_environment<T: std::str::FromStr>(name: &str) -> Option<T> {
    std::env::var(name).ok().and_then(|text| text.parse().ok())
}

/// Not a test of its own: the process that is killed.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "run by the tests that kill it"]
async fn child() {
    let (Ok(dir), Some(first)) = (std::env::var(FOLDER), from_environment::<i64>(FIRST)) else {
        return;
    };
    #[cfg(feature = "lab")]
    {
        faultkit::arm_from_environment(edge::failpoints::POINTS).expect("a known failpoint");
        edge::planted::plant_from_environment().expect("a known fault");
    }
    let mut config = alone(&folder());
    let options = Options { checkpoint_pages: CHECKPOINT_PAGES, ..Options::default() };
    config.spool = edge::spool::Place::File(path_in(dir.as_ref()), options);
    config.data_dir = dir.into();
    if let Some(machine) = from_environment(MACHINE) {
        config.board = BoardSource::Simulated(machine);
    }
    let join = std::env::var(JOIN).ok();
    if let Some((url, token)) = join.as_deref().and_then(|join| join.split_once(' ')) {
        config.request = Some(Request::new(url, token, "test").expect("a request"));
        config.limits.retain_bytes = 1_000;
    }
    let agent = Agent::start(config).await.expect("starts");
    while join.is_some() && !agent.status().online {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let stop_at = from_environment::<i64>(STOP_AFTER).map(|count| first + count);
    for n in first.. {
        if stop_at == Some(n) {
            return agent.stop().await;
        }
        // None where the spool had the number already: it had been committed and not said.
        agent.enqueue(number(n), by_test()).await.expect("durable");
        println!("\nenqueued {n}");
    }
}

/// A child that enqueues numbers from `first` on.
pub(crate) struct Writer {
    process: Child,
    said: JoinHandle<Vec<i64>>,
}

impl Writer {
    pub(crate) fn start(dir: &Path, first: i64, environment: &[(&str, String)]) -> Self {
        let mut process = Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", "kill::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(FOLDER, dir)
            .env(FIRST, first.to_string())
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a child");
        let lines = BufReader::new(process.stdout.take().expect("piped"));
        let said = std::thread::spawn(move || {
            let lines = lines.lines().map_while(Result::ok);
            let n = |line: String| line.strip_prefix("enqueued ")?.parse::<i64>().ok();
            lines.filter_map(n).collect::<Vec<_>>()
        });
        Self { process, said }
    }

    /// How it ended by itself within a time; none if it did not.
    pub(crate) async fn ended_within(&mut self, time: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + time;
        loop {
            match self.process.try_wait().expect("a child") {
                None if Instant::now() < until => {
                    tokio::time::sleep(Duration::from_millis(2)).await;
                }
                ended => return ended,
            }
        }
    }

    /// Kills it, if it still runs, and returns what it said to be durable.
    pub(crate) fn kill(mut self) -> Vec<i64> {
        self.process.kill().expect("killed");
        self.process.wait().expect("gone");
        self.said.join().expect("read")
    }
}

#[tokio::test]
async fn what_enqueue_answered_survives_a_kill() {
    let dir = folder();
    let (mut first, mut said) = (1i64, Vec::new());
    // `FLEET_KILLS` asks for another number of kills.
    let rounds: usize = from_environment("FLEET_KILLS").unwrap_or(20);
    let seed = from_environment("FLEET_SEED").unwrap_or(1);
    let mut random = Random::new(seed);
    for round in 0..rounds {
        let mut writer = Writer::start(dir.path(), first, &[]);
        // Some die while they start, some in the middle of their work.
        let starting_ms = if round % 4 == 0 { 0 } else { 150 };
        let wait = Duration::from_millis(starting_ms + random.below(250));
        assert_eq!(writer.ended_within(wait).await, None, "round {round}, seed {seed}");
        said.extend(writer.kill());
        let kept = match kept(dir.path()) {
            Ok(kept) => kept,
            Err(complaint) => panic!("round {round}, seed {seed}: {complaint}"),
        };
        let all: BTreeSet<_> = kept.iter().collect();
        let missing: Vec<_> = said.iter().filter(|n| !all.contains(n)).collect();
        assert!(missing.is_empty(), "round {round}: {missing:?} were said to be durable");
        assert!(kept.is_sorted(), "round {round}: out of order");
        // What was committed and not yet said counts as well.
        first = kept.last().copied().unwrap_or(0).max(first - 1) + 1;
    }
    println!("kills: {rounds}, seed: {seed}, entries said to be durable: {}, lost: 0", said.len());
    assert!(said.len() > rounds, "the children did some work: {}", said.len());
}

/// The numbers in a spool, in their order, or what is wrong with it.
pub(crate) fn kept(dir: &Path) -> Result<Vec<i64>, String> {
    let path = path_in(dir);
    if !path.exists() {
        return Ok(Vec::new());
    }
    let damaged = |error: &dyn std::fmt::Display| format!("the spool is damaged: {error}");
    let raw = rusqlite::Connection::open(&path).map_err(|error| damaged(&error))?;
    let check: String = raw
        .query_row("PRAGMA integrity_check", [], |row| row.get(0))
        .map_err(|error| damaged(&error))?;
    if check != "ok" {
        return Err(damaged(&check));
    }
    drop(raw);
    let (mut spool, loaded) =
        SqliteSpool::open(&path, Options::default()).map_err(|error| damaged(&error))?;
    let mut kept = Vec::new();
    for log in (0u32..).zip(loaded.iter().flat_map(|loaded| &loaded.logs)).map(|(n, _)| n) {
        // Pruning leaves a log without its beginning.
        let sizes = spool.sizes(log, 0).map_err(|error| damaged(&error))?;
        let before = sizes.first().map_or(0, |(seq, _)| seq - 1);
        let entries = spool.range(log, before, usize::MAX).map_err(|error| damaged(&error))?;
        if entries.len() != sizes.len() {
            return Err(format!("log {log} has gaps"));
        }
        kept.extend(numbers(&entries));
    }
    Ok(kept)
}
