//! A disk whose `fsync` fails.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use benches::brain::Brain;

use crate::harness::{BRAIN, count, device};

/// Makes `fsync` and `fdatasync` fail with EIO while the file that `FSYNC_FAILS_IF` names exists.
const SHIM: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

static int fails(void) {
    const char *trigger = getenv("FSYNC_FAILS_IF");
    return trigger && access(trigger, F_OK) == 0;
}

int fsync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fsync"))(fd);
}

int fdatasync(int fd) {
    if (fails()) { errno = EIO; return -1; }
    return ((int (*)(int))dlsym(RTLD_NEXT, "fdatasync"))(fd);
}
"#;

fn build_shim(folder: &Path) -> PathBuf {
    let (source, library) = (folder.join("shim.c"), folder.join("shim.so"));
    std::fs::write(&source, SHIM).expect("writes");
    let compiled = Command::new("cc")
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .args([&library, &source])
        .arg("-ldl")
        .status()
        .expect("a C compiler");
    assert!(compiled.success());
    library
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_fsync_is_never_acknowledged_and_ends_the_brain() {
    let folder = tempfile::tempdir().expect("temporary folder");
    let shim = build_shim(folder.path());
    let trigger = folder.path().join("fail");
    let environment = [
        ("LD_PRELOAD", shim.to_str().expect("UTF-8")),
        ("FSYNC_FAILS_IF", trigger.to_str().expect("UTF-8")),
    ];
    let mut brain = Brain::start_with(BRAIN, &environment).expect("the brain starts");
    let mut device = device(&brain).await;
    device.connect().await.expect("connects");
    device.write("reported/count", count(1)).expect("valid");
    device.offer().await.expect("offers");
    let stored = |device: &benches::device::LightDevice| device.stored() == 1;
    device.run_until(stored, Duration::from_secs(10)).await.expect("stored while the disk works");

    std::fs::write(&trigger, "").expect("writes");
    device.write("reported/count", count(2)).expect("valid");
    device.offer().await.expect("offers");
    let watch = async {
        let until = Instant::now() + Duration::from_secs(10);
        while Instant::now() < until {
            if let Ok((503, body)) = brain.readiness() {
                return body;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("/readyz never told of the failure")
    };
    let body = watch.await;
    assert!(body["store"].as_str().is_some_and(|text| text.starts_with("failed")), "{body}");
    // The connection ends, one way or the other.
    let _ = device.run_until(|device| !device.is_connected(), Duration::from_secs(10)).await;
    assert_eq!(device.stored(), 1, "nothing was acknowledged after the failure");
    let status = brain.wait().expect("the brain ends by itself");
    assert!(!status.success());

    std::fs::remove_file(&trigger).expect("removes");
    brain.restart().expect("starts again");
    device.connect().await.expect("connects");
    let all = |device: &benches::device::LightDevice| device.stored() == 2;
    device.run_until(all, Duration::from_secs(10)).await.expect("the rest arrives");
}
