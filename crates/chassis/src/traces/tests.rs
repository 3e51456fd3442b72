use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Instant;

use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use opentelemetry_proto::tonic::common::v1::any_value;
use opentelemetry_proto::tonic::trace::v1::Span as Proto;
use prost::Message as _;

use super::*;

const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// Answers each request with what `answer` makes of its number, and gives the test what it had.
fn collector(answer: fn(usize) -> Option<&'static str>) -> (Settings, mpsc::Receiver<(String, Vec<u8>)>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let endpoint = format!("http://{}", listener.local_addr().expect("it is bound"));
    let (sender, taken) = mpsc::channel();
    std::thread::spawn(move || {
        for number in 0.. {
            let (mut stream, _) = listener.accept().expect("a connection");
            let request = read(&mut stream);
            let held = match answer(number) {
                Some(answer) => stream.write_all(answer.as_bytes()).map(|()| None),
                None => Ok(Some(stream)),
            };
            if sender.send(request).is_err() || held.is_err() {
                return;
            }
            // One that gives no answer hangs, and does not hang up.
            std::mem::forget(held);
        }
    });
    (Settings { endpoint, ..Settings::default() }, taken)
}

fn read(stream: &mut TcpStream) -> (String, Vec<u8>) {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        stream.read_exact(&mut byte).expect("a head");
        head.push(byte[0]);
    }
    let head = String::from_utf8(head).expect("a head of text").to_lowercase();
    let length = head.split("content-length: ").nth(1).and_then(|rest| rest.lines().next());
    let mut body = vec![0; length.and_then(|length| length.parse().ok()).expect("a length")];
    stream.read_exact(&mut body).expect("a body");
    (head, body)
}

const TAKEN: &str = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
const BUSY: &str = "HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n";
const WRONG: &str = "HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n";

fn start(settings: &Settings) -> (Traces, Metrics) {
    let metrics = Metrics::new("test", "1");
    (Traces::start(settings, "outboard-test", "1.2.3", &metrics).expect("it can be used"), metrics)
}

fn spans(body: &[u8]) -> Vec<Proto> {
    let sent = ExportTraceServiceRequest::decode(body).expect("the collector's form");
    sent.resource_spans.into_iter().flat_map(|one| one.scope_spans).flat_map(|scope| scope.spans).collect()
}

fn count(metrics: &Metrics, outcome: &str) -> u64 {
    let page = metrics.page();
    let line = format!("outboard_trace_spans_total{{outcome=\"{outcome}\"}} ");
    let value = page.lines().find_map(|found| found.strip_prefix(&line));
    value.and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{outcome} is not in {page}"))
}

fn whole(traces: &Traces) -> Span {
    let now = Instant::now();
    let place = traces.place(TraceParent::parse(PARENT));
    Span::server("classify", &place, now - Duration::from_millis(9), now)
}

#[test]
fn a_collector_gets_each_span_with_its_place_its_times_and_what_is_known_of_it() {
    let (settings, taken) = collector(|_| Some(TAKEN));
    let (traces, metrics) = start(&settings);
    let parent = TraceParent::parse(PARENT);
    let place = traces.place(parent);
    let own = place.told().expect("its caller keeps it");
    let end = Instant::now();
    let at = |ago| end - Duration::from_millis(ago);
    let other = TraceParent::begin();
    let event = Event { name: "retry", at: at(3), attributes: vec![("reason", "lost".into())] };
    traces.tell([
        Span::part("run", own, at(5), at(2)).with_links([other]),
        Span::client("call", own.child(), own, at(9), at(1)).with_events([event]),
        Span::server("classify", &place, at(9), end).with("rows", 2_usize).with_failure(Some("too many")),
    ]);
    traces.end();
    let (head, body) = taken.recv().expect("a request");
    assert!(head.starts_with("post /v1/traces http/1.1"), "{head}");
    assert!(head.contains("content-type: application/x-protobuf") && head.contains("host: 127.0.0.1:"), "{head}");
    let sent = ExportTraceServiceRequest::decode(body.as_slice()).expect("the collector's form");
    let resource = sent.resource_spans[0].resource.as_ref().expect("who sends");
    let named = resource.attributes.iter().any(|attribute| {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        attribute.key == "service.name" && value == Some(&any_value::Value::StringValue("outboard-test".to_owned()))
    });
    assert!(named, "{resource:?}");
    let [run, call, whole] = <[Proto; 3]>::try_from(spans(&body)).expect("three spans");
    for span in [&run, &call, &whole] {
        assert_eq!(span.trace_id, 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c_u128.to_be_bytes());
    }
    assert_eq!(whole.parent_span_id, 0xb7ad_6b71_6920_3331_u64.to_be_bytes());
    assert_eq!(whole.span_id, own.span_bytes());
    assert_eq!((&run.parent_span_id, &call.parent_span_id), (&whole.span_id, &whole.span_id));
    assert_eq!(whole.status.map(|status| status.message), Some("too many".to_owned()));
    assert_eq!((run.name.as_str(), run.end_time_unix_nano - run.start_time_unix_nano), ("run", 3_000_000));
    assert_eq!(whole.end_time_unix_nano - run.end_time_unix_nano, 2_000_000);
    assert_eq!((whole.flags, call.flags), (0x301, 0x101), "sampled; the parent is known to be elsewhere, or here");
    assert_eq!(run.links[0].span_id, other.span_bytes());
    assert_eq!((call.events[0].name.as_str(), call.events[0].attributes.len()), ("retry", 1));
    assert_eq!((count(&metrics, "sent"), count(&metrics, "failed"), count(&metrics, "queue_full")), (3, 0, 0));
}

#[test]
fn a_collector_that_is_busy_is_asked_again_and_one_that_refuses_is_not() {
    let (settings, taken) = collector(|number| Some(if number == 0 { BUSY } else { TAKEN }));
    let (traces, metrics) = start(&settings);
    traces.tell([whole(&traces)]);
    let (first, second) = (taken.recv().expect("a try"), taken.recv().expect("another"));
    assert_eq!(first.1, second.1);
    traces.end();
    assert_eq!((count(&metrics, "sent"), count(&metrics, "failed")), (1, 0));

    let (settings, taken) = collector(|_| Some(WRONG));
    let (traces, metrics) = start(&settings);
    traces.tell([whole(&traces)]);
    traces.end();
    taken.recv().expect("a try");
    assert_eq!((count(&metrics, "sent"), count(&metrics, "failed")), (0, 1));
    assert!(taken.try_recv().is_err(), "it was asked once");
}

#[test]
fn spans_that_a_collector_threw_away_are_counted() {
    // A partial success: one span rejected, as protobuf has it.
    const PARTLY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\n\x0a\x02\x08\x01";
    let answer = ExportTraceServiceResponse::decode(&b"\x0a\x02\x08\x01"[..]).expect("as written");
    assert_eq!(answer.partial_success.map(|partial| partial.rejected_spans), Some(1));
    let (settings, _taken) = collector(|_| Some(PARTLY));
    let (traces, metrics) = start(&settings);
    traces.tell([whole(&traces), whole(&traces)]);
    traces.end();
    assert_eq!((count(&metrics, "sent"), count(&metrics, "failed")), (1, 1));
}

#[test]
fn a_collector_that_hangs_costs_spans_and_holds_up_nobody() {
    let (settings, taken) = collector(|_| None);
    let (traces, metrics) = start(&Settings { queue: 4, ..settings });
    traces.tell([whole(&traces)]);
    taken.recv().expect("it has one, and says nothing");
    // This returns: nobody waits for the collector, which has not answered and never will.
    traces.tell((0..100).map(|_| whole(&traces)));
    assert_eq!(count(&metrics, "queue_full"), 96, "four wait");
    traces.end();
}

#[test]
fn without_a_collector_a_trace_is_handed_on_and_nothing_is_told() {
    let (traces, _) = start(&Settings::default());
    let parent = TraceParent::parse(PARENT);
    let place = traces.place(parent);
    assert_eq!((Some(place.own), place.parent, place.told()), (parent, parent, None));
    assert!(traces.place_below(None).is_none());
    assert_eq!(traces.place_below(parent).map(|place| place.own), parent);
    let begun = traces.place(None);
    assert!(begun.own.is_sampled() && begun.told().is_none() && begun.parent.is_none());
    traces.tell([whole(&traces)]);
    traces.end();
}

#[test]
fn who_begins_a_trace_decides_and_the_others_follow() {
    let parent = TraceParent::parse(PARENT).expect("the standard's own example");
    let (kept, not) = (Some(parent), Some(parent.with_sampled(false)));
    let all = |sampler: &str, ratio| {
        let sampler = Sampler::try_from(sampler.to_owned()).expect("a name");
        [kept, not, None].map(|parent| {
            let traces = Traces { sampler, ratio, outbox: None };
            traces.place(parent).own.is_sampled()
        })
    };
    assert_eq!(all("always_on", 0.0), [true, true, true]);
    assert_eq!(all("always_off", 1.0), [false, false, false]);
    assert_eq!(all("traceidratio", 1.0), [true, true, true]);
    assert_eq!(all("traceidratio", 0.0), [false, false, false]);
    assert_eq!(all("parentbased_always_on", 0.0), [true, false, true]);
    assert_eq!(all("parentbased_always_off", 1.0), [true, false, false]);
    assert_eq!(all("parentbased_traceidratio", 1.0), [true, false, true]);
    assert_eq!(all("parentbased_traceidratio", 0.0), [true, false, false]);
    // By the id alone, so that all processes agree, and about as many as were asked for.
    let traces = Traces { sampler: Sampler::Ratio, ratio: 0.25, outbox: None };
    let begun: Vec<TraceParent> = (0..10_000).map(|_| traces.place(None).own).collect();
    let kept = begun.iter().filter(|begun| begun.is_sampled()).count();
    assert!((2_200..2_800).contains(&kept), "{kept} of 10,000");
    assert!(begun.iter().all(|begun| traces.place(Some(*begun)).own.is_sampled() == begun.is_sampled()));
}

#[test]
fn settings_that_cannot_be_used_are_named() {
    let metrics = Metrics::new("test", "1");
    for wrong in ["collector", "https://127.0.0.1:4318", "http:///v1/traces", "4318", "http://a b"] {
        let settings = Settings { endpoint: wrong.to_owned(), ..Settings::default() };
        let error = Traces::start(&settings, "test", "1", &metrics).err().expect("no endpoint");
        assert!(error.contains("`traces.endpoint`") && error.contains(wrong), "{error}");
    }
    for (settings, says) in [
        (Settings { ratio: 1.5, ..Settings::default() }, "`traces.ratio` is 1.5, allowed is 0 to 1"),
        (Settings { ratio: f64::NAN, ..Settings::default() }, "`traces.ratio` is NaN"),
        (Settings { queue: 0, ..Settings::default() }, "`traces.queue` is 0"),
    ] {
        let error = Traces::start(&settings, "test", "1", &metrics).err().expect(says);
        assert!(error.contains(says), "{error}");
    }
    for (endpoint, whole) in [
        ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ("http://a:4318/", "http://a:4318/v1/traces"),
        ("http://a/b", "http://a/b"),
    ] {
        let settings = Settings { endpoint: endpoint.to_owned(), ..Settings::default() };
        let address = settings.collector().expect("it can be used").expect("there is one");
        assert_eq!(address.to_string(), whole);
    }
}
