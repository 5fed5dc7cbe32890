//! Traces as a collector gets them, decoded with the official protobuf definitions.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use benches::brain::Brain;
use data_encoding::HEXLOWER;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use prost::Message;
use serde_json::json;

use crate::edge_process::{Edge, enroll};
use crate::harness::BRAIN;

const SOON: Duration = Duration::from_secs(40);

/// What a test needs of a span.
#[derive(Debug, Clone)]
struct Span {
    service: String,
    name: String,
    trace: Vec<u8>,
    id: Vec<u8>,
    parent: Vec<u8>,
    links: Vec<(Vec<u8>, Vec<u8>)>,
    start_ns: u64,
    end_ns: u64,
}

/// Stands in for a collector: takes `POST /v1/traces` and keeps the spans.
#[derive(Clone, Default)]
struct Collector(Arc<Mutex<Vec<Span>>>);

impl Collector {
    async fn start() -> (Self, SocketAddr) {
        let this = Self::default();
        let routes = Router::new()
            .route("/v1/traces", post(take))
            // Metrics come here as well; an answer keeps the exporter quiet.
            .fallback(|| async {})
            .with_state(this.clone());
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = socket.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(socket, routes).await });
        (this, address)
    }

    fn spans(&self) -> Vec<Span> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until a trace holds spans of all these names, and gives it back by name.
    async fn trace_with(&self, names: &[&str]) -> BTreeMap<String, Span> {
        let until = Instant::now() + SOON;
        loop {
            let spans = self.spans();
            let mut traces: BTreeMap<Vec<u8>, BTreeMap<String, Span>> = BTreeMap::new();
            for span in &spans {
                let trace = traces.entry(span.trace.clone()).or_default();
                trace.insert(span.name.clone(), span.clone());
            }
            let whole =
                |trace: &BTreeMap<String, Span>| names.iter().all(|n| trace.contains_key(*n));
            if let Some(trace) = traces.into_values().find(whole) {
                return trace;
            }
            let seen: Vec<_> = spans.iter().map(|span| &span.name).collect();
            assert!(Instant::now() < until, "no trace has all of {names:?}; seen: {seen:?}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

async fn take(State(collector): State<Collector>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).expect("OTLP");
    let mut spans = collector.0.lock().unwrap_or_else(PoisonError::into_inner);
    for of_resource in request.resource_spans {
        let attributes = of_resource.resource.map(|r| r.attributes).unwrap_or_default();
        let service = attributes.iter().find(|attribute| attribute.key == "service.name");
        let service = match service.and_then(|s| s.value.as_ref()?.value.as_ref()) {
            Some(Value::StringValue(name)) => name.clone(),
            other => panic!("no service.name: {other:?}"),
        };
        for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.push(Span {
                service: service.clone(),
                name: span.name,
                trace: span.trace_id,
                id: span.span_id,
                parent: span.parent_span_id,
                links: span.links.into_iter().map(|l| (l.trace_id, l.span_id)).collect(),
                start_ns: span.start_time_unix_nano,
                end_ns: span.end_time_unix_nano,
            });
        }
    }
}

/// A brain and an edge that trace everything, told by the standard variables where to.
struct Traced {
    brain: Brain,
    _edge: Edge,
    _folder: tempfile::TempDir,
}

fn start(collector: SocketAddr) -> Traced {
    let endpoint = format!("http://{collector}");
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint.as_str()),
        ("OTEL_BSP_SCHEDULE_DELAY", "200"),
        ("FLEET_EDGE_TRACE_SAMPLE_RATIO", "1"),
    ];
    let brain = Brain::start_with(BRAIN, &settings).expect("the brain starts");
    let folder = tempfile::tempdir().expect("temporary folder");
    enroll(&brain, folder.path());
    let edge = Edge::run_with(folder.path(), &settings);
    Traced { brain, _edge: edge, _folder: folder }
}

fn assert_chain(trace: &BTreeMap<String, Span>, chain: &[(&str, &str)]) {
    for ((_, parent), (service, child)) in chain.iter().zip(&chain[1..]) {
        let (parent, child) = (&trace[*parent], &trace[*child]);
        assert_eq!(child.parent, parent.id, "{} is a child of {}", child.name, parent.name);
        assert_eq!(child.service, *service, "{}", child.name);
        assert!(child.end_ns >= child.start_ns, "{}", child.name);
        // Both processes are on one machine, so their clocks agree.
        assert!(child.start_ns >= parent.start_ns, "{} before {}", child.name, parent.name);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_trace_spans_the_sensor_the_store_and_the_acknowledgement() {
    let (collector, address) = Collector::start().await;
    let _traced = tokio::task::spawn_blocking(move || start(address)).await.expect("starts");
    let chain = [
        ("fleet-edge", "sensor.read"),
        ("fleet-edge", "entry.commit"),
        ("fleet-edge", "entry.deliver"),
        ("fleet-brain", "device.ingest"),
        ("fleet-brain", "store.commit"),
        ("fleet-brain", "link.acknowledge"),
    ];
    let trace = collector.trace_with(&chain.map(|(_, name)| name)).await;
    assert!(trace["sensor.read"].parent.is_empty(), "the sensor is where it begins");
    assert_chain(&trace, &chain);
    let (deliver, commit) = (&trace["entry.deliver"], &trace["store.commit"]);
    assert!(deliver.end_ns >= commit.end_ns, "the edge hears of it after the commit");

    // The actor's message is a root of its own and links to who sent it.
    let ingested = (deliver.trace.clone(), deliver.id.clone());
    let spans = collector.spans();
    let mut messages = spans.iter().filter(|span| span.name == "actor.message");
    let message = messages.find(|span| span.links.contains(&ingested)).expect("a linked root");
    assert!(message.parent.is_empty());
    assert_ne!(message.trace, deliver.trace);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operators_write_is_traced_to_the_device_from_the_callers_own_span() {
    let (collector, address) = Collector::start().await;
    let traced = tokio::task::spawn_blocking(move || start(address)).await.expect("starts");
    collector.trace_with(&["sensor.read", "link.acknowledge"]).await;
    let caller = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let write = move || {
        let devices = traced.brain.get("/api/v1/devices").expect("devices");
        let id = devices["devices"][0]["id"].as_str().expect("an id").to_owned();
        let path = format!("/api/v1/devices/{id}/desired");
        let body = json!({ "sense/machine/period_ms": 1_500 });
        let headers = [("traceparent", caller)];
        let answer = traced.brain.call_with("PATCH", &path, Some(&body), &headers);
        assert_eq!(answer.expect("answers").0, 200);
        traced
    };
    let _traced = tokio::task::spawn_blocking(write).await.expect("writes");
    let chain = [
        ("fleet-brain", "api.write"),
        ("fleet-brain", "device.write"),
        ("fleet-edge", "entry.ingest"),
    ];
    let names = ["api.write", "device.write", "store.commit", "entry.ingest"];
    let trace = collector.trace_with(&names).await;
    assert_chain(&trace, &chain);
    let root = &trace["api.write"];
    assert_eq!(HEXLOWER.encode(&root.trace), &caller[3..35]);
    assert_eq!(HEXLOWER.encode(&root.parent), &caller[36..52]);
    assert_eq!(trace["store.commit"].parent, trace["device.write"].id);
}
