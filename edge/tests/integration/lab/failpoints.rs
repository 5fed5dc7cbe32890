//! The agent dies at every failpoint, and is started again.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::time::Duration;

use edge::failpoints::POINTS;
use sim::random::Random;

use crate::kill::{JOIN, MACHINE, STOP_AFTER, Writer, from_environment, kept};
use crate::peer::Peer;
use crate::{folder, numbers};

/// A failpoint that is not met within this is not met at all.
const PATIENCE: Duration = Duration::from_secs(60);
/// An agent that enqueues again has come back.
const BACK: Duration = Duration::from_millis(400);

/// What an agent is doing when it meets a failpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Work {
    /// It makes its folder, identity and spool, and enqueues.
    Begin,
    /// It finds what an earlier death left of a small file.
    Leftover,
    /// It joins a fleet, sends what it enqueues, and prunes what was sent.
    Join,
    /// It stops in good order.
    Stop,
    /// It finds that its folder was copied from another machine.
    Copied,
    /// It finds its spool damaged.
    Damaged,
}

/// Where a failpoint is met, and at which visit at most the agent dies there.
fn work(point: &str) -> (Work, u64) {
    match point {
        "disk.leftover_removed" => (Work::Leftover, 1),
        "disk.moved" | "disk.move_synced" => (Work::Copied, 3),
        "identity.aside_made" | "identity.aside_moved" => (Work::Copied, 1),
        "disk.folder_made" | "identity.key_made" | "identity.made" => (Work::Begin, 1),
        "enrolment.before_store" | "enrolment.stored" => (Work::Join, 1),
        "spool.pruned" | "spool.prune_committed" => (Work::Join, 3),
        "spool.set_aside" => (Work::Damaged, 1),
        "spool.before_write" | "spool.written" | "spool.committed" => (Work::Begin, 40),
        "spool.before_close" | "spool.closed" => (Work::Stop, 1),
        "track.before_clean_mark" | "track.clean_mark_made" => (Work::Stop, 1),
        "track.before_first_commit" | "track.started" => (Work::Begin, 1),
        _ if point.starts_with("disk.") => (Work::Begin, 2),
        _ if point.starts_with("spool.") => (Work::Begin, 1),
        _ => panic!("say where {point} is met"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_enqueue_answered_survives_deaths_at_every_failpoint() {
    // `FLEET_ROUNDS` asks for more rounds over all of them.
    let rounds: u64 = from_environment("FLEET_ROUNDS").unwrap_or(1);
    let seed = from_environment("FLEET_SEED").unwrap_or(1);
    let mut random = Random::new(seed);
    let (mut deaths, mut said) = (0, 0);
    for _ in 0..rounds {
        for (point, _) in POINTS {
            let (work, visit_max) = work(point);
            let place = format!("{point}={}", 1 + random.below(visit_max));
            match die_at(&place, work).await {
                Ok(count) => said += count,
                Err(complaint) => panic!("{place}, seed {seed}: {complaint}"),
            }
            deaths += 1;
        }
    }
    println!(
        "failpoints: {}, deaths: {deaths} in {rounds} rounds, seed: {seed}, \
         entries said to be durable: {said}, lost: 0",
        POINTS.len()
    );
}

/// Has an agent die at a place and come back. Returns how many entries it had said to be durable.
async fn die_at(place: &str, work: Work) -> Result<usize, String> {
    let temporary = folder();
    let dir = temporary.path().join("edge");
    let peer = Peer::start().await;
    let mut environment = Vec::new();
    let mut said = Vec::new();
    match work {
        Work::Begin => {}
        Work::Leftover => {
            fs::create_dir(&dir).expect("made");
            fs::write(dir.join("identity.new"), b"torn").expect("written");
        }
        Work::Join => {
            environment.push((JOIN, format!("{} {}", peer.url(), peer.token().to_text())));
        }
        Work::Stop => environment.push((STOP_AFTER, "20".to_owned())),
        Work::Copied | Work::Damaged => {
            said.extend(run_for(&dir, 1, &environment, BACK).await);
            if work == Work::Copied {
                environment.push((MACHINE, "2".to_owned()));
            } else {
                damage(&dir);
            }
        }
    }
    let identity = fs::read(dir.join("identity.json")).ok();
    let mut armed = environment.clone();
    armed.push((faultkit::WHERE_VARIABLE, place.to_owned()));
    let mut writer = Writer::start(&dir, 1, &armed);
    let ended = writer.ended_within(PATIENCE).await;
    let told = writer.kill();
    let died = ended.is_some_and(|status| status.signal() == Some(9));
    if !died {
        return Err(format!("it was not met: {ended:?}"));
    }
    if work != Work::Copied && work != Work::Damaged {
        said.extend(told);
    }
    // What was set aside is another device's, or beyond reading; what follows is this one's.
    let begins_anew = matches!(work, Work::Copied | Work::Damaged);
    if begins_anew {
        said.clear();
    } else {
        check(&dir, &peer, &said)?;
    }
    environment.retain(|(name, _)| *name != STOP_AFTER);
    let first = said.last().map_or(1, |last| last + 1);
    let again = run_for(&dir, first, &environment, BACK).await;
    if again.is_empty() {
        return Err("the agent does not come back".to_owned());
    }
    said.extend(again);
    check(&dir, &peer, &said)?;
    let now = fs::read(dir.join("identity.json")).map_err(|error| error.to_string())?;
    match identity {
        Some(before) if (work == Work::Copied) == (before == now) => {
            Err(format!("the identity is wrong for {work:?}"))
        }
        _ => Ok(said.len()),
    }
}

/// Runs an agent until it has enqueued for some time, and kills it.
async fn run_for(
    dir: &Path,
    first: i64,
    environment: &[(&'static str, String)],
    time: Duration,
) -> Vec<i64> {
    let mut writer = Writer::start(dir, first, environment);
    let started = dir.join("spool.db");
    let until = std::time::Instant::now() + PATIENCE;
    while !started.exists() && std::time::Instant::now() < until {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    writer.ended_within(time).await;
    writer.kill()
}

fn damage(dir: &Path) {
    // Without its log the file is what its first pages say.
    let _ = fs::remove_file(dir.join("spool.db-wal"));
    fs::write(dir.join("spool.db"), vec![0xA5; 8_192]).expect("damaged");
}

/// Everything that was said to be durable is in the spool or at the brain.
fn check(dir: &Path, peer: &Peer, said: &[i64]) -> Result<(), String> {
    let kept = kept(dir)?;
    let devices: Vec<_> = peer.devices().keys().copied().collect();
    let sent = devices.into_iter().flat_map(|device| numbers(&peer.entries_of(device)));
    let there: BTreeSet<_> = kept.iter().copied().chain(sent).collect();
    let missing: Vec<_> = said.iter().filter(|n| !there.contains(n)).collect();
    match missing.is_empty() {
        true => Ok(()),
        false => Err(format!("{missing:?} were said to be durable")),
    }
}
