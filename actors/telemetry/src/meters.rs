//! Instruments: made here, scraped as Prometheus text, and pushed where there is an endpoint.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::metrics::{Meter, MeterProvider};
use opentelemetry_otlp::{
    MetricExporter as OtlpMetrics, Protocol, WithExportConfig, WithHttpConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::metrics::data::ResourceMetrics;
use opentelemetry_sdk::metrics::exporter::PushMetricExporter;
use opentelemetry_sdk::metrics::{PeriodicReader, SdkMeterProvider, Temporality};
use prometheus::{Registry, TextEncoder};

use crate::StartError;
use crate::client::{Client, REQUEST_TIME_MAX};
use crate::otlp::Otlp;
use crate::outage::Outage;

/// The type of what [`Meters::scrape`] gives.
pub const TEXT_CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Where instruments are made and read. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Meters {
    provider: SdkMeterProvider,
    registry: Registry,
    pushes: bool,
}

impl Meters {
    /// Instruments that are only scraped.
    pub(crate) fn new(resource: Resource) -> Result<Self, StartError> {
        Self::build(resource, None)
    }

    /// Instruments that are pushed as well.
    pub(crate) fn pushing(
        resource: Resource,
        otlp: &Otlp,
        client: Arc<Client>,
    ) -> Result<Self, StartError> {
        let exporter = OtlpMetrics::builder()
            .with_http()
            .with_shared_http_client(client.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(otlp.url("metrics"))
            .with_timeout(REQUEST_TIME_MAX)
            .with_temporality(Temporality::Cumulative)
            .build()
            .map_err(StartError::Exporter)?;
        let pushes = Arc::new(Pushes::default());
        let outage = Outage::new("metrics");
        let exporter = Counting { exporter, client, outage, pushes: pushes.clone() };
        let meters = Self::build(resource, Some(exporter))?;
        pushes.observe(&meters.meter("telemetry"));
        Ok(meters)
    }

    /// Instruments of a process that has no name: what tests and libraries need.
    ///
    /// # Panics
    /// Never: an empty registry takes a first reader.
    pub fn scraped_only() -> Self {
        Self::new(Resource::builder_empty().build()).expect("an empty registry takes a reader")
    }

    fn build(resource: Resource, push: Option<Counting>) -> Result<Self, StartError> {
        let registry = Registry::new();
        let reader = opentelemetry_prometheus::exporter()
            .with_registry(registry.clone())
            .scope_info_enabled(false)
            .build()
            .map_err(StartError::Reader)?;
        let pushes = push.is_some();
        let mut builder = SdkMeterProvider::builder().with_resource(resource).with_reader(reader);
        if let Some(exporter) = push {
            builder = builder.with_reader(PeriodicReader::builder(exporter).build());
        }
        Ok(Self { provider: builder.build(), registry, pushes })
    }

    /// A meter to make instruments with.
    pub fn meter(&self, scope: &'static str) -> Meter {
        self.provider.meter(scope)
    }

    /// Every figure in Prometheus' text format, of type [`TEXT_CONTENT_TYPE`].
    pub fn scrape(&self) -> String {
        let mut text = String::new();
        if let Err(error) = TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text) {
            // Only a family without a figure would do that, and none is made without one.
            tracing::error!(%error, "metrics cannot be written as text");
        }
        text
    }

    pub(crate) fn pushes(&self) -> bool {
        self.pushes
    }

    pub(crate) fn shut_down(self) {
        // What did not get away was told of.
        let _ = self.provider.shutdown();
    }
}

/// How pushes ended.
#[derive(Debug, Default)]
struct Pushes {
    taken: AtomicU64,
    failed: AtomicU64,
}

impl Pushes {
    fn observe(self: &Arc<Self>, meter: &Meter) {
        let of = self.clone();
        meter
            .u64_observable_counter("fleet.telemetry.metric.pushes")
            .with_unit("{push}")
            .with_description("Times that all metrics were pushed, or not, as error.type says")
            .with_callback(move |observer| {
                let failed = [KeyValue::new("error.type", "export_failed")];
                observer.observe(of.taken.load(Ordering::Relaxed), &[]);
                observer.observe(of.failed.load(Ordering::Relaxed), &failed);
            })
            .build();
    }
}

/// Counts what the endpoint took.
struct Counting {
    exporter: OtlpMetrics,
    client: Arc<Client>,
    outage: Outage,
    pushes: Arc<Pushes>,
}

impl PushMetricExporter for Counting {
    async fn export(&self, metrics: &ResourceMetrics) -> OTelSdkResult {
        let result = self.exporter.export(metrics).await;
        let counter = if result.is_ok() { &self.pushes.taken } else { &self.pushes.failed };
        counter.fetch_add(1, Ordering::Relaxed);
        self.outage.note(&result, &self.client);
        result
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn temporality(&self) -> Temporality {
        self.exporter.temporality()
    }
}
