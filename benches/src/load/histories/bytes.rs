//! What an entry takes on disk, and what is written and synced for it.

use std::time::Instant;

use anyhow::Context;
use rocksdb::DB;
use serde::Serialize;

use super::diary::Diary;
use super::home::Home;
use super::now_ms;
use super::progress::Progress;
use super::scribe::Scribe;
use crate::load::database;
use crate::load::measure::usage;
use crate::load::report::{Section, bytes, figure};
use crate::load::settings::{ONE_BY_ONE, PIPELINED, Shape};
use crate::load::{Settings, Workspace};

/// How far the commits of a device lie apart.
const COMMIT_EVERY_MS: u64 = 1_000;
const SNAPSHOTS: &str = "snapshots";

/// What the tables of a database take.
#[derive(Debug, Clone, Copy, Default, Serialize)]
struct Taken {
    /// All tables but those of snapshots.
    entry_bytes: f64,
    snapshot_bytes: f64,
}

#[derive(Debug, Serialize)]
struct Outcome {
    shape: Shape,
    entries: u64,
    snapshots: u64,
    entries_per_second: f64,
    fsyncs_per_entry: f64,
    /// What the store handed to RocksDB.
    row_bytes_per_entry: f64,
    /// What reached the disk of it by the time it was at rest: log, tables, and tables again.
    written_bytes_per_entry: f64,
    /// For each entry and each snapshot, at rest.
    at_rest: Taken,
    /// The same after everything was compacted.
    compacted: Taken,
}

/// Runs the part.
pub(super) fn run(settings: &Settings, workspace: &Workspace) -> anyhow::Result<Section> {
    let measure = |shape| measure(settings, workspace, shape);
    let outcomes = [ONE_BY_ONE, PIPELINED].into_iter().map(measure);
    let outcomes = outcomes.collect::<anyhow::Result<Vec<_>>>()?;
    let columns = [
        "devices × together",
        "updates/s",
        "fsyncs/update",
        "rows of an update",
        "written to disk",
        "amplification",
        "entry on disk",
        "compacted",
        "snapshot on disk",
        "compacted",
        "snapshots",
    ];
    let rows = outcomes.iter().map(row).collect();
    let about = format!(
        "{} entries over so many devices, each with so many of them in a commit and one commit on \
         its way, put into the store without connections. An entry on disk is all tables but those \
         of snapshots, divided by the entries.",
        settings.entries
    );
    Section::new("histories: bytes", about, &columns, rows, &outcomes)
}

fn measure(settings: &Settings, workspace: &Workspace, shape: Shape) -> anyhow::Result<Outcome> {
    let Shape { devices, in_flight } = shape;
    let (home, together) = (Home::make(settings, workspace)?, in_flight as u64);
    let rounds = settings.entries.div_ceil(devices as u64 * together);
    let entries = rounds * devices as u64 * together;
    let from_ms = now_ms() - rounds * COMMIT_EVERY_MS;
    let diary = |number| Diary::new(&home.identity, number, settings.seed);
    let diaries = (1..=devices as u64).map(diary).collect::<anyhow::Result<Vec<_>>>()?;
    let mut diaries = diaries;
    let store = home.store()?;
    let before = usage(std::process::id())?;
    let began = Instant::now();
    let progress = Progress::of(format!("histories: entries, {shape}"), entries);
    // Commits are answered in their order: who comes to its turn again has its answer.
    let mut scribe = Scribe::new(&store, devices);
    for round in 0..rounds {
        for diary in &mut diaries {
            scribe.commit(diary.write(together, from_ms + round * COMMIT_EVERY_MS)?)?;
        }
        progress.add(devices as u64 * together);
    }
    scribe.finish()?;
    let seconds = began.elapsed().as_secs_f64();
    let counts = store.commit_counts();
    home.close(store)?;
    let written = (usage(std::process::id())? - before).written_bytes;
    let db = database::open(&home.database())?;
    let snapshots = snapshots(&db)?;
    let at_rest = taken(&db, entries, snapshots)?;
    database::compact(&db)?;
    let compacted = taken(&db, entries, snapshots)?;
    drop(db);
    home.remove()?;
    let each = |total: u64| total as f64 / entries as f64;
    Ok(Outcome {
        shape,
        entries,
        snapshots,
        entries_per_second: entries as f64 / seconds,
        fsyncs_per_entry: each(counts.syncs),
        row_bytes_per_entry: each(counts.bytes),
        written_bytes_per_entry: each(written),
        at_rest,
        compacted,
    })
}

fn snapshots(db: &DB) -> anyhow::Result<u64> {
    let family = db.cf_handle(SNAPSHOTS).context("no family of snapshots")?;
    let mut rows = db.raw_iterator_cf(family);
    rows.seek_to_first();
    let mut count = 0;
    while rows.valid() {
        count += 1;
        rows.next();
    }
    rows.status()?;
    Ok(count)
}

fn taken(db: &DB, entries: u64, snapshots: u64) -> anyhow::Result<Taken> {
    let mut taken = Taken::default();
    for file in db.live_files()? {
        let bytes = file.size as f64;
        match file.column_family_name == SNAPSHOTS {
            true => taken.snapshot_bytes += bytes / snapshots.max(1) as f64,
            false => taken.entry_bytes += bytes / entries as f64,
        }
    }
    Ok(taken)
}

fn row(outcome: &Outcome) -> Vec<String> {
    let amplification = outcome.written_bytes_per_entry / outcome.row_bytes_per_entry.max(1.0);
    vec![
        outcome.shape.to_string(),
        figure(outcome.entries_per_second),
        figure(outcome.fsyncs_per_entry),
        bytes(outcome.row_bytes_per_entry),
        bytes(outcome.written_bytes_per_entry),
        figure(amplification),
        bytes(outcome.at_rest.entry_bytes),
        bytes(outcome.compacted.entry_bytes),
        bytes(outcome.at_rest.snapshot_bytes),
        bytes(outcome.compacted.snapshot_bytes),
        outcome.snapshots.to_string(),
    ]
}
