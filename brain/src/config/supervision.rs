//! The rules of the brain's supervision tree.

use actors::supervise::{ChildPolicy, Restart, SetPolicy, Strategy};
use serde::{Deserialize, Serialize};

use crate::devices::SHARDS;

/// Who is restarted when, in each branch of the tree.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Supervision {
    /// The brain's parts together: who fails takes along what was started after it.
    pub root: SetPolicy,
    /// Each single part: store, enrolment, device listener, API.
    pub part: ChildPolicy,
    /// What lets devices and people in, together.
    pub ingress: SetPolicy,
    /// The shards of devices together. Whatever devices do, nothing of it reaches the root.
    pub devices: SetPolicy,
    /// The devices of a shard together.
    pub shard: SetPolicy,
    /// Each device's actor.
    pub device: ChildPolicy,
}

impl Default for Supervision {
    fn default() -> Self {
        Self {
            root: SetPolicy::with(Strategy::RestForOne),
            part: ChildPolicy::default(),
            ingress: SetPolicy::with(Strategy::OneForOne),
            devices: SetPolicy::shards(SHARDS as u32),
            shard: SetPolicy::dynamic(),
            device: ChildPolicy { restart: Restart::Transient, ..ChildPolicy::default() },
        }
    }
}
