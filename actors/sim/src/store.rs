//! A tree store in memory, with a disk that can be full, fail and forget.
//!
//! Commits are queued and become durable at [`MemoryStore::sync`], many with one virtual `fsync`;
//! only then is their owner told. [`MemoryStore::crash`] forgets what was not durable. The store
//! checks what it is given (see [`Violation`]): it is a judge as much as a stand-in.

mod disk;
mod violation;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use actors::ports::{
    CommitDone, CommitError, DeadLetter, Evidence, LoadedTree, ReadError, Snapshot, StoreFault,
    TreeCommit, TreeNumber, TreeRecord, TreeStore,
};
use protocol::history::{Entry, Genesis};
use protocol::state::Version;
use protocol::{EntryId, TreeId};

use crate::fired::Fired;

pub use disk::StoredTree;
pub use violation::Violation;

use disk::Disk;

/// When commits become durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyncMode {
    /// At once, each on its own.
    AtCommit,
    /// When [`MemoryStore::sync`] is called, all together.
    OnDemand,
}

/// Faults that no store may have, for tests of the tests: whoever checks a run must notice them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bug {
    /// Says that a commit is durable when it is only queued.
    AcknowledgesBeforeSync,
    /// Forgets every tenth commit that it says is durable.
    ForgetsCommits,
}

/// A tree store in memory. Clones are the same store.
#[derive(Clone)]
pub struct MemoryStore(Arc<Mutex<Inner>>);

struct Inner {
    mode: SyncMode,
    bug: Option<Bug>,
    disk: Disk,
    queue: Vec<(TreeCommit, Option<CommitDone>)>,
    /// Written before an `fsync` that failed: a crash may keep it or not.
    limbo: Vec<TreeCommit>,
    next_number: TreeNumber,
    next_generation: u64,
    failed_generations: BTreeMap<TreeNumber, u64>,
    full: bool,
    sync_fails: bool,
    broken: Option<String>,
    loads_to_fail: u32,
    evidence: Vec<Evidence>,
    dead_letters: Vec<DeadLetter>,
    violations: Vec<Violation>,
    commits: u64,
    fired: Fired,
}

/// Commits whose owners have yet to hear what became of them.
type Answers = Vec<(CommitDone, Result<(), CommitError>)>;

impl MemoryStore {
    /// An empty store.
    pub fn new(mode: SyncMode) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            mode,
            bug: None,
            disk: Disk::default(),
            queue: Vec::new(),
            limbo: Vec::new(),
            next_number: 1,
            next_generation: 1,
            failed_generations: BTreeMap::new(),
            full: false,
            sync_fails: false,
            broken: None,
            loads_to_fail: 0,
            evidence: Vec::new(),
            dead_letters: Vec::new(),
            violations: Vec::new(),
            commits: 0,
            fired: Fired::default(),
        })))
    }

    /// Gives the store a bug.
    pub fn plant(&self, bug: Bug) {
        self.lock().bug = Some(bug);
    }

    /// Makes everything queued durable, or fails it, and tells its owners. Returns how many
    /// commits that was.
    pub fn sync(&self) -> usize {
        let answers = self.lock().sync();
        let count = answers.len();
        // Outside the lock: an owner may come back with its next commit.
        for (done, result) in answers {
            done(result);
        }
        count
    }

    /// How many commits are queued.
    pub fn queued(&self) -> usize {
        self.lock().queue.len()
    }

    /// Ends the process that uses the store: what was not durable is lost, but for the first
    /// `kept` commits, which had reached the disk without anybody knowing. Nobody is told.
    /// Returns how many commits were lost.
    pub fn crash(&self, kept: usize) -> usize {
        let mut inner = self.lock();
        let queued = std::mem::take(&mut inner.queue).into_iter().map(|(commit, _)| commit);
        let mut written = std::mem::take(&mut inner.limbo);
        written.extend(queued);
        let lost = written.len().saturating_sub(kept);
        for commit in written.into_iter().take(kept) {
            if !inner.is_superseded(&commit) {
                inner.write(&commit);
            }
        }
        inner.failed_generations.clear();
        inner.broken = None;
        inner.sync_fails = false;
        inner.loads_to_fail = 0;
        inner.fired.add("commits_lost_in_crash", lost as u64);
        lost
    }

    /// Fills the disk, or makes room again. While it is full, commits fail.
    pub fn set_full(&self, full: bool) {
        self.lock().full = full;
    }

    /// Makes the next `fsync` fail. After that nothing is written until the process restarts.
    pub fn fail_next_sync(&self) {
        self.lock().sync_fails = true;
    }

    /// Whether an `fsync` has failed, so that the process has to end.
    pub fn is_broken(&self) -> bool {
        self.lock().broken.is_some()
    }

    /// Makes the next so many loads fail.
    pub fn fail_loads(&self, count: u32) {
        self.lock().loads_to_fail = count;
    }

    /// A tree as it is on disk.
    pub fn tree(&self, id: TreeId) -> Option<StoredTree> {
        self.lock().disk.tree(id).cloned()
    }

    /// Looks at a tree as it is on disk, without a copy.
    pub fn with_tree<T>(&self, id: TreeId, look: impl FnOnce(Option<&StoredTree>) -> T) -> T {
        look(self.lock().disk.tree(id))
    }

    /// What was kept as evidence.
    pub fn evidence(&self) -> Vec<Evidence> {
        self.lock().evidence.clone()
    }

    /// How many commits became durable.
    pub fn commits(&self) -> u64 {
        self.lock().commits
    }

    /// The faults that hit something.
    pub fn fired(&self) -> Fired {
        self.lock().fired.clone()
    }

    /// What is wrong with what the store was given, and with what it holds: every history is
    /// folded anew and must come to the leaves that were committed with it.
    pub fn verify(&self) -> Vec<Violation> {
        let inner = self.lock();
        let mut violations = inner.violations.clone();
        violations.extend(inner.disk.trees().filter_map(StoredTree::fold_again));
        violations
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn sync(&mut self) -> Answers {
        if self.queue.is_empty() {
            return Vec::new();
        }
        let queue = std::mem::take(&mut self.queue);
        let fails_now = self.broken.is_none() && std::mem::take(&mut self.sync_fails);
        if fails_now {
            self.broken = Some("injected fsync failure".to_owned());
            self.fired.count("fsyncs_failed");
        }
        let mut answers = Vec::with_capacity(queue.len());
        for (commit, done) in queue {
            if fails_now {
                self.limbo.push(commit.clone());
            }
            let result = self.commit(&commit);
            answers.extend(done.map(|done| (done, result)));
        }
        answers
    }

    fn commit(&mut self, commit: &TreeCommit) -> Result<(), CommitError> {
        if let Some(detail) = self.broken.clone() {
            return Err(CommitError::Failed { fault: StoreFault::Disk, detail });
        }
        if self.is_superseded(commit) {
            return Err(CommitError::Superseded);
        }
        if self.full {
            self.fired.count("commits_refused_disk_full");
            self.failed_generations.insert(commit.number, commit.generation);
            return Err(CommitError::DiskFull { available_bytes: 0, reserve_bytes: 1 });
        }
        self.write(commit);
        Ok(())
    }

    fn is_superseded(&self, commit: &TreeCommit) -> bool {
        let failed = self.failed_generations.get(&commit.number);
        failed.is_some_and(|failed| commit.generation <= *failed)
    }

    fn write(&mut self, commit: &TreeCommit) {
        self.commits += 1;
        if self.bug == Some(Bug::ForgetsCommits) && self.commits.is_multiple_of(10) {
            self.fired.count("commits_forgotten_by_bug");
            return;
        }
        self.disk.write(commit, &mut self.violations);
    }

    fn load(&mut self, genesis: &Genesis) -> Result<LoadedTree, ReadError> {
        if let Some(left) = self.loads_to_fail.checked_sub(1) {
            self.loads_to_fail = left;
            self.fired.count("loads_failed");
            let detail = "injected read failure".to_owned();
            return Err(ReadError::Failed { fault: StoreFault::Disk, detail });
        }
        let generation = self.next_generation;
        self.next_generation += 1;
        if let Some(tree) = self.disk.tree(genesis.tree_id()) {
            let (record, leaves) = (tree.record().clone(), tree.leaves().clone());
            let (number, base) = (tree.number(), tree.base().cloned());
            return Ok(LoadedTree { number, generation, record, leaves, base });
        }
        let record = TreeRecord::new(genesis.clone());
        let number = self.next_number;
        self.next_number += 1;
        Ok(LoadedTree { number, generation, record, leaves: BTreeMap::new(), base: None })
    }
}

impl TreeStore for MemoryStore {
    fn load(&self, genesis: &Genesis) -> Result<LoadedTree, ReadError> {
        // Commits of an earlier loading may still be queued; they must be in what is read.
        self.sync();
        self.lock().load(genesis)
    }

    fn commit(&self, commit: TreeCommit, done: CommitDone) {
        let mut inner = self.lock();
        let done = if inner.bug == Some(Bug::AcknowledgesBeforeSync) {
            inner.queue.push((commit, None));
            drop(inner);
            return done(Ok(()));
        } else {
            done
        };
        inner.queue.push((commit, Some(done)));
        let at_once = inner.mode == SyncMode::AtCommit;
        drop(inner);
        if at_once {
            self.sync();
        }
    }

    fn range(
        &self,
        tree: TreeNumber,
        log: u32,
        after: u64,
        bytes_max: usize,
    ) -> Result<Vec<(EntryId, Entry)>, ReadError> {
        Ok(self.lock().disk.range(tree, log, after, bytes_max))
    }

    fn snapshot(&self, tree: TreeNumber, version: Version) -> Result<Option<Snapshot>, ReadError> {
        Ok(self.lock().disk.snapshot(tree, version))
    }

    fn keep_dead_letter(&self, letter: DeadLetter) {
        let mut inner = self.lock();
        inner.dead_letters.retain(|kept| kept.digest != letter.digest);
        inner.dead_letters.push(letter);
    }

    fn keep_evidence(&self, evidence: Evidence) {
        self.lock().evidence.push(evidence);
    }
}

impl std::fmt::Debug for MemoryStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryStore").finish_non_exhaustive()
    }
}
