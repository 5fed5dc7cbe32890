//! An edge as plain data: its tree, its log on a disk that a crash may find unsynced, and its side
//! of the session.
//!
//! Follows the agent's rules: nothing is sent before it is durable; heads are signed a second
//! after the entries at most; a log that the brain refuses for its dates is cut below the refused
//! entry and what followed is written again in a new epoch; a log that the brain knows more of is
//! not continued.

mod disk;
mod link;
mod mend;

use std::collections::BTreeMap;

use actors::device::Clock;
use protocol::history::{Change, Draft, LogId, Provenance, Tree};
use protocol::keys::{Chain, Keypair};
use protocol::session::Now;
use protocol::wire::LogPosition;
use protocol::{DeviceId, EntryId, ErrorCode};

use crate::clock::SimClock;
use crate::fleet;
use crate::network::LinkId;
use crate::random::Random;

use disk::Disk;
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
    disk: Disk,
    /// What the brain has of each log, and what of that under a signed head.
    acked: BTreeMap<LogId, (u64, u64)>,
    link: Option<Link>,
    sync_due_ms: Option<u64>,
    seal_due_ms: Option<u64>,
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
            disk: Disk::new(Tree::new(fleet::genesis(id)), log),
            keypair,
            clock,
            random,
            offset_ms: 0,
            acked: BTreeMap::new(),
            link: None,
            sync_due_ms: None,
            seal_due_ms: None,
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

    /// Its replica, with what is not durable yet.
    pub fn tree(&self) -> &Tree {
        self.disk.tree()
    }

    /// Its entries that are durable, log by log.
    pub fn durable_entries(&self) -> impl Iterator<Item = &protocol::history::Entry> {
        self.disk.durable_entries()
    }

    /// The id of an entry that it holds.
    pub fn entry_id(&self, log: &LogId, seq: u64) -> Option<EntryId> {
        self.disk.entry_id(log, seq)
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

    /// Writes leaves. Returns the entry's id, or none where nothing changes.
    pub fn write(&mut self, changes: Vec<Change>, provenance: Provenance) -> Option<EntryId> {
        self.write_for(changes, provenance, None)
    }

    /// Sets leaves by hand, for so many milliseconds or without an end.
    pub fn write_for(
        &mut self,
        changes: Vec<Change>,
        provenance: Provenance,
        lease_ms: Option<u64>,
    ) -> Option<EntryId> {
        let now = self.now();
        let lease_until_ms = lease_ms.map(|lease_ms| now.wall_ms + lease_ms);
        let id = self.disk.write(Draft { changes, provenance, lease_until_ms }, now)?;
        self.sync_soon();
        Some(id)
    }

    /// Makes everything so far durable, and tells the session.
    pub fn sync(&mut self) {
        self.sync_due_ms = None;
        let news = self.disk.sync();
        if !news {
            return;
        }
        if self.disk.has_unsealed() && self.seal_due_ms.is_none() {
            self.seal_due_ms = Some(self.mono_ms() + SEAL_DELAY_MS);
        }
        self.after_sync();
    }

    /// Cuts the power: what is not durable is lost, and so is the connection. Returns how many
    /// entries were lost.
    pub fn crash(&mut self) -> u64 {
        self.link = None;
        self.events.clear();
        (self.sync_due_ms, self.seal_due_ms) = (None, None);
        self.call_due_ms = self.mono_ms() + 1_000;
        self.disk.crash()
    }

    /// Copies the disk.
    pub fn back_up(&mut self) {
        self.disk.back_up();
    }

    /// Puts the last copy of the disk back, as after a power cut. If that is `noticed`, the device
    /// opens a new epoch at once; else it learns from the brain, and must not write before.
    /// Returns how many entries are gone from the device.
    pub fn restore_backup(&mut self, noticed: bool) -> u64 {
        self.crash();
        let lost = self.disk.restore();
        let known: Vec<_> = self.acked.keys().copied().collect();
        for log in known {
            let seq = self.position(log).seq;
            self.acked.entry(log).and_modify(|(stored, sealed)| {
                *stored = seq.min(*stored);
                *sealed = seq.min(*sealed);
            });
        }
        if noticed {
            self.open_epoch();
        }
        lost
    }

    /// When the device next wants to be called, on the simulation's clock.
    pub fn next_due_ms(&self) -> Option<u64> {
        let session = self.link.as_ref().and_then(|link| link.next_due_ms());
        [self.sync_due_ms, self.seal_due_ms, session].into_iter().flatten().min()
    }

    /// Does what is due.
    pub fn tick(&mut self) {
        let now_ms = self.mono_ms();
        if self.sync_due_ms.is_some_and(|due| due <= now_ms) {
            self.sync();
        }
        if self.seal_due_ms.is_some_and(|due| due <= now_ms) {
            self.seal();
        }
        self.tick_link(now_ms);
    }

    /// Whether everything is durable here and at the brain, and what is written now signed.
    pub fn is_settled(&self) -> bool {
        let (own, current) = (self.keypair.public(), self.disk.log());
        self.sync_due_ms.is_none()
            && self.link.as_ref().is_some_and(Link::has_heard)
            && self.tree().logs().iter().filter(|state| state.log.author == own).all(|state| {
                let (stored, sealed) = self.acked.get(&state.log).copied().unwrap_or_default();
                stored >= state.seq && (state.log != current || sealed >= state.seq)
            })
    }

    /// What the device has done since the last call.
    pub fn take_events(&mut self) -> Vec<DeviceEvent> {
        std::mem::take(&mut self.events)
    }

    fn acknowledged(&mut self, log: LogId, stored: u64, sealed: u64) {
        let known = self.acked.entry(log).or_default();
        *known = (stored.max(known.0), sealed.max(known.1));
    }

    fn sync_soon(&mut self) {
        let due = self.mono_ms() + COMMIT_DELAY_MS;
        self.sync_due_ms.get_or_insert(due);
    }

    fn now(&self) -> Now {
        let now = self.clock.now();
        Now { wall_ms: now.wall_ms.saturating_add_signed(self.offset_ms), ..now }
    }

    fn mono_ms(&self) -> u64 {
        self.clock.now().mono_ms
    }

    fn position(&self, log: LogId) -> LogPosition {
        self.disk.position(log)
    }
}
