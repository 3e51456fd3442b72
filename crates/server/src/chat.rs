//! The service `Chat`: whole answers, and streams of them.

mod convert;
mod pieces;
mod seats;
mod stream;
mod streams;
mod tally;

use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::{Answers, Model};
use fault::Fault;
use idl::base::Base;
use idl::chat::{ChatReply, ChatRequest, NextReply, NextRequest, StartReply, StartRequest, StopReply, StopRequest};
use units::{Deadline, RequestId};

pub(crate) use seats::Seats;
pub(crate) use streams::{Limits, Numbers, Streams, before_the_end};
pub(crate) use tally::{Talk, Talked};

use crate::methods::{Context, Methods, owner};
use crate::record::{About, Origin, Spent};
use crate::trace::Call;
use stream::Opening;
use tally::Tally;

/// How long `next_pieces` waits when it does not say, and at most.
const WAIT: i32 = 10_000;
const LONGEST_WAIT: i32 = 30_000;

/// What all calls of `Chat` share.
pub(crate) struct Chats {
    pub(crate) streams: Streams,
    pub(crate) seats: Seats,
    /// Of a chat that names no timeout.
    pub(crate) deadline: Duration,
}

fn text(request_id: &RequestId) -> Option<String> {
    Some(request_id.as_str().to_owned())
}

/// Everything of all answers, when they have ended.
async fn whole(mut answers: Answers, wants_logprobs: bool, talk: &Talk) -> Result<Vec<idl::chat::Choice>, Fault> {
    let mut choices = convert::Choices::new(answers.count(), wants_logprobs);
    while let Some(said) = answers.next().await? {
        talk.count(&said);
        choices.take(said);
    }
    Ok(choices.into_wire())
}

impl idl::Chat for Methods {
    type Context = Context;

    async fn complete(&self, cx: Context, request: ChatRequest) -> Result<ChatReply, idl::fault::Fault> {
        let seen = Arc::clone(&cx.model);
        let talk = Talk::default();
        let about = About::chat(request.model.as_deref(), &talk);
        self.run("complete", cx, about, request, |request, request_id, call| async move {
            let model = self.find(request.model.as_deref(), request.version.as_deref(), &seen)?;
            let scope = self.scope(request.base.as_ref(), &call, self.chats.deadline);
            let owner = owner(&call, request.base.as_ref());
            let _seat = self.chats.seats.take(&owner, request.n)?;
            let wants_logprobs = request.logprobs.is_some();
            let answers = model.chat(convert::ask(request, owner)?, scope).await?;
            talk.begin(Tally::new(call.received, answers.prompt_tokens(), answers.count()));
            let choices = tokio::select! {
                choices = whole(answers, wants_logprobs, &talk) => choices?,
                () = self.chats.streams.cut() => return Err(streams::drained()),
            };
            let Some(talked) = talk.talked("ok") else {
                return Err(Fault::internal("a chat has ended and was not counted"));
            };
            let reply = ChatReply {
                choices: Some(choices),
                usage: Some(convert::usage(&talked)),
                model: Some(model.name().to_string()),
                version: Some(model.version().to_owned()),
                timing: Some(convert::timing(&talked)),
                request_id: text(&request_id),
            };
            Ok((reply, Spent::Chat(talked)))
        })
        .await
    }

    async fn start(&self, cx: Context, request: StartRequest) -> Result<StartReply, idl::fault::Fault> {
        let seen = Arc::clone(&cx.model);
        let about = About::new(request.chat.as_ref().and_then(|chat| chat.model.as_deref()), 1);
        // From here on: a drain that begins before the stream is open ends with the stream, too.
        let hold = self.chats.streams.hold();
        self.run("start", cx, about, request, |request, request_id, call| async move {
            let chat = request.chat.unwrap_or_default();
            let key = request.stream_key.as_deref().unwrap_or_default();
            let key = <[u8; 16]>::try_from(key).map_err(|_| {
                Fault::invalid_input(format!("stream_key has {} bytes, it must have 16", key.len()))
                    .with_param("stream_key")
            })?;
            let model = self.find(chat.model.as_deref(), chat.version.as_deref(), &seen)?;
            let scope = self.scope(request.base.as_ref(), &call, self.chats.deadline);
            let owner = owner(&call, request.base.as_ref());
            let bound = request.bound.unwrap_or(false).then(|| Arc::clone(&call.peer));
            let key = (owner.clone(), key);
            let stream = self.chats.streams.start(key.clone(), bound, scope.deadline, || async {
                let seat = self.chats.seats.take(&owner, chat.n)?;
                let ask = convert::ask(chat, owner)?;
                let answers = model.chat(ask, scope).await?;
                let opening = opening(model, &answers, &request_id);
                let origin = Origin::new(self, &call, request_id.clone(), model.name().as_str());
                Ok(self.chats.streams.open(opening, key, answers, origin, seat, hold))
            });
            let opening = stream.await?.opening.clone();
            let reply = StartReply {
                stream_id: Some(opening.stream_id),
                model: Some(opening.model),
                version: Some(opening.version),
                request_id: Some(opening.request_id),
                prompt_tokens: i32::try_from(opening.prompt_tokens).ok(),
            };
            Ok((reply, Spent::Elsewhere))
        })
        .await
    }

    async fn next_pieces(&self, cx: Context, request: NextRequest) -> Result<NextReply, idl::fault::Fault> {
        self.run("next_pieces", cx, About::new(None, 0), request, |request, request_id, call| async move {
            let wait = request.wait_ms.unwrap_or(WAIT);
            if !(0..=LONGEST_WAIT).contains(&wait) {
                let message = format!("wait_ms is {wait}, allowed is 0 to {LONGEST_WAIT}");
                return Err(Fault::invalid_input(message).with_param("wait_ms"));
            }
            let wait = Duration::from_millis(u64::from(wait.unsigned_abs()));
            let left = self.left(request.base.as_ref(), &call, wait);
            let stream = self.chats.streams.find(request.stream_id.as_deref())?;
            let (pieces, ended) = stream.next(request.from_piece.unwrap_or(0), wait.min(left)).await?;
            let reply = NextReply { pieces: Some(pieces), ended: Some(ended), request_id: text(&request_id) };
            Ok((reply, Spent::Elsewhere))
        })
        .await
    }

    async fn stop(&self, cx: Context, request: StopRequest) -> Result<StopReply, idl::fault::Fault> {
        self.run("stop", cx, About::new(None, 0), request, |request, request_id, _| async move {
            let stream = self.chats.streams.find(request.stream_id.as_deref())?;
            let reply = StopReply { stopped: Some(stream.stop()), request_id: text(&request_id) };
            Ok((reply, Spent::Elsewhere))
        })
        .await
    }
}

impl Methods {
    /// How long a call may wait so that its answer is back in time.
    fn left(&self, base: Option<&Base>, call: &Call, wait: Duration) -> Duration {
        let millis = base.and_then(|base| base.timeout_ms).filter(|millis| *millis != 0).map(i64::from);
        match millis {
            None => wait,
            Some(_) => {
                Deadline::from_millis(call.received, millis, wait, self.longest).left(Instant::now()).mul_f64(0.9)
            }
        }
    }
}

fn opening(model: &Model, answers: &Answers, request_id: &RequestId) -> Opening {
    Opening {
        // The registry's to give.
        stream_id: String::new(),
        model: model.name().to_string(),
        version: model.version().to_owned(),
        request_id: request_id.as_str().to_owned(),
        prompt_tokens: answers.prompt_tokens(),
    }
}
