//! The process: settings, readiness, logs, metrics, and its end.

use crate::client::{Answer, ask, classify, get, read, request, wait_until};
use crate::gateway::{Gateway, both};
use crate::server::FakeServer;

const PNG: [(&str, &str); 1] = [("content-type", "image/png")];

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
    assert!(gateway.metric("outboard_log_dropped_lines_total", "0").is_some());
}

fn ready(gateway: &Gateway) -> Answer {
    get(&gateway.address, "/health/ready")
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
    let mut held = gateway.begin(&request("POST", "/v1/classify?model=held", &PNG, b"hello"));
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
