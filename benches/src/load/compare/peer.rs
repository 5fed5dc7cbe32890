//! What all that is compared has in common.

use serde::Serialize;

use crate::load::Settings;
use crate::load::measure::Latency;

/// A system that acknowledges updates.
pub(super) trait Peer {
    /// Lets it work for a round.
    fn round(&mut self, settings: &Settings) -> anyhow::Result<Round>;
}

/// What one round of a system measured. Costs are for each acknowledged update.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Round {
    pub(super) updates_per_second: f64,
    pub(super) latency: Latency,
    pub(super) server_cpu_us: f64,
    /// None where client and server are one.
    pub(super) client_cpu_us: Option<f64>,
    pub(super) disk_bytes: f64,
}
