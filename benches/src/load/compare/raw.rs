//! RocksDB without a brain around it: the same rows, the same options, `sync = true`.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::Context;
use rocksdb::{ColumnFamily, DB, WriteBatch, WriteOptions};

use super::peer::{Peer, Round};
use super::rows::{HISTORY, LEAVES, LOG_ENDS, Model, PerUpdate, Rows, TREES};
use crate::load::Settings;
use crate::load::database::options_of;
use crate::load::measure::{Latency, usage};

/// A database of its own.
pub(super) struct Raw {
    db: DB,
    model: Model,
    /// How many updates are written at once, with one sync.
    batch: usize,
    per_update: PerUpdate,
    /// How many updates were written so far: keeps keys and values from repeating.
    written: u64,
}

impl Raw {
    /// Makes a database in `folder` with the options of the one in `like`.
    pub(super) fn make(
        folder: &Path,
        like: &Path,
        model: Model,
        per_update: PerUpdate,
        batch: usize,
    ) -> anyhow::Result<Self> {
        let db = open_like(folder, like)?;
        Ok(Self { db, model, batch, per_update, written: 0 })
    }

    fn write_for(&mut self, time: Duration) -> anyhow::Result<Round> {
        let pid = std::process::id();
        let before = usage(pid)?;
        let began = Instant::now();
        let (mut updates, mut times, mut last) = (0u64, Vec::new(), began);
        let mut options = WriteOptions::default();
        options.set_sync(true);
        while last - began < time {
            let batch = self.batch()?;
            self.db.write_opt(batch, &options)?;
            updates += self.batch as u64;
            let now = Instant::now();
            times.push(((now - last).as_micros() as u64, self.batch as u64));
            last = now;
        }
        let used = usage(pid)? - before;
        Ok(Round {
            updates_per_second: updates as f64 / (last - began).as_secs_f64(),
            latency: Latency::of(times),
            server_cpu_us: used.cpu.as_secs_f64() * 1e6 / updates as f64,
            client_cpu_us: None,
            disk_bytes: used.written_bytes as f64 / updates as f64,
        })
    }

    fn batch(&mut self) -> anyhow::Result<WriteBatch> {
        let mut batch = WriteBatch::default();
        let kinds = [
            (TREES, &self.model.trees, self.per_update.trees, false),
            (HISTORY, &self.model.history, self.per_update.history, true),
            (LOG_ENDS, &self.model.log_ends, self.per_update.log_ends, true),
            (LEAVES, &self.model.leaves, self.per_update.leaves, false),
        ];
        for _ in 0..self.batch {
            for (family, rows, each, grows) in &kinds {
                // Shares of rows add up: 0.1 is a row with every tenth update.
                let before = (self.written as f64 * each) as u64;
                let until = ((self.written + 1) as f64 * each) as u64;
                for number in before..until {
                    put(&mut batch, family_of(&self.db, family)?, rows, number, *grows);
                }
            }
            self.written += 1;
        }
        Ok(batch)
    }
}

impl Peer for Raw {
    fn round(&mut self, settings: &Settings) -> anyhow::Result<Round> {
        self.write_for(settings.round_time())
    }
}

/// Adds a row of the size of one of `rows`. Where they grow, its key is a new one at the end of
/// its tree; else it is written over, as the brain does with the rows of a state.
fn put(batch: &mut WriteBatch, family: &ColumnFamily, rows: &Rows, number: u64, grows: bool) {
    let (key, value) = &rows[number as usize % rows.len()];
    let mut key = key.clone();
    let mut value = value.clone();
    if grows && let Some(last) = key.last_chunk_mut() {
        // Above every number that the model has.
        *last = (u64::from_be_bytes(*last) + 1_000_000 + number).to_be_bytes();
    }
    if let Some(content) = value.last_chunk_mut() {
        *content = number.wrapping_mul(0x9E37_79B9_7F4A_7C15).to_be_bytes();
    }
    batch.put_cf(family, key, value);
}

fn family_of<'a>(db: &'a DB, name: &str) -> anyhow::Result<&'a ColumnFamily> {
    db.cf_handle(name).with_context(|| format!("no family {name}"))
}

/// Opens a new database with the options that RocksDB keeps beside another.
fn open_like(folder: &Path, like: &Path) -> anyhow::Result<DB> {
    let (mut options, families) = options_of(like)?;
    options.create_if_missing(true);
    options.create_missing_column_families(true);
    // The log goes where the database is, not where the model's was.
    options.set_wal_dir(folder);
    DB::open_cf_descriptors(&options, folder, families)
        .context("the database to compare with does not open")
}
