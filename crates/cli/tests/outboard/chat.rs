//! `outboard call chat`.

use std::io::{Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::Duration;

use idl::chat::ChatRequest;
use idl::health::ServingStatus;
use serde_json::{Value, json};

use crate::fake::{Fake, Script};
use crate::{Ended, outboard, refused, silent};

fn talker() -> Fake {
    Fake::start(Script { talkers: vec!["talk"], ..Script::status(ServingStatus::SERVING) })
}

fn start(fake: &Fake, arguments: &[&str]) -> Child {
    start_at(&fake.address, arguments)
}

fn start_at(address: &str, arguments: &[&str]) -> Child {
    Command::new(env!("CARGO_BIN_EXE_outboard"))
        .args(["call", "chat", "--server", address])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("outboard starts")
}

fn end(child: Child) -> Ended {
    let output = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    Ended { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

fn with_input(fake: &Fake, arguments: &[&str], input: &str) -> Ended {
    let mut child = start(fake, arguments);
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    end(child)
}

fn asked(fake: &Fake) -> Vec<ChatRequest> {
    fake.seen.lock().unwrap().started.iter().filter_map(|start| start.chat.clone()).collect()
}

fn messages(request: &ChatRequest) -> Vec<(String, String)> {
    let one = |message: &idl::chat::Message| {
        (message.role.clone().unwrap_or_default(), message.content.clone().unwrap_or_default())
    };
    request.messages.iter().flatten().map(one).collect()
}

fn said(all: &[(&str, &str)]) -> Vec<(String, String)> {
    all.iter().map(|(role, content)| ((*role).to_owned(), (*content).to_owned())).collect()
}

#[test]
fn an_answer_is_printed_and_what_was_asked_arrives() {
    let fake = talker();
    let base = ["call", "chat", "--server", &fake.address];
    let more =
        ["Say", "this back", "--system", "Be short.", "--temperature", "0.5", "--max-tokens", "9", "--seed", "4"];
    let ended = outboard(&[&base[..], &more].concat()).with(0);
    assert_eq!((ended.out.as_str(), ended.err.as_str()), ("Say this back\n", ""));
    let asked = &asked(&fake)[0];
    assert_eq!(messages(asked), said(&[("system", "Be short."), ("user", "Say this back")]));
    assert_eq!((asked.model.as_deref(), asked.max_tokens), (Some("talk"), Some(9)));
    let sampling = asked.sampling.clone().unwrap();
    assert_eq!((sampling.temperature.map(|value| value.0), sampling.seed), (Some(0.5), Some(4)));
    let seen = fake.seen.lock().unwrap();
    let start = &seen.started[0];
    assert_eq!((start.stream_key.as_ref().map(|key| key.len()), start.bound), (Some(16), Some(true)));
}

#[test]
fn a_prompt_can_come_from_standard_input_and_the_answer_as_json() {
    let fake = talker();
    let ended = with_input(&fake, &["--json"], "two\nlines\n").with(0);
    let json: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(json["text"], "two\nlines");
    assert_eq!((&json["finish"], &json["model"], &json["version"]), (&json!("stop"), &json!("talk"), &json!("7")));
    assert_eq!(json["usage"]["prompt_tokens"], 3);
    let ended = with_input(&fake, &[], "\n").with(2);
    assert!(ended.err.contains("no prompt"), "{}", ended.err);
}

#[test]
fn a_conversation_remembers_until_it_begins_anew() {
    let fake = talker();
    let ended = with_input(&fake, &["-i", "--system", "Hear."], "one\n\ntwo\n/new\nthree\n").with(0);
    assert_eq!(ended.out, "one\ntwo\nthree\n");
    let asked: Vec<_> = asked(&fake).iter().map(messages).collect();
    assert_eq!(asked[1], said(&[("system", "Hear."), ("user", "one"), ("assistant", "one"), ("user", "two")]));
    assert_eq!(asked[2], said(&[("system", "Hear."), ("user", "three")]));
}

#[test]
fn ctrl_c_stops_the_answer_and_in_a_conversation_nothing_else() {
    for converse in [true, false] {
        let fake = talker();
        let mut child = start(&fake, if converse { &["-i"] } else { &["endless"] });
        let mut input = child.stdin.take().unwrap();
        if converse {
            input.write_all(b"endless\n").unwrap();
        }
        // Only when it has begun to answer.
        let mut first = [0; 3];
        child.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
        assert_eq!(&first, b"on ");
        interrupt(&child);
        if converse {
            input.write_all(b"after\n").unwrap();
        }
        drop(input);
        let ended = end(child).with(if converse { 0 } else { 130 });
        let tail = ended.out.trim_start_matches("on ");
        assert_eq!(tail.trim_start_matches(' '), if converse { "[stopped]\nafter\n" } else { "\n" }, "{}", ended.out);
        assert_eq!(fake.seen.lock().unwrap().stopped, 1);
    }
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

/// What shells say of the end; what does not end within the limit fails.
fn shell_status(mut child: Child) -> i32 {
    for _ in 0..3000 {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().or(status.signal().map(|signal| 128 + signal)).unwrap();
        }
        sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    panic!("it goes on after Ctrl-C");
}

#[test]
fn ctrl_c_ends_what_waits() {
    // For the rest of its standard input: it reads when more was written than a pipe holds.
    let mut reads = start_at(&refused(), &["--json"]);
    let mut input = reads.stdin.take().unwrap();
    input.write_all(&[b'x'; 1 << 18]).unwrap();
    interrupt(&reads);
    assert_eq!(shell_status(reads), 130);
    // For the list of models, and for the begin of the answer.
    for model in [&[][..], &["--model", "talk"]] {
        let (listener, address) = silent();
        let calls = start_at(&address, &[&["hi"], model].concat());
        let mut peer = listener.accept().unwrap().0;
        peer.read_exact(&mut [0; 4]).unwrap();
        interrupt(&calls);
        assert_eq!(shell_status(calls), 130);
    }
    // For a stop that is not answered.
    let fake = talker();
    let mut stops = start(&fake, &["deaf"]);
    stops.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
    interrupt(&stops);
    while fake.seen.lock().unwrap().stopped == 0 {
        sleep(Duration::from_millis(5));
    }
    interrupt(&stops);
    assert_eq!(shell_status(stops), 130);
}

#[test]
fn faults_of_the_start_and_of_the_stream_end_with_their_status() {
    let fake = talker();
    let base = ["call", "chat", "--server", &fake.address];
    let ended = outboard(&[&base[..], &["x", "--model", "fault-4"]].concat()).with(14);
    assert!(ended.err.starts_with("NotFound: as the test wants it"), "{}", ended.err);
    let ended = outboard(&[&base[..], &["break it"]].concat());
    let status = 10 + fault::Kind::Overloaded.row().thrift;
    assert!(ended.err.contains("too much of it"), "{}", ended.err);
    ended.with(status);
    outboard(&["call", "chat", "x", "--model", "talk", "--server", &refused()]).with(3);
}

#[test]
fn without_a_name_the_first_model_that_is_ready_answers() {
    for (talkers, model) in
        [(vec!["loading-one", "two", "three"], "two"), (vec!["one"], "one"), (vec!["loading-one"], "loading-one")]
    {
        let fake = Fake::start(Script { talkers, ..Script::status(ServingStatus::SERVING) });
        outboard(&["call", "chat", "x", "--server", &fake.address]).with(0);
        assert_eq!(asked(&fake)[0].model.as_deref(), Some(model));
    }
    let fake = Fake::serving();
    let ended = outboard(&["call", "chat", "x", "--server", &fake.address]).with(2);
    assert!(ended.err.contains("no language model"), "{}", ended.err);
}
