//! The command `frame-proxy`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

const PROXY: &str = env!("CARGO_BIN_EXE_frame-proxy");

/// A server that sends back what it gets.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let mut back = stream.try_clone().expect("a socket");
            std::thread::spawn(move || std::io::copy(&mut &stream, &mut back));
        }
    });
    address
}

/// Runs the command over one connection. Gives back what came back, the counts, and the log
/// without its times.
fn run(brain: SocketAddr, log: &Path, seed: &str) -> (Vec<u8>, Value, Vec<Value>) {
    let mut process = Command::new(PROXY)
        .args(["--listen", "127.0.0.1:0", "--brain", &brain.to_string(), "--output", "json"])
        .args(["--seed", seed, "--corrupt", "200", "--split", "200", "--log"])
        .arg(log)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("starts");
    let mut said = String::new();
    let stderr = process.stderr.as_mut().expect("piped");
    BufReader::new(stderr).read_line(&mut said).expect("says where it listens");
    let address: SocketAddr =
        said.split(' ').nth(1).expect("an address").parse().expect("an address");
    let mut stream = TcpStream::connect(address).expect("connects");
    stream.write_all(&[b'x'; 20_000]).expect("sends");
    stream.shutdown(Shutdown::Write).expect("ends");
    let mut back = Vec::new();
    stream.read_to_end(&mut back).expect("comes back");
    let id = Pid::from_raw(process.id() as i32).expect("a process has a number");
    kill_process(id, Signal::TERM).expect("is told to stop");
    let output = process.wait_with_output().expect("ends");
    assert!(output.status.success());
    let counts = serde_json::from_slice(&output.stdout).expect("JSON");
    let log = std::fs::read_to_string(log).expect("a log");
    let line = |line: &str| {
        let mut line: Value = serde_json::from_str(line).expect("a line of JSON");
        assert!(line.as_object_mut().expect("an object").remove("at_ms").is_some());
        line
    };
    let mut log: Vec<_> = log.lines().map(line).collect();
    // The two directions go on side by side; each for itself is in order.
    log.sort_by_key(|line| (line["direction"].to_string(), line["n"].as_u64()));
    (back, counts, log)
}

#[test]
fn the_command_logs_and_counts_what_it_did_and_does_it_again_for_the_same_seed() {
    let (brain, folder) = (echo(), tempfile::tempdir().expect("a folder"));
    let log = folder.path().join("faults.jsonl");
    let (back, counts, lines) = run(brain, &log, "7");
    assert_eq!(back.len(), 20_000);
    assert_eq!((&counts["seed"], &counts["connections"]), (&7.into(), &1.into()));
    for (fault, counted) in [("corrupt", "corrupted"), ("split", "split")] {
        let logged = lines.iter().filter(|line| line["fault"] == fault).count();
        assert!(logged > 3, "{fault}: {logged}");
        assert_eq!(counts["fired"][counted], logged, "{counts}");
    }
    assert_eq!(run(brain, &log, "7"), (back, counts, lines.clone()));
    assert_ne!(run(brain, &log, "8").2, lines);
}

#[test]
fn what_cannot_be_done_is_said_and_fails() {
    for (arguments, expected) in [
        (&["--drop", "5"][..], "--level frames"),
        (&["--split", "600", "--delay", "600"], "1200 of a thousand"),
        (&["--listen", "192.0.2.1:1"], "cannot listen on 192.0.2.1:1"),
        (&["--log", "/nowhere/x"], "/nowhere/x cannot be written"),
    ] {
        let output = Command::new(PROXY).args(arguments).output().expect("runs");
        assert_eq!(output.status.code(), Some(1), "{arguments:?}");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains(expected), "{said}");
    }
}
