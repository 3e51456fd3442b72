//! Many answers at once, by tiny models: each as if it were alone.

mod support;

use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use generate::{
    Event, Finish, Format, Generator, Limits, Message, Owner, Refusal, Request, Sampling, Sink, Template, Ticket,
    Tokens, Usage, Vocabulary,
};
use support::{MODELS, decoder, golden};

/// Every token is its own number in angle brackets; none ends an answer.
fn numbers() -> Tokens {
    let bytes = (0..384).map(|token| format!("<{token}>").into_bytes().into_boxed_slice());
    Tokens { bytes: bytes.collect(), ends: Vec::new() }
}

fn generator(model: &str, slots: usize, limits: Limits) -> Generator {
    Generator::start(decoder(model, slots), numbers(), limits).expect("a thread")
}

fn greedy(prompt: &[u32], max_tokens: usize) -> Request {
    Request {
        prompt: prompt.to_vec(),
        max_tokens,
        sampling: Sampling { temperature: 0.0, ..Sampling::default() },
        stops: Vec::new(),
        format: Format::Text,
        logprobs: None,
        owner: Owner(1),
    }
}

fn submit(generator: &Generator, request: Request) -> Result<(Ticket, Receiver<Event>), Refusal> {
    let (send, events) = channel();
    let ticket = generator.submit(request, Box::new(move |event| send.send(event).is_ok()))?;
    Ok((ticket, events))
}

/// What came of a request.
#[derive(Debug)]
struct Whole {
    tokens: Vec<u32>,
    text: String,
    finish: Finish,
    usage: Usage,
}

fn next(events: &Receiver<Event>) -> Event {
    // Only so that a test that waits in vain ends.
    events.recv_timeout(Duration::from_secs(60)).expect("an event")
}

fn whole(events: &Receiver<Event>) -> Whole {
    let (mut tokens, mut text) = (Vec::new(), String::new());
    loop {
        match next(events) {
            Event::Piece { text: more, token } => {
                text.push_str(&more);
                tokens.extend(token.map(|chosen| chosen.token));
            }
            Event::Finished { finish, usage, .. } => {
                assert!(events.recv().is_err(), "something came after the end");
                return Whole { tokens, text, finish, usage };
            }
            Event::Failed(reason) => panic!("{reason}"),
        }
    }
}

fn run(generator: &Generator, request: Request) -> Whole {
    let (_ticket, events) = submit(generator, request).expect("is taken");
    whole(&events)
}

#[test]
fn answers_are_those_of_the_graph_alone_whoever_joins_and_leaves() {
    for model in MODELS {
        for (slots, piece) in [(1, 5), (3, 5), (16, 512)] {
            let generator = generator(model, slots, Limits { waiting: 64, piece, piece_alone: 2 * piece });
            // Each prompt several times with answers of other lengths, so that rows leave at other steps than they joined. Every
            // one has an owner of its own: nothing is taken over from another.
            let requests = golden(model)
                .into_iter()
                .flat_map(|golden| [3, 17, 40].map(|most| (golden.tokens.clone(), golden.answer[..most].to_vec())));
            let begun: Vec<_> = requests
                .enumerate()
                .map(|(at, (prompt, answer))| {
                    let request = Request { owner: Owner(at as u64), ..greedy(&prompt, answer.len()) };
                    (submit(&generator, request).expect("is taken"), answer)
                })
                .collect();
            for (at, ((_ticket, events), answer)) in begun.iter().enumerate() {
                let got = whole(events);
                assert_eq!(&got.tokens, answer, "{model}, {slots} slots, request {at}");
                assert_eq!((got.finish, got.usage.completion, got.usage.cached), (Finish::Length, answer.len(), 0));
            }
            // Of 16 slots most are empty at the end, and those in use in the way: moved answers are among those above.
            assert!(generator.load().moves > 0 || slots < 16, "{model}, {slots} slots");
        }
    }
}

#[test]
fn the_same_seed_gives_the_same_answer_whatever_else_goes_on() {
    let generator = generator("tiny-qwen2", 8, Limits::default());
    let prompt = &golden("tiny-qwen2")[0].tokens;
    let drawn =
        |seed| Request { sampling: Sampling { seed, ..Sampling::default() }, owner: Owner(seed), ..greedy(prompt, 30) };
    let alone = run(&generator, drawn(7)).tokens;
    let crowd: Vec<_> = (100..110).map(|seed| submit(&generator, drawn(seed)).expect("is taken")).collect();
    assert_eq!(run(&generator, Request { owner: Owner(0), ..drawn(7) }).tokens, alone);
    let others: Vec<_> = crowd.iter().map(|(_, events)| whole(events).tokens).collect();
    assert!(others.iter().all(|other| *other != alone), "another seed gave the same answer");
}

#[test]
fn a_next_turn_goes_on_from_what_is_there_and_a_stranger_does_not() {
    let generator = generator("tiny-llama", 4, Limits::default());
    let prompt = &golden("tiny-llama")[6].tokens;
    let first = run(&generator, greedy(prompt, 20));
    assert_eq!(first.usage.cached, 0);
    let mut turn: Vec<u32> = prompt.iter().chain(&first.tokens).copied().collect();
    turn.extend([5, 6, 7]);
    let fresh = run(&generator, Request { owner: Owner(2), ..greedy(&turn, 10) });
    assert_eq!(fresh.usage.cached, 0, "another caller's conversation was used");
    let second = run(&generator, greedy(&turn, 10));
    // The last token of the first answer was told and never put in.
    assert_eq!(second.usage.cached, prompt.len() + 19);
    let load = generator.load();
    assert_eq!(load.prompt_tokens, (prompt.len() + 2 * turn.len()) as u64);
    assert_eq!((load.cached_tokens, load.generated_tokens), (second.usage.cached as u64, 20 + 10 + 10));
    assert_eq!(second.tokens, fresh.tokens);
}

#[test]
fn prompts_that_come_together_and_begin_alike_go_in_once() {
    let all = golden("tiny-llama");
    // Long enough for pieces and copies.
    let prompt: Vec<u32> = all[6].tokens.iter().chain(&all[6].answer[..30]).copied().collect();
    let (prompt, rest) = (prompt.as_slice(), &all[6].answer[30..]);
    let generator = generator("tiny-llama", 8, Limits { piece: 5, piece_alone: 5, ..Limits::default() });
    // The generator stands in the first piece of another answer until all have come.
    let (open, gate) = channel::<()>();
    let first = greedy(&all[0].tokens, 200);
    let sink = Box::new(move |_| gate.recv().is_err());
    let _first = generator.submit(Request { owner: Owner(9), ..first }, sink).expect("is taken");
    let four: Vec<_> = (0..4).map(|_| submit(&generator, greedy(prompt, rest.len())).expect("is taken")).collect();
    // Of the same caller, and only the beginning is the same.
    let other: Vec<u32> = prompt[..30].iter().chain(&[5, 6, 7]).copied().collect();
    let other = submit(&generator, greedy(&other, 20)).expect("is taken");
    let stranger = submit(&generator, Request { owner: Owner(2), ..greedy(prompt, rest.len()) }).expect("is taken");
    drop(open);
    let four: Vec<_> = four.iter().map(|(_, events)| whole(events)).collect();
    let cached: Vec<usize> = four.iter().map(|whole| whole.usage.cached).collect();
    let all_but_one = prompt.len() - 1;
    assert_eq!(cached, [0, all_but_one, all_but_one, all_but_one]);
    // It may go before those that are longer, when what is still to come of the beginning is not worth a copy any more.
    let other = whole(&other.1).usage.cached;
    assert!((15..=30).contains(&other), "{other}");
    let stranger = whole(&stranger.1);
    assert_eq!(stranger.usage.cached, 0);
    for one in &four {
        assert_eq!(one.tokens, stranger.tokens, "as worked out");
    }
    assert_eq!(stranger.tokens, rest);
    assert_eq!(generator.load().cached_tokens, (3 * all_but_one + other) as u64);
}

#[test]
fn a_stop_text_ends_the_answer_and_is_no_part_of_it() {
    let generator = generator("tiny-qwen2", 2, Limits::default());
    let golden = &golden("tiny-qwen2")[0];
    let (before, at) = (&golden.answer[..4], &golden.answer[4..6]);
    // From the middle of one token's text to the middle of the next one's.
    let stop = format!("{}><{}", at[0], &at[1].to_string()[..1]);
    let request = Request { stops: vec!["nowhere".to_owned(), stop], ..greedy(&golden.tokens, 40) };
    let got = run(&generator, request);
    let text: String = before.iter().map(|token| format!("<{token}>")).collect();
    assert_eq!((got.text, got.finish), (format!("{text}<"), Finish::Stop(1)));
    assert_eq!(got.usage.completion, 6);
}

#[test]
fn the_end_token_ends_the_answer() {
    let golden = &golden("tiny-llama")[1];
    let end = golden.answer.iter().copied().find(|token| *token != golden.answer[0]).expect("another token");
    let length = golden.answer.iter().position(|token| *token == end).expect("there");
    let tokens = Tokens { ends: vec![end], ..numbers() };
    let generator = Generator::start(decoder("tiny-llama", 2), tokens, Limits::default()).expect("a thread");
    let got = run(&generator, greedy(&golden.tokens, 40));
    assert_eq!((got.finish, got.tokens.as_slice()), (Finish::End, &golden.answer[..length]));
    assert_eq!(got.usage.completion, length + 1);
}

#[test]
fn who_leaves_frees_the_slot_wherever_the_request_is() {
    let generator = generator("tiny-llama", 1, Limits { waiting: 1, ..Limits::default() });
    let long = greedy(&golden("tiny-llama")[0].tokens, 200);
    // The generator stands in the first piece until the gate opens: a tiny model is at its end before another can be asked.
    let (open, gate) = channel::<()>();
    let (send, events) = channel();
    let sink = move |event| send.send(event).is_ok() && gate.recv().is_err();
    let running = generator.submit(long.clone(), Box::new(sink)).expect("is taken");
    assert!(matches!(next(&events), Event::Piece { .. }));
    let (waiting, quiet) = submit(&generator, long.clone()).expect("one may wait");
    let refused = submit(&generator, long.clone()).expect_err("and no more");
    assert_eq!(refused, Refusal::Full { waiting: 1, limit: 1 });
    drop(waiting);
    drop(running);
    drop(open);
    // The slot is free within a turn: the next one is answered though its predecessors had two hundred tokens to go.
    let retry = || submit(&generator, greedy(&long.prompt, 3));
    let (_ticket, after) = std::iter::repeat_with(retry).find_map(Result::ok).expect("there is room again");
    assert_eq!(whole(&after).tokens.len(), 3);
    assert!(quiet.try_iter().next().is_none(), "who left the queue is told nothing");
    assert_eq!(generator.load().waiting, 0);
}

fn wait_until(mut is_so: impl FnMut() -> bool) {
    while !is_so() {
        std::thread::yield_now();
    }
}

/// A sink that lets the generator go on only when what is returned is gone.
fn gate() -> (Sender<()>, Sink) {
    let (open, gate) = channel::<()>();
    (open, Box::new(move |_| gate.recv().is_err()))
}

#[test]
fn who_leaves_the_queue_is_counted_no_more_at_once() {
    let generator = generator("tiny-llama", 1, Limits { waiting: 2, ..Limits::default() });
    let long = greedy(&golden("tiny-llama")[0].tokens, 200);
    let (open, sink) = gate();
    let _running = generator.submit(long.clone(), sink).expect("is taken");
    wait_until(|| generator.load().busy > 0);
    // The generator stands in its turn all the time.
    for _ in 0..100 {
        let (waiting, quiet) = submit(&generator, long.clone()).expect("nobody waits");
        let _other = submit(&generator, long.clone()).expect("one waits");
        assert_eq!(generator.load().waiting, 2);
        drop(waiting);
        assert_eq!(generator.load().waiting, 1);
        assert!(quiet.recv().is_err(), "its sink is gone");
    }
    assert_eq!(generator.load().waiting, 0);
    drop(open);
}

#[test]
fn answers_that_belong_together_are_taken_all_or_none() {
    let generator = generator("tiny-llama", 2, Limits { waiting: 2, ..Limits::default() });
    let all = |answers: usize, tokens: usize| {
        let (send, events) = channel();
        let one = |_| {
            let send = send.clone();
            let sink: Sink = Box::new(move |event| send.send(event).is_ok());
            (greedy(&golden("tiny-llama")[0].tokens, tokens), sink)
        };
        let tickets = generator.submit_all(Owner(1), (0..answers).map(one).collect());
        tickets.map(|tickets| (tickets, events))
    };
    let refused = |answers| all(answers, 3).expect_err("is refused");
    assert_eq!(refused(5), Refusal::TooMany { wanted: 5, most: 4 });
    let (open, sink) = gate();
    let running = generator.submit(greedy(&golden("tiny-llama")[0].tokens, 200), sink).expect("is taken");
    wait_until(|| generator.load().busy > 0);
    assert!(matches!(refused(4), Refusal::Full { .. }), "three fit");
    assert_eq!(generator.load().waiting, 0, "none of the four waits");
    let (tickets, events) = all(3, 3).expect("they fit");
    assert_eq!((tickets.len(), generator.load().waiting), (3, 3));
    drop((open, running));
    let ended = std::iter::from_fn(|| Some(next(&events))).filter(|event| matches!(event, Event::Finished { .. }));
    assert_eq!(ended.take(3).count(), 3);
}

#[test]
fn whose_many_wait_does_not_keep_others_waiting() {
    let generator = generator("tiny-llama", 1, Limits::default());
    let (prompt, (open, sink)) = (&golden("tiny-llama")[0].tokens, gate());
    let _running = generator.submit(greedy(prompt, 1), sink).expect("is taken");
    wait_until(|| generator.load().busy > 0);
    let (send, ended) = channel();
    let submit = |owner: u64| {
        let send = send.clone();
        let told = move |event| !matches!(event, Event::Finished { .. }) || send.send(owner).is_ok();
        generator.submit(Request { owner: Owner(owner), ..greedy(prompt, 2) }, Box::new(told)).expect("is taken")
    };
    let _tickets: Vec<_> = [1, 1, 1, 1, 2, 3, 2].map(submit).into();
    drop(open);
    let order: Vec<u64> = (0..7).map(|_| ended.recv_timeout(Duration::from_secs(60)).expect("it ends")).collect();
    assert_eq!(order, [1, 2, 3, 1, 2, 1, 1]);
}

#[test]
fn a_turn_that_panics_fails_what_was_in_work_and_the_next_go_on() {
    let generator = generator("tiny-llama", 2, Limits::default());
    let golden = &golden("tiny-llama")[0];
    let (open, gate) = channel::<()>();
    let panics = Box::new(move |_| {
        let _ = gate.recv();
        panic!("a defect")
    });
    let _broken = generator.submit(greedy(&golden.tokens, 10), panics).expect("is taken");
    let (_victim, events) = submit(&generator, greedy(&golden.tokens, 10)).expect("is taken");
    let (_waiting, next_one) = submit(&generator, greedy(&golden.tokens, 10)).expect("may wait");
    drop(open);
    // In work or not, when it happened: whoever is not failed gets the right tokens.
    let first = events.recv_timeout(Duration::from_secs(60)).expect("it is told");
    assert!(matches!(&first, Event::Failed(_) | Event::Piece { .. }), "{first:?}");
    assert_eq!(whole(&next_one).tokens, golden.answer[..10]);
    assert_eq!(run(&generator, greedy(&golden.tokens, 10)).tokens, golden.answer[..10]);
    wait_until(|| generator.load().busy == 0);
    assert_eq!(generator.load().waiting, 0);
}

#[test]
fn a_turn_tells_when_it_began() {
    let generator = generator("tiny-llama", 1, Limits::default());
    assert_eq!(generator.turn_began(), None);
    let (open, sink) = gate();
    let before = std::time::Instant::now();
    let _running = generator.submit(greedy(&golden("tiny-llama")[0].tokens, 1), sink).expect("is taken");
    let began = std::iter::repeat_with(|| generator.turn_began()).find_map(|began| began).expect("it stands in a turn");
    assert!(began >= before && began <= std::time::Instant::now());
    assert_eq!(generator.turn_began(), Some(began), "it still does");
    drop(open);
    wait_until(|| generator.turn_began().is_none());
}

#[test]
fn what_cannot_fit_is_refused_with_the_numbers() {
    let generator = generator("tiny-llama", 1, Limits::default());
    let refused = |request| submit(&generator, request).expect_err("does not fit").to_string();
    let long = refused(greedy(&[1; 200], 57));
    assert_eq!(long, "200 tokens of prompt and 57 of answer are more than the context of 256 tokens");
    assert!(refused(greedy(&[], 1)).contains("no tokens"));
    assert!(refused(greedy(&[1], 0)).contains("no tokens"));
    assert_eq!(run(&generator, greedy(&[1; 200], 56)).finish, Finish::Length, "to the very end of the slot");
}

#[test]
fn log_probabilities_come_with_their_tokens() {
    let generator = generator("tiny-llama", 1, Limits::default());
    let request = Request { logprobs: Some(2), ..greedy(&golden("tiny-llama")[0].tokens, 5) };
    let (_ticket, events) = submit(&generator, request).expect("is taken");
    let pieces: Vec<_> = events.iter().collect();
    let chosen = pieces.iter().filter_map(|event| match event {
        Event::Piece { token, .. } => token.as_ref(),
        _ => None,
    });
    for chosen in chosen.clone() {
        assert_eq!(chosen.top.len(), 2);
        assert_eq!(chosen.top[0], (chosen.token, chosen.logprob), "the likeliest was taken");
        assert!(chosen.top[1].1 <= chosen.logprob && chosen.logprob < 0.0, "{chosen:?}");
    }
    assert_eq!(chosen.count(), 5);
}

#[test]
fn text_goes_in_and_text_comes_out() {
    for model in MODELS {
        let folder = support::folder(model);
        let vocabulary = Vocabulary::open(&folder).unwrap_or_else(|error| panic!("{error}"));
        let template = Template::open(&folder).unwrap_or_else(|error| panic!("{error}")).expect("the model has one");
        let generator = Generator::start(decoder(model, 2), vocabulary.tokens(), Limits::default()).expect("a thread");
        for golden in golden(model) {
            let prompt = vocabulary.encode(&golden.prompt, true).expect("is text");
            assert_eq!(prompt, golden.tokens, "{model}, {:?}", golden.prompt);
            let got = run(&generator, greedy(&prompt, 40));
            assert_eq!((got.tokens, got.text), (golden.answer, golden.text), "{model}, {:?}", golden.prompt);
        }
        let message = Message { role: "user".to_owned(), content: "Ask it".to_owned(), name: None };
        let text = template.render(&[message]).expect("renders");
        assert_eq!(text, "<|im_start|>user\nAsk it<|im_end|>\n<|im_start|>assistant\n");
        let tokens = vocabulary.encode(&text, false).expect("is text");
        let end = vocabulary.ends()[0];
        assert_eq!(
            tokens.iter().filter(|token| **token == end).count(),
            1,
            "the template's own tokens are one token each"
        );
        assert_eq!(vocabulary.bytes(end), b"", "they are no text");
    }
}
