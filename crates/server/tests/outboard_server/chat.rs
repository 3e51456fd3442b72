//! The service `Chat`, with the tiny language model of `crates/generate/testdata`.

use std::io::Write as _;
use std::net::TcpStream;

use bytes::Bytes;
use idl::base::Base;
use idl::chat::{
    ChatReply, ChatRequest, FinishReason, Format, FormatKind, NextReply, NextRequest, Piece, Sampling, StartReply,
    StartRequest, StopReply, StopRequest,
};
use idl::fault::{Fault, FaultCode};
use idl::inference::{ModelsRequest, Task};
use idl::methods;
use wire::{Method, TSerializable};

use crate::program::{Running, answer, call};

/// Two slots of 256 tokens; answers are the likeliest tokens.
const TWO_SLOTS: &str =
    "task = \"chat\"\nintra_threads = 1\n[chat]\nkv_bytes = 262144\nwaiting = 1000\ntemperature = 0.0\n";

fn server(settings: &[&str]) -> Running {
    Running::with_chat("tiny-llama", TWO_SLOTS, settings)
}

/// A server whose callers may have many answers in work, for tests that keep it busy.
fn busy_server(settings: &[&str]) -> Running {
    server(&[settings, &["chat.answers_per_caller=1000"]].concat())
}

fn chat(text: &str, max_tokens: i32) -> ChatRequest {
    ChatRequest {
        model: Some("talk".to_owned()),
        prompt: Some(text.to_owned()),
        max_tokens: Some(max_tokens),
        ..ChatRequest::default()
    }
}

/// 16 answers of 250 tokens, which two slots work on for a while.
fn long() -> ChatRequest {
    ChatRequest { n: Some(16), ..chat("Once", 250) }
}

fn start(key: u8, chat: ChatRequest) -> StartRequest {
    let base = Some(Base { request_id: Some(format!("stream-{key:03}")), ..Base::default() });
    StartRequest { base, stream_key: Some(Bytes::from(vec![key; 16])), chat: Some(chat), bound: None }
}

fn next(id: &str, from: i64) -> NextRequest {
    NextRequest { base: None, stream_id: Some(id.to_owned()), from_piece: Some(from), wait_ms: Some(10_000) }
}

fn stop(id: &str) -> StopRequest {
    StopRequest { base: None, stream_id: Some(id.to_owned()) }
}

/// One call after the other on one connection, as a generated client makes them.
struct Client(TcpStream);

impl Client {
    fn call<Q, R>(&mut self, method: &Method<Q, R, Fault>, request: &Q) -> Result<R, Fault>
    where
        Q: TSerializable,
        R: TSerializable,
    {
        self.0.write_all(&call(method.name, request)).unwrap();
        answer(&mut self.0).result().unwrap()
    }

    fn start(&mut self, request: &StartRequest) -> Result<String, Fault> {
        self.call(&methods::START, request).map(|reply: StartReply| reply.stream_id.unwrap())
    }

    fn next(&mut self, id: &str, from: i64) -> Result<NextReply, Fault> {
        self.call(&methods::NEXT_PIECES, &next(id, from))
    }

    fn stop(&mut self, id: &str) -> Result<StopReply, Fault> {
        self.call(&methods::STOP, &stop(id))
    }

    /// Every piece from `from` to the last.
    fn rest(&mut self, id: &str, mut from: i64) -> Vec<Piece> {
        let mut all = Vec::new();
        loop {
            let reply = self.next(id, from).unwrap();
            let pieces = reply.pieces.unwrap();
            from += pieces.len() as i64;
            all.extend(pieces);
            if reply.ended == Some(true) {
                return all;
            }
        }
    }
}

fn client(server: &Running) -> Client {
    Client(server.connect())
}

fn text(pieces: &[Piece], index: i32) -> String {
    pieces.iter().filter(|piece| piece.index == Some(index)).filter_map(|piece| piece.text.as_deref()).collect()
}

/// Pieces that end the whole stream.
fn last(pieces: &[Piece]) -> Vec<&Piece> {
    pieces.iter().filter(|piece| piece.usage.is_some() || piece.error.is_some()).collect()
}

fn is_idle(server: &Running) -> bool {
    let in_hand = ["outboard_engine_running_rows{", "outboard_engine_waiting_requests{", "outboard_chat_streams "];
    in_hand.iter().all(|series| server.metric(series) == 0.0)
}

fn lines<'a>(log: &'a str, part: &str) -> Vec<&'a str> {
    log.lines().filter(|line| line.contains(part)).collect()
}

fn complete(server: &Running, request: &ChatRequest) -> ChatReply {
    server.call(&methods::COMPLETE, request).unwrap().unwrap()
}

#[test]
fn a_whole_answer_comes_in_one_reply_is_counted_and_logged_once() {
    let server = server(&[]);
    let base = Some(Base { request_id: Some("whole-answer".to_owned()), ..Base::default() });
    let reply = complete(&server, &ChatRequest { base, n: Some(3), logprobs: Some(1), ..chat("Once", 20) });
    let choices = reply.choices.unwrap();
    assert_eq!(choices.iter().map(|choice| choice.index.unwrap()).collect::<Vec<_>>(), [0, 1, 2]);
    for choice in &choices {
        assert_eq!((choice.finish, &choice.text), (Some(FinishReason::LENGTH), &choices[0].text), "greedy");
        assert_eq!(choice.logprobs.as_ref().map(Vec::len), Some(20));
    }
    let usage = reply.usage.unwrap();
    assert_eq!((usage.completion_tokens, reply.request_id.as_deref()), (Some(60), Some("whole-answer")));
    assert!(reply.timing.unwrap().first_token_us.unwrap() > 0);
    let ended =
        complete(&server, &ChatRequest { stop: Some(vec![whole_middle(&choices[0].text)]), ..chat("Once", 20) });
    let ended = &ended.choices.unwrap()[0];
    assert_eq!(
        (ended.finish, ended.stop_text.as_ref()),
        (Some(FinishReason::STOP), Some(&whole_middle(&choices[0].text)))
    );
    assert_eq!(server.metric("outboard_server_calls_total{method=\"complete\",outcome=\"ok\"}"), 2.0);
    assert_eq!(server.metric("outboard_chat_slots{model=\"talk\"}"), 2.0);
    let models = server.call(&methods::MODELS, &ModelsRequest::default()).unwrap().unwrap().models.unwrap();
    assert_eq!((models[0].task, models[0].max_context, models[0].slots), (Some(Task::CHAT), Some(256), Some(2)));
    assert!(models[0].modified_s.is_some_and(|at| at > 1_700_000_000), "the folder was written now");
    assert_eq!(server.metric("outboard_chat_first_token_seconds_count{model=\"talk\"}"), 2.0);
    assert!(server.metric("outboard_chat_generated_tokens_total{model=\"talk\"}") > 60.0);
    let (status, log) = server.stop();
    assert_eq!(status, Some(0));
    let [line] = lines(&log, "whole-answer")[..] else { panic!("one line for one chat: {log}") };
    for field in ["caller", "model", "kind", "queue_ms", "prefill_ms", "first_token_ms", "tokens_in", "outcome"] {
        assert!(line.contains(&format!("\"{field}\":")), "{field} is not in {line}");
    }
    assert!(line.contains("\"tokens_out\":60"), "{line}");
    assert!(log.contains("\"slots\":2"), "the start tells of the slots");
}

/// Two characters out of the middle of a text.
fn whole_middle(text: &Option<String>) -> String {
    let characters: Vec<char> = text.as_ref().unwrap().chars().collect();
    characters[characters.len() / 2..][..2].iter().collect()
}

#[test]
fn a_stream_asked_again_gives_the_same_and_what_was_acknowledged_is_gone() {
    let server = server(&[]);
    let whole = complete(&server, &chat("Once", 40)).choices.unwrap().remove(0);
    let mut client = client(&server);
    let request = start(1, chat("Once", 40));
    let id = client.start(&request).unwrap();
    let mut other = Client(server.connect());
    assert_eq!(other.start(&request), Ok(id.clone()), "the same key of the same caller");
    let pieces = client.rest(&id, 0);
    assert_eq!((text(&pieces, 0), last(&pieces).len()), (whole.text.unwrap(), 1));
    assert_eq!(pieces.last().unwrap().finish, Some(FinishReason::LENGTH));
    let numbers: Vec<i64> = pieces.iter().map(|piece| piece.number.unwrap()).collect();
    assert_eq!(numbers, (0..pieces.len() as i64).collect::<Vec<_>>());
    // What was read piece by piece was acknowledged on the way; the last reply can be asked for again.
    let again = other.next(&id, numbers[numbers.len() - 1]).unwrap();
    assert_eq!((again.pieces.unwrap(), again.ended), (vec![pieces.last().unwrap().clone()], Some(true)));
    assert_eq!(other.start(&request), Ok(id.clone()), "also when it has ended");
    let fault = other.next(&id, 0).unwrap_err();
    assert_eq!((fault.code, fault.param.as_deref()), (Some(FaultCode::INVALID_INPUT), Some("from_piece")));
    assert_eq!(client.stop(&id).unwrap().stopped, Some(false));
    assert_ne!(client.start(&start(2, chat("Once", 2))).unwrap(), id);
    let (_, log) = server.stop();
    assert_eq!(lines(&log, "stream-001").len(), 1, "one line for one chat: {log}");
}

#[test]
fn starts_of_one_key_at_the_same_time_are_one_stream_and_other_callers_have_their_own() {
    let server = server(&[]);
    let request = start(1, chat("Once upon a time", 30));
    let ids: Vec<String> = std::thread::scope(|scope| {
        let starts: Vec<_> = (0..8).map(|_| scope.spawn(|| client(&server).start(&request).unwrap())).collect();
        starts.into_iter().map(|start| start.join().unwrap()).collect()
    });
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    let mut client = client(&server);
    client.rest(&ids[0], 0);
    assert_eq!(server.metric("outboard_chat_generated_tokens_total{model=\"talk\"}"), 30.0);
    let named = StartRequest { base: caller("somebody"), ..request };
    assert_ne!(client.start(&named).unwrap(), ids[0]);
}

fn caller(name: &str) -> Option<Base> {
    Some(Base { caller: Some(name.to_owned()), ..Base::default() })
}

#[test]
fn what_the_cache_holds_is_of_use_to_the_same_caller_alone() {
    let server = server(&[]);
    let cached = |name| {
        let text = "Once upon a time there was a server that had a slot for every conversation.";
        let usage = complete(&server, &ChatRequest { base: caller(name), ..chat(text, 2) }).usage.unwrap();
        (usage.prompt_tokens.unwrap(), usage.cached_tokens.unwrap())
    };
    let (tokens, first) = cached("one");
    assert_eq!((first, cached("two").1), (0, 0));
    // All but the last, whose logits the answer begins with.
    assert_eq!(cached("one").1, tokens - 1);
}

#[test]
fn a_deadline_ends_a_stream_and_a_whole_answer() {
    let server = busy_server(&["chat.reader_gone=1h"]);
    let soon = Some(Base { timeout_ms: Some(500), ..Base::default() });
    let mut client = client(&server);
    // Behind others that take longer than that.
    let others: Vec<String> = (10..26).map(|key| client.start(&start(key, long())).unwrap()).collect();
    let id = client.start(&StartRequest { base: soon.clone(), ..start(1, chat("Once", 250)) }).unwrap();
    let pieces = client.rest(&id, 0);
    assert_eq!((last(&pieces).len(), pieces.last().unwrap().error), (1, Some(FaultCode::DEADLINE_EXCEEDED)));
    let late = ChatRequest { base: soon, ..chat("Once", 250) };
    let fault = server.call(&methods::COMPLETE, &late).unwrap().unwrap_err();
    assert_eq!(fault.code, Some(FaultCode::DEADLINE_EXCEEDED));
    // The last of them had not come to its end, so there was something to be behind of.
    let stopped: Vec<bool> = others.iter().rev().map(|id| client.stop(id).unwrap().stopped.unwrap()).collect();
    assert!(stopped[0], "{stopped:?}");
}

#[test]
fn an_id_of_another_process_is_not_found_and_names_it() {
    let server = server(&[]);
    let mut client = client(&server);
    let fault = client.next("0123456789abcdef.42", 0).unwrap_err();
    assert_eq!((fault.code, fault.param.as_deref()), (Some(FaultCode::NOT_FOUND), Some("stream_id")));
    assert!(fault.message.unwrap().contains("belongs to server instance `0123456789abcdef`"));
    let id = client.start(&start(1, chat("Once", 2))).unwrap();
    let (instance, _) = id.split_once('.').unwrap();
    let fault = client.stop(&format!("{instance}.guessed")).unwrap_err();
    assert!(fault.code == Some(FaultCode::NOT_FOUND) && fault.message.unwrap().contains("no such stream"));
}

#[test]
fn stopping_ends_every_answer_once() {
    let mut server = server(&[]);
    let mut client = client(&server);
    let id = client.start(&start(1, long())).unwrap();
    let first = client.next(&id, 0).unwrap().pieces.unwrap();
    assert_eq!(client.stop(&id).unwrap().stopped, Some(true));
    assert_eq!(client.stop(&id).unwrap().stopped, Some(false));
    let mut pieces = first.clone();
    pieces.extend(client.rest(&id, first.len() as i64));
    for index in 0..16 {
        let ends = pieces.iter().filter(|piece| piece.index == Some(index) && piece.finish.is_some()).count();
        assert_eq!(ends, 1, "answer {index}");
    }
    let end = pieces.last().unwrap();
    assert_eq!((last(&pieces).len(), end.finish, end.error), (1, Some(FinishReason::CANCELLED), None));
    server.wait_until("free slots", is_idle);
}

#[test]
fn a_stream_that_nobody_reads_ends_and_so_does_one_whose_connection_is_lost() {
    let mut server = busy_server(&["chat.reader_gone=1s"]);
    let mut reader = client(&server);
    // More than can be generated before they are given up: those behind have not even begun.
    let ids: Vec<String> = (1..=32).map(|key| reader.start(&start(key, long())).unwrap()).collect();
    server.wait_until("free slots", is_idle);
    let pieces = reader.rest(ids.last().unwrap(), 0);
    let end = pieces.last().unwrap();
    assert_eq!((last(&pieces).len(), end.error), (1, Some(FaultCode::CANCELLED)));
    assert!(end.error_message.as_ref().unwrap().contains("1000 ms"), "{end:?}");
    // Bound: it ends with its connection, while one that is not bound is read on elsewhere.
    let bound = StartRequest { bound: Some(true), ..start(100, long()) };
    let (mut lost, mut left) = (client(&server), client(&server));
    lost.start(&bound).unwrap();
    let id = left.start(&start(101, chat("Once", 30))).unwrap();
    drop((lost, left));
    assert_eq!(reader.rest(&id, 0).last().unwrap().finish, Some(FinishReason::LENGTH));
    server.wait_until("free slots", is_idle);
    server.wait_until("the end of the stream", |it| it.log().contains("stream-100"));
    // The same key begins anew: nobody had an answer.
    assert!(reader.start(&bound).is_ok());
    let (_, log) = server.stop();
    let line = lines(&log, "stream-100")[0];
    assert!(line.contains("\"outcome\":\"cancelled\"") && line.contains("connection"), "{line}");
}

#[test]
fn a_caller_of_complete_that_leaves_frees_its_slots() {
    let mut server = server(&[]);
    let mut stream = server.connect();
    let base = Some(Base { request_id: Some("cut-short".to_owned()), ..Base::default() });
    stream.write_all(&call("complete", &ChatRequest { base, ..long() })).unwrap();
    server.wait_until("a token", |it| it.metric("outboard_chat_first_token_seconds_count{") > 0.0);
    drop(stream);
    server.wait_until("free slots", is_idle);
    assert_eq!(server.metric("outboard_server_calls_total{method=\"complete\",outcome=\"cancelled\"}"), 1.0);
    assert_eq!(server.metric("outboard_engine_events_total{model=\"talk\",event=\"cancelled\"}"), 1.0);
    // What it cost is told though nobody has the answer.
    let (_, log) = server.stop();
    let [line] = lines(&log, "cut-short")[..] else { panic!("one line for one chat: {log}") };
    assert!(line.contains("\"outcome\":\"cancelled\"") && line.contains("\"first_token_ms\":"), "{line}");
    assert!(line.contains("\"tokens_in\":") && !line.contains("\"tokens_out\":0"), "{line}");
}

#[test]
fn limits_are_told_with_their_numbers() {
    let server = server(&["chat.answers_per_caller=16"]);
    let mut client = client(&server);
    let id = client.start(&start(1, long())).unwrap();
    // Streams and whole answers alike; another caller has its own.
    let whole = client.call(&methods::COMPLETE, &chat("Once", 1)).map(|reply: ChatReply| reply.request_id.unwrap());
    for fault in [client.start(&start(2, chat("Once", 1))), whole].map(Result::unwrap_err) {
        assert_eq!((fault.code, fault.retry_after_ms.is_some()), (Some(FaultCode::OVERLOADED), true));
        assert!(fault.message.unwrap().contains("16 answers of this caller"));
    }
    complete(&server, &ChatRequest { base: caller("somebody"), ..chat("Once", 1) });
    client.stop(&id).unwrap();
    client.rest(&id, 0);
    // A seat may be given back a moment after the last piece.
    while client.start(&start(2, chat("Once", 1))).is_err_and(|fault| fault.code == Some(FaultCode::OVERLOADED)) {}
    let faults = [
        ("stream_key", client.start(&StartRequest { stream_key: None, ..start(3, chat("Once", 1)) }).err()),
        ("wait_ms", client.call(&methods::NEXT_PIECES, &NextRequest { wait_ms: Some(30_001), ..next(&id, 0) }).err()),
        ("n", client.start(&start(4, ChatRequest { n: Some(17), ..chat("Once", 1) })).err()),
        ("messages", client.start(&start(5, ChatRequest { prompt: None, ..chat("Once", 1) })).err()),
    ];
    for (param, fault) in faults {
        let fault = fault.unwrap();
        assert_eq!((fault.code, fault.param.as_deref()), (Some(FaultCode::INVALID_INPUT), Some(param)), "{fault:?}");
    }
    let fault = client.start(&start(4, chat("Once", 256))).unwrap_err();
    assert_eq!(fault.code, Some(FaultCode::TOO_LARGE));
    // A start that failed leaves its key free.
    assert!(client.start(&start(4, chat("Once", 1))).is_ok());
}

#[test]
fn a_reader_that_falls_too_far_behind_ends_its_stream() {
    let server = server(&["chat.kept=4KiB"]);
    let mut client = client(&server);
    let id = client.start(&start(1, ChatRequest { logprobs: Some(20), ..long() })).unwrap();
    let mut ended = next(&id, 0);
    ended.wait_ms = Some(0);
    let pieces = loop {
        let reply: NextReply = client.call(&methods::NEXT_PIECES, &ended).unwrap();
        if reply.ended == Some(true) {
            break reply.pieces.unwrap();
        }
    };
    let end = pieces.last().unwrap();
    assert_eq!((last(&pieces).len(), end.error), (1, Some(FaultCode::TOO_LARGE)));
    assert!(end.error_message.as_ref().unwrap().contains("4096 bytes"), "{end:?}");
}

/// What had ended was kept for as long as anybody asked, however much of it there was.
#[test]
fn streams_that_have_ended_are_kept_in_bounded_number_and_for_a_bounded_time() {
    let mut server = server(&["chat.ended_streams=8", "chat.reader_gone=1h"]);
    let mut client = client(&server);
    let short = |key| start(key, chat("Once", 1));
    let ids: Vec<String> = (1..=6)
        .map(|key| {
            let id = client.start(&short(key)).unwrap();
            client.rest(&id, 0);
            id
        })
        .collect();
    server.wait_until("what is displaced", |it| it.metric("outboard_chat_displaced_streams_total ") == 4.0);
    // A quarter of eight is one caller's.
    assert_eq!(server.metric("outboard_chat_ended_streams "), 2.0);
    assert!(is_forgotten(&mut client, &ids[3]));
    assert!(!is_forgotten(&mut client, &ids[4]));
    assert_ne!(client.start(&short(4)).unwrap(), ids[3], "the key is free, too");
    // Each other caller has as many, up to all there may be.
    for name in ["a", "b", "c", "d"] {
        for key in 1..=2 {
            let id = client.start(&StartRequest { base: caller(name), ..short(key) }).unwrap();
            client.rest(&id, 0);
        }
    }
    server.wait_until("eight", |it| it.metric("outboard_chat_ended_streams ") == 8.0);
    // Once its last piece is acknowledged, a stream is forgotten long before its hour is over.
    let id = client.start(&short(100)).unwrap();
    let pieces = client.rest(&id, 0).len() as i64;
    assert_eq!(client.next(&id, pieces).unwrap().ended, Some(true));
    let begin = std::time::Instant::now();
    while !is_forgotten(&mut client, &id) {
        assert!(begin.elapsed().as_secs() < 60, "it is still there");
    }
}

/// Whether there is no such stream; what was read of it is refused otherwise.
fn is_forgotten(client: &mut Client, id: &str) -> bool {
    client.next(id, 0).is_err_and(|fault| fault.code == Some(FaultCode::NOT_FOUND))
}

/// Each question gave an ended stream as long again.
#[test]
fn asking_for_a_stream_that_has_ended_does_not_keep_it() {
    let server = server(&["chat.reader_gone=500ms"]);
    let mut client = client(&server);
    let id = client.start(&start(1, chat("Once", 1))).unwrap();
    client.rest(&id, 0);
    let begin = std::time::Instant::now();
    while !is_forgotten(&mut client, &id) {
        assert!(begin.elapsed().as_secs() < 60, "it is still there");
    }
}

#[test]
fn a_drain_lets_streams_end_and_refuses_new_ones() {
    let server = server(&[]);
    let mut reader = client(&server);
    let id = reader.start(&start(1, ChatRequest { n: Some(4), ..chat("Once", 250) })).unwrap();
    server.terminate();
    // From when on it refuses.
    let fault = loop {
        if let Err(fault) = client(&server).start(&start(2, chat("Once", 1))) {
            break fault;
        }
    };
    assert_eq!(fault.code, Some(FaultCode::UNAVAILABLE));
    let mut other = client(&server);
    let pieces = other.rest(&id, 0);
    assert_eq!((last(&pieces).len(), pieces.last().unwrap().error), (1, None));
    drop((reader, other));
    let (status, log) = server.ended();
    assert_eq!(status, Some(0), "{log}");
    assert!(log.contains("drained") && !log.contains("drain took too long"), "{log}");
}

/// The process ended in the middle of a stream whose `start` was still being answered when the drain began.
#[test]
fn a_stream_whose_start_was_in_flight_when_the_drain_began_is_whole() {
    let mut server = server(&[]);
    // Compiling these takes longer than beginning to drain; each start waits for those before it.
    let schema = |key: u8| {
        let field = |n: usize| format!("\"field-{key}-{n}\":{{\"type\":[\"string\",\"integer\"]}}");
        let fields: Vec<String> = (0..1_500).map(field).collect();
        format!("{{\"type\":\"object\",\"properties\":{{{}}}}}", fields.join(","))
    };
    let format = |key| Format { kind: Some(FormatKind::JSON_SCHEMA), schema: Some(schema(key)) };
    let mut starts: Vec<TcpStream> = (1..=6)
        .map(|key| {
            let mut stream = server.connect();
            let chat = ChatRequest { format: Some(format(key)), ..chat("Once", 100) };
            stream.write_all(&call("start", &start(key, chat))).unwrap();
            stream
        })
        .collect();
    server.wait_until("calls", |it| it.metric("outboard_server_calls_in_flight ") >= 3.0);
    server.terminate();
    let answers = starts.iter_mut().map(|stream| answer(stream).result::<StartReply, Fault>().unwrap());
    let ids: Vec<String> = answers.filter_map(Result::ok).map(|reply| reply.stream_id.unwrap()).collect();
    assert!(!ids.is_empty(), "they were in flight");
    let mut reader = client(&server);
    for id in ids {
        let pieces = reader.rest(&id, 0);
        assert_eq!(last(&pieces).len(), 1);
        // Such a schema may be too much for an answer; the drain was not.
        assert_ne!(pieces.last().unwrap().error, Some(FaultCode::UNAVAILABLE));
    }
    drop((reader, starts));
    assert_eq!(server.ended().0, Some(0));
}

#[test]
fn what_still_runs_at_the_end_of_a_drain_gets_its_last_piece() {
    let server = busy_server(&["drain=1s"]);
    let mut reader = client(&server);
    // Others are in front of it for longer than the drain takes.
    let ids: Vec<String> = (1..=32).map(|key| reader.start(&start(key, long())).unwrap()).collect();
    let mut waiting = server.connect();
    waiting.write_all(&call("complete", &long())).unwrap();
    server.terminate();
    let pieces = reader.rest(ids.last().unwrap(), 0);
    let end = pieces.last().unwrap();
    assert_eq!((last(&pieces).len(), end.error), (1, Some(FaultCode::UNAVAILABLE)), "{end:?}");
    let fault = answer(&mut waiting).result::<ChatReply, Fault>().unwrap().unwrap_err();
    assert_eq!(fault.code, Some(FaultCode::UNAVAILABLE));
    assert_eq!(server.ended().0, Some(0));
}

/// What a stream of the soak came to.
fn soak_one(server: &Running, random: &mut fastrand::Rng, key: u8, expected: &str) {
    let mut client = client(server);
    let request = StartRequest {
        bound: Some(random.bool()),
        stream_key: Some(Bytes::from([[key; 8], random.u64(..).to_ne_bytes()].concat())),
        ..start(key, chat("Once", 40))
    };
    let id = client.start(&request).unwrap();
    match random.u8(..4) {
        // Its connection is lost, before or after some pieces.
        0 => {}
        1 => drop(client.next(&id, 0)),
        2 => {
            let read = client.next(&id, 0).unwrap().pieces.unwrap();
            client.stop(&id).unwrap();
            let mut pieces = read.clone();
            pieces.extend(client.rest(&id, read.len() as i64));
            assert_eq!(last(&pieces).len(), 1);
            assert!(expected.starts_with(&text(&pieces, 0)));
        }
        _ => {
            let pieces = client.rest(&id, 0);
            assert_eq!((last(&pieces).len(), text(&pieces, 0).as_str()), (1, expected));
        }
    }
}

#[test]
fn two_hundred_streams_opened_and_dropped_at_random_leave_nothing_behind() {
    let seed = std::time::UNIX_EPOCH.elapsed().unwrap().as_nanos() as u64;
    println!("seed {seed}");
    let mut server = server(&["chat.reader_gone=500ms", "chat.answers_per_caller=200"]);
    let expected = complete(&server, &chat("Once", 40)).choices.unwrap().remove(0).text.unwrap();
    std::thread::scope(|scope| {
        for thread in 0..4_u8 {
            let (server, expected) = (&server, &expected);
            scope.spawn(move || {
                let mut random = fastrand::Rng::with_seed(seed + u64::from(thread));
                for _ in 0..50 {
                    soak_one(server, &mut random, thread, expected);
                }
            });
        }
    });
    server.wait_until("free slots", is_idle);
    server.wait_until("a line for each stream", |it| lines(&it.log(), "\"kind\":\"stream\"").len() >= 200);
    assert_eq!(lines(&server.log(), "\"kind\":\"stream\"").len(), 200);
    assert!(!server.log().contains("\"outcome\":\"internal\""));
}

#[test]
fn a_setting_of_sampling_that_is_wrong_is_named() {
    let server = server(&[]);
    let sampling = Some(Sampling { temperature: Some(3.0.into()), ..Sampling::default() });
    let fault = server.call(&methods::COMPLETE, &ChatRequest { sampling, ..chat("Once", 1) }).unwrap().unwrap_err();
    assert_eq!((fault.code, fault.param.as_deref()), (Some(FaultCode::INVALID_INPUT), Some("temperature")));
    assert_eq!(fault.message.as_deref(), Some("temperature is 3, allowed is 0 to 2"));
}
