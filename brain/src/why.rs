//! Why a leaf is what it is.
//!
//! Everything here is looked up when it is asked for: the entry that set the value, what it took
//! the place of, the sides of a conflict, and what a device has made of what is desired.

mod causes;

use std::collections::{BTreeMap, BTreeSet};

use actors::ports::{ReadError, TreeNumber, TreeRecord};
use protocol::clock::ClockQuality;
use protocol::conflict::Contender;
use protocol::error::Cause;
use protocol::history::Tree;
use protocol::state::{Path, StateSource, Value, Version};
use protocol::{ConflictId, EntryId, PublicKey};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::store::{HistoryEntry, Store};

/// How far back what a value took the place of is looked for.
const CHANGES_LOOKED_AT_MAX: usize = 10_000;

/// Why one leaf is what it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Why {
    /// The leaf.
    #[schema(value_type = String)]
    pub path: Path,
    /// What it shows; none where it is gone.
    #[schema(value_type = Object)]
    pub value: Option<Value>,
    /// The entry that set or removed it.
    pub set_by: Option<Change>,
    /// What that took the place of; none where it was the first, or that is too long ago.
    pub before: Option<Change>,
    /// The conflict that is there.
    pub conflict: Option<Disagreement>,
    /// For a leaf below `desired/`: what the device has made of it.
    pub device: Option<DeviceSide>,
    /// For a leaf that tells of a failure: how that came about, from here down to the hardware.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<Object>)]
    pub causes: Vec<Cause>,
}

/// A change of the leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Change {
    /// What it made of the leaf; none where it removed it.
    #[schema(value_type = Object)]
    pub value: Option<Value>,
    /// The entry's id.
    #[schema(value_type = String)]
    pub entry: EntryId,
    /// The key that wrote it.
    #[schema(value_type = String)]
    pub author: PublicKey,
    /// The epoch of its log, in hexadecimal.
    pub epoch: String,
    /// Its number in that log.
    pub seq: u64,
    /// The version that it made here.
    #[schema(value_type = u64)]
    pub version: Version,
    /// When it was committed here, in milliseconds since the Unix epoch.
    pub committed: u64,
    /// When it happened by its author's clock, in milliseconds since the Unix epoch.
    pub happened: u64,
    /// How good that clock was.
    #[schema(value_type = String)]
    pub clock: ClockQuality,
    /// Where it comes from.
    #[schema(value_type = String)]
    pub source: StateSource,
    /// Which person or program.
    pub principal: String,
    /// Why.
    pub reason: String,
}

/// Sides that did not know of each other.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Disagreement {
    /// The conflict's id.
    #[schema(value_type = String)]
    pub id: ConflictId,
    /// The strategy that decides, by its name.
    pub strategy: String,
    /// The version of the policy that says so; 0 is the built-in one.
    pub policy: u32,
    /// Whether that version is not here, and the built-in one stands in.
    pub policy_missing: bool,
    /// Whether a person has yet to decide.
    pub waits_for_a_person: bool,
    /// Every side, the one that counts included.
    pub sides: Vec<Change>,
}

/// What a device has made of a desired leaf.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct DeviceSide {
    /// What it reports to have applied; none where it has not.
    #[schema(value_type = Object)]
    pub applied: Option<Value>,
    /// Whether that is what is desired.
    pub in_force: bool,
    /// What holds it back, where it is not.
    pub held_by: Vec<Hold>,
}

/// What keeps a device from what is desired.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", tag = "hold")]
pub enum Hold {
    /// It is not connected.
    Offline,
    /// Its actor failed too often and is left alone.
    Quarantined {
        /// For how much longer, in milliseconds.
        remaining_ms: u64,
    },
    /// An override at the device comes first.
    Override {
        /// Until when, in milliseconds since the Unix epoch; none for no end.
        until: Option<u64>,
        /// The entry that made it.
        #[schema(value_type = String)]
        entry: Option<EntryId>,
    },
    /// It could not apply it.
    ApplyError {
        /// What it said.
        message: String,
        /// How that came about, from here down to the hardware, as far as the device tells it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        #[schema(value_type = Vec<Object>)]
        causes: Vec<Cause>,
    },
    /// A constraint does not allow it.
    Constraint {
        /// Its name.
        name: String,
    },
    /// A person has yet to decide a conflict.
    Conflict {
        /// Which.
        #[schema(value_type = String)]
        id: ConflictId,
    },
    /// It asks for what a sensor measures, and the hardware reports something else.
    Physical {
        /// What that is.
        #[schema(value_type = Object)]
        measured: Value,
    },
    /// Nothing that is known here: it is on its way.
    UnderWay,
}

/// How a device can be reached, as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// Whether it is connected.
    pub online: bool,
    /// For how much longer its actor is left alone, in milliseconds.
    pub quarantined_ms: Option<u64>,
}

/// Looks up why a leaf of a tree is what it is, and if asked what it was before; none where the
/// tree never had it. Blocks.
pub fn why(
    store: &Store,
    number: TreeNumber,
    (record, tree): &(TreeRecord, Tree),
    path: &Path,
    reach: Reach,
    now_ms: u64,
    looks_back: bool,
) -> Result<Option<Why>, ReadError> {
    let Some(shown) = tree.decision(path) else {
        // A leaf that is gone on all sides is forgotten; its history is not.
        let last = store.change_before(number, path, record.version + 1, CHANGES_LOOKED_AT_MAX)?;
        return Ok(last.map(|last| Why {
            path: path.clone(),
            value: None,
            set_by: Some(Change::of(last, path)),
            before: None,
            conflict: None,
            device: None,
            causes: Vec::new(),
        }));
    };
    let find = |contender: Contender<'_>| {
        let Contender { candidate, .. } = contender;
        store.entry(number, candidate.log, candidate.seq)
    };
    let set_by = find(shown.by)?;
    let before = match &set_by {
        Some(set_by) if looks_back => {
            store.change_before(number, path, set_by.version, CHANGES_LOOKED_AT_MAX)?
        }
        _ => None,
    };
    let conflict = match tree.conflict(path, now_ms) {
        None => None,
        Some(conflict) => {
            let mut sides = Vec::new();
            for contender in tree.sides(path) {
                sides.extend(find(contender)?.map(|side| Change::of(side, path)));
            }
            Some(Disagreement {
                id: conflict.id,
                strategy: shown.strategy.map_or("", |strategy| strategy.name()).to_owned(),
                policy: shown.policy,
                policy_missing: shown.is_pending,
                waits_for_a_person: shown.waits_for_a_person(),
                sides,
            })
        }
    };
    let device = match path.below("desired") {
        Some(below) => {
            let entry_of = |path: &Path| match tree.decision(path) {
                Some(shown) => find(shown.by).map(|found| found.map(|found| found.id)),
                None => Ok(None),
            };
            Some(device_side(tree, below, reach, now_ms, entry_of)?)
        }
        None => None,
    };
    Ok(Some(Why {
        path: path.clone(),
        value: shown.value.as_deref().cloned(),
        set_by: set_by.map(|set_by| Change::of(set_by, path)),
        before: before.map(|before| Change::of(before, path)),
        conflict,
        device,
        causes: shown
            .value
            .as_deref()
            .map(|value| causes::of_leaf(path, value))
            .unwrap_or_default(),
    }))
}

/// A desired leaf that is not in force.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Outstanding {
    /// What is desired; none where the device is to drop what it has applied.
    #[schema(value_type = Object)]
    pub desired: Option<Value>,
    /// What the device has made of it.
    #[serde(flatten)]
    pub device: DeviceSide,
}

/// What is desired of a device and not in force, by path below `desired/`. Blocks.
pub fn outstanding(
    store: &Store,
    number: TreeNumber,
    tree: &Tree,
    reach: Reach,
    now_ms: u64,
) -> Result<BTreeMap<String, Outstanding>, ReadError> {
    let entry_of = |path: &Path| match tree.decision(path) {
        Some(shown) => {
            let candidate = shown.by.candidate;
            let found = store.entry(number, candidate.log, candidate.seq)?;
            Ok(found.map(|found| found.id))
        }
        None => Ok(None),
    };
    let state = tree.state();
    let below = state.keys().filter_map(|path| {
        path.below("desired").or_else(|| path.below("reported/applied")).map(str::to_owned)
    });
    let mut outstanding = BTreeMap::new();
    for below in below.collect::<BTreeSet<_>>() {
        let device = device_side(tree, &below, reach, now_ms, entry_of)?;
        if device.in_force {
            continue;
        }
        let desired = Path::new(&format!("desired/{below}")).ok();
        let desired = desired.and_then(|path| state.get(&path).cloned());
        outstanding.insert(below, Outstanding { desired, device });
    }
    Ok(outstanding)
}

fn device_side(
    tree: &Tree,
    below: &str,
    reach: Reach,
    now_ms: u64,
    entry_of: impl Fn(&Path) -> Result<Option<EntryId>, ReadError>,
) -> Result<DeviceSide, ReadError> {
    let at = |prefix: &str| Path::new(&format!("{prefix}/{below}")).ok();
    let value = |prefix: &str| at(prefix).and_then(|path| Some(tree.value(&path)?.into_owned()));
    let (desired, applied) = (value("desired"), value("reported/applied"));
    let in_force = desired == applied;
    let mut held_by = Vec::new();
    if !in_force {
        if let Some(remaining_ms) = reach.quarantined_ms {
            held_by.push(Hold::Quarantined { remaining_ms });
        }
        if !reach.online {
            held_by.push(Hold::Offline);
        }
        if let Some(path) = at("override")
            && let Some(shown) = tree.decision(&path).filter(|shown| shown.value.is_some())
        {
            let until = shown.by.candidate.lease_until_ms;
            if until.is_none_or(|until| until > now_ms) {
                held_by.push(Hold::Override { until, entry: entry_of(&path)? });
            }
        }
        let held = at("desired").and_then(|path| tree.held(now_ms).remove(&path));
        let is_held = held.is_some();
        held_by.extend(held.map(|name| Hold::Constraint { name }));
        if let Some(message) = value("reported/apply_errors").filter(|_| !is_held) {
            let message =
                message.as_str().map_or_else(|| message.to_json().to_string(), str::to_owned);
            let told = value("reported/apply_causes");
            let causes = told.map(|told| causes::of_apply_error(&told)).unwrap_or_default();
            held_by.push(Hold::ApplyError { message, causes });
        }
        if let Some(path) = at("desired")
            && tree.decision(&path).is_some_and(|shown| shown.waits_for_a_person())
            && let Some(conflict) = tree.conflict(&path, now_ms)
        {
            held_by.push(Hold::Conflict { id: conflict.id });
        }
        if let Some(path) = at("desired")
            && tree.physical_conflict(&path, now_ms).is_some()
            && let Some(measured) = tree.measured(&path).and_then(|measured| measured.value)
        {
            held_by.push(Hold::Physical { measured: measured.into_owned() });
        }
        if held_by.is_empty() {
            held_by.push(Hold::UnderWay);
        }
    }
    Ok(DeviceSide { applied, in_force, held_by })
}

impl Change {
    /// What an entry made of a leaf.
    fn of(found: HistoryEntry, path: &Path) -> Self {
        let HistoryEntry { version, committed_ms, id, entry } = found;
        let value = entry.delta.changes().find(|(other, _)| *other == path);
        Self {
            value: value.and_then(|(_, value)| value.cloned()),
            entry: id,
            author: entry.log.author,
            epoch: format!("{:016x}", entry.log.epoch),
            seq: entry.seq,
            version,
            committed: committed_ms,
            happened: entry.hlc.wall_ms,
            clock: entry.clock,
            source: entry.provenance.source,
            principal: entry.provenance.principal,
            reason: entry.provenance.reason,
        }
    }
}
