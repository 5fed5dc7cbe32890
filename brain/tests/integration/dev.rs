//! `brain dev`, as a newcomer meets it.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::harness::{BRAIN, edge_binary, pause};

const SOON: Duration = Duration::from_secs(60);

#[test]
fn one_command_starts_a_brain_this_machines_edge_and_simulated_ones() {
    edge_binary();
    let folder = tempfile::tempdir().expect("temporary folder");
    let client = folder.path().join("client.json");
    let mut dev = Command::new(BRAIN)
        .args(["dev", "--count", "2", "--device-listen", "127.0.0.1:0"])
        .args(["--api-listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path().join("data"))
        .env("FLEET_BRAIN_CLIENT_FILE", &client)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("starts");
    let lines = BufReader::new(dev.stdout.take().expect("piped")).lines();
    let said: Vec<String> = lines.map_while(Result::ok).take(2).collect();
    assert!(said[0].starts_with("page") && said[0].contains("http://127.0.0.1:"), "{said:?}");
    let code = said[1].strip_prefix("one-time code").expect("a code").trim();
    let until = Instant::now() + SOON;
    loop {
        let devices = command(&client, &["device", "list", "--output", "json"]);
        let online: Vec<_> =
            devices.as_array().into_iter().flatten().filter(|d| d["online"] == true).collect();
        let this_machine = online.iter().find(|d| {
            let simulated = d["name"].as_str().is_some_and(|name| name.starts_with("sim"));
            !simulated && d["summary"]["machine/memory_available_bytes"].is_number()
        });
        if online.len() == 3 && this_machine.is_some() {
            break;
        }
        assert!(Instant::now() < until, "three devices come online and tell of them: {devices}");
        pause();
    }
    let login = Command::new(BRAIN)
        .args(["login", code])
        .env("FLEET_BRAIN_CLIENT_FILE", &client)
        .status()
        .expect("runs");
    assert!(login.success(), "the code works");
    interrupt(&mut dev);
    assert!(dev.wait().expect("ends").success(), "Ctrl-C is no failure");
    let left = Command::new("pgrep").args(["-f", &folder.path().display().to_string()]).output();
    assert!(left.is_ok_and(|left| left.stdout.is_empty()), "no edge is left over");
}

fn command(client: &Path, args: &[&str]) -> Value {
    let output = Command::new(BRAIN)
        .args(args)
        .env("FLEET_BRAIN_CLIENT_FILE", client)
        .output()
        .expect("runs");
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

fn interrupt(process: &mut Child) {
    let id = Pid::from_raw(process.id() as i32).expect("a process has a number");
    kill_process(id, Signal::INT).expect("is interrupted");
}
