//! The one writer.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, OnceLock};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use actors::ports::{
    CommitDone, CommitError, DeadLetter, Evidence, ReadError, StoreFault, TreeCommit, TreeNumber,
    disk_full,
};
use parking::Slot;
use protocol::history::Genesis;
use protocol::{ErrorCode, ErrorSource, Layer, SyncError};
use rocksdb::WriteBatch;
use tokio::sync::watch;

use super::audit::Audit;
use super::conflicts::Ledger;
use super::hooks::Hooks;
use super::mark::MarkFile;
use super::registry::RegistryChange;
use super::rocks::{self, Rocks};
use super::space::DiskSpace;
use super::tombstones::{self, Burial};
use super::{base, dead_letters, groups, keys};

mod parking;

/// The most commits in one batch: enough to amortise an `fsync`, small enough to answer soon.
const GROUP_COMMITS_MAX: usize = 2_048;
/// How often the high-water mark is written, where it moved.
const MARK_EVERY: Duration = Duration::from_millis(500);
/// How many pieces of evidence are kept; few in lab builds, so that pruning is met.
const EVIDENCE_MAX: u64 = if cfg!(feature = "failpoints") { 4 } else { 10_000 };

/// Whether the store takes commits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StoreHealth {
    /// It does.
    Ok,
    /// Not until there is more disk space.
    DiskFull,
    /// Never again in this process.
    Failed {
        /// What gave way.
        fault: StoreFault,
        /// What the database said.
        detail: String,
    },
}

impl StoreHealth {
    /// Why nothing can be written now, as clients see it.
    pub fn refusal(&self) -> Option<SyncError> {
        let (code, text, cause) = match self {
            Self::Ok => return None,
            Self::DiskFull => {
                (ErrorCode::DiskFull, "too little disk space is left to write", disk_full())
            }
            Self::Failed { fault, .. } => {
                (ErrorCode::StoreFailed, "the database failed", fault.cause("write"))
            }
        };
        let origin = ErrorSource::new(Layer::Store, "commit", "write");
        Some(SyncError::new(code, origin, text).because(cause))
    }
}

/// What was committed since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CommitCounts {
    /// Batches, each with one `fsync`.
    pub syncs: u64,
    /// Commits in them.
    pub commits: u64,
    /// Entries in those.
    pub entries: u64,
    /// Bytes handed to the database.
    pub bytes: u64,
    /// Commits refused for want of disk space.
    pub refused_disk_full: u64,
}

/// One batch made durable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SyncReport {
    /// How long the write and its `fsync` took.
    pub took: Duration,
    /// How many commits it covered.
    pub commits: u64,
}

type OnSync = Box<dyn Fn(SyncReport) + Send + Sync>;

enum Job {
    Tree(Box<TreeCommit>, CommitDone),
    Registry(Vec<RegistryChange>, CommitDone),
    Bury(Box<Burial>, CommitDone),
    Evidence(Evidence),
    DeadLetter(Box<DeadLetter>),
    Flush(Sender<()>),
    Stop,
}

/// The handle of the commit thread.
pub(super) struct Committer {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    threads: Slot<Vec<JoinHandle<()>>>,
}

struct Shared {
    syncs: AtomicU64,
    commits: AtomicU64,
    entries: AtomicU64,
    bytes: AtomicU64,
    refused_disk_full: AtomicU64,
    /// The last write that an `fsync` covers.
    durable: AtomicU64,
    health: watch::Sender<StoreHealth>,
    on_sync: OnceLock<OnSync>,
}

impl Committer {
    pub(super) fn start(
        rocks: Arc<Rocks>,
        mark: MarkFile,
        space: DiskSpace,
        audit: Audit,
        hooks: Arc<Hooks>,
    ) -> std::io::Result<Self> {
        let (jobs, queue) = mpsc::channel();
        let shared = Arc::new(Shared {
            syncs: AtomicU64::new(0),
            commits: AtomicU64::new(0),
            entries: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            refused_disk_full: AtomicU64::new(0),
            durable: AtomicU64::new(rocks.latest_write()),
            health: watch::Sender::new(StoreHealth::Ok),
            on_sync: OnceLock::new(),
        });
        let (stopped, on_stop) = mpsc::channel();
        let next_evidence = rocks.next_evidence_number();
        let writer = Writer {
            rocks,
            space,
            shared: shared.clone(),
            failed_generations: HashMap::new(),
            next_evidence,
            conflicts: Ledger::default(),
            audit,
            hooks,
            buried: HashSet::new(),
        };
        let commits = thread::Builder::new().name("store-commit".into()).spawn(move || {
            writer.run(&queue);
            drop(stopped);
        })?;
        let of_mark = shared.clone();
        let marks = thread::Builder::new()
            .name("store-mark".into())
            .spawn(move || keep_mark(&mark, &of_mark, &on_stop))?;
        Ok(Self { jobs, shared, threads: Slot::new(vec![commits, marks]) })
    }

    pub(super) fn tree(&self, commit: TreeCommit, done: CommitDone) {
        self.send(Job::Tree(Box::new(commit), done));
    }

    pub(super) fn registry(&self, changes: Vec<RegistryChange>, done: CommitDone) {
        self.send(Job::Registry(changes, done));
    }

    pub(super) fn bury(&self, burial: Burial, done: CommitDone) {
        self.send(Job::Bury(Box::new(burial), done));
    }

    pub(super) fn evidence(&self, evidence: Evidence) {
        self.send(Job::Evidence(evidence));
    }

    pub(super) fn dead_letter(&self, letter: DeadLetter) {
        self.send(Job::DeadLetter(Box::new(letter)));
    }

    /// Waits until everything queued before has been dealt with.
    pub(super) fn flush(&self) {
        let (done, wait) = mpsc::channel();
        self.send(Job::Flush(done));
        // An error means that the thread is gone, and with it everything queued.
        let _ = wait.recv();
    }

    pub(super) fn health(&self) -> StoreHealth {
        self.shared.health.borrow().clone()
    }

    pub(super) fn watch_health(&self) -> watch::Receiver<StoreHealth> {
        self.shared.health.subscribe()
    }

    pub(super) fn on_sync(&self, tell: OnSync) {
        // Whoever asked first is told.
        let _ = self.shared.on_sync.set(tell);
    }

    pub(super) fn counts(&self) -> CommitCounts {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        CommitCounts {
            syncs: get(&self.shared.syncs),
            commits: get(&self.shared.commits),
            entries: get(&self.shared.entries),
            bytes: get(&self.shared.bytes),
            refused_disk_full: get(&self.shared.refused_disk_full),
        }
    }

    pub(super) fn shut_down(&self) {
        self.send(Job::Stop);
        for thread in self.threads.take().unwrap_or_default() {
            // A panic there has been reported by the panic hook.
            let _ = thread.join();
        }
    }

    fn send(&self, job: Job) {
        if let Err(mpsc::SendError(job)) = self.jobs.send(job) {
            let (fault, detail) = (StoreFault::Stopped, "the store is shut down".into());
            job.fail(&CommitError::Failed { fault, detail });
        }
    }
}

impl Job {
    /// Whether it reads what the jobs before it wrote, so that it has a batch to itself.
    fn is_alone(&self) -> bool {
        matches!(self, Self::Bury(..))
    }

    fn fail(self, error: &CommitError) {
        match self {
            Job::Tree(_, done) | Job::Registry(_, done) | Job::Bury(_, done) => {
                done(Err(error.clone()));
            }
            Job::DeadLetter(letter) => {
                tracing::error!(tree = letter.tree.name, %error, "a dead letter could not be kept");
            }
            Job::Evidence(_) | Job::Flush(_) | Job::Stop => {}
        }
    }
}

struct Writer {
    rocks: Arc<Rocks>,
    space: DiskSpace,
    shared: Arc<Shared>,
    /// For each tree the last loading of which a commit failed. What is queued behind that commit
    /// builds on it and must fail too.
    failed_generations: HashMap<TreeNumber, u64>,
    next_evidence: u64,
    conflicts: Ledger,
    audit: Audit,
    hooks: Arc<Hooks>,
    /// Trees that ended since the start: whoever still has one in memory writes nothing more.
    buried: HashSet<TreeNumber>,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        let mut next = None;
        while let Some(first) = next.take().or_else(|| queue.recv().ok()) {
            let mut group = vec![first];
            while group.len() < GROUP_COMMITS_MAX && !group[0].is_alone() {
                match queue.try_recv() {
                    Ok(job) if job.is_alone() => {
                        next = Some(job);
                        break;
                    }
                    Ok(job) => group.push(job),
                    Err(_) => break,
                }
            }
            if self.write(group) {
                return;
            }
        }
    }

    /// Makes a group durable; says whether the thread is to stop.
    fn write(&mut self, group: Vec<Job>) -> bool {
        let mut stop = false;
        let mut batch = WriteBatch::default();
        let mut waiting = Vec::with_capacity(group.len());
        let mut flushed = Vec::new();
        let (is_heard, mut news) = (self.hooks.any(), Vec::new());
        let mut entries = 0;
        let refusal = self.refusal();
        for job in group {
            match (job, &refusal) {
                (Job::Flush(done), _) => flushed.push(done),
                (Job::Stop, _) => stop = true,
                (Job::Evidence(evidence), None) => self.add_evidence(&mut batch, &evidence),
                (Job::DeadLetter(letter), None) => {
                    dead_letters::add(&self.rocks, &mut batch, &letter);
                }
                (Job::Bury(burial, done), None) => match self.bury(&mut batch, *burial) {
                    Ok(true) => waiting.push((None, done)),
                    Ok(false) => done(Ok(())),
                    Err(error) => done(Err(error)),
                },
                (Job::Registry(changes, done), None)
                    if changes.iter().any(|change| change.is_of_retired(&self.rocks)) =>
                {
                    done(Err(CommitError::Retired));
                }
                (Job::Registry(changes, done), None) => {
                    for change in changes {
                        match change {
                            RegistryChange::Done(done) => {
                                self.audit.add(&self.rocks, &mut batch, *done);
                            }
                            change => change.add_to(&mut batch, &self.rocks),
                        }
                    }
                    fail::fail_point!("store.registry_batched");
                    waiting.push((None, done));
                }
                (Job::Tree(commit, done), None) => {
                    let tree = (commit.number, commit.generation);
                    if self.is_buried(&commit) {
                        done(Err(CommitError::Retired));
                    } else if self.is_superseded(tree) {
                        done(Err(CommitError::Superseded));
                    } else {
                        entries += self.add_tree(&mut batch, &commit);
                        self.conflicts.take(&self.rocks, &mut batch, &commit);
                        waiting.push((Some(tree), done));
                        if is_heard {
                            news.push(*commit);
                        }
                    }
                }
                (job, Some(error)) => {
                    if let Job::Tree(commit, _) = &job {
                        self.failed_generations.insert(commit.number, commit.generation);
                    }
                    self.shared.refused_disk_full.fetch_add(1, Ordering::Relaxed);
                    job.fail(error);
                }
            }
        }
        self.conflicts.add_to(&self.rocks, &mut batch);
        if !batch.is_empty() {
            let durable = self.commit(batch, waiting, entries);
            news.into_iter().filter(|_| durable).for_each(|commit| self.hooks.tell(commit));
        }
        drop(flushed);
        stop
    }

    /// Writes a batch, and says whether it is durable.
    fn commit(
        &mut self,
        batch: WriteBatch,
        waiting: Vec<(Option<(TreeNumber, u64)>, CommitDone)>,
        entries: u64,
    ) -> bool {
        let bytes = batch.size_in_bytes() as u64;
        let began = Instant::now();
        let result = self.rocks.write(batch).map_err(|error| {
            // After a failed fsync the page cache cannot be trusted, so nothing is tried again.
            let (fault, detail) = (rocks::fault_of(&error), error.into_string());
            self.shared.health.send_replace(StoreHealth::Failed { fault, detail: detail.clone() });
            CommitError::Failed { fault, detail }
        });
        if result.is_ok() {
            self.shared.durable.store(self.rocks.latest_write(), Ordering::Release);
            self.shared.syncs.fetch_add(1, Ordering::Relaxed);
            self.shared.commits.fetch_add(waiting.len() as u64, Ordering::Relaxed);
            self.shared.entries.fetch_add(entries, Ordering::Relaxed);
            self.shared.bytes.fetch_add(bytes, Ordering::Relaxed);
            if let Some(tell) = self.shared.on_sync.get() {
                tell(SyncReport { took: began.elapsed(), commits: waiting.len() as u64 });
            }
        }
        for (_, done) in waiting {
            done(result.clone());
        }
        fail::fail_point!("store.acknowledged");
        result.is_ok()
    }

    /// Why nothing may be written now.
    fn refusal(&mut self) -> Option<CommitError> {
        if let StoreHealth::Failed { fault, detail } = &*self.shared.health.borrow() {
            return Some(CommitError::Failed { fault: *fault, detail: detail.clone() });
        }
        let refusal = self.space.check().err();
        let health = if refusal.is_some() { StoreHealth::DiskFull } else { StoreHealth::Ok };
        self.shared.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
        refusal
    }

    /// Adds a burial; false where there is nothing to bury.
    fn bury(&mut self, batch: &mut WriteBatch, burial: Burial) -> Result<bool, CommitError> {
        let failed = |error: ReadError| {
            let (fault, detail) = (StoreFault::Database, error.to_string());
            CommitError::Failed { fault, detail }
        };
        let Some(tree) = tombstones::add(&self.rocks, batch, burial).map_err(failed)? else {
            return Ok(false);
        };
        fail::fail_point!("store.burial_batched");
        self.buried.extend(tree);
        Ok(true)
    }

    /// Whether a commit is of a tree that ended, or begins one anew in the place of a tombstone.
    fn is_buried(&mut self, commit: &TreeCommit) -> bool {
        let begins = commit.record.version == 0
            || commit.segments.iter().any(|segment| segment.first_version == 1);
        let Genesis { kind, name, .. } = &commit.record.genesis;
        if begins && tombstones::is_buried(&self.rocks, *kind, name) {
            self.buried.insert(commit.number);
        }
        self.buried.contains(&commit.number)
    }

    fn is_superseded(&mut self, (tree, generation): (TreeNumber, u64)) -> bool {
        match self.failed_generations.get(&tree) {
            Some(failed) if generation <= *failed => true,
            Some(_) => {
                self.failed_generations.remove(&tree);
                false
            }
            None => false,
        }
    }

    fn add_tree(&self, batch: &mut WriteBatch, commit: &TreeCommit) -> u64 {
        let (rocks, number) = (&self.rocks, commit.number);
        let mut entries = 0;
        for segment in &commit.segments {
            let count = segment.batch.len() as u64;
            entries += count;
            let key = keys::versioned(number, segment.first_version);
            rocks.put(batch, rocks::HISTORY, &key, segment);
            let end = keys::log_end(number, segment.log, segment.batch.last_seq());
            rocks.put(batch, rocks::LOG_ENDS, &end, &segment.first_version);
            if segment.first_version == 1 {
                let id = commit.record.genesis.tree_id();
                rocks.put(batch, rocks::TREE_IDS, &id.0, &number);
            }
        }
        for (path, leaf) in &commit.leaves {
            let key = keys::leaf(number, path);
            match leaf {
                Some(leaf) => rocks.put(batch, rocks::LEAVES, &key, leaf),
                None => rocks.delete(batch, rocks::LEAVES, &key),
            }
        }
        for snapshot in &commit.snapshots {
            let key = keys::versioned(number, snapshot.version);
            rocks.put(batch, rocks::SNAPSHOTS, &key, snapshot);
        }
        base::add(rocks, batch, commit);
        groups::add(rocks, batch, commit);
        rocks.put(batch, rocks::TREES, &keys::tree(number), &commit.record);
        entries
    }

    fn add_evidence(&mut self, batch: &mut WriteBatch, evidence: &Evidence) {
        let number = self.next_evidence;
        self.next_evidence += 1;
        self.rocks.put(batch, rocks::EVIDENCE, &number.to_be_bytes(), evidence);
        fail::fail_point!("store.evidence_batched");
        if let Some(oldest) = number.checked_sub(EVIDENCE_MAX) {
            self.rocks.delete(batch, rocks::EVIDENCE, &oldest.to_be_bytes());
            fail::fail_point!("store.evidence_pruned");
        }
    }
}

/// Writes the high-water mark now and then, until `on_stop` closes.
fn keep_mark(mark: &MarkFile, shared: &Shared, on_stop: &Receiver<()>) {
    let mut written = 0;
    loop {
        let stopped = !matches!(on_stop.recv_timeout(MARK_EVERY), Err(RecvTimeoutError::Timeout));
        let durable = shared.durable.load(Ordering::Acquire);
        if durable > written {
            match mark.write(durable) {
                Ok(()) => written = durable,
                Err(error) => tracing::warn!(%error, "the high-water mark was not written"),
            }
        }
        if stopped {
            return;
        }
    }
}
