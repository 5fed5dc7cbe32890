//! The devices that a query means, now or at a time.

use std::borrow::Cow;
use std::ops::ControlFlow;
use std::sync::Arc;

use actors::ports::ReadError;
use protocol::history::{Genesis, Tree, TreeKind};
use protocol::query::{Facts, Query};
use protocol::state::{Path, Value, Version};
use protocol::{DeviceId, FleetId};

use crate::link::Presence;
use crate::store::{DeviceRecord, Store, TreeAt, WhichVersion};

/// Which devices, and their states at which time.
pub struct Selection {
    /// Where devices are kept.
    pub store: Store,
    /// Which of them are connected.
    pub presence: Presence,
    /// The fleet.
    pub fleet: FleetId,
    /// Which are meant.
    pub query: Query,
    /// Which of their states.
    pub which: WhichVersion,
    /// The time now, in milliseconds since the Unix epoch.
    pub now_ms: u64,
}

impl Selection {
    /// Visits the devices that are meant, by id, those above `after`; a device whose state cannot be
    /// read is visited with the error. Ends as soon as it is not `wanted` any more. Blocks.
    pub fn each(
        &self,
        after: Option<DeviceId>,
        wanted: impl Fn() -> bool,
        mut visit: impl FnMut(DeviceRecord, Result<Option<Arc<TreeAt>>, ReadError>) -> ControlFlow<()>,
    ) -> Result<(), ReadError> {
        for record in self.store.devices()? {
            if after.is_some_and(|after| record.device <= after) {
                continue;
            }
            if !wanted() {
                break;
            }
            let looked_at = self.looked_at(&record);
            let is_whole = matches!(&looked_at, Ok(None | Some(Some(_))));
            if !is_whole && self.store.device(record.device)?.is_none() {
                // It was retired since the list was read.
                continue;
            }
            let flow = match looked_at {
                Ok(Some(state)) => visit(record, Ok(state)),
                Ok(None) => ControlFlow::Continue(()),
                Err(error) => visit(record, Err(error)),
            };
            if flow.is_break() {
                break;
            }
        }
        Ok(())
    }

    /// The state of a device that is meant; none where it is not.
    fn looked_at(&self, record: &DeviceRecord) -> Result<Option<Option<Arc<TreeAt>>>, ReadError> {
        let (kind, fleet) = (TreeKind::Device, self.fleet);
        let genesis = Genesis { kind, fleet, name: record.device.to_string() };
        let number = self.store.tree_number(genesis.tree_id())?;
        let state = match number {
            Some(number) => self.store.state(number, self.which)?,
            None => None,
        };
        // At a time before it had one.
        let state = state.filter(|state| state.version > 0);
        let tree = match number.filter(|_| self.query.looks_at().at_age) {
            Some(number) => self.store.tree_at(number, self.which)?,
            None => None,
        };
        let online = self.presence.of(record.device).is_some();
        let known = Known { record, online, state: state.as_deref(), tree };
        Ok(self.query.matches(&known, self.at_ms()).then_some(state))
    }

    /// The time that is asked for.
    fn at_ms(&self) -> u64 {
        match self.which {
            WhichVersion::CommittedBy(ms) | WhichVersion::HappenedBy(ms) => ms,
            WhichVersion::Latest | WhichVersion::At(_) => self.now_ms,
        }
    }
}

/// What is known of a device.
struct Known<'a> {
    record: &'a DeviceRecord,
    online: bool,
    state: Option<&'a TreeAt>,
    /// Where the query looks at when leaves were set.
    tree: Option<Tree>,
}

impl Facts for Known<'_> {
    fn id(&self) -> DeviceId {
        self.record.device
    }

    fn name(&self) -> &str {
        &self.record.name
    }

    fn is_online(&self) -> bool {
        self.online
    }

    fn version(&self) -> Version {
        self.state.map_or(0, |state| state.version)
    }

    fn value(&self, path: &Path) -> Option<Cow<'_, Value>> {
        self.state?.state.get(path).map(Cow::Borrowed)
    }

    fn set_ms(&self, path: &Path) -> Option<u64> {
        let shown = self.tree.as_ref()?.decision(path)?;
        Some(shown.by.candidate.hlc.wall_ms)
    }
}
