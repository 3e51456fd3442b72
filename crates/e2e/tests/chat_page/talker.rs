//! A chat server that does what the last message says, so that a test decides when the next token comes.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use fault::{Fault, Kind};
use idl::chat::{
    ChatReply, ChatRequest, Choice, FinishReason, NextReply, NextRequest, Piece, StartReply, StartRequest, StopReply,
    StopRequest, Usage,
};
use idl::fault::{Fault as Thrown, FaultCode};
use idl::health::{CheckReply, CheckRequest, ServingStatus};
use idl::inference::{
    CancelRequest, ClassifyReply, ClassifyRequest, EmbedReply, EmbedRequest, InferReply, InferRequest, ModelInfo,
    ModelState, ModelsReply, ModelsRequest, Task,
};
use rpc::{CallContext, CallFuture, Drain, Instead, Refusal, Server, ServerLimits, Service};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use units::RequestId;
use wire::Request;

/// What a message makes the model say.
struct Script {
    texts: Vec<String>,
    end: End,
}

enum End {
    Well,
    /// More comes when another chat says `release`.
    Held,
    /// The server is lost.
    Lost,
}

/// An answer on its way.
struct Stream {
    pieces: Vec<Piece>,
    ended: bool,
}

#[derive(Default)]
struct Talker {
    streams: Mutex<HashMap<String, Stream>>,
    changed: Notify,
}

/// What the last message asks for.
fn script(request: &ChatRequest) -> Result<Script, Fault> {
    let messages = request.messages.as_deref().unwrap_or_default();
    let text = |message: &idl::chat::Message| message.content.clone().unwrap_or_default();
    let last = messages.last().map(text).unwrap_or_default();
    let well = |texts: Vec<String>| Ok(Script { texts, end: End::Well });
    match last.as_str() {
        "hold" => Ok(Script { texts: vec!["First half".to_owned()], end: End::Held }),
        "break" => Ok(Script { texts: vec!["Only this".to_owned()], end: End::Lost }),
        "release" => well(vec!["released".to_owned()]),
        "empty" => well(Vec::new()),
        "history" => {
            let role = |message: &idl::chat::Message| message.role.clone().unwrap_or_default();
            let lines: Vec<_> = messages.iter().map(|one| format!("{}: {}", role(one), text(one))).collect();
            well(vec![lines.join("; ")])
        }
        other => {
            if let Some(shown) = other.strip_prefix("show ") {
                return well(shown.split_inclusive(' ').map(str::to_owned).collect());
            }
            let kind = Kind::ALL.into_iter().find(|kind| kind.row().name == other);
            Err(match kind {
                Some(Kind::NotFound) => Fault::model_not_found("talker"),
                Some(kind) => Fault::new(kind, "as was asked for").with_retry_after(Duration::from_secs(2)),
                None => Fault::invalid_input(format!("no script for {other:?}")),
            })
        }
    }
}

fn usage(pieces: usize) -> Usage {
    let tokens = i32::try_from(pieces).ok();
    Usage { prompt_tokens: Some(5), completion_tokens: tokens, cached_tokens: Some(0) }
}

impl Talker {
    /// Every answer that is held ends well.
    fn release(&self) {
        for stream in self.streams.lock().expect("no panic").values_mut().filter(|stream| !stream.ended) {
            stream.say(" second half.");
            stream.finish();
        }
        self.changed.notify_waiters();
    }
}

impl Stream {
    fn say(&mut self, text: &str) {
        let number = self.pieces.len() as i64;
        let (number, index, text) = (Some(number), Some(0), Some(text.to_owned()));
        self.pieces.push(Piece { number, index, text, ..Piece::default() });
    }

    fn finish(&mut self) {
        let usage = Some(usage(self.pieces.len()));
        self.say("");
        let last = self.pieces.last_mut().expect("one was said");
        (last.finish, last.usage) = (Some(FinishReason::STOP), usage);
        self.ended = true;
    }
}

fn thrown(fault: Fault) -> Thrown {
    Thrown::thrown(fault, &RequestId::generate())
}

impl idl::Chat for Talker {
    type Context = CallContext;

    async fn complete(&self, _: CallContext, request: ChatRequest) -> Result<ChatReply, Thrown> {
        let script = script(&request).map_err(thrown)?;
        if script.texts.first().is_some_and(|text| text == "released") {
            self.release();
        }
        let choice = Choice {
            index: Some(0),
            text: Some(script.texts.concat()),
            finish: Some(FinishReason::STOP),
            ..Choice::default()
        };
        Ok(ChatReply {
            choices: Some(vec![choice]),
            usage: Some(usage(script.texts.len())),
            model: request.model,
            version: Some("1".to_owned()),
            ..ChatReply::default()
        })
    }

    async fn start(&self, _: CallContext, request: StartRequest) -> Result<StartReply, Thrown> {
        let chat = request.chat.unwrap_or_default();
        let script = script(&chat).map_err(thrown)?;
        let mut streams = self.streams.lock().expect("no panic");
        let mut stream = Stream { pieces: Vec::new(), ended: false };
        for text in &script.texts {
            stream.say(text);
        }
        match script.end {
            End::Well => stream.finish(),
            End::Held => {}
            End::Lost => {
                stream.say("");
                let last = stream.pieces.last_mut().expect("one was said");
                (last.error, last.error_message) = (Some(FaultCode::UNAVAILABLE), Some("the server ends".to_owned()));
                stream.ended = true;
            }
        }
        let id = RequestId::generate().as_str().to_owned();
        streams.insert(id.clone(), stream);
        self.changed.notify_waiters();
        Ok(StartReply {
            stream_id: Some(id),
            model: chat.model,
            version: Some("1".to_owned()),
            prompt_tokens: Some(5),
            ..StartReply::default()
        })
    }

    async fn next_pieces(&self, _: CallContext, request: NextRequest) -> Result<NextReply, Thrown> {
        let id = request.stream_id.unwrap_or_default();
        let from = request.from_piece.and_then(|from| usize::try_from(from).ok()).unwrap_or(0);
        let wait = Duration::from_millis(request.wait_ms.unwrap_or(0).unsigned_abs().into());
        let given_up = tokio::time::Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            let reply = {
                let streams = self.streams.lock().expect("no panic");
                let stream = streams.get(&id).ok_or_else(|| thrown(Fault::not_found("no such stream")))?;
                let pieces = stream.pieces.get(from..).unwrap_or_default().to_vec();
                NextReply { pieces: Some(pieces), ended: Some(stream.ended), request_id: None }
            };
            let news = reply.ended == Some(true) || reply.pieces.as_ref().is_some_and(|pieces| !pieces.is_empty());
            if news || tokio::time::timeout_at(given_up, changed).await.is_err() {
                return Ok(reply);
            }
        }
    }

    async fn stop(&self, _: CallContext, request: StopRequest) -> Result<StopReply, Thrown> {
        let stopped = self.streams.lock().expect("no panic").remove(&request.stream_id.unwrap_or_default()).is_some();
        self.changed.notify_waiters();
        Ok(StopReply { stopped: Some(stopped), ..StopReply::default() })
    }
}

impl idl::Inference for Talker {
    type Context = CallContext;

    async fn models(&self, _: CallContext, _: ModelsRequest) -> Result<ModelsReply, Thrown> {
        let model = |name: &str, state| ModelInfo {
            name: Some(name.to_owned()),
            task: Some(Task::CHAT),
            state: Some(state),
            ..ModelInfo::default()
        };
        let models = vec![
            model("talker", ModelState::READY),
            model("other", ModelState::READY),
            model("late", ModelState::WARMING),
        ];
        Ok(ModelsReply { models: Some(models), ..ModelsReply::default() })
    }

    async fn infer(&self, _: CallContext, _: InferRequest) -> Result<InferReply, Thrown> {
        Err(thrown(Fault::not_found("it only talks")))
    }

    async fn classify(&self, _: CallContext, _: ClassifyRequest) -> Result<ClassifyReply, Thrown> {
        Err(thrown(Fault::not_found("it only talks")))
    }

    async fn embed(&self, _: CallContext, _: EmbedRequest) -> Result<EmbedReply, Thrown> {
        Err(thrown(Fault::not_found("it only talks")))
    }

    async fn cancel(&self, _: CallContext, _: CancelRequest) {}
}

impl idl::Health for Talker {
    type Context = CallContext;

    async fn check(&self, _: CallContext, _: CheckRequest) -> Result<CheckReply, Thrown> {
        Ok(CheckReply { status: Some(ServingStatus::SERVING), ..CheckReply::default() })
    }
}

struct Thrift(Arc<Talker>);

impl Service for Thrift {
    fn call(&self, request: Request, call: CallContext) -> CallFuture {
        idl::dispatch_chat(&self.0, call, request)
            .or_else(|request, call| idl::dispatch_inference(&self.0, call, request))
            .or_else(|request, call| idl::dispatch_health(&self.0, call, request))
            .or_unknown_method()
    }

    fn refuse(&self, request: &Request, _: Refusal) -> Instead {
        Instead::Refused(Some(request.exception(&thrown(Fault::unavailable("draining")))))
    }
}

/// A running server; it ends when dropped.
pub(crate) struct TalkServer {
    pub(crate) address: SocketAddr,
    talker: Arc<Talker>,
    _runtime: Runtime,
}

impl TalkServer {
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let bind = Server::bind(SocketAddr::from(([127, 0, 0, 1], 0)), ServerLimits::default());
        let server = runtime.block_on(bind).expect("a free port");
        let address = server.local_addr().expect("bound");
        let talker = Arc::new(Talker::default());
        let service = Arc::new(Thrift(Arc::clone(&talker)));
        runtime.spawn(async move {
            // The handle must live as long as the server, or nobody could ever stop it.
            let (_handle, drain) = Drain::new(Drain::LIMIT);
            server.serve(service, drain).await;
        });
        Self { address, talker, _runtime: runtime }
    }

    /// Answers that have not ended and that nobody has stopped.
    pub(crate) fn unended(&self) -> usize {
        self.talker.streams.lock().expect("no panic").values().filter(|stream| !stream.ended).count()
    }
}
