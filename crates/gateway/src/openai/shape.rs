//! Answers in the form of OpenAI's API, whole and in chunks.

use std::time::{SystemTime, UNIX_EPOCH};

use idl::chat::{Choice, FinishReason, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::logprobs::{ChatLogprobs, CompletionLogprobs};
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

/// What the model said.
#[derive(Serialize, ToSchema)]
pub(crate) struct AnswerMessage<'a> {
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
    message: AnswerMessage<'a>,
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
    /// The model's version. The same request with the same seed and fingerprint gives the same tokens, as far as the model gives
    /// the same numbers: one with 32-bit weights on a CPU does, one with 8-bit weights not always.
    system_fingerprint: &'a str,
    choices: Vec<ChatChoice<'a>>,
    usage: UsageBody,
}

impl<'a> ChatAnswer<'a> {
    pub(super) fn new(head: &'a Head, choices: &'a [Choice], usage: UsageBody) -> Self {
        let choices = choices.iter().map(|choice| ChatChoice {
            index: choice.index.unwrap_or(0),
            message: AnswerMessage { role: "assistant", content: text(&choice.text), refusal: None },
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
    /// The model's version. The same request with the same seed and fingerprint gives the same tokens, as far as the model gives
    /// the same numbers: one with 32-bit weights on a CPU does, one with 8-bit weights not always.
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
    /// The model's version. The same request with the same seed and fingerprint gives the same tokens, as far as the model gives
    /// the same numbers: one with 32-bit weights on a CPU does, one with 8-bit weights not always.
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
