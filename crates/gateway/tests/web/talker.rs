//! The chat side of the model server that tests play: it says what the test lets it say, when the test lets it.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fault::{Fault, Kind};
use idl::chat::{
    ChatReply, ChatRequest, ChatTiming, Choice, FinishReason, NextReply, NextRequest, Piece, StartReply, StartRequest,
    StopReply, StopRequest, TokenLogprob, Usage,
};
use idl::fault::{Fault as Thrown, FaultCode};
use rpc::CallContext;
use tokio::sync::Notify;
use units::RequestId;

use crate::server::Seen;

/// What every answer of the model `words` consists of.
pub(crate) const WORDS: [&str; 3] = ["one ", "two ", "thr\u{e9}"];

/// A stream that was started.
#[derive(Clone, Debug)]
pub(crate) struct Begun {
    pub(crate) bound: bool,
    pub(crate) timeout_ms: i32,
    pub(crate) key: Vec<u8>,
    /// `stop` was called.
    pub(crate) stopped: bool,
    /// Calls of `next_pieces`.
    pub(crate) asked: usize,
    pieces: Vec<Piece>,
}

/// `words` says [`WORDS`] for each answer; `told` says what [`Talker::say`] was given; any name of a fault's kind throws that
/// fault; `broken` and `cut` break before and behind their first word; `silent` says nothing at all; `unwell` loses its streams;
/// `dead` does not even begin one until it is let; `given-up` is stopped by the server itself.
#[derive(Default)]
pub(crate) struct Talker {
    pub(crate) requests: Mutex<Vec<ChatRequest>>,
    callers: Mutex<Vec<String>>,
    streams: Mutex<BTreeMap<String, Begun>>,
    /// Everything is turned away.
    pub(crate) full: AtomicBool,
    told: Notify,
    /// Lets the streams of `dead` begin.
    pub(crate) revived: Notify,
    seen: Arc<Seen>,
}

/// A piece with a text.
pub(crate) fn piece(text: &str) -> Piece {
    Piece { index: Some(0), text: Some(text.to_owned()), ..Piece::default() }
}

/// The last piece.
pub(crate) fn last(finish: FinishReason) -> Piece {
    Piece { finish: Some(finish), usage: Some(usage(3)), timing: Some(timing()), ..piece("") }
}

/// A piece that says what broke the stream.
pub(crate) fn broken(code: FaultCode, message: &str) -> Piece {
    Piece { error: Some(code), error_message: Some(message.to_owned()), ..Piece::default() }
}

fn usage(completion: usize) -> Usage {
    Usage { prompt_tokens: Some(11), completion_tokens: Some(completion as i32), cached_tokens: Some(4) }
}

fn timing() -> ChatTiming {
    ChatTiming { queue_us: Some(1_000), prefill_us: Some(2_000), decode_us: Some(3_000), first_token_us: Some(3_000) }
}

fn logprob(text: &str) -> TokenLogprob {
    TokenLogprob {
        token: Some(7),
        text: Some(text.to_owned()),
        bytes: Some(bytes::Bytes::copy_from_slice(text.as_bytes())),
        logprob: Some((-0.25).into()),
        top: None,
    }
}

impl Talker {
    pub(crate) fn new(seen: Arc<Seen>) -> Self {
        Self { seen, ..Self::default() }
    }

    /// Adds a piece to every stream of `told`, now or when it is started.
    pub(crate) fn say(&self, piece: Piece) {
        for stream in self.streams.lock().expect("no panic").values_mut() {
            let number = stream.pieces.len() as i64;
            stream.pieces.push(Piece { number: Some(number), ..piece.clone() });
        }
        self.told.notify_waiters();
    }

    pub(crate) fn streams(&self) -> Vec<Begun> {
        self.streams.lock().expect("no panic").values().cloned().collect()
    }

    pub(crate) fn requests(&self) -> Vec<ChatRequest> {
        self.requests.lock().expect("no panic").clone()
    }

    /// What each request says of who asks.
    pub(crate) fn callers(&self) -> Vec<String> {
        self.callers.lock().expect("no panic").clone()
    }

    fn note(&self, request: &ChatRequest, base: Option<&idl::base::Base>) -> Result<String, Fault> {
        let caller = base.and_then(|base| base.caller.clone()).unwrap_or_default();
        self.callers.lock().expect("no panic").push(caller);
        self.requests.lock().expect("no panic").push(request.clone());
        if self.full.load(Ordering::SeqCst) {
            return Err(Fault::overloaded("64 prompts are waiting, which is the limit"));
        }
        let model = request.model.clone().unwrap_or_default();
        if let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.row().name == model) {
            return Err(Fault::new(kind, "as was asked for").with_param("messages"));
        }
        match model.as_str() {
            "words" | "told" | "broken" | "cut" | "silent" | "unwell" | "dead" | "given-up" => Ok(model),
            _ => Err(Fault::model_not_found(&model)),
        }
    }

    fn whole(request: &ChatRequest, model: String, request_id: &RequestId) -> ChatReply {
        let choice = |index| Choice {
            index: Some(index),
            text: Some(WORDS.concat()),
            finish: Some(match (request.model.as_deref(), request.max_tokens) {
                (Some("given-up"), _) => FinishReason::CANCELLED,
                (_, Some(3)) => FinishReason::LENGTH,
                _ => FinishReason::STOP,
            }),
            logprobs: request.logprobs.map(|_| WORDS.iter().map(|word| logprob(word)).collect()),
            stop_text: None,
        };
        let answers = request.n.unwrap_or(1);
        ChatReply {
            choices: Some((0..answers).map(choice).collect()),
            usage: Some(usage(3 * answers as usize)),
            model: Some(model),
            version: Some("7".to_owned()),
            timing: Some(timing()),
            request_id: Some(request_id.as_str().to_owned()),
        }
    }

    fn script(request: &ChatRequest, model: &str) -> Vec<Piece> {
        let pieces: Vec<Piece> = match model {
            "words" => {
                let answers = request.n.unwrap_or(1);
                let of = |index| {
                    let words = WORDS.iter().map(move |word| Piece {
                        index: Some(index),
                        logprobs: request.logprobs.map(|_| vec![logprob(word)]),
                        ..piece(word)
                    });
                    let end = Piece { index: Some(index), ..last(FinishReason::STOP) };
                    let usage = (index + 1 == answers).then(|| usage(3 * answers as usize));
                    words.chain([Piece { usage, ..end }])
                };
                (0..answers).flat_map(of).collect()
            }
            "given-up" => vec![piece("one "), last(FinishReason::CANCELLED)],
            "broken" => vec![broken(FaultCode::INTERNAL, "the model gave no numbers")],
            "cut" => vec![piece("one "), broken(FaultCode::UNAVAILABLE, "the server is going away")],
            _ => Vec::new(),
        };
        (0..).zip(pieces).map(|(number, piece)| Piece { number: Some(number), ..piece }).collect()
    }
}

fn id(base: &Option<idl::base::Base>) -> RequestId {
    RequestId::keep_or_generate(base.as_ref().and_then(|base| base.request_id.as_deref()))
}

impl idl::Chat for Talker {
    type Context = CallContext;

    async fn complete(&self, _: CallContext, request: ChatRequest) -> Result<ChatReply, Thrown> {
        let request_id = id(&request.base);
        let model = self.note(&request, request.base.as_ref()).map_err(|fault| Thrown::thrown(fault, &request_id))?;
        if model == "silent" {
            let call_id = request.base.as_ref().and_then(|base| base.call_id.clone()).unwrap_or_default();
            self.seen.cancelled(&call_id).await;
            return Err(Thrown::thrown(Fault::cancelled("cancelled"), &request_id));
        }
        Ok(Self::whole(&request, model, &request_id))
    }

    async fn start(&self, _: CallContext, request: StartRequest) -> Result<StartReply, Thrown> {
        let request_id = id(&request.base);
        let chat = request.chat.unwrap_or_default();
        let model = self.note(&chat, request.base.as_ref()).map_err(|fault| Thrown::thrown(fault, &request_id))?;
        if model == "dead" {
            self.revived.notified().await;
        }
        let stream = Begun {
            bound: request.bound == Some(true),
            timeout_ms: request.base.and_then(|base| base.timeout_ms).unwrap_or_default(),
            key: request.stream_key.unwrap_or_default().to_vec(),
            stopped: false,
            asked: 0,
            pieces: Self::script(&chat, &model),
        };
        let mut streams = self.streams.lock().expect("no panic");
        let stream_id = format!("{model}-{}", streams.len());
        streams.insert(stream_id.clone(), stream);
        Ok(StartReply {
            stream_id: Some(stream_id),
            model: Some(model),
            version: Some("7".to_owned()),
            request_id: Some(request_id.as_str().to_owned()),
            prompt_tokens: Some(11),
        })
    }

    async fn next_pieces(&self, _: CallContext, request: NextRequest) -> Result<NextReply, Thrown> {
        let request_id = id(&request.base);
        let stream_id = request.stream_id.unwrap_or_default();
        let from = request.from_piece.unwrap_or(0) as usize;
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(10_000).unsigned_abs().into());
        let until = tokio::time::Instant::now() + wait;
        let look = |asked: usize| {
            let mut streams = self.streams.lock().expect("no panic");
            let stream = streams.get_mut(&stream_id).filter(|_| !stream_id.starts_with("unwell"))?;
            stream.asked += asked;
            let new = stream.pieces.get(from..).unwrap_or_default().to_vec();
            let ended = stream.stopped || new.last().is_some_and(|last| last.usage.is_some() || last.error.is_some());
            Some(NextReply { pieces: Some(new), ended: Some(ended), request_id: Some(request_id.as_str().to_owned()) })
        };
        let unknown = || Thrown::thrown(Fault::not_found("no stream of this name is here"), &request_id);
        let mut asked = 1;
        loop {
            let told = self.told.notified();
            tokio::pin!(told);
            told.as_mut().enable();
            let reply = look(std::mem::take(&mut asked)).ok_or_else(unknown)?;
            let something = reply.pieces.as_ref().is_some_and(|pieces| !pieces.is_empty());
            if something || reply.ended == Some(true) {
                return Ok(reply);
            }
            if tokio::time::timeout_at(until, told).await.is_err() {
                return Ok(reply);
            }
        }
    }

    async fn stop(&self, _: CallContext, request: StopRequest) -> Result<StopReply, Thrown> {
        let stream_id = request.stream_id.unwrap_or_default();
        let stopped = self
            .streams
            .lock()
            .expect("no panic")
            .get_mut(&stream_id)
            .is_some_and(|stream| !std::mem::replace(&mut stream.stopped, true));
        self.told.notify_waiters();
        Ok(StopReply { stopped: Some(stopped), request_id: Some(id(&request.base).as_str().to_owned()) })
    }
}
