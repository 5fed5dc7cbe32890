//! The binary: exit codes, messages, signals.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use crate::folder;

fn edge(dir: &std::path::Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
    command.arg("--data-dir").arg(dir);
    for variable in ["FLEET_SERVER_URL", "FLEET_API_KEY", "DEVICE_ID", "FLEET_EDGE_CONFIG"] {
        command.env_remove(variable);
    }
    command
}

fn text(output: &Output) -> String {
    let text = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&text).into_owned()
}

#[test]
fn status_without_an_agent_says_what_to_do() {
    let dir = folder();
    let output = edge(dir.path()).arg("status").output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    assert!(text(&output).contains("edge run"), "{}", text(&output));
}

#[test]
fn wrong_arguments_and_configuration_are_2() {
    let dir = folder();
    let code = |command: &mut Command| {
        let output = command.output().expect("runs");
        (output.status.code(), text(&output))
    };
    assert_eq!(code(edge(dir.path()).arg("fly")).0, Some(2));
    let (status, said) = code(edge(dir.path()).arg("run").env("DEVICE_ID", "edge-1"));
    assert_eq!(status, Some(2));
    assert!(said.contains("DEVICE_ID") && said.contains("32 hexadecimal digits"), "{said}");
    let (status, said) = code(edge(dir.path()).args(["enroll", "--token", "x"]));
    assert_eq!(status, Some(2));
    assert!(said.contains("--server"), "{said}");
    let (status, said) =
        code(edge(dir.path()).args(["enroll", "--server", "ws://a", "--token", "x"]));
    assert_eq!(status, Some(2));
    assert!(said.contains("wss://HOST:PORT"), "{said}");
}

#[tokio::test]
async fn an_agent_runs_tells_its_status_and_stops_in_good_order() {
    let dir = folder();
    let id = "00112233445566778899aabbccddeeff";
    let agent = edge(dir.path())
        .arg("run")
        .env("DEVICE_ID", id)
        .env("FLEET_API_KEY", "hush-hush")
        .stderr(Stdio::piped())
        .spawn()
        .expect("runs");
    let patience = Instant::now() + Duration::from_secs(20);
    let status = loop {
        let output = edge(dir.path()).args(["status", "--output", "json"]).output().expect("runs");
        if output.status.success() {
            break output.stdout;
        }
        assert!(Instant::now() < patience, "{}", text(&output));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let status: serde_json::Value = serde_json::from_slice(&status).expect("JSON");
    assert_eq!(status["device_id"], id);
    assert_eq!(status["enrolled"], false);
    assert_eq!(status["online"], false);
    assert!(status["root"].as_str().is_some_and(|root| root.len() == 64), "{status}");
    assert!(ask(dir.path(), "/healthz").starts_with("HTTP/1.1 200 "));
    let ready = ask(dir.path(), "/readyz");
    assert!(ready.starts_with("HTTP/1.1 200 ") && ready.contains("offline"), "{ready}");
    let metrics = ask(dir.path(), "/metrics");
    assert!(metrics.contains("fleet_queue_enqueued_total"), "{metrics}");
    assert!(metrics.contains("service_instance_id=\"00112233445566778899aabbccddeeff\""));
    assert!(ask(dir.path(), "/etc/passwd").starts_with("HTTP/1.1 404 "));
    let tree = edge(dir.path()).args(["tree", "--output", "json"]).output().expect("runs");
    let tree: Vec<serde_json::Value> = serde_json::from_slice(&tree.stdout).expect("JSON");
    let running = |path| tree.iter().any(|n| n["path"] == path && n["status"] == "running");
    assert!(running("edge/spool") && running("edge/track"), "{tree:?}");
    let crashes = edge(dir.path()).arg("crashes").output().expect("runs");
    assert_eq!(String::from_utf8_lossy(&crashes.stdout), "nothing has crashed\n");
    let table = edge(dir.path()).arg("status").output().expect("runs");
    assert!(text(&table).contains("not enrolled"));
    let socket = std::fs::metadata(dir.path().join("edge.sock")).expect("a socket");
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
    let pid = agent.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().expect("sent").success());
    let output = agent.wait_with_output();
    let output = output.expect("ended");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output));
    assert!(!text(&output).contains("hush-hush"));
    assert!(!dir.path().join("edge.sock").exists());
}

/// What the agent of a folder answers over its socket.
fn ask(dir: &std::path::Path, path: &str) -> String {
    let mut socket = UnixStream::connect(dir.join("edge.sock")).expect("connects");
    socket
        .write_all(format!("GET {path} HTTP/1.1\r\nhost: edge\r\n\r\n").as_bytes())
        .expect("asks");
    let mut answer = String::new();
    socket.read_to_string(&mut answer).expect("answers");
    answer
}

#[test]
fn every_command_has_help() {
    let dir = folder();
    for command in ["run", "enroll", "status", "tree", "crashes", "override", "simulate"] {
        let output = edge(dir.path()).args([command, "--help"]).output().expect("runs");
        assert_eq!(output.status.code(), Some(0));
        assert!(text(&output).contains("--data-dir"), "{command}");
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "no runtime is blocked")]
fn a_hangup_changes_the_log_level_and_nothing_that_needs_a_restart() {
    let dir = folder();
    let config = dir.path().join("edge.toml");
    let log = dir.path().join("log/edge.log");
    let write = |rest: &str| {
        let text = format!("[log]\nfile = {log:?}\n{rest}");
        std::fs::write(&config, text).expect("writes");
    };
    write("level = 'info'\n");
    let mut agent = edge(dir.path())
        .arg("run")
        .env("FLEET_EDGE_CONFIG", &config)
        .env("DEVICE_ID", "00112233445566778899aabbccddeeff")
        .env_remove("RUST_LOG")
        .spawn()
        .expect("runs");
    let until = |text: &str| {
        let patience = Instant::now() + Duration::from_secs(20);
        loop {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            if said.contains(text) {
                break;
            }
            assert!(Instant::now() < patience, "no {text:?} in\n{said}");
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    let pid = agent.id().to_string();
    let hangup = || {
        assert!(Command::new("kill").args(["-HUP", &pid]).status().expect("sent").success());
    };
    while !edge(dir.path()).arg("status").output().expect("runs").status.success() {
        assert!(agent.try_wait().expect("is known").is_none(), "it ended");
    }
    write("level = 'debug'\n");
    hangup();
    until("settings read again: the log changed");
    write("level = 'info'\n[clock]\ntrusted = true\n");
    hangup();
    until("all but log.level can only change with a restart");
    agent.kill().expect("ends");
    agent.wait().expect("ended");
}
