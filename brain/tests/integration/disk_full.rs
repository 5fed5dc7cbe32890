//! A disk without space.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use benches::brain::Brain;
use benches::device::LightDevice;
use protocol::ErrorCode;
use serde_json::json;

use crate::harness::{BRAIN, count, device};

/// A file system of its own, in memory and small; unmounted when dropped.
pub(crate) struct SmallDisk(pub(crate) PathBuf);

impl SmallDisk {
    /// None where this process may not mount.
    pub(crate) fn mount(at: &Path) -> Option<Self> {
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64m", "tmpfs"])
            .arg(at)
            .output()
            .is_ok_and(|output| output.status.success());
        mounted.then(|| Self(at.to_owned()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_keeps_reading_and_goes_on_when_there_is_room() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let Some(disk) = SmallDisk::mount(folder.path()) else {
        println!("skipped: this process may not mount a file system");
        return;
    };
    let reserve = [("FLEET_BRAIN_DISK_RESERVE_BYTES", "8388608")];
    let brain = Brain::start_at(BRAIN, &disk.0, &reserve).expect("the brain starts");
    let mut device = device(&brain).await;
    let id = device.membership.device;
    device.connect().await.expect("connects");
    write(&mut device, 1).await.expect("stored");

    let filler = disk.0.join("filler");
    let free = free_bytes(&disk.0);
    std::fs::write(&filler, vec![1; (free - (4 << 20)) as usize]).expect("fills the disk");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    let desired = format!("/api/v1/devices/{id}/desired");
    let (status, problem) =
        brain.call("PATCH", &desired, Some(&json!({ "a": 1 }))).expect("answers");
    assert_eq!((status, &problem["error"]["code"]), (507, &json!("DISK_FULL")), "{problem}");
    assert_eq!(problem["error"]["recoverable"], true);
    assert_eq!(problem["error"]["source"]["layer"], "store", "{problem}");
    let causes = problem["causes"].as_array().expect("causes");
    assert_eq!(causes.last().map(|cause| &cause["layer"]), Some(&json!("hardware")), "{problem}");
    assert!(write(&mut device, 2).await.is_err(), "the device gets no acknowledgement");
    let code = device.ended.as_ref().map(|ended| ended.error.code);
    assert_eq!(code, Some(ErrorCode::DiskFull), "and is told why");
    let state = brain.get(&format!("/api/v1/devices/{id}/state")).expect("reads go on");
    assert_eq!(state["state"]["reported/count"], 1);
    let (status, readiness) = brain.readiness().expect("answers");
    assert_eq!((status, &readiness["ready"]), (503, &json!(false)));
    let why = readiness["store"].as_str().unwrap_or_default();
    assert!(why.contains("disk full"), "{readiness}");
    assert_eq!(brain.call("GET", "/healthz", None).expect("answers").0, 200, "it lives");
    let full = brain.metric("fleet_store_state{state=\"disk_full\"}").expect("is shown");
    assert_eq!(full, 1.0);

    let noticed = |status: &str| {
        let errors = brain.get(&format!("/api/v1/errors?status={status}")).expect("a list");
        let found =
            errors.as_array().into_iter().flatten().any(|error| error["code"] == "DISK_FULL");
        found.then_some(())
    };
    eventually(|| noticed("open"), "it is noticed").await;

    std::fs::remove_file(&filler).expect("makes room");
    let until = Instant::now() + Duration::from_secs(10);
    while brain.readiness().expect("answers").0 != 200 {
        assert!(Instant::now() < until, "the brain notices the room by itself");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    eventually(|| noticed("over"), "it is noticed that it has passed").await;
    device.connect().await.expect("connects");
    let all = |device: &LightDevice| device.stored() == device.written();
    device.run_until(all, Duration::from_secs(10)).await.expect("the rest arrives");
    let (status, _) = brain.call("PATCH", &desired, Some(&json!({ "a": 1 }))).expect("answers");
    assert_eq!(status, 200);
}

async fn eventually(found: impl Fn() -> Option<()>, what: &str) {
    let until = Instant::now() + Duration::from_secs(10);
    while found().is_none() {
        assert!(Instant::now() < until, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

async fn write(device: &mut LightDevice, n: u64) -> anyhow::Result<()> {
    device.write("reported/count", count(n))?;
    device.offer().await?;
    device.run_until(|device| device.stored() == n, Duration::from_secs(5)).await?;
    anyhow::ensure!(device.stored() == n, "not stored");
    Ok(())
}

pub(crate) fn free_bytes(folder: &Path) -> u64 {
    let disk = rustix::fs::statvfs(folder).expect("a file system");
    disk.f_bavail * disk.f_frsize
}
