//! The bundled chat model: its greedy answers are those worked out from its original file without any of this, alone and in
//! company.

mod support;

use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use generate::{Event, Finish, Format, Generator, Limits, Owner, Request, Sampling, Ticket, Vocabulary};
use runtime::{Blueprint, Decoder, DeviceWish, SessionOptions};
use support::{Golden, bundled, golden, library};

const SLOTS: usize = 16;
/// The longest prompt and its answer.
const CONTEXT: usize = 640;

struct Running {
    _ticket: Ticket,
    events: Receiver<Event>,
    told: Vec<u32>,
    ended: Option<(Finish, usize)>,
}

impl Running {
    /// Takes one event.
    fn hear(&mut self) {
        // Only so that a test that waits in vain ends.
        match self.events.recv_timeout(Duration::from_secs(600)).expect("an event") {
            Event::Piece { token, .. } => self.told.extend(token.map(|chosen| chosen.token)),
            Event::Finished { finish, usage, .. } => self.ended = Some((finish, usage.cached)),
            Event::Failed(reason) => panic!("{reason}"),
        }
    }

    fn hear_all(&mut self) {
        while self.ended.is_none() {
            self.hear();
        }
    }
}

/// Greedy tokens; the end token ends an answer.
fn begin(generator: &Generator, prompt: &[u32], most: usize, owner: u64) -> Running {
    let request = Request {
        prompt: prompt.to_vec(),
        max_tokens: most,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stops: Vec::new(),
        logprobs: None,
        format: Format::Text,
        owner: Owner(owner),
    };
    let (send, events) = channel();
    let ticket = generator.submit(request, Box::new(move |event| send.send(event).is_ok())).expect("is taken");
    Running { _ticket: ticket, events, told: Vec::new(), ended: None }
}

/// How the first `most` tokens of a golden answer end, and which of them are told.
fn expected(golden: &Golden, most: usize, ends: &[u32]) -> (Finish, Vec<u32>) {
    let answer = &golden.answer[..golden.answer.len().min(most)];
    match answer.split_last() {
        Some((last, before)) if ends.contains(last) => (Finish::End, before.to_vec()),
        _ => (Finish::Length, answer.to_vec()),
    }
}

#[test]
fn answers_are_those_of_the_original_weights_alone_and_among_sixteen() {
    let folder = bundled();
    let vocabulary = Vocabulary::open(&folder).expect("has a tokeniser");
    let all = golden("smollm2-135m-instruct");
    let blueprint = Blueprint::open(library(), folder.join("onnx/model.onnx")).expect("is there");
    let options = SessionOptions { wish: DeviceWish::Cpu, intra_threads: 2, ..SessionOptions::default() };
    let decoder = Decoder::new(blueprint.session(&options).expect("loads"), SLOTS, CONTEXT).expect("is a decoder");
    // Long prompts go in by several pieces between the steps of the others.
    let limits = Limits { piece: 48, piece_alone: 200, ..Limits::default() };
    let generator = Generator::start(decoder, vocabulary.tokens(), limits).expect("a thread");
    let mut owners = 0..;
    let mut stranger = || owners.next().expect("there are more numbers");

    for (at, golden) in all.iter().enumerate() {
        assert_eq!(vocabulary.encode(&golden.prompt, false).as_ref(), Ok(&golden.tokens), "tokens of prompt {at}");
        let mut alone = begin(&generator, &golden.tokens, golden.answer.len(), stranger());
        alone.hear_all();
        let (finish, told) = expected(golden, golden.answer.len(), vocabulary.ends());
        assert_eq!((alone.told, alone.ended), (told, Some((finish, 0))), "prompt {at} alone");
    }

    // Twenty-four requests of other lengths, of which sixteen fit; each joins when those before it have said something more,
    // or have made room.
    let mut running: Vec<(usize, usize, Running)> = Vec::new();
    for at in 0..24 {
        let (which, most) = (at % all.len(), [48, 11, 30, 48][at % 4]);
        running.push((which, most, begin(&generator, &all[which].tokens, most, stranger())));
        for (_, _, other) in &mut running {
            if other.ended.is_none() && at < SLOTS {
                other.hear();
            }
        }
    }
    for (at, (which, most, mut one)) in running.into_iter().enumerate() {
        one.hear_all();
        let (finish, told) = expected(&all[which], most, vocabulary.ends());
        assert_eq!((one.told, one.ended), (told, Some((finish, 0))), "request {at}, prompt {which} among others");
    }

    // What one caller said before is in the cache, and goes on as if it had just been put in.
    let me = stranger();
    let long = &all[6];
    begin(&generator, &long.tokens[..500], 1, me).hear_all();
    let mut again = begin(&generator, &long.tokens, long.answer.len(), me);
    again.hear_all();
    let (finish, told) = expected(long, long.answer.len(), vocabulary.ends());
    assert_eq!((again.told, again.ended), (told, Some((finish, 500))), "after a prefix");
}
