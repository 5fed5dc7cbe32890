//! A thousand devices, all coming back at once.

use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::{LightDevice, Membership, random};
use data_encoding::HEXLOWER;
use tokio::task::JoinSet;

use crate::harness::{brain, count, way};

const DEVICES: usize = 1_000;
/// How long the devices write before they all drop.
const WRITING: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_devices_reconnect_at_once_and_all_states_are_equal() {
    let brain = brain();
    let way = way(&brain);
    let token = brain.enrolment_token(DEVICES as u32).expect("a token");
    let mut joining = JoinSet::new();
    for _ in 0..DEVICES {
        let (way, token) = (way.clone(), token.clone());
        joining.spawn(async move {
            let membership = Membership::enrol(&way, &token, random()).await.expect("enrols");
            let mut device = LightDevice::new(membership, way);
            device.connect().await.expect("connects");
            device
        });
    }
    let devices = joining.join_all().await;
    let until = Instant::now() + WRITING;
    let devices = each(devices, async move |device: &mut LightDevice| {
        while Instant::now() < until {
            write(device).await;
            let _ = device.run_until(|_| false, Duration::from_millis(500)).await;
        }
    });
    let mut devices = devices.await;
    for device in &mut devices {
        device.disconnect();
    }
    let started = Instant::now();
    let devices = each(devices, async |device: &mut LightDevice| {
        while device.connect().await.is_err() {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        write(device).await;
        let all = |device: &LightDevice| device.stored() == device.written();
        device.run_until(all, Duration::from_secs(60)).await.expect("all is stored");
    });
    let devices = devices.await;
    let took = started.elapsed();
    let written: u64 = devices.iter().map(LightDevice::written).sum();
    println!("{DEVICES} devices back and in sync after {took:.1?}; {written} entries in all");
    for device in &devices {
        assert_equal_state(&brain, device);
    }
}

async fn write(device: &mut LightDevice) {
    let next = device.written() + 1;
    device.write("reported/count", count(next)).expect("valid");
    device.offer().await.expect("offers");
}

/// Does something with every device at once.
async fn each(
    devices: Vec<LightDevice>,
    what: impl AsyncFn(&mut LightDevice) + Clone + Send + Sync + 'static,
) -> Vec<LightDevice> {
    let mut all = Vec::with_capacity(devices.len());
    let futures = devices.into_iter().map(|mut device| {
        let what = what.clone();
        async move {
            what(&mut device).await;
            device
        }
    });
    all.extend(futures_util::future::join_all(futures).await);
    all
}

fn assert_equal_state(brain: &Brain, device: &LightDevice) {
    let id = device.membership.device;
    let state = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    let root = HEXLOWER.encode(&device.tree.root());
    assert_eq!(state["metadata"]["root"], root.as_str(), "device {id}");
    let stored = device.stored();
    assert_eq!(state["state"]["reported/count"].as_u64(), Some(stored));
}
