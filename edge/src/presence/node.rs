//! Watches the links and writes what changes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, Context, Node, NodeError};
use protocol::DeviceId;
use protocol::session::with_causes;
use protocol::state::Value;
use tokio::time::{Instant, sleep_until};

use super::mode::{ModeMachine, ModeNow, Seen};
use crate::clock::Clock;
use crate::peers::PeersBoard;
use crate::status::Board;
use crate::track;

/// Peers that come and go are told of no more often.
const PEERS_EVERY: Duration = Duration::from_secs(5);
/// With nothing to do.
const LONG: Duration = Duration::from_secs(3_600);

/// What the node is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// The time.
    pub clock: Clock,
    /// The links, and where the mode is shown.
    pub board: Board,
    /// The other devices.
    pub peers: PeersBoard,
    /// The keeper of the device's tree.
    pub track: Address<track::Msg>,
}

/// What the node is told.
pub enum Msg {
    /// Watch.
    Watch,
}

/// The node.
pub struct Presence {
    args: Arc<Args>,
}

impl Node for Presence {
    const KIND: &'static str = "presence";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Watch);
        Ok(Self { args: args.clone() })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Watch => {
                ctx.spawn("watch", watch(self.args.clone()));
            }
        }
        Ok(())
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Watch => "watch",
        }
    }
}

async fn watch(args: Arc<Args>) -> Result<(), NodeError> {
    let mut status = args.board.watch_status();
    let mut peers = args.peers.watch();
    let mut machine = ModeMachine::new(args.clock.mono_ms());
    let mut told = BTreeMap::new();
    let mut tell_peers_at = Instant::now();
    status.mark_changed();
    loop {
        let due = machine.due_ms().map_or(LONG, |due_ms| {
            Duration::from_millis(due_ms.saturating_sub(args.clock.mono_ms()))
        });
        tokio::select! {
            Ok(()) = status.changed() => {}
            Ok(()) = peers.changed(), if tell_peers_at <= Instant::now() => {}
            () = sleep_until(tell_peers_at), if tell_peers_at > Instant::now() => {}
            () = tokio::time::sleep(due) => {}
        }
        let seen = {
            let status = status.borrow_and_update();
            let emergency = status.emergency.clone();
            Seen { online: status.online, enrolled: status.enrolled, emergency }
        };
        if let Some((mode, why)) = machine.on(&seen, args.clock.mono_ms()) {
            tracing::info!(mode = mode.as_str(), why, "mode changes");
            let now = ModeNow { mode, since_ms: args.clock.wall_ms(), why };
            args.board.update(|status| status.mode = Some(now.clone()));
            let changes = [
                ("reported/mode/name", Value::from(mode.as_str())),
                ("reported/mode/why", Value::from(now.why)),
            ];
            write(&args, "mode", changes).await;
        }
        let connected = args.peers.connected();
        if connected != told && tell_peers_at <= Instant::now() {
            tell_peers(&args, &told, &connected).await;
            told = connected;
            tell_peers_at = Instant::now() + PEERS_EVERY;
        }
    }
}

/// Writes which other devices came and went.
async fn tell_peers(
    args: &Args,
    before: &BTreeMap<DeviceId, bool>,
    now: &BTreeMap<DeviceId, bool>,
) {
    let path = |device: &DeviceId| format!("reported/peers/{device}/connected");
    let changed = now.iter().filter(|(device, connected)| before.get(device) != Some(connected));
    let gone = before.iter().filter(|(device, was)| **was && !now.contains_key(device));
    let changed = changed.map(|(device, connected)| (path(device), Value::from(*connected)));
    let gone = gone.map(|(device, _)| (path(device), Value::from(false)));
    let changes: Vec<_> = changed.chain(gone).collect();
    let changes = changes.iter().map(|(path, value)| (path.as_str(), value.clone()));
    write(args, "peers", changes).await;
}

async fn write<'a>(args: &Args, reason: &str, changes: impl IntoIterator<Item = (&'a str, Value)>) {
    // A full queue is told of elsewhere; the status has it in any case.
    if let Err(error) =
        track::write(&args.track, track::report("agent", reason, changes), None).await
    {
        tracing::warn!(
            reason,
            error = with_causes(&error),
            "a change of the links is not recorded"
        );
    }
}
