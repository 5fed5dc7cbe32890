//! The rules of the brain's supervision tree.

use std::time::Duration;

use actors::supervise::{Backoff, ChildPolicy, Restart, SetPolicy, Strategy};
use serde::{Deserialize, Serialize};

use crate::devices::SHARDS;

/// A device's actor that is at one message for so long is restarted.
const DEVICE_STUCK_AFTER: Duration = Duration::from_secs(30);

/// Who is restarted when, in each branch of the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Supervision {
    /// The brain's parts together: who fails takes along what was started after it.
    pub root: SetPolicy,
    /// Each single part: connections, device listener, API, conflict keeper, enrolment, residency,
    /// keys, store, journal, and the keepers of consistency, errors, retention and backups.
    pub part: ChildPolicy,
    /// What lets devices and people in, together.
    pub ingress: SetPolicy,
    /// The shards of devices together. Whatever devices do, nothing of it reaches the root.
    pub devices: SetPolicy,
    /// The devices of a shard together.
    pub shard: SetPolicy,
    /// Each device's actor.
    pub device: ChildPolicy,
    /// The kinds of jobs together.
    pub jobs: SetPolicy,
    /// The open conflicts together.
    pub conflicts: SetPolicy,
    /// Each open conflict's actor.
    pub conflict: ChildPolicy,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            root: SetPolicy::with(Strategy::RestForOne),
            part: ChildPolicy::default(),
            ingress: SetPolicy::with(Strategy::OneForOne),
            devices: SetPolicy::shards(SHARDS as u32),
            shard: SetPolicy::dynamic(),
            device: ChildPolicy {
                restart: Restart::Transient,
                // Its connection and its device wait for it.
                backoff: Backoff { immediate: 1, ..Backoff::default() },
                // It answers within microseconds, and what it waits for does not count.
                stuck_after: Some(DEVICE_STUCK_AFTER),
                ..ChildPolicy::default()
            },
            // Whatever jobs do, nothing of it reaches the root.
            jobs: SetPolicy::shards(2),
            conflicts: SetPolicy::dynamic(),
            conflict: ChildPolicy { restart: Restart::Transient, ..ChildPolicy::default() },
        }
    }
}
