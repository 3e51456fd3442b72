//! Answers of tiny models with random weights, held to JSON: whatever they would like to say, it is what was asked for.

mod support;

use std::collections::BTreeSet;
use std::sync::mpsc::channel;

use generate::{
    Event, Finish, Format, Generator, Limits, Owner, Refusal, Request, SCHEMA_BYTES, Sampling, Ticket, Tokens,
    Vocabulary,
};
use serde::Deserialize;
use serde_json::{Value, json};
use support::{MODELS, decoder, folder, golden};

fn generator(model: &str, slots: usize) -> Generator {
    let vocabulary = Vocabulary::open(&folder(model)).unwrap_or_else(|error| panic!("{error}"));
    Generator::start(decoder(model, slots), vocabulary.tokens(), Limits::default()).expect("a thread")
}

fn asked(model: &str, format: Format, seed: u64) -> Request {
    Request {
        prompt: golden(model)[0].tokens.clone(),
        max_tokens: 240,
        sampling: Sampling { seed, temperature: if seed == 0 { 0.0 } else { 1.0 }, ..Sampling::default() },
        stops: Vec::new(),
        format,
        logprobs: None,
        owner: Owner(seed),
    }
}

fn schema(schema: &Value) -> Format {
    Format::JsonSchema(schema.to_string())
}

/// The texts of some requests that run at the same time, with why they ended.
fn answers(generator: &Generator, requests: impl Iterator<Item = Request>) -> Vec<(String, Finish)> {
    let run = |request| {
        let (send, events) = channel();
        let ticket: Ticket =
            generator.submit(request, Box::new(move |event| send.send(event).is_ok())).expect("is taken");
        (ticket, events)
    };
    let begun: Vec<_> = requests.map(run).collect();
    let whole = |(_, events): &(Ticket, std::sync::mpsc::Receiver<Event>)| {
        let mut text = String::new();
        loop {
            match events.recv().expect("an event") {
                Event::Piece { text: more, .. } => text.push_str(&more),
                Event::Finished { finish, .. } => return (text, finish),
                Event::Failed(reason) => panic!("{reason}"),
            }
        }
    };
    begun.iter().map(whole).collect()
}

fn refusal(generator: &Generator, schema: String) -> String {
    let refused = generator.submit(asked("tiny-llama", Format::JsonSchema(schema), 1), Box::new(|_| true));
    match refused.expect_err("nothing can be held to it") {
        Refusal::Format(reason) => reason,
        other => panic!("{other}"),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Person {
    name: String,
    age: u8,
    #[serde(default)]
    kind: Option<String>,
    seen: Vec<bool>,
}

#[test]
fn what_ends_by_itself_satisfies_the_schema() {
    let person = schema(&json!({
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 6},
            "age": {"type": "integer", "minimum": 3, "maximum": 99},
            "kind": {"$ref": "#/$defs/kind"},
            "seen": {"type": "array", "items": {"type": "boolean"}, "minItems": 1, "maxItems": 3},
        },
        "required": ["name", "age", "seen"],
        "additionalProperties": false,
        "$defs": {"kind": {"enum": ["cat", "dog"]}},
    }));
    for model in MODELS {
        let generator = generator(model, 16);
        let all = answers(&generator, (0..40).map(|seed| asked(model, person.clone(), seed)));
        let ended: Vec<_> = all.iter().filter(|(_, finish)| *finish == Finish::End).collect();
        assert!(ended.len() >= 20, "{model}: {} of 40 ended by themselves: {all:?}", ended.len());
        for (text, _) in &ended {
            let got: Person = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text:?}"));
            assert!((1..=6).contains(&got.name.chars().count()) && (3..=99).contains(&got.age), "{text:?}");
            assert!((1..=3).contains(&got.seen.len()), "{text:?}");
            assert!(got.kind.is_none_or(|kind| ["cat", "dog"].contains(&kind.as_str())), "{text:?}");
        }
        let different: BTreeSet<_> = ended.iter().map(|(text, _)| text).collect();
        assert!(different.len() > ended.len() / 2, "{model}: the seed does nothing: {different:?}");
        assert!(all.iter().all(|(_, finish)| matches!(finish, Finish::End | Finish::Length)));
    }
}

#[test]
fn what_is_cut_off_is_a_beginning_and_says_length() {
    let generator = generator("tiny-qwen2", 4);
    let short = |seed| Request { max_tokens: 3, ..asked("tiny-qwen2", Format::Json, seed) };
    for (text, finish) in answers(&generator, (0..8).map(short)) {
        if finish == Finish::End {
            assert!(serde_json::from_str::<Value>(&text).expect("is JSON").is_object(), "{text:?}");
        } else {
            assert!(text.trim_start().starts_with('{'), "{text:?}");
            assert_eq!(finish, Finish::Length);
        }
    }
}

#[test]
fn json_mode_gives_an_object_and_text_beside_it_stays_as_it_is() {
    let generator = generator("tiny-llama", 16);
    let all = answers(&generator, (0..30).map(|seed| asked("tiny-llama", Format::Json, seed)));
    let ended = all.iter().filter(|(_, finish)| *finish == Finish::End);
    assert!(ended.clone().count() > 0, "{all:?}");
    for (text, _) in ended {
        assert!(serde_json::from_str::<Value>(text).expect("is JSON").is_object(), "{text:?}");
    }
    let plain = || Request { max_tokens: 60, ..asked("tiny-llama", Format::Text, 5) };
    let alone = answers(&generator, std::iter::once(plain()));
    let json = (10..16).map(|seed| asked("tiny-llama", Format::Json, seed));
    let beside = answers(&generator, std::iter::once(Request { owner: Owner(99), ..plain() }).chain(json));
    assert_eq!(beside[0], alone[0]);
}

#[test]
fn an_answer_ends_where_nothing_can_follow() {
    let generator = generator("tiny-llama", 2);
    for (only, text) in [(json!({"const": "yes"}), "\"yes\""), (json!({"enum": [true]}), "true")] {
        let all = answers(&generator, (0..4).map(|seed| asked("tiny-llama", schema(&only), seed)));
        assert!(all.iter().all(|answer| *answer == (text.to_owned(), Finish::End)), "{all:?}");
    }
    let [(text, finish)] =
        &answers(&generator, std::iter::once(asked("tiny-llama", schema(&json!({"type": "null"})), 0)))[..]
    else {
        panic!("one answer")
    };
    assert_eq!((text.as_str(), *finish), ("null", Finish::End));
}

#[test]
fn a_schema_that_cannot_be_kept_is_refused_with_a_reason() {
    let generator = generator("tiny-llama", 1);
    for (schema, said) in [
        ("{".to_owned(), "not JSON"),
        ("[]".to_owned(), "no JSON object"),
        ("false".to_owned(), "no JSON object"),
        (json!({"type": "object", "not": {"required": ["a"]}}).to_string(), "not"),
        (json!({"type": "array", "uniqueItems": true}).to_string(), "uniqueItems"),
        (json!({"type": "integer", "minimum": 5, "maximum": 4}).to_string(), ""),
        (json!({"$ref": "https://example.com/person.json"}).to_string(), "example.com"),
        (json!({"$ref": "file:///etc/passwd"}).to_string(), "passwd"),
        (json!({"oneOf": [{"type": "string"}, {"type": "string", "maxLength": 3}]}).to_string(), "oneOf"),
        (json!({"type": "string", "if": {"maxLength": 3}, "then": {"minLength": 1}}).to_string(), "if"),
        (json!({"$ref": "#/$defs/nowhere"}).to_string(), "nowhere"),
        (json!({"$ref": "#"}).to_string(), ""),
        (format!("{{\"description\": \"{}\"}}", "x".repeat(SCHEMA_BYTES)), "the limit is 131072"),
    ] {
        let reason = refusal(&generator, schema.clone());
        assert!(reason.contains(said) && !reason.is_empty(), "{schema:.80}: {reason}");
        assert!(reason.chars().count() <= 301 && !reason.contains('\n'), "{reason}");
    }
}

/// Schemas made to cost much: each is refused, or compiled within its bounds, and the next one is served as ever.
#[test]
fn hostile_schemas_cost_little_and_hurt_nobody() {
    let generator = generator("tiny-llama", 2);
    let nested = |depth: usize| format!("{}{{}}{}", "{\"items\":".repeat(depth), "}".repeat(depth));
    let chain = |length: usize, of: &dyn Fn(String) -> Value| {
        let link = |at: usize| (format!("d{at}"), of(format!("#/$defs/d{}", at + 1)));
        let mut defs: serde_json::Map<String, Value> = (0..length).map(link).collect();
        defs.insert(format!("d{length}"), json!({"type": "null"}));
        json!({"$ref": "#/$defs/d0", "$defs": defs}).to_string()
    };
    let doubled = |next: String| json!({"allOf": [{"anyOf": [{"$ref": next}, {"type": "string"}]}, {"anyOf": [{"$ref": next}, {"type": "integer"}]}]});
    let words: Vec<String> = (0..6000).map(|at| format!("w{at}-{}", at * 7919 % 10_007)).collect();
    let options: Vec<Value> =
        (0..300).map(|at| json!({"properties": {format!("p{at}"): {"type": "integer", "minimum": at}}})).collect();
    let many: serde_json::Map<String, Value> =
        (0..1000).map(|at| (format!("property{at}"), json!({"type": ["string", "null"]}))).collect();
    for (name, schema, refused) in [
        ("nested", nested(5000), Some("recursion limit")),
        ("nested as deep as JSON is read", nested(120), None),
        ("a large enum", json!({"enum": words}).to_string(), None),
        ("many properties", json!({"properties": many}).to_string(), None),
        ("a long chain of references", chain(2000, &|next| json!({"type": "array", "items": {"$ref": next}})), None),
        ("references that double", chain(40, &doubled), None),
        (
            "a cross product",
            json!({"allOf": [{"anyOf": options}, {"anyOf": options}, {"anyOf": options}]}).to_string(),
            Some("too large"),
        ),
        ("counted counts", json!({"type": "string", "pattern": "((a{1,1000}){1,1000}){1,1000}"}).to_string(), None),
        (
            "a regex that is exponential as an automaton",
            json!({"type": "string", "pattern": "(a|b)*a(a|b){900}"}).to_string(),
            None,
        ),
        (
            "deep groups",
            json!({"type": "string", "pattern": format!("{}a{}", "(".repeat(20_000), ")".repeat(20_000))}).to_string(),
            Some("regex"),
        ),
        ("a long string", json!({"type": "string", "minLength": 1_000_000_000}).to_string(), None),
        ("a long array", json!({"type": "array", "minItems": 1_000_000_000}).to_string(), None),
        (
            "many remainders",
            json!({"type": "integer", "multipleOf": 2_147_483_648_u32}).to_string(),
            Some("remainders"),
        ),
        ("as many remainders as may be", json!({"type": "integer", "multipleOf": 19_997}).to_string(), None),
        ("a range of many digits", json!({"type": "integer", "maximum": 1e300}).to_string(), None),
    ] {
        assert!(schema.len() <= SCHEMA_BYTES, "{name}: {}", schema.len());
        let request = Request { max_tokens: 20, ..asked("tiny-llama", Format::JsonSchema(schema.clone()), 1) };
        match refused {
            Some(said) => {
                let reason = refusal(&generator, schema);
                assert!(reason.contains(said), "{name}: {reason}");
            }
            None => {
                answers(&generator, std::iter::once(request));
            }
        }
        let after = answers(&generator, std::iter::once(asked("tiny-llama", schema_of_one(), 0)));
        assert_eq!(after, [("1".to_owned(), Finish::End)], "{name}");
    }
}

fn schema_of_one() -> Format {
    schema(&json!({"const": 1}))
}

#[test]
fn a_model_without_an_end_token_has_no_json() {
    let tokens = Tokens { bytes: vec![Box::from(&b"x"[..]); 384], ends: Vec::new() };
    let generator = Generator::start(decoder("tiny-llama", 1), tokens, Limits::default()).expect("a thread");
    assert!(refusal(&generator, "{}".to_owned()).contains("no end token"));
}
