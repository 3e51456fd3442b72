//! Many streams at once, most of them left in the middle.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use e2e::{Parts, Stand, tiny_chat_model, wait_until};
use serde_json::{Value, json};

const TEXTS: [&str; 5] = ["hello", "once upon a time", "what is a boat?", "count to ten", "a b c d e f g h"];
/// At the same time.
const READERS: usize = 24;
const STREAMS: usize = 240;
const PATIENCE: Duration = Duration::from_secs(60);

fn body(text: &str, stream: bool) -> String {
    let messages = json!([{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]);
    json!({"model": "tiny-llama", "messages": messages, "max_tokens": 60, "temperature": 0, "stream": stream})
        .to_string()
}

fn whole(stand: &Stand, text: &str) -> String {
    let headers = [("content-type", "application/json")];
    let answer = stand.http().post("/v1/chat/completions", &headers, body(text, false).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["choices"][0]["message"]["content"].as_str().expect("a text").to_owned()
}

/// Reads a stream up to so many events and leaves; its text when it came to its end.
fn read(address: &str, text: &str, events: usize) -> Option<String> {
    let body = body(text, true);
    let mut connection = TcpStream::connect(address).expect("nginx listens");
    connection.set_read_timeout(Some(PATIENCE)).expect("a socket takes a timeout");
    // HTTP/1.0: the body has no chunks, and ends with the connection.
    let head = "POST /v1/chat/completions HTTP/1.0\r\nHost: test\r\nContent-Type: application/json\r\nContent-Length:";
    write!(connection, "{head} {}\r\n\r\n{body}", body.len()).expect("nginx reads");
    let mut said = String::new();
    let mut ends = 0;
    let mut lines = BufReader::new(connection).lines().map(|line| line.expect("a line"));
    let status = lines.next().expect("a status line");
    assert!(status.contains(" 200 "), "{status}");
    for data in lines.filter_map(|line| line.strip_prefix("data: ").map(str::to_owned)).take(events) {
        assert_eq!(ends, 0, "behind the end: {data}");
        if data == "[DONE]" {
            ends += 1;
            continue;
        }
        let chunk: Value = serde_json::from_str(&data).expect("an event is JSON");
        let choice = &chunk["choices"][0];
        assert!(chunk.get("error").is_none(), "{chunk}");
        said.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
    }
    (ends == 1).then_some(said)
}

#[test]
fn streams_left_at_random_leave_nothing_behind() {
    let seed = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let folder = tiny_chat_model();
    let stand = Stand::start(Parts { models: vec![folder.path().to_owned()], only: Vec::new(), ..Parts::default() });
    let alone: Vec<String> = TEXTS.iter().map(|text| whole(&stand, text)).collect();
    let address = stand.web_address();
    let (begun, complete) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for reader in 0..READERS {
            let (alone, address, begun, complete) = (&alone, &address, &begun, &complete);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(reader as u64));
                while begun.fetch_add(1, Ordering::Relaxed) < STREAMS {
                    let which = random.usize(..TEXTS.len());
                    let events = if random.bool() { usize::MAX } else { random.usize(..40) };
                    if let Some(said) = read(address, TEXTS[which], events) {
                        assert_eq!(said, alone[which], "among others it says the same as alone");
                        complete.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    assert!(complete.load(Ordering::Relaxed) > STREAMS / 4, "some were read to their end");
    wait_until("every stream to end", PATIENCE, || {
        (stand.server_metric("outboard_chat_streams ") == 0.0).then_some(())
    });
    wait_until("the gateway to have nothing in work", PATIENCE, || {
        let page = stand.gateway_admin().get("/metrics").text();
        page.lines().any(|line| line == "outboard_gateway_requests_in_flight 0").then_some(())
    });
    // Every slot can be used again.
    for (text, said) in TEXTS.iter().zip(&alone) {
        assert_eq!(whole(&stand, text), *said);
    }
}
