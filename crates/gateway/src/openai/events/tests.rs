use idl::chat::TokenLogprob;
use serde_json::{Value, json};

use super::*;

fn head(form: Form, include_usage: bool) -> Head {
    Head { created: 7, ..Head::new(form, "request-1", "m".to_owned(), "3", include_usage) }
}

fn piece(index: i32, text: &str, finish: Option<FinishReason>) -> Piece {
    Piece { index: Some(index), text: Some(text.to_owned()), finish, ..Piece::default() }
}

/// The values of the events; `[DONE]` as a text.
fn values(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).expect("events are text");
    assert!(text.is_empty() || text.ends_with("\n\n"), "{text:?}");
    let event = |event: &str| {
        let data = event.strip_prefix("data: ").expect("an event has data");
        serde_json::from_str(data).unwrap_or_else(|_| Value::from(data))
    };
    text.split_terminator("\n\n").map(event).collect()
}

fn written(events: &mut Events, pieces: &[Piece]) -> Vec<Value> {
    let mut out = events.opening();
    for piece in pieces {
        events.piece(piece, &mut out).expect("a good piece");
    }
    events.end(&mut out).expect("the end");
    values(&out)
}

#[test]
fn a_chat_is_told_as_openai_tells_it() {
    let mut events = Events::new(head(Form::Chat, true), 1, None);
    let usage = Usage { prompt_tokens: Some(5), completion_tokens: Some(2), cached_tokens: Some(4) };
    let last = Piece { usage: Some(usage), ..piece(0, "", Some(FinishReason::LENGTH)) };
    let chunks = written(&mut events, &[piece(0, "Hel", None), piece(0, "", None), piece(0, "lo\n", None), last]);
    let chunk = |choices: Value, usage: Value| {
        json!({"id": "chatcmpl-request-1", "object": "chat.completion.chunk", "created": 7, "model": "m",
               "system_fingerprint": "fp_3", "choices": choices, "usage": usage})
    };
    let choice = |delta: Value, reason: Value| {
        chunk(json!([{"index": 0, "delta": delta, "logprobs": null, "finish_reason": reason}]), Value::Null)
    };
    let usage = json!({"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7,
                       "prompt_tokens_details": {"cached_tokens": 4}});
    let expected = [
        choice(json!({"role": "assistant", "content": ""}), Value::Null),
        choice(json!({"content": "Hel"}), Value::Null),
        choice(json!({"content": "lo\n"}), Value::Null),
        choice(json!({}), "length".into()),
        chunk(json!([]), usage),
        "[DONE]".into(),
    ];
    assert_eq!(chunks, expected);
}

#[test]
fn usage_is_told_only_to_those_who_ask() {
    for form in [Form::Chat, Form::Completion] {
        let mut events = Events::new(head(form, false), 1, None);
        let chunks = written(&mut events, &[piece(0, "x", Some(FinishReason::STOP))]);
        assert!(chunks.iter().all(|chunk| chunk.get("usage").is_none()), "{chunks:?}");
        assert_eq!(chunks.last(), Some(&"[DONE]".into()));
    }
}

#[test]
fn each_of_several_answers_has_its_own_beginning_and_end() {
    let mut events = Events::new(head(Form::Chat, false), 2, None);
    let stop = Some(FinishReason::STOP);
    let chunks = written(&mut events, &[piece(1, "b", None), piece(0, "a", stop), piece(1, "", stop)]);
    let seen: Vec<_> = chunks
        .iter()
        .filter_map(|chunk| chunk["choices"].get(0))
        .map(|choice| (choice["index"].as_i64(), choice["delta"]["content"].as_str(), choice["finish_reason"].as_str()))
        .collect();
    let (a, b) = (Some(0), Some(1));
    let expected = [
        (a, Some(""), None),
        (b, Some(""), None),
        (b, Some("b"), None),
        (a, Some("a"), None),
        (a, None, Some("stop")),
        (b, None, Some("stop")),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn a_completion_is_text_with_offsets_that_go_on() {
    let mut events = Events::new(head(Form::Completion, false), 1, Some("once ".to_owned()));
    let token = |text: &str| TokenLogprob {
        text: Some(text.to_owned()),
        logprob: Some((-0.5).into()),
        ..TokenLogprob::default()
    };
    let with = |text: &str| Piece { logprobs: Some(vec![token(text)]), ..piece(0, text, None) };
    let chunks = written(&mut events, &[with("\u{e9}a"), with("b"), piece(0, "", Some(FinishReason::STOP))]);
    let seen: Vec<_> =
        chunks.iter().filter_map(|chunk| chunk["choices"].get(0)).map(|choice| &choice["text"]).collect();
    assert_eq!(seen, ["once ", "\u{e9}a", "b", ""]);
    let logprobs = |chunk: usize| &chunks[chunk]["choices"][0]["logprobs"];
    assert_eq!(
        *logprobs(1),
        json!({"tokens": ["\u{e9}a"], "token_logprobs": [-0.5], "top_logprobs": [{"\u{e9}a": -0.5}], "text_offset": [0]})
    );
    assert_eq!(logprobs(2)["text_offset"], json!([2]));
    assert_eq!(chunks[3]["choices"][0]["finish_reason"], "stop");
}

#[test]
fn a_server_that_breaks_the_rules_is_not_believed() {
    let events = || Events::new(head(Form::Chat, false), 1, None);
    let stop = Some(FinishReason::STOP);
    let mut out = Vec::new();
    assert!(events().piece(&piece(1, "x", None), &mut out).is_err(), "an answer that nobody asked for");
    assert!(events().piece(&piece(-1, "x", None), &mut out).is_err());
    let mut ended = events();
    ended.piece(&piece(0, "x", stop), &mut out).expect("the last piece");
    assert!(ended.piece(&piece(0, "y", None), &mut out).is_err(), "text behind the end");
    assert!(events().end(&mut out).is_err(), "an end without a reason");
    let cancelled = events().piece(&piece(0, "", Some(FinishReason::CANCELLED)), &mut out);
    // As in an answer that is whole: it may be asked for again.
    assert_eq!(cancelled.expect_err("not an end").kind, fault::Kind::Unavailable);
}

#[test]
fn a_logprob_that_json_cannot_tell_is_very_small() {
    let token = TokenLogprob { logprob: Some(f64::NEG_INFINITY.into()), ..TokenLogprob::default() };
    let mut events = Events::new(head(Form::Chat, false), 1, None);
    let mut out = Vec::new();
    events.piece(&Piece { logprobs: Some(vec![token]), ..piece(0, "x", None) }, &mut out).expect("a piece");
    assert_eq!(values(&out)[0]["choices"][0]["logprobs"]["content"][0]["logprob"], -9999.0);
}
