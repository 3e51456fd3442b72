//! The bodies of requests as `/openapi.json` describes them. They are read field by field (`request`); a test holds the two together.
#![allow(dead_code, reason = "only described, never made")]

use utoipa::ToSchema;

/// A conversation to answer.
#[derive(ToSchema)]
pub(crate) struct ChatBody {
    /// The model's name.
    #[schema(example = "smollm2-135m-instruct")]
    model: String,
    /// The turns so far.
    messages: Vec<MessageBody>,
    /// Tell the log-probability of each token.
    logprobs: Option<bool>,
    /// And those of so many likeliest others, 0 to 20.
    top_logprobs: Option<i32>,
    /// The older name of `max_completion_tokens`.
    max_tokens: Option<i32>,
    /// Most tokens to generate; what is left of the context when absent.
    max_completion_tokens: Option<i32>,
    /// Server-sent events instead of one answer.
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// A text that ends the answer, or a list of up to 16.
    #[schema(value_type = Option<Vec<String>>)]
    stop: Option<()>,
    /// How many answers, 1 to 16.
    n: Option<i32>,
    /// The same seed, request and model give the same answer.
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
    #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
    logit_bias: Option<()>,
    response_format: Option<ResponseFormat>,
    /// Only `["text"]`.
    modalities: Option<Vec<String>>,
    /// Requests with the same key go to the same server; by the first messages when absent.
    prompt_cache_key: Option<String>,
}

/// A turn of a conversation.
#[derive(ToSchema)]
pub(crate) struct MessageBody {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schema(example = "user")]
    role: String,
    /// A text, or a list of `{"type": "text", "text": "..."}`.
    #[schema(example = "Why is the sky blue?")]
    content: String,
    name: Option<String>,
}

/// What a stream has besides.
#[derive(ToSchema)]
pub(crate) struct StreamOptions {
    /// A last chunk that tells the number of tokens.
    include_usage: Option<bool>,
}

/// The form that the answer must have.
#[derive(ToSchema)]
pub(crate) struct ResponseFormat {
    /// `text`, `json_object` or `json_schema`.
    r#type: String,
    json_schema: Option<JsonSchema>,
}

/// A JSON schema with its name.
#[derive(ToSchema)]
pub(crate) struct JsonSchema {
    name: Option<String>,
    /// At most 64 KiB.
    #[schema(value_type = Object)]
    schema: (),
}

/// A text to go on with.
#[derive(ToSchema)]
pub(crate) struct CompletionBody {
    /// The model's name.
    #[schema(example = "smollm2-135m-instruct")]
    model: String,
    /// The text; a list may have one text.
    prompt: String,
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
    /// Server-sent events instead of one answer.
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// A text that ends the answer, or a list of up to 16.
    #[schema(value_type = Option<Vec<String>>)]
    stop: Option<()>,
    /// How many answers, 1 to 16.
    n: Option<i32>,
    /// The same seed, request and model give the same answer.
    seed: Option<i64>,
    /// As in a chat, like all that follow.
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i32>,
    min_p: Option<f64>,
    repetition_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    frequency_penalty: Option<f64>,
    #[schema(value_type = Option<std::collections::BTreeMap<String, f64>>)]
    logit_bias: Option<()>,
    response_format: Option<ResponseFormat>,
    prompt_cache_key: Option<String>,
}
