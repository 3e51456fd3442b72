//! `outboard probe`.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::time::Duration;

use idl::health::ServingStatus;

use crate::fake::{Fake, Script};
use crate::{outboard, refused, silent};

#[test]
fn a_serving_server_is_0_with_its_load() {
    let fake = Fake::serving();
    let ended = outboard(&["probe", &fake.address]).with(0);
    assert_eq!(ended.out, format!("SERVING {} load 0.25\n", fake.address));
    assert!(ended.err.is_empty(), "{}", ended.err);
}

#[test]
fn every_other_status_is_1_and_names_the_reason() {
    for (status, name) in [
        (ServingStatus::NOT_SERVING, "NOT_SERVING"),
        (ServingStatus::LOADING, "LOADING"),
        (ServingStatus::DRAINING, "DRAINING"),
        (ServingStatus::UNKNOWN, "UNKNOWN"),
        (ServingStatus(99), "UNKNOWN"),
    ] {
        let mut script = Script::status(status);
        script.health.reason = Some("because of the test".to_owned());
        let fake = Fake::start(script);
        let err = outboard(&["probe", &fake.address]).with(1).err;
        assert!(err.starts_with(name) && err.contains("because of the test"), "{err}");
    }
}

#[test]
fn live_is_0_unless_the_server_says_that_it_hangs() {
    for status in [ServingStatus::SERVING, ServingStatus::LOADING, ServingStatus::DRAINING, ServingStatus::NOT_SERVING]
    {
        for (live, expected) in [(Some(true), 0), (None, 0), (Some(false), 1)] {
            let mut script = Script::status(status);
            script.health.live = live;
            let fake = Fake::start(script);
            let err = outboard(&["probe", &fake.address, "--live"]).with(expected).err;
            assert_eq!(err.contains("only a restart helps"), expected == 1, "{err}");
        }
    }
}

#[test]
fn a_model_is_asked_for_by_name_and_an_unknown_one_is_1() {
    let fake = Fake::serving();
    outboard(&["probe", &fake.address, "--model", "numbers"]).with(0);
    let err = outboard(&["probe", &fake.address, "--model", "absent"]).with(1).err;
    assert!(err.contains("NotFound: no model absent") && err.contains("request-of-the-fake"), "{err}");
    let asked: Vec<_> = fake.seen.lock().unwrap().checks.iter().map(|check| check.model.clone()).collect();
    assert_eq!(asked, [Some("numbers".to_owned()), Some("absent".to_owned())]);
}

#[test]
fn nobody_there_is_3_and_a_silent_peer_is_4() {
    // Far longer than any test may take: the refusal itself must end it.
    let err = outboard(&["probe", &refused(), "--timeout", "10min"]).with(3).err;
    assert!(err.contains("refused"), "{err}");
    let (_listener, address) = silent();
    outboard(&["probe", &address, "--timeout", "50ms"]).with(4);
    outboard(&["probe", &address, "--timeout", "50ms", "--live"]).with(4);
}

#[test]
fn deep_runs_every_ready_model_on_what_it_can_read() {
    let fake = Fake::serving();
    outboard(&["probe", &fake.address, "--deep"]).with(0);
    let seen = fake.seen.lock().unwrap();
    let [classified] = &seen.classified[..] else { panic!("one ready classifier, {} calls", seen.classified.len()) };
    assert_eq!(classified.model.as_deref(), Some("pictures"));
    assert!(classified.images.as_ref().unwrap()[0].starts_with(b"\x89PNG\r\n\x1a\n"));
    let [inferred] = &seen.inferred[..] else { panic!("one other model, {} calls", seen.inferred.len()) };
    let inputs = inferred.inputs.as_ref().unwrap();
    assert_eq!(inputs.len(), 2, "what has a default is left out");
    assert_eq!(inputs[0].shape, Some(vec![1, 3]));
    assert_eq!(inputs[0].data.as_deref(), Some(&[0; 12][..]));
    assert_eq!(inputs[1].strings, Some(vec![String::new(); 2]));
    assert_eq!(inputs[1].data, None);
    let [embedded] = &seen.embedded[..] else { panic!("one model of texts, {} calls", seen.embedded.len()) };
    assert_eq!(embedded.texts.as_ref().map(Vec::len), Some(1));
}

#[test]
fn deep_runs_only_the_model_that_is_named_and_a_fault_is_1() {
    let fake = Fake::start(Script { broken: Some("numbers"), ..Script::status(ServingStatus::SERVING) });
    outboard(&["probe", &fake.address, "--deep", "--model", "pictures"]).with(0);
    assert!(fake.seen.lock().unwrap().inferred.is_empty());
    let err = outboard(&["probe", &fake.address, "--deep"]).with(1).err;
    assert!(err.contains("numbers") && err.contains("the model is broken"), "{err}");
}

#[test]
fn the_time_is_that_of_the_whole_probe() {
    // Each run alone would be done in time, both together cannot be.
    let fake = Fake::start(Script { run_time: Duration::from_millis(700), ..Script::status(ServingStatus::SERVING) });
    let err = outboard(&["probe", &fake.address, "--deep", "--timeout", "1s"]).with(4).err;
    assert!(err.contains("model "), "the one that was running is named: {err}");
    outboard(&["probe", &fake.address, "--deep", "--timeout", "1min"]).with(0);
}

#[test]
fn deep_does_not_believe_a_shape_that_no_message_holds() {
    for shape in [vec![i64::MAX, i64::MAX], vec![1 << 40], vec![1 << 62, 4], vec![4096, 4096]] {
        let fake = Fake::start(Script { shape, ..Script::status(ServingStatus::SERVING) });
        let err = outboard(&["probe", &fake.address, "--deep", "--model", "numbers"]).with(1).err;
        assert!(err.contains("input rows has shape") && err.contains("16777216 bytes"), "{err}");
        assert!(fake.seen.lock().unwrap().inferred.is_empty());
    }
}

/// Answers HTTP requests, one a connection, with a status that stands for the path.
fn gateway(expected: usize) -> (std::thread::JoinHandle<Vec<String>>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let serve = move || {
        let answer = |_| {
            let (stream, _) = listener.accept().unwrap();
            let mut lines = BufReader::new(&stream).lines().map(|line| line.unwrap());
            let path = lines.next().unwrap().split(' ').nth(1).unwrap().to_owned();
            assert!(lines.any(|line| line.is_empty()), "the headers end");
            let (status, body) =
                if path == "/health/ready" { ("503 Service Unavailable", "loading") } else { ("200 OK", "well") };
            write!(&stream, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
                .unwrap();
            path
        };
        (0..expected).map(answer).collect()
    };
    (std::thread::spawn(serve), address)
}

#[test]
fn a_gateway_is_asked_over_http() {
    let (thread, url) = gateway(4);
    let err = outboard(&["probe", &url]).with(1).err;
    assert!(err.contains("503") && err.contains("loading"), "{err}");
    let out = outboard(&["probe", &url, "--live"]).with(0).out;
    assert!(out.contains("200") && out.contains("well"), "{out}");
    outboard(&["probe", &format!("{url}/")]).with(1);
    outboard(&["probe", &format!("{url}/v1/models?x=/")]).with(0);
    assert_eq!(thread.join().unwrap(), ["/health/ready", "/health/live", "/health/ready", "/v1/models?x=/"]);
}

#[test]
fn no_gateway_is_3_and_a_silent_one_is_4() {
    outboard(&["probe", &format!("http://{}", refused())]).with(3);
    let (_listener, address) = silent();
    outboard(&["probe", &format!("http://{address}"), "--timeout", "50ms"]).with(4);
}
