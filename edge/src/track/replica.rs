//! The device's replica of its tree, and what of it has yet to become durable.

use std::collections::{BTreeMap, BTreeSet};

use protocol::clock::Hlc;
use protocol::history::{
    Admission, Author, Cut, Draft, Entry, Genesis, Head, LogId, Role, SignedHead, Tree, TreeKind,
    admit,
};
use protocol::session::{Now, error};
use protocol::state::{Path, State, Value};
use protocol::wire::LogPosition;
use protocol::{DeviceId, EntryId, ErrorCode, FleetId, PublicKey, SyncError};

use super::WriteError;
use super::queue::Queue;
use crate::identity::Identity;
use crate::spool::{AuthorState, Commit, Delivered, EntryRecord, Loaded, LogRecord, SpoolError};

/// A fleet that no brain speaks for: where a device writes before it is enrolled.
pub const PROVISIONAL_FLEET: FleetId = FleetId([0; 16]);

/// How much may wait, and how much is kept for a brain that lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of entries that may wait for the brain.
    pub queue_bytes_max: u64,
    /// So many bytes of delivered entries are kept.
    pub retain_bytes: u64,
}

/// The device's replica of its tree.
///
/// Every operation changes the replica at once and adds to what
/// [`staged`](Self::take_staged) has to make durable. Whoever hears of the change before that
/// commit, hears too much; where the commit fails, the replica is [`load`](Self::load)ed anew.
#[derive(Debug)]
pub struct Replica {
    identity: Identity,
    tree: Tree,
    author: Author,
    author_state: AuthorState,
    brains: BTreeSet<PublicKey>,
    delivered: BTreeMap<u32, Delivered>,
    queue: Queue,
    entry_bytes: u64,
    limits: Limits,
    staged: Commit,
    /// Logs that changed: those with new entries, and those of which it would be no loss to
    /// forget the change.
    changed: BTreeSet<u32>,
    must_commit: bool,
}

/// What became of the peer's entries.
#[derive(Debug, Clone, PartialEq)]
pub struct Ingested {
    /// Where the log stands now, if any entry was new or known.
    pub position: LogPosition,
    /// The first entry that was not taken, and why.
    pub refused: Option<(u64, SyncError)>,
    /// Whether anything was new.
    pub news: bool,
}

/// What has to be read of the spool beside [`Loaded`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Measured {
    /// For each log by number: the entries that wait, with their sizes.
    pub waiting: Vec<(u32, Vec<(u64, u32)>)>,
    /// The bytes of all entries.
    pub entry_bytes: u64,
}

impl Replica {
    /// The empty replica of a device of `fleet`, which writes in `epoch`.
    pub fn begin(identity: Identity, fleet: FleetId, epoch: u64, limits: Limits) -> Self {
        let genesis = genesis(fleet, identity.device);
        let log = LogId { author: identity.keypair.public(), epoch };
        let author_state = AuthorState { epoch, ..AuthorState::default() };
        Self {
            tree: Tree::new(genesis.clone()),
            author: Author::new(log, Hlc::default()),
            author_state,
            brains: BTreeSet::new(),
            delivered: BTreeMap::new(),
            queue: Queue::default(),
            entry_bytes: 0,
            limits,
            staged: Commit {
                begin: Some(genesis),
                author: Some(author_state),
                ..Commit::default()
            },
            changed: BTreeSet::new(),
            must_commit: true,
            identity,
        }
    }

    /// The replica that a spool holds.
    pub fn load(identity: Identity, loaded: Loaded, measured: Measured, limits: Limits) -> Self {
        let Loaded { genesis, logs, leaves, author: author_state, brains } = loaded;
        let delivered = (0u32..).zip(&logs).map(|(n, log)| (n, log.delivered)).collect();
        let states = logs.into_iter().map(|log| log.state).collect();
        let tree = Tree::restore(genesis, states, leaves);
        let log = LogId { author: identity.keypair.public(), epoch: author_state.epoch };
        let floor = Hlc { wall_ms: author_state.clock_floor_ms, counter: 0 };
        let last = tree.log(&log).map_or(floor, |state| state.hlc.max(floor));
        let mut queue = Queue::default();
        for (number, entries) in measured.waiting {
            for (seq, bytes) in entries {
                queue.push(number, seq, bytes);
            }
        }
        Self {
            identity,
            tree,
            author: Author::new(log, last),
            author_state,
            brains,
            delivered,
            queue,
            entry_bytes: measured.entry_bytes,
            limits,
            staged: Commit::default(),
            changed: BTreeSet::new(),
            must_commit: false,
        }
    }

    /// The tree.
    pub fn tree(&self) -> &Tree {
        &self.tree
    }

    /// The log that this device writes now.
    pub fn own_log(&self) -> LogId {
        self.author.log()
    }

    /// Whether the device was never enrolled: its tree is no fleet's.
    pub fn is_provisional(&self) -> bool {
        self.tree.genesis().fleet == PROVISIONAL_FLEET
    }

    /// How many own entries the brain lacks.
    pub fn queue_depth(&self) -> u64 {
        self.queue.depth()
    }

    /// How many bytes they take.
    pub fn queue_bytes(&self) -> u64 {
        self.queue.bytes()
    }

    /// Where the author stands.
    pub fn author_state(&self) -> AuthorState {
        self.author_state
    }

    /// Every leaf with its value.
    pub fn state(&self) -> State {
        self.tree.state()
    }

    /// The value of a leaf.
    pub fn value(&self, path: &Path) -> Option<&Value> {
        self.tree.value(path)
    }

    /// Where a log stands.
    pub fn position(&self, log: LogId) -> LogPosition {
        match self.tree.log(&log) {
            Some(state) => {
                LogPosition { log, seq: state.seq, id: state.head, sealed: state.sealed() }
            }
            None => LogPosition { log, seq: 0, id: Entry::NO_PREV, sealed: 0 },
        }
    }

    /// Where all logs stand.
    pub fn positions(&self) -> Vec<LogPosition> {
        self.tree.logs().iter().map(|state| self.position(state.log)).collect()
    }

    /// The number of a log in the spool, if it has one.
    pub fn log_number(&self, log: &LogId) -> Option<u32> {
        self.tree.log_number(log)
    }

    /// The ends of this device's own logs.
    pub fn own_cuts(&self) -> Vec<Cut> {
        let own = |log: &LogId| log.author == self.identity.keypair.public();
        let logs = self.tree.logs().iter().filter(|state| own(&state.log));
        logs.filter_map(|state| state.cut.clone()).collect()
    }

    /// Own logs with entries that the brain has not acknowledged: number, and the last
    /// acknowledged entry.
    pub fn unacknowledged(&self) -> Vec<(u32, u64)> {
        let own = |log: &LogId| log.author == self.identity.keypair.public();
        let logs = (0u32..).zip(self.tree.logs()).filter(|(_, state)| own(&state.log));
        let stored = |number| self.delivered(number).stored;
        logs.filter(|(number, state)| state.seq > stored(*number))
            .map(|(number, _)| (number, stored(number)))
            .collect()
    }

    /// Writes what `draft` changes. Returns where the log then stands, or none where nothing
    /// changes.
    pub fn write(&mut self, draft: Draft, now: Now) -> Result<Option<LogPosition>, WriteError> {
        if self.queue.bytes() >= self.limits.queue_bytes_max {
            let Limits { queue_bytes_max: limit_bytes, .. } = self.limits;
            return Err(WriteError::QueueFull { limit_bytes });
        }
        let Some(entry) = self.author.write(&self.tree, draft, now.wall_ms, now.quality) else {
            return Ok(None);
        };
        self.put(&entry).map(Some)
    }

    /// Judges and applies entries that the peer sent.
    pub fn ingest(
        &mut self,
        log: LogId,
        entries: Vec<(EntryId, Entry)>,
        now: Now,
    ) -> Result<Ingested, SpoolError> {
        let (mut refused, mut news) = (None, false);
        for (id, entry) in entries {
            match self.admit(&entry, id, now) {
                Ok(Admission::Known) => {}
                Ok(Admission::New) => {
                    // The clock stays above what is known; a timestamp too far ahead was refused.
                    let _ = self.author.clock_mut().observe(entry.hlc, now.wall_ms);
                    self.apply(&entry, id)?;
                    if log.author == self.identity.keypair.public() {
                        // It came from the brain, so the brain has it.
                        self.acknowledged(log, entry.seq, 0);
                    }
                    news = true;
                }
                Err(error) => {
                    refused = Some((entry.seq, error));
                    break;
                }
            }
        }
        Ok(Ingested { position: self.position(log), refused, news })
    }

    /// Takes a signed head whose signature is checked. Returns where its log stands.
    pub fn take_signed_head(&mut self, signed: SignedHead) -> LogPosition {
        let log = signed.head.log;
        if self.tree.take_signed_head(signed) {
            self.changed.extend(self.tree.log_number(&log));
        }
        self.position(log)
    }

    /// Takes a cut that the peer sent and whose signature is checked. Returns the leaves that
    /// lost a candidate.
    pub fn take_cut(&mut self, cut: Cut) -> Vec<Path> {
        let (log, last_seq) = (cut.log, cut.last_seq);
        let touched = self.tree.take_cut(cut);
        self.stage_end(log, last_seq, &touched);
        touched
    }

    /// The brain has made entries of a log durable.
    pub fn acknowledged(&mut self, log: LogId, stored: u64, sealed: u64) {
        let Some(number) = self.tree.log_number(&log) else { return };
        let delivered = self.delivered.entry(number).or_default();
        let before = *delivered;
        delivered.stored = delivered.stored.max(stored);
        delivered.sealed = delivered.sealed.max(sealed);
        if *delivered != before {
            self.changed.insert(number);
            self.queue.delivered(number, stored);
        }
    }

    /// Signs the own log's head, where it is not signed yet.
    ///
    /// Nobody need remember it: the same head can be signed again.
    pub fn seal(&mut self) -> Option<SignedHead> {
        let log = self.own_log();
        let state = self.tree.log(&log).filter(|state| state.seq > state.sealed())?;
        let head = Head { tree: self.tree.id(), log, seq: state.seq, id: state.head };
        let signed = SignedHead::sign(&self.identity.keypair, head);
        self.tree.take_signed_head(signed);
        self.changed.extend(self.tree.log_number(&log));
        Some(signed)
    }

    /// The highest signed heads of this device's own logs.
    pub fn own_seals(&self) -> Vec<SignedHead> {
        let own = |log: &LogId| log.author == self.identity.keypair.public();
        let logs = self.tree.logs().iter().filter(|state| own(&state.log));
        logs.filter_map(|state| state.signed).collect()
    }

    /// Goes on in a new epoch; the log so far stays as it is.
    pub fn open_epoch(&mut self, epoch: u64) {
        let log = LogId { author: self.identity.keypair.public(), epoch };
        let last = self.author.clock_mut().last();
        self.author = Author::new(log, last);
        self.author_state.epoch = epoch;
        self.stage_author();
    }

    /// Ends an own log after `last_seq` and writes `lost`, which followed it, again.
    ///
    /// If the log is the one that is written now, that goes on in `epoch`, with a clock that has
    /// forgotten the old one's timestamps.
    pub fn end_log(
        &mut self,
        log: LogId,
        last_seq: u64,
        last_id: EntryId,
        lost: &[Entry],
        epoch: u64,
        now: Now,
    ) -> Result<Cut, WriteError> {
        let cut = Cut::seal(&self.identity.keypair, self.tree.id(), log, last_seq, last_id);
        let touched = self.tree.take_cut(cut.clone());
        self.stage_end(log, last_seq, &touched);
        if log == self.own_log() {
            let log = LogId { author: log.author, epoch };
            self.author = Author::new(log, Hlc::default());
            self.author_state.epoch = epoch;
            self.author_state.clock_floor_ms = 0;
            self.stage_author();
        }
        for old in lost {
            let entry = self.author.reissue(&self.tree, old, now.wall_ms, now.quality);
            self.put(&entry)?;
        }
        Ok(cut)
    }

    /// Leaves the provisional tree for that of `fleet`: what was written so far is written there
    /// again, in order, in a new epoch.
    pub fn join(
        &mut self,
        fleet: FleetId,
        epoch: u64,
        written: &[Entry],
        now: Now,
    ) -> Result<(), WriteError> {
        let (identity, state) = (self.identity.clone(), self.author_state);
        let brains = std::mem::take(&mut self.brains);
        let last = self.author.clock_mut().last();
        *self = Self::begin(identity, fleet, epoch, self.limits);
        self.author = Author::new(self.own_log(), last);
        self.author_state = AuthorState { epoch, ..state };
        self.brains = brains;
        self.stage_author();
        for old in written {
            let entry = self.author.reissue(&self.tree, old, now.wall_ms, now.quality);
            self.put(&entry)?;
        }
        Ok(())
    }

    /// Remembers the key of a brain that proved itself.
    pub fn add_brain(&mut self, key: PublicKey) {
        if self.brains.insert(key) {
            self.staged.brains = Some(self.brains.clone());
            self.must_commit = true;
        }
    }

    /// Notes whether the agent is stopped in good order.
    pub fn set_clean(&mut self, clean: bool, floor_ms: u64) {
        self.author_state.clean = clean;
        self.author_state.clock_floor_ms = self.author_state.clock_floor_ms.max(floor_ms);
        self.stage_author();
    }

    /// Notes what is added to the system's clock.
    pub fn set_clock_offset(&mut self, clock_offset_ms: i64) {
        if self.author_state.clock_offset_ms != clock_offset_ms {
            self.author_state.clock_offset_ms = clock_offset_ms;
            self.stage_author();
        }
    }

    /// What may be pruned: logs with the number up to which the brain has them under a signed
    /// head, and how many bytes are too many; none while there is room.
    pub fn to_prune(&self) -> Option<(Vec<(u32, u64)>, u64)> {
        let delivered_bytes = self.entry_bytes.saturating_sub(self.queue.bytes());
        // Pruning in large steps spares the flash.
        let slack = self.limits.retain_bytes / 8;
        let excess = delivered_bytes.saturating_sub(self.limits.retain_bytes);
        if excess <= slack {
            return None;
        }
        let own = self.identity.keypair.public();
        let up_to = (0u32..).zip(self.tree.logs()).map(|(number, state)| {
            let foreign = state.log.author != own;
            (number, if foreign { state.sealed() } else { self.delivered(number).sealed })
        });
        Some((up_to.collect(), excess))
    }

    /// Entries were pruned.
    pub fn pruned(&mut self, bytes: u64) {
        self.entry_bytes = self.entry_bytes.saturating_sub(bytes);
    }

    /// Whether something has to become durable before anybody may hear of it.
    pub fn must_commit(&self) -> bool {
        self.must_commit
    }

    /// What has to become durable, with what else changed meanwhile.
    pub fn take_staged(&mut self) -> Commit {
        self.must_commit = false;
        let mut commit = std::mem::take(&mut self.staged);
        for number in std::mem::take(&mut self.changed) {
            if let Some(state) = self.tree.logs().get(number as usize) {
                let delivered = self.delivered(number);
                commit.logs.insert(number, LogRecord { state: state.clone(), delivered });
            }
        }
        commit
    }

    /// How far the brain has acknowledged a log.
    pub fn acknowledged_of(&self, log: LogId) -> u64 {
        self.tree.log_number(&log).map_or(0, |number| self.delivered(number).stored)
    }

    fn delivered(&self, number: u32) -> Delivered {
        self.delivered.get(&number).copied().unwrap_or_default()
    }

    fn admit(&self, entry: &Entry, id: EntryId, now: Now) -> Result<Admission, SyncError> {
        let author = entry.log.author;
        let role = if author == self.identity.keypair.public() {
            Role::Owner(self.identity.device)
        } else if self.brains.contains(&author) {
            Role::Brain
        } else {
            let text = format!("key {author:?} is not that of a brain known here");
            return Err(error(ErrorCode::Forbidden, "admit entry", text));
        };
        admit(&self.tree, entry, id, role, now.wall_ms)
            .map_err(|refusal| error(refusal.code(), "admit entry", refusal.to_string()))
    }

    /// Checks, applies and stages an own entry.
    fn put(&mut self, entry: &Entry) -> Result<LogPosition, WriteError> {
        let id = entry.id();
        let role = Role::Owner(self.identity.device);
        // An own timestamp may be ahead of a clock that was set back; that is for others to judge.
        let now_ms = entry.hlc.wall_ms;
        admit(&self.tree, entry, id, role, now_ms).map_err(WriteError::Refused)?;
        let bytes = self.apply(entry, id)?;
        if let Some(number) = self.tree.log_number(&entry.log) {
            self.queue.push(number, entry.seq, bytes);
        }
        Ok(self.position(entry.log))
    }

    fn apply(&mut self, entry: &Entry, id: EntryId) -> Result<u32, SpoolError> {
        let touched = self.tree.apply(entry, id);
        let Some(number) = self.tree.log_number(&entry.log) else { return Ok(0) };
        let record = EntryRecord::new(number, entry)?;
        let bytes = record.bytes.len() as u32;
        self.entry_bytes += u64::from(bytes);
        self.staged.entries.push(record);
        self.changed.insert(number);
        self.stage_leaves(&touched);
        self.must_commit = true;
        Ok(bytes)
    }

    fn stage_leaves(&mut self, touched: &[Path]) {
        for path in touched {
            let leaf = self.tree.leaves().get(path).cloned();
            self.staged.leaves.insert(path.clone(), leaf);
        }
    }

    fn stage_end(&mut self, log: LogId, last_seq: u64, touched: &[Path]) {
        let Some(number) = self.tree.log_number(&log) else { return };
        let gone = self.queue.truncate(number, last_seq);
        self.entry_bytes = self.entry_bytes.saturating_sub(gone);
        self.staged.entries.retain(|entry| entry.log != number || entry.seq <= last_seq);
        self.staged.truncate.push((number, last_seq));
        let delivered = self.delivered.entry(number).or_default();
        delivered.stored = delivered.stored.min(last_seq);
        delivered.sealed = delivered.sealed.min(last_seq);
        self.changed.insert(number);
        self.stage_leaves(touched);
        self.must_commit = true;
    }

    fn stage_author(&mut self) {
        self.staged.author = Some(self.author_state);
        self.must_commit = true;
    }
}

/// The beginning of a device's tree.
pub fn genesis(fleet: FleetId, device: DeviceId) -> Genesis {
    Genesis { kind: TreeKind::Device, fleet, name: device.to_string() }
}
