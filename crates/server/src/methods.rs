//! What each Thrift method does.

use std::future::Future;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use chassis::logs::Requests;
use chassis::traces::{Span, Traces};
use engine::{CallScope, ClassifyOptions, Engine, Model};
use fault::{Fault, Kind};
use idl::HasBase;
use idl::health::{CheckReply, CheckRequest};
use idl::inference::{
    CancelRequest, ClassifyReply, ClassifyRequest, EmbedReply, EmbedRequest, InferReply, InferRequest, ModelsReply,
    ModelsRequest,
};
use rpc::CallContext;
use units::{CallId, Deadline, RequestId};

use crate::access::Access;
use crate::calls::Calls;
use crate::chat::Chats;
use crate::convert;
use crate::metrics::ServerMetrics;
use crate::record::{About, Record, Spent, bounded};
use crate::trace::{Call, Trace};

/// Labels that an answer has when the caller does not say how many.
const TOP_K: i32 = 5;

/// Most bytes of a caller's own name that count.
const CALLER: usize = 128;

/// How far a handler has come: not begun, begun, or done so many nanoseconds after the call was received, which is where
/// encoding the answer begins.
#[derive(Clone, Default)]
pub(crate) struct Finished(Arc<Progress>);

#[derive(Default)]
struct Progress {
    nanos: AtomicU64,
    /// The call's span, which ends when the answer is encoded.
    span: OnceLock<Box<Span>>,
}

impl Finished {
    const BEGUN: u64 = 1;

    fn begin(&self) {
        self.0.nanos.store(Self::BEGUN, Ordering::Relaxed);
    }

    fn mark(&self, received: Instant) {
        let nanos = u64::try_from(received.elapsed().as_nanos()).unwrap_or(u64::MAX);
        self.0.nanos.store(nanos.max(Self::BEGUN + 1), Ordering::Relaxed);
    }

    /// Whether the arguments could be read, so that there was something to begin with.
    pub(crate) fn has_begun(&self) -> bool {
        self.0.nanos.load(Ordering::Relaxed) >= Self::BEGUN
    }

    /// Leaves the call's span to whoever encodes the answer.
    pub(crate) fn leave(&self, span: Span) {
        // Each call has one end.
        let _ = self.0.span.set(Box::new(span));
    }

    /// The call's span, and that of the encoding, which took so long until now.
    pub(crate) fn spans(&self, encode: Duration) -> Option<[Span; 2]> {
        let (span, now) = (self.0.span.get()?, Instant::now());
        let began = now.checked_sub(encode).unwrap_or(now);
        Some([span.part_of("encode", began, now), Span::clone(span).until(now)])
    }

    /// How long ago the handler was done; `None` when it was not.
    pub(crate) fn since(&self, received: Instant) -> Option<Duration> {
        let nanos = self.0.nanos.load(Ordering::Relaxed);
        (nanos > Self::BEGUN).then(|| received.elapsed().saturating_sub(Duration::from_nanos(nanos)))
    }
}

/// Whose prefixes, streams and shares they are. What a caller calls itself proves nothing, so it only ever keeps apart what one
/// address, certificate or key asks for several, as a gateway does; all of them together are bounded by what models take.
pub(crate) fn owner(call: &Call, base: Option<&idl::base::Base>) -> String {
    let name = base.and_then(|base| base.caller.as_deref()).unwrap_or_default();
    format!("{} {}", call.caller, &name[..name.floor_char_boundary(CALLER)])
}

/// What comes with a call.
pub(crate) struct Context {
    pub(crate) call: CallContext,
    pub(crate) finished: Finished,
    /// The model that the call was about, for the metrics of what follows.
    pub(crate) model: Arc<OnceLock<Arc<Model>>>,
}

/// The services `Inference`, `Chat` and `Health`.
pub(crate) struct Methods {
    pub(crate) engine: Arc<Engine>,
    pub(crate) metrics: Arc<ServerMetrics>,
    pub(crate) access: Access,
    pub(crate) calls: Calls,
    pub(crate) chats: Chats,
    pub(crate) requests: Requests,
    pub(crate) traces: Traces,
    pub(crate) longest: Duration,
    /// Most labels in an answer, and longest edge of a preview: the engine keeps them, the messages here name them.
    pub(crate) top_k: usize,
    pub(crate) preview_px: u32,
    /// Names this process.
    pub(crate) instance: String,
}

impl Methods {
    pub(crate) fn scope(&self, base: Option<&idl::base::Base>, call: &Call, default: Duration) -> CallScope {
        let millis = base.and_then(|base| base.timeout_ms).map(i64::from);
        let deadline = Deadline::from_millis(call.received, millis, default, self.longest);
        CallScope { received: call.received, deadline, trace: call.trace.told() }
    }

    /// Runs one call: asks whose it is, gives it an id, lets it be cancelled, counts it, logs it, and makes its failure an exception.
    pub(crate) async fn run<Q, R, S, W>(
        &self,
        method: &'static str,
        cx: Context,
        about: About,
        request: Q,
        work: impl FnOnce(Q, RequestId, Call) -> W,
    ) -> Result<R, idl::fault::Fault>
    where
        Q: HasBase,
        S: Into<Spent>,
        W: Future<Output = Result<(R, S), Fault>>,
    {
        let base = request.base();
        let request_id = RequestId::keep_or_generate(base.and_then(|base| base.request_id.as_deref()));
        let call_id = base.and_then(|base| base.call_id.as_deref()).and_then(CallId::from_slice);
        let checked = self.access.check(base, &cx.call.peer, Access::need(method));
        let (caller, refusal) = match checked {
            Ok(caller) => (caller, None),
            Err(refusal) => (cx.call.peer.caller(), Some(refusal)),
        };
        let call = Call { context: cx.call, caller, trace: Trace::of(&self.traces, base) };
        let (received, trace) = (call.received, call.trace);
        // Declared before the work, so dropped after it: a caller that leaves drops this whole future.
        let record = Record::begin(self, method, call.clone(), request_id.clone(), about);
        cx.finished.begin();
        let result = match refusal {
            Some(refusal) => Err(refusal),
            None => {
                let maker = self.access.maker(&call.caller, &call.peer);
                let entry = call_id.and_then(|id| self.calls.enter(maker, id));
                let work = work(request, request_id.clone(), call);
                match entry {
                    None => work.await,
                    Some(mut entry) => tokio::select! {
                        done = work => done,
                        () = entry.cancelled() => Err(Fault::cancelled("the caller cancelled the call")),
                    },
                }
            }
        };
        let result = result.map(|(reply, spent)| (reply, spent.into())).map_err(bounded);
        if let Some(span) = record.end(result.as_ref().map(|(_, spent)| spent)) {
            cx.finished.leave(span);
        }
        cx.finished.mark(received);
        let thrown = |fault| idl::fault::Fault::thrown(fault, &request_id).in_trace(trace.id());
        result.map(|(reply, _)| reply).map_err(thrown)
    }

    /// A number that must not be negative.
    fn unsigned<N>(name: &'static str, value: i32, least: u32, most: N) -> Result<N, Fault>
    where
        N: TryFrom<i32> + std::fmt::Display,
    {
        N::try_from(value).map_err(|_| {
            Fault::invalid_input(format!("{name} is {value}, allowed is {least} to {most}")).with_param(name)
        })
    }

    pub(crate) fn find(
        &self,
        name: Option<&str>,
        version: Option<&str>,
        seen: &OnceLock<Arc<Model>>,
    ) -> Result<&Arc<Model>, Fault> {
        let Some(name) = name.filter(|name| !name.is_empty()) else {
            return Err(Fault::invalid_input("the request names no model").with_param("model"));
        };
        let model = self.engine.model(name, version)?;
        // The first and only time: each call looks for one model.
        let _ = seen.set(Arc::clone(model));
        Ok(model)
    }
}

impl idl::Inference for Methods {
    type Context = Context;

    async fn models(&self, cx: Context, request: ModelsRequest) -> Result<ModelsReply, idl::fault::Fault> {
        let about = About::new(request.model.as_deref(), 0);
        self.run("models", cx, about, request, |request, request_id, _| async move {
            let wanted = request.model.as_deref();
            let with_labels = request.with_labels.unwrap_or(wanted.is_some());
            let models = match wanted {
                Some(name) => vec![convert::model_info(self.engine.model(name, None)?, with_labels)],
                None => self.engine.models().iter().map(|model| convert::model_info(model, with_labels)).collect(),
            };
            let reply = ModelsReply { models: Some(models), request_id: Some(request_id.as_str().to_owned()) };
            Ok((reply, engine::Timing::default()))
        })
        .await
    }

    async fn infer(&self, cx: Context, request: InferRequest) -> Result<InferReply, idl::fault::Fault> {
        let seen = Arc::clone(&cx.model);
        let about = About::new(request.model.as_deref(), 1);
        self.run("infer", cx, about, request, |request, request_id, call| async move {
            let model = self.find(request.model.as_deref(), request.version.as_deref(), &seen)?;
            let scope = self.scope(request.base.as_ref(), &call, model.default_deadline());
            let inputs = request.inputs.unwrap_or_default().into_iter().map(convert::tensor_in);
            let inputs = inputs.collect::<Result<Vec<_>, _>>()?;
            let done = model.infer(inputs, request.outputs.unwrap_or_default(), scope).await?;
            let reply = InferReply {
                outputs: Some(done.outputs.into_iter().map(convert::tensor_out).collect()),
                model: Some(model.name().to_string()),
                version: Some(model.version().to_owned()),
                timing: Some(convert::timing(&done.timing)),
                request_id: Some(request_id.as_str().to_owned()),
            };
            Ok((reply, done.timing))
        })
        .await
    }

    async fn classify(&self, cx: Context, request: ClassifyRequest) -> Result<ClassifyReply, idl::fault::Fault> {
        let seen = Arc::clone(&cx.model);
        let about = About::new(request.model.as_deref(), request.images.as_ref().map_or(0, Vec::len));
        self.run("classify", cx, about, request, |request, request_id, call| async move {
            let model = self.find(request.model.as_deref(), request.version.as_deref(), &seen)?;
            let scope = self.scope(request.base.as_ref(), &call, model.default_deadline());
            // What is too large is the engine's to refuse.
            let options = ClassifyOptions {
                top_k: Self::unsigned("top_k", request.top_k.unwrap_or(TOP_K), 1, self.top_k)?,
                preview_px: Self::unsigned("preview_px", request.preview_px.unwrap_or(0), 0, self.preview_px)?,
            };
            let done = model.classify(request.images.unwrap_or_default(), options, scope).await?;
            let results = done.results.into_iter().map(|one| convert::classification(model, one));
            let reply = ClassifyReply {
                results: Some(results.collect()),
                model: Some(model.name().to_string()),
                version: Some(model.version().to_owned()),
                timing: Some(convert::timing(&done.timing)),
                request_id: Some(request_id.as_str().to_owned()),
            };
            Ok((reply, done.timing))
        })
        .await
    }

    async fn embed(&self, cx: Context, request: EmbedRequest) -> Result<EmbedReply, idl::fault::Fault> {
        self.embed_texts(cx, request).await
    }

    async fn cancel(&self, cx: Context, request: CancelRequest) {
        cx.finished.begin();
        let Some(id) = request.call_id.as_deref().and_then(CallId::from_slice) else {
            return self.metrics.call("cancel", Kind::InvalidInput.row().code);
        };
        match self.access.check(request.base.as_ref(), &cx.call.peer, None) {
            Ok(caller) => {
                self.calls.cancel(self.access.maker(&caller, &cx.call.peer), id);
                self.metrics.call("cancel", "ok");
            }
            Err(refusal) => self.metrics.call("cancel", refusal.code()),
        }
    }
}

impl idl::Health for Methods {
    type Context = Context;

    async fn check(&self, cx: Context, request: CheckRequest) -> Result<CheckReply, idl::fault::Fault> {
        cx.finished.begin();
        // Not logged: orchestrators ask every second.
        self.check_now(&request)
    }
}

impl Methods {
    /// The answer of `check`, from memory.
    pub(crate) fn check_now(&self, request: &CheckRequest) -> Result<CheckReply, idl::fault::Fault> {
        let health = self.engine.health(request.model.as_deref()).map_err(|fault| {
            self.metrics.call("check", fault.kind.row().code);
            let id = request.base.as_ref().and_then(|base| base.request_id.as_deref());
            idl::fault::Fault::thrown(fault, &RequestId::keep_or_generate(id))
        })?;
        self.metrics.call("check", "ok");
        let models = health.models.into_iter().map(|one| idl::health::ModelHealth {
            model: Some(one.name.to_string()),
            status: Some(convert::status(one.status)),
            reason: one.reason,
            waiting: Some(i32::try_from(one.waiting).unwrap_or(i32::MAX)),
            running: Some(i32::try_from(one.running).unwrap_or(i32::MAX)),
        });
        Ok(CheckReply {
            status: Some(convert::status(health.status)),
            reason: health.reason,
            since_ms: Some(i64::try_from(health.since.as_millis()).unwrap_or(i64::MAX)),
            load: Some(health.load.into()),
            live: Some(health.live),
            models: Some(models.collect()),
            version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            instance: Some(self.instance.clone()),
        })
    }
}
