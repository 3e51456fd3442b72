//! One request through nginx, gateway and server is one trace, and one line in each log, under the same names.

mod collector;

use std::net::TcpListener;
use std::time::Duration;

use collector::{Collector, Span};
use e2e::{Answer, Parts, Stand, repository, tiny_chat_model, wait_until};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use rustix::process::Signal;

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A busy machine takes its time.
const PATIENCE: Duration = Duration::from_secs(60);

fn shoe() -> Vec<u8> {
    std::fs::read(repository().join("models/testdata/shoe.png")).expect("in the tree")
}

fn classify(stand: &Stand, model: &str, headers: &[(&str, &str)]) -> Answer {
    let headers = [&[("content-type", "image/png")], headers].concat();
    stand.http().post(&format!("/v1/classify?model={model}"), &headers, &shoe())
}

/// The span of this name that this process has sent, with this parent; it comes a second after its end.
fn find(collector: &Collector, trace: &str, service: &str, name: &str, parent: &str) -> Span {
    wait_until(&format!("{name} of {service} below {parent:?}"), PATIENCE, || {
        let spans = collector.trace(trace);
        spans.into_iter().find(|span| span.service == service && span.name == name && span.parent == parent)
    })
}

/// The line of a log that has this id.
fn line(what: &str, id: &str, log: impl Fn() -> String) -> serde_json::Value {
    let found = |log: String| log.lines().find(|line| line.contains(id)).map(str::to_owned);
    let line = wait_until(&format!("{id} in the log of {what}"), PATIENCE, || found(log()));
    serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error}: {line}"))
}

/// What nginx, gateway and server say in the lines of a request.
fn lines(stand: &Stand, id: &str) -> [serde_json::Value; 3] {
    let (gateway, server) = (stand.gateway.as_ref().expect("started"), stand.server.as_ref().expect("started"));
    let access = stand.folder().join("nginx/logs/access.log");
    let nginx = || std::fs::read_to_string(&access).unwrap_or_default();
    [line("nginx", id, nginx), line("gateway", id, || gateway.log()), line("server", id, || server.log())]
}

fn trace_of(answer: &Answer) -> (String, String) {
    let header = answer.header("traceparent").expect("every answer has one");
    let parts: Vec<&str> = header.split('-').collect();
    assert_eq!((parts.len(), parts[0]), (4, "00"), "{header}");
    (parts[1].to_owned(), parts[2].to_owned())
}

#[test]
fn a_request_is_one_trace_from_nginx_to_the_batch() {
    let collector = Collector::start();
    let (server, gateway) = (collector.setting(), collector.setting());
    let stand = Stand::start(Parts { only: vec!["mnist".into()], server, gateway, ..Parts::default() });
    let names =
        [("traceparent", PARENT), ("tracestate", "rojo=00f067aa0ba902b7"), ("x-request-id", "the-traced-request")];
    let answer = classify(&stand, "mnist", &names);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let (trace, own) = trace_of(&answer);
    assert_eq!((trace.as_str(), answer.header("x-request-id")), (TRACE, Some("the-traced-request")));
    for said in lines(&stand, "the-traced-request") {
        assert_eq!((said["trace_id"].as_str(), said["request_id"].as_str()), (Some(TRACE), Some("the-traced-request")));
    }

    let (web, model) = ("outboard-gateway", "outboard-server");
    let request = find(&collector, TRACE, web, "classify", "b7ad6b7169203331");
    assert_eq!((request.id.as_str(), request.kind, request.failed), (own.as_str(), SpanKind::Server, false));
    assert_eq!(request.attribute("request_id"), "the-traced-request");
    let call = find(&collector, TRACE, web, "classify", &request.id);
    assert_eq!((call.kind, call.events.len()), (SpanKind::Client, 0));
    let served = find(&collector, TRACE, model, "classify", &call.id);
    assert_eq!((served.kind, served.attribute("model").as_str()), (SpanKind::Server, "mnist"));
    let [decode, queue, run, encode, batch] =
        ["decode", "queue", "run", "encode", "batch"].map(|part| find(&collector, TRACE, model, part, &served.id));
    assert_eq!((&run.links, &batch.links), (&vec![batch.id.clone()], &vec![served.id.clone()]));
    assert_eq!(batch.attribute("rows"), "1");
    // One after the other, and all inside of the call.
    let order = [served.times.0, decode.times.1, queue.times.1, run.times.1, encode.times.0, encode.times.1];
    // Each span's times are of the day when it left, as two clocks had it: they may differ by microseconds.
    let slack = 1_000_000;
    assert!(order.windows(2).all(|pair| pair[0] <= pair[1] + slack), "{order:?}");
    assert!(served.times.1 + slack >= encode.times.1);

    // What fails is part of the trace as well, and names it.
    let refused = classify(&stand, "no-such", &[("traceparent", PARENT), ("x-request-id", "the-refused-request")]);
    assert_eq!(
        (refused.status, refused.json()["error"]["trace_id"].as_str()),
        (404, Some(TRACE)),
        "{}",
        refused.text()
    );
    for said in lines(&stand, "the-refused-request") {
        assert_eq!(said["trace_id"].as_str(), Some(TRACE), "{said}");
    }

    // Without a parent a trace begins here; one that is not kept is handed on, and told by nobody.
    let (begun, first) = trace_of(&classify(&stand, "mnist", &[("traceparent", "00-0-0-01")]));
    assert_ne!(begun, TRACE);
    let request = find(&collector, &begun, web, "classify", "");
    assert_eq!(request.id, first);
    let not_kept = format!("00-{:032x}-{:016x}-00", 7, 7);
    let (passed, _) =
        trace_of(&classify(&stand, "mnist", &[("traceparent", &not_kept), ("x-request-id", "not-kept-one")]));
    assert_eq!(lines(&stand, "not-kept-one")[2]["trace_id"].as_str(), Some(passed.as_str()));
    let call = find(&collector, &begun, web, "classify", &request.id);
    find(&collector, &begun, model, "classify", &call.id);
    assert!(collector.trace(&passed).is_empty(), "{:?}", collector.trace(&passed));
    let page = stand.server_admin().get("/metrics").text();
    assert!(page.contains("outboard_trace_spans_total{outcome=\"sent\"}"), "{page}");
}

#[test]
fn a_streamed_chat_tells_how_long_it_waited_read_and_wrote() {
    let collector = Collector::start();
    let models = tiny_chat_model();
    let (server, gateway) = (collector.setting(), collector.setting());
    let models = vec![models.path().to_owned()];
    let stand = Stand::start(Parts { models, only: Vec::new(), server, gateway, ..Parts::default() });
    let body = serde_json::json!({
        "model": "tiny-llama", "stream": true, "temperature": 0, "max_tokens": 5,
        "messages": [{"role": "user", "content": "hello"}],
    });
    let headers = [("content-type", "application/json"), ("traceparent", PARENT), ("x-request-id", "the-traced-chat")];
    let answer = stand.http().post("/v1/chat/completions", &headers, body.to_string().as_bytes());
    assert!(answer.status == 200 && answer.text().contains("[DONE]"), "{}", answer.text());
    assert_eq!(trace_of(&answer).0, TRACE);
    let request = find(&collector, TRACE, "outboard-gateway", "chat", "b7ad6b7169203331");
    let call = find(&collector, TRACE, "outboard-gateway", "start", &request.id);
    let stream = find(&collector, TRACE, "outboard-server", "stream", &call.id);
    assert_eq!((stream.attribute("tokens_out").as_str(), stream.failed), ("5", false));
    for part in ["queue", "prefill", "stream"] {
        let span = find(&collector, TRACE, "outboard-server", part, &stream.id);
        assert!(span.times.0 <= span.times.1, "{span:?}");
    }
    for said in lines(&stand, "the-traced-chat") {
        assert_eq!(said["trace_id"].as_str(), Some(TRACE), "{said}");
    }
}

/// Nothing that a collector does, or leaves undone, is seen by those who ask.
#[test]
fn a_collector_that_hangs_holds_up_neither_requests_nor_the_end() {
    // Connections wait in its queue for ever.
    let hanging = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("traces.endpoint=http://{}", hanging.local_addr().expect("it is bound"));
    let settings = vec![endpoint, "traces.queue=8".to_owned()];
    let (only, server) = (vec!["mnist".into()], settings.clone());
    let mut stand = Stand::start(Parts { only, server, gateway: settings, ..Parts::default() });
    wait_until("spans that nobody takes to be dropped", PATIENCE, || {
        assert_eq!(classify(&stand, "mnist", &[]).status, 200);
        let dropped = stand.server_metric("outboard_trace_spans_total{outcome=\"queue_full\"}");
        (dropped > 0.0).then_some(())
    });
    for program in [&mut stand.gateway, &mut stand.server].into_iter().flatten() {
        program.signal(Signal::TERM);
        assert!(program.wait(PATIENCE).success(), "{}", program.log());
    }
}
