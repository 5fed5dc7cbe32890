//! States that were read before.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use actors::ports::TreeNumber;
use moka::sync::Cache;
use protocol::state::Version;

use super::TreeAt;

/// Hits and misses since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CacheCounts {
    /// Reads that were answered from memory.
    pub hits: u64,
    /// Reads that went to the database.
    pub misses: u64,
}

/// States by tree and version. A version never changes, so nothing here is ever stale.
pub(super) struct StateCache {
    states: Cache<(TreeNumber, Version), Arc<TreeAt>>,
    hits: AtomicU64,
    misses: AtomicU64,
}

impl StateCache {
    pub(super) fn new(bytes_max: u64) -> Self {
        let states = Cache::builder()
            .max_capacity(bytes_max)
            .weigher(|_, state: &Arc<TreeAt>| u32::try_from(state.size_bytes()).unwrap_or(u32::MAX))
            .build();
        Self { states, hits: AtomicU64::new(0), misses: AtomicU64::new(0) }
    }

    pub(super) fn get_or_read<E>(
        &self,
        tree: TreeNumber,
        version: Version,
        read: impl FnOnce() -> Result<TreeAt, E>,
    ) -> Result<Arc<TreeAt>, E> {
        if let Some(state) = self.states.get(&(tree, version)) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(state);
        }
        self.misses.fetch_add(1, Ordering::Relaxed);
        let state = Arc::new(read()?);
        self.states.insert((tree, version), state.clone());
        Ok(state)
    }

    pub(super) fn counts(&self) -> CacheCounts {
        CacheCounts {
            hits: self.hits.load(Ordering::Relaxed),
            misses: self.misses.load(Ordering::Relaxed),
        }
    }
}
