//! What the bench and its client processes say to each other: a line of JSON each way.

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

/// What a client process is told.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Order {
    /// Make devices and enrol them. Comes first, once.
    Enrol(Enrol),
    /// Connect all devices, and again whenever a connection ends.
    Connect {
        /// How many may be connecting at once.
        at_once: usize,
    },
    /// Drop all connections without a word.
    Disconnect,
    /// Write updates from now on.
    Write(Writing),
    /// Write nothing more.
    Rest,
    /// Answer once all devices are as they were told to be.
    Await {
        /// What to wait for.
        until: Until,
        /// How long.
        time_max_ms: u64,
    },
    /// Answer with what was counted since the last snapshot.
    Snapshot,
}

/// Who the devices are and where they go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Enrol {
    pub(super) brain: SocketAddr,
    /// The loopback address that they call from.
    pub(super) source: IpAddr,
    /// The brain's authority, as PEM; none without TLS.
    pub(super) authority: Option<String>,
    pub(super) token: String,
    pub(super) devices: usize,
    /// What the devices write follows from it.
    pub(super) seed: u64,
    /// The bytes of a text that every update sets; none for a number from a sensor.
    pub(super) payload_bytes: Option<usize>,
    /// The share of updates that are traced.
    pub(super) traced_share: f64,
}

/// How devices write.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(super) struct Writing {
    /// How many updates of a device may be on their way at once.
    pub(super) in_flight: usize,
    /// Updates in a second for each device; 0 as fast as they are acknowledged.
    pub(super) rate: f64,
    /// How many updates each device writes; none for no end.
    pub(super) updates: Option<u64>,
}

/// A condition of all devices of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Until {
    /// Every device is connected.
    Connected,
    /// None is.
    Disconnected,
    /// Every update that was to be written is written and acknowledged.
    Stored,
    /// Every device was told this number by an operator.
    Told(i64),
}

/// What a client process answers.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// The devices are enrolled, and these are their ids.
    Enrolled { ids: Vec<String> },
    /// It is done; what was awaited came true at this moment.
    Done { at_us: u64 },
    /// What was counted.
    Snapshot(Box<Counts>),
    /// When each device was told the number, by its place in the list of ids.
    Told { at_us: Vec<u64> },
    /// It cannot be done.
    Failed { error: String },
}

/// What a client counted since the last snapshot.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Counts {
    /// When it was taken.
    pub(super) at_us: u64,
    /// Acknowledged updates.
    pub(super) stored: u64,
    /// Updates that wait for acknowledgement now.
    pub(super) pending: u64,
    /// Connections that ended by themselves.
    pub(super) lost: u64,
    /// Why the last one did, or could not be made.
    pub(super) last_error: Option<String>,
    /// Microseconds from the moment an update was due to its acknowledgement, with how often.
    pub(super) latency_us: Vec<(u64, u64)>,
    /// Microseconds from the first packet to the end of the handshake, with how often.
    pub(super) connect_us: Vec<(u64, u64)>,
    pub(super) wire_sent: u64,
    pub(super) wire_received: u64,
    pub(super) frames_sent: u64,
    pub(super) frames_received: u64,
    pub(super) frame_bytes_sent: u64,
    pub(super) frame_bytes_received: u64,
}

/// Microseconds on the clock that all processes of the machine share.
pub(super) fn clock_us() -> u64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    now.tv_sec as u64 * 1_000_000 + now.tv_nsec as u64 / 1_000
}
