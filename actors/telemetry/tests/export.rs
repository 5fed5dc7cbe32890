//! What reaches an OTLP endpoint, and that one which does not answer keeps nobody waiting.
//!
//! One test: the log of a process is set up once.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use prost::Message;
use telemetry::{Log, LogSettings, Otlp, SHUTDOWN_TIME_MAX, Service, Telemetry};

/// A request as it came: its path, its headers in lower case, and its body.
struct Request {
    path: String,
    headers: String,
    body: Vec<u8>,
}

/// An endpoint that takes everything.
fn endpoint() -> (SocketAddr, mpsc::Receiver<Request>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = listener.local_addr().expect("an address");
    let (tell, requests) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let tell = tell.clone();
            std::thread::spawn(move || {
                while let Some(request) = answer(&stream) {
                    if tell.send(request).is_err() {
                        return;
                    }
                }
            });
        }
    });
    (address, requests)
}

fn answer(mut stream: &TcpStream) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte).ok()?;
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    let (line, headers) = head.split_once("\r\n")?;
    let length = headers.lines().find_map(|line| line.strip_prefix("content-length: "))?;
    let mut body = vec![0; length.trim().parse().ok()?];
    stream.read_exact(&mut body).ok()?;
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").ok()?;
    let path = line.split(' ').nth(1)?.to_owned();
    Some(Request { path, headers: headers.to_owned(), body })
}

fn text<'a>(attributes: &'a [KeyValue], key: &str) -> Option<&'a str> {
    let attribute = attributes.iter().find(|attribute| attribute.key == key)?;
    match attribute.value.as_ref()?.value.as_ref()? {
        Value::StringValue(text) => Some(text),
        _ => None,
    }
}

fn service() -> Service {
    Service { name: "fleet-test", version: "1.2.3", instance: "one".to_owned() }
}

#[test]
fn spans_and_metrics_arrive_and_a_dead_endpoint_keeps_nobody_waiting() {
    let settings =
        LogSettings { filter: "info".to_owned(), traces: true, ..LogSettings::default() };
    let log = Log::start(&settings).expect("the first log");
    assert!(Log::start(&settings).is_err(), "there is one");

    let (address, requests) = endpoint();
    let otlp = Otlp::configured(Some(&format!("http://{address}/base/")), None);
    let otlp = otlp.expect("an address").expect("configured");
    let telemetry = Telemetry::start(&service(), Some(&otlp), &log).expect("starts");
    let counter = telemetry.meters().meter("test").u64_counter("test.things").build();
    counter.add(7, &[]);
    tracing::info_span!(target: "fleet::trace", "outer", entry = 1).in_scope(|| {
        tracing::info_span!("of the log only").in_scope(|| {
            tracing::info_span!(target: "fleet::trace", "inner").in_scope(|| ());
        });
    });
    let delivery = telemetry.delivery().expect("spans are exported").clone();
    telemetry.shutdown();
    assert_eq!((delivery.exported(), delivery.waiting()), (2, 0));
    arrived(&requests);

    // The second telemetry of this process: its spans are made by hand, the log's go to the first.
    endpoint_that_hangs();
}

fn arrived(requests: &mpsc::Receiver<Request>) {
    let mut spans = Vec::new();
    let mut metrics = Vec::new();
    while let Ok(request) = requests.recv_timeout(Duration::from_secs(1)) {
        assert!(request.headers.contains("content-type: application/x-protobuf"));
        match request.path.as_str() {
            "/base/v1/traces" => {
                let decoded = ExportTraceServiceRequest::decode(&*request.body).expect("spans");
                spans.extend(decoded.resource_spans);
            }
            "/base/v1/metrics" => {
                let decoded = ExportMetricsServiceRequest::decode(&*request.body).expect("metrics");
                metrics.extend(decoded.resource_metrics);
            }
            other => panic!("nobody asked for {other}"),
        }
    }
    let resource = &spans[0].resource.as_ref().expect("a resource").attributes;
    assert_eq!(text(resource, "service.name"), Some("fleet-test"));
    assert_eq!(text(resource, "service.version"), Some("1.2.3"));
    assert_eq!(text(resource, "service.instance.id"), Some("one"));
    let spans: Vec<_> =
        spans.iter().flat_map(|of| &of.scope_spans).flat_map(|of| &of.spans).collect();
    let mut names: Vec<_> = spans.iter().map(|span| span.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["inner", "outer"], "spans of the log stay there");
    let by_name = |name| *spans.iter().find(|span| span.name == name).expect("is there");
    assert_eq!(by_name("inner").parent_span_id, by_name("outer").span_id);
    assert_eq!(by_name("inner").trace_id, by_name("outer").trace_id);
    let names: Vec<_> = metrics
        .iter()
        .flat_map(|of| &of.scope_metrics)
        .flat_map(|of| &of.metrics)
        .map(|metric| metric.name.as_str())
        .collect();
    assert!(names.contains(&"test.things"), "{names:?}");
}

/// An endpoint that takes connections and never answers.
fn endpoint_that_hangs() {
    use opentelemetry::trace::Tracer;

    const SPANS: u64 = 20_000;
    let silent = TcpListener::bind("127.0.0.1:0").expect("listens");
    let address = silent.local_addr().expect("an address");
    let otlp = Otlp::configured(Some(&format!("http://{address}")), None);
    let otlp = otlp.expect("an address").expect("configured").with_spans_waiting_max(100);
    let telemetry = Telemetry::start(&service(), Some(&otlp), &Log::unheard()).expect("starts");
    let tracer = telemetry.tracer().expect("spans are exported");
    let delivery = telemetry.delivery().expect("spans are exported").clone();
    let began = Instant::now();
    for _ in 0..SPANS {
        drop(tracer.start("span"));
    }
    let each = began.elapsed() / SPANS as u32;
    println!("a span of a process whose endpoint hangs took {each:?}");
    // It would be 50 ms each if any of them had waited for the endpoint.
    assert!(each < Duration::from_micros(200), "{each:?} a span");
    let scraped = telemetry.meters().scrape();
    assert!(scraped.contains("otel_sdk_exporter_span_exported_total"), "{scraped}");
    let began = Instant::now();
    telemetry.shutdown();
    let took = began.elapsed();
    println!("the shutdown took {took:?}");
    assert!(took < SHUTDOWN_TIME_MAX + Duration::from_millis(500), "{took:?}");
    let accounted = delivery.exported()
        + delivery.waiting()
        + delivery.dropped_queue_full()
        + delivery.dropped_export_failed();
    assert_eq!(accounted, SPANS, "{delivery:?}");
    assert!(delivery.waiting() <= 100 && delivery.dropped_queue_full() > 0, "{delivery:?}");
}
