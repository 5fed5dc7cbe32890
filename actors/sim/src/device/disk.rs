//! What a device keeps, in memory and on disk.

use std::collections::BTreeMap;

use protocol::clock::Hlc;
use protocol::history::{
    Admission, Author, Checkpoint, Cut, Draft, Entry, Head, LogId, MergeError, Refusal, Role,
    SignedHead, Tree, TreeKind, admit, stranger,
};
use protocol::keys::Keypair;
use protocol::session::Now;
use protocol::wire::{BATCH_ENTRIES_MAX, LogPosition};
use protocol::{DeviceId, EntryId, PublicKey};

use crate::fleet;

/// What an entry takes beside its changes, about.
const ENTRY_OVERHEAD_BYTES: usize = 16;

/// The entries of each log, in order, with their ids. Those are missing that a checkpoint stands for.
type Logs = BTreeMap<LogId, Vec<(EntryId, Entry)>>;

/// Everything that a device keeps.
#[derive(Debug)]
pub(super) struct Disk {
    memory: Image,
    logs: Logs,
    /// What others signed of their logs, by number: it goes with what is passed on of them.
    seals: BTreeMap<(LogId, u64), SignedHead>,
    dirty: bool,
    durable: Image,
    backup: Option<(Image, Logs)>,
}

/// All but the entries. How many of those belong to it, the tree says.
#[derive(Debug, Clone)]
struct Image {
    tree: Tree,
    author: Author,
    /// A cut took values, and what those had replaced is not here.
    incomplete: bool,
}

impl Disk {
    pub(super) fn new(tree: Tree, log: LogId) -> Self {
        let image = Image { tree, author: Author::new(log, Hlc::default()), incomplete: false };
        Self {
            memory: image.clone(),
            logs: BTreeMap::new(),
            seals: BTreeMap::new(),
            dirty: false,
            durable: image,
            backup: None,
        }
    }

    pub(super) fn tree(&self) -> &Tree {
        &self.memory.tree
    }

    /// The log that is written.
    pub(super) fn log(&self) -> LogId {
        self.memory.author.log()
    }

    /// Whether the device may write in the tree now.
    pub(super) fn may_write(&self) -> bool {
        let tree = self.tree();
        let member = tree.member(&self.log().author);
        tree.genesis().kind == TreeKind::Device || member.is_some_and(|member| member.is_current)
    }

    pub(super) fn write(&mut self, draft: Draft, now: Now) -> Option<EntryId> {
        let Image { tree, author, .. } = &mut self.memory;
        let entry = author.write(tree, draft, now.wall_ms, now.quality)?;
        Some(self.put(entry))
    }

    pub(super) fn reissue(&mut self, old: &Entry, now: Now) {
        let Image { tree, author, .. } = &mut self.memory;
        let entry = author.reissue(tree, old, now.wall_ms, now.quality);
        self.put(entry);
    }

    /// Judges an entry that came over a link to `device` and applies it if it is new.
    pub(super) fn ingest(
        &mut self,
        id: EntryId,
        entry: Entry,
        device: DeviceId,
        now: Now,
    ) -> Result<Admission, Refusal> {
        let tree = &self.memory.tree;
        let admission = match self.role(&entry.log.author, device) {
            Some(role) => admit(tree, &entry, id, role, now.wall_ms)?,
            None => return Err(stranger(tree, &entry)),
        };
        if admission == Admission::New {
            // What is too far ahead has been refused.
            let _ = self.memory.author.clock_mut().observe(entry.hlc, now.wall_ms);
            self.memory.tree.apply(&entry, id);
            self.logs.entry(entry.log).or_default().push((id, entry));
            self.dirty = true;
        }
        Ok(admission)
    }

    /// As what an author takes part in the tree, if as anything.
    fn role(&self, author: &PublicKey, device: DeviceId) -> Option<Role> {
        if *author == fleet::brain_public() {
            return Some(Role::Brain);
        }
        match self.tree().genesis().kind {
            TreeKind::Device => (*author == self.log().author).then_some(Role::Owner(device)),
            TreeKind::Group | TreeKind::Site => {
                self.tree().member(author).map(|member| Role::Member(member.device))
            }
        }
    }

    pub(super) fn take_signed_head(&mut self, signed: SignedHead) {
        if self.memory.tree.take_signed_head(signed) {
            self.seals.insert((signed.head.log, signed.head.seq), signed);
            self.dirty = true;
        }
    }

    /// Signs the head of the log that is written, where it is not signed there.
    pub(super) fn seal(&mut self, keypair: &Keypair) -> Option<SignedHead> {
        let log = self.log();
        let tree = &mut self.memory.tree;
        let state = tree.log(&log).filter(|state| state.seq > state.sealed())?;
        let head = Head { tree: tree.id(), log, seq: state.seq, id: state.head };
        let signed = SignedHead::sign(keypair, head);
        tree.take_signed_head(signed);
        self.dirty = true;
        Some(signed)
    }

    pub(super) fn has_unsealed(&self) -> bool {
        let state = self.tree().log(&self.log());
        state.is_some_and(|state| state.seq > state.sealed())
    }

    /// Ends an own log and gives back what lay above.
    pub(super) fn cut(
        &mut self,
        keypair: &Keypair,
        log: LogId,
        last_seq: u64,
    ) -> Option<(Cut, Vec<Entry>)> {
        let entries = self.logs.get_mut(&log)?;
        let at = after(entries, last_seq);
        let (_, first) = entries.get(at).filter(|(_, first)| first.seq == last_seq + 1)?;
        let tree = &mut self.memory.tree;
        let cut = Cut::seal(keypair, tree.id(), log, last_seq, first.prev);
        let lost = entries.split_off(at);
        tree.take_cut(cut.clone());
        self.dirty = true;
        Some((cut, lost.into_iter().map(|(_, entry)| entry).collect()))
    }

    /// Takes a cut that came over a link. Returns how many leaves lost a candidate.
    pub(super) fn take_cut(&mut self, cut: Cut) -> usize {
        let (log, last_seq) = (cut.log, cut.last_seq);
        let touched = self.memory.tree.take_cut(cut);
        if let Some(entries) = self.logs.get_mut(&log) {
            entries.truncate(after(entries, last_seq));
        }
        self.dirty = true;
        touched.len()
    }

    pub(super) fn is_incomplete(&self) -> bool {
        self.memory.incomplete
    }

    pub(super) fn set_incomplete(&mut self) {
        self.memory.incomplete = true;
        self.dirty = true;
    }

    /// Forgets all but which log is written.
    pub(super) fn begin_anew(&mut self) {
        let tree = Tree::new(self.tree().genesis().clone());
        let author = Author::new(self.log(), Hlc::default());
        self.memory = Image { tree, author, incomplete: false };
        self.logs.clear();
        self.dirty = true;
    }

    /// Merges a checkpoint. Own entries above `acked` that it claims to have, though nobody has said
    /// so, are given back to be written again; where it contradicts what is here, everything begins
    /// anew from it, and all own entries above are given back. The second says whether that was so.
    pub(super) fn merge(
        &mut self,
        checkpoint: &Checkpoint,
        acked: impl Fn(&LogId) -> u64,
        now: Now,
    ) -> Result<(Vec<Entry>, bool), MergeError> {
        let own = self.log().author;
        let waiting = |only: &dyn Fn(&LogId, u64) -> bool| {
            let mut found = Vec::new();
            for (log, entries) in self.logs.iter().filter(|(log, _)| log.author == own) {
                let seq = self.memory.tree.log(log).map_or(0, |state| state.seq);
                if only(log, seq) {
                    let above = &entries[after(entries, acked(log))..after(entries, seq)];
                    found.extend(above.iter().map(|(_, entry)| entry.clone()));
                }
            }
            found.sort_by_key(|entry| entry.hlc);
            found
        };
        let vector = checkpoint.vector();
        let overtaken = waiting(&|log, seq| vector.get(log) > seq);
        let all = waiting(&|_, _| true);
        self.dirty = true;
        for state in &checkpoint.logs {
            // What is too far ahead does not take this clock along.
            let _ = self.memory.author.clock_mut().observe(state.hlc, now.wall_ms);
        }
        if self.memory.tree.merge(checkpoint).is_ok() {
            return Ok((overtaken, false));
        }
        let mut anew = Tree::new(self.memory.tree.genesis().clone());
        anew.merge(checkpoint)?;
        (self.memory.tree, self.memory.incomplete) = (anew, false);
        self.logs.clear();
        Ok((all, true))
    }

    /// Goes on in another log, whose timestamps begin after `last`.
    pub(super) fn open_log(&mut self, log: LogId, last: Hlc) {
        self.memory.author = Author::new(log, last);
        self.dirty = true;
    }

    /// The last timestamp given out or seen.
    pub(super) fn last_timestamp(&mut self) -> Hlc {
        self.memory.author.clock_mut().last()
    }

    /// Makes everything durable; says whether anything was not.
    pub(super) fn sync(&mut self) -> bool {
        if std::mem::take(&mut self.dirty) {
            self.durable = self.memory.clone();
            return true;
        }
        false
    }

    /// Forgets what is not durable. Returns how many entries that was.
    pub(super) fn crash(&mut self) -> u64 {
        self.memory = self.durable.clone();
        self.dirty = false;
        let mut lost = 0;
        for (log, entries) in &mut self.logs {
            let seq = self.memory.tree.log(log).map_or(0, |state| state.seq);
            let kept = after(entries, seq);
            lost += entries.len() - kept;
            entries.truncate(kept);
        }
        lost as u64
    }

    pub(super) fn back_up(&mut self) {
        self.sync();
        self.backup = Some((self.memory.clone(), self.logs.clone()));
    }

    pub(super) fn restore(&mut self) -> u64 {
        let Some((image, logs)) = self.backup.clone() else { return 0 };
        let count = |logs: &Logs| logs.values().map(Vec::len).sum::<usize>();
        let before = count(&self.logs);
        (self.memory, self.logs, self.dirty) = (image, logs, true);
        self.sync();
        before.saturating_sub(count(&self.logs)) as u64
    }

    /// Durable entries of a log, as many as fit.
    pub(super) fn range(&self, log: LogId, above: u64, bytes_max: usize) -> Vec<Entry> {
        let durable = self.durable.tree.log(&log).map_or(0, |state| state.seq);
        let entries = self.logs.get(&log).map_or(&[][..], Vec::as_slice);
        let end = after(entries, durable);
        let mut bytes = 0;
        let fits = entries[end.min(after(entries, above))..end].iter().take(BATCH_ENTRIES_MAX);
        let fits = fits.take_while(|(_, entry)| {
            let first = bytes == 0;
            bytes += protocol::codec::encode(&entry.delta).len() + ENTRY_OVERHEAD_BYTES;
            first || bytes <= bytes_max
        });
        fits.map(|(_, entry)| entry.clone()).collect()
    }

    /// The highest signed head of a log above one number and up to another.
    pub(super) fn seal_within(&self, log: LogId, above: u64, up_to: u64) -> Option<SignedHead> {
        let within = (log, above + 1)..=(log, up_to.max(above + 1));
        let found = self.seals.range(within).next_back();
        found.map(|(_, signed)| *signed).filter(|signed| signed.head.seq <= up_to)
    }

    pub(super) fn durable_entries(&self) -> impl Iterator<Item = &Entry> {
        self.logs.iter().flat_map(|(log, entries)| {
            let durable = self.durable.tree.log(log).map_or(0, |state| state.seq);
            entries[..after(entries, durable)].iter().map(|(_, entry)| entry)
        })
    }

    pub(super) fn entry_id(&self, log: &LogId, seq: u64) -> Option<EntryId> {
        let entries = self.logs.get(log)?;
        let found = entries.get(after(entries, seq.checked_sub(1)?))?;
        (found.1.seq == seq).then_some(found.0)
    }

    /// Where a log durably stands.
    pub(super) fn position(&self, log: LogId) -> LogPosition {
        LogPosition::of(&self.durable.tree, log)
    }

    /// Where all logs durably stand.
    pub(super) fn positions(&self) -> Vec<LogPosition> {
        self.durable.tree.heads().map(|head| self.position(head.log)).collect()
    }

    /// The cuts and signed heads of an author's logs, those on disk.
    pub(super) fn ends_of(&self, author: PublicKey) -> (Vec<Cut>, Vec<SignedHead>) {
        let own = || self.durable.tree.logs().iter().filter(|state| state.log.author == author);
        let cuts = own().filter_map(|state| state.cut.clone()).collect();
        (cuts, own().filter_map(|state| state.signed).collect())
    }

    fn put(&mut self, entry: Entry) -> EntryId {
        let id = entry.id();
        self.memory.tree.apply(&entry, id);
        self.logs.entry(entry.log).or_default().push((id, entry));
        self.dirty = true;
        id
    }
}

/// The place of the first entry above a number.
fn after(entries: &[(EntryId, Entry)], seq: u64) -> usize {
    entries.partition_point(|(_, entry)| entry.seq <= seq)
}
