//! Backups: made of a running brain, checked, restored, and started from.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Instant;

use benches::brain::Brain;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::{BRAIN, SOON, brain, brain_with, command, count, device, pause, way};

/// A key, with its public half, in a folder of its own.
fn key() -> (TempDir, PathBuf, String) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let path = folder.path().join("backup.key");
    let made = Command::new(BRAIN).args(["backup", "key"]).arg(&path).output().expect("runs");
    assert!(made.status.success());
    let public = String::from_utf8(made.stdout).expect("text").trim().to_owned();
    assert!(public.starts_with("age1"), "{public}");
    assert!(!String::from_utf8_lossy(&made.stderr).contains("SECRET"));
    (folder, path, public)
}

/// A brain whose backups are encrypted to a key, and are made when they are asked for.
fn keeping(public: &str) -> Brain {
    brain_with(BRAIN, &format!("[backup]\nrecipients = [{public:?}]\nevery_hours = 0\n"))
}

/// Has a running brain make a backup, and fetches it.
fn make(brain: &Brain, to: &Path) -> Value {
    let arguments = ["backup", "create", "--output", "json", "--to"];
    let made = command(brain, &arguments).arg(to).output().expect("runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    serde_json::from_slice(&made.stdout).expect("JSON")
}

fn with_file(verb: &str, file: &Path, key: &Path, more: &[&str]) -> Output {
    let mut command = Command::new(BRAIN);
    command.args(["backup", verb, "--output", "json"]).arg(file).arg("--key").arg(key);
    command.args(more).output().expect("runs")
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_brain_that_is_restored_has_what_the_backup_had_and_its_devices_come_back() {
    let (folder, key, public) = key();
    let brain = keeping(&public);
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    for n in 1..=400 {
        device.write("reported/n", count(n)).expect("written");
    }
    device.offer().await.expect("offered");
    device.run_until(|device| device.stored() == 400, SOON).await.expect("stored");
    device.seal().await.expect("sealed");
    let id = device.membership.device;
    let file = folder.path().join("one.backup");
    let made = make(&brain, &file);
    assert_eq!(made["bytes"].as_u64(), fs::metadata(&file).map(|known| known.len()).ok());
    let before = brain.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    // What comes later is not in it.
    let target = format!("/api/v1/devices/{id}/desired");
    assert_eq!(brain.call("PATCH", &target, Some(&json!({ "late": 1 }))).expect("answers").0, 200);

    let verified = with_file("verify", &file, &key, &[]);
    assert!(verified.status.success(), "{}", said(&verified));
    let report: Value = serde_json::from_slice(&verified.stdout).expect("JSON");
    assert_eq!(
        (report["verified"]["damages"].clone(), report["manifest"]["devices"].clone()),
        (json!(0), json!(1))
    );
    let beside: Vec<_> = fs::read_dir(folder.path()).expect("lists").collect();
    assert_eq!(beside.len(), 2, "verify leaves nothing behind");

    let fresh = folder.path().join("restored");
    let data = fresh.to_str().expect("text");
    let restored = with_file("restore", &file, &key, &["--data-dir", data]);
    assert!(restored.status.success(), "{}", said(&restored));
    assert!(said(&restored).contains("enrol again"), "{}", said(&restored));
    let again = with_file("restore", &file, &key, &["--data-dir", data]);
    assert!(!again.status.success() && said(&again).contains("not empty"), "{}", said(&again));
    device.disconnect();
    drop(brain);

    let mut second = Brain::at(BRAIN, &fresh, &[]);
    second.restart().expect("starts");
    second.wait_ready().expect("gets ready");
    let after = second.get(&format!("/api/v1/devices/{id}/state")).expect("a state");
    assert_eq!(
        (after["state"].clone(), after["version"].clone()),
        (before["state"].clone(), before["version"].clone())
    );
    device.way = way(&second);
    device.connect().await.expect("the same keys on both ends");
    device.write("reported/n", count(401)).expect("written");
    device.offer().await.expect("offered");
    device.run_until(|device| device.stored() == 401, SOON).await.expect("stored");
}

#[test]
fn a_backup_that_was_altered_cut_short_or_is_anothers_is_refused() {
    let (folder, key_file, public) = key();
    let (_other, other_key, _) = key();
    let brain = keeping(&public);
    let file = folder.path().join("one.backup");
    make(&brain, &file);
    let wrong = with_file("verify", &file, &other_key, &[]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(said(&wrong).contains("cannot be opened with this key"), "{}", said(&wrong));
    let whole = fs::read(&file).expect("reads");
    let altered = folder.path().join("altered.backup");
    let steps = 24;
    for n in 0..steps {
        let mut bytes = whole.clone();
        let at = n * whole.len() / steps;
        bytes[at] ^= 1;
        fs::write(&altered, &bytes).expect("writes");
        let refused = with_file("verify", &altered, &key_file, &[]);
        assert_eq!(refused.status.code(), Some(1), "byte {at} of {}", whole.len());
        fs::write(&altered, &whole[..at]).expect("writes");
        let refused = with_file("verify", &altered, &key_file, &[]);
        assert_eq!(refused.status.code(), Some(1), "the first {at} bytes");
    }
    let data = folder.path().join("restored");
    let data_dir = data.to_str().expect("text");
    let refused = with_file("restore", &altered, &key_file, &["--data-dir", data_dir]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(!data.exists(), "half a folder is none");
    assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 3);
}

#[test]
fn without_a_key_it_is_said_what_to_do_and_bad_names_find_nothing() {
    let brain = brain();
    let refused = command(&brain, &["backup", "create"]).output().expect("runs");
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).contains("brain backup key"), "{}", said(&refused));
    for name in ["..%2Ffleet.json", "fleet.json", "fleet-00000000-20261122T060000000Z.backup"] {
        let (status, _) =
            brain.call("GET", &format!("/api/v1/backups/{name}"), None).expect("answers");
        assert_eq!(status, 404, "{name}");
    }
}

#[test]
fn backups_are_made_on_schedule_and_while_the_brain_is_written_to() {
    let (_folder, key, public) = key();
    let settings = format!("[backup]\nrecipients = [{public:?}]\nevery_hours = 1\n");
    let brain = brain_with(BRAIN, &settings);
    let began = Instant::now();
    let listed = loop {
        let listed = brain.get("/api/v1/backups").expect("a list");
        if listed["backups"].as_array().is_some_and(|backups| !backups.is_empty()) {
            break listed;
        }
        assert!(began.elapsed() < SOON, "none is made on schedule: {listed}");
        let (status, _) = brain
            .call(
                "PUT",
                &format!("/api/v1/groups/g{}", began.elapsed().as_millis()),
                Some(&json!({})),
            )
            .expect("answers");
        assert_eq!(status, 200);
        pause();
    };
    let backup = &listed["backups"][0];
    assert_eq!(
        (backup["scheduled"].clone(), listed["every_hours"].clone()),
        (json!(true), json!(1))
    );
    let file = Path::new(listed["folder"].as_str().expect("text"))
        .join(backup["name"].as_str().expect("text"));
    let verified = with_file("verify", &file, &key, &[]);
    assert!(verified.status.success(), "{}", said(&verified));
    assert!(!brain.data().join("backup.scratch").exists());
}
