//! How a binary tells of itself: logs on standard error, metrics to be scraped, and, where an
//! endpoint is configured, traces and metrics over OTLP.
//!
//! [`Log::start`] comes first, so that whatever fails afterwards is logged. [`Telemetry::start`]
//! follows when it is known who the process is; until then spans are dropped. Nothing here ever
//! makes the rest of the process wait: queues are bounded, sending happens on threads of its own,
//! and what cannot be sent is dropped and counted.
//!
//! Spans are exported if their target is [`TRACE_TARGET`], and no others: ordinary spans of the
//! log cost nothing more than they did.

#![forbid(unsafe_code)]

mod client;
mod log;
mod meters;
mod otlp;
mod outage;
pub mod process;
mod traces;

use std::sync::Arc;
use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracer;

pub use log::{LevelError, Log, LogFile, LogFormat, LogLevel, LogSettings};
pub use meters::{Meters, TEXT_CONTENT_TYPE};
pub use otlp::{EndpointError, HeaderError, HeaderList, Otlp};
pub use traces::{Delivery, TRACE_TARGET};

/// How long [`Telemetry::shutdown`] takes at most.
pub const SHUTDOWN_TIME_MAX: Duration = Duration::from_secs(2);

/// Who the process is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// What kind of program it is, unless `OTEL_SERVICE_NAME` says otherwise.
    pub name: &'static str,
    /// Its release.
    pub version: &'static str,
    /// Which one of its kind it is.
    pub instance: String,
}

/// Why telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The OTLP exporter does not take its settings.
    #[error("the OTLP exporter cannot be set up")]
    Exporter(#[source] opentelemetry_otlp::ExporterBuildError),
    /// The Prometheus reader does not come up.
    #[error("metrics cannot be set up")]
    Reader(#[source] opentelemetry_sdk::error::OTelSdkError),
    /// The file of the endpoint's authority cannot be used.
    #[error(transparent)]
    Endpoint(#[from] EndpointError),
}

/// Metrics and traces of a process.
#[derive(Debug)]
pub struct Telemetry {
    meters: Meters,
    traces: Option<traces::Traces>,
}

impl Telemetry {
    /// Begins to gather metrics and, with an endpoint, to export them and the spans of `log`.
    pub fn start(service: &Service, otlp: Option<&Otlp>, log: &Log) -> Result<Self, StartError> {
        let resource = resource(service);
        let Some(otlp) = otlp else {
            return Ok(Self { meters: Meters::new(resource)?, traces: None });
        };
        let client: Arc<client::Client> = Arc::new(client::Client::new(otlp)?);
        let traces = traces::Traces::start(otlp, client.clone(), resource.clone())?;
        let meters = Meters::pushing(resource, otlp, client)?;
        traces.delivery().observe(&meters.meter("telemetry"));
        log.export_to(&traces);
        Ok(Self { meters, traces: Some(traces) })
    }

    /// Where instruments are made and read.
    pub fn meters(&self) -> &Meters {
        &self.meters
    }

    /// What became of the spans, where they are exported.
    pub fn delivery(&self) -> Option<&Arc<Delivery>> {
        self.traces.as_ref().map(traces::Traces::delivery)
    }

    /// For spans that are made by hand, where spans are exported.
    pub fn tracer(&self) -> Option<SdkTracer> {
        self.traces.as_ref().map(traces::Traces::tracer)
    }

    /// Sends what waits, within [`SHUTDOWN_TIME_MAX`]. Blocks: call it outside of the runtime.
    pub fn shutdown(self) {
        let until = Instant::now() + SHUTDOWN_TIME_MAX;
        let (done, wait) = mpsc::channel();
        let Self { meters, traces } = self;
        let mut jobs: Vec<Box<dyn FnOnce() + Send>> = Vec::new();
        if let Some(traces) = traces {
            jobs.push(Box::new(move || traces.shut_down()));
        }
        if meters.pushes() {
            jobs.push(Box::new(move || meters.shut_down()));
        }
        let mut left = 0;
        for job in jobs {
            let done = done.clone();
            // On a thread each, because one that hangs is left behind. The process ends anyway.
            let started = thread::Builder::new().name("telemetry-stop".into()).spawn(move || {
                job();
                // Nobody may wait any more.
                let _ = done.send(());
            });
            left += usize::from(started.is_ok());
        }
        while left > 0 {
            match wait.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(()) => left -= 1,
                Err(_) => {
                    tracing::warn!("telemetry that was not sent in time is lost");
                    return;
                }
            }
        }
    }
}

fn resource(service: &Service) -> Resource {
    // The builder's detectors read `OTEL_RESOURCE_ATTRIBUTES` and `OTEL_SERVICE_NAME`.
    let named = std::env::var("OTEL_SERVICE_NAME").is_ok_and(|name| !name.is_empty());
    let builder = Resource::builder().with_attributes([
        KeyValue::new("service.version", service.version),
        KeyValue::new("service.instance.id", service.instance.clone()),
    ]);
    if named { builder.build() } else { builder.with_service_name(service.name).build() }
}
