//! The brain's database without the brain: opened with the options that it was written with.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

use anyhow::Context;
use rocksdb::{
    BottommostLevelCompaction, Cache, ColumnFamilyDescriptor, CompactOptions, DB, Env, Options,
    WaitForCompactOptions,
};
use rustix::fs::{Advice, fadvise};

/// The brain's default. The file of options does not name it.
const BLOCK_CACHE_BYTES: usize = 64 << 20;

/// The options that RocksDB keeps beside the database in `folder`, and its families with theirs.
pub(super) fn options_of(folder: &Path) -> anyhow::Result<(Options, Vec<ColumnFamilyDescriptor>)> {
    let cache = Cache::new_lru_cache(BLOCK_CACHE_BYTES);
    Options::load_latest(folder, Env::new()?, true, cache)
        .context("the options of the brain's database cannot be read")
}

/// Opens the database in `folder`, which nobody else may have open.
pub(super) fn open(folder: &Path) -> anyhow::Result<DB> {
    let (options, families) = options_of(folder)?;
    DB::open_cf_descriptors(&options, folder, families).context("the database does not open")
}

/// Opens the database in `folder` to read, beside whoever writes it.
pub(super) fn open_beside(folder: &Path) -> anyhow::Result<DB> {
    let (options, families) = options_of(folder)?;
    DB::open_cf_descriptors_read_only(&options, folder, families, false)
        .context("the database does not open beside its writer")
}

/// Puts what is in memory or in the log into tables, and waits until there is nothing left to do
/// in the background: so that whoever opens it next finds the same files.
pub(super) fn settle(db: &DB) -> anyhow::Result<()> {
    let mut waiting = WaitForCompactOptions::default();
    waiting.set_flush(true);
    db.wait_for_compact(&waiting).context("the database does not come to rest")
}

/// Compacts every family, down to the last level.
pub(super) fn compact(db: &DB) -> anyhow::Result<()> {
    let mut options = CompactOptions::default();
    options.set_bottommost_level_compaction(BottommostLevelCompaction::Force);
    let files = db.live_files()?.into_iter();
    let families: BTreeSet<_> = files.map(|file| file.column_family_name).collect();
    for name in families {
        let family = db.cf_handle(&name).with_context(|| format!("no family {name}"))?;
        db.compact_range_cf_opt(family, None::<&[u8]>, None::<&[u8]>, &options);
    }
    settle(db)
}

/// Has the system forget what it holds of the files in `folder`.
pub(super) fn forget_pages(folder: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.metadata()?.is_file() {
            let file = File::open(entry.path())?;
            // Only what is on disk can be forgotten.
            file.sync_all()?;
            fadvise(&file, 0, None, Advice::DontNeed)?;
        }
    }
    Ok(())
}

/// The bytes of the files in `folder`.
pub(super) fn bytes_in(folder: &Path) -> anyhow::Result<u64> {
    let mut total = 0;
    for file in fs::read_dir(folder)? {
        // RocksDB may have removed it meanwhile.
        total += file?.metadata().map_or(0, |file| file.len());
    }
    Ok(total)
}
