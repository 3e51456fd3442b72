//! Answers in the form of OpenAI's API, whole and in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use idl::chat::{AlternativeToken, Choice, FinishReason, TokenLogprob, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::request::Form;

/// What all chunks of an answer begin with.
pub(super) struct Head {
    pub(super) form: Form,
    pub(super) id: String,
    /// Seconds since 1970.
    pub(super) created: u64,
    pub(super) model: String,
    /// Names what determines tokens besides the request: the model's version.
    pub(super) fingerprint: String,
    pub(super) include_usage: bool,
}

impl Head {
    pub(super) fn new(form: Form, request_id: &str, model: String, version: &str, include_usage: bool) -> Self {
        let id = match form {
            Form::Chat => format!("chatcmpl-{request_id}"),
            Form::Completion => format!("cmpl-{request_id}"),
        };
        // A clock before 1970 is no reason to fail.
        let created = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { form, id, created, model, fingerprint: format!("fp_{version}"), include_usage }
    }
}

/// Tokens that were read and written.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct UsageBody {
    prompt_tokens: i32,
    completion_tokens: i32,
    total_tokens: i32,
    prompt_tokens_details: PromptTokens,
}

/// Of the prompt's tokens.
#[derive(Clone, Copy, Serialize, ToSchema)]
pub(crate) struct PromptTokens {
    /// These were in the cache from an earlier turn.
    cached_tokens: i32,
}

impl From<&Usage> for UsageBody {
    fn from(usage: &Usage) -> Self {
        let prompt_tokens = usage.prompt_tokens.unwrap_or(0);
        let completion_tokens = usage.completion_tokens.unwrap_or(0);
        Self {
            prompt_tokens,
            completion_tokens,
            total_tokens: prompt_tokens.saturating_add(completion_tokens),
            prompt_tokens_details: PromptTokens { cached_tokens: usage.cached_tokens.unwrap_or(0) },
        }
    }
}

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
    tokens: Vec<&'a str>,
    token_logprobs: Vec<f64>,
    /// For each token an object from text to log-probability.
    #[schema(value_type = Vec<std::collections::BTreeMap<String, f64>>)]
    top_logprobs: Vec<serde_json::Map<String, serde_json::Value>>,
    /// Characters in front of each token.
    text_offset: Vec<usize>,
}

impl<'a> CompletionLogprobs<'a> {
    /// `offset`: characters of the text so far; it goes on behind these tokens.
    pub(super) fn new(tokens: &'a [TokenLogprob], offset: &mut usize) -> Self {
        let mut this = Self { tokens: vec![], token_logprobs: vec![], top_logprobs: vec![], text_offset: vec![] };
        for token in tokens {
            let pair = |other: &AlternativeToken| {
                (text(&other.text).to_owned(), finite(other.logprob.map(|value| value.0)).into())
            };
            this.tokens.push(text(&token.text));
            this.token_logprobs.push(finite(token.logprob.map(|value| value.0)));
            this.top_logprobs.push(likeliest(token).map(pair).collect());
            this.text_offset.push(*offset);
            *offset += text(&token.text).chars().count();
        }
        this
    }
}

/// What the model said.
#[derive(Serialize, ToSchema)]
pub(crate) struct MessageBody<'a> {
    /// Always `assistant`.
    role: &'static str,
    content: &'a str,
    /// Always null.
    refusal: Option<&'a str>,
}

/// One answer of a chat.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatChoice<'a> {
    index: i32,
    message: MessageBody<'a>,
    logprobs: Option<ChatLogprobs<'a>>,
    /// `stop`: the model's own end or a stop text; `length`: max_tokens or the end of the context.
    finish_reason: &'static str,
}

/// A whole answer of `/v1/chat/completions`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatAnswer<'a> {
    /// Ends with the request's id.
    id: &'a str,
    /// `chat.completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'a str,
    /// The same seed and the same fingerprint give the same tokens.
    system_fingerprint: &'a str,
    choices: Vec<ChatChoice<'a>>,
    usage: UsageBody,
}

impl<'a> ChatAnswer<'a> {
    pub(super) fn new(head: &'a Head, choices: &'a [Choice], usage: UsageBody) -> Self {
        let choices = choices.iter().map(|choice| ChatChoice {
            index: choice.index.unwrap_or(0),
            message: MessageBody { role: "assistant", content: text(&choice.text), refusal: None },
            logprobs: choice.logprobs.as_deref().map(ChatLogprobs::new),
            finish_reason: finish_reason(choice.finish),
        });
        Self {
            id: &head.id,
            object: "chat.completion",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices: choices.collect(),
            usage,
        }
    }
}

/// One answer to a prompt, or a piece of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct CompletionChoice<'a> {
    pub(super) text: &'a str,
    pub(super) index: i32,
    pub(super) logprobs: Option<CompletionLogprobs<'a>>,
    /// `stop` or `length`; null while more comes.
    pub(super) finish_reason: Option<&'static str>,
}

/// An answer of `/v1/completions`, whole or a chunk of it.
#[derive(Serialize, ToSchema)]
pub(crate) struct CompletionAnswer<'a> {
    /// Ends with the request's id.
    id: &'a str,
    /// `text_completion`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'a str,
    /// The same seed and the same fingerprint give the same tokens.
    system_fingerprint: &'a str,
    choices: Vec<CompletionChoice<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageBody>)]
    usage: Option<Option<UsageBody>>,
}

impl<'a> CompletionAnswer<'a> {
    pub(super) fn new(head: &'a Head, choices: Vec<CompletionChoice<'a>>, usage: Option<Option<UsageBody>>) -> Self {
        Self {
            id: &head.id,
            object: "text_completion",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices,
            usage,
        }
    }
}

/// What a chunk adds to the message.
#[derive(Default, Serialize, ToSchema)]
pub(crate) struct Delta<'a> {
    /// `assistant`, in the first chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) role: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) content: Option<&'a str>,
}

/// A piece of one answer of a chat.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChunkChoice<'a> {
    pub(super) index: i32,
    pub(super) delta: Delta<'a>,
    pub(super) logprobs: Option<ChatLogprobs<'a>>,
    /// `stop` or `length`; null while more comes.
    pub(super) finish_reason: Option<&'static str>,
}

/// A chunk of a streamed answer of `/v1/chat/completions`.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatChunk<'a> {
    /// Ends with the request's id.
    id: &'a str,
    /// `chat.completion.chunk`.
    object: &'static str,
    /// Seconds since 1970.
    created: u64,
    model: &'a str,
    /// The same seed and the same fingerprint give the same tokens.
    system_fingerprint: &'a str,
    /// Empty in the chunk with the usage.
    choices: Vec<ChunkChoice<'a>>,
    /// Only with `stream_options.include_usage`: null until the last chunk.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<UsageBody>)]
    usage: Option<Option<UsageBody>>,
}

impl<'a> ChatChunk<'a> {
    pub(super) fn new(head: &'a Head, choices: Vec<ChunkChoice<'a>>, usage: Option<Option<UsageBody>>) -> Self {
        Self {
            id: &head.id,
            object: "chat.completion.chunk",
            created: head.created,
            model: &head.model,
            system_fingerprint: &head.fingerprint,
            choices,
            usage,
        }
    }
}

pub(super) fn finish_reason(finish: Option<FinishReason>) -> &'static str {
    match finish {
        Some(FinishReason::LENGTH) => "length",
        // A reason of the future is an end like any other.
        _ => "stop",
    }
}

pub(super) fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}
