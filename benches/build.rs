//! Names the commit that the load bench is built of.

use std::process::Command;

fn main() {
    for watched in
        ["../.git/HEAD", "../.git/logs/HEAD", "../actors", "../brain/src", "build.rs", "src"]
    {
        println!("cargo:rerun-if-changed={watched}");
    }
    println!("cargo:rustc-env=FLEET_COMMIT={}", commit());
}

fn commit() -> String {
    let git = |arguments: &[&str]| {
        let output = Command::new("git").args(arguments).output().ok();
        let output = output.filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(commit) = git(&["rev-parse", "--short=12", "HEAD"]) else {
        return "unknown".to_owned();
    };
    match git(&["status", "--porcelain"]) {
        Some(changes) if changes.is_empty() => commit,
        _ => format!("{commit} with changes"),
    }
}
