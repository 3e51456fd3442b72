//! `POST /v1/chat/completions`, `POST /v1/completions` (whole and streamed) and `POST /v1/embeddings`: OpenAI's API.

mod description;
pub(crate) mod embeddings;
mod events;
mod fields;
mod logprobs;
mod messages;
mod request;
mod shape;
mod stream;
mod unsupported;

use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use fault::Fault;
use idl::chat::{ChatReply, ChatTiming, FinishReason, Usage};

pub(crate) use self::description::{ChatBody, CompletionBody, Refused, RequestHeaders};
pub(crate) use self::shape::{ChatAnswer, ChatChunk, CompletionAnswer};

use self::events::Events;
use self::logprobs::{CompletionLogprobs, Place};
use self::request::{Form, Wanted};
use self::shape::{CompletionChoice, Head, UsageBody, finish_reason, text};
use crate::ask::{Ask, ServerTimes};
use crate::backend::StreamTimes;
use crate::body;
use crate::memory::Share;
use crate::metrics::Route;
use crate::problem::{Problem, start_of};
use crate::settings::Limits;
use crate::site::Site;

/// Answers a conversation, word by word with `stream`.
#[utoipa::path(
    post, path = "/v1/chat/completions", tag = "chat",
    params(RequestHeaders),
    request_body(content = ChatBody),
    responses(
        (status = 200, description = "The answer; with `stream` server-sent events: chunks, then [DONE], or an error as the last event",
         content((ChatAnswer = "application/json"), (ChatChunk = "text/event-stream"))),
        Refused,
    ),
)]
pub(crate) async fn chat(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    post(&request, payload, &site, Form::Chat).await
}

/// Goes on with a text, word by word with `stream`.
#[utoipa::path(
    post, path = "/v1/completions", tag = "chat",
    params(RequestHeaders),
    request_body(content = CompletionBody),
    responses(
        (status = 200, description = "The answer; with `stream` server-sent events: chunks, then [DONE], or an error as the last event",
         content((CompletionAnswer = "application/json"), (CompletionAnswer = "text/event-stream"))),
        Refused,
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
    mut wanted: Wanted,
    site: &web::Data<Site>,
    ask: &mut Ask,
    times: StreamTimes,
) -> Result<HttpResponse, Fault> {
    let request = std::mem::take(&mut wanted.request);
    let reply = site.backend.chat_complete(request, &ask.caller(), &ask.names, times.deadline).await;
    let reply = reply.map_err(|fault| wanted.as_asked(fault))?;
    let Wanted { form, model, echo, .. } = wanted;
    let usage = answered(ask, &reply)?;
    let choices = reply.choices.as_deref().unwrap_or_default();
    let name = named(&reply, model.as_str());
    let head = Head::new(form, ask.names.request_id.as_str(), name, text(&reply.version), false);
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
                logprobs: choice
                    .logprobs
                    .as_deref()
                    .map(|tokens| CompletionLogprobs::new(tokens, &mut Place::default())),
                finish_reason: Some(finish_reason(choice.finish)),
            });
            response.json(CompletionAnswer::new(&head, choices.collect(), Some(Some(usage))))
        }
    })
}

async fn streamed(mut wanted: Wanted, site: &web::Data<Site>, mut ask: Ask, times: StreamTimes) -> HttpResponse {
    let request = std::mem::take(&mut wanted.request);
    let begun = ask.in_time(site.backend.chat_start(request, &ask.caller(), &ask.names, times)).await;
    let (stream, first) = match begun {
        Ok(begun) => begun,
        Err(fault) => return ask.answer(Err(wanted.as_asked(fault).into())),
    };
    let Wanted { form, answers, include_usage, echo, .. } = wanted;
    ask.told.first_token = Some(ask.received.elapsed());
    let head = Head::new(form, ask.names.request_id.as_str(), stream.model.clone(), &stream.version, include_usage);
    stream::respond(ask, stream, Events::new(head, answers, echo), first)
}

/// What a whole answer tells the log line and the metrics; its usage.
///
/// # Errors
/// Unavailable when the server gave it up.
pub(crate) fn answered(ask: &mut Ask, reply: &ChatReply) -> Result<Usage, Fault> {
    let usage = reply.usage.clone().unwrap_or_default();
    tell(ask, &usage, reply.timing.as_ref());
    ask.told.first_token = reply.timing.as_ref().and_then(|timing| timing.first_token_us).map(|us| micros(Some(us)));
    if reply.choices.iter().flatten().any(|choice| choice.finish == Some(FinishReason::CANCELLED)) {
        return Err(given_up());
    }
    Ok(usage)
}

fn given_up() -> Fault {
    Fault::unavailable("the server stopped the answer before it was complete")
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
