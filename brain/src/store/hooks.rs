//! Whoever wants to hear of entries, once they are durable.
//!
//! Hooks run on a thread of their own, behind a queue with an end: one that is slow, fails or panics
//! costs no commit anything. What it misses for that is counted.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::thread;

use actors::ports::{CommitContext, Segment, SyncHook, TreeCommit};
use protocol::history::Genesis;

use super::Store;

/// So many commits may wait for the hooks.
const QUEUE_MAX: usize = 4_096;

/// What hooks were told.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HookCounts {
    /// Calls.
    pub called: u64,
    /// Calls that failed or panicked.
    pub failed: u64,
    /// Commits that no hook heard of, because too many waited.
    pub missed: u64,
}

/// What a commit brought.
struct Committed {
    genesis: Genesis,
    segments: Vec<Segment>,
}

/// The hooks of a store.
#[derive(Default)]
pub(super) struct Hooks {
    hooks: RwLock<Vec<Arc<dyn SyncHook>>>,
    queue: OnceLock<SyncSender<Committed>>,
    called: AtomicU64,
    failed: AtomicU64,
    missed: AtomicU64,
}

impl Hooks {
    /// Tells of a commit that is durable.
    pub(super) fn tell(&self, commit: TreeCommit) {
        let Some(queue) = self.queue.get() else { return };
        if commit.segments.is_empty() {
            return;
        }
        let committed = Committed { genesis: commit.record.genesis, segments: commit.segments };
        if let Err(TrySendError::Full(_)) = queue.try_send(committed)
            && self.missed.fetch_add(1, Ordering::Relaxed) == 0
        {
            tracing::warn!("commit hooks are too slow: they miss commits");
        }
    }

    /// Whether anybody wants to hear.
    pub(super) fn any(&self) -> bool {
        let hooks = || self.hooks.read().unwrap_or_else(PoisonError::into_inner);
        self.queue.get().is_some() && hooks().iter().any(|hook| hook.listens())
    }

    fn add(self: &Arc<Self>, hook: Arc<dyn SyncHook>) -> std::io::Result<()> {
        self.hooks.write().unwrap_or_else(PoisonError::into_inner).push(hook);
        if self.queue.get().is_some() {
            return Ok(());
        }
        let (sender, queue) = mpsc::sync_channel(QUEUE_MAX);
        // The thread ends with the store, which holds the other end of its queue.
        let hooks = Arc::downgrade(self);
        thread::Builder::new().name("store-hooks".into()).spawn(move || run(&hooks, &queue))?;
        // Nobody else sets it while the list is being added to.
        let _ = self.queue.set(sender);
        Ok(())
    }

    fn call(&self, committed: &Committed) {
        let hooks = self.hooks.read().unwrap_or_else(PoisonError::into_inner).clone();
        let tree_id = committed.genesis.tree_id();
        for segment in &committed.segments {
            // What is committed was admitted, and unpacks.
            let Ok(entries) = segment.batch.clone().unpack() else { continue };
            for ((id, entry), version) in entries.iter().zip(segment.first_version..) {
                let context = CommitContext {
                    tree_id,
                    genesis: &committed.genesis,
                    version,
                    committed_ms: segment.at_ms,
                    id: *id,
                    entry,
                    is_root_entry: version == 1,
                };
                hooks.iter().for_each(|hook| self.call_one(&**hook, &context));
            }
        }
    }

    fn call_one(&self, hook: &dyn SyncHook, context: &CommitContext<'_>) {
        self.called.fetch_add(1, Ordering::Relaxed);
        let called = catch_unwind(AssertUnwindSafe(|| hook.on_entry_committed(context)));
        let failure = match called {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it panicked".to_owned(),
        };
        self.failed.fetch_add(1, Ordering::Relaxed);
        let (hook, entry) = (hook.name(), context.id);
        tracing::warn!(hook, %entry, failure, "a commit hook failed; the commit stands");
    }
}

fn run(hooks: &std::sync::Weak<Hooks>, queue: &Receiver<Committed>) {
    while let Ok(committed) = queue.recv() {
        let Some(hooks) = hooks.upgrade() else { return };
        hooks.call(&committed);
    }
}

impl Store {
    /// Has a hook hear of every entry from now on.
    pub fn add_hook(&self, hook: Arc<dyn SyncHook>) -> std::io::Result<()> {
        self.hooks.add(hook)
    }

    /// What hooks were told since the start.
    pub fn hook_counts(&self) -> HookCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let Hooks { called, failed, missed, .. } = &*self.hooks;
        HookCounts { called: get(called), failed: get(failed), missed: get(missed) }
    }
}

#[cfg(test)]
mod tests {
    use std::error::Error;
    use std::sync::Mutex;

    use protocol::{DeviceId, EntryId};

    use super::*;
    use crate::store::written::{open, write};

    #[derive(Default)]
    struct Heard(Mutex<Vec<(EntryId, u64, bool)>>);

    impl SyncHook for Heard {
        fn name(&self) -> &str {
            "heard"
        }

        fn on_entry_committed(
            &self,
            context: &CommitContext<'_>,
        ) -> Result<(), Box<dyn Error + Send + Sync>> {
            assert_eq!(context.genesis.tree_id(), context.tree_id);
            let heard = (context.id, context.version, context.is_root_entry);
            self.0.lock().expect("not poisoned").push(heard);
            match context.version % 3 {
                0 => Err("every third".into()),
                1 => panic!("every other third"),
                _ => Ok(()),
            }
        }
    }

    #[test]
    fn a_hook_hears_of_every_entry_once_and_its_failure_fails_no_commit() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let store = open(folder.path());
        let heard = Arc::new(Heard::default());
        store.add_hook(heard.clone()).expect("a thread");
        // Each of these commits is checked to be durable.
        let number = write(&store, DeviceId([1; 16]), 30);
        let began = std::time::Instant::now();
        while store.hook_counts().called < 30 {
            assert!(began.elapsed().as_secs() < 20, "{:?}", store.hook_counts());
            thread::yield_now();
        }
        let kept = store.history(number, u64::MAX, 100).expect("reads");
        let kept: Vec<_> = kept.iter().rev().map(|c| (c.id, c.version, c.version == 1)).collect();
        assert_eq!(*heard.0.lock().expect("not poisoned"), kept);
        let counts = HookCounts { called: 30, failed: 20, missed: 0 };
        let began = std::time::Instant::now();
        while store.hook_counts() != counts {
            assert!(began.elapsed().as_secs() < 20, "{:?}", store.hook_counts());
            thread::yield_now();
        }
        store.shut_down();
    }
}
