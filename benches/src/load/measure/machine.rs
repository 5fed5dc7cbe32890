//! Where a run took place: all figures depend on it.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use protocol::keys::{Keypair, verify};
use serde::Serialize;

use super::Spread;

/// How many signatures are timed.
const SIGNATURES: u32 = 500;
/// How long syncs are timed.
const SYNC_TIME: Duration = Duration::from_millis(500);

/// The machine, the code, and what the basic operations cost here.
#[derive(Debug, Clone, Serialize)]
pub(in crate::load) struct Machine {
    pub(in crate::load) commit: &'static str,
    pub(in crate::load) build: &'static str,
    pub(in crate::load) date: String,
    pub(in crate::load) kernel: String,
    pub(in crate::load) cpu: String,
    pub(in crate::load) cores: usize,
    pub(in crate::load) memory_bytes: u64,
    /// The folder that everything was written to, and the file system that it is on.
    pub(in crate::load) folder: String,
    pub(in crate::load) file_system: String,
    /// A write of 4 KiB with `fdatasync`, one after the other.
    pub(in crate::load) sync_us: Spread,
    pub(in crate::load) ed25519_sign_us: f64,
    pub(in crate::load) ed25519_verify_us: f64,
}

impl Machine {
    /// Looks at this machine, and times it.
    pub(in crate::load) fn look(folder: &Path) -> anyhow::Result<Self> {
        let keypair = Keypair::from_seed(&[7; 32]);
        let signature = keypair.sign(b"what a handshake signs is as short");
        let sign = || {
            std::hint::black_box(keypair.sign(b"what a handshake signs is as short"));
        };
        let check = || {
            let checked =
                verify(keypair.public(), b"what a handshake signs is as short", &signature);
            checked.expect("the signature was made with this key");
        };
        Ok(Self {
            commit: env!("FLEET_COMMIT"),
            build: if cfg!(debug_assertions) { "dev" } else { "release" },
            date: jiff::Timestamp::now().strftime("%Y-%m-%d %H:%M UTC").to_string(),
            kernel: fs::read_to_string("/proc/sys/kernel/osrelease")?.trim().to_owned(),
            cpu: line_of("/proc/cpuinfo", "model name")?,
            cores: std::thread::available_parallelism()?.get(),
            memory_bytes: memory_bytes()?,
            folder: folder.display().to_string(),
            file_system: file_system(folder)?,
            sync_us: sync_us(folder)?,
            ed25519_sign_us: each_us(sign),
            ed25519_verify_us: each_us(check),
        })
    }

    /// What a table begins with, a line each.
    pub(in crate::load) fn lines(&self) -> Vec<String> {
        let Spread { median, min, max } = self.sync_us;
        let gibibytes = self.memory_bytes as f64 / f64::from(1 << 30);
        vec![
            format!("commit {}, {} build, {}", self.commit, self.build, self.date),
            format!(
                "{}, {} cores, {gibibytes:.0} GiB, Linux {}",
                self.cpu, self.cores, self.kernel
            ),
            format!("{} on {}", self.folder, self.file_system),
            format!("write of 4 KiB with fdatasync: {median:.0} µs ({min:.0} to {max:.0})"),
            format!(
                "Ed25519: sign {:.1} µs, verify {:.1} µs",
                self.ed25519_sign_us, self.ed25519_verify_us
            ),
        ]
    }
}

fn memory_bytes() -> anyhow::Result<u64> {
    let text = line_of("/proc/meminfo", "MemTotal")?;
    let kibibytes: u64 = text.trim_end_matches(" kB").trim().parse()?;
    Ok(kibibytes * 1_024)
}

fn line_of(file: &str, name: &str) -> anyhow::Result<String> {
    let text = fs::read_to_string(file)?;
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.split_once(':'));
    Ok(line.with_context(|| format!("no {name} in {file}"))?.1.trim().to_owned())
}

fn file_system(folder: &Path) -> anyhow::Result<String> {
    let device = fs::metadata(folder)?.dev();
    let number = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    // id, parent, device, root, mount point, options, any number of fields, -, type, source
    for line in fs::read_to_string("/proc/self/mountinfo")?.lines() {
        let Some((mount, kind)) = line.split_once(" - ") else { continue };
        if mount.split(' ').nth(2) == Some(&number) {
            let mut kind = kind.split(' ');
            let (kind, source) = (kind.next().unwrap_or("?"), kind.next().unwrap_or("?"));
            return Ok(format!("{kind} ({source})"));
        }
    }
    Ok("an unknown file system".to_owned())
}

fn sync_us(folder: &Path) -> anyhow::Result<Spread> {
    let path = folder.join("sync-probe");
    let mut file = File::create(&path)?;
    let mut times = Vec::new();
    let began = Instant::now();
    while began.elapsed() < SYNC_TIME {
        let each = Instant::now();
        file.write_all(&[0x5A; 4 << 10])?;
        file.sync_data()?;
        times.push(each.elapsed().as_secs_f64() * 1e6);
    }
    fs::remove_file(&path)?;
    Ok(Spread::of(times))
}

fn each_us(operation: impl Fn()) -> f64 {
    let times = (0..SIGNATURES).map(|_| {
        let began = Instant::now();
        operation();
        began.elapsed().as_secs_f64() * 1e6
    });
    Spread::of(times).median
}
