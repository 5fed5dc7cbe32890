//! A spool in one SQLite file.
//!
//! Write-ahead log, `synchronous=FULL`, one connection that keeps the file locked for itself.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path as FilePath, PathBuf};
use std::time::Duration;

use protocol::history::Entry;
use rusqlite::{Connection, ErrorCode, Transaction, params};

use super::record::{checksum, decode, decode_entry, encode, entry_key, verify};
use super::{Commit, Loaded, LogRecord, Spool, SpoolError};
use crate::disk;

/// The number of the format that this release writes.
pub const FORMAT_VERSION: i64 = 1;
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
        let connection = Connection::open(path).map_err(failed("open spool"))?;
        let mut spool = Self { connection };
        spool.prepare(options)?;
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
            0 => {}
            FORMAT_VERSION => return Ok(()),
            found if found > FORMAT_VERSION => return Err(SpoolError::FormatNewer { found }),
            found => return Err(SpoolError::damaged(format!("format {found}"))),
        }
        let make = |transaction: &Transaction<'_>| {
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            transaction.pragma_update(None, "user_version", FORMAT_VERSION)
        };
        let transaction = self.connection.transaction().map_err(failed("make spool"))?;
        make(&transaction).and_then(|()| transaction.commit()).map_err(failed("make spool"))
    }

    fn check_pages(&self) -> Result<(), SpoolError> {
        let found: String = self
            .connection
            .query_row("PRAGMA quick_check(1)", [], |row| row.get(0))
            .map_err(failed("check spool"))?;
        if found == "ok" { Ok(()) } else { Err(SpoolError::damaged(found)) }
    }

    fn check_entries(&self) -> Result<(), SpoolError> {
        let mut rows = self
            .connection
            .prepare("SELECT log, seq, bytes, sum FROM entries")
            .map_err(failed("check entries"))?;
        let mut rows = rows.query([]).map_err(failed("check entries"))?;
        while let Some(row) = rows.next().map_err(failed("check entries"))? {
            let (log, seq): (u32, i64) = columns(row)?;
            let (bytes, sum) = blob(row, 2)?;
            verify("entries", &entry_key(log, seq as u64), bytes, sum)?;
        }
        Ok(())
    }

    fn meta<T: serde::de::DeserializeOwned>(&self, key: &str) -> Result<Option<T>, SpoolError> {
        let mut statement = self
            .connection
            .prepare_cached("SELECT bytes, sum FROM meta WHERE key = ?1")
            .map_err(failed("read meta"))?;
        let mut rows = statement.query([key]).map_err(failed("read meta"))?;
        let Some(row) = rows.next().map_err(failed("read meta"))? else { return Ok(None) };
        let (bytes, sum) = blob(row, 0)?;
        verify("meta", key.as_bytes(), bytes, sum)?;
        decode(key, bytes).map(Some)
    }

    fn logs(&self) -> Result<Vec<LogRecord>, SpoolError> {
        let mut statement = self
            .connection
            .prepare("SELECT number, bytes, sum FROM logs ORDER BY number")
            .map_err(failed("read logs"))?;
        let mut rows = statement.query([]).map_err(failed("read logs"))?;
        let mut logs = Vec::new();
        while let Some(row) = rows.next().map_err(failed("read logs"))? {
            let number: u32 = row.get(0).map_err(failed("read logs"))?;
            let (bytes, sum) = blob(row, 1)?;
            verify("logs", &number.to_le_bytes(), bytes, sum)?;
            if number as usize != logs.len() {
                return Err(SpoolError::damaged(format!("log {} is missing", logs.len())));
            }
            logs.push(decode("log", bytes)?);
        }
        Ok(logs)
    }
}

impl Spool for SqliteSpool {
    fn load(&mut self) -> Result<Option<Loaded>, SpoolError> {
        let Some(genesis) = self.meta("genesis")? else { return Ok(None) };
        let mut leaves = std::collections::BTreeMap::new();
        {
            let mut statement = self
                .connection
                .prepare("SELECT path, bytes, sum FROM leaves")
                .map_err(failed("read leaves"))?;
            let mut rows = statement.query([]).map_err(failed("read leaves"))?;
            while let Some(row) = rows.next().map_err(failed("read leaves"))? {
                let path: String = row.get(0).map_err(failed("read leaves"))?;
                let (bytes, sum) = blob(row, 1)?;
                verify("leaves", path.as_bytes(), bytes, sum)?;
                let path = protocol::state::Path::new(&path)
                    .map_err(|error| SpoolError::damaged(error.to_string()))?;
                leaves.insert(path, decode("leaf", bytes)?);
            }
        }
        Ok(Some(Loaded {
            genesis,
            logs: self.logs()?,
            leaves,
            author: self.meta("author")?.unwrap_or_default(),
            brains: self.meta("brains")?.unwrap_or_default(),
        }))
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), SpoolError> {
        let transaction = self.connection.transaction().map_err(failed("begin commit"))?;
        write(&transaction, commit)?;
        transaction.commit().map_err(failed("commit"))
    }

    fn range(&mut self, log: u32, after: u64, bytes_max: usize) -> Result<Vec<Entry>, SpoolError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT seq, bytes, sum FROM entries WHERE log = ?1 AND seq > ?2 ORDER BY seq",
            )
            .map_err(failed("read entries"))?;
        let mut rows =
            statement.query(params![log, after as i64]).map_err(failed("read entries"))?;
        let (mut entries, mut bytes_taken, mut expected) = (Vec::new(), 0, after + 1);
        while let Some(row) = rows.next().map_err(failed("read entries"))? {
            let seq = row.get::<_, i64>(0).map_err(failed("read entries"))? as u64;
            let (bytes, sum) = blob(row, 1)?;
            bytes_taken += bytes.len();
            if seq != expected || (bytes_taken > bytes_max && !entries.is_empty()) {
                break;
            }
            verify("entries", &entry_key(log, seq), bytes, sum)?;
            entries.push(decode_entry(bytes)?);
            expected += 1;
        }
        Ok(entries)
    }

    fn sizes(&mut self, log: u32, after: u64) -> Result<Vec<(u64, u32)>, SpoolError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT seq, LENGTH(bytes) FROM entries WHERE log = ?1 AND seq > ?2 ORDER BY seq",
            )
            .map_err(failed("measure entries"))?;
        let rows = statement
            .query_map(params![log, after as i64], |row| {
                Ok((row.get::<_, i64>(0)? as u64, row.get(1)?))
            })
            .map_err(failed("measure entries"))?;
        rows.collect::<Result<_, _>>().map_err(failed("measure entries"))
    }

    fn entry_bytes(&mut self) -> Result<u64, SpoolError> {
        let query = "SELECT COALESCE(SUM(LENGTH(bytes)), 0) FROM entries";
        let bytes: i64 = self
            .connection
            .query_row(query, [], |row| row.get(0))
            .map_err(failed("measure entries"))?;
        Ok(bytes as u64)
    }

    fn prune(&mut self, up_to: &[(u32, u64)], bytes: u64) -> Result<u64, SpoolError> {
        let transaction = self.connection.transaction().map_err(failed("prune"))?;
        let freed = prune(&transaction, up_to, bytes).map_err(failed("prune"))?;
        transaction.commit().map_err(failed("prune"))?;
        Ok(freed)
    }
}

fn write(transaction: &Transaction<'_>, commit: &Commit) -> Result<(), SpoolError> {
    let run = |sql: &str, values: &[&dyn rusqlite::ToSql]| {
        let mut statement = transaction.prepare_cached(sql).map_err(failed("write"))?;
        statement.execute(values).map(|_| ()).map_err(failed("write"))
    };
    let put_meta = |key: &str, bytes: Vec<u8>| {
        let sum = checksum("meta", key.as_bytes(), &bytes);
        run("INSERT OR REPLACE INTO meta VALUES (?1, ?2, ?3)", &[&key, &bytes, &sum])
    };
    if let Some(genesis) = &commit.begin {
        for table in ["logs", "leaves", "entries"] {
            run(&format!("DELETE FROM {table}"), &[])?;
        }
        put_meta("genesis", encode(genesis))?;
    }
    for (log, above) in &commit.truncate {
        run("DELETE FROM entries WHERE log = ?1 AND seq > ?2", &[log, &(*above as i64)])?;
    }
    for (number, log) in &commit.logs {
        let bytes = encode(log);
        let sum = checksum("logs", &number.to_le_bytes(), &bytes);
        run("INSERT OR REPLACE INTO logs VALUES (?1, ?2, ?3)", &[number, &bytes, &sum])?;
    }
    for entry in &commit.entries {
        let known: bool = transaction
            .prepare_cached("SELECT EXISTS (SELECT 1 FROM logs WHERE number = ?1)")
            .and_then(|mut statement| statement.query_row([entry.log], |row| row.get(0)))
            .map_err(failed("write"))?;
        if !known {
            return Err(SpoolError::UnknownLog { number: entry.log });
        }
        let (seq, bytes) = (entry.seq as i64, &entry.bytes);
        let sum = checksum("entries", &entry_key(entry.log, entry.seq), bytes);
        let sql = "INSERT OR REPLACE INTO entries VALUES (?1, ?2, ?3, ?4)";
        run(sql, &[&entry.log, &seq, bytes, &sum])?;
    }
    for (path, leaf) in &commit.leaves {
        let path = path.as_str();
        match leaf {
            Some(leaf) => {
                let bytes = encode(leaf);
                let sum = checksum("leaves", path.as_bytes(), &bytes);
                run("INSERT OR REPLACE INTO leaves VALUES (?1, ?2, ?3)", &[&path, &bytes, &sum])?;
            }
            None => run("DELETE FROM leaves WHERE path = ?1", &[&path])?,
        }
    }
    if let Some(author) = &commit.author {
        put_meta("author", encode(author))?;
    }
    match &commit.brains {
        Some(brains) => put_meta("brains", encode(brains)),
        None => Ok(()),
    }
}

fn prune(
    transaction: &Transaction<'_>,
    up_to: &[(u32, u64)],
    bytes: u64,
) -> Result<u64, rusqlite::Error> {
    let mut freed = 0;
    for (log, last) in up_to {
        if freed >= bytes {
            break;
        }
        let mut oldest = transaction.prepare_cached(
            "SELECT seq, LENGTH(bytes) FROM entries WHERE log = ?1 AND seq <= ?2 ORDER BY seq",
        )?;
        let mut rows = oldest.query(params![log, *last as i64])?;
        let mut newest_gone = None;
        while let Some(row) = rows.next()? {
            if freed >= bytes {
                break;
            }
            newest_gone = Some(row.get::<_, i64>(0)?);
            freed += row.get::<_, i64>(1)? as u64;
        }
        if let Some(seq) = newest_gone {
            let sql = "DELETE FROM entries WHERE log = ?1 AND seq <= ?2";
            transaction.prepare_cached(sql)?.execute(params![log, seq])?;
        }
    }
    Ok(freed)
}

/// The content and the checksum of a row, which follow each other.
fn blob<'row>(row: &'row rusqlite::Row<'_>, at: usize) -> Result<(&'row [u8], i64), SpoolError> {
    let malformed = || SpoolError::damaged("a row of another type");
    let bytes = row.get_ref(at).map_err(failed("read row"))?.as_blob().map_err(|_| malformed())?;
    let sum = row.get(at + 1).map_err(|_| malformed())?;
    Ok((bytes, sum))
}

fn columns(row: &rusqlite::Row<'_>) -> Result<(u32, i64), SpoolError> {
    let read = || Ok((row.get(0)?, row.get(1)?));
    read().map_err(|_: rusqlite::Error| SpoolError::damaged("a row of another type"))
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
