//! A conflict as it is kept and shown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Contender, Decision, Severity, Strategy};
use crate::TreeId;
use crate::canonical::Writer;
use crate::clock::Hlc;
use crate::history::LogId;
pub use crate::id::ConflictId;
use crate::state::{Path, StateSource, Value};

/// What a conflict is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictKind {
    /// Two authors set different values.
    Value,
    /// One changed what another removed.
    DeleteModify,
    /// One author went on from two points of its own past, as after a restored disk.
    VersionFork,
    /// Two sides configured a device differently.
    Config,
    /// What is desired is not what the hardware reports, and no wish changes what a sensor measures.
    Physical,
}

/// How far a conflict has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConflictStatus {
    /// Nobody has dealt with it.
    Open,
    /// It is decided.
    Resolved,
}

/// A record names so many sides at most.
pub const SIDES_KEPT_MAX: usize = 16;
/// A record repeats values up to so many bytes.
pub const VALUE_KEPT_BYTES_MAX: usize = 1 << 10;

/// One side of a conflict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContendingState {
    /// Who wrote it: key and epoch.
    pub log: LogId,
    /// The number of the entry in that log.
    pub seq: u64,
    /// The value; none where the leaf was removed, or where it is too large to be repeated here.
    pub value: Option<Value>,
    /// Whether it is too large, over [`VALUE_KEPT_BYTES_MAX`]: the entry has it.
    pub is_large: bool,
    /// Where it comes from.
    pub source: StateSource,
    /// When, by its author's clock.
    pub hlc: Hlc,
}

/// A conflict of one leaf. Its id follows from its candidates: it is the same on every replica.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Conflict {
    /// The id.
    pub id: ConflictId,
    /// What it is about.
    #[serde(rename = "type")]
    pub kind: ConflictKind,
    /// The tree.
    pub tree: TreeId,
    /// The leaf.
    pub path: Path,
    /// The sides, in the order of their logs: the first [`SIDES_KEPT_MAX`].
    pub states: Vec<ContendingState>,
    /// How many sides there are in all.
    pub sides: u32,
    /// How much it matters.
    pub severity: Severity,
    /// When this replica noticed it, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// How far it has come.
    pub status: ConflictStatus,
}

/// How a conflict was decided.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Resolution {
    /// Of which conflict.
    pub conflict_id: ConflictId,
    /// The strategy's name, or `entry` where somebody wrote the leaf knowing all sides.
    pub strategy: String,
    /// The value that counts; none where the leaf is gone.
    pub result: Option<Value>,
    /// When, in milliseconds since the Unix epoch.
    pub timestamp: u64,
    /// Whose value it was, by which version of the policy, and what else is to be known.
    pub metadata: BTreeMap<String, String>,
}

impl Conflict {
    /// The conflict between these sides, at least two that disagree.
    pub fn between(
        tree: TreeId,
        path: &Path,
        contenders: &[Contender<'_>],
        strategy: &Strategy,
        severity: Option<Severity>,
        now_ms: u64,
    ) -> Self {
        let mut states: Vec<_> = contenders.iter().map(ContendingState::of).collect();
        states.sort_by_key(|state| (state.log, state.seq));
        let kind = ConflictKind::of(path, &states);
        let usual = match (strategy, kind) {
            (Strategy::Manual, _) | (_, ConflictKind::VersionFork) => Severity::Warning,
            _ => Severity::Info,
        };
        let (id, sides) = (id_of("fleet-conflict-v1", tree, path, &states), states.len() as u32);
        states.truncate(SIDES_KEPT_MAX);
        Self {
            id,
            kind,
            tree,
            path: path.clone(),
            states,
            sides,
            severity: severity.unwrap_or(usual),
            timestamp: now_ms,
            status: ConflictStatus::Open,
        }
    }

    /// The conflict between what is desired of a leaf and what the hardware reports. It is one for as
    /// long as that is desired, whatever the hardware goes on to report.
    pub fn physical(
        tree: TreeId,
        path: &Path,
        desired: &Contender<'_>,
        reported: &Contender<'_>,
        now_ms: u64,
    ) -> Self {
        let (desired, reported) = (ContendingState::of(desired), ContendingState::of(reported));
        let id = id_of("fleet-physical-conflict-v1", tree, path, std::slice::from_ref(&desired));
        Self {
            id,
            kind: ConflictKind::Physical,
            tree,
            path: path.clone(),
            states: vec![desired, reported],
            sides: 2,
            severity: Severity::Warning,
            timestamp: now_ms,
            status: ConflictStatus::Open,
        }
    }
}

impl Resolution {
    /// That of a conflict, by what its leaf shows now; `how` in place of the strategy's name.
    pub fn of(
        conflict_id: ConflictId,
        shown: Option<Decision<'_>>,
        how: Option<&str>,
        now_ms: u64,
    ) -> Self {
        let strategy = shown.as_ref().and_then(|shown| shown.strategy);
        let strategy = how.or(strategy.map(Strategy::name)).unwrap_or_default().to_owned();
        let policy = shown.as_ref().map_or(0, |shown| shown.policy);
        let mut metadata = BTreeMap::new();
        let result = shown.and_then(|shown| {
            let Contender { log, candidate } = shown.by;
            metadata.insert("author".to_owned(), log.author.to_string());
            metadata.insert("epoch".to_owned(), format!("{:016x}", log.epoch));
            metadata.insert("seq".to_owned(), candidate.seq.to_string());
            metadata.insert("policy".to_owned(), policy.to_string());
            metadata.insert("source".to_owned(), candidate.source.to_string());
            shown.value.map(|value| value.into_owned())
        });
        Self { conflict_id, strategy, result, timestamp: now_ms, metadata }
    }
}

impl ContendingState {
    fn of(contender: &Contender<'_>) -> Self {
        let candidate = contender.candidate;
        let is_kept = |value: &&Value| value.size_bytes() <= VALUE_KEPT_BYTES_MAX;
        let value = candidate.value.as_ref();
        Self {
            log: contender.log,
            seq: candidate.seq,
            is_large: value.is_some() && value.filter(is_kept).is_none(),
            value: value.filter(is_kept).cloned(),
            source: candidate.source,
            hlc: candidate.hlc,
        }
    }
}

impl ConflictKind {
    fn of(path: &Path, states: &[ContendingState]) -> Self {
        let author = states.first().map(|state| state.log.author);
        if states.iter().all(|state| Some(state.log.author) == author) {
            Self::VersionFork
        } else if states.iter().any(|state| state.value.is_none() && !state.is_large) {
            Self::DeleteModify
        } else if matches!(path.first_segment(), "desired" | "policy") {
            Self::Config
        } else {
            Self::Value
        }
    }
}

/// The id that follows from the sides, which are in order.
fn id_of(context: &str, tree: TreeId, path: &Path, states: &[ContendingState]) -> ConflictId {
    let mut writer = Writer::new(context);
    writer.raw(&tree.0).text(path.as_str()).len(states.len());
    for state in states {
        state.log.write_canonical(&mut writer);
        writer.u64(state.seq);
    }
    ConflictId(writer.hash())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PublicKey;
    use crate::history::Candidate;

    fn candidates(sides: u32) -> Vec<Candidate> {
        let text = "x".repeat(crate::state::VALUE_BYTES_MAX - 4);
        let candidate = |log: u32| Candidate {
            log,
            seq: 1,
            value: Some(Value::from(format!("{text}{log:04}").as_str())),
            hlc: Hlc { wall_ms: 1, counter: log },
            lease_until_ms: None,
            policy: 0,
            source: StateSource::Hardware,
        };
        (0..sides).map(candidate).collect()
    }

    fn conflict(candidates: &[Candidate]) -> Conflict {
        let contenders = candidates.iter().map(|candidate| {
            let log = LogId { author: PublicKey([1; 32]), epoch: u64::from(candidate.log) };
            Contender { log, candidate }
        });
        let contenders: Vec<_> = contenders.collect();
        let path = Path::new("reported/text").expect("a path");
        Conflict::between(TreeId([1; 32]), &path, &contenders, &Strategy::LastWriter, None, 1)
    }

    #[test]
    fn a_record_stays_small_however_many_and_large_its_sides_are() {
        let (many, more) = (conflict(&candidates(500)), conflict(&candidates(501)));
        assert_eq!((many.states.len(), many.sides), (SIDES_KEPT_MAX, 500));
        assert!(many.states.iter().all(|state| state.is_large && state.value.is_none()));
        assert!(crate::codec::encode(&many).len() < 4 << 10);
        assert_ne!(many.id, more.id, "the id is of all sides");
        assert_eq!(many.kind, ConflictKind::VersionFork);
    }
}
