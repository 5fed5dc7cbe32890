//! Settings that are read again while the brain runs, and a log in files.

use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::{BRAIN, SOON, pause};

/// A brain that logs to a file.
struct Logging {
    folder: tempfile::TempDir,
    process: Child,
}

impl Logging {
    fn start(settings: &str) -> Self {
        let folder = tempfile::tempdir().expect("temporary folder");
        let data = folder.path().join("data");
        let made = Command::new(BRAIN).arg("init").arg("--data-dir").arg(&data).output();
        assert!(made.expect("runs").status.success());
        let path = folder.path().join("brain.toml");
        write(folder.path(), settings);
        let process = Command::new(BRAIN)
            .arg("serve")
            .arg("--data-dir")
            .arg(&data)
            .args(["--device-listen", "127.0.0.1:0", "--api-listen", "127.0.0.1:0"])
            .env("FLEET_BRAIN_CONFIG", path)
            .env_remove("RUST_LOG")
            .spawn()
            .expect("runs");
        let brain = Self { folder, process };
        brain.until("the brain is ready");
        brain
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("logs/brain.log")).unwrap_or_default()
    }

    /// Waits until the log says something.
    fn until(&self, text: &str) {
        let began = Instant::now();
        while !self.log().contains(text) {
            assert!(began.elapsed() < SOON, "no {text:?} in\n{}", self.log());
            pause();
        }
    }

    fn reload(&self, settings: &str) {
        write(self.folder.path(), settings);
        let pid = Pid::from_raw(i32::try_from(self.process.id()).expect("a number"));
        kill_process(pid.expect("a process"), Signal::HUP).expect("is there");
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // A test that failed has said so already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write(folder: &Path, settings: &str) {
    let log = folder.join("logs/brain.log");
    let settings = format!("log_file = {:?}\ndisk_reserve_bytes = 1048576\n{settings}", log);
    fs::write(folder.join("brain.toml"), settings).expect("writes");
}

#[test]
fn a_hangup_takes_all_new_settings_or_none_and_says_what_changed() {
    let brain = Logging::start("log = 'info'\nheartbeat_ms = 15000\n");
    brain.reload("log = 'debug'\nheartbeat_ms = 15000\n\n[residency]\nidle_after_ms = 700\n");
    brain.until("settings read again and in force");
    let log = brain.log();
    assert!(
        log.contains("setting=\"log\" before=\"\\\"info\\\"\" after=\"\\\"debug\\\"\""),
        "{log}"
    );
    assert!(log.contains("setting=\"residency.idle_after_ms\""), "{log}");
    // What cannot change holds back what could.
    brain.reload("log = 'warn'\ncredit_bytes = 1000\napi_tls = true\n");
    brain.until("nothing was changed: api_tls can only change with a restart");
    brain.reload("log = 'warn'\nheartbeat_ms = 'often'\n");
    brain.until("settings stay as they are: ");
    brain.until("heartbeat_ms");
    brain.reload("log = 'loud'\nheartbeat_ms = 20000\n");
    brain.until("\"loud\" is no log level");
    assert!(!brain.log().contains("20000"), "{}", brain.log());
    brain.reload("log = 'debug'\nheartbeat_ms = 15000\n\n[residency]\nidle_after_ms = 700\n");
    brain.until("nothing changed");
}
