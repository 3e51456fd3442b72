//! The bodies of requests as `/openapi.json` describes them. They are read field by field (`request`); a test holds the two together.
#![allow(dead_code, reason = "only described, never made")]

use serde::Serialize;
use utoipa::{IntoParams, IntoResponses, ToSchema};

use crate::problem::ErrorBody;

/// A conversation to answer.
#[derive(Serialize, ToSchema)]
pub(crate) struct ChatBody {
    /// The model's name.
    #[schema(example = "smollm2-135m-instruct")]
    model: String,
    /// The turns so far.
    messages: Vec<AskedMessage>,
    /// Tell the log-probability of each token.
    logprobs: Option<bool>,
    /// And those of so many likeliest others, 0 to 20.
    top_logprobs: Option<i32>,
    /// The older name of `max_completion_tokens`.
    max_tokens: Option<i32>,
    /// Most tokens to generate; what is left of the context when absent.
    max_completion_tokens: Option<i32>,
    /// Only `["text"]`.
    modalities: Option<Vec<String>>,
    #[serde(flatten)]
    options: GenerationOptions,
}

/// A turn of a conversation.
#[derive(Serialize, ToSchema)]
pub(crate) struct AskedMessage {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schema(example = "user")]
    role: String,
    /// May be absent or null where an assistant only refused or called functions.
    content: Option<Content>,
    /// What an assistant refused with.
    refusal: Option<String>,
    name: Option<String>,
    /// The calls of functions of an assistant, as OpenAI's API has them; the model reads them as text.
    tool_calls: Option<Vec<ToolCall>>,
    function_call: Option<FunctionCall>,
}

/// A text, or the parts of one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<ContentPart>),
}

/// A part of a text.
#[derive(Serialize, ToSchema)]
struct ContentPart {
    /// `text`, or `refusal` with the field of that name.
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
}

/// A call that an assistant made.
#[derive(Serialize, ToSchema)]
struct ToolCall {
    function: FunctionCall,
}

/// The function and what it was given.
#[derive(Serialize, ToSchema)]
struct FunctionCall {
    name: String,
    /// JSON as a text.
    arguments: String,
}

/// A text to go on with.
#[derive(Serialize, ToSchema)]
pub(crate) struct CompletionBody {
    /// The model's name.
    #[schema(example = "smollm2-135m-instruct")]
    model: String,
    prompt: Prompt,
    /// Tell the log-probability of each token, and of so many likeliest others, 0 to 20.
    logprobs: Option<i32>,
    /// Begin the answer with the prompt.
    echo: Option<bool>,
    /// Must be the same as `n`.
    best_of: Option<i32>,
    /// Most tokens to generate; 16 when absent.
    max_tokens: Option<i32>,
    /// The same.
    max_completion_tokens: Option<i32>,
    #[serde(flatten)]
    options: GenerationOptions,
}

/// A text, or a list of one.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Prompt {
    Text(String),
    List(Vec<String>),
}

/// How an answer is made, in chats and completions.
#[derive(Serialize, ToSchema)]
pub(crate) struct GenerationOptions {
    /// Server-sent events instead of one answer.
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    stop: Option<Stop>,
    /// How many answers, 1 to 16.
    n: Option<i32>,
    /// The same seed, request and `system_fingerprint` give the same answer. A model with 8-bit weights can come to another one
    /// when a part of the prompt was in the cache.
    seed: Option<i64>,
    /// 0 to 2; 0 takes the likeliest token. The model's own when absent, like all that follow.
    temperature: Option<f64>,
    /// 0 to 1: the smallest set of likeliest tokens whose probabilities reach this.
    top_p: Option<f64>,
    /// Only so many likeliest tokens; 0 is all. Not in OpenAI's API.
    top_k: Option<i32>,
    /// 0 to 1: drops tokens less likely than this share of the likeliest. Not in OpenAI's API.
    min_p: Option<f64>,
    /// Above 0 to 10: divides the logits of tokens seen so far. Not in OpenAI's API.
    repetition_penalty: Option<f64>,
    /// -2 to 2: subtracted once from a token that was generated before.
    presence_penalty: Option<f64>,
    /// -2 to 2: subtracted for each time that a token was generated before.
    frequency_penalty: Option<f64>,
    /// From token numbers to -100 to 100, at most 300.
    logit_bias: Option<std::collections::BTreeMap<String, f64>>,
    response_format: Option<ResponseFormat>,
    /// Requests with the same key go to the same server; by the first messages when absent.
    prompt_cache_key: Option<String>,
}

/// A text that ends the answer, or up to 16 of them.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
enum Stop {
    Text(String),
    List(Vec<String>),
}

/// What a stream has besides.
#[derive(Serialize, ToSchema)]
pub(crate) struct StreamOptions {
    /// A last chunk that tells the number of tokens.
    include_usage: Option<bool>,
}

/// The form that the answer must have.
#[derive(Serialize, ToSchema)]
pub(crate) struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    r#type: String,
    json_schema: Option<NamedSchema>,
}

/// A JSON schema with its name.
#[derive(Serialize, ToSchema)]
pub(crate) struct NamedSchema {
    name: Option<String>,
    /// At most 64 KiB.
    #[schema(value_type = Object)]
    schema: (),
}

/// Headers that every request to a model may have.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
pub(crate) struct RequestHeaders {
    /// 8 to 64 of A-Z a-z 0-9 . _ -; kept in every log and answer.
    #[param(rename = "x-request-id")]
    request_id: Option<String>,
    /// How long an answer is of use: at most 600,000; when absent 10,000, and 120,000 for generated texts.
    #[param(rename = "x-request-timeout-ms")]
    timeout_ms: Option<i64>,
}

/// What a request to a model can fail with.
#[derive(IntoResponses)]
pub(crate) enum Refused<'a> {
    /// invalid_input: the field, its value and what is allowed
    #[response(status = 400)]
    InvalidInput(#[to_schema] ErrorBody<'a>),
    /// model_not_found
    #[response(status = 404)]
    NotFound(#[to_schema] ErrorBody<'a>),
    /// too_large: the body, the number of items, or more tokens than the model takes
    #[response(status = 413)]
    TooLarge(#[to_schema] ErrorBody<'a>),
    /// unsupported_media: the body is not JSON
    #[response(status = 415)]
    UnsupportedMedia(#[to_schema] ErrorBody<'a>),
    /// overloaded, or unavailable
    #[response(status = 503)]
    Unavailable(#[to_schema] ErrorBody<'a>),
    /// deadline_exceeded
    #[response(status = 504)]
    DeadlineExceeded(#[to_schema] ErrorBody<'a>),
}
