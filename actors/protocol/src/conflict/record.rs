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
    /// The hardware does not report what is desired.
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
    /// Its decision would break a rule; a person must decide.
    Failed,
}

/// One side of a conflict.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ContendingState {
    /// Who wrote it: key and epoch.
    pub log: LogId,
    /// The number of the entry in that log.
    pub seq: u64,
    /// The value; none where the leaf was removed.
    pub value: Option<Value>,
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
    /// The sides, in the order of their logs.
    pub states: Vec<ContendingState>,
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
        Self {
            id: id_of(tree, path, &states),
            kind,
            tree,
            path: path.clone(),
            states,
            severity: severity.unwrap_or(usual),
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
        let mut metadata = BTreeMap::new();
        let result = shown.and_then(|shown| {
            let Contender { log, candidate } = shown.by;
            metadata.insert("author".to_owned(), log.author.to_string());
            metadata.insert("epoch".to_owned(), format!("{:016x}", log.epoch));
            metadata.insert("seq".to_owned(), candidate.seq.to_string());
            metadata.insert("policy".to_owned(), candidate.policy.to_string());
            metadata.insert("source".to_owned(), candidate.source.to_string());
            shown.value.map(|value| value.into_owned())
        });
        Self { conflict_id, strategy, result, timestamp: now_ms, metadata }
    }
}

impl ContendingState {
    fn of(contender: &Contender<'_>) -> Self {
        let candidate = contender.candidate;
        Self {
            log: contender.log,
            seq: candidate.seq,
            value: candidate.value.clone(),
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
        } else if states.iter().any(|state| state.value.is_none()) {
            Self::DeleteModify
        } else if matches!(path.first_segment(), "desired" | "policy") {
            Self::Config
        } else {
            Self::Value
        }
    }
}

/// The id that follows from the sides, which are in order.
fn id_of(tree: TreeId, path: &Path, states: &[ContendingState]) -> ConflictId {
    let mut writer = Writer::new("fleet-conflict-v1");
    writer.raw(&tree.0).text(path.as_str()).len(states.len());
    for state in states {
        state.log.write_canonical(&mut writer);
        writer.u64(state.seq);
    }
    ConflictId(writer.hash())
}
