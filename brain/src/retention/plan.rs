//! Where a history is to begin.

use actors::ports::Base;
use protocol::state::Version;
use serde::{Deserialize, Serialize};

/// How much of each tree's history is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Retention {
    /// What was committed less than so many hours ago is kept.
    pub keep_hours: u32,
    /// Of that, about so many bytes at most, snapshots included.
    pub bytes_max: u64,
    /// So many of the snapshots that people asked for are kept beyond it.
    pub snapshots_kept: usize,
}

impl Default for Retention {
    fn default() -> Self {
        Self { keep_hours: 30 * 24, bytes_max: 32 << 20, snapshots_kept: 16 }
    }
}

/// A snapshot that a history might begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beginning {
    /// The version.
    pub version: Version,
    /// When it was committed, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// What had been written for the tree by then, in bytes.
    pub written_bytes: u64,
    /// Whether a person asked for it.
    pub on_demand: bool,
}

/// What is to be dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    /// The version that the history is to begin with.
    pub version: Version,
    /// The versions before it whose snapshots stay.
    pub kept: Vec<Version>,
}

/// Where the history begins from now on; none where it stays as it is.
///
/// It begins with the latest snapshot that is old enough, or with a later one where too much would
/// be kept. `beginnings` are in order, `written_bytes` is what the tree has come to by now.
pub fn plan(
    rules: &Retention,
    base: Option<&Base>,
    beginnings: impl IntoIterator<Item = Beginning>,
    written_bytes: u64,
    now_ms: u64,
) -> Option<Plan> {
    let old_ms = now_ms.saturating_sub(u64::from(rules.keep_hours) * 3_600_000);
    let mut asked_for = Vec::new();
    let mut begin: Option<Beginning> = None;
    for next in beginnings {
        let dropped_bytes =
            begin.map(|b| b.written_bytes).or(base.map(|b| b.written_bytes)).unwrap_or(0);
        let is_too_much = written_bytes.saturating_sub(dropped_bytes) > rules.bytes_max;
        if next.at_ms > old_ms && !is_too_much {
            break;
        }
        if next.on_demand {
            asked_for.push(next.version);
        }
        begin = Some(next);
    }
    let version = begin?.version;
    asked_for.retain(|asked| *asked < version);
    let kept = asked_for.split_off(asked_for.len().saturating_sub(rules.snapshots_kept));
    (version > base.map_or(0, |base| base.version)).then_some(Plan { version, kept })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protocol::history::VersionVector;
    use protocol::{PublicKey, Signature};

    use super::*;

    const HOUR_MS: u64 = 3_600_000;
    const RULES: Retention = Retention { keep_hours: 10, bytes_max: 1_000, snapshots_kept: 2 };

    fn base(version: Version, written_bytes: u64) -> Base {
        let (authority, signature) = (PublicKey([0; 32]), Signature([0; 64]));
        let floor = VersionVector::default();
        Base { version, at_ms: 0, pruned_ms: 0, written_bytes, floor, authority, signature }
    }

    /// A snapshot of each hour, and of each hundred bytes.
    fn hourly(count: u64) -> Vec<Beginning> {
        let of = |n: u64| Beginning {
            version: n * 256,
            at_ms: n * HOUR_MS,
            written_bytes: n * 100,
            on_demand: n.is_multiple_of(2),
        };
        (1..=count).map(of).collect()
    }

    #[test]
    fn what_is_younger_than_the_bound_stays() {
        let rules = Retention { bytes_max: u64::MAX, ..RULES };
        let at = |hour: u64| {
            plan(&rules, None, hourly(20), 2_000, hour * HOUR_MS).map(|plan| plan.version / 256)
        };
        assert_eq!(at(9), None);
        assert_eq!(at(11), Some(1));
        assert_eq!(at(15), Some(5));
        assert_eq!(at(500), Some(20), "the last snapshot is never dropped");
        let begun = base(5 * 256, 500);
        assert_eq!(plan(&rules, Some(&begun), hourly(20), 2_000, 15 * HOUR_MS), None);
    }

    #[test]
    fn what_is_too_much_goes_however_young_it_is() {
        let plan = plan(&RULES, None, hourly(20), 2_000, 0).expect("over the bound");
        assert_eq!(plan.version, 10 * 256, "a thousand bytes are left");
    }

    #[test]
    fn the_latest_snapshots_that_were_asked_for_stay() {
        let plan = plan(&RULES, None, hourly(20), 2_000, 0).expect("over the bound");
        assert_eq!(plan.kept, [6 * 256, 8 * 256]);
    }

    #[test]
    fn a_history_without_snapshots_stays() {
        assert_eq!(plan(&RULES, None, Vec::new(), u64::MAX, u64::MAX), None);
    }

    proptest! {
        #[test]
        fn a_plan_moves_forward_and_leaves_as_much_as_the_rules_let_it(
            steps in proptest::collection::vec((1u64..40, 0u64..5 * HOUR_MS, 0u64..300, any::<bool>()), 0..30),
            more in 0u64..500, now_ms in 0u64..100 * HOUR_MS, begun in 0usize..10,
        ) {
            let mut at = Beginning { version: 0, at_ms: 0, written_bytes: 0, on_demand: false };
            let beginnings: Vec<_> = steps.iter().map(|(versions, ms, bytes, on_demand)| {
                at = Beginning {
                    version: at.version + versions,
                    at_ms: at.at_ms + ms,
                    written_bytes: at.written_bytes + bytes,
                    on_demand: *on_demand,
                };
                at
            }).collect();
            let written = at.written_bytes + more;
            let base = beginnings.get(begun).map(|b| base(b.version, b.written_bytes));
            let left = beginnings.iter().skip(base.as_ref().map_or(0, |_| begun)).copied();
            if let Some(plan) = plan(&RULES, base.as_ref(), left.clone(), written, now_ms) {
                prop_assert!(plan.version > base.as_ref().map_or(0, |base| base.version));
                let chosen = left.clone().position(|b| b.version == plan.version);
                let chosen = chosen.expect("one of the snapshots");
                prop_assert!(plan.kept.len() <= RULES.snapshots_kept);
                prop_assert!(plan.kept.iter().all(|kept| *kept < plan.version));
                let before = left.clone().take(chosen).next_back();
                let is_young = left.clone().nth(chosen).is_some_and(|b| b.at_ms + 10 * HOUR_MS > now_ms);
                let kept_else = written - before.map_or(0, |b| b.written_bytes);
                prop_assert!(!is_young || kept_else > RULES.bytes_max, "nothing young goes without need");
            }
        }
    }
}
