//! The rows that make a state, read by RocksDB alone.

use std::path::Path;

use actors::ports::TreeNumber;
use anyhow::Context;
use protocol::state::Version;
use rocksdb::{ColumnFamily, DB, DBRawIterator};

use crate::load::database;

const SNAPSHOTS: &str = "snapshots";
const HISTORY: &str = "history";

/// The brain's database, open beside it.
pub(super) struct Rows {
    db: DB,
}

/// What was read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Touched {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    /// Depends on every byte, so that every byte has to be looked at.
    sum: u64,
}

impl Rows {
    pub(super) fn open(folder: &Path) -> anyhow::Result<Self> {
        Ok(Self { db: database::open_beside(folder)? })
    }

    /// Reads what the state of a tree at a version follows from: the snapshot at or before it, and
    /// the rows of history from there up to it. One seek each, and then from row to row.
    pub(super) fn of_state(&self, tree: TreeNumber, at: Version) -> anyhow::Result<Touched> {
        let mut touched = Touched::default();
        let mut snapshots = self.db.raw_iterator_cf(self.family(SNAPSHOTS)?);
        snapshots.seek_for_prev(key(tree, at));
        let snapshot = match touched.row(&snapshots) {
            Some((of, version)) if of == tree => version,
            _ => {
                touched = Touched::default();
                0
            }
        };
        let mut history = self.db.raw_iterator_cf(self.family(HISTORY)?);
        // A snapshot is of the last entry of its commit, so the next row begins after it.
        history.seek(key(tree, snapshot + 1));
        let mut rows = touched;
        while let Some((of, first)) = rows.row(&history) {
            if of != tree || first > at {
                break;
            }
            touched = rows;
            history.next();
        }
        history.status()?;
        std::hint::black_box(touched.sum);
        Ok(touched)
    }

    fn family(&self, name: &str) -> anyhow::Result<&ColumnFamily> {
        self.db.cf_handle(name).with_context(|| format!("no family {name}"))
    }
}

impl Touched {
    /// Looks at the row that an iterator is at: its tree and version.
    fn row(&mut self, at: &DBRawIterator<'_>) -> Option<(TreeNumber, Version)> {
        let (key, value) = at.item()?;
        self.rows += 1;
        self.bytes += (key.len() + value.len()) as u64;
        self.sum = key.iter().chain(value).fold(self.sum, |sum, byte| sum + u64::from(*byte));
        let (tree, version) = key.split_first_chunk::<8>()?;
        Some((u64::from_be_bytes(*tree), u64::from_be_bytes(version.try_into().ok()?)))
    }
}

fn key(tree: TreeNumber, version: Version) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&tree.to_be_bytes());
    key[8..].copy_from_slice(&version.to_be_bytes());
    key
}
