//! A brain that is asked to end lets its devices go in good order.

use std::time::Duration;

use futures_util::future::join_all;
use protocol::ErrorCode;
use protocol::state::Value;

use crate::harness::{brain, device};

const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_device_is_told_to_come_back_at_a_time_of_its_own_and_loses_nothing() {
    let mut brain = brain();
    let mut devices = Vec::new();
    for _ in 0..4 {
        let mut device = device(&brain).await;
        device.connect().await.expect("connects");
        device.write("reported/n", Value::from(1)).expect("written");
        device.offer().await.expect("offered");
        device.run_until(|device| device.stored() == 1, SOON).await.expect("stored");
        devices.push(device);
    }
    let stopping = tokio::task::spawn_blocking(move || {
        let status = brain.stop().expect("ends");
        (brain, status)
    });
    let ends = devices.iter_mut().map(|device| device.run_until(|d| !d.is_connected(), SOON));
    for ended in join_all(ends).await {
        ended.expect("ends");
    }
    let (mut brain, status) = stopping.await.expect("stops");
    assert_eq!(status.code(), Some(0));
    let mut told = Vec::new();
    for device in &devices {
        let ended = device.ended.as_ref().expect("told");
        assert!(ended.by_peer && ended.error.code == ErrorCode::GoingAway, "{ended:?}");
        told.push(ended.retry_after_ms.expect("a time"));
    }
    assert!(told.iter().all(|ms| (1_000..=2_000).contains(ms)), "{told:?}");
    told.sort_unstable();
    told.dedup();
    assert!(told.len() > 1, "not all at the same moment: {told:?}");
    brain.restart().expect("starts again");
    brain.wait_ready().expect("is ready");
    for device in &mut devices {
        device.way.brain = brain.devices;
        device.connect().await.expect("connects again");
        assert_eq!(device.stored(), 1, "nothing is sent twice, nothing is missing");
    }
}
