//! The device's replica of a tree, and what of it has yet to become durable.

mod changes;
mod logs;
mod merge;
mod rights;
#[cfg(test)]
mod tests;
mod views;

use std::collections::{BTreeMap, BTreeSet};

use protocol::clock::Hlc;
use protocol::history::{
    Admission, Author, Cut, CutCause, Draft, Entry, Genesis, LogId, SignedHead, Tree, TreeKind,
    admit, stranger,
};
use protocol::session::Now;
use protocol::state::Path;
use protocol::wire::LogPosition;
use protocol::{DeviceId, EntryId, ErrorCode, FleetId, PublicKey, SyncError};

use super::account::{self, QueueAccount};
use super::queue::Queue;
use super::{Revision, Via, WriteError};
use crate::identity::Identity;
use crate::spool::{AuthorState, Commit, Delivered, EntryRecord, Loaded, LogRecord, SpoolError};

pub(super) use merge::OwnLog;

use changes::Changes;

/// A signed head is kept after so many entries.
const SEAL_EVERY: u64 = 16;

/// A fleet that no brain speaks for: where a device writes before it is enrolled.
pub const PROVISIONAL_FLEET: FleetId = FleetId([0; 16]);

/// How much may wait, and how much is kept for a brain that lost something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of entries that may wait for the brain.
    pub queue_bytes_max: u64,
    /// So many bytes of delivered entries are kept.
    pub retain_bytes: u64,
    /// With so many bytes of entries, none is taken from other devices any more.
    pub entry_bytes_max: u64,
}

/// The device's replica of a tree: its own, or one that it shares.
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
    /// Leaves lost values by a cut, and what those had replaced is not here any more.
    incomplete: bool,
    /// Logs that changed: those with new entries, and those of which it would be no loss to
    /// forget the change.
    changed: BTreeSet<u32>,
    must_commit: bool,
    /// When each log changed last, as seen from a link.
    changes: Changes,
    /// The last kept signed head of each log, by number.
    kept_seals: BTreeMap<u32, u64>,
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
    /// The empty replica of a tree, in which this device writes in `epoch`.
    pub fn begin(identity: Identity, genesis: Genesis, epoch: u64, limits: Limits) -> Self {
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
                incomplete: Some(false),
                ..Commit::default()
            },
            incomplete: false,
            changed: BTreeSet::new(),
            must_commit: true,
            changes: Changes::default(),
            kept_seals: BTreeMap::new(),
            identity,
        }
    }

    /// The replica that a spool holds.
    pub fn load(identity: Identity, loaded: Loaded, measured: Measured, limits: Limits) -> Self {
        let Loaded { genesis, logs, leaves, author: author_state, brains, incomplete } = loaded;
        let written_ms: Vec<u64> = logs.iter().map(|log| log.state.hlc.wall_ms).collect();
        let delivered = (0u32..).zip(&logs).map(|(n, log)| (n, log.delivered)).collect();
        let states = logs.into_iter().map(|log| log.state).collect();
        let tree = Tree::restore(genesis, states, leaves);
        let log = LogId { author: identity.keypair.public(), epoch: author_state.epoch };
        let floor = Hlc { wall_ms: author_state.clock_floor_ms, counter: 0 };
        let last = tree.log(&log).map_or(floor, |state| state.hlc.max(floor));
        let mut queue = Queue::default();
        for (number, entries) in measured.waiting {
            // When each was written is not known without reading it; the last says enough.
            let written_ms = written_ms.get(number as usize).copied().unwrap_or_default();
            for (seq, bytes) in entries {
                queue.restore(number, seq, bytes, written_ms);
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
            incomplete,
            changed: BTreeSet::new(),
            must_commit: false,
            changes: Changes::default(),
            kept_seals: BTreeMap::new(),
        }
    }

    /// Writes what `draft` changes. Returns where the log then stands, or none where nothing
    /// changes.
    pub fn write(&mut self, draft: Draft, now: Now) -> Result<Option<LogPosition>, WriteError> {
        if self.queue.bytes() >= self.limits.queue_bytes_max {
            let Limits { queue_bytes_max: limit_bytes, .. } = self.limits;
            self.queue.account.turn_away(account::QUEUE_FULL);
            return Err(WriteError::QueueFull { limit_bytes });
        }
        let Some(entry) = self.author.write(&self.tree, draft, now.wall_ms, now.quality) else {
            return Ok(None);
        };
        if let Some(broken) = self.tree.broken_by(&entry.delta, now.wall_ms) {
            self.queue.account.turn_away(account::NOT_ADMISSIBLE);
            return Err(WriteError::Refused(broken.into()));
        }
        self.put(&entry).map(Some)
    }

    /// Judges and applies entries that came over a link.
    pub fn ingest(
        &mut self,
        log: LogId,
        entries: Vec<(EntryId, Entry)>,
        via: Via,
        now: Now,
    ) -> Result<Ingested, WriteError> {
        let limit_bytes = self.limits.entry_bytes_max;
        if via == Via::Peer && self.entry_bytes >= limit_bytes {
            return Err(WriteError::QueueFull { limit_bytes });
        }
        let (mut refused, mut news) = (None, false);
        for (id, entry) in entries {
            match self.admit(&entry, id, now) {
                Ok(Admission::Known) => {}
                Ok(Admission::New) => {
                    // The clock stays above what is known; a timestamp too far ahead was refused.
                    let _ = self.author.clock_mut().observe(entry.hlc, now.wall_ms);
                    let bytes = self.apply(&entry, id)?;
                    let is_own = log.author == self.identity.keypair.public();
                    match (via, self.tree.log_number(&log)) {
                        // It came from the brain, so the brain has it.
                        (Via::Brain, _) => self.acknowledged(log, entry.seq, 0),
                        // An earlier life wrote it, of which a peer knows more than this one.
                        (Via::Peer, Some(number)) if is_own => {
                            self.queue.push(number, entry.seq, bytes, entry.hlc.wall_ms);
                        }
                        (Via::Peer, _) => {}
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
        if self.tree.take_signed_head(signed)
            && let Some(number) = self.tree.log_number(&log)
        {
            self.note(number);
            self.keep_seal(number, signed);
        }
        self.position(log)
    }

    /// Takes a cut that the peer sent and whose signature is checked, unless who made it has no
    /// right to. Returns the leaves that lost a candidate.
    pub fn take_cut(&mut self, cut: Cut) -> Vec<Path> {
        if let CutCause::Revoked { authority, .. } = &cut.cause
            && !self.brains.contains(authority)
        {
            tracing::warn!("a log was to end by the word of a stranger");
            return Vec::new();
        }
        let (log, last_seq) = (cut.log, cut.last_seq);
        let touched = self.tree.take_cut(cut);
        self.stage_end(log, last_seq, &touched, account::CUT);
        touched
    }

    /// Notes that leaves lost values which have to come anew: until it begins anew, the tree is not
    /// what its logs come to.
    pub fn set_incomplete(&mut self) {
        self.incomplete = true;
        self.staged.incomplete = Some(true);
        self.must_commit = true;
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

    /// Remembers the key of a brain that proved itself.
    pub fn add_brain(&mut self, key: PublicKey) {
        if self.brains.insert(key) {
            self.staged.brains = Some(self.brains.clone());
            self.must_commit = true;
        }
    }

    /// Goes on with what an earlier replica of the same spool knew of its entries.
    pub fn go_on_with(&mut self, mut account: QueueAccount) {
        account.read_again(self.queue.depth());
        self.queue.account = account;
    }

    /// Counts changes of logs from here on, so that links notice that this is another life.
    pub fn count_changes_after(&mut self, revision: Revision) {
        self.changes = Changes::after(revision);
    }

    /// Of the entries that were to be written again, one was left out: the brain refused it.
    pub fn left_out(&mut self, entries: u64, code: ErrorCode) {
        self.queue.account.leave_out(entries, code.as_str());
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

    fn delivered(&self, number: u32) -> Delivered {
        self.delivered.get(&number).copied().unwrap_or_default()
    }

    /// Checks, applies and stages an own entry.
    fn put(&mut self, entry: &Entry) -> Result<LogPosition, WriteError> {
        let id = entry.id();
        let role = self.role_of(&entry.log.author).filter(|_| self.may_write());
        // An own timestamp may be ahead of a clock that was set back; that is for others to judge.
        let now_ms = entry.hlc.wall_ms;
        let admitted = match role {
            Some(role) => admit(&self.tree, entry, id, role, now_ms),
            None => Err(stranger(&self.tree, entry)),
        };
        if let Err(refusal) = admitted {
            self.queue.account.turn_away(account::NOT_ADMISSIBLE);
            return Err(WriteError::Refused(refusal));
        }
        let bytes = self.apply(entry, id)?;
        if let Some(number) = self.tree.log_number(&entry.log) {
            self.queue.push(number, entry.seq, bytes, entry.hlc.wall_ms);
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
        self.note(number);
        self.stage_leaves(&touched);
        self.must_commit = true;
        Ok(bytes)
    }

    /// Keeps one signed head in a while of others' logs, for whoever gets entries from here.
    fn keep_seal(&mut self, number: u32, signed: SignedHead) {
        let kept = self.kept_seals.entry(number).or_default();
        let is_shared = self.tree.genesis().kind != TreeKind::Device;
        if is_shared && signed.head.seq >= *kept + SEAL_EVERY {
            *kept = signed.head.seq;
            self.staged.seals.push((number, signed));
        }
    }

    /// A log changed, as seen from a link.
    fn note(&mut self, number: u32) {
        self.changed.insert(number);
        self.changes.note(number);
    }

    fn stage_leaves(&mut self, touched: &[Path]) {
        for path in touched {
            let leaf = self.tree.leaves().get(path).cloned();
            self.staged.leaves.insert(path.clone(), leaf);
        }
    }

    fn stage_end(&mut self, log: LogId, last_seq: u64, touched: &[Path], reason: &'static str) {
        let Some(number) = self.tree.log_number(&log) else { return };
        let gone = self.queue.truncate(number, last_seq, reason);
        self.entry_bytes = self.entry_bytes.saturating_sub(gone);
        self.staged.entries.retain(|entry| entry.log != number || entry.seq <= last_seq);
        self.staged.truncate.push((number, last_seq));
        let delivered = self.delivered.entry(number).or_default();
        delivered.stored = delivered.stored.min(last_seq);
        delivered.sealed = delivered.sealed.min(last_seq);
        self.staged.seals.retain(|(of, signed)| *of != number || signed.head.seq <= last_seq);
        self.note(number);
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
