//! A collector: takes OTLP over HTTP, and keeps every span that comes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{Link, SpanKind};
use prost::Message as _;

/// A span as it came, its ids as W3C Trace Context writes them.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The process that sent it.
    pub(crate) service: String,
    pub(crate) name: String,
    pub(crate) kind: SpanKind,
    pub(crate) trace: String,
    pub(crate) id: String,
    pub(crate) parent: String,
    pub(crate) links: Vec<String>,
    pub(crate) events: Vec<String>,
    /// Nanoseconds.
    pub(crate) times: (u64, u64),
    pub(crate) failed: bool,
    attributes: Vec<KeyValue>,
}

impl Span {
    pub(crate) fn attribute(&self, name: &str) -> String {
        let found = self.attributes.iter().find(|attribute| attribute.key == name);
        text(found.and_then(|attribute| attribute.value.as_ref()))
    }
}

/// Collects until the end of the test.
pub(crate) struct Collector {
    pub(crate) endpoint: String,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
        let spans = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&spans);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                take(stream.expect("a connection"), &kept);
            }
        });
        Self { endpoint, spans }
    }

    /// The setting that sends spans here.
    pub(crate) fn setting(&self) -> Vec<String> {
        vec![format!("traces.endpoint={}", self.endpoint)]
    }

    /// All spans of one trace.
    pub(crate) fn trace(&self, id: &str) -> Vec<Span> {
        let spans = self.spans.lock().expect("taking does not panic");
        spans.iter().filter(|span| span.trace == id).cloned().collect()
    }
}

fn take(stream: TcpStream, kept: &Mutex<Vec<Span>>) {
    let mut reader = BufReader::new(stream);
    let (mut line, mut length, mut is_protobuf) = (String::new(), 0, false);
    loop {
        line.clear();
        if reader.read_line(&mut line).expect("a head") == 0 {
            return;
        }
        let lower = line.trim().to_lowercase();
        if lower.is_empty() {
            break;
        }
        if let Some(value) = lower.strip_prefix("content-length: ") {
            length = value.parse().expect("a number");
        }
        is_protobuf |= lower == "content-type: application/x-protobuf";
    }
    assert!(is_protobuf);
    let mut body = vec![0; length];
    reader.read_exact(&mut body).expect("a body");
    let request = ExportTraceServiceRequest::decode(body.as_slice()).expect("OTLP");
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let mut kept = kept.lock().expect("taking does not panic");
    for resource in request.resource_spans {
        let attributes = resource.resource.map(|resource| resource.attributes).unwrap_or_default();
        let service = attributes.iter().find(|attribute| attribute.key == "service.name");
        let service = text(service.and_then(|service| service.value.as_ref()));
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            kept.push(Span {
                service: service.clone(),
                kind: span.kind(),
                trace: hex(&span.trace_id),
                id: hex(&span.span_id),
                parent: hex(&span.parent_span_id),
                links: span.links.iter().map(|link: &Link| hex(&link.span_id)).collect(),
                events: span.events.into_iter().map(|event| event.name).collect(),
                times: (span.start_time_unix_nano, span.end_time_unix_nano),
                failed: span.status.is_some_and(|status| status.code == 2),
                name: span.name,
                attributes: span.attributes,
            });
        }
    }
    let mut stream = reader.into_inner();
    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").expect("it is read");
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(any_value::Value::StringValue(text)) => text.clone(),
        Some(any_value::Value::IntValue(number)) => number.to_string(),
        _ => String::new(),
    }
}
