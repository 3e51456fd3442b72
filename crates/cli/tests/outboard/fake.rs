//! A server that answers as a test tells it to, and remembers what it was asked.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use fault::Kind;
use idl::chat::{
    ChatReply, ChatRequest, FinishReason, NextReply, NextRequest, Piece, StartReply, StartRequest, StopReply,
    StopRequest, Usage,
};
use idl::fault::{Fault, FaultCode};
use idl::health::{CheckReply, CheckRequest, ServingStatus};
use idl::inference::{
    CancelRequest, Classification, ClassifyReply, ClassifyRequest, DataType, EmbedReply, EmbedRequest, InferReply,
    InferRequest, Label, ModelInfo, ModelState, ModelsReply, ModelsRequest, Task, TensorSpec,
};
use rpc::{CallContext, CallFuture, Drain, Instead, Refusal, Server, ServerLimits, Service};
use tokio::sync::oneshot;
use wire::Request;

/// What the fake says.
#[derive(Clone)]
pub(crate) struct Script {
    pub(crate) health: CheckReply,
    /// `infer` and `classify` of this model throw Internal.
    pub(crate) broken: Option<&'static str>,
    /// The shape that the first input of `numbers` is said to have.
    pub(crate) shape: Vec<i64>,
    /// How long each `infer` and `classify` takes.
    pub(crate) run_time: Duration,
    /// Language models; `loading-...` are not ready.
    pub(crate) talkers: Vec<&'static str>,
}

impl Script {
    pub(crate) fn status(status: ServingStatus) -> Self {
        let health =
            CheckReply { status: Some(status), load: Some(0.25.into()), live: Some(true), ..CheckReply::default() };
        Self { health, broken: None, shape: vec![-1, 3], run_time: Duration::ZERO, talkers: Vec::new() }
    }
}

/// The requests that arrived, in order.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) checks: Vec<CheckRequest>,
    pub(crate) classified: Vec<ClassifyRequest>,
    pub(crate) inferred: Vec<InferRequest>,
    pub(crate) embedded: Vec<EmbedRequest>,
    pub(crate) started: Vec<StartRequest>,
    pub(crate) stopped: usize,
}

/// A stream that was started: what is still to be said, and whether it was stopped.
struct Stream {
    words: Vec<String>,
    stopped: bool,
}

struct Methods {
    script: Script,
    streams: Mutex<HashMap<String, Stream>>,
    seen: Arc<Mutex<Seen>>,
}

/// A running fake; dropping it stops it.
pub(crate) struct Fake {
    pub(crate) address: String,
    pub(crate) seen: Arc<Mutex<Seen>>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Fake {
    pub(crate) fn serving() -> Self {
        Self::start(Script::status(ServingStatus::SERVING))
    }

    pub(crate) fn start(script: Script) -> Self {
        let seen = Arc::new(Mutex::new(Seen::default()));
        let service = Arc::new(Front(Arc::new(Methods { script, streams: Mutex::default(), seen: Arc::clone(&seen) })));
        let (stop, stopped) = oneshot::channel();
        let (tell, told) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async move {
                let server = Server::bind("127.0.0.1:0".parse().unwrap(), ServerLimits::default()).await.unwrap();
                tell.send(server.local_addr().unwrap().to_string()).unwrap();
                let (_handle, drain) = Drain::new(Drain::LIMIT);
                tokio::select! {
                    () = server.serve(service, drain) => {}
                    _ = stopped => {}
                }
            });
        });
        Self { address: told.recv().expect("the fake listens"), seen, stop: Some(stop), thread: Some(thread) }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            assert!(ended.is_ok() || std::thread::panicking(), "the fake panicked");
        }
    }
}

struct Front(Arc<Methods>);

impl Service for Front {
    fn call(&self, request: Request, call: CallContext) -> CallFuture {
        idl::dispatch_inference(&self.0, call, request)
            .or_else(|request, call| idl::dispatch_chat(&self.0, call, request))
            .or_else(|request, call| idl::dispatch_health(&self.0, call, request))
            .or_unknown_method()
    }

    fn refuse(&self, _: &Request, _: Refusal) -> Instead {
        Instead::Refused(None)
    }
}

pub(crate) fn thrown(code: i32, message: &str) -> Fault {
    Fault {
        code: Some(FaultCode(code)),
        message: Some(message.to_owned()),
        request_id: Some("request-of-the-fake".to_owned()),
        ..Fault::default()
    }
}

impl Methods {
    /// A model `fault-N` throws code N.
    fn refuse(&self, model: &str) -> Result<(), Fault> {
        if let Some(code) = model.strip_prefix("fault-") {
            return Err(thrown(code.parse().unwrap(), "as the test wants it"));
        }
        match self.script.broken {
            Some(broken) if broken == model => Err(thrown(Kind::Internal.row().thrift, "the model is broken")),
            _ => Ok(()),
        }
    }

    fn catalogue(&self) -> Vec<ModelInfo> {
        let spec = |name: &str, kind, shape: &[i64], has_default| TensorSpec {
            name: Some(name.to_owned()),
            data_type: Some(kind),
            shape: Some(shape.to_vec()),
            has_default,
            ..TensorSpec::default()
        };
        let model = |name: &str, task, state| ModelInfo {
            name: Some(name.to_owned()),
            version: Some("7".to_owned()),
            task: Some(task),
            state: Some(state),
            device: Some("cpu".to_owned()),
            ..ModelInfo::default()
        };
        let talkers = self.script.talkers.iter().map(|name| {
            let state = if name.starts_with("loading-") { ModelState::LOADING } else { ModelState::READY };
            model(name, Task::CHAT, state)
        });
        let others = vec![
            model("pictures", Task::CLASSIFY, ModelState::READY),
            ModelInfo {
                inputs: Some(vec![
                    spec("rows", DataType::F32, &self.script.shape, None),
                    spec("names", DataType::STRING, &[2], Some(false)),
                    spec("extra", DataType::I64, &[1], Some(true)),
                ]),
                ..model("numbers", Task::TENSOR, ModelState::READY)
            },
            model("sentences", Task::EMBED, ModelState::READY),
            model("unfinished", Task::CLASSIFY, ModelState::LOADING),
        ];
        others.into_iter().chain(talkers).collect()
    }
}

impl idl::Health for Methods {
    type Context = CallContext;

    async fn check(&self, _: CallContext, request: CheckRequest) -> Result<CheckReply, Fault> {
        let known = request
            .model
            .as_deref()
            .is_none_or(|model| self.catalogue().iter().any(|one| one.name.as_deref() == Some(model)));
        self.seen.lock().unwrap().checks.push(request);
        if known { Ok(self.script.health.clone()) } else { Err(thrown(Kind::NotFound.row().thrift, "no model absent")) }
    }
}

impl idl::Inference for Methods {
    type Context = CallContext;

    async fn models(&self, _: CallContext, request: ModelsRequest) -> Result<ModelsReply, Fault> {
        let mut models = self.catalogue();
        if let Some(only) = request.model {
            self.refuse(&only)?;
            models.retain(|model| model.name.as_ref() == Some(&only));
            if models.is_empty() {
                return Err(thrown(Kind::NotFound.row().thrift, "no model absent"));
            }
        }
        Ok(ModelsReply { models: Some(models), ..ModelsReply::default() })
    }

    async fn infer(&self, _: CallContext, request: InferRequest) -> Result<InferReply, Fault> {
        let model = request.model.clone().unwrap_or_default();
        self.seen.lock().unwrap().inferred.push(request.clone());
        tokio::time::sleep(self.script.run_time).await;
        self.refuse(&model)?;
        Ok(InferReply { outputs: request.inputs, model: request.model, ..InferReply::default() })
    }

    async fn classify(&self, _: CallContext, request: ClassifyRequest) -> Result<ClassifyReply, Fault> {
        let model = request.model.clone().unwrap_or_default();
        self.seen.lock().unwrap().classified.push(request.clone());
        tokio::time::sleep(self.script.run_time).await;
        self.refuse(&model)?;
        if request.images.iter().flatten().any(|image| image.starts_with(b"broken")) {
            return Err(thrown(Kind::UnsupportedMedia.row().thrift, "a picture is broken"));
        }
        // Large pictures are told by their beginning.
        let text = |image: &Bytes| String::from_utf8_lossy(&image[..image.len().min(20)]).trim_end().to_owned();
        let result = |image: &Bytes| Classification {
            labels: Some(vec![label(&text(image), 0, 0.75), label("something else", 1, 0.25)]),
            format: Some("png".to_owned()),
            ..Classification::default()
        };
        let results = request.images.iter().flatten().map(result).collect();
        Ok(ClassifyReply { results: Some(results), model: request.model, ..ClassifyReply::default() })
    }

    /// Two numbers: whether the text has a `b` in it, and whether it has none.
    async fn embed(&self, _: CallContext, request: EmbedRequest) -> Result<EmbedReply, Fault> {
        self.seen.lock().unwrap().embedded.push(request.clone());
        let texts = request.texts.unwrap_or_default();
        let vector = |text: &String| if text.contains('b') { [1.0_f32, 0.0] } else { [0.0, 1.0] };
        let bytes: Vec<u8> = texts.iter().flat_map(vector).flat_map(f32::to_le_bytes).collect();
        Ok(EmbedReply {
            vectors: Some(bytes.into()),
            dimensions: Some(2),
            token_counts: Some(texts.iter().map(|text| text.len() as i32).collect()),
            model: request.model,
            ..EmbedReply::default()
        })
    }

    async fn cancel(&self, _: CallContext, _: CancelRequest) {}
}

/// Says back what it was told, a word in each reply; `endless` goes on until it is stopped, `deaf` even then and does not answer
/// that, `break` breaks.
impl idl::Chat for Methods {
    type Context = CallContext;

    async fn complete(&self, _: CallContext, _: ChatRequest) -> Result<ChatReply, Fault> {
        Err(thrown(Kind::Internal.row().thrift, "streams only"))
    }

    async fn start(&self, _: CallContext, request: StartRequest) -> Result<StartReply, Fault> {
        let chat = request.chat.clone().unwrap_or_default();
        self.refuse(chat.model.as_deref().unwrap_or_default())?;
        let said = chat.messages.iter().flatten().last().and_then(|message| message.content.clone());
        let words = said.unwrap_or_default().split_inclusive(' ').map(str::to_owned).collect();
        let mut seen = self.seen.lock().unwrap();
        seen.started.push(request);
        let id = format!("stream-{}", seen.started.len());
        self.streams.lock().unwrap().insert(id.clone(), Stream { words, stopped: false });
        let version = Some("7".to_owned());
        Ok(StartReply { stream_id: Some(id), model: chat.model, version, ..StartReply::default() })
    }

    async fn next_pieces(&self, _: CallContext, request: NextRequest) -> Result<NextReply, Fault> {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let (id, from) = (request.stream_id.unwrap_or_default(), request.from_piece.unwrap_or_default());
        let streams = self.streams.lock().unwrap();
        let stream = streams.get(&id).ok_or_else(|| thrown(Kind::NotFound.row().thrift, "no such stream"))?;
        let at = from as usize;
        let mut piece = Piece { number: Some(from), index: Some(0), ..Piece::default() };
        let first = stream.words.first().map_or("", |word| word.trim());
        let endless = first == "endless" || first == "deaf";
        let end = |finish| (Some(finish), Some(Usage { prompt_tokens: Some(3), ..Usage::default() }));
        if stream.stopped {
            (piece.finish, piece.usage) = end(FinishReason::CANCELLED);
        } else if first == "break" {
            piece.error = Some(FaultCode(Kind::Overloaded.row().thrift));
            piece.error_message = Some("too much of it".to_owned());
        } else {
            piece.text = Some(if endless { "on ".to_owned() } else { stream.words[at].clone() });
            if !endless && at + 1 == stream.words.len() {
                (piece.finish, piece.usage) = end(FinishReason::STOP);
            }
        }
        let ended = piece.finish.is_some() || piece.error.is_some();
        Ok(NextReply { pieces: Some(vec![piece]), ended: Some(ended), ..NextReply::default() })
    }

    async fn stop(&self, _: CallContext, request: StopRequest) -> Result<StopReply, Fault> {
        self.seen.lock().unwrap().stopped += 1;
        let id = request.stream_id.unwrap_or_default();
        let is_deaf = |stream: &Stream| stream.words.first().is_some_and(|word| word == "deaf");
        if self.streams.lock().unwrap().get(&id).is_some_and(is_deaf) {
            return std::future::pending().await;
        }
        let mut streams = self.streams.lock().unwrap();
        let stream = streams.get_mut(&id);
        let stopped = stream.map(|stream| stream.stopped = true).is_some();
        Ok(StopReply { stopped: Some(stopped), ..StopReply::default() })
    }
}

fn label(text: &str, index: i32, score: f64) -> Label {
    Label { label: Some(text.to_owned()), index: Some(index), score: Some(score.into()) }
}
