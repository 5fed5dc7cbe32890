//! How the figures are named and read.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;
use telemetry::Meters;

use super::Metrics;

/// Where a figure is counted.
type Value = fn(&Metrics) -> &AtomicU64;

/// Makes every instrument of the agent.
pub(super) fn observe(metrics: &Arc<Metrics>, meters: &Meters) {
    telemetry::process::observe(&meters.meter("process"));
    let meter = meters.meter("edge");
    observe_uplink(metrics, &meter);
    observe_queue(metrics, &meter);
    observe_spool(metrics, &meter);
    observe_sensors(metrics, &meter);
}

fn counter(
    metrics: &Arc<Metrics>,
    meter: &Meter,
    (name, unit, description): (&'static str, &'static str, &'static str),
    value: Value,
) {
    let of = metrics.clone();
    meter
        .u64_observable_counter(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            observer.observe(value(&of).load(Ordering::Relaxed), &[]);
        })
        .build();
}

/// A counter with two series, told apart by an attribute.
fn counters(
    metrics: &Arc<Metrics>,
    meter: &Meter,
    (name, unit, description): (&'static str, &'static str, &'static str),
    attribute: &'static str,
    series: [(&'static str, Value); 2],
) {
    let of = metrics.clone();
    meter
        .u64_observable_counter(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            for (which, value) in series {
                let which = [KeyValue::new(attribute, which)];
                observer.observe(value(&of).load(Ordering::Relaxed), &which);
            }
        })
        .build();
}

fn gauge(
    metrics: &Arc<Metrics>,
    meter: &Meter,
    (name, unit, description): (&'static str, &'static str, &'static str),
    value: fn(&Metrics) -> Option<f64>,
) {
    let of = metrics.clone();
    meter
        .f64_observable_gauge(name)
        .with_unit(unit)
        .with_description(description)
        .with_callback(move |observer| {
            value(&of).into_iter().for_each(|value| observer.observe(value, &[]));
        })
        .build();
}

fn observe_uplink(metrics: &Arc<Metrics>, meter: &Meter) {
    let direction = "network.io.direction";
    counters(
        metrics,
        meter,
        ("fleet.uplink.frames", "{frame}", "Frames from and to the brain"),
        direction,
        [("receive", |of| &of.frames_received), ("transmit", |of| &of.frames_sent)],
    );
    counters(
        metrics,
        meter,
        ("fleet.uplink.io", "By", "Bytes of frames from and to the brain, compressed, before TLS"),
        direction,
        [("receive", |of| &of.bytes_received), ("transmit", |of| &of.bytes_sent)],
    );
    counter(
        metrics,
        meter,
        (
            "fleet.uplink.transmit.uncompressed",
            "By",
            "Bytes of frames to the brain before they were compressed",
        ),
        |of| &of.bytes_sent_plain,
    );
    let of = metrics.clone();
    meter
        .u64_observable_gauge("fleet.uplink.state")
        .with_unit("{link}")
        .with_description("1 at the state that the link to the brain is in, 0 at the other")
        .with_callback(move |observer| {
            let online = of.online.load(Ordering::Relaxed);
            observer.observe(u64::from(online), &[KeyValue::new("state", "online")]);
            observer.observe(u64::from(!online), &[KeyValue::new("state", "offline")]);
        })
        .build();
    counters(
        metrics,
        meter,
        ("fleet.uplink.sessions", "{session}", "Sessions with the brain, by outcome"),
        "outcome",
        [("welcomed", |of| &of.sessions_welcomed), ("failed", |of| &of.sessions_failed)],
    );
    gauge(
        metrics,
        meter,
        (
            "fleet.uplink.failures.consecutive",
            "{session}",
            "Sessions that failed since the last that was welcomed",
        ),
        |of| Some(of.failures_in_a_row.load(Ordering::Relaxed) as f64),
    );
    gauge(
        metrics,
        meter,
        (
            "fleet.uplink.sync.duration",
            "s",
            "From the last welcome after which everything got through until it had",
        ),
        |of| of.last_sync().map(|took| took.as_secs_f64()),
    );
}

fn observe_queue(metrics: &Arc<Metrics>, meter: &Meter) {
    let counter = |name, description, value: fn(&Metrics) -> u64| {
        let of = metrics.clone();
        meter
            .u64_observable_counter(name)
            .with_unit("{entry}")
            .with_description(description)
            .with_callback(move |observer| observer.observe(value(&of), &[]))
            .build();
    };
    counter("fleet.queue.recovered", "Entries found in the spool", |of| of.account().recovered);
    counter("fleet.queue.enqueued", "Entries to be written", |of| of.account().enqueued);
    counter("fleet.queue.acknowledged", "Entries that the brain has", |of| {
        of.account().acknowledged
    });
    let of = metrics.clone();
    meter
        .u64_observable_counter("fleet.queue.refused")
        .with_unit("{entry}")
        .with_description("Entries that will not get to the brain as they were, by error.type")
        .with_callback(move |observer| {
            for (reason, entries) in of.account().refused {
                observer.observe(entries, &[KeyValue::new("error.type", reason)]);
            }
        })
        .build();
    gauge(
        metrics,
        meter,
        ("fleet.queue.depth", "{entry}", "Entries that wait for the brain"),
        |of| Some(of.account().queued as f64),
    );
    gauge(
        metrics,
        meter,
        ("fleet.queue.size", "By", "Bytes of the entries that wait for the brain"),
        |of| Some(of.queue().bytes as f64),
    );
    gauge(
        metrics,
        meter,
        ("fleet.queue.oldest.age", "s", "How long the oldest entry has waited; 0 if none does"),
        |of| {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let since = |oldest| now.saturating_sub(Duration::from_secs(oldest)).as_secs_f64();
            Some(of.queue().oldest_s.map_or(0.0, since))
        },
    );
}

fn observe_spool(metrics: &Arc<Metrics>, meter: &Meter) {
    counter(
        metrics,
        meter,
        ("fleet.spool.commits", "{commit}", "Commits made durable, each with one fsync"),
        |of| &of.spool_commits,
    );
    counter(metrics, meter, ("fleet.spool.failures", "{commit}", "Commits that failed"), |of| {
        &of.spool_failures
    });
    let of = metrics.clone();
    meter
        .f64_observable_counter("fleet.spool.commit.time")
        .with_unit("s")
        .with_description("Time spent on commits")
        .with_callback(move |observer| {
            observer.observe(of.spool_micros.load(Ordering::Relaxed) as f64 / 1e6, &[]);
        })
        .build();
    gauge(
        metrics,
        meter,
        ("fleet.spool.size", "By", "Bytes of the spool's file and of its log"),
        |of| of.spool_bytes().map(|bytes| bytes as f64),
    );
}

fn observe_sensors(metrics: &Arc<Metrics>, meter: &Meter) {
    let counter = |name, unit, description, value: fn(&super::Sensors) -> u64| {
        let of = metrics.clone();
        meter
            .u64_observable_counter(name)
            .with_unit(unit)
            .with_description(description)
            .with_callback(move |observer| {
                for (group, sensors) in of.sensors() {
                    observer.observe(value(&sensors), &[KeyValue::new("group", group)]);
                }
            })
            .build();
    };
    counter("fleet.sensor.reads", "{read}", "Times that a group of sensors was read", |of| {
        of.reads
    });
    counter("fleet.sensor.errors", "{error}", "Sensors that could not be read, each time", |of| {
        of.faults
    });
}
