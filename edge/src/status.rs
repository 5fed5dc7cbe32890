//! What the agent tells about itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use protocol::wire::LogPosition;
use protocol::{DeviceId, FleetId, PublicKey};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::metrics::Metrics;
use crate::presence::ModeNow;

/// How the agent is doing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The device.
    pub device_id: DeviceId,
    /// Its fleet, once enrolled.
    pub fleet: Option<FleetId>,
    /// What people call it, once enrolled.
    pub name: Option<String>,
    /// Whether it belongs to a fleet.
    pub enrolled: bool,
    /// Whether a session with the brain lasts.
    pub online: bool,
    /// Since when it has been online or offline, in milliseconds since the Unix epoch.
    pub since_ms: u64,
    /// The brain's address.
    pub server: Option<String>,
    /// How many entries wait for the brain.
    pub queue_depth: u64,
    /// How many bytes they take.
    pub queue_bytes: u64,
    /// How many entries were written since the start.
    pub entries_written: u64,
    /// How many changes were turned away because too much waits.
    pub queue_full: u64,
    /// How many entries the brain refused for good and were left out.
    pub entries_dropped: u64,
    /// How many sessions were welcomed since the start.
    pub sessions: u64,
    /// By how much the brain's clock is ahead of this one, in milliseconds, as last measured.
    pub clock_error_ms: Option<i64>,
    /// What went wrong last.
    pub last_error: Option<String>,
    /// What the brain said when it retired this device; none where it has not.
    #[serde(default)]
    pub retired: Option<String>,
    /// In which mode it works; none while it starts.
    #[serde(default)]
    pub mode: Option<ModeNow>,
    /// Why somebody at the device declared an emergency.
    #[serde(default)]
    pub emergency: Option<String>,
    /// What needs somebody, because it does not mend itself.
    #[serde(default)]
    pub alert: Option<String>,
    /// The root hash of the tree, as hexadecimal digits; only where it was asked for.
    pub root: Option<String>,
    /// How many leaves the tree has.
    pub leaves: u64,
    /// The agent's release.
    pub version: String,
}

/// What the parts of an agent show each other, through all their restarts.
#[derive(Debug, Clone)]
pub struct Board {
    status: Arc<watch::Sender<Status>>,
    position: Arc<watch::Sender<Option<LogPosition>>>,
    revision: Arc<watch::Sender<u64>>,
    log_revision: Arc<watch::Sender<u64>>,
    metrics: Arc<Metrics>,
    /// Told whenever a log of the tree changes.
    moved: Option<Arc<watch::Sender<u64>>>,
    /// Who may write in a shared tree now: keys, and the devices that hold them.
    members: Arc<watch::Sender<Arc<Members>>>,
    /// Told whenever that changes.
    members_moved: Option<Arc<watch::Sender<u64>>>,
}

/// Who may write in a shared tree: keys, and the devices that hold them.
pub type Members = BTreeMap<PublicKey, DeviceId>;

impl Board {
    /// The board of an agent that has just started.
    pub fn new(device_id: DeviceId, now_ms: u64) -> Self {
        let status = Status {
            device_id,
            fleet: None,
            name: None,
            enrolled: false,
            online: false,
            since_ms: now_ms,
            server: None,
            queue_depth: 0,
            queue_bytes: 0,
            entries_written: 0,
            queue_full: 0,
            entries_dropped: 0,
            sessions: 0,
            clock_error_ms: None,
            last_error: None,
            retired: None,
            mode: None,
            emergency: None,
            alert: None,
            root: None,
            leaves: 0,
            version: env!("CARGO_PKG_VERSION").to_owned(),
        };
        Self {
            status: Arc::new(watch::Sender::new(status)),
            position: Arc::new(watch::Sender::new(None)),
            revision: Arc::new(watch::Sender::new(0)),
            log_revision: Arc::new(watch::Sender::new(0)),
            metrics: Arc::default(),
            moved: None,
            members: Arc::default(),
            members_moved: None,
        }
    }

    /// The same, for one of many trees: `moved` counts whenever one of them moves, `members`
    /// whenever its members change.
    pub fn telling(self, moved: Arc<watch::Sender<u64>>, members: Arc<watch::Sender<u64>>) -> Self {
        Self { moved: Some(moved), members_moved: Some(members), ..self }
    }

    /// Who may write in a shared tree now.
    pub fn members(&self) -> Arc<Members> {
        self.members.borrow().clone()
    }

    /// These may write in a shared tree from now on.
    pub fn set_members(&self, members: Members) {
        let news = self.members.send_if_modified(|known| {
            let news = **known != members;
            *known = Arc::new(members);
            news
        });
        if let Some(moved) = self.members_moved.as_ref().filter(|_| news) {
            moved.send_modify(|times| *times += 1);
        }
    }

    /// What is counted.
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.metrics
    }

    /// The status now.
    pub fn status(&self) -> Status {
        self.status.borrow().clone()
    }

    /// Follows the status.
    pub fn watch_status(&self) -> watch::Receiver<Status> {
        self.status.subscribe()
    }

    /// Changes the status.
    pub fn update(&self, change: impl FnOnce(&mut Status)) {
        self.status.send_modify(change);
    }

    /// Follows where the own log durably stands.
    pub fn watch_position(&self) -> watch::Receiver<Option<LogPosition>> {
        self.position.subscribe()
    }

    /// The own log durably stands here.
    pub fn set_position(&self, position: LogPosition) {
        self.position.send_if_modified(|known| {
            let news = *known != Some(position);
            *known = Some(position);
            news
        });
    }

    /// Follows how often the tree's logs changed.
    pub fn watch_logs(&self) -> watch::Receiver<u64> {
        self.log_revision.subscribe()
    }

    /// How often they have changed.
    pub fn log_revision(&self) -> u64 {
        *self.log_revision.borrow()
    }

    /// The tree's logs have changed so often.
    pub fn set_log_revision(&self, revision: u64) {
        let news = self.log_revision.send_if_modified(|known| {
            let news = *known != revision;
            *known = revision;
            news
        });
        if let Some(moved) = self.moved.as_ref().filter(|_| news) {
            moved.send_modify(|times| *times += 1);
        }
    }

    /// Follows how often desired state changed.
    pub fn watch_revision(&self) -> watch::Receiver<u64> {
        self.revision.subscribe()
    }

    /// Desired state changed.
    pub fn bump_revision(&self) {
        self.revision.send_modify(|revision| *revision += 1);
    }
}
