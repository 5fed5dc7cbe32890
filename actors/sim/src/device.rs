//! An edge as plain data: its tree, its log on a disk that a crash may find unsynced, and its side
//! of the session.
//!
//! Follows the agent's rules: nothing is sent before it is durable; heads are signed a second
//! after the entries at most; a log that the brain refuses for its dates is cut below the refused
//! entry and what followed is written again in a new epoch; a log that the brain knows more of is
//! not continued.

mod disk;
mod holding;
mod link;
mod mend;
mod shared;

use std::collections::BTreeMap;

use actors::device::Clock;
use protocol::history::{Change, Draft, Entry, LogId, Provenance, Tree};
use protocol::keys::{Chain, Keypair};
use protocol::session::Now;
use protocol::wire::LogPosition;
use protocol::{DeviceId, EntryId, ErrorCode, TreeId};

use crate::clock::SimClock;
use crate::fleet::{self, Whose};
use crate::network::LinkId;
use crate::random::Random;

use holding::Holding;
use link::Link;

/// How long a commit waits for others.
const COMMIT_DELAY_MS: u64 = 20;
/// How long entries stay unsigned.
const SEAL_DELAY_MS: u64 = 1_000;

/// What a device does, for the world around it to carry out or to note.
#[derive(Debug)]
pub enum DeviceEvent {
    /// Send a frame.
    Send(LinkId, Vec<u8>),
    /// End the connection.
    HangUp(LinkId),
    /// The brain says that it has an own or foreign log durably up to this entry.
    Acked {
        /// Whose the tree is.
        whose: Whose,
        /// The log.
        log: LogId,
        /// The entry's number.
        stored: u64,
        /// The last entry under a signed head there.
        sealed: u64,
    },
    /// The brain refused an entry.
    Refused(ErrorCode),
    /// A session ended on this side's own account.
    SessionEnded(ErrorCode),
    /// So many entries were written again in another log.
    Reissued(u64),
    /// A new epoch was opened, as the brain knows more of the old one.
    OwnLogBehind,
    /// An entry of the brain was not taken.
    RefusedBrain(ErrorCode),
    /// A checkpoint was merged, or, where that could not be, everything began anew from it.
    Checkpoint {
        /// Whether it began anew.
        anew: bool,
    },
    /// Another's word ended a log.
    CutTaken,
    /// The same logs come to other leaves here than at the brain.
    Differs(Whose),
    /// A shared tree comes anew.
    ComesAnew(Whose),
    /// A shared tree was left for some time.
    Left,
}

/// An edge.
#[derive(Debug)]
pub struct SimDevice {
    id: DeviceId,
    keypair: Keypair,
    certificate: Chain,
    clock: SimClock,
    random: Random,
    /// Added to the clock, as learnt from the brain.
    offset_ms: i64,
    own: Holding,
    shared: BTreeMap<TreeId, Holding>,
    /// The shared trees that were there when the disk was copied.
    backed_up: Option<Vec<TreeId>>,
    link: Option<Link>,
    call_due_ms: u64,
    /// Whether the link is given up where acknowledgements do not come. No stream needs it.
    impatient: bool,
    events: Vec<DeviceEvent>,
}

impl SimDevice {
    /// Device number `n` with an empty disk.
    pub fn new(n: u8, clock: SimClock, mut random: Random) -> Self {
        let (id, keypair) = (fleet::device_id(n), fleet::device_key(n));
        let log = LogId { author: keypair.public(), epoch: random.next_u64() };
        Self {
            id,
            certificate: fleet::device_chain(id, keypair.public()),
            own: Holding::new(Whose::Device(id), log),
            shared: BTreeMap::new(),
            backed_up: None,
            keypair,
            clock,
            random,
            offset_ms: 0,
            link: None,
            call_due_ms: 0,
            impatient: false,
            events: Vec::new(),
        }
    }

    /// The device.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// Its clock.
    pub fn clock(&self) -> &SimClock {
        &self.clock
    }

    /// Its replica of its own tree, with what is not durable yet.
    pub fn tree(&self) -> &Tree {
        self.own.disk.tree()
    }

    /// Its replica of a tree, where it holds that.
    pub fn tree_of(&self, whose: Whose) -> Option<&Tree> {
        Some(self.holding_of(whose)?.disk.tree())
    }

    /// Its entries of a tree that are durable, log by log.
    pub fn durable_entries(&self, whose: Whose) -> impl Iterator<Item = &Entry> {
        self.holding_of(whose).into_iter().flat_map(|holding| holding.disk.durable_entries())
    }

    /// The id of an entry that it holds.
    pub fn entry_id(&self, whose: Whose, log: &LogId, seq: u64) -> Option<EntryId> {
        self.holding_of(whose)?.disk.entry_id(log, seq)
    }

    /// Makes the device give up links on which acknowledgements do not come: over a link that
    /// loses single frames nothing else tells that one is missing.
    pub fn set_impatient(&mut self) {
        self.impatient = true;
    }

    /// Sets the clock and its correction right, as a time server does.
    pub fn set_clock_right(&mut self) {
        self.clock.set_right();
        self.offset_ms = 0;
    }

    /// Writes leaves of a tree. Returns the entry's id, or none where nothing changes, and where the
    /// device does not hold the tree or may not write in it now.
    pub fn write(
        &mut self,
        whose: Whose,
        changes: Vec<Change>,
        provenance: Provenance,
    ) -> Option<EntryId> {
        self.write_draft(whose, Draft { changes, provenance, lease_until_ms: None })
    }

    /// Sets leaves of its own tree by hand, for so many milliseconds or without an end.
    pub fn write_for(
        &mut self,
        changes: Vec<Change>,
        provenance: Provenance,
        lease_ms: Option<u64>,
    ) -> Option<EntryId> {
        let lease_until_ms = lease_ms.map(|lease_ms| self.now().wall_ms + lease_ms);
        self.write_draft(Whose::Device(self.id), Draft { changes, provenance, lease_until_ms })
    }

    fn write_draft(&mut self, whose: Whose, draft: Draft) -> Option<EntryId> {
        let (now, due_ms) = (self.now(), self.mono_ms() + COMMIT_DELAY_MS);
        let of = self.of(whose);
        let holding = self.holding_mut(of)?;
        if holding.is_muted || !holding.disk.may_write() {
            return None;
        }
        let id = holding.disk.write(draft, now)?;
        holding.sync_due_ms.get_or_insert(due_ms);
        Some(id)
    }

    /// Makes everything so far of a tree durable, and tells the session.
    fn sync(&mut self, of: Option<TreeId>) {
        let seal_due_ms = self.mono_ms() + SEAL_DELAY_MS;
        let Some(holding) = self.holding_mut(of) else { return };
        holding.sync_due_ms = None;
        // Another part of the device may have had it made durable.
        if !holding.disk.sync() && !self.link.as_ref().is_some_and(|link| link.owes_answers(of)) {
            return;
        }
        let Some(holding) = self.holding_mut(of) else { return };
        if holding.disk.has_unsealed() {
            holding.seal_due_ms.get_or_insert(seal_due_ms);
        }
        self.after_sync(of);
    }

    /// Cuts the power: what is not durable is lost, and so is the connection. Returns how many
    /// entries were lost.
    pub fn crash(&mut self) -> u64 {
        self.link = None;
        self.events.clear();
        self.call_due_ms = self.mono_ms() + 1_000;
        let mut lost = 0;
        for holding in self.holdings_mut() {
            (holding.sync_due_ms, holding.seal_due_ms) = (None, None);
            lost += holding.disk.crash();
        }
        lost
    }

    /// Copies the disk.
    pub fn back_up(&mut self) {
        self.holdings_mut().for_each(|holding| holding.disk.back_up());
        self.backed_up = Some(self.shared.keys().copied().collect());
    }

    /// Puts the last copy of the disk back, as after a power cut. If that is `noticed`, the device
    /// opens a new epoch at once; else it learns from the brain, and must not write before.
    /// Returns how many entries are gone from the device.
    pub fn restore_backup(&mut self, noticed: bool) -> u64 {
        self.crash();
        if let Some(backed_up) = &self.backed_up {
            self.shared.retain(|tree, _| backed_up.contains(tree));
        }
        let lost = self.holdings_mut().map(|holding| holding.restore(noticed)).sum();
        if noticed {
            for of in self.trees() {
                self.seal(of);
                self.open_epoch(of);
            }
        }
        lost
    }

    /// When the device next wants to be called, on the simulation's clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        let session = self.link.as_ref().and_then(|link| link.next_due_ms());
        let dues = |holding: &Holding| [holding.sync_due_ms, holding.seal_due_ms];
        let holdings = [&self.own].into_iter().chain(self.shared.values());
        holdings.flat_map(dues).flatten().chain(session).min()
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let now_ms = self.mono_ms();
        let is_due = |due_ms: Option<u64>| due_ms.is_some_and(|due_ms| due_ms <= now_ms);
        for of in self.trees() {
            if self.holding(of).is_some_and(|holding| is_due(holding.sync_due_ms)) {
                self.sync(of);
            }
            if self.holding(of).is_some_and(|holding| is_due(holding.seal_due_ms)) {
                self.seal(of);
            }
        }
        self.tick_link(now_ms);
    }

    /// Whether everything of a tree is durable here and at the brain, and what is written now
    /// signed.
    pub fn is_settled(&self, whose: Whose) -> bool {
        self.is_settled_of(self.of(whose))
    }

    /// What the device has done since the last call.
    pub fn take_events(&mut self) -> Vec<DeviceEvent> {
        for of in self.trees() {
            let is_muted = self.holding(of).is_some_and(|holding| holding.is_muted);
            if is_muted
                && self.is_settled_of(of)
                && let Some(holding) = self.holding_mut(of)
            {
                holding.is_muted = false;
            }
        }
        std::mem::take(&mut self.events)
    }

    fn is_settled_of(&self, of: Option<TreeId>) -> bool {
        let has_heard = self.link.as_ref().is_some_and(|link| link.has_heard(of));
        has_heard && self.holding(of).is_some_and(Holding::is_settled)
    }

    /// The trees that it holds: its own, and those that it shares.
    fn trees(&self) -> Vec<Option<TreeId>> {
        [None].into_iter().chain(self.shared.keys().copied().map(Some)).collect()
    }

    /// How the session calls a tree.
    fn of(&self, whose: Whose) -> Option<TreeId> {
        (whose != self.own.whose).then(|| whose.tree())
    }

    fn holding(&self, of: Option<TreeId>) -> Option<&Holding> {
        match of {
            Some(tree) => self.shared.get(&tree),
            None => Some(&self.own),
        }
    }

    fn holding_of(&self, whose: Whose) -> Option<&Holding> {
        self.holding(self.of(whose))
    }

    fn holding_mut(&mut self, of: Option<TreeId>) -> Option<&mut Holding> {
        match of {
            Some(tree) => self.shared.get_mut(&tree),
            None => Some(&mut self.own),
        }
    }

    fn holdings_mut(&mut self) -> impl Iterator<Item = &mut Holding> {
        [&mut self.own].into_iter().chain(self.shared.values_mut())
    }

    fn now(&self) -> Now {
        let now = self.clock.now();
        Now { wall_ms: now.wall_ms.saturating_add_signed(self.offset_ms), ..now }
    }

    fn mono_ms(&self) -> u64 {
        self.clock.now().mono_ms
    }

    fn position(&self, of: Option<TreeId>, log: LogId) -> Option<LogPosition> {
        Some(self.holding(of)?.disk.position(log))
    }
}
