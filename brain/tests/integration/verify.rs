//! `brain verify` finds what is damaged, and says where.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::state::Value as Leaf;
use rocksdb::{DB, IteratorMode, Options};
use serde_json::Value;

use crate::harness::{BRAIN, SOON, brain, count, device};

fn verify(data: &Path) -> Output {
    let arguments = ["verify", "--output", "json", "--data-dir"];
    Command::new(BRAIN).args(arguments).arg(data).output().expect("runs")
}

fn found(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&output.stderr)))
}

/// A brain with a device that has written for a while, several snapshots of it, and what is left of
/// another one.
async fn lived_in() -> (Brain, LightDevice) {
    let brain = brain();
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    for n in 1..=600 {
        device.write("reported/n", count(n)).expect("written");
        if n % 50 == 0 {
            device.write("reported/text", Leaf::from(format!("at {n}").as_str())).expect("written");
            device.offer().await.expect("offered");
            let all = device.written();
            device.run_until(|device| device.stored() == all, SOON).await.expect("stored");
            device.seal().await.expect("sealed");
        }
    }
    let id = device.membership.device;
    let body = serde_json::json!({ "a": 1, "b": [1, 2] });
    let target = format!("/api/v1/devices/{id}/desired");
    assert_eq!(brain.call("PATCH", &target, Some(&body)).expect("answers").0, 200);
    let former = crate::harness::device(&brain).await.membership.device;
    let target = format!("/api/v1/devices/{former}?reason=test");
    assert_eq!(brain.call("DELETE", &target, None).expect("answers").0, 200);
    (brain, device)
}

/// The database as it lies there, without a brain.
fn raw(data: &Path) -> DB {
    let folder = data.join("store");
    let options = Options::default();
    let families = DB::list_cf(&options, &folder).expect("families");
    DB::open_cf(&options, &folder, families).expect("opens")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_healthy_folder_is_found_healthy_beside_its_brain_and_without_it() {
    let (mut brain, device) = lived_in().await;
    let beside = verify(brain.data());
    let report = found(&beside);
    assert!(beside.status.success(), "{report}");
    drop(device);
    brain.stop().expect("stops");
    let output = verify(brain.data());
    let report = found(&output);
    assert!(output.status.success(), "{report}");
    assert_eq!((&report["trees"], &report["damages"]), (&1.into(), &0.into()), "{report}");
    assert_eq!(report["entries"], 613, "600 numbers, 12 texts, one write");
    assert!(report["snapshots"].as_u64() >= Some(2), "{report}");
    assert_eq!(report["tombstones"], 1, "{report}");
    assert!(report["signatures"].as_u64() >= Some(1), "{report}");
    assert!(report["records"]["leaves"].as_u64() >= Some(4), "{report}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_in_each_kind_of_record_is_found_and_named() {
    let (mut brain, device) = lived_in().await;
    drop(device);
    brain.stop().expect("stops");
    let families = DB::list_cf(&Options::default(), brain.data().join("store")).expect("families");
    let mut damaged = 0;
    for family in families {
        let db = raw(brain.data());
        let handle = db.cf_handle(&family).expect("is there");
        let Some((key, value)) =
            db.iterator_cf(handle, IteratorMode::Start).next().transpose().expect("reads")
        else {
            continue;
        };
        let mut flipped = value.to_vec();
        let middle = flipped.len() / 2;
        flipped[middle] ^= 1;
        db.put_cf(handle, &key, &flipped).expect("written");
        drop(db);
        let output = verify(brain.data());
        assert_eq!(output.status.code(), Some(1), "{family}");
        // Without a format or a fleet there is nothing to go by.
        if family != "meta" {
            let report = found(&output);
            let named = report["damage"].as_array().expect("a list");
            assert!(named.iter().any(|damage| damage["family"] == family.as_str()), "{report}");
        }
        damaged += 1;
        let db = raw(brain.data());
        let handle = db.cf_handle(&family).expect("is there");
        db.put_cf(handle, &key, &value).expect("written");
        drop(db);
    }
    assert!(damaged >= 9, "{damaged} kinds of records");
    assert!(verify(brain.data()).status.success(), "all is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_are_whole_but_do_not_belong_together_are_found() {
    let (mut brain, device) = lived_in().await;
    drop(device);
    brain.stop().expect("stops");
    // A leaf, a stretch of history, a snapshot and a way to find them go missing.
    for (family, expected) in [
        ("leaves", "not what its history comes to"),
        ("history", "are missing"),
        ("log_ends", "cannot be found by their log"),
        ("tree_ids", "cannot be found by its id"),
    ] {
        let db = raw(brain.data());
        let handle = db.cf_handle(family).expect("is there");
        let (key, value) =
            db.iterator_cf(handle, IteratorMode::Start).next().expect("a record").expect("reads");
        db.delete_cf(handle, &key).expect("deleted");
        drop(db);
        let report = found(&verify(brain.data()));
        let text = report["damage"].to_string();
        assert!(text.contains(expected), "{family}: {text}");
        let db = raw(brain.data());
        db.put_cf(db.cf_handle(family).expect("is there"), &key, &value).expect("written");
    }
    assert!(verify(brain.data()).status.success(), "all is as it was");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_byte_or_a_missing_end_of_any_file_is_found_or_harmless() {
    let (mut brain, device) = lived_in().await;
    // So that there is a file of each kind: what was written before is compacted at the start.
    brain.stop().expect("stops");
    brain.restart().expect("starts");
    brain.wait_ready().expect("ready");
    let target = format!("/api/v1/devices/{}/desired", device.membership.device);
    let body = serde_json::json!({ "c": 3 });
    assert_eq!(brain.call("PATCH", &target, Some(&body)).expect("answers").0, 200);
    drop(device);
    brain.stop().expect("stops");
    let healthy = found(&verify(brain.data()));
    assert_eq!(healthy["damages"], 0, "{healthy}");
    let (mut kinds, mut noticed) = (BTreeSet::new(), 0);
    for file in fs::read_dir(brain.data().join("store")).expect("a folder") {
        let path = file.expect("a file").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let content = fs::read(&path).expect("reads");
        // What people read about the database, and its lock.
        if name.starts_with("LOG") || name == "LOCK" || content.is_empty() {
            continue;
        }
        kinds.insert(path.extension().map_or(name.clone(), |kind| kind.to_string_lossy().into()));
        let places = [0, content.len() / 3, content.len() / 2, content.len() - 1];
        let flipped = places.map(|at| {
            let mut flipped = content.clone();
            flipped[at] ^= 0x10;
            flipped
        });
        let shorter = [content.len() / 2, content.len() - 1].map(|end| content[..end].to_vec());
        for damaged in flipped.into_iter().chain(shorter) {
            fs::write(&path, damaged).expect("writes");
            let output = verify(brain.data());
            if output.status.success() {
                assert_eq!(found(&output), healthy, "{name}: what is served is what it was");
            } else {
                noticed += 1;
            }
        }
        fs::write(&path, content).expect("writes");
    }
    println!("{noticed} damages noticed in {kinds:?}");
    assert!(kinds.contains("sst") && kinds.contains("log"), "{kinds:?}");
    assert!(noticed >= 6, "{noticed}");
    assert!(verify(brain.data()).status.success(), "all is as it was");
}
