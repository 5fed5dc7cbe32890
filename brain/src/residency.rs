//! Which twins stay in memory.
//!
//! A twin that nobody has needed for a while leaves memory, and so does the one that was needed
//! longest ago when there are too many, or when memory is short. It stays in the tree as passive,
//! and its device's connection stays as well. One whose device is away leaves the tree in the end.

mod choice;
mod memory;

use std::sync::Arc;
use std::time::Duration;

use actors::device::DeviceMsg;
use actors::supervise::{Context, Node, NodeError, TreeView};
use protocol::DeviceId;

use crate::config::Live;
use crate::devices::Devices;
use crate::link::Presence;

pub use choice::{Choice, Residency, Twin, choose};

/// The most often that twins are looked at.
const LOOK_EVERY_MIN: Duration = Duration::from_millis(250);
/// The least often.
const LOOK_EVERY_MAX: Duration = Duration::from_secs(5);
/// Under this key a twin is told to rest: once is enough.
const REST: u64 = 0;

/// What the actor starts from.
pub struct ResidencyArgs {
    /// Where the rules are.
    pub settings: Live,
    /// Where it is seen how long twins have been idle.
    pub tree: TreeView,
    /// The twins.
    pub devices: Devices,
    /// Whose devices are connected.
    pub presence: Presence,
}

/// What the actor is told.
pub enum ResidencyMsg {
    /// Look.
    LookDue,
}

/// The actor.
pub struct ResidencyKeeper {
    args: Arc<ResidencyArgs>,
}

impl Node for ResidencyKeeper {
    const KIND: &'static str = "residency";
    type Msg = ResidencyMsg;
    type Args = ResidencyArgs;

    fn start(args: &Arc<ResidencyArgs>, ctx: &Context<ResidencyMsg>) -> Result<Self, NodeError> {
        ctx.cast_self(ResidencyMsg::LookDue);
        Ok(Self { args: args.clone() })
    }

    async fn handle(
        &mut self,
        ctx: &Context<ResidencyMsg>,
        msg: ResidencyMsg,
    ) -> Result<(), NodeError> {
        let ResidencyMsg::LookDue = msg;
        let rules = self.args.settings.get().residency;
        self.look(&rules);
        let soonest = Duration::from_millis(rules.idle_after_ms.min(rules.forget_after_ms)) / 4;
        let every = soonest.clamp(LOOK_EVERY_MIN, LOOK_EVERY_MAX);
        ctx.cast_after(every, ResidencyMsg::LookDue);
        Ok(())
    }

    fn label(_: &ResidencyMsg) -> &'static str {
        "look_due"
    }
}

impl ResidencyKeeper {
    fn look(&self, rules: &Residency) {
        let ResidencyArgs { tree, devices, presence, .. } = &*self.args;
        let twins = tree.idle("device").into_iter().filter_map(|node| {
            let device: DeviceId = node.id.as_str().parse().ok()?;
            let connected = presence.of(device).is_some();
            Some(Twin { device, passive: node.passive, connected, idle: node.idle })
        });
        let short = memory::is_short(rules.memory_high_bytes);
        let Choice { rest, forget } = choose(twins.collect(), rules, short);
        if short {
            tracing::warn!(twins = rest.len(), "memory is short: twins leave it early");
        }
        for device in rest {
            // One with a full mailbox is not idle.
            if let Some(twin) = devices.running(device).filter(|twin| !twin.is_passive()) {
                let _ = twin.conflate(REST, DeviceMsg::Rest);
            }
        }
        forget.into_iter().for_each(|device| devices.dismiss(device));
    }
}
