//! OpenAI's API before a server that says what the test lets it say.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};
use std::sync::atomic::Ordering;

use idl::chat::{ChatRequest, FinishReason};
use idl::fault::FaultCode;
use serde_json::{Value, json};

use crate::client::{Answer, ask, connect, get, read_chunk, read_head, request, wait_until};
use crate::gateway::{Gateway, both};
use crate::server::FakeServer;
use crate::server_key::about_the_gateway;
use crate::talker::{Begun, WORDS, broken, last, piece};

const JSON: (&str, &str) = ("content-type", "application/json");
const CHAT: &str = "/v1/chat/completions";
const COMPLETIONS: &str = "/v1/completions";

/// A chat of one message, with more fields.
fn chat(model: &str, more: Value) -> String {
    let mut body = json!({"model": model, "messages": [{"role": "user", "content": "hello"}]});
    body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
    body.to_string()
}

fn post(address: &str, path: &str, body: &str) -> Answer {
    ask(address, "POST", path, &[JSON], body.as_bytes())
}

/// An answer that is still coming.
pub(crate) struct Stream {
    connection: TcpStream,
    pub(crate) head: Answer,
    rest: String,
}

impl Stream {
    pub(crate) fn open(address: &str, headers: &[(&str, &str)], model: &str) -> Self {
        let mut connection = connect(address);
        let body = chat(model, json!({"stream": true}));
        let headers = [&[JSON], headers].concat();
        connection.write_all(&request("POST", CHAT, &headers, body.as_bytes())).expect("the gateway reads");
        let head = read_head(&mut connection);
        Self { connection, head, rest: String::new() }
    }

    /// The next event or comment; `None` at the end.
    pub(crate) fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.rest.split_once("\n\n") {
                let (event, rest) = (event.to_owned(), rest.to_owned());
                self.rest = rest;
                return Some(event);
            }
            let chunk = read_chunk(&mut self.connection);
            self.rest.push_str(std::str::from_utf8(&chunk?).expect("events are whole characters"));
        }
    }

    /// The next text, past the beginning and past comments.
    pub(crate) fn text(&mut self) -> String {
        loop {
            let event = self.next().expect("more events");
            let Some(data) = event.strip_prefix("data: ") else { continue };
            let value: Value = serde_json::from_str(data).unwrap_or_else(|error| panic!("{error}: {data}"));
            match value["choices"][0]["delta"]["content"].as_str() {
                Some("") => {}
                Some(text) => return text.to_owned(),
                None => panic!("no text: {value}"),
            }
        }
    }

    fn rest(mut self) -> Vec<String> {
        std::iter::from_fn(|| self.next()).collect()
    }
}

/// The JSON values of a stream that came whole; what is no JSON as a text.
fn events(answer: &Answer) -> Vec<Value> {
    let text = answer.text();
    let value = |event: &str| {
        let data = event.strip_prefix("data: ").expect("an event has data");
        serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))
    };
    text.split_terminator("\n\n").map(value).collect()
}

fn begun(server: &FakeServer) -> Begun {
    wait_until("the stream to begin", || server.talker.streams().first().cloned())
}

#[test]
fn a_whole_answer_has_openais_form() {
    let (server, gateway) = both(&[]);
    let answer = post(&gateway.address, CHAT, &chat("words", json!({"n": 2, "logprobs": true, "user": "ann"})));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let mut body = answer.json();
    let id = answer.header("x-request-id").expect("every answer has one");
    assert_eq!(body["id"], format!("chatcmpl-{id}"));
    assert!(body["created"].as_u64().is_some_and(|created| created > 1_700_000_000));
    body.as_object_mut().expect("an object").retain(|key, _| key != "id" && key != "created");
    let logprob = |word: &str| json!({"token": word, "logprob": -0.25, "bytes": word.as_bytes(), "top_logprobs": []});
    let choice = |index: usize| {
        json!({"index": index, "message": {"role": "assistant", "content": "one two thr\u{e9}", "refusal": null},
               "logprobs": {"content": WORDS.map(logprob), "refusal": null}, "finish_reason": "stop"})
    };
    let usage = json!({"prompt_tokens": 11, "completion_tokens": 6, "total_tokens": 17,
                       "prompt_tokens_details": {"cached_tokens": 4}});
    assert_eq!(
        body,
        json!({"object": "chat.completion", "model": "words", "system_fingerprint": "fp_7",
               "choices": [choice(0), choice(1)], "usage": usage})
    );
    let arrived = &server.talker.requests()[0];
    let base = arrived.base.as_ref().expect("every request has one");
    assert_eq!(base.request_id.as_deref(), Some(id));
    assert!(base.timeout_ms.is_some_and(|left| (60_001..=120_000).contains(&left)), "{base:?}");
    let short = post(&gateway.address, CHAT, &chat("words", json!({"max_tokens": 3})));
    assert_eq!(short.json()["choices"][0]["finish_reason"], "length");
    assert_eq!(short.json()["choices"][0]["logprobs"], Value::Null);
}

#[test]
fn a_streamed_answer_has_openais_chunks_and_headers() {
    let (server, gateway) = both(&[]);
    let options = json!({"stream": true, "stream_options": {"include_usage": true}});
    let answer = post(&gateway.address, CHAT, &chat("words", options));
    assert_eq!(answer.status, 200, "{}", answer.text());
    for (name, value) in [
        ("content-type", "text/event-stream; charset=utf-8"),
        ("cache-control", "no-cache"),
        ("x-accel-buffering", "no"),
    ] {
        assert_eq!(answer.header(name), Some(value));
    }
    let id = answer.header("x-request-id").expect("every answer has one").to_owned();
    let chunks = events(&answer);
    let deltas: Vec<&Value> =
        chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).map(|choice| &choice["delta"]).collect();
    assert_eq!(deltas[0], &json!({"role": "assistant", "content": ""}));
    assert_eq!(deltas[1..4].iter().map(|delta| &delta["content"]).collect::<Vec<_>>(), WORDS);
    assert_eq!(deltas[4], &json!({}));
    assert_eq!(chunks[4]["choices"][0]["finish_reason"], "stop");
    assert_eq!((&chunks[5]["choices"], &chunks[5]["usage"]["total_tokens"]), (&json!([]), &14.into()));
    assert_eq!(chunks[6], "[DONE]");
    assert_eq!(chunks.len(), 7);
    assert!(chunks[..6].iter().all(|chunk| chunk["id"] == format!("chatcmpl-{id}")));
    assert!(chunks[..5].iter().all(|chunk| chunk.get("usage") == Some(&Value::Null)));
    let stream = begun(&server);
    assert!(stream.bound && stream.key.len() == 16 && (60_001..=120_000).contains(&stream.timeout_ms), "{stream:?}");
    assert!(!stream.stopped, "it ended by itself");
    let event = gateway.event(&id);
    for (field, value) in
        [("tokens_in", 11), ("tokens_out", 3), ("tokens_cached", 4), ("status", 200), ("bytes_out", answer.body.len())]
    {
        assert_eq!(event[field], value, "{field}: {event}");
    }
    assert_eq!((&event["kind"], &event["model"], &event["outcome"]), (&"chat".into(), &"words".into(), &"ok".into()));
    assert!(event["first_token_ms"].as_f64().is_some_and(|first| first > 0.0), "{event}");
    let page = get(&gateway.admin, "/metrics").text();
    for line in [
        "outboard_gateway_answers_total{route=\"chat\",status=\"2xx\"} 1",
        "outboard_gateway_prompt_tokens_total 11",
        "outboard_gateway_generated_tokens_total 3",
        "outboard_gateway_first_token_seconds_count 1",
    ] {
        assert!(page.contains(line), "{line} is not in {page}");
    }
}

#[test]
fn a_completion_is_the_prompts_other_form() {
    let (server, gateway) = both(&[]);
    let body = json!({"model": "words", "prompt": "zero ", "echo": true, "max_tokens": 5}).to_string();
    let whole = post(&gateway.address, COMPLETIONS, &body).json();
    assert_eq!(whole["object"], "text_completion");
    assert_eq!(
        whole["choices"],
        json!([{"text": "zero one two thr\u{e9}", "index": 0, "logprobs": null, "finish_reason": "stop"}])
    );
    assert_eq!(whole["usage"]["total_tokens"], 14);
    let body = json!({"model": "words", "prompt": ["zero "], "stream": true, "logprobs": 0}).to_string();
    let chunks = events(&post(&gateway.address, COMPLETIONS, &body));
    let texts: Vec<&Value> =
        chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).map(|one| &one["text"]).collect();
    assert_eq!(texts, ["one ", "two ", "thr\u{e9}", ""]);
    assert_eq!(chunks[1]["choices"][0]["logprobs"]["text_offset"], json!([4]));
    assert_eq!(chunks.last(), Some(&"[DONE]".into()));
    let requests = server.talker.requests();
    assert_eq!((requests[0].max_tokens, requests[1].max_tokens), (Some(5), Some(16)));
    assert!(requests.iter().all(|one| one.prompt.as_deref() == Some("zero ") && one.messages.is_none()));
}

#[test]
fn pieces_arrive_one_by_one() {
    let (server, gateway) = both(&[]);
    let address = gateway.address.clone();
    one_by_one(&server, &address);
}

/// Each word is said when the one before has arrived: whoever holds one back waits for ever.
pub(crate) fn one_by_one(server: &FakeServer, address: &str) {
    std::thread::scope(|scope| {
        let first = scope.spawn(|| Stream::open(address, &[], "told"));
        begun(server);
        server.talker.say(piece("0"));
        let mut stream = first.join().expect("it opens");
        assert_eq!(stream.head.status, 200);
        assert_eq!(stream.text(), "0");
        for number in 1..20 {
            server.talker.say(piece(&number.to_string()));
            assert_eq!(stream.text(), number.to_string());
        }
        server.talker.say(last(FinishReason::STOP));
        let rest = stream.rest();
        assert_eq!(rest.len(), 2, "{rest:?}");
        assert!(rest[0].contains("\"finish_reason\":\"stop\"") && rest[1] == "data: [DONE]", "{rest:?}");
    });
}

#[test]
fn a_client_that_leaves_stops_the_stream() {
    let (server, gateway) = both(&[]);
    let stopped = || server.talker.streams().iter().filter(|stream| stream.stopped).count();
    // Before the first word, when no head was sent.
    let mut connection = connect(&gateway.address);
    let body = chat("told", json!({"stream": true}));
    let headers = [JSON, ("x-request-id", "left-before")];
    connection.write_all(&request("POST", CHAT, &headers, body.as_bytes())).expect("the gateway reads");
    begun(&server);
    connection.shutdown(Shutdown::Both).expect("open");
    wait_until("the stream to be stopped", || (stopped() == 1).then_some(()));
    assert_eq!(gateway.event("left-before")["status"], 499);
    // And behind it, while nothing comes.
    std::thread::scope(|scope| {
        let open = scope.spawn(|| Stream::open(&gateway.address, &[("x-request-id", "left-behind")], "told"));
        wait_until("the stream to begin", || (server.talker.streams().len() == 2).then_some(()));
        server.talker.say(piece("one"));
        let mut stream = open.join().expect("it opens");
        assert_eq!(stream.text(), "one");
        stream.connection.shutdown(Shutdown::Both).expect("open");
        wait_until("the stream to be stopped", || (stopped() == 2).then_some(()));
    });
    let event = gateway.event("left-behind");
    assert_eq!((&event["status"], &event["tokens_out"]), (&499.into(), &1.into()), "{event}");
    // A whole answer is given up by its call.
    let body = chat("silent", json!({}));
    let mut connection = connect(&gateway.address);
    connection.write_all(&request("POST", CHAT, &[JSON], body.as_bytes())).expect("the gateway reads");
    wait_until("the call to begin", || (server.talker.requests().len() == 3).then_some(()));
    drop(connection);
    wait_until("the call to be cancelled", || (server.cancelled() == 1).then_some(()));
}

#[test]
fn what_fails_before_the_first_word_is_an_answer_with_its_status() {
    let (server, gateway) = both(&[]);
    for kind in fault::Kind::ALL.into_iter().filter(|kind| !about_the_gateway(*kind)) {
        let row = kind.row();
        for stream in [false, true] {
            let answer = post(&gateway.address, CHAT, &chat(row.name, json!({"stream": stream})));
            let error = answer.error();
            assert_eq!(
                (answer.status, error["code"].as_str(), error["type"].as_str(), error["param"].as_str()),
                (row.http, Some(row.code), Some(row.openai_type), Some("messages"))
            );
        }
    }
    let streamed = |model: &str, budget: &str| {
        let headers = [JSON, ("x-request-timeout-ms", budget)];
        let answer = ask(&gateway.address, "POST", CHAT, &headers, chat(model, json!({"stream": true})).as_bytes());
        (answer.status, answer.code())
    };
    let told = |status, code: &str| (status, code.to_owned());
    assert_eq!(streamed("broken", "0"), told(500, "internal"));
    assert_eq!(streamed("unwell", "0"), told(503, "unavailable"));
    assert_eq!(streamed("nope", "0"), told(404, "model_not_found"));
    assert_eq!(streamed("silent", "500"), told(504, "deadline_exceeded"));
    wait_until("the silent stream to be stopped", || {
        let ours = |budget| (1..=500).contains(&budget);
        server.talker.streams().iter().any(|one| one.stopped && ours(one.timeout_ms)).then_some(())
    });
    let whole = ask(
        &gateway.address,
        "POST",
        CHAT,
        &[JSON, ("x-request-timeout-ms", "50")],
        chat("silent", json!({})).as_bytes(),
    );
    assert_eq!((whole.status, whole.code().as_str()), (504, "deadline_exceeded"));
}

#[test]
fn the_first_word_has_a_time_of_its_own() {
    let (_server, gateway) = both(&["limits.chat_first_token=50ms"]);
    let answer = post(&gateway.address, CHAT, &chat("silent", json!({"stream": true})));
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
    assert!(answer.text().contains("no first token"), "{}", answer.text());
}

#[test]
fn the_time_of_the_first_word_holds_for_a_server_that_does_not_even_begin() {
    // The deadline of the whole answer says something else.
    let (server, gateway) = both(&["limits.chat_first_token=50ms", "limits.chat_deadline=20s"]);
    let answer = post(&gateway.address, CHAT, &chat("dead", json!({"stream": true})));
    assert_eq!((answer.status, answer.code().as_str()), (504, "deadline_exceeded"));
    assert!(answer.text().contains("no first token"), "{}", answer.text());
    // What begins when nobody waits any more is stopped.
    server.talker.revived.notify_one();
    wait_until("the late stream to be stopped", || begun(&server).stopped.then_some(()));
}

#[test]
fn what_fails_behind_the_first_word_is_the_last_event() {
    let (server, gateway) = both(&[]);
    let trace = "0af7651916cd43dd8448eb211c80319c";
    let parent = format!("00-{trace}-b7ad6b7169203331-01");
    let answer = ask(
        &gateway.address,
        "POST",
        CHAT,
        &[JSON, ("x-request-id", "cut-in-two"), ("traceparent", &parent)],
        chat("cut", json!({"stream": true})).as_bytes(),
    );
    assert_eq!(answer.status, 200);
    let chunks = events(&answer);
    assert_eq!(chunks.len(), 3, "{chunks:?}");
    assert_eq!(chunks[1]["choices"][0]["delta"]["content"], "one ");
    assert_eq!(
        chunks[2],
        json!({"error": {"message": "the server is going away", "type": "server_error", "param": null, "trace_id": trace,
                         "code": "unavailable", "request_id": "cut-in-two"}})
    );
    let event = gateway.event("cut-in-two");
    assert_eq!((&event["status"], &event["outcome"]), (&200.into(), &"unavailable".into()), "{event}");
    let page = get(&gateway.admin, "/metrics").text();
    assert!(page.contains("outboard_gateway_answers_total{route=\"chat\",status=\"5xx\"} 1"), "{page}");
    // A server that is gone says nothing itself.
    std::thread::scope(|scope| {
        let open = scope.spawn(|| Stream::open(&gateway.address, &[], "told"));
        wait_until("the stream to begin", || (server.talker.streams().len() == 2).then_some(()));
        server.talker.say(piece("one"));
        let mut stream = open.join().expect("it opens");
        assert_eq!(stream.text(), "one");
        drop(server);
        let rest = stream.rest();
        assert_eq!(rest.len(), 1, "{rest:?}");
        assert!(rest[0].contains("\"code\":\"unavailable\""), "{rest:?}");
    });
}

#[test]
fn every_fault_of_a_stream_keeps_its_row_of_the_table() {
    let (server, gateway) = both(&[]);
    for (number, kind) in fault::Kind::ALL.into_iter().enumerate() {
        std::thread::scope(|scope| {
            let open = scope.spawn(|| Stream::open(&gateway.address, &[], "told"));
            wait_until("the stream to begin", || (server.talker.streams().len() == number + 1).then_some(()));
            server.talker.say(piece("one"));
            let mut stream = open.join().expect("it opens");
            assert_eq!(stream.text(), "one");
            server.talker.say(broken(FaultCode(kind.row().thrift), "as was asked for"));
            let rest = stream.rest();
            assert_eq!(rest.len(), 1, "{kind}: {rest:?}");
            let event: Value = serde_json::from_str(rest[0].trim_start_matches("data: ")).expect("JSON");
            assert_eq!(
                (event["error"]["code"].as_str(), event["error"]["type"].as_str()),
                (Some(kind.row().code), Some(kind.row().openai_type))
            );
        });
    }
}

#[test]
fn a_stream_with_nothing_to_say_says_that_it_is_alive() {
    let (server, gateway) = both(&["limits.chat_keep_alive=5ms"]);
    std::thread::scope(|scope| {
        let open = scope.spawn(|| Stream::open(&gateway.address, &[], "told"));
        begun(&server);
        server.talker.say(piece("one"));
        let mut stream = open.join().expect("it opens");
        assert_eq!(stream.text(), "one");
        // The word behind is not said before these were heard.
        for _ in 0..3 {
            assert_eq!(stream.next().as_deref(), Some(": keep-alive"));
        }
        server.talker.say(piece("two"));
        assert_eq!(stream.text(), "two");
        server.talker.say(last(FinishReason::LENGTH));
        let rest = stream.rest();
        assert_eq!(rest.last().map(String::as_str), Some("data: [DONE]"), "{rest:?}");
    });
}

#[test]
fn every_bad_request_is_told_what_is_wrong_with_it() {
    let (server, gateway) = both(&["limits.chat_body=2KiB"]);
    let long = chat("words", json!({"user": "x".repeat(3_000)}));
    let at = |method: &str, path: &str, kind: &str, body: &str| {
        ask(&gateway.address, method, path, &[("content-type", kind)], body.as_bytes())
    };
    let json_kind = "application/json; charset=utf-8";
    let cases = [
        (at("POST", CHAT, json_kind, &chat("words", json!({"temperature": 3}))), 400, "invalid_input", "temperature"),
        (at("POST", CHAT, json_kind, &chat("words", json!({"tools": [{}]}))), 400, "invalid_input", "tools"),
        (at("POST", CHAT, json_kind, &chat("words", json!({"messages": []}))), 400, "invalid_input", "messages"),
        (at("POST", CHAT, json_kind, &chat("no such/../model", json!({}))), 404, "model_not_found", "model"),
        (at("POST", CHAT, json_kind, &chat("nope", json!({}))), 404, "model_not_found", "model"),
        (at("POST", CHAT, json_kind, "{"), 400, "invalid_input", ""),
        (at("POST", CHAT, json_kind, &long), 413, "too_large", ""),
        (at("POST", CHAT, "text/plain", &chat("words", json!({}))), 415, "unsupported_media", ""),
        (at("POST", COMPLETIONS, json_kind, r#"{"model": "words"}"#), 400, "invalid_input", "prompt"),
        (at("GET", CHAT, json_kind, ""), 405, "method_not_allowed", ""),
        (at("GET", COMPLETIONS, json_kind, ""), 405, "method_not_allowed", ""),
    ];
    for (number, (answer, status, code, param)) in cases.into_iter().enumerate() {
        let error = answer.error();
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "case {number}: {error}");
        assert_eq!(error["param"].as_str().unwrap_or_default(), param, "case {number}: {error}");
    }
    assert_eq!(server.talker.requests().len(), 1, "only the unknown model is the server's to know");
}

#[test]
fn a_conversation_stays_where_it_began_and_moves_when_it_must() {
    let (first, second) = (FakeServer::start(), FakeServer::start());
    let gateway = Gateway::start(&format!("{},{}", first.address, second.address), &["workers=1"]);
    wait_until("both to be connected", || {
        for server in [&first, &second] {
            server.talker.requests.lock().expect("no panic").clear();
        }
        for number in 0..16 {
            talk(&gateway, &[&format!("connect {number}")], false);
        }
        (!first.talker.requests().is_empty() && !second.talker.requests().is_empty()).then_some(())
    });
    // A call's own choice would be the cheaper server: all of them at one, or the turns of some at both.
    let told = |server: &FakeServer, question: &str| {
        let asked = |one: &&ChatRequest| {
            one.messages.iter().flatten().next().and_then(|first| first.content.as_deref()) == Some(question)
        };
        server.talker.requests().iter().filter(asked).cloned().collect::<Vec<_>>()
    };
    let questions: Vec<String> = (0..32).map(|number| format!("where am I, {number}?")).collect();
    for so_far in 1..=3 {
        for (number, question) in questions.iter().enumerate() {
            talk(&gateway, &[question, "one two thr\u{e9}", "and now?"][..so_far], (number + so_far) % 2 == 0);
        }
    }
    let mut homes = [0, 0];
    for question in &questions {
        let (at_first, at_second) = (told(&first, question), told(&second, question));
        assert_eq!((at_first.len() + at_second.len(), at_first.len() % 3), (3, 0), "{question} is at both");
        homes[usize::from(at_first.is_empty())] += 1;
        let names: Vec<_> = at_first.iter().chain(&at_second).map(|one| &one.conversation).collect();
        assert!(names[0].is_some() && names.iter().all(|name| *name == names[0]), "{names:?}");
    }
    assert!(homes[0] > 0 && homes[1] > 0, "{homes:?}: 32 conversations share two servers");
    let counts = |server: &FakeServer| server.talker.requests().len();
    let turns = [&questions[0], "and now?"];
    let (home, other) = if told(&first, &questions[0]).is_empty() { (second, first) } else { (first, second) };
    // A full server's conversations are taken in by the other one.
    home.talker.full.store(true, Ordering::SeqCst);
    let before = counts(&other);
    talk(&gateway, &turns, true);
    talk(&gateway, &turns, false);
    assert_eq!(counts(&other) - before, 2);
    other.talker.full.store(true, Ordering::SeqCst);
    let answer = post(&gateway.address, CHAT, &chat("words", json!({"stream": true})));
    assert_eq!((answer.status, answer.code().as_str()), (503, "overloaded"));
    other.talker.full.store(false, Ordering::SeqCst);
    drop(home);
    let before = counts(&other);
    talk(&gateway, &turns, true);
    assert_eq!(counts(&other) - before, 1);
}

#[test]
fn the_servers_can_tell_callers_apart() {
    let (server, gateway) = both(&[]);
    for (caller, stream) in [("192.0.2.7", false), ("192.0.2.8", true)] {
        let body = chat("words", json!({"stream": stream}));
        let headers = [JSON, ("x-real-ip", caller)];
        assert_eq!(ask(&gateway.address, "POST", CHAT, &headers, body.as_bytes()).status, 200);
    }
    assert_eq!(server.talker.callers(), ["gateway for anonymous@192.0.2.7", "gateway for anonymous@192.0.2.8"]);
    let requests = server.talker.requests();
    assert_ne!(requests[0].conversation, requests[1].conversation, "the same words of another caller");
}

/// A chat with these turns is answered.
fn talk(gateway: &Gateway, turns: &[&str], stream: bool) {
    let roles = ["user", "assistant"].into_iter().cycle();
    let messages: Vec<Value> =
        turns.iter().zip(roles).map(|(text, role)| json!({"role": role, "content": text})).collect();
    let answer = post(&gateway.address, CHAT, &chat("words", json!({"messages": messages, "stream": stream})));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn a_server_that_is_lost_before_the_first_word_is_replaced() {
    let (first, second) = (FakeServer::start(), FakeServer::start());
    let gateway = Gateway::start(&format!("{},{}", first.address, second.address), &["workers=1"]);
    wait_until("both to be connected", || {
        for number in 0..16 {
            talk(&gateway, &[&format!("connect {number}")], false);
        }
        (!first.talker.requests().is_empty() && !second.talker.requests().is_empty()).then_some(())
    });
    let began = |server: &FakeServer| server.talker.streams().len();
    std::thread::scope(|scope| {
        let open = scope.spawn(|| Stream::open(&gateway.address, &[], "told"));
        wait_until("the stream to begin", || (began(&first) + began(&second) == 1).then_some(()));
        let (home, other) = if began(&first) == 1 { (first, second) } else { (second, first) };
        drop(home);
        wait_until("the stream to begin again", || (began(&other) == 1).then_some(()));
        other.talker.say(piece("one"));
        assert_eq!(open.join().expect("it opens").text(), "one");
    });
}

#[test]
fn sigterm_lets_a_stream_come_to_its_end() {
    let (server, mut gateway) = both(&[]);
    std::thread::scope(|scope| {
        let address = gateway.address.clone();
        let open = scope.spawn(move || Stream::open(&address, &[], "told"));
        begun(&server);
        server.talker.say(piece("one"));
        let mut stream = open.join().expect("it opens");
        assert_eq!(stream.text(), "one");
        gateway.terminate();
        wait_until("the listener to close", || TcpStream::connect(&gateway.address).is_err().then_some(()));
        server.talker.say(piece("two"));
        assert_eq!(stream.text(), "two");
        assert!(gateway.ended().is_none(), "a stream is on its way");
        server.talker.say(last(FinishReason::STOP));
        assert_eq!(stream.rest().last().map(String::as_str), Some("data: [DONE]"));
    });
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
}

#[test]
fn what_a_drain_ends_before_it_is_whole_is_told_so() {
    let (server, mut gateway) = both(&["drain=1s"]);
    std::thread::scope(|scope| {
        let address = gateway.address.clone();
        let silent = scope.spawn(move || post(&address, CHAT, &chat("silent", json!({}))));
        let address = gateway.address.clone();
        let open = scope.spawn(move || Stream::open(&address, &[("x-request-id", "cut-stream")], "told"));
        begun(&server);
        server.talker.say(piece("one"));
        let mut stream = open.join().expect("it opens");
        assert_eq!(stream.text(), "one");
        wait_until("both to begin", || (server.talker.requests().len() == 2).then_some(()));
        gateway.terminate();
        let rest = stream.rest();
        let events: Vec<_> = rest.iter().filter_map(|event| event.strip_prefix("data: ")).collect();
        let [event] = events.as_slice() else { panic!("one last event: {rest:?}") };
        let event: Value = serde_json::from_str(event).expect("JSON");
        assert_eq!(event["error"]["code"], "unavailable", "{event}");
        let whole = silent.join().expect("it is answered");
        assert_eq!((whole.status, whole.code().as_str()), (503, "unavailable"));
    });
    let event = gateway.event("cut-stream");
    assert_eq!((&event["outcome"], &event["tokens_out"]), (&"unavailable".into(), &1.into()), "{event}");
    assert_eq!(gateway.wait().code(), Some(0), "{}", gateway.log());
    assert!(!gateway.log().contains("the client left"), "{}", gateway.log());
}
