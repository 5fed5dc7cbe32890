//! Writes that are carried out only where something holds.

use std::borrow::Cow;

use protocol::query::Facts;
use protocol::session::Now;
use protocol::state::{Path, Value, Version};
use protocol::{DeviceId, ErrorCode, SyncError};

use super::twin::Twin;
use super::{Precondition, TreeActor, TreeOf, Whose, error};
use crate::supervise::Reply;

impl<W: Whose> TreeActor<W> {
    /// Gives the reply back where a precondition is met, and refuses where it is not.
    pub(super) fn if_met<T: Send + 'static>(
        &mut self,
        wanted: &Precondition,
        reply: Reply<Result<T, SyncError>>,
        now: Now,
    ) -> Option<Reply<Result<T, SyncError>>> {
        let current = self.twin_mut().version();
        let text = match (wanted.version, &wanted.query) {
            (Some(version), _) if version != current => {
                format!("the tree is at version {current}, not {version}")
            }
            (_, Some(query)) if !query.matches(&self.facts(), now.wall_ms) => {
                format!("at version {current} it does not hold that {query}")
            }
            _ => return Some(reply),
        };
        reply.send(Err(error(ErrorCode::PreconditionFailed, "write", text)));
        None
    }

    fn facts(&mut self) -> TwinFacts<'_> {
        let id = match self.args.of {
            TreeOf::Device { device, .. } => device,
            TreeOf::Group { .. } => DeviceId([0; 16]),
        };
        let online = self.links.any().is_some();
        TwinFacts { id, online, twin: self.twin_mut() }
    }
}

/// What a twin knows of its device.
struct TwinFacts<'a> {
    id: DeviceId,
    online: bool,
    twin: &'a Twin,
}

impl Facts for TwinFacts<'_> {
    fn id(&self) -> DeviceId {
        self.id
    }

    fn name(&self) -> &str {
        ""
    }

    fn is_online(&self) -> bool {
        self.online
    }

    fn version(&self) -> Version {
        self.twin.version()
    }

    fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.twin.value(path)
    }

    fn set_ms(&self, path: &Path) -> Option<u64> {
        let shown = self.twin.tree().decision(path)?;
        Some(shown.by.candidate.hlc.wall_ms)
    }
}
