//! The device loses power, again and again.

use std::collections::BTreeSet;
use std::time::Duration;

use benches::power::{Disk, Loss};
use edge::planted;
use sim::fired::Fired;
use sim::random::Random;

use crate::kill::{Writer, from_environment, kept};

/// The agent dies at one of so many of its operations on the disk.
const OPERATIONS: u64 = 400;
/// One that does fewer is killed.
const WRITING: Duration = Duration::from_secs(3);

/// What came of a run of power cuts.
struct Outcome {
    complaint: Option<String>,
    said: usize,
    fired: Fired,
}

#[tokio::test]
async fn what_enqueue_answered_survives_power_cuts() {
    // `FLEET_CUTS` asks for another number of cuts.
    let cuts = from_environment("FLEET_CUTS").unwrap_or(10);
    let seed = from_environment("FLEET_SEED").unwrap_or(1);
    let Outcome { complaint, said, fired } = power_cuts(cuts, seed, &[]).await;
    assert_eq!(complaint, None, "seed {seed}");
    println!("seed: {seed}, entries said to be durable: {said}, lost: 0; {fired}");
    assert!(said as u64 > cuts, "the agent did some work: {said}");
    assert!(fired.of("unsynced_writes_lost") > 0, "the cuts had nothing to take: {fired}");
}

#[tokio::test]
async fn an_edge_that_skips_fsync_is_noticed_at_a_power_cut() {
    let planted = [(planted::VARIABLE, planted::FSYNC_SKIPPED.to_owned())];
    let outcome = power_cuts(10, 1, &planted).await;
    println!("noticed: {}", outcome.complaint.expect("lost writes are noticed"));
}

/// Cuts the power while entries are enqueued until one is missing, or so many times.
async fn power_cuts(cuts: u64, seed: u64, environment: &[(&'static str, String)]) -> Outcome {
    let mut random = Random::new(seed);
    let mut disk = Disk::new().expect("a disk");
    let dir = disk.folder().join("edge");
    let mut all = BTreeSet::new();
    let mut outcome = Outcome { complaint: None, said: 0, fired: Fired::default() };
    let mut first = 1;
    for n in 0..cuts {
        let loss = if n % 2 == 0 { Loss::Everything } else { Loss::Mix };
        let operation = 1 + random.below(OPERATIONS);
        let mut environment = environment.to_vec();
        environment.extend(disk.environment());
        environment.push(Disk::die_at(operation));
        let mut writer = Writer::start(&dir, first, &environment);
        let died = writer.ended_within(WRITING).await.is_some();
        outcome.fired.add("deaths_at_an_operation", u64::from(died));
        all.extend(writer.kill());
        outcome.said = all.len();
        let cut = disk.cut(loss, &mut random).expect("cuts");
        outcome.fired.merge(&cut.fired);
        let place = format!("cut {n}, {loss:?}, at operation {operation}; {cut}");
        let kept = match kept(&dir) {
            Ok(kept) => kept,
            Err(complaint) => {
                outcome.complaint = Some(format!("{place}: {complaint}"));
                return outcome;
            }
        };
        let there: BTreeSet<_> = kept.iter().collect();
        let missing: Vec<_> = all.iter().filter(|n| !there.contains(n)).collect();
        if !missing.is_empty() || !kept.is_sorted() {
            let complaint = format!("{place}: missing {missing:?}, there are {kept:?}");
            outcome.complaint = Some(complaint);
            return outcome;
        }
        first = kept.last().copied().unwrap_or(0).max(first - 1) + 1;
        // The look at the spool has written to it, past the shim.
        disk.settle().expect("settles");
    }
    outcome
}
