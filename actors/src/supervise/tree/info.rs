//! What is shown of a node.

use std::time::Duration;

use serde::Serialize;

use super::TreePath;
use crate::supervise::{Traffic, core::Incarnation, crash::Crash, millis, spec::ChildId};

/// Where a node is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
#[repr(u8)]
pub enum Status {
    /// It is being built.
    Starting,
    /// It is up.
    Running,
    /// It is down and will be started again, after a wait or with its group.
    Restarting,
    /// The same, and messages wait for it.
    Stashing,
    /// It left memory until somebody needs it; a set may hold many that are.
    Passive,
    /// It lets go what it holds, before it stops.
    Draining,
    /// It was asked to stop.
    Stopping,
    /// It has spent its restarts and is left alone for a while.
    Quarantined,
    /// It has ended.
    Stopped,
}

impl Status {
    /// Each of them.
    pub const ALL: [Self; 9] = [
        Self::Starting,
        Self::Running,
        Self::Restarting,
        Self::Stashing,
        Self::Passive,
        Self::Draining,
        Self::Stopping,
        Self::Quarantined,
        Self::Stopped,
    ];

    /// The name in answers and figures.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Restarting => "restarting",
            Self::Stashing => "stashing",
            Self::Passive => "passive",
            Self::Draining => "draining",
            Self::Stopping => "stopping",
            Self::Quarantined => "quarantined",
            Self::Stopped => "stopped",
        }
    }

    pub(super) fn from_u8(status: u8) -> Self {
        Self::ALL.get(usize::from(status)).copied().unwrap_or(Self::Stopped)
    }
}

/// One node as it is now.
#[derive(Clone, Debug, Serialize)]
pub struct NodeInfo {
    /// Its place in the tree.
    pub path: TreePath,
    /// What it is: [`Node::KIND`](super::super::Node::KIND), or `supervisor`.
    pub kind: &'static str,
    /// Where it is in its life.
    pub status: Status,
    /// How long it will still be left alone.
    #[serde(rename = "quarantined_for_ms", with = "millis::option")]
    pub quarantined_for: Option<Duration>,
    /// Which of its lives this is; 0 before the first.
    pub incarnation: Incarnation,
    /// How often it was started again.
    pub restarts: u64,
    /// Messages queued or in flight.
    pub depth: usize,
    /// How many there may be.
    pub capacity: usize,
    /// What became of the messages so far.
    pub traffic: Traffic,
    /// What it is handling.
    pub handling: Option<Handling>,
    /// The time spent in handlers.
    #[serde(rename = "busy_ms", with = "millis")]
    pub busy: Duration,
    /// The longest time spent in one.
    #[serde(rename = "slowest_ms", with = "millis")]
    pub slowest: Duration,
    /// How its last bad end came about.
    pub last_crash: Option<Crash>,
}

/// The nodes of one kind together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Census {
    /// How many there are of each status, in the order of [`Status::ALL`].
    pub by_status: [u64; Status::ALL.len()],
    /// Messages queued or in flight at all of them.
    pub depth: usize,
    /// At the one with the most.
    pub deepest: usize,
    /// How often those that are there were started again.
    pub restarts: u64,
}

/// A node that left the tree.
#[derive(Clone, Debug, Serialize)]
pub struct Dead {
    /// As it was then.
    #[serde(flatten)]
    pub node: NodeInfo,
    /// How long ago that was.
    #[serde(rename = "ago_ms", with = "millis")]
    pub ago: Duration,
}

/// How long a node has not been needed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idle {
    /// Its name.
    pub id: ChildId,
    /// Whether it is passive already.
    pub passive: bool,
    /// How long ago it was last told something by others.
    pub idle: Duration,
}

/// A node's status as it has just become.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// Its place in the tree.
    pub path: TreePath,
    /// What it is.
    pub kind: &'static str,
    /// Its status; none where it has left the tree.
    pub status: Option<Status>,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
}

/// A message that is being handled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Handling {
    /// Its kind.
    pub label: &'static str,
    /// Since how long.
    #[serde(rename = "lasting_ms", with = "millis")]
    pub lasting: Duration,
}
