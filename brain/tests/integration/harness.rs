//! What the tests share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use benches::brain::Brain;
use benches::device::{LightDevice, Membership, Way, random};
use benches::link::tls_config;
use protocol::state::Value;

pub(crate) const BRAIN: &str = env!("CARGO_BIN_EXE_brain");

/// The `edge` binary beside the brain's.
pub(crate) fn edge_binary() -> PathBuf {
    let edge = PathBuf::from(BRAIN).with_file_name("edge");
    assert!(edge.exists(), "build the edge first: cargo build -p edge");
    edge
}

/// A running brain.
pub(crate) fn brain() -> Brain {
    let brain = Brain::start(BRAIN).expect("the brain starts");
    brain.wait_ready().expect("the brain gets ready");
    brain
}

/// How to reach a brain.
pub(crate) fn way(brain: &Brain) -> Way {
    let tls = tls_config(&brain.authority().expect("an authority")).expect("TLS settings");
    let devices: SocketAddr = brain.devices;
    Way { brain: devices, source: None, tls: Some(tls) }
}

/// A new device of the brain's fleet, not yet connected.
pub(crate) async fn device(brain: &Brain) -> LightDevice {
    let way = way(brain);
    let token = brain.enrolment_token(1).expect("a token");
    let membership = Membership::enrol(&way, &token, random()).await.expect("enrols");
    LightDevice::new(membership, way)
}

/// The leaf that tests write, with a number.
pub(crate) fn count(n: u64) -> Value {
    Value::from(n as i64)
}

/// Waits a moment before somebody looks again.
#[expect(clippy::disallowed_methods, reason = "tests without a runtime, or with threads to spare")]
pub(crate) fn pause() {
    std::thread::sleep(Duration::from_millis(50));
}
