//! Spans: from `tracing` through a bounded queue to the endpoint.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use opentelemetry::metrics::Meter;
use opentelemetry::trace::{SpanBuilder, Tracer, TracerProvider};
use opentelemetry::{Context, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter as OtlpSpans, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    BatchConfigBuilder, BatchSpanProcessor, Sampler, SdkTracer, SdkTracerProvider, Span, SpanData,
    SpanExporter, SpanProcessor,
};

use crate::StartError;
use crate::client::{Client, REQUEST_TIME_MAX};
use crate::otlp::Otlp;
use crate::outage::Outage;

/// The target of the spans that are exported. Whoever opens one has decided that it is sampled.
pub const TRACE_TARGET: &str = "fleet::trace";

/// The most spans in one request.
const BATCH_SPANS_MAX: usize = 512;

/// What became of the spans that ended: each is waiting, exported, or dropped for a reason.
#[derive(Debug, Default)]
pub struct Delivery {
    waiting: AtomicUsize,
    exported: AtomicU64,
    queue_full: AtomicU64,
    export_failed: AtomicU64,
}

impl Delivery {
    /// How many wait to be sent.
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Ordering::Relaxed) as u64
    }

    /// How many the endpoint took.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// How many were dropped because too many waited already.
    pub fn dropped_queue_full(&self) -> u64 {
        self.queue_full.load(Ordering::Relaxed)
    }

    /// How many were dropped because the endpoint did not take them.
    pub fn dropped_export_failed(&self) -> u64 {
        self.export_failed.load(Ordering::Relaxed)
    }

    pub(crate) fn observe(self: &Arc<Self>, meter: &Meter) {
        let of = self.clone();
        meter
            .u64_observable_counter("otel.sdk.exporter.span.exported")
            .with_unit("{span}")
            .with_description("Spans exported, or dropped for the reason in error.type")
            .with_callback(move |observer| {
                let dropped = |reason| [KeyValue::new("error.type", reason)];
                observer.observe(of.exported(), &[]);
                observer.observe(of.dropped_export_failed(), &dropped("export_failed"));
                observer.observe(of.dropped_queue_full(), &dropped("queue_full"));
            })
            .build();
        let of = self.clone();
        meter
            .u64_observable_gauge("otel.sdk.processor.span.queue.size")
            .with_unit("{span}")
            .with_description("Spans that wait to be exported")
            .with_callback(move |observer| observer.observe(of.waiting(), &[]))
            .build();
    }
}

/// The export of spans.
#[derive(Debug)]
pub(crate) struct Traces {
    provider: SdkTracerProvider,
    delivery: Arc<Delivery>,
}

impl Traces {
    pub(crate) fn start(
        otlp: &Otlp,
        client: Arc<Client>,
        resource: Resource,
    ) -> Result<Self, StartError> {
        let exporter = OtlpSpans::builder()
            .with_http()
            .with_shared_http_client(client.clone())
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(otlp.url("traces"))
            .with_timeout(REQUEST_TIME_MAX)
            .build()
            .map_err(StartError::Exporter)?;
        let delivery = Arc::new(Delivery::default());
        let outage = Outage::new("traces");
        let exporter = Counting { exporter, client, outage, delivery: delivery.clone() };
        let waiting_max = otlp.spans_waiting_max();
        let batches = BatchConfigBuilder::default()
            .with_max_queue_size(waiting_max)
            .with_max_export_batch_size(BATCH_SPANS_MAX.min(waiting_max.div_ceil(2)))
            .build();
        let queue = BatchSpanProcessor::builder(exporter).with_batch_config(batches).build();
        let provider = SdkTracerProvider::builder()
            .with_span_processor(Gate { queue, waiting_max, delivery: delivery.clone() })
            // Who opens a span has decided already, and says so in the flags that travel.
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::AlwaysOn)))
            .with_resource(resource)
            .build();
        Ok(Self { provider, delivery })
    }

    pub(crate) fn tracer(&self) -> SdkTracer {
        self.provider.tracer("fleet")
    }

    pub(crate) fn delivery(&self) -> &Arc<Delivery> {
        &self.delivery
    }

    pub(crate) fn shut_down(self) {
        // What did not get away is counted and was told of.
        let _ = self.provider.shutdown_with_timeout(crate::SHUTDOWN_TIME_MAX);
    }
}

/// Lets as many spans wait as there is room for, those of the request under way included.
#[derive(Debug)]
struct Gate {
    queue: BatchSpanProcessor,
    waiting_max: usize,
    delivery: Arc<Delivery>,
}

impl SpanProcessor for Gate {
    fn on_start(&self, span: &mut Span, cx: &Context) {
        self.queue.on_start(span, cx);
    }

    fn on_end(&self, span: SpanData) {
        if !span.span_context.is_sampled() {
            return;
        }
        let room = |waiting| (waiting < self.waiting_max).then_some(waiting + 1);
        let waiting = &self.delivery.waiting;
        match waiting.fetch_update(Ordering::Relaxed, Ordering::Relaxed, room) {
            Ok(_) => self.queue.on_end(span),
            Err(_) => {
                self.delivery.queue_full.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.queue.force_flush()
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.queue.shutdown_with_timeout(timeout)
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.queue.set_resource(resource);
    }
}

/// Counts what the endpoint took.
#[derive(Debug)]
struct Counting {
    exporter: OtlpSpans,
    client: Arc<Client>,
    outage: Outage,
    delivery: Arc<Delivery>,
}

impl SpanExporter for Counting {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let spans = batch.len();
        let result = self.exporter.export(batch).await;
        let counter = match &result {
            Ok(()) => &self.delivery.exported,
            Err(_) => &self.delivery.export_failed,
        };
        counter.fetch_add(spans as u64, Ordering::Relaxed);
        self.delivery.waiting.fetch_sub(spans, Ordering::Relaxed);
        self.outage.note(&result, &self.client);
        result
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.exporter.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.exporter.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.exporter.set_resource(resource);
    }
}

/// A tracer that begins to record when it is known where to.
#[derive(Debug, Clone)]
pub(crate) struct LateTracer {
    tracer: Arc<OnceLock<SdkTracer>>,
    idle: SdkTracer,
}

impl LateTracer {
    pub(crate) fn new() -> Self {
        let nobody = SdkTracerProvider::builder().with_sampler(Sampler::AlwaysOff).build();
        Self { tracer: Arc::default(), idle: nobody.tracer("fleet") }
    }

    pub(crate) fn set(&self, tracer: SdkTracer) {
        // The first one stays: there is one exporter in a process.
        let _ = self.tracer.set(tracer);
    }
}

impl Tracer for LateTracer {
    type Span = Span;

    fn build_with_context(&self, builder: SpanBuilder, parent: &Context) -> Span {
        self.tracer.get().unwrap_or(&self.idle).build_with_context(builder, parent)
    }
}
