//! The servers, as the gateway calls them.

mod chat;
mod embed;

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fault::{Fault, Kind};
use futures_util::future::select_ok;
use idl::base::Base;
use idl::health::{CheckReply, CheckRequest, ServingStatus};
use idl::inference::{CancelRequest, ClassifyReply, ClassifyRequest, ModelInfo, ModelsRequest};
use rpc::{CallOptions, Channel, ChannelConfig, ChannelError, ClientTls, Endpoint, Ping, Pong};
use units::{CallId, Deadline};
use wire::{FrameLimits, MessageKind, Method, Outgoing, Protocol, TSerializable, encode_call};

pub(crate) use self::chat::{ChatStream, StreamTimes};
use crate::metrics::GatewayMetrics;
use crate::server_key::ServerKey;
use crate::settings::Settings;
use crate::trace::{Calling, Names};

/// How long the list of models is believed.
const MODELS_FRESH: Duration = Duration::from_secs(1);

/// Most bytes of the pictures of one call: they travel in one frame, with ids and names beside them.
pub(crate) fn most_picture_bytes() -> u64 {
    FrameLimits::default().frame_bytes as u64 - (64 << 10)
}

type Listed = Rc<Vec<ModelInfo>>;

/// A worker thread's way to the servers.
pub(crate) struct Backend {
    channel: Channel,
    key: ServerKey,
    models: RefCell<Option<(Instant, Listed)>>,
}

/// What the gateway asks of `classify`.
pub(crate) struct Classify {
    pub(crate) model: String,
    pub(crate) images: Vec<Bytes>,
    pub(crate) top_k: Option<i32>,
    pub(crate) preview_px: Option<i32>,
}

impl Backend {
    /// Connects in the background, on the thread that calls this.
    pub(crate) fn new(
        servers: Vec<Endpoint>,
        settings: &Settings,
        metrics: &GatewayMetrics,
        key: ServerKey,
        tls: Option<ClientTls>,
    ) -> Self {
        let shown = key.clone();
        let config = ChannelConfig {
            connections: settings.connections_per_server,
            cancel: Some(Arc::new(move |call_id| cancel(&shown, call_id))),
            ping: Some(ping(settings.channel.ping)),
            connect_timeout: settings.channel.connect_timeout(tls.is_some()),
            resolve: settings.channel.resolve,
            ejection: settings.channel.ejection(),
            observe: Arc::clone(&metrics.server_events) as _,
            tls,
            ..ChannelConfig::default()
        };
        Self { channel: Channel::new(servers, config), key, models: RefCell::new(None) }
    }

    /// Says what pictures show. Dropping the future stops the work on the server.
    pub(crate) async fn classify(
        &self,
        ask: Classify,
        names: &Names,
        deadline: Deadline,
    ) -> Result<ClassifyReply, Fault> {
        let (call_id, calling) = (CallId::random(), names.calling("classify"));
        let mut request = ClassifyRequest {
            base: Some(calling.base(&self.key, call_id)),
            model: Some(ask.model),
            version: None,
            images: Some(ask.images),
            top_k: ask.top_k,
            preview_px: ask.preview_px,
        };
        let options = CallOptions::new(deadline).with_call_id(call_id);
        let reply = call(&self.channel, &idl::methods::CLASSIFY, &mut request, options, calling).await;
        reply.map_err(Fault::from)?.map_err(thrown)
    }

    /// What is served, at most a second old.
    pub(crate) async fn models(&self, names: &Names, deadline: Deadline) -> Result<Listed, Fault> {
        if let Some((at, models)) = &*self.models.borrow()
            && at.elapsed() < MODELS_FRESH
        {
            return Ok(Rc::clone(models));
        }
        let calling = names.calling("models");
        let mut request = ModelsRequest {
            base: Some(calling.base(&self.key, CallId::random())),
            model: None,
            with_labels: Some(false),
        };
        let reply = call(&self.channel, &idl::methods::MODELS, &mut request, CallOptions::new(deadline), calling).await;
        let reply = reply.map_err(Fault::from)?.map_err(thrown)?;
        let models = Rc::new(reply.models.unwrap_or_default());
        *self.models.borrow_mut() = Some((Instant::now(), Rc::clone(&models)));
        Ok(models)
    }

    /// Whether a server serves; the reason of one of them when none does.
    pub(crate) async fn check(&self, names: &Names, deadline: Deadline) -> Result<CheckReply, String> {
        // One that fails at all else answers this, and one that drains does: neither is a reason to send it requests.
        let options = CallOptions::new(deadline).aside();
        // Each is asked: one that drains answers, too, but the requests that it turns away go to the others.
        let connected = self.channel.endpoints().into_iter().filter(|endpoint| endpoint.connected);
        let asked: Vec<_> =
            connected.map(|endpoint| Box::pin(self.check_one(names, options.with_endpoint(endpoint.id)))).collect();
        if asked.is_empty() {
            return self.check_one(names, options).await;
        }
        select_ok(asked).await.map(|(reply, _)| reply)
    }

    fn speaker(&self, caller: &str, names: &Names) -> Speaker {
        Speaker { key: self.key.clone(), caller: caller.to_owned(), names: names.clone() }
    }

    async fn check_one(&self, names: &Names, options: CallOptions) -> Result<CheckReply, String> {
        let mut request = CheckRequest { base: Some(names.base(&self.key, CallId::random())), model: None };
        let reply = self.channel.call(&idl::methods::CHECK, &mut request, options).await;
        let reply: CheckReply = match reply {
            Ok(Ok(reply)) => reply,
            Ok(Err(fault)) => return Err(thrown(fault).message.into_owned()),
            Err(error) => {
                let states = self.channel.endpoints();
                let each = states.iter().map(|state| {
                    let reason =
                        state.reason.as_deref().unwrap_or(if state.connected { "connected" } else { "connecting" });
                    format!("{}: {reason}", state.address)
                });
                return Err(format!("{error} ({})", each.collect::<Vec<_>>().join("; ")));
            }
        };
        if reply.status == Some(ServingStatus::SERVING) {
            return Ok(reply);
        }
        Err(reply.reason.unwrap_or_else(|| "the server does not serve".to_owned()))
    }
}

/// Who asks, of those whom the servers keep apart.
#[derive(Clone)]
struct Speaker {
    key: ServerKey,
    caller: String,
    names: Names,
}

impl Speaker {
    /// The servers keep what callers have in their caches, and how many streams each may have, apart by this name.
    fn base(&self, call_id: CallId) -> Base {
        self.said(self.names.base(&self.key, call_id))
    }

    /// The same for a call that has a span of its own.
    fn base_of(&self, calling: &Calling<'_>, call_id: CallId) -> Base {
        self.said(calling.base(&self.key, call_id))
    }

    fn said(&self, base: Base) -> Base {
        Base { caller: Some(format!("gateway for {}", self.caller)), ..base }
    }
}

/// Makes a call that its request's trace knows.
async fn call<Q, R>(
    channel: &Channel,
    method: &Method<Q, R, idl::fault::Fault>,
    request: &mut Q,
    options: CallOptions,
    mut calling: Calling<'_>,
) -> Result<Result<R, idl::fault::Fault>, ChannelError>
where
    Q: Outgoing,
    R: TSerializable,
{
    let reply = channel.call_telling(method, request, options, |reason| calling.repeated(reason)).await;
    match &reply {
        Ok(Ok(_)) => calling.end(None),
        Ok(Err(thrown)) => calling.end(Some(&thrown.message.as_deref().unwrap_or("the server failed"))),
        Err(error) => calling.end(Some(error)),
    }
    reply
}

/// What a server has thrown. That it does not let this gateway in is nothing that the gateway's own caller could mend.
fn thrown(fault: idl::fault::Fault) -> Fault {
    let fault = Fault::from(fault);
    match fault.kind {
        Kind::Unauthenticated | Kind::Forbidden => {
            Fault::unavailable(format!("the server does not let this gateway in (`server_key`): {}", fault.message))
        }
        _ => fault,
    }
}

/// How a silent server is asked whether it is there: for its health, which it answers from memory, whatever else it does.
fn ping(every: Duration) -> Ping {
    let ask = || CheckRequest { base: None, model: None };
    let judge = |reply: CheckReply| match reply.status {
        Some(ServingStatus::DRAINING) => Pong::Leaves,
        _ => Pong::Serves,
    };
    Ping::new(every, idl::methods::CHECK, ask, judge)
}

/// The message that stops a call whose client has left.
fn cancel(key: &ServerKey, call_id: CallId) -> Option<wire::Frame> {
    // Servers find the call by who made it, where they ask for keys.
    let base = key.text().map(|text| Base { key: Some(text), ..Base::default() });
    let request = CancelRequest { base, call_id: Some(Bytes::copy_from_slice(&call_id.0)) };
    encode_call(Protocol::Binary, "cancel", 0, MessageKind::Oneway, &request).ok()
}
