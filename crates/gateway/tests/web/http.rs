//! The gateway by itself.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;

use crate::client::{Answer, ask, classify, connect, form, get, read, request, wait_until};
use crate::gateway::Gateway;
use crate::server::FakeServer;
use crate::server_key::about_the_gateway;

const PNG: [(&str, &str); 1] = [("content-type", "image/png")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

fn both(settings: &[&str]) -> (FakeServer, Gateway) {
    let server = FakeServer::start();
    let gateway = Gateway::start(&server.address.to_string(), settings);
    (server, gateway)
}

/// A kept connection that carries one request whose answer is not read yet.
fn send(gateway: &Gateway, bytes: &[u8]) -> std::net::TcpStream {
    let mut stream = connect(&gateway.address);
    stream.write_all(bytes).expect("the gateway reads");
    stream
}

fn ready(gateway: &Gateway) -> Answer {
    get(&gateway.address, "/health/ready")
}

#[test]
fn every_form_of_request_reaches_the_server_as_the_same_pictures() {
    let (server, gateway) = both(&[]);
    let (kind, body) =
        form(&[("model", None, b"good"), ("image", Some("../../etc/x.png"), b"hello"), ("top_k", None, b"2")]);
    let post = |path: &str, kind: &str, body: &[u8]| {
        let answer = ask(&gateway.address, "POST", path, &[("content-type", kind)], body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    let one = [
        post("/v1/classify?model=good&top_k=2", "image/png", b"hello"),
        post("/v1/classify?model=good&top_k=2", "application/octet-stream", b"hello"),
        post("/v1/classify", &kind, &body),
        post("/v1/classify", "application/json", br#"{"model": "good", "image": "aGVsbG8=", "top_k": 2}"#),
        post(
            "/v1/classify",
            "application/json",
            br#"{"model": "good", "image": "data:image/png;base64,aGVsbG8=", "top_k": 2}"#,
        ),
    ];
    for (arrived, answer) in server.arrived().iter().zip(&one) {
        assert_eq!((arrived.images.as_slice(), arrived.top_k), ([b"hello".to_vec()].as_slice(), Some(2)));
        assert_eq!((&answer["model"], &answer["version"]), (&"good".into(), &"7".into()));
        assert_eq!(answer["results"][0], serde_json::json!({"label": "label <0>", "index": 0, "score": 0.75}));
        assert_eq!(answer["results"].as_array().map(Vec::len), Some(2));
        assert_eq!((&answer["width"], &answer["height"], &answer["format"]), (&28.into(), &27.into(), &"png".into()));
        assert_eq!((&answer["timing"]["run_ms"], &answer["timing"]["batch_rows"]), (&3.0.into(), &4.into()));
    }
    assert_eq!(server.arrived().len(), one.len());
    let (kind, body) = form(&[("model", None, b"good"), ("image", Some("a"), b"one"), ("image", Some("b"), b"two")]);
    for answer in [
        post("/v1/classify?model=good", "application/json", br#"{"images": ["b25l", "dHdv"]}"#),
        post("/v1/classify", &kind, &body),
    ] {
        assert_eq!(
            server.arrived().last().map(|last| last.images.clone()),
            Some(vec![b"one".to_vec(), b"two".to_vec()])
        );
        assert_eq!(answer["pictures"].as_array().map(Vec::len), Some(2));
        assert_eq!(answer["pictures"][1]["results"][0]["label"], "label <0>");
    }
}

#[test]
fn every_bad_request_is_told_what_is_wrong_with_it() {
    let (server, gateway) = both(&["limits.picture=1KiB", "limits.json=2KiB", "limits.pictures_per_call=2"]);
    let at = |method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]| {
        ask(&gateway.address, method, path, headers, body)
    };
    let post = |headers: &[(&str, &str)], body: &[u8]| at("POST", "/v1/classify?model=good", headers, body);
    let files = |parts: &[(&str, Option<&str>, &[u8])]| {
        let (kind, body) = form(parts);
        at("POST", "/v1/classify", &[("content-type", &kind)], &body)
    };
    let file: (&str, Option<&str>, &[u8]) = ("image", Some("x.png"), b"hello");
    let long = "x".repeat(2_000);
    let many: Vec<_> = std::iter::repeat_n(("other", None, b"".as_slice()), 51).collect();
    let cases: Vec<(Answer, u16, &str, &str, &str)> = vec![
        (post(&PNG, b""), 400, "invalid_input", "image", "empty"),
        (post(&PNG, &[7; 1_025]), 413, "too_large", "", "1024 bytes"),
        (post(&JSON, &[b' '; 2_049]), 413, "too_large", "", "2048 bytes"),
        (post(&[("content-type", "text/csv")], b"a,b"), 415, "unsupported_media", "", "text/csv"),
        (post(&JSON, br#"{"image": "aGVs@G8="}"#), 400, "invalid_input", "image", "offset 4"),
        (post(&JSON, br#"{"images": ["aGVsbG8=", "!"]}"#), 400, "invalid_input", "images[1]", "images[1]"),
        (post(&JSON, br#"{"images": []}"#), 400, "invalid_input", "images", "empty"),
        (post(&JSON, br#"{"images": ["YQ==", "YQ==", "YQ=="]}"#), 413, "too_large", "images", "2"),
        (post(&JSON, br#"{"image": "data:image/png,hello"}"#), 400, "invalid_input", "image", "base64"),
        (post(&JSON, br#"{"picture": "YQ=="}"#), 400, "invalid_input", "", "picture"),
        (post(&JSON, br#"{"image": "#), 400, "invalid_input", "", "JSON"),
        (post(&JSON, b"{}"), 400, "invalid_input", "image", "image"),
        (at("POST", "/v1/classify", &PNG, b"hello"), 400, "invalid_input", "model", "model"),
        (at("POST", "/v1/classify?model=good&top_k=many", &PNG, b"hello"), 400, "invalid_input", "top_k", "many"),
        (at("POST", "/v1/classify?model=nope", &PNG, b"hello"), 404, "model_not_found", "model", "nope"),
        (
            post(&[("content-type", "image/png"), ("x-request-timeout-ms", "soon")], b"a"),
            400,
            "invalid_input",
            "x-request-timeout-ms",
            "soon",
        ),
        (files(&[("model", None, b"good")]), 400, "invalid_input", "image", "image"),
        (
            files(&[("model", None, b"good"), ("image", Some("x"), &[7; 1_025])]),
            413,
            "too_large",
            "image",
            "1024 bytes",
        ),
        (files(&[("model", None, long.as_bytes()), file]), 413, "too_large", "model", "1024"),
        (files(&[("model", None, b"\xff"), file]), 400, "invalid_input", "", "UTF-8"),
        (files(&[("model", None, b"good"), file, file, file]), 413, "too_large", "images", "2 pictures"),
        (files(&many), 413, "too_large", "", "50 fields"),
        (files(&[("model", None, b"good"), file, ("top_k", None, b"many")]), 400, "invalid_input", "top_k", "many"),
        (
            post(&[("content-type", "multipart/form-data; boundary=XyZ")], b"--XyZ\r\nnonsense"),
            400,
            "invalid_input",
            "",
            "body",
        ),
        (post(&[("content-type", "multipart/form-data")], b"hello"), 400, "invalid_input", "", "body"),
        (at("GET", "/v1/classify", &[], b""), 405, "method_not_allowed", "", "POST"),
        (at("DELETE", "/upload", &[], b""), 405, "method_not_allowed", "", "GET, HEAD, POST"),
        (at("POST", "/v1/models", &[], b""), 405, "method_not_allowed", "", "GET, HEAD"),
        (at("POST", "/v1/classify?model=a&model=b", &PNG, b"x"), 400, "invalid_input", "", "duplicate field"),
        (
            at("POST", "/v1/classify?model=good&topk=3", &PNG, b"x"),
            400,
            "invalid_input",
            "",
            "`topk`, expected one of `model`, `top_k`, `keep`",
        ),
        (at("GET", "/health/ready?scope=self&scope=self", &[], b""), 400, "invalid_input", "", "duplicate field"),
        (at("GET", "/health/ready?scope=%ff", &[], b""), 400, "invalid_input", "", "expected `self`"),
        (at("GET", "/health/ready?scop=self", &[], b""), 400, "invalid_input", "", "`scop`, expected `scope`"),
        (
            at("POST", &format!("/v1/classify?model={long}"), &PNG, b"x"),
            400,
            "invalid_input",
            "model",
            "2000 characters",
        ),
        (at("POST", "/v1/classify?model=../etc", &PNG, b"x"), 404, "model_not_found", "model", "../etc"),
        (at("GET", "/v1/models/%ff%00", &[], b""), 404, "model_not_found", "model", "no model"),
        (at("GET", "/assets/ffffffff/upload.js", &[], b""), 404, "not_found", "", "file"),
        (at("GET", "/assets/%ff/%ff", &[], b""), 404, "not_found", "", "file"),
        (at("GET", "/v1/nothing", &[], b""), 404, "not_found", "", "/v1/nothing"),
        (at("GET", "/metrics", &[], b""), 404, "not_found", "", "/metrics"),
    ];
    for (number, (answer, status, code, param, says)) in cases.into_iter().enumerate() {
        let error = answer.error();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "case {number}: {error}");
        assert_eq!(answer.header("cache-control"), Some("no-store"), "case {number}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "case {number}: {error}");
        assert!(error["message"].as_str().is_some_and(|text| text.contains(says)), "case {number}: {error}");
        if status == 405 {
            assert_eq!(answer.header("allow"), Some(says), "case {number}");
        }
    }
    assert_eq!(server.arrived().len(), 1, "only the unknown model is the server's to know");
    let (kind, body) = form(&[("model", None, "m".repeat(1_000).as_bytes()), file]);
    for page in [
        at("POST", "/upload", &PNG, b"hello"),
        at("POST", "/upload", &[("content-type", &kind)], &body),
        at("GET", "/upload", &[("x-request-timeout-ms", "soon")], b""),
    ] {
        assert_eq!(page.status, 400);
        assert!(page.header("content-type").is_some_and(|kind| kind.starts_with("text/html")), "people get a page");
        let (text, id) = (page.text(), page.header("x-request-id").expect("an id"));
        assert!(text.contains("role=\"alert\"") && text.contains(id), "{text}");
    }
    assert_eq!(server.arrived().len(), 1, "a name that no model can have stays here");
}

#[test]
fn what_a_client_writes_makes_neither_the_answer_nor_the_log_long() {
    let (_server, gateway) = both(&[]);
    let long = "k".repeat(1_000_000);
    let model = format!(r#"{{"model": "{long}", "image": "aGVsbG8="}}"#);
    let key = format!(r#"{{"{long}": 1}}"#);
    let value = format!(r#"{{"top_k": "{long}"}}"#);
    // Each of its characters is six in JSON.
    let odd = format!(r#"{{"{}": 1}}"#, r"\u0001".repeat(100_000));
    let of_form = |name: &str, model: &str| {
        let content = vec![b'x'; 2_000];
        form(&[(name, None, &content), ("model", None, model.as_bytes()), ("image", Some("x"), b"hello")])
    };
    let json = |body: String| ("application/json".to_owned(), body.into_bytes());
    let kept = &long[..50_000];
    let cases = [
        ("/v1/classify".to_owned(), json(model), ""),
        ("/v1/classify".to_owned(), json(key), ""),
        ("/v1/classify".to_owned(), json(value), ""),
        ("/v1/classify".to_owned(), json(odd), ""),
        ("/v1/classify?model=good".to_owned(), json("{}".to_owned()), kept),
        (format!("/v1/classify?{kept}=1"), json("{}".to_owned()), ""),
        (format!("/v1/{kept}"), json("{}".to_owned()), ""),
        ("/v1/classify".to_owned(), (format!("text/{kept}"), Vec::new()), ""),
        ("/v1/classify".to_owned(), of_form(&long[..10_000], "good"), ""),
        ("/v1/classify".to_owned(), of_form("other", &long[..1_000]), ""),
        ("/upload".to_owned(), of_form("other", &long[..1_000]), ""),
    ];
    for (number, (path, (kind, body), time)) in cases.into_iter().enumerate() {
        let id = format!("long-text-{number}");
        let mut headers = vec![("content-type", kind.as_str()), ("x-request-id", id.as_str())];
        headers.extend((!time.is_empty()).then_some(("x-request-timeout-ms", time)));
        let answer = ask(&gateway.address, "POST", &path, &headers, &body);
        assert!((400..500).contains(&answer.status), "{id}: {}", answer.status);
        assert!(answer.body.len() < 2_000, "{id}: {} bytes", answer.body.len());
        let event = gateway.event(&id).to_string();
        assert!(event.len() < 2_000, "{id}: {} bytes", event.len());
    }
    let wordy = classify(&gateway.address, "wordy", b"hello");
    let event = gateway.event(wordy.header("x-request-id").expect("an id")).to_string();
    assert!(event.len() < 2_000, "{} bytes", event.len());
}

#[test]
fn more_pictures_than_a_call_may_have_are_not_decoded() {
    let (_server, gateway) = both(&[]);
    let send = |pictures: usize| {
        let list = vec!["\"!\""; pictures].join(",");
        let body = format!(r#"{{"model": "good", "images": [{list}]}}"#);
        ask(&gateway.address, "POST", "/v1/classify", &JSON, body.as_bytes())
    };
    for pictures in [17, 40, 5_000] {
        let answer = send(pictures);
        assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "told before anything is decoded");
        assert!(answer.text().contains(&format!("{pictures} pictures")), "{}", answer.text());
    }
}

#[test]
fn a_list_of_very_many_pictures_takes_little_more_memory_than_its_body() {
    let (_server, gateway) = both(&[]);
    let list = "\"\",".repeat(7_000_000);
    let body = format!(r#"{{"images": [{}]}}"#, list.trim_end_matches(','));
    let before = gateway.most_memory();
    let answer = ask(&gateway.address, "POST", "/v1/classify", &JSON, body.as_bytes());
    assert_eq!((answer.status, answer.code().as_str()), (413, "too_large"), "{}", answer.text());
    let (took, limit) = (gateway.most_memory() - before, 3 * body.len());
    assert!(took < limit, "a body of {} bytes took {took}", body.len());
}

#[test]
fn a_body_that_never_comes_holds_nothing_for_longer_than_bodies_may_take() {
    let (_server, gateway) = both(&["limits.body_time=100ms"]);
    for path in ["/v1/nothing", "/v1/models", "/v1/classify?model=good", "/v1/classify?model=a&model=b"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: text/csv\r\nContent-Length: 1000\r\n\r\n");
        let mut stream = send(&gateway, head.as_bytes());
        // The reader's own patience ends the test where the answer does not come.
        let answer = read(&mut stream);
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    for path in ["/v1/classify?model=good", "/upload"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-Timeout-Ms: soon\r\nContent-Length: 1000\r\n\r\n");
        assert_eq!(read(&mut send(&gateway, head.as_bytes())).status, 400, "{path}");
    }
}

#[test]
fn a_body_that_never_comes_does_not_keep_a_drain_from_ending() {
    let (_server, mut gateway) = both(&["limits.body_time=500ms", "drain=10m"]);
    let head = "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    let mut stream = send(&gateway, head.as_bytes());
    wait_until("the request to be in work", || metric(&gateway, "outboard_gateway_requests_in_flight", "1"));
    gateway.terminate();
    // Waiting has an end of its own, which fails the test where the process stays.
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    assert_eq!(read(&mut stream).status, 404);
}

/// Something when a metric has this value.
fn metric(gateway: &Gateway, name: &str, value: &str) -> Option<()> {
    let page = get(&gateway.admin, "/metrics").text();
    page.lines().any(|line| line.split_once(' ') == Some((name, value))).then_some(())
}

#[test]
fn what_failed_is_logged_where_only_failures_are_and_lost_lines_are_counted() {
    let (_server, gateway) = both(&["log.requests=failures"]);
    let send = |id: &str, path: &str| {
        let headers = [("content-type", "image/png"), ("x-request-id", id)];
        ask(&gateway.address, "POST", path, &headers, b"hello").status
    };
    assert_eq!(send("it-is-well", "/v1/classify?model=good"), 200);
    for (id, path, status) in [
        ("not-a-number", "/v1/classify?model=good&top_k=x", 400),
        ("no-such-model", "/v1/classify?model=nope", 404),
        ("wrong-method", "/v1/models", 405),
        ("none-serves", "/v1/classify?model=Unavailable", 503),
    ] {
        assert_eq!(send(id, path), status);
        assert_eq!(gateway.event(id)["status"], status, "{id}");
    }
    // The lines are written in order: that of the first request would be there by now.
    assert!(gateway.events().iter().all(|event| event["request_id"] != "it-is-well"), "{}", gateway.log());
    assert!(metric(&gateway, "outboard_log_dropped_lines_total", "0").is_some());
}

#[test]
fn head_is_answered_like_get_without_the_body() {
    let (_server, gateway) = both(&[]);
    for path in ["/upload", "/health/live", "/v1/models", "/docs"] {
        let (status, body) = head(&gateway.address, path);
        assert_eq!((status, get(&gateway.address, path).status), (200, 200), "{path}");
        assert!(body.is_empty(), "{path}: a body of {} bytes", body.len());
    }
}

/// Status and body of an answer to HEAD, whose Content-Length says how long the body would be.
fn head(address: &str, path: &str) -> (u16, Vec<u8>) {
    let mut stream = connect(address);
    let request = format!("HEAD {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).expect("is sent");
    let mut all = Vec::new();
    stream.read_to_end(&mut all).expect("is answered");
    let end = all.windows(4).position(|bytes| bytes == b"\r\n\r\n").expect("a head") + 4;
    let status = std::str::from_utf8(&all[9..12]).ok().and_then(|text| text.parse().ok());
    (status.expect("a status"), all.split_off(end))
}

#[test]
fn the_documentation_names_the_address_by_which_it_was_asked_for() {
    let (_server, gateway) = both(&[]);
    let page = |host: &str| {
        let mut stream = connect(&gateway.address);
        let request = format!("GET /docs HTTP/1.1\r\nHost: {host}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("is sent");
        read(&mut stream).text().to_owned()
    };
    assert!(page("pictures.example.org:8443").contains("OUTBOARD=http://pictures.example.org:8443"));
    let odd = page("x$(reboot)");
    assert!(!odd.contains("reboot") && odd.contains("OUTBOARD=http://127.0.0.1:8080"));
}

#[test]
fn a_fault_of_the_server_keeps_its_row_of_the_table() {
    let (_server, gateway) = both(&[]);
    for kind in fault::Kind::ALL.into_iter().filter(|kind| !about_the_gateway(*kind)) {
        let row = kind.row();
        let answer = classify(&gateway.address, row.name, b"hello");
        let error = answer.error();
        assert_eq!(
            (answer.status, error["code"].as_str(), error["type"].as_str()),
            (row.http, Some(row.code), Some(row.openai_type))
        );
        assert_eq!(error["param"], "top_k");
        let retries = matches!(row.retry, fault::Retry::Later | fault::Retry::Backoff);
        assert_eq!(answer.header("retry-after").is_some(), retries, "{kind}");
    }
}

#[test]
fn the_id_and_the_budget_reach_the_server_and_the_log() {
    let (server, gateway) = both(&[]);
    let send = |id: &str, budget: &str| {
        let headers = [("content-type", "image/png"), ("x-request-id", id), ("x-request-timeout-ms", budget)];
        ask(&gateway.address, "POST", "/v1/classify?model=good", &headers, b"hello")
    };
    let kept = send("my-own-id.42", "5000");
    assert_eq!(kept.header("x-request-id"), Some("my-own-id.42"));
    assert_eq!(kept.json()["request_id"], "my-own-id.42");
    let timing = kept.header("server-timing").expect("every answer has one");
    assert!(timing.contains("run;dur=3.000") && timing.contains("total;dur="), "{timing}");
    let arrived = server.arrived();
    assert_eq!(arrived[0].request_id, "my-own-id.42");
    assert!((1..=5_000).contains(&arrived[0].timeout_ms), "{arrived:?}");
    let event = gateway.event("my-own-id.42");
    for (field, value) in [("model", "good"), ("outcome", "ok"), ("kind", "classify")] {
        assert_eq!(event[field], value, "{event}");
    }
    assert_eq!((&event["bytes_in"], &event["batch_size"], &event["device_ms"]), (&5.into(), &4.into(), &3.0.into()));
    assert!(event["bytes_out"].as_u64().is_some_and(|bytes| bytes == kept.body.len() as u64), "{event}");

    let replaced = send("bad id", "0");
    let id = replaced.header("x-request-id").expect("every answer has one").to_owned();
    assert_eq!(id.len(), 32, "{id}");
    assert_eq!(server.arrived()[1].request_id, id);
    assert!((9_000..=10_000).contains(&server.arrived()[1].timeout_ms), "0 means the default of 10 s");
    send("my-own-id.43", "99999999");
    assert!((590_000..=600_000).contains(&server.arrived()[2].timeout_ms), "more than the longest is cut to it");
}

#[test]
fn only_a_trusted_proxy_may_say_who_calls() {
    for (trusted, caller) in [("127.0.0.1", "anonymous@192.0.2.7"), ("192.0.2.1", "anonymous@127.0.0.1")] {
        let (_server, gateway) = both(&[&format!("trusted_proxies={trusted}")]);
        let headers = [("x-real-ip", "192.0.2.7"), ("x-request-id", "who-calls")];
        assert_eq!(ask(&gateway.address, "GET", "/v1/models", &headers, b"").status, 200);
        assert_eq!(gateway.event("who-calls")["caller"], caller);
    }
}

#[test]
fn a_budget_that_runs_out_is_answered_in_time_and_stops_the_work() {
    let (server, gateway) = both(&[]);
    let headers = [("content-type", "image/png"), ("x-request-timeout-ms", "50")];
    let answer = ask(&gateway.address, "POST", "/v1/classify?model=held", &headers, b"hello");
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
    wait_until("the server to stop the work", || (server.stopped() == 1).then_some(()));
}

#[test]
fn a_client_that_leaves_stops_the_work() {
    let (server, gateway) = both(&[]);
    let id = [("content-type", "image/png"), ("x-request-id", "the-one-that-left")];
    let stream = send(&gateway, &request("POST", "/v1/classify?model=held", &id, b"hello"));
    wait_until("the call to begin", || (server.arrived().len() == 1).then_some(()));
    stream.shutdown(Shutdown::Both).expect("open");
    wait_until("the server to stop the work", || (server.stopped() == 1).then_some(()));
    let event = gateway.event("the-one-that-left");
    assert_eq!((&event["outcome"], &event["status"]), (&"cancelled".into(), &499.into()));
}

#[test]
fn readiness_follows_the_server() {
    let (server, gateway) = both(&[]);
    assert_eq!(ready(&gateway).status, 200);
    let address = server.address;
    drop(server);
    let gone = wait_until("the loss to be noticed", || Some(ready(&gateway)).filter(|answer| answer.status == 503));
    assert!(gone.text().contains(&address.to_string()), "the reason names the server: {}", gone.text());
    assert_eq!(get(&gateway.address, "/health/ready?scope=self").status, 200);
    assert_eq!(get(&gateway.address, "/health/live").status, 200);
    let answer = classify(&gateway.address, "good", b"hello");
    assert_eq!((answer.status, answer.code().as_str()), (503, "unavailable"));
    assert!(answer.header("retry-after").is_some());
    let form = get(&gateway.address, "/upload");
    assert_eq!(form.status, 200, "the page says what is wrong");
    assert!(form.text().contains("role=\"alert\""));
    let _back = FakeServer::start_at(address);
    wait_until("the return to be noticed", || (ready(&gateway).status == 200).then_some(()));
    // Each worker thread has connections of its own, and notices by itself.
    wait_until("all workers to be back", || {
        (0..8).all(|_| classify(&gateway.address, "good", b"hello").status == 200).then_some(())
    });
}

/// A server that drains answers as readily as one that serves.
#[test]
fn one_server_that_serves_is_enough_for_readiness() {
    let (draining, serving) = (FakeServer::draining(), FakeServer::start());
    let alone = Gateway::start(&draining.address.to_string(), &[]);
    let answer = ready(&alone);
    assert_eq!(answer.status, 503);
    assert!(answer.text().contains("as the test wants it"), "{}", answer.text());
    let both = Gateway::start(&format!("{},{}", draining.address, serving.address), &[]);
    // Each worker connects by itself.
    wait_until("readiness", || (0..8).all(|_| ready(&both).status == 200).then_some(()));
    for _ in 0..40 {
        assert_eq!(ready(&both).status, 200);
    }
}

#[test]
fn sigterm_finishes_what_is_in_flight_and_refuses_the_rest() {
    let (server, mut gateway) = both(&[]);
    let mut held = send(&gateway, &request("POST", "/v1/classify?model=held", &PNG, b"hello"));
    wait_until("the call to begin", || (server.arrived().len() == 1).then_some(()));
    gateway.terminate();
    wait_until("the listener to close", || std::net::TcpStream::connect(&gateway.address).is_err().then_some(()));
    assert!(gateway.ended().is_none(), "a call is in flight");
    wait_until("readiness to say so", || {
        let ready = get(&gateway.admin, "/health/ready");
        (ready.status == 503 && ready.text().contains("draining")).then_some(())
    });
    server.release();
    let answer = read(&mut held);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("connection"), Some("close"));
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
}

#[test]
fn bodies_in_memory_have_a_limit_that_is_given_back() {
    let (_server, gateway) = both(&["limits.bodies=64KiB", "limits.picture=60KiB", "limits.json=20KiB"]);
    let mut head = request("POST", "/v1/classify?model=good", &PNG, &[7; 60_000]);
    head.truncate(head.len() - 1);
    let mut first = send(&gateway, &head);
    wait_until("the first body to be in memory", || metric(&gateway, "outboard_gateway_body_bytes", "59999"));
    let refused = classify(&gateway.address, "good", &[7; 10_000]);
    assert_eq!((refused.status, refused.code().as_str()), (503, "overloaded"));
    assert!(refused.header("retry-after").is_some() && refused.text().contains("65536"), "{}", refused.text());
    first.write_all(&[7]).expect("open");
    assert_eq!(read(&mut first).status, 200);
    assert_eq!(classify(&gateway.address, "good", &[7; 10_000]).status, 200);
}

#[test]
fn a_body_that_does_not_end_is_ended() {
    let (_server, gateway) = both(&["limits.body_time=100ms"]);
    let (kind, body) = form(&[("model", None, b"good"), ("image", Some("x"), b"hello")]);
    for (kind, body) in [("image/png", b"hello".as_slice()), ("application/json", b"{}"), (&kind, &body)] {
        let mut bytes = request("POST", "/v1/classify?model=good", &[("content-type", kind)], body);
        bytes.truncate(bytes.len() - 1);
        let answer = read(&mut send(&gateway, &bytes));
        assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"), "{kind}");
        assert!(answer.text().contains("body"), "{}", answer.text());
    }
}

#[test]
fn pages_work_without_scripts_and_let_no_markup_through() {
    let (server, gateway) = both(&[]);
    let home = get(&gateway.address, "/");
    assert_eq!((home.status, home.header("location")), (302, Some("/upload")));
    let page = get(&gateway.address, "/upload");
    let policy = page.header("content-security-policy").expect("pages have one");
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    for (name, value) in
        [("x-content-type-options", "nosniff"), ("referrer-policy", "same-origin"), ("cache-control", "no-store")]
    {
        assert_eq!(page.header(name), Some(value));
    }
    let text = page.text();
    for there in
        ["value=\"good\"", "value=\"held\"", "What &lt;good&gt; knows &amp; does", "enctype=\"multipart/form-data\""]
    {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    for absent in ["warming", "numbers", "What <good>", "http://", "https://", "<style", " style="] {
        assert!(!text.contains(absent), "{absent} is in {text}");
    }
    // Every file that a page names is there, may be kept for ever, and comes from here.
    assert_eq!(text.matches("\"/assets/").count(), 4, "{text}");
    for part in text.split("\"/assets/").skip(1) {
        let path = format!("/assets/{}", part.split('"').next().unwrap_or_default());
        let file = get(&gateway.address, &path);
        assert_eq!(file.status, 200, "{path}");
        assert!(file.header("cache-control").is_some_and(|kept| kept.contains("immutable")), "{path}");
    }
    assert_eq!(get(&gateway.address, "/assets/00000000/nothing.css").status, 404);
    let icon = get(&gateway.address, "/favicon.ico");
    assert_eq!((icon.status, icon.header("cache-control")), (200, Some("public, max-age=86400")), "it has no digest");

    let (kind, body) = form(&[("model", None, b"good"), ("image", Some("<b>.png"), b"hello")]);
    let result = ask(&gateway.address, "POST", "/upload", &[("content-type", &kind)], &body);
    assert_eq!(result.status, 200, "{}", result.text());
    assert_eq!(server.arrived().last().map(|last| last.images.clone()), Some(vec![b"hello".to_vec()]));
    let text = result.text();
    for there in [
        "label &lt;0&gt;",
        "data:image/jpeg;base64,YSBzbWFsbCBqcGVn",
        result.header("x-request-id").expect("an id"),
        "28 × 27",
    ] {
        assert!(text.contains(there), "{there} is not in {text}");
    }
    assert_eq!(text.matches("data-label").count(), 5);
    assert!(!text.contains("label <0>"));
    assert!(text.contains("alt=\"The picture: label &lt;0&gt;\""), "{text}");

    let picture: (&str, Option<&str>, &[u8]) = ("image", Some("x"), b"hello");
    let (kind, body) = form(&[("model", None, b"good"), picture, picture]);
    let text = ask(&gateway.address, "POST", "/upload", &[("content-type", &kind)], &body).text();
    for number in [1, 2] {
        assert!(text.contains(&format!("alt=\"Picture {number} of 2: label &lt;0&gt;\"")), "{text}");
    }
}

#[test]
fn the_form_names_the_limits_that_hold() {
    for (settings, says) in [
        (&[][..], "Up to 16 at once, together at most 15 MiB."),
        (
            &["limits.picture=2MiB", "limits.pictures_per_call=8"],
            "Up to 8 at once, each at most 2 MiB, together at most 15 MiB.",
        ),
    ] {
        let (_server, gateway) = both(settings);
        let text = get(&gateway.address, "/upload").text();
        assert!(text.contains(says), "{text}");
    }
    let (server, gateway) = both(&[]);
    let send = |bytes: usize| {
        let picture = vec![7; bytes / 2];
        let (kind, body) =
            form(&[("model", None, b"good"), ("image", Some("a"), &picture), ("image", Some("b"), &picture)]);
        ask(&gateway.address, "POST", "/v1/classify", &[("content-type", &kind)], &body).status
    };
    assert_eq!((send(15 << 20), server.arrived().len()), (200, 1));
    assert_eq!((send(17 << 20), server.arrived().len()), (413, 1));
}

#[test]
fn what_is_served_is_listed_and_described() {
    let (_server, gateway) = both(&[]);
    let list = get(&gateway.address, "/v1/models").json();
    assert_eq!(list["object"], "list");
    let models: Vec<_> = list["data"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|model| (&model["id"], &model["task"], &model["state"]))
        .collect();
    assert_eq!(models[0], (&"good".into(), &"classify".into(), &"ready".into()));
    assert_eq!(models[2], (&"warming".into(), &"classify".into(), &"warming".into()));
    assert_eq!(models[3], (&"numbers".into(), &"tensor".into(), &"ready".into()));
    let good = get(&gateway.address, "/v1/models/good").json();
    assert_eq!((&good["id"], &good["created"]), (&"good".into(), &1_700_000_000.into()));
    assert_eq!(list["data"][1]["created"], 0, "an older server does not tell");
    assert_eq!(get(&gateway.address, "/v1/models/nope").code(), "model_not_found");
    let api = get(&gateway.address, "/openapi.json").json();
    let docs = get(&gateway.address, "/docs");
    assert_eq!(docs.status, 200);
    for path in api["paths"].as_object().expect("paths").keys() {
        assert!(docs.text().contains(&format!("<code>{}</code>", path.replace('/', "&#x2f;"))), "{path}");
    }
    let page = get(&gateway.admin, "/metrics").text();
    for line in [
        "outboard_gateway_answers_total{route=\"models\",status=\"2xx\"} 2",
        "outboard_gateway_answers_total{route=\"models\",status=\"4xx\"} 1",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
}

#[test]
fn settings_that_cannot_be_used_end_the_start_with_their_name() {
    for (arguments, says) in [
        (["--listen", "0.0.0.0:0"], "`listen` is 0.0.0.0:0"),
        (["--admin", "0.0.0.0:0"], "`admin` is 0.0.0.0:0"),
        (["--set", "workers=5000"], "`workers` is 5000, allowed is 0 to 1024"),
        (["--servers", "nowhere"], "nowhere"),
        (["--set", "limits.picturs=1"], "picturs"),
        (["--set", "limits.deadline=soon"], "limits.deadline"),
        (["--config", "/nowhere.toml"], "/nowhere.toml"),
    ] {
        let said = Gateway::refused(&arguments);
        assert!(said.contains(says), "{arguments:?}: {said}");
    }
}

#[test]
fn an_open_gateway_may_show_its_metrics_to_others() {
    // Starting waits until it listens.
    let gateway = Gateway::start_with(&["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0"], &["auth=open"]);
    assert!(gateway.admin.starts_with("0.0.0.0:"));
}

#[test]
fn a_reader_that_has_left_changes_no_exit_status() {
    let unread = || {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        drop(reader);
        writer
    };
    let told = Gateway::command().args(["--set", "workers=x"]).stderr(unread()).status().expect("the gateway starts");
    assert_eq!(told.code(), Some(2));
    let shown = Gateway::command().arg("--print-config").stdout(unread()).status().expect("the gateway starts");
    assert_eq!(shown.code(), Some(0));
}

#[test]
fn the_file_with_all_settings_is_true() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../config/gateway.toml");
    let print = |arguments: &[&str]| {
        let output = Gateway::command().args(arguments).arg("--print-config").output().expect("the gateway starts");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("settings are text")
    };
    let defaults = print(&[]);
    assert_eq!(print(&["--config", file]), defaults, "config/gateway.toml has another value than the default");
    let text = std::fs::read_to_string(file).expect("in the tree");
    for line in defaults.lines().filter(|line| !line.is_empty()) {
        assert!(text.lines().any(|have| have == line), "config/gateway.toml lacks {line}");
    }
}
