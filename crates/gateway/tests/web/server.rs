//! A model server that does what the model's name says; real Thrift over the real `rpc::Server`.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use idl::fault::Fault as Thrown;
use idl::health::{CheckReply, CheckRequest, ServingStatus};
use idl::inference::{
    CancelRequest, Classification, ClassifyReply, ClassifyRequest, EmbedReply, EmbedRequest, InferReply, InferRequest,
    Label, ModelInfo, ModelState, ModelsReply, ModelsRequest, Task, Timing,
};
use rpc::{CallContext, CallFuture, Drain, Instead, Refusal, Server, ServerLimits, Service};
use tokio::runtime::Runtime;
use tokio::sync::Notify;
use units::RequestId;
use wire::Request;

use crate::talker::Talker;

/// A request as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) request_id: String,
    pub(crate) timeout_ms: i32,
    pub(crate) images: Vec<Vec<u8>>,
    pub(crate) top_k: Option<i32>,
    pub(crate) key: Option<String>,
}

/// What has happened so far.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) arrived: Mutex<Vec<Arrived>>,
    /// Calls of `held` that did not answer: cancelled, or dropped with their connection.
    stopped: Mutex<usize>,
    /// Calls of `embed` for `held` that have begun.
    held: Mutex<usize>,
    /// Who the texts were said to be of.
    embedders: Mutex<Vec<String>>,
    /// Ids of calls that were cancelled.
    cancelled: Mutex<Vec<Vec<u8>>>,
    cancel: Notify,
    release: Notify,
}

/// `good` answers, `held` answers when it is let, `wordy` says much of what went wrong, any name of a fault's kind throws that fault.
/// Health says what it was made with.
struct Behaviour(Arc<Seen>, ServingStatus);

/// Counts a call that is not answered.
struct Unanswered<'a>(Option<&'a Seen>);

impl Drop for Unanswered<'_> {
    fn drop(&mut self) {
        if let Some(seen) = self.0 {
            *seen.stopped.lock().expect("no panic") += 1;
        }
    }
}

impl Seen {
    /// Resolves when this call is cancelled.
    pub(crate) async fn cancelled(&self, call_id: &[u8]) {
        loop {
            let next = self.cancel.notified();
            if self.cancelled.lock().expect("no panic").iter().any(|id| id == call_id) {
                return;
            }
            next.await;
        }
    }
}

impl idl::Inference for Behaviour {
    type Context = CallContext;

    async fn models(&self, _: CallContext, _: ModelsRequest) -> Result<ModelsReply, Thrown> {
        let model = |name: &str, task, state| ModelInfo {
            name: Some(name.to_owned()),
            version: Some("1".to_owned()),
            task: Some(task),
            state: Some(state),
            modified_s: (name == "good").then_some(1_700_000_000),
            description: Some(format!("What <{name}> knows & does")),
            ..ModelInfo::default()
        };
        let models = vec![
            model("good", Task::CLASSIFY, ModelState::READY),
            model("held", Task::CLASSIFY, ModelState::READY),
            model("warming", Task::CLASSIFY, ModelState::WARMING),
            model("numbers", Task::TENSOR, ModelState::READY),
        ];
        Ok(ModelsReply { models: Some(models), ..ModelsReply::default() })
    }

    async fn infer(&self, _: CallContext, _: InferRequest) -> Result<InferReply, Thrown> {
        Ok(InferReply::default())
    }

    /// Vectors of two numbers unless others are asked for: the length of the text in bytes (or in tokens), then 0.25.
    async fn embed(&self, _: CallContext, request: EmbedRequest) -> Result<EmbedReply, Thrown> {
        let lengths: Vec<usize> = match (&request.texts, &request.tokens) {
            (Some(texts), _) => texts.iter().map(String::len).collect(),
            (None, Some(tokens)) => tokens.iter().map(|one| one.ids.iter().flatten().count()).collect(),
            (None, None) => Vec::new(),
        };
        let caller = request.base.as_ref().and_then(|base| base.caller.clone());
        self.0.embedders.lock().expect("no panic").extend(caller);
        if request.model.as_deref() == Some("held") {
            *self.0.held.lock().expect("no panic") += 1;
            self.0.release.notified().await;
        }
        let dimensions = request.dimensions.unwrap_or(2);
        let vector = |length: &usize| {
            let numbers = (0..dimensions).map(|at| if at == 0 { *length as f32 } else { 0.25 });
            numbers.flat_map(f32::to_le_bytes).collect::<Vec<u8>>()
        };
        if let Some(kind) = fault::Kind::ALL.into_iter().find(|kind| Some(kind.row().name) == request.model.as_deref())
        {
            let id = RequestId::generate();
            return Err(Thrown::thrown(fault::Fault::new(kind, "as was asked for").with_param("texts"), &id));
        }
        Ok(EmbedReply {
            vectors: Some(lengths.iter().flat_map(vector).collect::<Vec<u8>>().into()),
            dimensions: Some(dimensions),
            token_counts: Some(lengths.iter().map(|length| *length as i32).collect()),
            model: request.model,
            version: Some("1".to_owned()),
            ..EmbedReply::default()
        })
    }

    async fn classify(&self, _: CallContext, request: ClassifyRequest) -> Result<ClassifyReply, Thrown> {
        let base = request.base.unwrap_or_default();
        let request_id = RequestId::keep_or_generate(base.request_id.as_deref());
        let images = request.images.unwrap_or_default();
        self.0.arrived.lock().expect("no panic").push(Arrived {
            request_id: request_id.as_str().to_owned(),
            timeout_ms: base.timeout_ms.unwrap_or_default(),
            images: images.iter().map(|image| image.to_vec()).collect(),
            top_k: request.top_k,
            key: base.key.clone(),
        });
        let model = request.model.unwrap_or_default();
        match model.as_str() {
            "good" => {}
            "wordy" => return Err(Thrown::thrown(fault::Fault::internal("w".repeat(100_000)), &request_id)),
            "held" => {
                let mut guard = Unanswered(Some(&self.0));
                let call_id = base.call_id.unwrap_or_default();
                tokio::select! {
                    () = self.0.release.notified() => guard.0 = None,
                    () = self.0.cancelled(&call_id) => {
                        return Err(Thrown::thrown(fault::Fault::cancelled("cancelled"), &request_id));
                    }
                }
            }
            other => {
                let kind = fault::Kind::ALL.into_iter().find(|kind| kind.row().name == other);
                let fault = kind.map_or_else(
                    || fault::Fault::model_not_found(other),
                    |kind| fault::Fault::new(kind, "as was asked for").with_param("top_k"),
                );
                return Err(Thrown::thrown(fault, &request_id));
            }
        }
        let label = |(index, score): (i32, f64)| Label {
            label: Some(format!("label <{index}>")),
            index: Some(index),
            score: Some(score.into()),
        };
        let scores = [0.75, 0.125, 0.0625, 0.03125, 0.015625];
        let result = Classification {
            labels: Some((0..).zip(scores).map(label).take(request.top_k.unwrap_or(5) as usize).collect()),
            width: Some(28),
            height: Some(27),
            format: Some("png".to_owned()),
            preview: request.preview_px.map(|_| bytes::Bytes::from_static(b"a small jpeg")),
        };
        Ok(ClassifyReply {
            results: Some(vec![result; images.len()]),
            model: Some(model),
            version: Some("7".to_owned()),
            timing: Some(Timing {
                decode_us: Some(1_000),
                queue_us: Some(2_000),
                run_us: Some(3_000),
                total_us: Some(6_000),
                batch_rows: Some(4),
            }),
            request_id: Some(request_id.as_str().to_owned()),
        })
    }

    async fn cancel(&self, _: CallContext, request: CancelRequest) {
        let call_id = request.call_id.unwrap_or_default();
        self.0.cancelled.lock().expect("no panic").push(call_id.to_vec());
        self.0.cancel.notify_waiters();
    }
}

impl idl::Health for Behaviour {
    type Context = CallContext;

    async fn check(&self, _: CallContext, _: CheckRequest) -> Result<CheckReply, Thrown> {
        Ok(CheckReply {
            status: Some(self.1),
            reason: Some("as the test wants it".to_owned()),
            ..CheckReply::default()
        })
    }
}

struct Thrift(Arc<Behaviour>, Arc<Talker>);

impl Service for Thrift {
    fn call(&self, request: Request, call: CallContext) -> CallFuture {
        idl::dispatch_inference(&self.0, call, request)
            .or_else(|request, call| idl::dispatch_chat(&self.1, call, request))
            .or_else(|request, call| idl::dispatch_health(&self.0, call, request))
            .or_unknown_method()
    }

    fn refuse(&self, request: &Request, _: Refusal) -> Instead {
        let thrown = Thrown::thrown(fault::Fault::unavailable("draining"), &RequestId::generate());
        Instead::Refused(Some(request.exception(&thrown)))
    }
}

/// A running server; dropping it closes its connections and its listener.
pub(crate) struct FakeServer {
    pub(crate) address: SocketAddr,
    pub(crate) seen: Arc<Seen>,
    pub(crate) talker: Arc<Talker>,
    _runtime: Runtime,
}

impl FakeServer {
    pub(crate) fn start() -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    /// One that can be reached and does not serve.
    pub(crate) fn draining() -> Self {
        Self::start_with(SocketAddr::from(([127, 0, 0, 1], 0)), ServingStatus::DRAINING)
    }

    pub(crate) fn start_at(address: SocketAddr) -> Self {
        Self::start_with(address, ServingStatus::SERVING)
    }

    fn start_with(address: SocketAddr, status: ServingStatus) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .expect("a runtime starts");
        let seen = Arc::new(Seen::default());
        let server = runtime.block_on(Server::bind(address, ServerLimits::default())).expect("the address is free");
        let address = server.local_addr().expect("bound");
        let talker = Arc::new(Talker::new(Arc::clone(&seen)));
        let service = Arc::new(Thrift(Arc::new(Behaviour(Arc::clone(&seen), status)), Arc::clone(&talker)));
        runtime.spawn(async move {
            // The handle must live as long as the server, or nobody could ever stop it.
            let (_handle, drain) = Drain::new(Drain::LIMIT);
            server.serve(service, drain).await;
        });
        Self { address, seen, talker, _runtime: runtime }
    }

    /// Lets one held call go on.
    pub(crate) fn release(&self) {
        self.seen.release.notify_one();
    }

    pub(crate) fn arrived(&self) -> Vec<Arrived> {
        self.seen.arrived.lock().expect("no panic").clone()
    }

    /// Who the texts were said to be of, in order.
    pub(crate) fn embedders(&self) -> Vec<String> {
        self.seen.embedders.lock().expect("no panic").clone()
    }

    /// Texts that wait for [`FakeServer::release`].
    pub(crate) fn held(&self) -> usize {
        *self.seen.held.lock().expect("no panic")
    }

    /// Calls that were cancelled.
    pub(crate) fn cancelled(&self) -> usize {
        self.seen.cancelled.lock().expect("no panic").len()
    }

    /// Held calls that ended without an answer.
    pub(crate) fn stopped(&self) -> usize {
        *self.seen.stopped.lock().expect("no panic")
    }
}
