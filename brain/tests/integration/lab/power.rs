//! The brain's machine loses power, again and again.

use std::time::Duration;

use benches::brain::Brain;
use benches::device::LightDevice;
use benches::power::{Disk, Loss};
use brain::planted;
use sim::fired::Fired;
use sim::random::Random;

use super::BRAIN_LAB;
use crate::harness::{count, device};
use crate::oracle::{Complaint, complaint, from_environment, load, renew, seed};

const DEVICES: usize = 3;
/// How long devices write at most before the cut.
const WRITING: Duration = Duration::from_secs(3);
/// The brain dies at one of so many of its operations on the disk.
const OPERATIONS: u64 = 500;

/// What came of a run of power cuts.
struct Outcome {
    complaint: Option<(String, Complaint)>,
    acknowledged: u64,
    fired: Fired,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_power_cuts() {
    // `FLEET_CUTS` asks for another number of cuts.
    let cuts = from_environment("FLEET_CUTS").unwrap_or(10);
    let seed = seed();
    let Outcome { complaint, acknowledged, fired } = power_cuts(cuts, seed, &[]).await;
    println!("seed: {seed}, acknowledged entries: {acknowledged}, lost: 0; {fired}");
    assert_eq!(complaint, None, "seed {seed}");
    assert!(acknowledged > cuts, "the load was too light to show anything");
    assert!(fired.of("unsynced_writes_lost") > 0, "the cuts had nothing to take: {fired}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brain_that_skips_fsync_is_noticed_at_a_power_cut() {
    let planted = [(planted::VARIABLE, planted::FSYNC_SKIPPED)];
    let outcome = power_cuts(10, seed(), &planted).await;
    let (place, complaint) = outcome.complaint.expect("lost writes are noticed");
    println!("noticed: {place}: {complaint}");
    // Either the oracle misses entries, or the brain itself finds less than its mark says.
    let lost = match &complaint {
        Complaint::Missing { .. } => true,
        Complaint::NotServed { said } => said.contains("had been acknowledged"),
        _ => false,
    };
    assert!(lost, "{place}: {complaint}");
}

/// Cuts the power under load until the oracle complains, or so many times.
async fn power_cuts(cuts: u64, seed: u64, environment: &[(&str, &str)]) -> Outcome {
    let mut random = Random::new(seed);
    let mut disk = Disk::new().expect("a disk");
    let shim = disk.environment();
    let shim = shim.each_ref().map(|(name, value)| (*name, value.as_str()));
    let environment = [&shim[..], environment].concat();
    let folder = disk.folder().join("brain");
    let mut brain = Brain::start_at(BRAIN_LAB, folder, &environment).expect("the brain starts");
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(device(&brain).await);
    }
    let mut of_former_devices = 0;
    let mut outcome = Outcome { complaint: None, acknowledged: 0, fired: Fired::default() };
    for n in 0..cuts {
        let loss = if n % 2 == 0 { Loss::Everything } else { Loss::Mix };
        let operation = 1 + random.below(OPERATIONS);
        brain.kill().expect("kills");
        let (name, value) = Disk::die_at(operation);
        brain.set(name, value);
        let died_at_start = brain.restart().is_err();
        brain.unset(name);
        if !died_at_start {
            let began = tokio::time::Instant::now();
            let loads: Vec<_> =
                devices.drain(..).map(|device| tokio::spawn(load(device))).collect();
            while brain.ended().expect("runs or has ended").is_none() && began.elapsed() < WRITING {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            outcome.fired.add("deaths_at_an_operation", u64::from(began.elapsed() < WRITING));
            brain.kill().expect("kills");
            for load in loads {
                devices.push(load.await.expect("the load does not panic"));
            }
        }
        outcome.fired.add("deaths_at_start", u64::from(died_at_start));
        let cut = disk.cut(loss, &mut random).expect("cuts");
        outcome.fired.merge(&cut.fired);
        outcome.acknowledged =
            devices.iter().map(LightDevice::stored).sum::<u64>() + of_former_devices;
        let place = format!("cut {n}, {loss:?}, at operation {operation}; {cut}");
        if let Err(error) = brain.restart() {
            let said = format!("{error:#}");
            outcome.complaint = Some((place, Complaint::NotServed { said }));
            return outcome;
        }
        if let Some(complaint) = devices.iter().find_map(|device| complaint(&brain, device)) {
            outcome.complaint = Some((place, complaint));
            return outcome;
        }
        of_former_devices += renew(&brain, &mut devices).await;
    }
    outcome
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_disk_sees_every_fsync_that_the_brain_counts() {
    let disk = Disk::new().expect("a disk");
    let shim = disk.environment();
    let shim = shim.each_ref().map(|(name, value)| (*name, value.as_str()));
    let brain = Brain::start_at(BRAIN_LAB, disk.folder().join("brain"), &shim).expect("starts");
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    let counted = || {
        let log = |name: &str| name.starts_with("brain/store/") && name.ends_with(".log");
        let calls = disk.calls(log).expect("reads");
        (brain.metric("fleet_store_syncs_total").expect("a metric") as u64, calls)
    };
    let (counted_before, before) = counted();
    for n in 1..=40 {
        device.write("reported/count", count(n)).expect("a valid path");
        device.offer().await.expect("offers");
        let stored = |device: &LightDevice| device.stored() == n;
        device.run_until(stored, Duration::from_secs(10)).await.expect("is stored");
    }
    let (counted_after, after) = counted();
    assert!(counted_after - counted_before >= 40, "one entry at a time");
    assert_eq!(after.syncs - before.syncs, counted_after - counted_before);
    assert!(after.changes - before.changes >= 40, "each batch is a write: {after:?}");
}
