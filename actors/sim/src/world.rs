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
use crate::fleet::Whose;
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
    /// How many groups there are that they can be in.
    pub groups: u8,
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
            groups: 0,
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
            Place { device, reachable: true }
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
        let whose = Whose::Device(self.places[n].device.id());
        self.write_as_device(n, whose, "reported", leaf)
    }

    /// A device writes a leaf that the members of a group share. Says whether it could.
    pub fn write_shared(&mut self, n: usize, group: u8, leaf: &str) -> bool {
        self.write_as_device(n, Whose::Group(group), "shared", leaf)
    }

    fn write_as_device(&mut self, n: usize, whose: Whose, prefix: &str, leaf: &str) -> bool {
        let mark = self.oracle.next_mark();
        let changes = vec![change(prefix, leaf, mark)];
        let by = provenance(StateSource::Hardware, mark);
        let id = self.places[n].device.write(whose, changes, by);
        self.drain();
        id.is_some()
    }

    /// An operator writes a leaf of a device's `desired/`. Says whether the brain was up.
    pub fn write_desired(&mut self, n: usize, leaf: &str) -> bool {
        let whose = Whose::Device(self.places[n].device.id());
        self.write_as_operator(whose, |mark| change("desired", leaf, mark))
    }

    /// An operator writes a leaf that the members of a group share. Says whether the brain was up.
    pub fn write_to_group(&mut self, group: u8, leaf: &str) -> bool {
        self.write_as_operator(Whose::Group(group), |mark| change("shared", leaf, mark))
    }

    fn write_as_operator(&mut self, whose: Whose, change: impl FnOnce(u64) -> Change) -> bool {
        let mark = self.oracle.next_mark();
        let Some(brain) = &mut self.brain else { return false };
        brain.write(whose, vec![change(mark)], provenance(StateSource::Operator, mark));
        self.drain();
        true
    }

    /// An operator puts a device into a group, or out of it. Says whether the brain was up.
    pub fn set_member(&mut self, n: usize, group: u8, is_current: bool) -> bool {
        let (mark, device) = (self.oracle.next_mark(), self.places[n].device.id());
        let Some(brain) = &mut self.brain else { return false };
        if !is_current {
            self.oracle.put_out(Whose::Group(group), device);
        }
        brain.set_member(group, device, is_current, provenance(StateSource::Operator, mark));
        self.drain();
        true
    }

    /// Somebody sets a leaf at a device by hand, for so many milliseconds, or takes that back. Says
    /// whether the device could.
    pub fn set_by_hand(&mut self, n: usize, leaf: &str, lease_ms: Option<u64>) -> bool {
        let mark = self.oracle.next_mark();
        let (path, value) = change("override", leaf, mark);
        let changes = vec![(path, value.filter(|_| lease_ms.is_some()))];
        let by = provenance(StateSource::Operator, mark);
        let id = self.places[n].device.write_for(changes, by, lease_ms);
        self.drain();
        id.is_some()
    }

    /// An operator sets the next version of a tree's conflict policy: `strategy` decides about all
    /// that devices write in it. Says whether the brain was up.
    pub fn set_policy(&mut self, whose: Whose, strategy: &str) -> bool {
        let known = self.brain.as_ref().and_then(|brain| brain.tree(whose));
        let next = known.map_or(0, |tree| tree.policy()) + 1;
        let path = Path::new(&format!("{POLICY_PREFIX}/{next}"));
        let path = path.expect("a number is a segment");
        let paths = match whose {
            Whose::Device(_) => "reported/**",
            Whose::Group(_) => "shared/**",
        };
        let rules = format!(r#"{{"rules": [{{"paths": "{paths}", "strategy": {strategy}}}]}}"#);
        self.write_as_operator(whose, |_| (path, Some(Value::from(rules.as_str()))))
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

    /// The trees: those of devices, and those of groups.
    fn trees(&self) -> Vec<Whose> {
        let devices = self.places.iter().map(|place| Whose::Device(place.device.id()));
        devices.chain((1..=self.config.groups).map(Whose::Group)).collect()
    }

    /// Whether a device takes part in a tree: it is its own, or that of a group that it is in, as
    /// the brain has it.
    fn takes_part(&self, n: usize, whose: Whose) -> bool {
        let device = self.places[n].device.id();
        match whose {
            Whose::Device(owner) => owner == device,
            Whose::Group(_) => self.store.with_tree(whose.tree(), |kept| {
                let tree = kept.map(|kept| kept.replica());
                tree.is_some_and(|tree| {
                    let mut members = tree.members();
                    members.any(|(_, member)| member.device == device && member.is_current)
                })
            }),
        }
    }

    fn is_quiet(&self) -> bool {
        self.store.queued() == 0 && (0..self.places.len()).all(|n| self.is_settled(n))
    }

    fn is_settled(&self, n: usize) -> bool {
        let device = &self.places[n].device;
        let Some(brain) = &self.brain else { return false };
        self.trees().into_iter().filter(|whose| self.takes_part(n, *whose)).all(|whose| {
            let (ours, theirs) = (brain.tree(whose), device.tree_of(whose));
            let same =
                ours.zip(theirs).is_some_and(|(ours, theirs)| ours.vector() == theirs.vector());
            same && device.is_settled(whose)
        })
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
