//! Rows: reading and checking them, and writing them all at once.

use protocol::history::{Entry, SignedHead};
use rusqlite::{Transaction, params};

use super::{SqliteSpool, failed};
use crate::spool::record::{checksum, decode, decode_entry, encode, entry_key, verify};
use crate::spool::{Commit, Loaded, LogRecord, Spool, SpoolError};

impl SqliteSpool {
    /// Checks every entry against its checksum.
    pub(super) fn check_entries(&self) -> Result<(), SpoolError> {
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
            incomplete: self.meta("incomplete")?.unwrap_or_default(),
        }))
    }

    fn commit(&mut self, commit: &Commit) -> Result<(), SpoolError> {
        let transaction = self.connection.transaction().map_err(failed("begin commit"))?;
        fail::fail_point!("spool.before_write");
        write(&transaction, commit)?;
        fail::fail_point!("spool.written");
        transaction.commit().map_err(failed("commit"))?;
        fail::fail_point!("spool.committed");
        Ok(())
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

    fn seal(&mut self, log: u32, after: u64, up_to: u64) -> Result<Option<SignedHead>, SpoolError> {
        let mut statement = self
            .connection
            .prepare_cached(
                "SELECT seq, bytes, sum FROM seals WHERE log = ?1 AND seq > ?2 AND seq <= ?3
                 ORDER BY seq DESC LIMIT 1",
            )
            .map_err(failed("read seals"))?;
        let mut rows = statement
            .query(params![log, after as i64, up_to as i64])
            .map_err(failed("read seals"))?;
        let Some(row) = rows.next().map_err(failed("read seals"))? else { return Ok(None) };
        let seq = row.get::<_, i64>(0).map_err(failed("read seals"))? as u64;
        let (bytes, sum) = blob(row, 1)?;
        verify("seals", &entry_key(log, seq), bytes, sum)?;
        decode("seal", bytes).map(Some)
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
        fail::fail_point!("spool.pruned");
        transaction.commit().map_err(failed("prune"))?;
        fail::fail_point!("spool.prune_committed");
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
        for table in ["logs", "leaves", "entries", "seals"] {
            run(&format!("DELETE FROM {table}"), &[])?;
        }
        put_meta("genesis", encode(genesis))?;
    }
    for (log, above) in &commit.truncate {
        for table in ["entries", "seals"] {
            let sql = format!("DELETE FROM {table} WHERE log = ?1 AND seq > ?2");
            run(&sql, &[log, &(*above as i64)])?;
        }
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
    for (log, signed) in &commit.seals {
        let (seq, bytes) = (signed.head.seq, encode(signed));
        let sum = checksum("seals", &entry_key(*log, seq), &bytes);
        let sql = "INSERT OR REPLACE INTO seals VALUES (?1, ?2, ?3, ?4)";
        run(sql, &[log, &(seq as i64), &bytes, &sum])?;
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
    if let Some(brains) = &commit.brains {
        put_meta("brains", encode(brains))?;
    }
    match &commit.incomplete {
        Some(incomplete) => put_meta("incomplete", encode(incomplete)),
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
            for table in ["entries", "seals"] {
                let sql = format!("DELETE FROM {table} WHERE log = ?1 AND seq <= ?2");
                transaction.prepare_cached(&sql)?.execute(params![log, seq])?;
            }
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
