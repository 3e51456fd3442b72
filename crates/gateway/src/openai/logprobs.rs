//! How likely each token of an answer was, in the two forms of OpenAI's API.

use std::borrow::Cow;
use std::fmt::Write as _;

use idl::chat::{AlternativeToken, TokenLogprob};
use serde::Serialize;
use utoipa::ToSchema;

use super::shape::text;

/// A token and how likely it was.
#[derive(Serialize, ToSchema)]
pub(crate) struct TokenBody<'a> {
    token: &'a str,
    logprob: f64,
    /// A token may be a part of a character.
    bytes: &'a [u8],
}

/// A token of the answer, with the likeliest ones at its place.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChosenBody<'a> {
    #[serde(flatten)]
    chosen: TokenBody<'a>,
    top_logprobs: Vec<TokenBody<'a>>,
}

/// The log-probabilities of a chat's answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatLogprobs<'a> {
    content: Vec<ChosenBody<'a>>,
    /// Always null.
    refusal: Option<&'a str>,
}

impl<'a> ChatLogprobs<'a> {
    pub(super) fn new(tokens: &'a [TokenLogprob]) -> Self {
        let content = tokens.iter().map(|token| ChosenBody {
            chosen: TokenBody {
                token: text(&token.text),
                logprob: finite(token.logprob.map(|value| value.0)),
                bytes: token.bytes.as_deref().unwrap_or_default(),
            },
            top_logprobs: likeliest(token).map(token_body).collect(),
        });
        Self { content: content.collect(), refusal: None }
    }
}

fn likeliest(token: &TokenLogprob) -> impl Iterator<Item = &AlternativeToken> {
    token.top.iter().flatten().map(|token| &**token)
}

fn token_body(token: &AlternativeToken) -> TokenBody<'_> {
    TokenBody {
        token: text(&token.text),
        logprob: finite(token.logprob.map(|value| value.0)),
        bytes: token.bytes.as_deref().unwrap_or_default(),
    }
}

/// JSON knows no infinity; this is OpenAI's number for a token that cannot be.
fn finite(logprob: Option<f64>) -> f64 {
    logprob.filter(|value| value.is_finite()).unwrap_or(-9999.0)
}

/// The log-probabilities of a completion: lists side by side.
#[derive(Serialize, ToSchema)]
pub(crate) struct CompletionLogprobs<'a> {
    /// A token that is a part of a character only is `bytes:` with each byte as `\x` and two digits.
    tokens: Vec<Cow<'a, str>>,
    token_logprobs: Vec<f64>,
    /// For each token an object from text to log-probability: the likeliest ones, and the token itself.
    #[schema(value_type = Vec<std::collections::BTreeMap<String, f64>>)]
    top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Whole characters in front of each token.
    text_offset: Vec<usize>,
}

impl<'a> CompletionLogprobs<'a> {
    /// `place`: where in the text these tokens begin; it goes on behind them.
    pub(super) fn new(tokens: &'a [TokenLogprob], place: &mut Place) -> Self {
        let mut this = Self { tokens: vec![], token_logprobs: vec![], top_logprobs: vec![], text_offset: vec![] };
        for token in tokens {
            let name = named(&token.text, token.bytes.as_deref());
            let logprob = finite(token.logprob.map(|value| value.0));
            let mut top = serde_json::Map::new();
            for other in likeliest(token) {
                let name = named(&other.text, other.bytes.as_deref()).into_owned();
                // The likeliest comes first, and two tokens can have one text.
                top.entry(name).or_insert_with(|| finite(other.logprob.map(|value| value.0)).into());
            }
            top.entry(&*name).or_insert_with(|| logprob.into());
            this.tokens.push(name);
            this.token_logprobs.push(logprob);
            this.top_logprobs.push(top);
            this.text_offset.push(place.characters);
            place.pass(token.bytes.as_deref().unwrap_or(text(&token.text).as_bytes()));
        }
        this
    }
}

/// A token's text, or its bytes when they are no whole characters: all such texts would be the same.
fn named<'a>(whole: &'a Option<String>, bytes: Option<&[u8]>) -> Cow<'a, str> {
    match bytes {
        Some(bytes) if std::str::from_utf8(bytes).is_err() => {
            let mut name = "bytes:".to_owned();
            for byte in bytes {
                // Writing to a string does not fail.
                let _ = write!(name, "\\x{byte:02x}");
            }
            Cow::Owned(name)
        }
        _ => Cow::Borrowed(text(whole)),
    }
}

/// A place in a text whose tokens may be parts of characters.
#[derive(Default)]
pub(super) struct Place {
    /// In front of it.
    characters: usize,
    /// The beginning of a character that is not whole yet.
    begun: Vec<u8>,
}

impl Place {
    /// Moves behind these bytes.
    fn pass(&mut self, bytes: &[u8]) {
        self.begun.extend_from_slice(bytes);
        let mut rest = &self.begun[..];
        loop {
            match std::str::from_utf8(rest) {
                Ok(whole) => {
                    self.characters += whole.chars().count();
                    rest = &[];
                    break;
                }
                Err(error) => {
                    let (whole, after) = rest.split_at(error.valid_up_to());
                    self.characters += String::from_utf8_lossy(whole).chars().count();
                    rest = after;
                    // Bytes that no other can make a character of are shown as one.
                    let Some(wrong) = error.error_len() else { break };
                    self.characters += 1;
                    rest = &rest[wrong..];
                }
            }
        }
        self.begun = rest.to_vec();
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn token(bytes: &[u8], top: &[(&[u8], f64)]) -> TokenLogprob {
        let shown = |bytes: &[u8]| Some(String::from_utf8_lossy(bytes).into_owned());
        let other = |(bytes, logprob): &(&[u8], f64)| {
            Box::new(AlternativeToken {
                text: shown(bytes),
                bytes: Some(bytes.to_vec().into()),
                logprob: Some((*logprob).into()),
                ..AlternativeToken::default()
            })
        };
        TokenLogprob {
            text: shown(bytes),
            bytes: Some(bytes.to_vec().into()),
            logprob: Some((-3.0).into()),
            top: Some(top.iter().map(other).collect()),
            ..TokenLogprob::default()
        }
    }

    #[test]
    fn parts_of_a_character_keep_their_names_and_places() {
        let tokens = [
            token(b"a", &[(b"\xe4", -0.5), (b"\xe5", -0.7), (b"\xe4\xbf", -0.9)]),
            token(b"\xe4\xbf", &[]),
            token(b"\x8f", &[(b"\x8f", -3.0)]),
            token(".:".as_bytes(), &[]),
        ];
        let mut place = Place::default();
        // As they come in a stream.
        let first = serde_json::to_value(CompletionLogprobs::new(&tokens[..2], &mut place)).expect("JSON");
        let second = serde_json::to_value(CompletionLogprobs::new(&tokens[2..], &mut place)).expect("JSON");
        assert_eq!(
            first,
            json!({
                "tokens": ["a", r"bytes:\xe4\xbf"],
                "token_logprobs": [-3.0, -3.0],
                "top_logprobs": [
                    {r"bytes:\xe4": -0.5, r"bytes:\xe5": -0.7, r"bytes:\xe4\xbf": -0.9, "a": -3.0},
                    {r"bytes:\xe4\xbf": -3.0},
                ],
                "text_offset": [0, 1],
            })
        );
        assert_eq!(
            (&second["tokens"], &second["text_offset"]),
            (&json!([r"bytes:\x8f", ".:"]), &json!([1, 2])),
            "a\u{4fcf}.:"
        );
        assert_eq!(second["top_logprobs"], json!([{r"bytes:\x8f": -3.0}, {".:": -3.0}]));
    }

    #[test]
    fn places_are_those_of_the_text_that_is_shown() {
        let text = b"\xf0\x9f\x98\x80a\xe4\xbf \xff\xe9\xa9\xac\xe4";
        for cut in 0..=text.len() {
            let mut place = Place::default();
            place.pass(&text[..cut]);
            place.pass(&text[cut..]);
            let shown = String::from_utf8_lossy(text);
            // The last character is begun only.
            assert_eq!(place.characters, shown.chars().count() - 1, "cut at {cut}");
        }
    }
}
