//! A real edge beside a brain.

use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use benches::brain::Brain;
use rustix::process::{Pid, Signal, kill_process};

use crate::harness::edge_binary;

/// The `edge` binary at work. Dropped, it is killed.
pub(crate) struct Edge(Option<Child>);

impl Edge {
    /// One that meets no other devices.
    pub(crate) fn run(folder: &Path) -> Self {
        Self::run_with(folder, &[])
    }

    /// The same, with settings from the environment.
    pub(crate) fn run_with(folder: &Path, environment: &[(&str, &str)]) -> Self {
        let process = Command::new(edge_binary())
            .args(["run", "--data-dir"])
            .arg(folder)
            .env("FLEET_EDGE_PEERS__ENABLED", "false")
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the edge starts");
        Self(Some(process))
    }

    pub(crate) fn kill(&mut self) {
        if let Some(mut process) = self.0.take() {
            process.kill().expect("kills");
            process.wait().expect("is gone");
        }
    }

    pub(crate) fn stop(mut self) {
        let mut process = self.0.take().expect("it runs");
        let id = Pid::from_raw(process.id() as i32).expect("a process has a number");
        kill_process(id, Signal::TERM).expect("is told to stop");
        assert!(process.wait().expect("ends").success(), "a stopped edge exits with zero");
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Enrols the device of a data folder.
pub(crate) fn enroll(brain: &Brain, folder: &Path) {
    enroll_over(brain, brain.devices, folder);
}

/// The same, over a hop.
pub(crate) fn enroll_over(brain: &Brain, address: SocketAddr, folder: &Path) {
    let token = brain.enrolment_token(1).expect("a token");
    let output = Command::new(edge_binary())
        .args(["enroll", "--data-dir"])
        .arg(folder)
        .args(["--server", &format!("wss://{address}")])
        .args(["--token", &token, "--name", "this-machine"])
        .output()
        .expect("runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}
