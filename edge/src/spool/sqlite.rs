//! A spool in one SQLite file.
//!
//! Write-ahead log, `synchronous=FULL`, one connection that keeps the file locked for itself.

mod rows;

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, Transaction};

use super::{Loaded, Spool, SpoolError};
use crate::disk;

/// The number of the format that this release writes.
pub const FORMAT_VERSION: i64 = 3;
/// Before 3.51.3 a checkpoint could, in rare cases, corrupt a file in WAL mode.
pub const SQLITE_VERSION_MIN: i32 = 3_051_003;
/// `FLES`, so that file(1) and people know whose the database is.
const APPLICATION_ID: i64 = 0x464c_4553;
/// Another process that is just stopping may still hold the lock.
const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

const SCHEMA: &str = "
    CREATE TABLE meta (
        key TEXT PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE logs (number INTEGER PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL);
    CREATE TABLE leaves (
        path TEXT PRIMARY KEY, bytes BLOB NOT NULL, sum INTEGER NOT NULL) WITHOUT ROWID;
    CREATE TABLE entries (
        log INTEGER NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (log, seq)) WITHOUT ROWID;
";
/// New in format 3.
const SCHEMA_3: &str = "
    CREATE TABLE seals (
        log INTEGER NOT NULL, seq INTEGER NOT NULL, bytes BLOB NOT NULL, sum INTEGER NOT NULL,
        PRIMARY KEY (log, seq)) WITHOUT ROWID;
";

/// How much memory and log a spool may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// The page cache, in KiB.
    pub cache_kib: u32,
    /// After so many pages the write-ahead log is folded into the file: rarely spares the flash,
    /// often keeps the log short.
    pub checkpoint_pages: u32,
}

impl Default for Options {
    fn default() -> Self {
        Self { cache_kib: 512, checkpoint_pages: 1_000 }
    }
}

/// A spool in a file.
#[derive(Debug)]
pub struct SqliteSpool {
    connection: Connection,
}

/// A spool, and what became of a damaged one.
#[derive(Debug)]
pub struct Opened {
    /// The spool.
    pub spool: SqliteSpool,
    /// What it holds, if anything was begun.
    pub loaded: Option<Loaded>,
    /// The damaged file that was set aside for it.
    pub damage: Option<Damage>,
}

/// A damaged spool that was set aside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// What was found.
    pub what: String,
    /// Where the file lies now.
    pub set_aside: PathBuf,
}

impl SqliteSpool {
    /// Opens or makes the spool at `path`, and checks what it holds row by row.
    pub fn open(path: &FilePath, options: Options) -> Result<(Self, Option<Loaded>), SpoolError> {
        let found = rusqlite::version_number();
        if found < SQLITE_VERSION_MIN {
            return Err(SpoolError::SqliteTooOld { found });
        }
        // SQLite gives its log the mode of the file.
        let made = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|source| disk::DiskError {
            operation: "create",
            path: path.to_path_buf(),
            source,
        })?;
        fail::fail_point!("spool.file_made");
        let connection = Connection::open(path).map_err(failed("open spool"))?;
        let mut spool = Self { connection };
        fail::fail_point!("spool.opened");
        spool.prepare(options)?;
        fail::fail_point!("spool.prepared");
        spool.migrate()?;
        spool.check_pages()?;
        let loaded = spool.load()?;
        spool.check_entries()?;
        Ok((spool, loaded))
    }

    /// As [`open`](Self::open); a damaged file is set aside, never deleted, and a new one made.
    pub fn open_or_set_aside(
        path: &FilePath,
        options: Options,
        now_ms: u64,
    ) -> Result<Opened, SpoolError> {
        let error = match Self::open(path, options) {
            Ok((spool, loaded)) => return Ok(Opened { spool, loaded, damage: None }),
            Err(error) if error.is_damage() => error,
            Err(error) => return Err(error),
        };
        let set_aside = path.with_file_name(format!("spool.damaged-{now_ms}.db"));
        for suffix in ["-wal", "-shm", ""] {
            let with = |path: &FilePath| {
                let mut name = path.as_os_str().to_owned();
                name.push(suffix);
                PathBuf::from(name)
            };
            disk::rename_if_there(&with(path), &with(&set_aside))?;
        }
        fail::fail_point!("spool.set_aside");
        let what = match error {
            SpoolError::Damaged { what } => what,
            other => other.to_string(),
        };
        let (spool, loaded) = Self::open(path, options)?;
        Ok(Opened { spool, loaded, damage: Some(Damage { what, set_aside }) })
    }

    /// Lets the file grow no further: what a full disk does.
    #[cfg(test)]
    pub(super) fn limit_pages_to_present(&self) {
        let pages: i64 = self
            .connection
            .pragma_query_value(None, "page_count", |row| row.get(0))
            .expect("counts pages");
        self.connection.pragma_update(None, "max_page_count", pages).expect("limits pages");
    }

    fn prepare(&self, options: Options) -> Result<(), SpoolError> {
        let pragma = |name: &str, value: &dyn rusqlite::ToSql| {
            self.connection.pragma_update(None, name, value).map_err(failed("configure spool"))
        };
        self.connection.busy_timeout(BUSY_TIMEOUT).map_err(failed("configure spool"))?;
        // Taken before the first access to the log: then no shared memory file is needed, and a
        // second agent on the same folder is refused.
        pragma("locking_mode", &"EXCLUSIVE")?;
        let mode: String = self
            .connection
            .pragma_update_and_check(None, "journal_mode", "WAL", |row| row.get(0))
            .map_err(failed("configure spool"))?;
        if mode != "wal" {
            return Err(SpoolError::NoWal { found: mode });
        }
        pragma("synchronous", &"FULL")?;
        #[cfg(feature = "planted-faults")]
        if crate::planted::fsync_is_skipped() {
            pragma("synchronous", &"OFF")?;
        }
        pragma("cell_size_check", &true)?;
        pragma("temp_store", &"MEMORY")?;
        pragma("cache_size", &-i64::from(options.cache_kib))?;
        pragma("wal_autocheckpoint", &options.checkpoint_pages)
    }

    fn migrate(&mut self) -> Result<(), SpoolError> {
        let version: i64 = self
            .connection
            .pragma_query_value(None, "user_version", |row| row.get(0))
            .map_err(failed("read format"))?;
        match version {
            0 | 2 => {}
            FORMAT_VERSION => return Ok(()),
            found if found > FORMAT_VERSION => return Err(SpoolError::FormatNewer { found }),
            found if found > 0 => return Err(SpoolError::FormatOlder { found }),
            found => return Err(SpoolError::damaged(format!("format {found}"))),
        }
        let make = |transaction: &Transaction<'_>| {
            if version == 0 {
                transaction.execute_batch(SCHEMA)?;
                transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            }
            transaction.execute_batch(SCHEMA_3)?;
            transaction.pragma_update(None, "user_version", FORMAT_VERSION)
        };
        let transaction = self.connection.transaction().map_err(failed("make spool"))?;
        make(&transaction).map_err(failed("make spool"))?;
        fail::fail_point!("spool.schema_written");
        transaction.commit().map_err(failed("make spool"))?;
        fail::fail_point!("spool.schema_committed");
        Ok(())
    }

    fn check_pages(&self) -> Result<(), SpoolError> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failed("check spool"))?;
        if found == "ok" { Ok(()) } else { Err(SpoolError::damaged(found)) }
    }
}

fn failed(operation: &'static str) -> impl FnOnce(rusqlite::Error) -> SpoolError {
    move |source| match source.sqlite_error_code() {
        Some(ErrorCode::DiskFull) => SpoolError::DiskFull,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => SpoolError::InUse,
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => {
            SpoolError::damaged(source.to_string())
        }
        _ => SpoolError::Sqlite { operation, source },
    }
}
