//! The link to the brain: joins a fleet where the device has none, then keeps a session up.
//!
//! One task calls, talks until the connection ends, waits and calls again, for as long as the
//! agent runs. What it says comes from the protocol's session; what it stores goes to
//! [`track`](crate::track). If it fails, it starts anew and loses nothing: whatever the brain has
//! not acknowledged is in the spool.

mod backoff;
mod calling;
mod choice;
mod dial;
mod enrol;
mod schedule;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use actors::supervise::{Address, Context, Node, NodeError};
use protocol::compress::Compression;
use tokio::sync::{oneshot, watch};
use tokio::time::timeout;
use url::Url;

pub use backoff::Backoff;
pub use choice::ServerChoice;
pub use dial::DialError;
pub use enrol::{EnrolError, enrol};
pub use schedule::{Next, Schedule};

use crate::clock::Clock;
use crate::config::Secret;
use crate::enrolment::Request;
use crate::identity::Identity;
use crate::shares::Shares;
use crate::status::Board;
use crate::track;
use calling::Calling;

/// How long the last session may take to say goodbye.
const STOP_PATIENCE: Duration = Duration::from_secs(4);

/// What the link is built from.
#[derive(Debug, Clone)]
pub struct Args {
    /// This device.
    pub identity: Identity,
    /// Where its enrolment lies.
    pub data_dir: PathBuf,
    /// The time.
    pub clock: Clock,
    /// Where to show how it goes.
    pub board: Board,
    /// The keeper of the tree.
    pub track: Address<track::Msg>,
    /// The trees that this device shares.
    pub shares: Shares,
    /// How to join a fleet, if it is known.
    pub request: Option<Request>,
    /// The brain's address by configuration, if it is set.
    pub server: Option<Url>,
    /// The brain's address by desired state.
    pub wanted_server: watch::Receiver<Option<Url>>,
    /// The API key by configuration, in place of the enrolment's.
    pub api_key: Option<Secret>,
    /// The certificate authority by configuration, in place of the enrolment's.
    pub ca_pem: Option<String>,
    /// The compressions to offer, as bits.
    pub compressions: u8,
}

/// What the link is told.
pub enum Msg {
    /// Call the brain, and keep calling.
    Run,
}

/// The link's node.
pub struct Uplink {
    args: Arc<Args>,
    stop: watch::Sender<bool>,
    done: Option<oneshot::Receiver<()>>,
}

impl Node for Uplink {
    const KIND: &'static str = "uplink";
    type Msg = Msg;
    type Args = Args;

    fn start(args: &Arc<Args>, ctx: &Context<Msg>) -> Result<Self, NodeError> {
        ctx.cast_self(Msg::Run);
        Ok(Self { args: args.clone(), stop: watch::Sender::new(false), done: None })
    }

    async fn handle(&mut self, ctx: &Context<Msg>, msg: Msg) -> Result<(), NodeError> {
        match msg {
            Msg::Run => {
                let (tell, done) = oneshot::channel();
                self.done = Some(done);
                let caller = Calling { args: self.args.clone(), stop: self.stop.subscribe() };
                ctx.spawn("link", async move {
                    caller.run().await?;
                    // Nobody waits for it unless the agent stops.
                    let _ = tell.send(());
                    Ok(())
                });
                Ok(())
            }
        }
    }

    async fn stopping(&mut self, _: &Context<Msg>) {
        self.stop.send_replace(true);
        if let Some(done) = self.done.take() {
            // Whoever does not come to an end in time is cut off; the brain sees that as well.
            let _ = timeout(STOP_PATIENCE, done).await;
        }
    }

    fn label(msg: &Msg) -> &'static str {
        match msg {
            Msg::Run => "run",
        }
    }
}

/// The compressions of a device with memory to spare.
pub fn all_compressions() -> u8 {
    Compression::None.bit() | Compression::Gzip.bit() | Compression::Zstd.bit()
}
