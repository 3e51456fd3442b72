//! Awkward texts and conversations: tokens, text and rendering as `transformers` has them, by tokenisers of each kind that
//! exports bring and by the bundled chat model's own.

mod support;

use std::path::{Path, PathBuf};

use generate::{Message, Template, Text, Vocabulary};
use serde::Deserialize;
use support::bundled;

/// The tokenisers of `testdata/awkward/tokenizers`.
const KINDS: [&str; 5] = ["gpt-2", "llama-bpe", "qwen2", "metaspace", "smollm"];

#[derive(Deserialize)]
struct Turn {
    role: String,
    content: String,
    name: Option<String>,
}

#[derive(Deserialize)]
struct Inputs {
    texts: Vec<String>,
    /// A text, and how often it stands one after the other.
    long: Vec<(String, usize)>,
    conversations: Vec<Vec<Turn>>,
}

/// A token, or how often it comes one after the other.
#[derive(Deserialize)]
#[serde(untagged)]
enum Run {
    One(u32),
    Many(u32, usize),
}

#[derive(Deserialize)]
struct Encoded {
    tokens: Vec<Run>,
    /// What the tokeniser puts in front.
    before: Vec<u32>,
    /// What the tokens are as text; absent when that is the text itself.
    decoded: Option<String>,
}

#[derive(Deserialize)]
struct Answer {
    tokens: Vec<u32>,
    decoded: String,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Rendered {
    /// In the template's own words, or empty when it only went wrong.
    Refused {
        refused: String,
    },
    Text {
        text: String,
        tokens: Vec<Run>,
    },
}

#[derive(Deserialize)]
struct Golden {
    encoded: Vec<Encoded>,
    answers: Vec<Answer>,
    rendered: Vec<Rendered>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/awkward")
}

fn read<T: serde::de::DeserializeOwned>(name: &str) -> T {
    let path = folder().join(name);
    let text = std::fs::read_to_string(&path).expect("is in the tree");
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn flat(runs: &[Run]) -> Vec<u32> {
    let each = runs.iter().flat_map(|run| match *run {
        Run::One(token) => std::iter::repeat_n(token, 1),
        Run::Many(token, times) => std::iter::repeat_n(token, times),
    });
    each.collect()
}

/// As an answer's tokens leave, one by one.
fn told(vocabulary: &Vocabulary, tokens: &[u32]) -> String {
    let mut text = Text::new(Vec::new());
    let mut told: String = tokens.iter().map(|token| text.push(vocabulary.bytes(*token)).text).collect();
    told.push_str(&text.finish());
    told
}

/// Everything that differs, so that one run shows all of it.
fn differences(name: &str, model: &Path) -> Vec<String> {
    let (inputs, golden): (Inputs, Golden) = (read("inputs.json"), read(&format!("golden/{name}.json")));
    let vocabulary = Vocabulary::open(model).expect("has a tokeniser");
    let template = Template::open(model).expect("can be read").expect("has a template");
    let long = inputs.long.iter().map(|(piece, times)| piece.repeat(*times));
    let texts: Vec<String> = inputs.texts.iter().cloned().chain(long).collect();
    assert_eq!((texts.len(), inputs.conversations.len()), (golden.encoded.len(), golden.rendered.len()));
    // Such a tokeniser writes a space before the first word of a text, which the whole text's decoding takes away. An answer is
    // no text's beginning.
    let without_first_space = |text: String| match text.strip_prefix(' ') {
        Some(rest) if name == "metaspace" => rest.to_owned(),
        _ => text,
    };
    let mut found = Vec::new();
    let mut compare = |what: &str, ours: &dyn std::fmt::Debug, theirs: &dyn std::fmt::Debug| {
        let (ours, theirs) = (format!("{ours:?}"), format!("{theirs:?}"));
        if ours != theirs {
            let short = |text: &str| text.chars().take(300).collect::<String>();
            found.push(format!("{name}, {}:\n  {}\n  expected\n  {}", short(what), short(&ours), short(&theirs)));
        }
    };
    for (text, golden) in texts.iter().zip(&golden.encoded) {
        let tokens = flat(&golden.tokens);
        compare(&format!("tokens of {text:?}"), &vocabulary.encode(text, false), &Ok::<_, String>(tokens.clone()));
        let begun = [golden.before.as_slice(), &tokens].concat();
        compare(
            &format!("tokens of {text:?} from its beginning"),
            &vocabulary.encode(text, true),
            &Ok::<_, String>(begun),
        );
        let decoded = golden.decoded.as_ref().unwrap_or(text);
        compare(&format!("{text:?} again"), &without_first_space(told(&vocabulary, &tokens)), decoded);
    }
    for answer in &golden.answers {
        let told = without_first_space(told(&vocabulary, &answer.tokens));
        compare(&format!("text of {:?}", answer.tokens), &told, &answer.decoded);
    }
    for (turns, golden) in inputs.conversations.iter().zip(&golden.rendered) {
        let message =
            |turn: &Turn| Message { role: turn.role.clone(), content: turn.content.clone(), name: turn.name.clone() };
        let messages: Vec<Message> = turns.iter().map(message).collect();
        let (what, rendered) = (format!("conversation {messages:?}"), template.render(&messages));
        match (golden, &rendered) {
            (Rendered::Refused { refused }, Err(_)) if refused.is_empty() => {}
            (Rendered::Refused { refused }, _) => compare(&what, &rendered, &Err::<String, _>(refused)),
            (Rendered::Text { text, tokens }, _) => {
                compare(&what, &rendered, &Ok::<_, String>(text));
                compare(&format!("tokens of {what}"), &vocabulary.encode(text, false), &Ok::<_, String>(flat(tokens)));
            }
        }
    }
    found
}

#[test]
fn tokenisers_of_each_kind_do_as_transformers_does() {
    for kind in KINDS {
        let found = differences(kind, &folder().join("tokenizers").join(kind));
        assert!(found.is_empty(), "{} differences\n{}", found.len(), found.join("\n"));
    }
}

#[test]
fn the_bundled_model_s_tokeniser_does_as_transformers_does() {
    let found = differences("smollm2-135m-instruct", &bundled());
    assert!(found.is_empty(), "{} differences\n{}", found.len(), found.join("\n"));
}
