//! Bodies of requests: how much memory and time they may take.

use std::io::Write as _;

use crate::client::{ask, classify, form, read, request, wait_until};
use crate::gateway::both;

const PNG: [(&str, &str); 1] = [("content-type", "image/png")];
const JSON: [(&str, &str); 1] = [("content-type", "application/json")];
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
        let mut stream = gateway.begin(head.as_bytes());
        // The reader's own patience ends the test where the answer does not come.
        let answer = read(&mut stream);
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
    }
    for path in ["/v1/classify?model=good", "/upload"] {
        let head =
            format!("POST {path} HTTP/1.1\r\nHost: x\r\nX-Request-Timeout-Ms: soon\r\nContent-Length: 1000\r\n\r\n");
        assert_eq!(read(&mut gateway.begin(head.as_bytes())).status, 400, "{path}");
    }
}

#[test]
fn a_body_that_never_comes_does_not_keep_a_drain_from_ending() {
    let (_server, mut gateway) = both(&["limits.body_time=500ms", "drain=10m"]);
    let head = "POST /v1/nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n";
    let mut stream = gateway.begin(head.as_bytes());
    wait_until("the request to be in work", || gateway.metric("outboard_gateway_requests_in_flight", "1"));
    gateway.terminate();
    // Waiting has an end of its own, which fails the test where the process stays.
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    assert_eq!(read(&mut stream).status, 404);
}

#[test]
fn bodies_in_memory_have_a_limit_that_is_given_back() {
    let (_server, gateway) = both(&["limits.bodies=64KiB", "limits.picture=60KiB", "limits.json=20KiB"]);
    let mut head = request("POST", "/v1/classify?model=good", &PNG, &[7; 60_000]);
    head.truncate(head.len() - 1);
    let mut first = gateway.begin(&head);
    wait_until("the first body to be in memory", || gateway.metric("outboard_gateway_body_bytes", "59999"));
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
        let answer = read(&mut gateway.begin(&bytes));
        assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"), "{kind}");
        assert!(answer.text().contains("body"), "{}", answer.text());
    }
}
