//! What the tests share.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::{LightDevice, Membership, Way, random};
use benches::link::tls_config;
use protocol::state::Value;
use serde_json::Value as Json;

pub(crate) const BRAIN: &str = env!("CARGO_BIN_EXE_brain");

/// Long enough for a busy machine, short enough to fail in.
pub(crate) const SOON: Duration = Duration::from_secs(20);

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

/// A running brain with these settings, in TOML.
pub(crate) fn brain_with(binary: &str, settings: &str) -> Brain {
    let file = tempfile::NamedTempFile::new().expect("temporary file");
    std::fs::write(&file, settings).expect("writes");
    let path = file.path().to_str().expect("text");
    let brain = Brain::start_with(binary, &[("FLEET_BRAIN_CONFIG", path)]);
    let brain = brain.expect("the brain starts");
    brain.wait_ready().expect("the brain gets ready");
    brain
}

/// A node of a brain's tree.
pub(crate) fn node(brain: &Brain, path: &str) -> Option<Json> {
    let nodes = brain.get("/api/v1/tree").expect("a tree");
    nodes.as_array().into_iter().flatten().find(|node| node["path"] == path).cloned()
}

/// Waits until a node looks as wanted.
pub(crate) fn until(brain: &Brain, path: &str, wanted: impl Fn(&Json) -> bool) -> Json {
    let began = Instant::now();
    loop {
        let found = node(brain, path);
        if let Some(node) = found.as_ref().filter(|node| wanted(node)) {
            return node.clone();
        }
        assert!(began.elapsed() < SOON, "{path} never was as wanted: {found:?}");
        pause();
    }
}

/// The path of the only device's twin.
pub(crate) fn twin(brain: &Brain) -> String {
    let nodes = brain.get("/api/v1/tree").expect("a tree");
    let mut twins = nodes.as_array().into_iter().flatten().filter(|node| node["kind"] == "device");
    let path = twins.next().expect("a twin")["path"].as_str().expect("text").to_owned();
    assert!(twins.next().is_none(), "only one device");
    path
}

/// Does something to a node through the API.
pub(crate) fn act(brain: &Brain, path: &str, action: &str) -> u16 {
    let path = path.replace('/', "%2F");
    brain.call("POST", &format!("/api/v1/tree/{path}/{action}"), None).expect("answers").0
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

/// The command line, called as the first user.
pub(crate) fn command(brain: &Brain, args: &[&str]) -> Command {
    let mut command = Command::new(BRAIN);
    command
        .args(args)
        .env("FLEET_BRAIN_URL", format!("http://{}", brain.api))
        .env("FLEET_BRAIN_TOKEN_FILE", brain.data().join("admin.token"));
    command
}

/// What a command prints as JSON.
pub(crate) fn json(brain: &Brain, args: &[&str]) -> Json {
    let output = command(brain, args).args(["--output", "json"]).output().expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

/// What a command says beside what it prints.
pub(crate) fn order(brain: &Brain, args: &[&str]) -> String {
    let output = command(brain, args).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    said
}
