//! The crash journal: what failed, and what was decided about it, on disk.
//!
//! A folder of files with a line of JSON for each crash, so that it can be read also where the
//! process does not start any more. Each line is synced to disk. The oldest file goes when there
//! are too many bytes, or when all in it is too old.

mod files;
mod record;

use std::{
    fmt, io,
    path::PathBuf,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::{Duration, SystemTime},
};

use tokio::sync::broadcast;

pub use record::{CrashQuery, CrashRecord};

use files::Files;

use super::crash::{Crash, CrashSink, Verdict};

/// How many crashes may wait for the disk. What comes on top is only in the log.
const WAITING_MAX: usize = 1_024;
/// How many crashes somebody who listens may be behind.
const NEWS: usize = 256;
/// How long the end of the process waits for the disk.
const FLUSH_TIME_MAX: Duration = Duration::from_secs(5);

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalLimits {
    /// The bytes of all files, about.
    pub bytes_max: u64,
    /// How old the last crash of a file may be.
    pub age_max: Duration,
}

impl Default for JournalLimits {
    fn default() -> Self {
        Self { bytes_max: 8 << 20, age_max: Duration::from_secs(90 * 24 * 60 * 60) }
    }
}

/// Why there is no journal.
#[derive(Debug, thiserror::Error)]
#[error("the crash journal in {} cannot be {action}", folder.display())]
pub struct JournalError {
    action: &'static str,
    folder: PathBuf,
    #[source]
    source: io::Error,
}

impl JournalError {
    /// What kind of error the system gave.
    pub fn kind(&self) -> io::ErrorKind {
        self.source.kind()
    }
}

/// The crash journal. Clones are the same.
#[derive(Clone)]
pub struct CrashJournal {
    folder: PathBuf,
    commands: SyncSender<Command>,
    news: broadcast::Sender<CrashRecord>,
    wall_ms: Arc<dyn Fn() -> u64 + Send + Sync>,
}

enum Command {
    Write(Box<CrashRecord>),
    Flush(SyncSender<()>),
    Trim,
}

impl CrashJournal {
    /// Opens the journal in a folder of its own, which is made where it is not there yet. A line
    /// that a crash of the machine tore is cut off.
    ///
    /// `wall_ms` reads the clock, in milliseconds since the Unix epoch.
    pub fn open(
        folder: impl Into<PathBuf>,
        limits: JournalLimits,
        wall_ms: impl Fn() -> u64 + Send + Sync + 'static,
    ) -> Result<Self, JournalError> {
        let folder = folder.into();
        let failed = |source| JournalError { action: "opened", folder: folder.clone(), source };
        let files = Files::open(&folder, limits).map_err(failed)?;
        let (commands, waiting) = sync_channel(WAITING_MAX);
        thread::Builder::new()
            .name("crash-journal".into())
            .spawn(move || write(files, &waiting))
            .map_err(failed)?;
        let (news, wall_ms) = (broadcast::Sender::new(NEWS), Arc::new(wall_ms));
        Ok(Self { folder, commands, news, wall_ms })
    }

    /// The latest crashes that a query asks for, newest first. Reads files.
    pub fn read(&self, query: &CrashQuery) -> Result<Vec<CrashRecord>, JournalError> {
        let failed = |source| JournalError { action: "read", folder: self.folder.clone(), source };
        files::read(&self.folder, query).map_err(failed)
    }

    /// Crashes from now on, as soon as they are decided about.
    pub fn news(&self) -> broadcast::Receiver<CrashRecord> {
        self.news.subscribe()
    }

    /// Lets what is too old go, soon.
    pub fn trim(&self) {
        // One that is busy lets it go when its file is full.
        let _ = self.commands.try_send(Command::Trim);
    }

    /// Waits until what was noted is on disk, for five seconds at most. Blocks.
    pub fn flush(&self) {
        let (done, wait) = sync_channel(1);
        if self.commands.send(Command::Flush(done)).is_ok() {
            // When the disk hangs there is nothing else to be done.
            let _ = wait.recv_timeout(FLUSH_TIME_MAX);
        }
    }
}

impl fmt::Debug for CrashJournal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CrashJournal").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl CrashSink for CrashJournal {
    fn crashed(&self, crash: &Crash, verdict: Verdict) {
        let record = CrashRecord::of(crash, verdict, (self.wall_ms)());
        // Nobody has to listen.
        let _ = self.news.send(record.clone());
        if self.commands.try_send(Command::Write(Box::new(record))).is_err() {
            tracing::error!(path = %crash.path, "a crash is not in the journal: too many wait for the disk");
        }
    }
}

/// The thread that writes, until the last handle is gone.
fn write(mut files: Files, waiting: &Receiver<Command>) {
    while let Ok(command) = waiting.recv() {
        match command {
            Command::Write(record) => {
                if let Err(error) = files.append(&record) {
                    tracing::error!(%error, "a crash could not be written to the journal");
                }
            }
            Command::Trim => {
                if let Err(error) = files.clear_out(SystemTime::now()) {
                    tracing::warn!(%error, "old crashes could not leave the journal");
                }
            }
            Command::Flush(done) => {
                let _ = done.send(());
            }
        }
    }
}
