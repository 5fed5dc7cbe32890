//! A brain, its devices, the network between them, and everything that goes wrong.
//!
//! One thread, virtual time, one seed: the same seed gives the same run. Faults are scripted
//! through the methods here or drawn by [`World::storm`]. Afterwards [`World::heal`] takes all
//! faults away, [`World::run_until_quiet`] lets the rest happen, and [`World::check`] compares
//! what everybody holds with what everybody was promised.

mod chaos;
mod faults;
mod oracle;
mod steps;

use std::collections::BTreeMap;
use std::ops::Range;

use protocol::conflict::POLICY_PREFIX;
use protocol::history::{Change, Provenance};
use protocol::session::Limits;
use protocol::state::{Path, StateSource, Value};

use crate::brain::SimBrain;
use crate::clock::{SimClock, SimTime};
use crate::device::SimDevice;
use crate::fired::Fired;
use crate::network::{LinkId, LinkKind, Network};
use crate::random::Random;
use crate::store::{Bug, MemoryStore, SyncMode};

pub use oracle::Complaint;

use oracle::Oracle;

/// So many steps without time passing mean that something spins.
const STEPS_AT_ONCE_MAX: u32 = 100_000;
/// How often it is looked whether the world is quiet.
const LOOK_EVERY_MS: u64 = 250;

/// What a world is made of.
#[derive(Debug, Clone)]
pub struct Config {
    /// How many devices there are: up to 255.
    pub devices: u8,
    /// The links between them and the brain.
    pub link: LinkKind,
    /// The rules of those links.
    pub limits: Limits,
    /// How long the brain's `fsync` takes, in milliseconds.
    pub fsync_ms: Range<u64>,
    /// Whether devices give up links on which acknowledgements do not come, see
    /// [`SimDevice::set_impatient`].
    pub impatient: bool,
    /// A bug in the brain's store.
    pub bug: Option<Bug>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            devices: 1,
            link: LinkKind::stream(),
            // Shorter than in earnest: a half-open link is found out sooner.
            limits: Limits { heartbeat_ms: 2_000, ..Limits::default() },
            fsync_ms: 1..30,
            impatient: false,
            bug: None,
        }
    }
}

/// A device and how it is connected.
#[derive(Debug)]
struct Place {
    device: SimDevice,
    reachable: bool,
    /// It lost part of its log without noticing, and must hear from the brain before it writes.
    muted: bool,
}

/// A brain and its devices.
pub struct World {
    config: Config,
    time: SimTime,
    random: Random,
    network: Network,
    links: BTreeMap<LinkId, usize>,
    store: MemoryStore,
    brain: Option<SimBrain>,
    brain_clock: SimClock,
    brain_starts_ms: u64,
    epochs: u64,
    sync_due_ms: Option<u64>,
    places: Vec<Place>,
    oracle: Oracle,
    fired: Fired,
    steps_at_once: u32,
    unsealed_max: u64,
}

impl World {
    /// The world of a seed.
    pub fn new(seed: u64, config: Config) -> Self {
        let random = Random::new(seed);
        let time = SimTime::default();
        let store = MemoryStore::new(SyncMode::OnDemand);
        if let Some(bug) = config.bug {
            store.plant(bug);
        }
        let place = |n: u8| {
            let random = random.fork(&format!("device {n}"));
            let mut device = SimDevice::new(n, SimClock::new(&time), random);
            if config.impatient {
                device.set_impatient();
            }
            Place { device, reachable: true, muted: false }
        };
        let mut world = Self {
            places: (1..=config.devices).map(place).collect(),
            network: Network::new(random.fork("network")),
            random: random.fork("world"),
            brain_clock: SimClock::new(&time),
            config,
            time,
            links: BTreeMap::new(),
            store,
            brain: None,
            brain_starts_ms: 0,
            epochs: 0,
            sync_due_ms: None,
            oracle: Oracle::default(),
            fired: Fired::default(),
            steps_at_once: 0,
            unsealed_max: 0,
        };
        world.start_brain();
        world
    }

    /// Milliseconds since the world began.
    pub fn now_ms(&self) -> u64 {
        self.time.now_ms()
    }

    /// A device, by its place from 0.
    pub fn device(&self, n: usize) -> &SimDevice {
        &self.places[n].device
    }

    /// How many devices there are.
    pub fn devices(&self) -> usize {
        self.places.len()
    }

    /// The brain, unless it is down.
    pub fn brain(&self) -> Option<&SimBrain> {
        self.brain.as_ref()
    }

    /// The brain's store.
    pub fn store(&self) -> &MemoryStore {
        &self.store
    }

    /// The network.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// How many entries were acknowledged to devices, and how many writes to operators.
    pub fn promises(&self) -> (u64, u64) {
        self.oracle.promises()
    }

    /// The most entries of one log that the brain had durably and not under a signed head.
    pub fn unsealed_max(&self) -> u64 {
        self.unsealed_max
    }

    /// All faults that hit something.
    pub fn fired(&self) -> Fired {
        let mut fired = self.fired.clone();
        fired.merge(self.network.fired());
        fired.merge(&self.store.fired());
        fired
    }

    /// A device writes a leaf of `reported/`. Says whether it could.
    pub fn write(&mut self, n: usize, leaf: &str) -> bool {
        let place = &mut self.places[n];
        if place.muted {
            return false;
        }
        let mark = self.oracle.next_mark();
        let changes = vec![change("reported", leaf, mark)];
        let id = place.device.write(changes, provenance(StateSource::Hardware, mark));
        self.drain();
        id.is_some()
    }

    /// An operator writes a leaf of a device's `desired/`. Says whether the brain was up.
    pub fn write_desired(&mut self, n: usize, leaf: &str) -> bool {
        let mark = self.oracle.next_mark();
        let Some(brain) = &mut self.brain else { return false };
        let device = self.places[n].device.id();
        let changes = vec![change("desired", leaf, mark)];
        brain.write(device, changes, provenance(StateSource::Operator, mark));
        self.drain();
        true
    }

    /// Somebody sets a leaf at a device by hand, for so many milliseconds, or takes that back. Says
    /// whether the device could.
    pub fn set_by_hand(&mut self, n: usize, leaf: &str, lease_ms: Option<u64>) -> bool {
        let place = &mut self.places[n];
        if place.muted {
            return false;
        }
        let mark = self.oracle.next_mark();
        let (path, value) = change("override", leaf, mark);
        let changes = vec![(path, value.filter(|_| lease_ms.is_some()))];
        let by = provenance(StateSource::Operator, mark);
        let id = place.device.write_for(changes, by, lease_ms);
        self.drain();
        id.is_some()
    }

    /// An operator sets the next version of a device's conflict policy: `strategy` decides about all
    /// that the device reports. Says whether the brain was up.
    pub fn set_policy(&mut self, n: usize, strategy: &str) -> bool {
        let mark = self.oracle.next_mark();
        let Some(brain) = &mut self.brain else { return false };
        let device = self.places[n].device.id();
        let known = brain.tree(device).map_or(0, |tree| tree.policy());
        let path = Path::new(&format!("{POLICY_PREFIX}/{}", known + 1));
        let path = path.expect("a number is a segment");
        let rules = format!(r#"{{"rules": [{{"paths": "reported/**", "strategy": {strategy}}}]}}"#);
        let changes = vec![(path, Some(Value::from(rules.as_str())))];
        brain.write(device, changes, provenance(StateSource::Operator, mark));
        self.drain();
        true
    }

    /// Lets time pass.
    pub fn run_for(&mut self, ms: u64) {
        let until_ms = self.now_ms() + ms;
        while let Some(due_ms) = self.next_due_ms().filter(|due_ms| *due_ms <= until_ms) {
            self.steps_at_once = if due_ms > self.now_ms() { 0 } else { self.steps_at_once + 1 };
            if self.steps_at_once > STEPS_AT_ONCE_MAX {
                return self.oracle.complain(Complaint::Spins { at_ms: due_ms });
            }
            self.time.advance_to(due_ms);
            self.step();
        }
        self.time.advance_to(until_ms);
    }

    /// Lets time pass until nobody has anything to do for anybody.
    ///
    /// Returns false if that does not come within `limit_ms`; [`check`](Self::check) then says so
    /// too.
    pub fn run_until_quiet(&mut self, limit_ms: u64) -> bool {
        let until_ms = self.now_ms() + limit_ms;
        while self.now_ms() < until_ms {
            self.run_for(LOOK_EVERY_MS);
            if self.is_quiet() {
                return true;
            }
        }
        let waits: Vec<_> = (0..self.places.len()).filter(|n| !self.is_settled(*n)).collect();
        self.oracle.complain(Complaint::NotQuiet { after_ms: limit_ms, waits });
        false
    }

    fn is_quiet(&self) -> bool {
        self.store.queued() == 0 && (0..self.places.len()).all(|n| self.is_settled(n))
    }

    fn is_settled(&self, n: usize) -> bool {
        let device = &self.places[n].device;
        let Some(brain) = &self.brain else { return false };
        let twin = brain.tree(device.id());
        let same = |twin: &protocol::history::Tree| twin.vector() == device.tree().vector();
        device.is_settled() && twin.is_some_and(same)
    }
}

fn change(prefix: &str, leaf: &str, mark: u64) -> Change {
    let path = Path::new(&format!("{prefix}/{leaf}")).expect("leaves have plain names");
    (path, Some(Value::from(mark as i64)))
}

/// The reason carries the mark by which an entry is known again when it is re-issued.
fn provenance(source: StateSource, mark: u64) -> Provenance {
    Provenance::new(source, "sim", &mark.to_string())
}
