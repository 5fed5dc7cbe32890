//! The brain is killed at random moments under load; what it had acknowledged is there.

use std::time::Duration;

use benches::brain::Brain;
use benches::device::LightDevice;
use sim::random::Random;

use crate::harness::{brain, device};
use crate::oracle::{complaint, from_environment, load, renew, seed};

const DEVICES: usize = 4;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_survives_kills_of_the_brain() {
    // `FLEET_KILLS` asks for another number of kills.
    let kills = from_environment("FLEET_KILLS").unwrap_or(20);
    let seed = seed();
    let mut random = Random::new(seed);
    let mut brain = brain();
    let mut devices = Vec::new();
    for _ in 0..DEVICES {
        devices.push(device(&brain).await);
    }
    let mut acknowledged = 0;
    let mut of_former_devices = 0;
    for _ in 0..kills {
        let run = Duration::from_millis(random.within(&(50..450)));
        let loads: Vec<_> = devices.drain(..).map(|device| tokio::spawn(load(device))).collect();
        tokio::time::sleep(run).await;
        brain.kill().expect("kills");
        for load in loads {
            devices.push(load.await.expect("the load does not panic"));
        }
        brain.restart().expect("starts again, above its high-water mark");
        acknowledged = devices.iter().map(LightDevice::stored).sum::<u64>() + of_former_devices;
        devices.iter().for_each(|device| assert_nothing_is_missing(&brain, device));
        of_former_devices += renew(&brain, &mut devices).await;
    }
    println!("kills: {kills}, seed: {seed}, acknowledged entries: {acknowledged}, lost: 0");
    assert!(acknowledged > kills, "the load was too light to show anything");
    for device in &mut devices {
        device.connect().await.expect("connects");
        let all = |device: &LightDevice| device.stored() == device.written();
        device.run_until(all, Duration::from_secs(30)).await.expect("the rest arrives");
        assert_nothing_is_missing(&brain, device);
    }
}

fn assert_nothing_is_missing(brain: &Brain, device: &LightDevice) {
    assert_eq!(complaint(brain, device), None);
}
