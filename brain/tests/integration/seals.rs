//! Signed heads that come later than what they sign.

use std::time::Duration;

use benches::device::LightDevice;
use protocol::session::Input;

use crate::harness::{brain, count, device};

const SOON: Duration = Duration::from_secs(10);

async fn write(device: &mut LightDevice, entries: u64) {
    for _ in 0..entries {
        let next = device.written() + 1;
        device.write("reported/count", count(next)).expect("valid");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_signature_that_the_log_has_outrun_still_seals() {
    let mut brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    write(&mut device, 10).await;
    let early = device.sign().expect("a log");
    write(&mut device, 10).await;
    let late = device.sign().expect("a log");
    write(&mut device, 10).await;
    device.offer().await.expect("offers");
    device.run_until(|device| device.stored() == 30, SOON).await.expect("stored");
    assert_eq!(device.sealed(), 0);
    device.feed(Input::Sealed(early)).await.expect("sends");
    device.run_until(|device| device.sealed() == 10, SOON).await.expect("sealed from memory");

    brain.kill().expect("kills");
    brain.restart().expect("starts");
    device.connect().await.expect("connects");
    assert_eq!(device.sealed(), 10, "a seal is kept");
    device.feed(Input::Sealed(late)).await.expect("sends");
    device.run_until(|device| device.sealed() == 20, SOON).await.expect("sealed from history");
}
