//! Every instrument of the brain, in one place.

use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use protocol::ErrorCode;

use crate::devices::Devices;
use crate::store::Store;

/// What is counted since the start.
pub struct Metrics {
    registry: Registry,
    /// TCP connections taken.
    pub connections_accepted: Counter,
    /// Devices connected.
    pub links_opened: Counter,
    /// Devices disconnected.
    pub links_closed: Counter,
    /// Bytes of frames received from devices.
    pub link_bytes_received: Counter,
    /// Bytes of frames sent to devices.
    pub link_bytes_sent: Counter,
    /// Entries received from devices, known ones included.
    pub entries_received: Counter,
    refusals: Family<RefusalLabels, Counter>,
    store: StoreGauges,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusalLabels {
    code: &'static str,
}

/// Copies of figures that the store keeps itself, taken at every scrape.
#[derive(Default)]
struct StoreGauges {
    syncs: Gauge,
    commits: Gauge,
    entries: Gauge,
    bytes: Gauge,
    refused_disk_full: Gauge,
    cache_hits: Gauge,
    cache_misses: Gauge,
    twins: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("fleet_brain"),
            connections_accepted: Counter::default(),
            links_opened: Counter::default(),
            links_closed: Counter::default(),
            link_bytes_received: Counter::default(),
            link_bytes_sent: Counter::default(),
            entries_received: Counter::default(),
            refusals: Family::default(),
            store: StoreGauges::default(),
        };
        metrics.register();
        metrics
    }
}

impl Metrics {
    /// Counts something that was refused.
    pub fn refused(&self, code: &ErrorCode) {
        self.refusals.get_or_create(&RefusalLabels { code: code.as_str() }).inc();
    }

    /// The figures in Prometheus' text format.
    pub fn scrape(&self, store: &Store, devices: &Devices) -> String {
        let (commits, cache) = (store.commit_counts(), store.cache_counts());
        let gauges = [
            (&self.store.syncs, commits.syncs),
            (&self.store.commits, commits.commits),
            (&self.store.entries, commits.entries),
            (&self.store.bytes, commits.bytes),
            (&self.store.refused_disk_full, commits.refused_disk_full),
            (&self.store.cache_hits, cache.hits),
            (&self.store.cache_misses, cache.misses),
            (&self.store.twins, devices.len() as u64),
        ];
        for (gauge, value) in gauges {
            gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        }
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = text::encode(&mut out, &self.registry);
        out
    }

    fn register(&mut self) {
        let registry = &mut self.registry;
        let counters = [
            ("connections_accepted", "TCP connections taken", &self.connections_accepted),
            ("links_opened", "Devices connected", &self.links_opened),
            ("links_closed", "Devices disconnected", &self.links_closed),
            ("entries_received", "Entries received from devices", &self.entries_received),
        ];
        for (name, help, counter) in counters {
            registry.register(name, help, counter.clone());
        }
        let received = self.link_bytes_received.clone();
        registry.register_with_unit("link_received", "Frames from devices", Unit::Bytes, received);
        let sent = self.link_bytes_sent.clone();
        registry.register_with_unit("link_sent", "Frames to devices", Unit::Bytes, sent);
        let refusals = self.refusals.clone();
        registry.register("refused", "Refused connections, frames and entries by code", refusals);
        let gauges = [
            ("store_syncs", "Batches committed, each with one fsync", &self.store.syncs),
            ("store_commits", "Commits in those batches", &self.store.commits),
            ("store_entries", "Entries committed", &self.store.entries),
            ("store_written_bytes", "Bytes handed to the database", &self.store.bytes),
            (
                "store_refused_disk_full",
                "Commits refused for want of disk space",
                &self.store.refused_disk_full,
            ),
            ("state_cache_hits", "State reads answered from memory", &self.store.cache_hits),
            (
                "state_cache_misses",
                "State reads that went to the database",
                &self.store.cache_misses,
            ),
            ("twins", "Twins in memory", &self.store.twins),
        ];
        for (name, help, gauge) in gauges {
            registry.register(name, help, gauge.clone());
        }
    }
}
