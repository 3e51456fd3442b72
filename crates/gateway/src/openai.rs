//! `POST /v1/chat/completions`, `POST /v1/completions` (whole and streamed) and `POST /v1/embeddings`: OpenAI's API.

mod description;
pub(crate) mod embeddings;
mod events;
mod fields;
mod messages;
mod request;
mod shape;
mod stream;

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use fault::Fault;
use idl::chat::{ChatReply, ChatTiming, FinishReason, Usage};

pub(crate) use self::description::{ChatBody, CompletionBody};
pub(crate) use self::shape::{ChatAnswer, ChatChunk, CompletionAnswer};

use self::events::Events;
use self::request::{Form, Wanted};
use self::shape::{CompletionChoice, CompletionLogprobs, Head, UsageBody, finish_reason, text};
use crate::ask::{Ask, ServerTimes};
use crate::backend::StreamTimes;
use crate::body::{self, Share};
use crate::metrics::Route;
use crate::problem::{ErrorBody, Problem, start_of};
use crate::settings::Limits;
use crate::site::Site;

/// Answers a conversation, word by word with `stream`.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "chat",
    params(
        ("x-request-id" = Option<String>, Header, description = "8 to 64 of A-Z a-z 0-9 . _ -; kept in every log and answer"),
        ("x-request-timeout-ms" = Option<i64>, Header, description = "How long an answer is of use; 120,000 when absent, at most 600,000"),
    ),
    request_body(content = ChatBody),
    responses(
        (status = 200, description = "The answer; with `stream` server-sent events: chunks, then [DONE], or an error as the last event",
         content((ChatAnswer = "application/json"), (ChatChunk = "text/event-stream"))),
        (status = 400, description = "invalid_input: the field, its value and what is allowed", body = ErrorBody),
        (status = 404, description = "model_not_found", body = ErrorBody),
        (status = 413, description = "too_large: the body, or more tokens than the context has", body = ErrorBody),
        (status = 415, description = "unsupported_media: the body is not JSON", body = ErrorBody),
        (status = 503, description = "overloaded, or unavailable", body = ErrorBody),
        (status = 504, description = "deadline_exceeded", body = ErrorBody),
    ),
)]
pub(crate) async fn chat(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    post(&request, payload, &site, Form::Chat).await
}

/// Goes on with a text, word by word with `stream`.
#[utoipa::path(
    post, path = "/v1/completions", tag = "chat",
    params(
        ("x-request-id" = Option<String>, Header, description = "8 to 64 of A-Z a-z 0-9 . _ -; kept in every log and answer"),
        ("x-request-timeout-ms" = Option<i64>, Header, description = "How long an answer is of use; 120,000 when absent, at most 600,000"),
    ),
    request_body(content = CompletionBody),
    responses(
        (status = 200, description = "The answer; with `stream` server-sent events: chunks, then [DONE], or an error as the last event",
         content((CompletionAnswer = "application/json"), (CompletionAnswer = "text/event-stream"))),
        (status = 400, description = "invalid_input: the field, its value and what is allowed", body = ErrorBody),
        (status = 404, description = "model_not_found", body = ErrorBody),
        (status = 413, description = "too_large: the body, or more tokens than the context has", body = ErrorBody),
        (status = 415, description = "unsupported_media: the body is not JSON", body = ErrorBody),
        (status = 503, description = "overloaded, or unavailable", body = ErrorBody),
        (status = 504, description = "deadline_exceeded", body = ErrorBody),
    ),
)]
pub(crate) async fn completions(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    post(&request, payload, &site, Form::Completion).await
}

async fn post(request: &HttpRequest, payload: web::Payload, site: &web::Data<Site>, form: Form) -> HttpResponse {
    let route = match form {
        Form::Chat => Route::Chat,
        Form::Completion => Route::Completions,
    };
    let mut ask = Ask::new(request, site, route);
    let process = &site.process;
    let times = times(&ask, request, &process.settings.limits);
    let read = match times {
        Ok(times) => process.in_time(read(request, payload, site, &mut ask, form)).await.map(|wanted| (times, wanted)),
        Err(fault) => {
            body::discard(&mut payload.into_inner(), &site.process).await;
            Err(fault)
        }
    };
    // The request is as large as its body, for as long as it is on its way.
    let (times, (wanted, _share)) = match read {
        Ok(read) => read,
        Err(fault) => return ask.answer(Err(fault.into())),
    };
    if wanted.stream {
        return streamed(wanted, site, ask, times).await;
    }
    let result = process.in_time(whole(wanted, site, &mut ask, times)).await;
    ask.answer(result.map_err(Problem::from))
}

/// A client that names its time means the first token's, too.
fn times(ask: &Ask, request: &HttpRequest, limits: &Limits) -> Result<StreamTimes, Fault> {
    let deadline = ask.deadline_or(request, limits.chat_deadline)?;
    let first = ask.deadline_or(request, limits.chat_first_token)?.earlier(deadline);
    Ok(StreamTimes { deadline, first, wait: limits.chat_keep_alive })
}

async fn read(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
    ask: &mut Ask,
    form: Form,
) -> Result<(Wanted, Share), Fault> {
    let (bytes, mut share) = body_of(request, payload, site, ask).await?;
    share.grow(bytes.len())?;
    let wanted = Wanted::read(&bytes, form)?;
    ask.told.model = Some(wanted.model.clone());
    ask.told.rows = wanted.answers;
    Ok((wanted, share))
}

/// The body, when it is said to be JSON, and its share of the process's budget.
async fn body_of(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
    ask: &mut Ask,
) -> Result<(Bytes, Share), Fault> {
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    // Nothing else: a form of another site's page must not reach this.
    if essence != "application/json" {
        body::discard(&mut payload.into_inner(), &site.process).await;
        let shown = start_of(&essence, 64);
        return Err(Fault::unsupported_media(format!("content type is {shown:?}, allowed is application/json")));
    }
    let limit = site.process.settings.limits.chat_body.as_u64() as usize;
    let (bytes, share) = body::read(request, payload, limit, "the JSON body", &site.process).await?;
    ask.told.bytes_in = bytes.len();
    Ok((bytes, share))
}

async fn whole(
    wanted: Wanted,
    site: &web::Data<Site>,
    ask: &mut Ask,
    times: StreamTimes,
) -> Result<HttpResponse, Fault> {
    let Wanted { form, model, request, echo, .. } = wanted;
    let reply = site.backend.chat_complete(request, &ask.caller(), &ask.request_id, times.deadline).await?;
    let usage = reply.usage.clone().unwrap_or_default();
    tell(ask, &usage, reply.timing.as_ref());
    if let Some(first) = reply.timing.as_ref().and_then(|timing| timing.first_token_us) {
        ask.told.first_token = Some(micros(Some(first)));
    }
    let choices = reply.choices.as_deref().unwrap_or_default();
    if choices.iter().any(|choice| choice.finish == Some(FinishReason::CANCELLED)) {
        return Err(Fault::unavailable("the server stopped the answer before it was complete"));
    }
    let name = named(&reply, model.as_str());
    let head = Head::new(form, ask.request_id.as_str(), name, text(&reply.version), false);
    let usage = UsageBody::from(&usage);
    let mut response = HttpResponse::Ok();
    Ok(match form {
        Form::Chat => response.json(ChatAnswer::new(&head, choices, usage)),
        Form::Completion => {
            let echoed: Vec<String> = choices
                .iter()
                .map(|choice| format!("{}{}", echo.as_deref().unwrap_or_default(), text(&choice.text)))
                .collect();
            let choices = choices.iter().zip(&echoed).map(|(choice, text)| CompletionChoice {
                text,
                index: choice.index.unwrap_or(0),
                logprobs: choice.logprobs.as_deref().map(|tokens| CompletionLogprobs::new(tokens, &mut 0)),
                finish_reason: Some(finish_reason(choice.finish)),
            });
            response.json(CompletionAnswer::new(&head, choices.collect(), Some(Some(usage))))
        }
    })
}

async fn streamed(wanted: Wanted, site: &web::Data<Site>, mut ask: Ask, times: StreamTimes) -> HttpResponse {
    let Wanted { form, request, answers, include_usage, echo, .. } = wanted;
    let begun = ask.in_time(site.backend.chat_start(request, &ask.caller(), &ask.request_id, times)).await;
    let (stream, first) = match begun {
        Ok(begun) => begun,
        Err(fault) => return ask.answer(Err(fault.into())),
    };
    ask.told.first_token = Some(ask.received.elapsed());
    let head = Head::new(form, ask.request_id.as_str(), stream.model.clone(), &stream.version, include_usage);
    stream::respond(ask, stream, Events::new(head, answers, echo), first)
}

fn named(reply: &ChatReply, asked: &str) -> String {
    reply.model.clone().unwrap_or_else(|| asked.to_owned())
}

/// For the log line and the metrics.
fn tell(ask: &mut Ask, usage: &Usage, timing: Option<&ChatTiming>) {
    let count = |tokens: Option<i32>| tokens.unwrap_or(0).max(0).unsigned_abs();
    ask.told.tokens_in = count(usage.prompt_tokens);
    ask.told.tokens_cached = count(usage.cached_tokens);
    ask.told.tokens_out = count(usage.completion_tokens);
    if let Some(timing) = timing {
        let (queue, prefill, decode) = (micros(timing.queue_us), micros(timing.prefill_us), micros(timing.decode_us));
        let run = prefill + decode;
        ask.told.server = ServerTimes { decode, queue, run, total: queue + run, batch_rows: 0 };
    }
}

fn micros(value: Option<i64>) -> Duration {
    Duration::from_micros(value.unwrap_or(0).max(0).unsigned_abs())
}
