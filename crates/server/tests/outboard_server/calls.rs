//! Calls, from the caller's side and from the operator's.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use bytes::Bytes;
use idl::base::Base;
use idl::fault::{Fault, FaultCode};
use idl::health::{CheckReply, CheckRequest, ServingStatus};
use idl::inference::{CancelRequest, ClassifyReply, ClassifyRequest, DataType, InferRequest, ModelsRequest, Tensor};
use idl::methods;

use crate::program::{Answer, Running, answer, call, numbered, oneway, repository};

fn picture(name: &str) -> Bytes {
    std::fs::read(repository().join("models/testdata").join(name)).unwrap().into()
}

pub(crate) fn classify(request_id: &str) -> ClassifyRequest {
    ClassifyRequest {
        base: Some(Base { request_id: Some(request_id.to_owned()), ..Base::default() }),
        model: Some("mnist".to_owned()),
        images: Some(vec![picture("shoe.png")]),
        ..ClassifyRequest::default()
    }
}

#[track_caller]
pub(crate) fn fault<R: std::fmt::Debug>(answer: Answer<R>) -> Fault {
    answer.unwrap().unwrap_err()
}

#[test]
fn a_call_is_answered_counted_and_logged_once_with_its_id() {
    let server = Running::start(&[]);
    let reply = server.call(&methods::CLASSIFY, &classify("the-callers-own-id")).unwrap().unwrap();
    assert_eq!(reply.request_id.as_deref(), Some("the-callers-own-id"));
    assert_eq!(reply.results.unwrap()[0].labels.as_ref().map(Vec::len), Some(5));
    let health = server.call(&methods::CHECK, &CheckRequest::default()).unwrap().unwrap();
    assert_eq!((health.status, health.live), (Some(ServingStatus::SERVING), Some(true)));
    assert_eq!(server.metric("outboard_server_calls_total{method=\"classify\",outcome=\"ok\"}"), 1.0);
    for phase in ["read", "decode", "queue", "run", "encode"] {
        let series = format!("outboard_server_phase_seconds_count{{model=\"mnist\",phase=\"{phase}\"}}");
        assert_eq!(server.metric(&series), 1.0, "{phase}");
    }
    let (status, log) = server.stop();
    assert_eq!(status, Some(0), "{log}");
    let lines: Vec<&str> = log.lines().filter(|line| line.contains("the-callers-own-id")).collect();
    let [line] = lines[..] else { panic!("one line for one call: {lines:?}") };
    for field in ["caller", "model", "kind", "queue_ms", "device_ms", "total_ms", "batch_size", "bytes_in", "outcome"] {
        assert!(line.contains(&format!("\"{field}\":")), "{field} is not in {line}");
    }
}

#[test]
fn a_call_names_its_callers_trace_in_the_log_and_in_a_fault() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let server = Running::start(&[]);
    let traced = |id: &str, parent: &str, model: &str| {
        let mut request = classify(id);
        request.model = Some(model.to_owned());
        request.base.as_mut().unwrap().traceparent = Some(parent.to_owned());
        server.call(&methods::CLASSIFY, &request)
    };
    let parent = format!("00-{TRACE}-b7ad6b7169203331-01");
    traced("the-traced-call", &parent, "mnist").unwrap().unwrap();
    assert_eq!(fault(traced("the-traced-fault", &parent, "no-such")).trace_id.as_deref(), Some(TRACE));
    // What is no parent is as none.
    let broken = format!("00-{TRACE}-0000000000000000-01");
    assert_eq!(fault(traced("the-broken-parent", &broken, "no-such")).trace_id, None);
    let (status, log) = server.stop();
    assert_eq!(status, Some(0), "{log}");
    let line = |id: &str| log.lines().find(|line| line.contains(id)).unwrap().to_owned();
    for id in ["the-traced-call", "the-traced-fault"] {
        assert!(line(id).contains(&format!("\"trace_id\":\"{TRACE}\"")), "{}", line(id));
    }
    assert!(!line("the-broken-parent").contains("trace_id"), "{log}");
}

/// Calls whose caller had gone were neither counted nor logged: the handler was dropped before it came to that.
#[test]
fn a_call_whose_caller_leaves_is_counted_and_logged_like_any_other() {
    const CALLS: usize = 20;
    let mut server = Running::start(&[]);
    let large = vec![picture("coffee.jpg"); 16];
    for n in 0..CALLS {
        let request = ClassifyRequest { images: Some(large.clone()), ..classify(&format!("leaving-{n:03}")) };
        let mut stream = server.connect();
        stream.write_all(&call("classify", &request)).unwrap();
    }
    let all = "outboard_server_calls_total{method=\"classify\"";
    server.wait_until("count of every call", |it| it.metric(all) >= CALLS as f64);
    assert_eq!(server.metric(all), CALLS as f64);
    let (status, log) = server.stop();
    assert_eq!(status, Some(0));
    for n in 0..CALLS {
        assert_eq!(log.matches(&format!("\"leaving-{n:03}\"")).count(), 1, "leaving-{n:03}");
    }
}

#[test]
fn calls_that_cannot_be_read_are_counted_and_answered() {
    let server = Running::start(&[]);
    let mut stream = server.connect();
    stream.write_all(&call("frobnicate", &CheckRequest::default())).unwrap();
    assert!(
        answer(&mut stream).result::<CheckReply, Fault>().is_err_and(|error| error.to_string().contains("frobnicate"))
    );
    // Field 1 of the arguments is a struct with a field of a type that does not exist; the length is made right.
    let good = call("classify", &ClassifyRequest::default());
    let mut bad = good[..good.len() - 2].to_vec();
    bad.extend_from_slice(&[99, 0]);
    stream.write_all(&bad).unwrap();
    assert!(answer(&mut stream).result::<CheckReply, Fault>().is_err());
    // The connection is still of use.
    stream.write_all(&call("check", &CheckRequest::default())).unwrap();
    assert!(answer(&mut stream).result::<CheckReply, Fault>().is_ok());
    for method in ["other", "classify"] {
        let series = format!("outboard_server_calls_total{{method=\"{method}\",outcome=\"invalid_input\"}}");
        assert_eq!(server.metric(&series), 1.0, "{method}");
    }
}

#[test]
fn what_a_caller_writes_swells_neither_the_log_nor_the_answer() {
    let long = "x".repeat(4_000_000);
    let server = Running::start(&[]);
    let tensor = |data_type| Tensor { name: Some(long.clone()), data_type, shape: Some(vec![1]), ..Tensor::default() };
    let infer = |data_type| InferRequest {
        model: Some("mnist".to_owned()),
        inputs: Some(vec![tensor(data_type)]),
        ..InferRequest::default()
    };
    let faults = [
        fault(
            server.call(&methods::CLASSIFY, &ClassifyRequest { model: Some(long.clone()), ..classify("long-model") }),
        ),
        fault(
            server
                .call(&methods::CLASSIFY, &ClassifyRequest { version: Some(long.clone()), ..classify("long-version") }),
        ),
        fault(server.call(&methods::INFER, &infer(Some(DataType::F32)))),
        fault(server.call(&methods::INFER, &infer(None))),
        fault(server.call(&methods::MODELS, &ModelsRequest { model: Some(long.clone()), ..ModelsRequest::default() })),
        fault(server.call(&methods::CHECK, &CheckRequest { model: Some(long.clone()), ..CheckRequest::default() })),
    ];
    let reply = server.call(&methods::CLASSIFY, &classify(&long)).unwrap().unwrap();
    assert_eq!(reply.request_id.map(|id| id.len()), Some(32), "an id that is no sane one is replaced");
    for fault in faults {
        let bytes = [&fault.message, &fault.param, &fault.request_id].map(|text| text.as_ref().map_or(0, String::len));
        assert!(bytes.iter().sum::<usize>() < 2_000, "{bytes:?}");
    }
    let (_, log) = server.stop();
    let longest = log.lines().map(str::len).max();
    assert!(longest < Some(2_500), "{longest:?}");
}

#[test]
fn a_number_is_named_as_it_was_sent() {
    let server = Running::start(&["limits.top_k=7", "limits.preview_px=64", "limits.pictures_per_call=2"]);
    let mut pictures = classify("too-many-pictures");
    pictures.images = Some(vec![picture("shoe.png"); 3]);
    for (request, code, says) in [
        (
            ClassifyRequest { top_k: Some(-3), ..classify("top-k-negative") },
            FaultCode::INVALID_INPUT,
            "top_k is -3, allowed is 1 to 7",
        ),
        (
            ClassifyRequest { top_k: Some(0), ..classify("top-k-zero") },
            FaultCode::INVALID_INPUT,
            "top_k is 0, allowed is 1 to 7",
        ),
        (
            ClassifyRequest { top_k: Some(8), ..classify("top-k-large") },
            FaultCode::INVALID_INPUT,
            "top_k is 8, allowed is 1 to 7",
        ),
        (
            ClassifyRequest { preview_px: Some(-1), ..classify("preview-negative") },
            FaultCode::INVALID_INPUT,
            "preview_px is -1, allowed is 0 to 64",
        ),
        (
            ClassifyRequest { preview_px: Some(65), ..classify("preview-large") },
            FaultCode::INVALID_INPUT,
            "preview_px is 65, allowed is 0 to 64",
        ),
        (pictures, FaultCode::TOO_LARGE, "3 pictures in one call, the limit is 2"),
    ] {
        let fault = fault(server.call(&methods::CLASSIFY, &request));
        assert_eq!((fault.code, fault.message.as_deref()), (Some(code), Some(says)));
    }
}

#[test]
fn cancelling_what_is_not_there_is_answered_with_silence() {
    let server = Running::start(&[]);
    let mut stream = server.connect();
    for call_id in [Some(Bytes::from_static(&[1; 16])), Some(Bytes::from_static(b"short")), None] {
        stream.write_all(&call("cancel", &CancelRequest { call_id, ..CancelRequest::default() })).unwrap();
    }
    stream.write_all(&call("check", &CheckRequest::default())).unwrap();
    assert_eq!(answer(&mut stream).method.as_str(), "check");
}

/// A call that takes long where one thread decodes the pictures of all, and is sent in no time however busy the machine is: each
/// picture has 16 million grey pixels in 21 KB.
pub(crate) fn slow(request_id: &str) -> ClassifyRequest {
    let picture = Bytes::from_static(include_bytes!("slow.png"));
    let mut request = ClassifyRequest { images: Some(vec![picture; 3]), ..classify(request_id) };
    request.base.as_mut().unwrap().timeout_ms = Some(300_000);
    request
}

/// A server that works on `calls` calls, each on a connection of its own. Their pictures take turns, so all are there for long.
fn busy_with(calls: usize) -> (Running, Vec<TcpStream>) {
    let mut server = Running::start(&["limits.decode_threads=1"]);
    let mut busy: Vec<TcpStream> = (0..calls).map(|_| server.connect()).collect();
    let frame = call("classify", &slow("keeps-the-decoder-busy"));
    for stream in &mut busy {
        stream.write_all(&frame).unwrap();
    }
    server.wait_until("start of all calls", |it| it.metric("outboard_server_calls_in_flight ") >= calls as f64);
    (server, busy)
}

#[test]
fn a_call_is_cancelled_by_its_own_connection_only() {
    let id = Bytes::from_static(&[9; 16]);
    let cancel = CancelRequest { call_id: Some(id.clone()), ..CancelRequest::default() };
    let mut server = Running::start(&["limits.decode_threads=1"]);
    let mut busy = server.connect();
    busy.write_all(&call("classify", &slow("keeps-the-decoder-busy"))).unwrap();
    let mut request = slow("to-be-cancelled");
    request.base.as_mut().unwrap().call_id = Some(id);

    let mut stranger = server.connect();
    stranger.write_all(&call("cancel", &cancel)).unwrap();
    let mut owner = server.connect();
    owner.write_all(&[call("classify", &request), call("cancel", &cancel)].concat()).unwrap();
    let fault = fault(answer(&mut owner).result::<ClassifyReply, Fault>());
    assert_eq!((fault.code, fault.request_id.as_deref()), (Some(FaultCode::CANCELLED), Some("to-be-cancelled")));

    // The same id from elsewhere stops nothing.
    owner.write_all(&call("classify", &request)).unwrap();
    server.wait_until("both calls", |it| it.metric("outboard_server_calls_in_flight ") >= 2.0);
    stranger.write_all(&call("cancel", &cancel)).unwrap();
    assert!(answer(&mut owner).result::<ClassifyReply, Fault>().unwrap().is_ok());
    assert!(answer(&mut busy).result::<ClassifyReply, Fault>().unwrap().is_ok());
}

#[test]
fn a_drain_answers_health_refuses_the_new_and_finishes_the_old() {
    let (mut server, mut old) = busy_with(24);
    server.terminate();
    server.wait_until("drain", |it| it.log().contains("draining; a second signal"));

    // Whoever waits for an answer can ask, and whoever comes now. Other numbers, or the answers would wait.
    let mut new = server.connect();
    for asking in [old.last_mut().unwrap(), &mut new] {
        asking.write_all(&numbered("check", 8, &CheckRequest::default())).unwrap();
        let health = answer(asking).result::<CheckReply, Fault>().unwrap().unwrap();
        assert_eq!((health.status, health.live), (Some(ServingStatus::DRAINING), Some(true)));
        asking.write_all(&numbered("classify", 9, &classify("new-call"))).unwrap();
        let refused = fault(answer(asking).result::<ClassifyReply, Fault>());
        assert_eq!(refused.code, Some(FaultCode::UNAVAILABLE));
        assert!(refused.retry_after_ms > Some(0), "{refused:?}");
    }
    // Health was not refused.
    assert_eq!(server.metric("outboard_server_refused_calls_total{name=\"draining\"}"), 2.0);
    // By HTTP, too.
    let [ready, live] = ["/health/ready", "/health/live"].map(|path| server.page(path).unwrap());
    assert!(ready.starts_with("HTTP/1.1 503 ") && ready.contains("draining"), "{ready}");
    assert!(live.starts_with("HTTP/1.1 200 "), "{live}");

    for stream in &mut old {
        assert!(answer(stream).result::<ClassifyReply, Fault>().unwrap().is_ok());
    }
    // What came in between holds nothing up: it is let go, and nobody else is let in.
    assert_eq!(new.read(&mut [0]).unwrap(), 0);
    let (status, log) = server.ended();
    assert_eq!(status, Some(0), "{log}");
}

#[test]
fn a_call_in_flight_can_be_cancelled_in_a_drain() {
    let (mut server, mut busy) = busy_with(24);
    let id = Bytes::from_static(&[9; 16]);
    let cancel = CancelRequest { call_id: Some(id.clone()), ..CancelRequest::default() };
    let mut request = slow("to-be-cancelled");
    request.base.as_mut().unwrap().call_id = Some(id);
    let mut owner = server.connect();
    owner.write_all(&call("classify", &request)).unwrap();
    server.wait_until("its start", |it| it.metric("outboard_server_calls_in_flight ") >= 25.0);
    server.terminate();
    server.wait_until("drain", |it| it.log().contains("draining; a second signal"));
    owner.write_all(&oneway("cancel", &cancel)).unwrap();
    let fault = fault(answer(&mut owner).result::<ClassifyReply, Fault>());
    assert_eq!((fault.code, fault.request_id.as_deref()), (Some(FaultCode::CANCELLED), Some("to-be-cancelled")));
    for stream in &mut busy {
        assert!(answer(stream).result::<ClassifyReply, Fault>().unwrap().is_ok());
    }
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let (mut server, _busy) = busy_with(24);
    server.terminate();
    server.wait_until("drain", |it| it.log().contains("draining; a second signal"));
    server.terminate();
    assert_eq!(server.ended().0, Some(130));
}
