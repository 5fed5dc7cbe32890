//! What the brain says of its store.

use std::ops::Sub;

use anyhow::Context;

use crate::brain::Brain;

// The names at `/metrics`.
const SYNCS: &str = "fleet_store_syncs_total";
const COMMITS: &str = "fleet_store_commits_total";
const ENTRIES: &str = "fleet_store_entries_total";
const BYTES: &str = "fleet_store_io_bytes_total";

/// What the store has committed since the brain's start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct StoreCounts {
    /// Batches, each with one `fsync`.
    pub(super) syncs: u64,
    /// Commits in them.
    pub(super) commits: u64,
    /// Entries in those.
    pub(super) entries: u64,
    /// Bytes handed to the database.
    pub(super) bytes: u64,
}

impl StoreCounts {
    pub(super) fn read(brain: &Brain) -> anyhow::Result<Self> {
        let text = brain.metrics()?;
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
            let value = line.with_context(|| format!("the brain has no metric {name}"))?;
            anyhow::Ok(value.parse::<f64>()? as u64)
        };
        Ok(Self {
            syncs: value(SYNCS)?,
            commits: value(COMMITS)?,
            entries: value(ENTRIES)?,
            bytes: value(BYTES)?,
        })
    }
}

impl Sub for StoreCounts {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            syncs: self.syncs - before.syncs,
            commits: self.commits - before.commits,
            entries: self.entries - before.entries,
            bytes: self.bytes - before.bytes,
        }
    }
}
