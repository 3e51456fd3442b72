//! How many tokens a second a model gives to so many answers at once, without any server around it.
//!
//! tokens_per_second FOLDER STREAMS TOKENS [THREADS [spread | json]]
//!
//! FOLDER is a model in Hugging Face's layout. Every stream gets the same prompt of 64 tokens and gives TOKENS greedy ones; with
//! `spread` the lengths lie evenly between TOKENS and a share of it, in no order, so that streams leave holes; with
//! `json` they are held to an array of TOKENS and more objects. Prints one line of
//! JSON; `decode_per_second` counts from the moment when all streams have their first token.

use std::sync::mpsc::channel;
use std::time::Instant;

use generate::{Event, Format, Generator, Limits, Owner, Request, Sampling, Tokens, Vocabulary};
use runtime::{Blueprint, Decoder, DeviceWish, LibraryChoice, Runtime, SessionOptions};

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [folder, streams, tokens, rest @ ..] = words.as_slice() else {
        eprintln!("tokens_per_second FOLDER STREAMS TOKENS [THREADS [spread | json]]");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a count is a number");
    let (streams, tokens) = (number(streams), number(tokens));
    let json = rest.get(1).is_some_and(|word| word == "json");
    let format = if json {
        Format::JsonSchema(format!(
            "{{\"type\": \"array\", \"items\": {{\"type\": \"object\", \"required\": [\"name\"]}}, \"minItems\": {tokens}}}"
        ))
    } else {
        Format::Text
    };
    let vocabulary = json.then(|| Vocabulary::open(folder.as_ref()).expect("it has a tokeniser"));
    let known = vocabulary.map_or_else(Tokens::default, |vocabulary| vocabulary.tokens());
    let spread = rest.get(1).is_some_and(|word| word == "spread");
    // 7 has no factor in common with 16, 8 or 4: each stream gets another share.
    let length = |stream: usize| if spread { (tokens * (stream * 7 % streams + 1)).div_ceil(streams) } else { tokens };
    let runtime = Runtime::load(&LibraryChoice::Search).unwrap_or_else(|error| panic!("{error}"));
    let options = SessionOptions {
        wish: DeviceWish::Cpu,
        intra_threads: rest.first().map_or(0, number),
        ..SessionOptions::default()
    };
    let blueprint = Blueprint::open(runtime, format!("{folder}/onnx/model.onnx")).expect("there is a model");
    let session = blueprint.session(&options).expect("the model loads");
    let decoder = Decoder::new(session, streams, 64 + tokens).expect("it is a decoder");
    let generator = Generator::start(decoder, known, Limits::default()).expect("a thread");
    let (send, events) = channel();
    let begin = Instant::now();
    let tickets: Vec<_> = (0..streams)
        .map(|stream| {
            let send = send.clone();
            let request = Request {
                prompt: (0..64).map(|at| 1000 + (at * 37) % 500).collect(),
                max_tokens: length(stream),
                sampling: Sampling { temperature: 0.0, ..Sampling::default() },
                stops: Vec::new(),
                format: format.clone(),
                logprobs: None,
                owner: Owner(stream as u64),
            };
            generator.submit(request, Box::new(move |event| send.send((stream, event)).is_ok())).expect("is taken")
        })
        .collect();
    let (mut told, mut ended, mut all_began, mut after) = (vec![0_usize; streams], 0, None, 0);
    while ended < streams {
        match events.recv().expect("the generator lives") {
            (stream, Event::Piece { .. }) => {
                told[stream] += 1;
                if all_began.is_some() {
                    after += 1;
                } else if told.iter().all(|count| *count > 0) {
                    all_began = Some(Instant::now());
                }
            }
            (_, Event::Finished { .. }) => ended += 1,
            (_, Event::Failed(reason)) => panic!("{reason}"),
        }
    }
    drop(tickets);
    let (all, decode) = (begin.elapsed(), all_began.map_or(begin.elapsed(), |began| began.elapsed()));
    println!(
        "{{\"streams\": {streams}, \"per_second\": {:.1}, \"decode_per_second\": {:.1}, \"first_tokens_ms\": {:.0}}}",
        told.iter().sum::<usize>() as f64 / all.as_secs_f64(),
        after as f64 / decode.as_secs_f64(),
        (all - decode).as_secs_f64() * 1e3
    );
}
