//! A server that one of the scripts in `benches/peers` runs.

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::load::measure::{Usage, usage_of_tree};
use crate::load::pause;

/// How long a server may take to answer, its installation included.
const START_TIME_MAX: Duration = Duration::from_secs(300);
/// How long it may take to end.
const STOP_TIME_MAX: Duration = Duration::from_secs(20);
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A server process. Dropped, it is stopped.
pub(super) struct Server {
    process: Child,
    folder: PathBuf,
    /// Where it listens.
    pub(super) address: SocketAddr,
}

impl Server {
    /// Runs the script of this name, and waits until the server takes connections.
    pub(super) fn start(script: &str, folder: PathBuf) -> anyhow::Result<Self> {
        fs::create_dir_all(&folder)?;
        let address = free_address()?;
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("peers").join(script);
        let log = File::create(folder.join("log"))?;
        let process = Command::new(&path)
            .arg(&folder)
            .arg(address.port().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("{} does not run", path.display()))?;
        let mut server = Self { process, folder, address };
        let began = Instant::now();
        while TcpStream::connect(address).is_err() {
            if let Some(status) = server.process.try_wait()? {
                bail!("its script ended with {status}: {}", server.last_words());
            }
            if began.elapsed() > START_TIME_MAX {
                bail!("it does not listen after {START_TIME_MAX:?}: {}", server.last_words());
            }
            pause(LOOK_EVERY);
        }
        Ok(server)
    }

    /// What the server has used since it began.
    pub(super) fn usage(&self) -> anyhow::Result<Usage> {
        usage_of_tree(self.process.id())
    }

    /// Its release, as the script found it.
    pub(super) fn version(&self) -> String {
        self.said("version").unwrap_or_default()
    }

    /// What the script left in a file, where it did.
    pub(super) fn said(&self, file: &str) -> Option<String> {
        Some(fs::read_to_string(self.folder.join(file)).ok()?.trim().to_owned())
    }

    fn last_words(&self) -> String {
        let log = self.said("log").unwrap_or_default();
        let last: Vec<_> = log.lines().rev().take(3).collect();
        last.into_iter().rev().collect::<Vec<_>>().join(" | ")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = i32::try_from(self.process.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // One that has ended already takes no signal.
            let _ = kill_process(pid, Signal::TERM);
        }
        let began = Instant::now();
        while began.elapsed() < STOP_TIME_MAX {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return;
            }
            pause(LOOK_EVERY);
        }
        // Its data goes with the folder, so that nothing is lost.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn free_address() -> anyhow::Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}
