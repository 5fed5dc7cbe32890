//! How far a write has come: stored at the brain, delivered to the device, applied by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use actors::device::{Clock, DeviceMsg};
use protocol::history::LogId;
use protocol::state::Path;
use serde::{Deserialize, Serialize};
use tokio::sync::broadcast::Receiver;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::conflicts::reach;
use super::subject::Subject;
use super::{Api, ChangeEvent, Problem};
use crate::store::not_found;
use crate::why::{self, Hold};

/// How long is waited where nobody says how long.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The longest that is waited: a caller who can wait longer can ask again.
const TIMEOUT_MAX: Duration = Duration::from_secs(300);
/// So often it is asked whether the device has it.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// How long a twin may take to say that.
const TWIN_TIME_MAX: Duration = Duration::from_secs(5);

/// How far a write has come.
#[derive(
    Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// It is on the brain's disk.
    #[default]
    Stored,
    /// It is on the device's disk.
    Delivered,
    /// The device says that it is in force.
    Applied,
}

/// How far a write is to come, and by when.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wait {
    level: Level,
    until: Instant,
}

/// How far one came.
pub(super) struct Reached {
    pub(super) level: Level,
    /// What keeps it from coming further, by path below `desired/`.
    pub(super) held_by: BTreeMap<String, Vec<Hold>>,
}

impl Wait {
    pub(super) fn new(level: Level, timeout_ms: Option<u64>) -> Self {
        let timeout = timeout_ms.map_or(TIMEOUT, Duration::from_millis).min(TIMEOUT_MAX);
        Self { level, until: Instant::now() + timeout }
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// Changes from now on, where the device's answer is waited for.
    pub(super) fn watch(&self, api: &Api) -> Option<Receiver<ChangeEvent>> {
        (self.level == Level::Applied).then(|| api.changes.subscribe())
    }

    /// Waits until a write, which is stored, has come as far as it is to, or the time is over. What
    /// fails on the way changes nothing of that it is stored.
    pub(super) async fn until_reached(
        self,
        api: &Api,
        subject: &Subject,
        watch: Option<Receiver<ChangeEvent>>,
        at: Option<(LogId, u64)>,
        paths: BTreeSet<Path>,
    ) -> Reached {
        let mut reached = Reached { level: Level::Stored, held_by: BTreeMap::new() };
        if self.level == Level::Stored {
            return reached;
        }
        let look = async || outstanding(api, subject, &paths).await.ok();
        if !self.is_delivered(api, subject, at).await {
            reached.held_by = look().await.unwrap_or_default();
            return reached;
        }
        reached.level = Level::Delivered;
        let (Some(mut watch), Subject::Device(device)) = (watch, subject) else { return reached };
        let name = device.to_string();
        loop {
            if let Some(held) = look().await {
                if held.is_empty() {
                    reached.level = Level::Applied;
                    reached.held_by = held;
                    return reached;
                }
                reached.held_by = held;
            }
            // One that missed some looks again all the same.
            let of_it = async {
                while let Ok(event) = watch.recv().await {
                    if event.name == name {
                        break;
                    }
                }
            };
            if timeout_at(self.until, of_it).await.is_err() {
                return reached;
            }
        }
    }

    async fn is_delivered(&self, api: &Api, subject: &Subject, at: Option<(LogId, u64)>) -> bool {
        // Nothing of these leaves was ever written here.
        let Some((log, seq)) = at else { return true };
        loop {
            let ask = |reply| DeviceMsg::IsDelivered { log, seq, reply };
            // One that is restarting is asked again.
            if let Ok(twin) = subject.twin(api).await
                && twin.ask(ask, TWIN_TIME_MAX).await.unwrap_or(false)
            {
                return true;
            }
            if Instant::now() + ASK_EVERY > self.until {
                return false;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    }
}

/// What of the leaves is not in force, and what holds it.
async fn outstanding(
    api: &Api,
    subject: &Subject,
    paths: &BTreeSet<Path>,
) -> Result<BTreeMap<String, Vec<Hold>>, Problem> {
    let Subject::Device(device) = *subject else { return Ok(BTreeMap::new()) };
    let below = |path: &Path| path.below("desired").map(str::to_owned);
    let wanted: Vec<String> = paths.iter().filter_map(below).collect();
    let (reach, now_ms) = (reach(api, device), api.clock.now().wall_ms);
    let read = subject.clone().read(api.clone(), move |store, number| {
        let missing = || Problem::from(not_found("the device's state"));
        let (_, tree) = store.replica(number)?.ok_or_else(missing)?;
        Ok(why::outstanding(store, number, &tree, reach, now_ms)?)
    });
    let mut leaves = read.await?.0;
    let held = wanted.into_iter().filter_map(|path| {
        let outstanding = leaves.remove(&path)?;
        Some((path, outstanding.device.held_by))
    });
    Ok(held.collect())
}
