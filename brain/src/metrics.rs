//! Every instrument of the brain, in one place.
//!
//! Names and units follow the OpenTelemetry conventions; `/metrics` shows them as Prometheus
//! spells them. What happens often is counted in plain atomics that are read when somebody looks,
//! so that a frame costs an addition; what is rare, and times, go to the instruments directly.
//! `ops/guides/metrics.md` says what each means.

mod sources;

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use actors::supervise::{Crash, CrashSink, Decision, Timings, Verdict};
use opentelemetry::KeyValue;
use opentelemetry::metrics::{Counter, Histogram, Meter};
use protocol::ErrorCode;
use telemetry::Meters;

use crate::store::SyncReport;

pub use sources::Sources;

/// From half a millisecond, which is a fast disk's `fsync`, to the ten seconds after which a
/// handshake is given up.
const SECONDS: [f64; 14] =
    [0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// From ten microseconds, which most messages stay below, to what is stuck.
const HANDLER_SECONDS: [f64; 9] =
    [0.000_01, 0.000_05, 0.000_1, 0.000_5, 0.001, 0.01, 0.1, 1.0, 10.0];
/// Up to the most commits that one `fsync` covers.
const GROUP_SIZES: [f64; 11] =
    [1.0, 2.0, 5.0, 10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1_000.0, 2_000.0];

/// What is counted since the start.
#[derive(Debug)]
pub struct Metrics {
    frequent: Arc<Frequent>,
    connections_refused: Counter<u64>,
    links_closed: Counter<u64>,
    crashes: Counter<u64>,
    handshake_seconds: Histogram<f64>,
    acknowledgement_seconds: Histogram<f64>,
    request_seconds: Histogram<f64>,
    sync_seconds: Histogram<f64>,
    handler_seconds: Histogram<f64>,
    sync_commits: Histogram<u64>,
}

/// What is counted at every frame.
#[derive(Debug, Default)]
struct Frequent {
    connections_accepted: AtomicU64,
    links_opened: AtomicU64,
    links_active: AtomicI64,
    frames_received: AtomicU64,
    frames_sent: AtomicU64,
    bytes_received: AtomicU64,
    bytes_sent: AtomicU64,
}

impl Metrics {
    /// The instruments of a brain.
    pub fn new(meters: &Meters) -> Self {
        let meter = meters.meter("brain");
        telemetry::process::observe(&meters.meter("process"));
        let seconds = |name, description| {
            let histogram = meter.f64_histogram(name).with_unit("s").with_description(description);
            histogram.with_boundaries(SECONDS.to_vec()).build()
        };
        let counter = |name, unit, description| {
            meter.u64_counter(name).with_unit(unit).with_description(description).build()
        };
        let frequent = Arc::new(Frequent::default());
        frequent.observe(&meter);
        Self {
            connections_refused: counter(
                "fleet.connection.refused",
                "{connection}",
                "Device connections refused before there was a link, by error.type",
            ),
            links_closed: counter(
                "fleet.link.closed",
                "{link}",
                "Devices disconnected, by reason: an error's code, or LOST without a goodbye",
            ),
            crashes: counter(
                "fleet.actor.crashes",
                "{crash}",
                "Actors that ended badly, by kind and what was decided",
            ),
            handshake_seconds: seconds(
                "fleet.link.handshake.duration",
                "From a connection taken to a device known",
            ),
            acknowledgement_seconds: seconds(
                "fleet.entry.acknowledgement.duration",
                "From a batch of entries read to its acknowledgement queued",
            ),
            request_seconds: seconds(
                "http.server.request.duration",
                "Requests to the API, by method, route and status",
            ),
            sync_seconds: seconds(
                "fleet.store.sync.duration",
                "Batches written to the database, each with its fsync",
            ),
            handler_seconds: meter
                .f64_histogram("fleet.actor.handler.duration")
                .with_unit("s")
                .with_description("Messages handled, by kind of actor and message")
                .with_boundaries(HANDLER_SECONDS.to_vec())
                .build(),
            sync_commits: meter
                .u64_histogram("fleet.store.sync.commits")
                .with_unit("{commit}")
                .with_description("Commits that one fsync covered")
                .with_boundaries(GROUP_SIZES.to_vec())
                .build(),
            frequent,
        }
    }

    /// A TCP connection was taken.
    pub fn connection_accepted(&self) {
        self.frequent.connections_accepted.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection was refused before there was a link.
    pub fn connection_refused(&self, code: ErrorCode) {
        self.connections_refused.add(1, &[KeyValue::new("error.type", code.as_str())]);
    }

    /// A device is connected, until what is given back is dropped; its handshake took so long.
    pub fn link_opened(self: &Arc<Self>, handshake: Duration) -> ActiveLink {
        self.frequent.links_opened.fetch_add(1, Ordering::Relaxed);
        self.frequent.links_active.fetch_add(1, Ordering::Relaxed);
        self.handshake_seconds.record(handshake.as_secs_f64(), &[]);
        ActiveLink { metrics: self.clone(), reason: None }
    }

    fn link_closed(&self, code: Option<ErrorCode>) {
        self.frequent.links_active.fetch_sub(1, Ordering::Relaxed);
        let reason = code.map_or("LOST", ErrorCode::as_str);
        self.links_closed.add(1, &[KeyValue::new("reason", reason)]);
    }

    /// A frame came from a device.
    pub fn frame_received(&self, bytes: usize) {
        self.frequent.frames_received.fetch_add(1, Ordering::Relaxed);
        self.frequent.bytes_received.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A frame goes to a device.
    pub fn frame_sent(&self, bytes: usize) {
        self.frequent.frames_sent.fetch_add(1, Ordering::Relaxed);
        self.frequent.bytes_sent.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// A batch of entries was acknowledged, so long after it came.
    pub fn acknowledged(&self, after: Duration) {
        self.acknowledgement_seconds.record(after.as_secs_f64(), &[]);
    }

    /// The API answered a request.
    pub fn request(&self, method: &'static str, route: Option<&str>, status: u16, took: Duration) {
        let mut attributes = vec![
            KeyValue::new("http.request.method", method),
            KeyValue::new("http.response.status_code", i64::from(status)),
        ];
        attributes.extend(route.map(|route| KeyValue::new("http.route", route.to_owned())));
        self.request_seconds.record(took.as_secs_f64(), &attributes);
    }

    /// The store made a group of commits durable.
    pub fn synced(&self, report: SyncReport) {
        self.sync_seconds.record(report.took.as_secs_f64(), &[]);
        self.sync_commits.record(report.commits, &[]);
    }
}

/// A link that is counted as active.
#[derive(Debug)]
pub struct ActiveLink {
    metrics: Arc<Metrics>,
    reason: Option<ErrorCode>,
}

impl ActiveLink {
    /// It ends, for a reason or without one.
    pub fn close(mut self, reason: Option<ErrorCode>) {
        self.reason = reason;
    }
}

impl Drop for ActiveLink {
    fn drop(&mut self) {
        self.metrics.link_closed(self.reason);
    }
}

impl Timings for Metrics {
    fn handled(&self, kind: &'static str, label: &'static str, took: Duration) {
        let attributes = [KeyValue::new("actor.kind", kind), KeyValue::new("message", label)];
        self.handler_seconds.record(took.as_secs_f64(), &attributes);
    }
}

impl CrashSink for Metrics {
    fn crashed(&self, crash: &Crash, verdict: Verdict) {
        let decision = match verdict.decision {
            Decision::Restart { .. } => "restart",
            Decision::Quarantine { .. } => "quarantine",
            Decision::Escalate => "escalate",
            Decision::LetGo => "let_go",
            Decision::Stopping => "stopping",
        };
        let attributes = [KeyValue::new("kind", crash.kind), KeyValue::new("decision", decision)];
        self.crashes.add(1, &attributes);
    }
}

impl Frequent {
    fn observe(self: &Arc<Self>, meter: &Meter) {
        let counter = |name, unit, description, value: fn(&Self) -> &AtomicU64| {
            let of = self.clone();
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    observer.observe(value(&of).load(Ordering::Relaxed), &[]);
                })
                .build();
        };
        counter(
            "fleet.connection.accepted",
            "{connection}",
            "TCP connections taken from devices",
            |of| &of.connections_accepted,
        );
        counter("fleet.link.opened", "{link}", "Devices connected", |of| &of.links_opened);
        let both = |name, unit, description, values: fn(&Self) -> [&AtomicU64; 2]| {
            let of = self.clone();
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    for (value, direction) in values(&of).into_iter().zip(["receive", "transmit"]) {
                        let direction = [KeyValue::new("network.io.direction", direction)];
                        observer.observe(value.load(Ordering::Relaxed), &direction);
                    }
                })
                .build();
        };
        both("fleet.link.frames", "{frame}", "Frames from and to devices", |of| {
            [&of.frames_received, &of.frames_sent]
        });
        both("fleet.link.io", "By", "Bytes of frames from and to devices, before TLS", |of| {
            [&of.bytes_received, &of.bytes_sent]
        });
        let of = self.clone();
        meter
            .i64_observable_up_down_counter("fleet.link.active")
            .with_unit("{link}")
            .with_description("Devices connected now")
            .with_callback(move |observer| {
                observer.observe(of.links_active.load(Ordering::Relaxed), &[]);
            })
            .build();
    }
}

#[cfg(test)]
mod tests {
    use std::hint::black_box;
    use std::time::Instant;

    use actors::account::{Ledger, Outcome};

    use super::*;

    #[test]
    fn counting_a_frame_is_cheap() {
        const FRAMES: u32 = 200_000;
        let metrics = Metrics::new(&Meters::scraped_only());
        let ledger = Arc::new(Ledger::default());
        let outcome = Outcome { stored: 3, ..Outcome::default() };
        let began = Instant::now();
        for _ in 0..FRAMES {
            metrics.frame_received(black_box(100));
        }
        let frame = began.elapsed() / FRAMES;
        let began = Instant::now();
        for _ in 0..FRAMES {
            ledger.take(black_box(3)).settle(&outcome);
            metrics.acknowledged(Duration::from_millis(2));
        }
        let batch = began.elapsed() / FRAMES;
        println!("a frame costs {frame:?}, the account of a batch {batch:?}");
        // Far above what it takes, for a machine that is busy; a lock that is waited for is more.
        assert!(frame < Duration::from_micros(1), "{frame:?}");
        assert!(batch < Duration::from_micros(10), "{batch:?}");
    }

    #[test]
    fn what_is_counted_is_shown_with_its_unit() {
        let meters = Meters::scraped_only();
        let metrics = Arc::new(Metrics::new(&meters));
        metrics.connection_accepted();
        metrics.connection_refused(ErrorCode::BadToken);
        let _lasting = metrics.link_opened(Duration::from_millis(3));
        drop(metrics.link_opened(Duration::from_millis(3)));
        metrics.link_opened(Duration::from_millis(3)).close(Some(ErrorCode::GoingAway));
        metrics.handled("device", "write", Duration::from_micros(20));
        metrics.frame_sent(7);
        metrics.request("GET", Some("/api/v1/devices/{id}"), 200, Duration::from_millis(1));
        let text = meters.scrape();
        for line in [
            "fleet_connection_accepted_total 1",
            "fleet_connection_refused_total{error_type=\"BAD_TOKEN\"} 1",
            "fleet_link_active 1",
            "fleet_link_closed_total{reason=\"GOING_AWAY\"} 1",
            "fleet_link_closed_total{reason=\"LOST\"} 1",
            "fleet_link_io_bytes_total{network_io_direction=\"transmit\"} 7",
            "fleet_link_handshake_duration_seconds_bucket{le=\"0.0025\"} 0",
            "fleet_link_handshake_duration_seconds_bucket{le=\"0.005\"} 3",
            "fleet_actor_handler_duration_seconds_count{actor_kind=\"device\",message=\"write\"} 1",
        ] {
            assert!(text.lines().any(|shown| shown == line), "{line} in\n{text}");
        }
        assert!(text.contains("http_route=\"/api/v1/devices/{id}\""), "{text}");
    }
}
