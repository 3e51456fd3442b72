//! The runtime's decoder on tiny models: the tokens of the graph run alone, whatever else is in the cache.

mod support;

use std::path::Path;

use runtime::{Blueprint, CachePlace, Decoder, Next, SessionOptions, Stop};
use support::{MODELS, decoder, decoder_with, golden, library};

fn likeliest(logits: &[f32]) -> u32 {
    let best = logits.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1).then(b.0.cmp(&a.0)));
    best.map(|(token, _)| token as u32).expect("there are logits")
}

/// Greedy tokens of one slot, the prompt put in by pieces of `chunk`.
fn alone(decoder: &mut Decoder, slot: usize, prompt: &[u32], chunk: usize, count: usize) -> Vec<u32> {
    let stop = Stop::new();
    let (mut past, mut told) = (0, Vec::new());
    for piece in prompt.chunks(chunk) {
        let token = decoder.prefill(slot, past, piece, 1, &stop, |logits| likeliest(logits.row(0))).expect("runs");
        past += piece.len();
        told = vec![token];
    }
    while told.len() < count {
        let next = [Next { token: told[told.len() - 1], past }];
        told.push(decoder.step(slot, &next, &stop, |logits| likeliest(logits.row(0))).expect("runs"));
        past += 1;
    }
    told
}

#[test]
fn the_numbers_are_read_from_the_graph() {
    let decoder = decoder("tiny-llama", 3);
    let spec = decoder.spec();
    assert_eq!((spec.layers, spec.kv_heads, spec.head_size, spec.vocabulary), (2, 2, 16, 384));
    assert_eq!((spec.token_bytes(), decoder.slots(), decoder.context()), (2 * 2 * 2 * 16 * 4, 3, 256));
}

#[test]
fn tokens_are_those_of_the_graph_run_alone_however_the_prompt_is_cut() {
    for model in MODELS {
        let mut decoder = decoder(model, 3);
        for (at, golden) in golden(model).iter().enumerate() {
            for chunk in [1, 7, 64] {
                let told = alone(&mut decoder, at % 3, &golden.tokens, chunk, golden.answer.len());
                assert_eq!(told, golden.answer, "{model}, prompt {at} in pieces of {chunk}");
            }
        }
    }
}

#[test]
fn rows_join_and_leave_and_nobodys_tokens_change() {
    for model in MODELS {
        let (mut decoder, all, stop) = (decoder(model, 8), golden(model), Stop::new());
        let mut told: Vec<Vec<u32>> = vec![Vec::new(); 8];
        let mut past = [0_usize; 8];
        // Slot n joins at step 3n and has as many tokens to say as its golden answer; until then, and afterwards, it idles.
        for step in 0.. {
            if step % 3 == 0 && step / 3 < 8 {
                let slot = step / 3;
                let prompt = &all[slot].tokens;
                let (first, last) = prompt.split_at(prompt.len() / 2);
                if !first.is_empty() {
                    decoder.prefill(slot, 0, first, 1, &stop, |_| ()).expect("runs");
                }
                let token = decoder.prefill(slot, first.len(), last, 1, &stop, |logits| likeliest(logits.row(0)));
                told[slot].push(token.expect("runs"));
                past[slot] = prompt.len();
            }
            let going: Vec<bool> =
                (0..8).map(|slot| !told[slot].is_empty() && told[slot].len() < all[slot].answer.len()).collect();
            if !going.contains(&true) {
                break;
            }
            let next: Vec<Next> = (0..8)
                .map(|slot| Next { token: told[slot].last().copied().unwrap_or_default(), past: past[slot] })
                .collect();
            let tokens = decoder.step(0, &next, &stop, |logits| {
                assert_eq!(logits.rows(), 8);
                (0..8).map(|row| likeliest(logits.row(row))).collect::<Vec<_>>()
            });
            for (slot, token) in tokens.expect("runs").into_iter().enumerate().filter(|(slot, _)| going[*slot]) {
                told[slot].push(token);
                past[slot] += 1;
            }
        }
        for (slot, golden) in all.iter().enumerate() {
            assert_eq!(told[slot], golden.answer, "{model}, slot {slot}");
        }
    }
}

/// Weights of 8 bit: which rows run together, and on what processor, may change how their products are rounded. With the answer's
/// own tokens put in, another token may come out only where the two likeliest are about as near to each other as that.
#[test]
fn eight_bit_weights_differ_only_where_it_was_a_toss_up() {
    const NEAR: f32 = 0.02;
    let (mut decoder, all, stop) = (decoder("tiny-llama-int8", 8), golden("tiny-llama-int8"), Stop::new());
    let mut clear = 0;
    let mut check = |slot: usize, at: usize, token: u32| {
        let golden = &all[slot];
        let same = token == golden.answer[at];
        assert!(same || golden.gaps[at] < NEAR, "slot {slot}, token {at}: {token}, not {}", golden.answer[at]);
        clear += usize::from(golden.gaps[at] >= NEAR);
    };
    for (slot, golden) in all.iter().enumerate() {
        let mut past = 0;
        for piece in golden.tokens.chunks(5) {
            let token = decoder.prefill(slot, past, piece, 1, &stop, |logits| likeliest(logits.row(0)));
            past += piece.len();
            if past == golden.tokens.len() {
                check(slot, 0, token.expect("runs"));
            }
        }
    }
    for at in 1..all[0].answer.len() {
        let next: Vec<Next> = all
            .iter()
            .map(|golden| Next { token: golden.answer[at - 1], past: golden.tokens.len() + at - 1 })
            .collect();
        let tokens = decoder.step(0, &next, &stop, |logits| (0..8).map(|row| likeliest(logits.row(row))).collect());
        let tokens: Vec<u32> = tokens.expect("runs");
        tokens.into_iter().enumerate().for_each(|(slot, token)| check(slot, at, token));
    }
    assert!(clear > 250, "only {clear} of 320 tokens say anything");
}

#[test]
fn a_copied_prefix_goes_on_as_the_original() {
    let (mut decoder, all, stop) = (decoder("tiny-llama", 4), golden("tiny-llama"), Stop::new());
    let golden = &all[6];
    let (shared, rest) = golden.tokens.split_at(golden.tokens.len() - 5);
    decoder.prefill(0, 0, shared, 1, &stop, |_| ()).expect("runs");
    decoder.copy(0, 3, shared.len()).expect("copies");
    let told = decoder.prefill(3, shared.len(), rest, 0, &stop, |logits| {
        assert_eq!(logits.rows(), rest.len(), "all were asked for");
        likeliest(logits.row(rest.len() - 1))
    });
    assert_eq!(told.expect("runs"), golden.answer[0]);
}

/// As on a device, where the cache is memory of the session's allocator and slots are copied by a graph.
#[test]
fn a_cache_of_the_sessions_allocator_holds_the_same() {
    for model in MODELS {
        let (all, stop) = (golden(model), Stop::new());
        let mut decoder = decoder_with(model, 4, CachePlace::Allocator);
        for (at, golden) in all.iter().enumerate() {
            let told = alone(&mut decoder, at % 3, &golden.tokens, 7, golden.answer.len());
            assert_eq!(told, golden.answer, "{model}, prompt {at}");
        }
        let golden = &all[6];
        let (shared, rest) = golden.tokens.split_at(golden.tokens.len() - 5);
        decoder.prefill(0, 0, shared, 1, &stop, |_| ()).expect("runs");
        for (from, to) in [(0, 3), (3, 1)] {
            decoder.copy(from, to, shared.len()).expect("copies");
        }
        for slot in [1, 3, 0] {
            let told = decoder.prefill(slot, shared.len(), rest, 1, &stop, |logits| likeliest(logits.row(0)));
            assert_eq!(told.expect("runs"), golden.answer[0], "{model}, slot {slot}");
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_and_changes_nothing() {
    let (mut decoder, all, stop) = (decoder("tiny-llama", 2), golden("tiny-llama"), Stop::new());
    let next = Next { token: 1, past: 256 };
    for error in [
        decoder.prefill(2, 0, &[1], 1, &stop, |_| ()).expect_err("no such slot"),
        decoder.prefill(0, 250, &[1; 7], 1, &stop, |_| ()).expect_err("beyond the context"),
        decoder.prefill(0, 0, &[], 1, &stop, |_| ()).expect_err("nothing"),
        decoder.step(0, &[next], &stop, |_| ()).expect_err("beyond the context"),
        decoder.step(1, &[Next { past: 0, ..next }; 2], &stop, |_| ()).expect_err("no such slots"),
    ] {
        assert!(error.to_string().contains("do not fit 2 slots of 256"), "{error}");
    }
    let unknown = decoder.prefill(0, 0, &[100_000], 1, &stop, |_| ()).expect_err("no such token");
    assert!(unknown.to_string().contains("index") || unknown.to_string().contains("range"), "{unknown}");
    let golden = &all[0];
    assert_eq!(alone(&mut decoder, 1, &golden.tokens, 64, golden.answer.len()), golden.answer);
}

#[test]
fn a_graph_that_is_no_decoder_says_what_is_missing() {
    let echo = Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/testdata/echo_f32.onnx");
    let session = Blueprint::open(library(), echo).expect("there").session(&SessionOptions::default()).expect("loads");
    let error = Decoder::spec_of(&session).expect_err("an echo is no decoder");
    assert!(error.contains("GroupQueryAttention"), "{error}");
}
