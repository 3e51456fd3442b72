//! Callers that stream chats over HTTP, each its next one as soon as the last has ended.
//!
//! chat_load ADDRESS MODEL STREAMS REQUESTS MAX_TOKENS FILE [FIELDS]
//!
//! FILE has a question on each line, taken in turn; `{}` in it becomes a number that no other request has, so that nothing behind
//! it is in anybody's cache of prompts. Lengths lie between half of MAX_TOKENS and MAX_TOKENS, so that streams join and leave at
//! other times. FIELDS is JSON that is added to each request's body, such as `"temperature":0`.
//! Prints `idle` as soon as the first stream has no more to ask, and at the end one line of JSON: requests, prompt_tokens, tokens and
//! seconds in all; busy_tokens and tokens_per_second while every stream was busy, which is until `idle`; first_ms (median),
//! first_mean_ms and first_p99_ms (to the first text of an answer), gap_ms and gap_p99_ms (between two pieces of text of one answer),
//! faults (answers that did not end as they should).

use std::io::{BufRead as _, BufReader};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

/// What one caller saw.
#[derive(Default)]
struct Seen {
    first: Vec<Duration>,
    gaps: Vec<Duration>,
    /// When pieces of text came. Each is one token, but for those that are no text by themselves.
    pieces: Vec<Instant>,
    prompt_tokens: u64,
    tokens: u64,
    faults: u64,
}

fn main() {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [address, model, streams, requests, most, file, rest @ ..] = words.as_slice() else {
        eprintln!("chat_load ADDRESS MODEL STREAMS REQUESTS MAX_TOKENS FILE [FIELDS]");
        std::process::exit(2);
    };
    let number = |text: &String| text.parse::<usize>().expect("a count is a number");
    let (streams, requests, most) = (number(streams), number(requests), number(most));
    let questions = std::fs::read_to_string(file).expect("the file can be read");
    let questions: Vec<&str> = questions.lines().filter(|line| !line.is_empty()).collect();
    let fields: Value =
        serde_json::from_str(&format!("{{{}}}", rest.first().map_or("", String::as_str))).expect("JSON");
    let next = AtomicUsize::new(0);
    let first_idle = OnceLock::new();
    let since = SystemTime::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_millis() as usize);
    let body = |at: usize| {
        // Six digits, always.
        let number = (100_000 + (since + at) % 900_000).to_string();
        let mut body = json!({
            "model": model,
            "messages": [{"role": "user", "content": questions[at % questions.len()].replace("{}", &number)}],
            // 7 has no factor in common with 16: lengths in no order.
            "max_tokens": most / 2 + (most / 2) * (at * 7 % 16) / 15,
            "stream": true,
            "stream_options": {"include_usage": true},
        });
        for (name, value) in fields.as_object().expect("an object") {
            body[name] = value.clone();
        }
        body.to_string()
    };
    let begin = Instant::now();
    let seen: Vec<Seen> = std::thread::scope(|scope| {
        let caller = || {
            let mut seen = Seen::default();
            loop {
                let at = next.fetch_add(1, Ordering::Relaxed);
                if at >= requests {
                    first_idle.get_or_init(|| {
                        println!("idle");
                        Instant::now()
                    });
                    return seen;
                }
                chat(address, &body(at), &mut seen);
            }
        };
        let callers: Vec<_> = (0..streams).map(|_| scope.spawn(caller)).collect();
        callers.into_iter().map(|caller| caller.join().expect("no panic")).collect()
    });
    let seconds = begin.elapsed().as_secs_f64();
    let sorted = |of: fn(&Seen) -> &Vec<Duration>| {
        let mut all: Vec<f64> = seen.iter().flat_map(of).map(|time| time.as_secs_f64() * 1e3).collect();
        all.sort_unstable_by(f64::total_cmp);
        all
    };
    let at = |all: &[f64], share: f64| {
        all.get((all.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
    };
    let (first, gaps) = (sorted(|seen| &seen.first), sorted(|seen| &seen.gaps));
    let full = *first_idle.get_or_init(Instant::now);
    let pieces = seen.iter().flat_map(|seen| &seen.pieces).filter(|at| **at <= full).count();
    let per_second = pieces as f64 / (full - begin).as_secs_f64();
    let tokens: u64 = seen.iter().map(|seen| seen.tokens).sum();
    let prompt_tokens: u64 = seen.iter().map(|seen| seen.prompt_tokens).sum();
    let faults: u64 = seen.iter().map(|seen| seen.faults).sum();
    println!(
        "{{\"requests\": {requests}, \"prompt_tokens\": {prompt_tokens}, \"tokens\": {tokens}, \"seconds\": {seconds:.3}, \
         \"busy_tokens\": {pieces}, \"tokens_per_second\": {per_second:.2}, \"first_ms\": {:.2}, \"first_mean_ms\": {:.2}, \
         \"first_p99_ms\": {:.2}, \"gap_ms\": {:.2}, \"gap_p99_ms\": {:.2}, \"faults\": {faults}}}",
        at(&first, 0.5),
        first.iter().sum::<f64>() / first.len().max(1) as f64,
        at(&first, 0.99),
        at(&gaps, 0.5),
        at(&gaps, 0.99),
    );
}

/// One chat from its request to `[DONE]`, on a connection of its own.
fn chat(address: &str, body: &str, seen: &mut Seen) {
    // Not kept: each chat has its first token on a connection that is new, with the others' as well as with ours.
    let agent: ureq::Agent =
        ureq::Agent::config_builder().max_idle_connections(0).http_status_as_error(false).build().into();
    let sent = Instant::now();
    let request =
        agent.post(format!("http://{address}/v1/chat/completions")).header("content-type", "application/json");
    let Ok(mut answer) = request.send(body) else {
        seen.faults += 1;
        return;
    };
    let (mut last, mut tokens, mut done) = (None, None, false);
    let mut prompt = 0;
    for line in BufReader::new(answer.body_mut().as_reader()).lines() {
        let Ok(line) = line else { break };
        let Some(data) = line.strip_prefix("data: ") else { continue };
        if data == "[DONE]" {
            done = true;
            break;
        }
        let event: Value = serde_json::from_str(data).expect("an event is JSON");
        if event["choices"][0]["delta"]["content"].as_str().is_some_and(|text| !text.is_empty()) {
            let now = Instant::now();
            seen.pieces.push(now);
            match last.replace(now) {
                None => seen.first.push(now - sent),
                Some(before) => seen.gaps.push(now - before),
            }
        }
        tokens = event["usage"]["completion_tokens"].as_u64().or(tokens);
        prompt = event["usage"]["prompt_tokens"].as_u64().unwrap_or(prompt);
    }
    match (done, tokens) {
        (true, Some(tokens)) => {
            seen.tokens += tokens;
            seen.prompt_tokens += prompt;
        }
        _ => seen.faults += 1,
    }
}
