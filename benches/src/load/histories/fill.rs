//! Many devices with histories of the same length.

use std::thread;

use actors::ports::{TreeCommit, TreeNumber};
use brain::store::{RegistryChange, Store};

use super::diary::Diary;
use super::home::Home;
use super::progress::Progress;
use super::scribe::Scribe;

/// So many commits of a thread wait for the disk: as many as the store writes at once.
const UNDER_WAY_MAX: usize = 2_048;
/// So many devices join with one write.
const JOINING: usize = 500;
/// So many updates of a device, each with rows of its own, share a commit: the row of a tree would
/// be written over at once.
const TOGETHER: u64 = 4;

/// What is to be there.
#[derive(Debug, Clone, Copy)]
pub(super) struct Filling {
    pub(super) trees: u64,
    pub(super) entries_each: u64,
    /// When the first update is made, in milliseconds since the Unix epoch.
    pub(super) from_ms: u64,
    /// How long each device waits for its next.
    pub(super) every_ms: u64,
}

impl Filling {
    /// When the last update is made.
    pub(super) fn until_ms(&self) -> u64 {
        self.from_ms + self.entries_each * self.every_ms
    }
}

/// Fills the store of a home, on as many threads as there are cores.
pub(super) fn fill(home: &Home, filling: Filling, seed: u64) -> anyhow::Result<()> {
    let store = home.store()?;
    let threads = thread::available_parallelism()?.get() as u64;
    let what = format!("histories: devices of {} entries", filling.entries_each);
    let progress = Progress::of(what, filling.trees);
    let filled = thread::scope(|scope| {
        let begin = |first| {
            let numbers = (first..=filling.trees).step_by(threads as usize);
            let (store, progress) = (&store, &progress);
            scope.spawn(move || write(home, store, filling, numbers, seed, progress))
        };
        let writing: Vec<_> = (1..=threads).map(begin).collect();
        let ended = writing.into_iter().map(|thread| thread.join());
        ended.collect::<Result<Vec<_>, _>>()
    });
    let filled = filled.map_err(|_| anyhow::anyhow!("a thread that fills the store panicked"))?;
    filled.into_iter().collect::<anyhow::Result<()>>()?;
    home.close(store)
}

fn write(
    home: &Home,
    store: &Store,
    filling: Filling,
    numbers: impl Iterator<Item = TreeNumber>,
    seed: u64,
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut scribe = Scribe::new(store, UNDER_WAY_MAX);
    let mut joining = Vec::new();
    for number in numbers {
        let mut diary = Diary::new(&home.identity, number, seed)?;
        let record = diary.record(&home.identity, filling.from_ms);
        joining.push(RegistryChange::Device(Box::new(record)));
        if joining.len() == JOINING {
            store.change_registry(std::mem::take(&mut joining))?;
            progress.add(JOINING as u64);
        }
        let (mut written, mut together) = (0, None);
        while written < filling.entries_each {
            let commit = diary.write(1, filling.from_ms + written * filling.every_ms)?;
            written += 1;
            let commit = match together.take() {
                Some(earlier) => TreeCommit::and_then(earlier, commit),
                None => commit,
            };
            if written == filling.entries_each {
                scribe.commit(diary.sign(commit))?;
            } else if written % TOGETHER == 0 {
                scribe.commit(commit)?;
            } else {
                together = Some(commit);
            }
        }
    }
    let rest = joining.len() as u64;
    if rest > 0 {
        store.change_registry(joining)?;
    }
    scribe.finish()?;
    progress.add(rest);
    Ok(())
}
