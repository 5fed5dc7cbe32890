//! The rows that the brain really wrote, as a model for writing as many without it.

use std::collections::HashSet;
use std::path::Path;

use anyhow::Context;
use rocksdb::{DB, IteratorMode, Options};
use serde::Serialize;

use crate::load::brain_metrics::StoreCounts;

/// A tree's row: every commit writes it again.
pub(super) const TREES: &str = "trees";
/// A row for each commit, with its entries.
pub(super) const HISTORY: &str = "history";
/// A row for each commit: the last number of its log.
pub(super) const LOG_ENDS: &str = "log_ends";
/// A row for each leaf.
pub(super) const LEAVES: &str = "leaves";

/// How many rows of a kind a model keeps.
const ROWS_MAX: usize = 4_096;

/// Keys with their values.
pub(super) type Rows = Vec<(Box<[u8]>, Box<[u8]>)>;

/// Rows of the brain's database.
#[derive(Clone)]
pub(super) struct Model {
    pub(super) trees: Rows,
    pub(super) history: Rows,
    pub(super) log_ends: Rows,
    pub(super) leaves: Rows,
    /// How many rows of history there were, the ones not kept included.
    history_rows: u64,
    log_end_rows: u64,
    /// The number of the last write of any row.
    last_write: u64,
}

/// How many rows the brain writes for an update.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) struct PerUpdate {
    pub(super) trees: f64,
    pub(super) history: f64,
    pub(super) log_ends: f64,
    pub(super) leaves: f64,
    /// The bytes that it hands to the database.
    pub(super) bytes: f64,
}

impl PerUpdate {
    /// A row of each kind for every update, as an application would that stores them one by one.
    pub(super) fn one_of_each(model: &Model) -> Self {
        Self { trees: 1.0, history: 1.0, log_ends: 1.0, leaves: 1.0, bytes: model.row_bytes() }
    }
}

impl Model {
    /// Reads the database in `folder`, in use or not, without the history that `known` has.
    pub(super) fn read(folder: &Path, known: Option<&Self>) -> anyhow::Result<Self> {
        let options = Options::default();
        let families = DB::list_cf(&options, folder).context("the brain's database has no list")?;
        let db = DB::open_cf_for_read_only(&options, folder, families, false)
            .context("the brain's database does not open beside it")?;
        let (history, history_rows) = rows(&db, HISTORY, known.map(|known| &known.history))?;
        let (log_ends, log_end_rows) = rows(&db, LOG_ENDS, known.map(|known| &known.log_ends))?;
        let model = Self {
            trees: rows(&db, TREES, None)?.0,
            history,
            log_ends,
            leaves: rows(&db, LEAVES, None)?.0,
            history_rows,
            log_end_rows,
            last_write: db.latest_sequence_number(),
        };
        let kinds = [&model.trees, &model.history, &model.log_ends, &model.leaves];
        anyhow::ensure!(
            kinds.iter().all(|rows| !rows.is_empty()),
            "the brain's database lacks rows: have the names of its families changed?"
        );
        Ok(model)
    }

    /// How many rows an update took since an earlier model, by what the store counted meanwhile.
    pub(super) fn per_update(&self, before: &Self, counts: StoreCounts) -> PerUpdate {
        let updates = (counts.entries as f64).max(1.0);
        let writes = (self.last_write - before.last_write) as f64;
        let (history, log_ends) = (self.history_rows as f64, self.log_end_rows as f64);
        // Trees and leaves are written over, so their writes cannot be counted by rows. Every
        // commit writes its tree; what is left are leaves.
        let trees = counts.commits as f64;
        let leaves = (writes - history - log_ends - trees).max(0.0);
        PerUpdate {
            trees: trees / updates,
            history: history / updates,
            log_ends: log_ends / updates,
            leaves: leaves / updates,
            bytes: counts.bytes as f64 / updates,
        }
    }

    /// The bytes of one row of each kind, on average.
    pub(super) fn row_bytes(&self) -> f64 {
        let kinds = [&self.trees, &self.history, &self.log_ends, &self.leaves];
        let mean = |rows: &Rows| {
            let bytes: usize = rows.iter().map(|(key, value)| key.len() + value.len()).sum();
            bytes as f64 / rows.len().max(1) as f64
        };
        kinds.into_iter().map(mean).sum()
    }
}

fn rows(db: &DB, family: &str, known: Option<&Rows>) -> anyhow::Result<(Rows, u64)> {
    let known: HashSet<_> = known.into_iter().flatten().map(|(key, _)| key.clone()).collect();
    let handle = db.cf_handle(family).with_context(|| format!("no family {family}"))?;
    let (mut kept, mut count) = (Vec::new(), 0);
    for row in db.iterator_cf(handle, IteratorMode::Start) {
        let (key, value) = row?;
        if known.contains(&key) {
            continue;
        }
        count += 1;
        if kept.len() < ROWS_MAX {
            kept.push((key, value));
        }
    }
    Ok((kept, count))
}
