//! The device listener: TCP, TLS 1.3, WebSocket, session.
//!
//! Every stage is bounded before the next begins: how fast connections are taken, how many shake
//! hands at once, how long and with how many bytes a peer may do so, and how much it may send
//! ahead of the store.

mod accounts;
mod admission;
mod connection;
mod connections;
mod drain;
mod listener;
mod metered;
mod presence;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use actors::supervise::Address;
use protocol::PublicKey;
use protocol::session::Limits;
use tokio::sync::Semaphore;

use crate::clock::SystemClock;
use crate::config::Live;
use crate::devices::Devices;
use crate::enrolment::EnrolmentMsg;
use crate::identity::Identity;
use crate::metrics::Metrics;
use crate::store::Store;

pub use accounts::Accounts;
pub use admission::Pace;
pub(crate) use connection::note_groups;
pub use connections::{Connections, ConnectionsMsg};
pub use drain::{Drain, Exit, Farewell};
pub use listener::{DeviceListener, ListenerArgs, ListenerMsg};
pub use presence::{Presence, Present, Stay};

/// How long a peer may take until it has proved itself.
const UNAUTHENTICATED_TIME_MAX: Duration = Duration::from_secs(10);
/// How many bytes a peer may send until then, TLS included.
const UNAUTHENTICATED_BYTES_MAX: u64 = 64 << 10;
/// How long a frame may take to leave.
const SEND_TIME_MAX: Duration = Duration::from_secs(30);
/// How many entries' bytes all devices together may have in memory on their way to disk.
const INGEST_BYTES_MAX: usize = 64 << 20;

/// Stands in for the keying material of a connection that has none. Benches know it too.
#[cfg(feature = "plain-text")]
const PLAIN_TEXT_EXPORTER: [u8; protocol::session::handshake::EXPORTER_BYTES] =
    *b"plain text on loopback, to bench";

/// What every connection needs.
pub struct Ingress {
    /// Who the brain is.
    pub identity: Identity,
    /// Where devices are kept.
    pub store: Store,
    /// The twins.
    pub devices: Devices,
    /// Who lets devices join.
    pub enrolment: Address<EnrolmentMsg>,
    /// The time.
    pub clock: SystemClock,
    /// The settings in force.
    pub settings: Live,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// What became of the entries of each device.
    pub accounts: Accounts,
    /// Which devices are connected.
    pub presence: Presence,
    /// Lets connections go when the brain stops.
    pub drain: Arc<Drain>,
    /// Bytes of entries that may still be taken in.
    ingest: Arc<Semaphore>,
    /// The key that this brain writes with.
    own_key: PublicKey,
}

impl Ingress {
    /// The rules of a link that opens now.
    fn limits(&self) -> Limits {
        let settings = self.settings.get();
        Limits { heartbeat_ms: settings.heartbeat_ms, credit_bytes: settings.credit_bytes }
    }

    /// What every connection needs, from the parts of the brain.
    #[expect(clippy::too_many_arguments, reason = "the parts of the brain")]
    pub fn new(
        identity: Identity,
        store: Store,
        devices: Devices,
        enrolment: Address<EnrolmentMsg>,
        clock: SystemClock,
        settings: Live,
        metrics: Arc<Metrics>,
        accounts: Accounts,
        presence: Presence,
        drain: Arc<Drain>,
    ) -> Self {
        let ingest = Arc::new(Semaphore::new(INGEST_BYTES_MAX));
        let own_key = identity.keypair.public();
        Self {
            identity,
            store,
            devices,
            enrolment,
            clock,
            settings,
            metrics,
            accounts,
            presence,
            drain,
            ingest,
            own_key,
        }
    }
}
