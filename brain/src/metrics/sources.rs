//! Figures that other parts keep, read when somebody looks.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use actors::account::Account;
use actors::supervise::{Census, Status, TreeView};
use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use telemetry::Meters;

use crate::devices::Devices;
use crate::link::Accounts;
use crate::retention::Pruned;
use crate::store::{Store, StoreHealth};

/// How long a look serves all instruments, so that their figures belong together.
const LOOK_LASTS: Duration = Duration::from_millis(200);

/// The parts that keep figures themselves.
#[derive(Clone)]
pub struct Sources {
    /// The store.
    pub store: Store,
    /// What histories were shortened by.
    pub pruned: Pruned,
    /// The twins.
    pub devices: Devices,
    /// The supervision tree.
    pub tree: TreeView,
    /// What became of entries.
    pub accounts: Accounts,
}

/// What a look found: what is expensive to gather, or has to add up.
#[derive(Debug, Clone, Default)]
struct Look {
    entries: Account,
    actors: BTreeMap<&'static str, Census>,
}

struct Shared {
    sources: Sources,
    last: Mutex<Option<(Instant, Arc<Look>)>>,
}

impl Sources {
    /// Makes the instruments that show them.
    pub fn observe(self, meters: &Meters) {
        let meter = meters.meter("brain");
        self.observe_store(&meter);
        let shared = Arc::new(Shared { sources: self, last: Mutex::new(None) });
        observe_entries(&shared, &meter);
        observe_actors(&shared, &meter);
    }

    fn observe_store(&self, meter: &Meter) {
        let counter = |name, unit, description, value: fn(&Store) -> u64| {
            let store = self.store.clone();
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| observer.observe(value(&store), &[]))
                .build();
        };
        counter("fleet.store.syncs", "{sync}", "Batches made durable, each with one fsync", |of| {
            of.commit_counts().syncs
        });
        counter("fleet.store.commits", "{commit}", "Commits made durable", |of| {
            of.commit_counts().commits
        });
        counter(
            "fleet.store.entries",
            "{entry}",
            "Entries made durable, the brain's own included",
            |of| of.commit_counts().entries,
        );
        counter("fleet.store.io", "By", "Bytes handed to the database", |of| {
            of.commit_counts().bytes
        });
        let store = self.store.clone();
        meter
            .u64_observable_counter("fleet.store.commit.refused")
            .with_unit("{commit}")
            .with_description("Commits refused, by error.type")
            .with_callback(move |observer| {
                let full = [KeyValue::new("error.type", "DISK_FULL")];
                observer.observe(store.commit_counts().refused_disk_full, &full);
            })
            .build();
        let store = self.store.clone();
        meter
            .u64_observable_gauge("fleet.store.state")
            .with_unit("{store}")
            .with_description("1 at the state that the store is in, 0 at the others")
            .with_callback(move |observer| {
                let now = match store.health() {
                    StoreHealth::Ok => "ok",
                    StoreHealth::DiskFull => "disk_full",
                    StoreHealth::Failed { .. } => "failed",
                };
                for state in ["ok", "disk_full", "failed"] {
                    observer.observe(u64::from(state == now), &[KeyValue::new("state", state)]);
                }
            })
            .build();
        let store = self.store.clone();
        meter
            .u64_observable_counter("fleet.state_cache.lookups")
            .with_unit("{lookup}")
            .with_description("Reads of a device's state, by result: hit or miss")
            .with_callback(move |observer| {
                let counts = store.cache_counts();
                observer.observe(counts.hits, &[KeyValue::new("result", "hit")]);
                observer.observe(counts.misses, &[KeyValue::new("result", "miss")]);
            })
            .build();
        let pruned = self.pruned.clone();
        meter
            .u64_observable_counter("fleet.history.prunes")
            .with_unit("{tree}")
            .with_description("Times that the beginning of a history was let go")
            .with_callback(move |observer| observer.observe(pruned.trees(), &[]))
            .build();
        let devices = self.devices.clone();
        meter
            .i64_observable_up_down_counter("fleet.twin.count")
            .with_unit("{twin}")
            .with_description("Twins in the tree, passive ones included")
            .with_callback(move |observer| observer.observe(devices.len() as i64, &[]))
            .build();
    }
}

impl Shared {
    /// The last look, or a new one where that is too old.
    fn look(&self) -> Arc<Look> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((at, look)) = &*last
            && at.elapsed() < LOOK_LASTS
        {
            return look.clone();
        }
        let before = last.as_ref().map(|(_, look)| &**look);
        let look = Arc::new(Look::at(&self.sources, before));
        *last = Some((Instant::now(), look.clone()));
        look
    }
}

impl Look {
    /// A look now. Kinds of actors that were there at the last one are shown also where none is
    /// left, or their last figure would stay.
    fn at(sources: &Sources, last: Option<&Self>) -> Self {
        let mut actors = sources.tree.census();
        let before = last.into_iter().flat_map(|last| last.actors.keys());
        for kind in before {
            actors.entry(kind).or_default();
        }
        Self { entries: sources.accounts.total(), actors }
    }
}

fn observe_entries(shared: &Arc<Shared>, meter: &Meter) {
    let counter = |name, description, value: fn(&Account) -> u64| {
        let shared = shared.clone();
        meter
            .u64_observable_counter(name)
            .with_unit("{entry}")
            .with_description(description)
            .with_callback(move |observer| observer.observe(value(&shared.look().entries), &[]))
            .build();
    };
    counter("fleet.entry.received", "Entries read off links", |of| of.received);
    counter("fleet.entry.stored", "Received entries that are durable", |of| of.stored);
    counter("fleet.entry.duplicate", "Received entries that were known", |of| of.duplicate);
    let of = shared.clone();
    meter
        .u64_observable_counter("fleet.entry.refused")
        .with_unit("{entry}")
        .with_description("Received entries that were not taken, by error.type")
        .with_callback(move |observer| {
            for (reason, entries) in &of.look().entries.refused {
                observer.observe(*entries, &[KeyValue::new("error.type", reason.as_str())]);
            }
        })
        .build();
    let of = shared.clone();
    meter
        .i64_observable_up_down_counter("fleet.entry.in_flight")
        .with_unit("{entry}")
        .with_description("Received entries that are being judged or on their way to disk")
        .with_callback(move |observer| observer.observe(of.look().entries.in_flight as i64, &[]))
        .build();
}

fn observe_actors(shared: &Arc<Shared>, meter: &Meter) {
    let of = shared.clone();
    meter
        .i64_observable_up_down_counter("fleet.actor.count")
        .with_unit("{actor}")
        .with_description("Actors, by kind and status")
        .with_callback(move |observer| {
            for (kind, actors) in &of.look().actors {
                // Those of which there is none as well, or the last figure would stay.
                for (count, status) in actors.by_status.iter().zip(Status::ALL) {
                    let status = KeyValue::new("status", status.as_str());
                    observer.observe(*count as i64, &[KeyValue::new("kind", *kind), status]);
                }
            }
        })
        .build();
    let gauge = |name, unit, description, value: fn(&Census) -> u64| {
        let of = shared.clone();
        meter
            .u64_observable_gauge(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                for (kind, actors) in &of.look().actors {
                    observer.observe(value(actors), &[KeyValue::new("kind", *kind)]);
                }
            })
            .build();
    };
    gauge(
        "fleet.actor.restarts",
        "{restart}",
        "Restarts of the actors that are in the tree now, by kind",
        |of| of.restarts,
    );
    gauge(
        "fleet.actor.mailbox.depth",
        "{message}",
        "Messages that wait or are handled in all mailboxes of a kind",
        |of| of.depth as u64,
    );
    gauge(
        "fleet.actor.mailbox.depth.max",
        "{message}",
        "Messages in the fullest mailbox of a kind",
        |of| of.deepest as u64,
    );
}
