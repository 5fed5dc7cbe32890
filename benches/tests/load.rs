//! Every scenario of the load bench, small, against a real brain.

#![cfg(feature = "load")]

use std::path::Path;
use std::process::Command;

use serde_json::Value;

const LOAD: &str = env!("CARGO_BIN_EXE_load");

/// The results of the one scenario that `arguments` name.
fn load(arguments: &str) -> Value {
    let brain = Path::new(LOAD).with_file_name("brain-lab");
    assert!(
        brain.exists(),
        "build it first: cargo build -p brain --features plain-text --bin brain-lab"
    );
    let output = Command::new(LOAD)
        .args(arguments.split(' '))
        .args(["--seconds", "0.5", "--rounds", "1", "--output", "json"])
        .output()
        .expect("load runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "load {arguments}: {said}");
    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert!(report["machine"]["sync_us"]["median"].as_f64().is_some_and(|us| us > 0.0));
    report["scenarios"][0]["results"].clone()
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or_else(|| panic!("{value} is no number"))
}

#[test]
fn every_acknowledged_update_is_counted_and_costs_something() {
    for (tls, wire_min) in [("false", 60.0), ("true", 80.0)] {
        let results = load(&format!("ack --devices 20 --in-flight 1 --tls {tls}"));
        let round = &results[0]["rounds"][0];
        let counted = number(&round["latency"]["count"]) / 0.5;
        let rate = number(&round["updates_per_second"]);
        // The interval is a little longer than asked for, never shorter.
        assert!(rate > 20.0 && rate <= counted * 1.01, "{rate} of {counted}");
        assert!(number(&round["brain_cpu_us"]) > 1.0);
        assert!(number(&round["wire_up_bytes"]) > wire_min, "{round}");
        assert!(number(&round["wire_up_bytes"]) > number(&round["frame_up_bytes"]));
        let fsyncs = number(&round["fsyncs"]);
        assert!((1.0 / 40.0..1.2).contains(&fsyncs), "{fsyncs} fsyncs for 20 at a time");
    }
}

#[test]
fn traced_updates_reach_a_collector_and_a_bad_one_stops_nothing() {
    let outcomes = load("tracing --devices 10 --in-flight 16");
    let outcomes = outcomes.as_array().expect("a list");
    assert_eq!(outcomes.len(), 5);
    for outcome in outcomes {
        assert!(number(&outcome["rounds"][0]["updates_per_second"]) > 20.0, "{outcome}");
    }
    assert!(number(&outcomes[2]["collected_bytes"]) > 1_000.0);
}

#[test]
fn actors_are_killed_and_come_back_while_others_write() {
    let outcome = load("supervision --devices 20 --rate 200");
    let pair = &outcome["pairs"][0];
    assert!(number(&pair["kills"]) > 5.0, "{pair}");
    // What is on its way when the tree is looked at is not counted yet.
    assert!(number(&outcome["restarts"]) + 5.0 > number(&pair["kills"]), "{outcome}");
    assert_eq!(outcome["lost"], 0, "no connection ends with its actor");
    assert!(number(&pair["killing"]["updates_per_second"]) > 20.0);
}

#[test]
fn a_crashed_twin_is_back_with_its_state_and_takes_memory() {
    let outcome = load("twins --devices 300");
    let round = &outcome["rounds"][0];
    assert_eq!(number(&round["back"]["count"]), 300.0);
    assert!(number(&round["back"]["p50_us"]) >= number(&round["answer"]["p50_us"]));
    assert!(number(&round["all_back_ms"]) > 0.0);
}

#[test]
fn a_rate_is_kept_and_a_payload_crosses_the_wire() {
    let results = load("ack --devices 10 --in-flight 4 --rate 100 --payload 1000 --tls false");
    let round = &results[0]["rounds"][0];
    let rate = number(&round["updates_per_second"]);
    assert!((60.0..140.0).contains(&rate), "{rate} updates/s");
    // Text of 64 letters packs to three quarters.
    assert!(number(&round["frame_up_bytes"]) > 700.0);
    assert!(number(&round["disk_bytes"]) > 700.0);
}

#[test]
fn a_connected_device_takes_memory_and_a_connect_takes_time() {
    let results = load("idle --devices 100 --tls false");
    let round = &results[0]["rounds"][0];
    assert_eq!(number(&round["connect"]["count"]), 100.0);
    assert!(number(&round["connect_brain_cpu_us"]) > 0.0);
    assert!(number(&results[0]["empty_brain"]["rss_bytes"]) > 1e6);
    assert!(number(&results[0]["ed25519_us"]) > 10.0);
}

#[test]
fn after_a_storm_all_devices_are_back_and_in_sync() {
    // Three client processes.
    let results = load("storm --devices 20 --devices-per-client 8 --tls true");
    let round = &results[0]["rounds"][0];
    assert_eq!(number(&round["connect"]["count"]), 20.0);
    let (connected, in_sync) = (&round["connected_seconds"], &round["in_sync_seconds"]);
    assert!(number(connected) > 0.0 && number(in_sync) >= number(connected));
}

#[test]
fn every_device_is_told_and_later_than_it_was_written() {
    let results = load("fanout --devices 20 --tls false");
    let round = &results[0]["rounds"][0];
    assert_eq!(number(&round["call"]["count"]), 20.0);
    assert_eq!(number(&round["told"]["count"]), 20.0);
    assert!(number(&round["told"]["p50_us"]) > 0.0);
}

#[test]
fn every_way_of_reading_a_history_is_timed() {
    let results = load("history --devices 2 --updates 300 --tls false");
    let reads = results["reads"].as_array().expect("a list");
    assert_eq!(reads.len(), 6);
    for read in reads {
        assert!(number(&read["latency"]["count"]) >= 1.0);
        assert!(number(&read["answer_bytes"]) > 100.0, "{read}");
    }
}

#[test]
fn a_killed_brain_gets_its_fleet_back() {
    let results = load("coldstart --devices 20 --tls false");
    let round = &results[0]["rounds"][0];
    assert!(number(&round["ready_ms"]) > 1.0);
    assert!(number(&round["in_sync_seconds"]) < 60.0);
}

#[test]
fn the_rows_to_compare_with_are_those_of_the_brain() {
    let results = load("compare --devices 8 --in-flight 1 --peers");
    let rows = &results["rows_per_update"];
    // One at a time: each update is a commit of its own, and now and then a head is signed.
    for kind in ["history", "log_ends", "leaves"] {
        assert!((0.99..1.05).contains(&number(&rows[kind])), "{rows}");
    }
    assert!((0.99..1.5).contains(&number(&rows["trees"])), "{rows}");
    let outcomes = results["outcomes"].as_array().expect("a list");
    assert_eq!(outcomes.len(), 3);
    for outcome in outcomes {
        assert_eq!(outcome["absent"], Value::Null);
        assert!(number(&outcome["rounds"][0]["updates_per_second"]) > 0.0);
        assert!(number(&outcome["ratio"]["median"]) > 0.0);
    }
}

#[test]
fn settings_that_make_no_sense_are_refused_with_a_way_on() {
    let run = |arguments: &[&str]| {
        let output = Command::new(LOAD).args(arguments).output().expect("load runs");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(run(&["ack", "--brain", "/nowhere"]).contains("cargo build -p brain"));
    assert!(run(&["ack", "--seconds", "0"]).contains("--seconds must be"));
}

#[test]
fn every_conflict_is_decided() {
    let rounds = load("conflicts --devices 10 --rate 200");
    assert_eq!(number(&rounds[0]["decided"]["count"]), 100.0, "{rounds}");
    assert!(number(&rounds[0]["cpu_us_per_conflict"]) > 1.0);
}
