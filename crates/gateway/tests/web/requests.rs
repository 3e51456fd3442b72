//! Requests for pictures to be classified: their forms, what is wrong with them, how long they may take, and who sends them.

use std::net::Shutdown;

use crate::client::{Answer, ask, classify, form, request, wait_until};
use crate::gateway::both;
use crate::server_key::about_the_gateway;

const PNG: [(&str, &str); 1] = [("content-type", "image/png")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];

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
    let stream = gateway.begin(&request("POST", "/v1/classify?model=held", &id, b"hello"));
    wait_until("the call to begin", || (server.arrived().len() == 1).then_some(()));
    stream.shutdown(Shutdown::Both).expect("open");
    wait_until("the server to stop the work", || (server.stopped() == 1).then_some(()));
    let event = gateway.event("the-one-that-left");
    assert_eq!((&event["outcome"], &event["status"]), (&"cancelled".into(), &499.into()));
}
