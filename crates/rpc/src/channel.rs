//! Calls over one or more servers: which one, by when, and what to do when the connection breaks.
//!
//! Choice: two endpoints at random, the cheaper of them (`load`); with an affinity key the same endpoint for the same
//! key as long as the set of reachable ones stays.
//! Failure: as soon as an attempt to connect to each endpoint has failed after the call came (a call wakes those that pause
//! between two attempts, and waits for them for a moment); while a first attempt is under way, a call
//! waits for it until its deadline. A call that never started is sent once more (to another endpoint, when this one said
//! that it does not serve it now), an idempotent one also when it may have; both under a budget (`retry`) and never past the
//! deadline.
//! Not here: the connections (`endpoint`, `link`).

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use units::{CallId, Deadline};
use wire::{
    DecodeLimits, Exception, Frame, FrameLimits, Method, Outgoing, Protocol, Response, ResponseError, TSerializable,
};

use crate::endpoint::{Backend, Offer};
use crate::link::{Denied, Link};
use crate::load::{Outcome, Standing};
use crate::members::{Known, Members};
use crate::resolver;
use crate::retry::RetryBudget;
use crate::{
    ChannelError, ChannelStats, ClientTls, Ejection, Endpoint, EndpointId, EndpointState, Lookup, ObserveChannel, Ping,
};

/// So long a call waits at most for connections that have failed to be made anew: as long as a server that was started again
/// may go unnoticed.
const MOMENT: Duration = Duration::from_secs(1);

/// Makes the oneway message that tells a server to stop working on a call; `None` when there is nothing to say.
pub type CancelCall = Arc<dyn Fn(CallId) -> Option<Frame> + Send + Sync>;

/// How a channel behaves.
#[derive(Clone)]
pub struct ChannelConfig {
    /// Connections to each endpoint. More than one keeps small calls from waiting behind big ones: a megabyte takes
    /// about 0.3 ms of a local connection.
    pub connections: usize,
    /// Most calls in flight on one connection; the servers' own limit by default.
    pub calls_per_connection: usize,
    /// Most bytes of a frame's payload, in both directions.
    pub frame_bytes: usize,
    /// One attempt to connect takes at most this.
    pub connect_timeout: Duration,
    /// What requests are written in.
    pub protocol: Protocol,
    /// Limits on what an answer may hold.
    pub decode: DecodeLimits,
    /// Sent on the call's connection when a call with a `call_id` is given up after it was sent.
    pub cancel: Option<CancelCall>,
    /// Every connection is made by TLS.
    pub tls: Option<ClientTls>,
    /// How to ask a silent server whether it is there. Without it, one that hangs costs its calls their deadlines.
    pub ping: Option<Ping>,
    /// When failures take a server out of choice, and for how long.
    pub ejection: Ejection,
    /// So often names are resolved again.
    pub resolve: Duration,
    /// A server to which its name resolves no more loses a connection that no call has used for so long.
    pub linger: Duration,
    /// How; the system's way by default.
    pub lookup: Lookup,
    /// Hears of failures.
    pub observe: Arc<dyn ObserveChannel>,
}

impl Default for ChannelConfig {
    fn default() -> Self {
        Self {
            connections: 1,
            calls_per_connection: 1_024,
            frame_bytes: FrameLimits::default().frame_bytes,
            connect_timeout: Duration::from_secs(1),
            protocol: Protocol::Binary,
            decode: DecodeLimits::default(),
            cancel: None,
            tls: None,
            ping: None,
            ejection: Ejection::default(),
            resolve: Duration::from_secs(5),
            // Longer than a server waits for the next call of a stream before it takes its reader for gone.
            linger: Duration::from_secs(20),
            lookup: resolver::system(),
            observe: Arc::new(ChannelStats::default()),
        }
    }
}

impl ChannelConfig {
    pub(crate) fn frames(&self) -> FrameLimits {
        FrameLimits { frame_bytes: self.frame_bytes }
    }
}

impl fmt::Debug for ChannelConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ChannelConfig")
            .field("connections", &self.connections)
            .field("calls_per_connection", &self.calls_per_connection)
            .field("frame_bytes", &self.frame_bytes)
            .field("connect_timeout", &self.connect_timeout)
            .field("protocol", &self.protocol)
            .field("cancels", &self.cancel.is_some())
            .field("tls", &self.tls)
            .field("ping", &self.ping)
            .field("ejection", &self.ejection)
            .field("resolve", &self.resolve)
            .field("linger", &self.linger)
            .finish_non_exhaustive()
    }
}

/// What concerns one call.
#[derive(Clone, Copy, Debug)]
pub struct CallOptions {
    /// By when the answer is needed. What is left of it is written into the request when it is sent.
    pub deadline: Deadline,
    /// Calls with the same key go to the same endpoint while it can be reached.
    pub affinity: Option<u64>,
    /// This endpoint and no other, as for what only one server knows; see [`Channel::choose`].
    pub endpoint: Option<EndpointId>,
    /// Names the call in [`ChannelConfig::cancel`]; the same as in the request.
    pub call_id: Option<CallId>,
    /// An answer speaks for nobody; see [`CallOptions::aside`].
    pub aside: bool,
}

impl CallOptions {
    /// Any endpoint, nothing to cancel.
    #[must_use]
    pub const fn new(deadline: Deadline) -> Self {
        Self { deadline, affinity: None, endpoint: None, call_id: None, aside: false }
    }

    /// The same with an affinity key.
    #[must_use]
    pub const fn with_affinity(mut self, key: u64) -> Self {
        self.affinity = Some(key);
        self
    }

    /// The same for one endpoint only.
    #[must_use]
    pub const fn with_endpoint(mut self, endpoint: EndpointId) -> Self {
        self.endpoint = Some(endpoint);
        self
    }

    /// The same with a name to cancel it by.
    #[must_use]
    pub const fn with_call_id(mut self, id: CallId) -> Self {
        self.call_id = Some(id);
        self
    }

    /// The same for what a server answers quickly however it fares, as for its health: that it does so says nothing of how it does
    /// at the calls that matter. That it does not counts as ever.
    #[must_use]
    pub const fn aside(mut self) -> Self {
        self.aside = true;
        self
    }
}

/// A client of one or more servers that serve the same. Clones share the connections.
///
/// It lives on the tokio runtime that it was made on, multi-threaded or not; where each thread has a runtime of its
/// own, each should have a channel of its own.
#[derive(Clone)]
pub struct Channel(Arc<Inner>);

struct Inner {
    members: Arc<Members>,
    config: ChannelConfig,
    changed: watch::Receiver<()>,
    retries: RetryBudget,
    _stop: DropGuard,
}

/// Where a call is not to go.
#[derive(Clone, Copy)]
enum Avoid {
    Nobody,
    /// Unless there is nobody else.
    IfPossible(EndpointId),
    Always(EndpointId),
}

/// Who a call goes to, or why it cannot go now.
enum Choice {
    Go(Arc<Backend>, Arc<Link>),
    Wait,
    /// Down, but nobody has looked since the call came.
    Stale(String),
    Down(String),
}

impl Channel {
    /// Starts to connect to every endpoint. Must be called on a tokio runtime.
    #[must_use]
    pub fn new(endpoints: Vec<Endpoint>, config: ChannelConfig) -> Self {
        let stop = CancellationToken::new();
        let (sender, changed) = watch::channel(());
        let members = Members::start(endpoints, config.clone(), Arc::new(sender), stop.clone());
        let retries = RetryBudget::new();
        Self(Arc::new(Inner { members, config, changed, retries, _stop: stop.drop_guard() }))
    }

    /// How each endpoint is doing: addresses in the order given to [`Channel::new`], then what names resolve to, then names that do not.
    #[must_use]
    pub fn endpoints(&self) -> Vec<EndpointState> {
        self.0.members.states()
    }

    /// Waits until a call with these options could be sent.
    ///
    /// # Errors
    /// [`ChannelError::Unreachable`] or [`ChannelError::Deadline`], as a call would.
    pub async fn connected(&self, options: CallOptions) -> Result<EndpointId, ChannelError> {
        self.0.link(&options, Avoid::Nobody).await.map(|(backend, _)| backend.id)
    }

    /// The endpoint that a call with these options would go to now. Calls that belong together (a stream's pieces)
    /// name it in [`CallOptions::endpoint`], because the choice may be another the next time.
    #[must_use]
    pub fn choose(&self, options: &CallOptions) -> Option<EndpointId> {
        match self.0.choose(options, Avoid::Nobody, Instant::now()) {
            Choice::Go(backend, _) => Some(backend.id),
            Choice::Wait | Choice::Stale(_) | Choice::Down(_) => None,
        }
    }

    /// Calls a method. The outer error: no answer came; the inner: the method's declared exception.
    ///
    /// Dropping the future gives the call up; when it was sent, has a `call_id`, and the channel knows how to cancel,
    /// the server is told. Not for oneway methods, see [`Channel::send`].
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn call<Q, R, E>(
        &self,
        method: &Method<Q, R, E>,
        request: &mut Q,
        options: CallOptions,
    ) -> Result<Result<R, E>, ChannelError>
    where
        Q: Outgoing,
        R: TSerializable,
        E: Exception,
    {
        self.call_telling(method, request, options, |_| ()).await
    }

    /// The same, telling why when the call is sent once more.
    ///
    /// # Errors
    /// See [`ChannelError`].
    pub async fn call_telling<Q, R, E>(
        &self,
        method: &Method<Q, R, E>,
        request: &mut Q,
        options: CallOptions,
        mut repeated: impl FnMut(&dyn fmt::Display),
    ) -> Result<Result<R, E>, ChannelError>
    where
        Q: Outgoing,
        R: TSerializable,
        E: Exception,
    {
        debug_assert!(!method.oneway, "nobody answers {}, so it is to be sent, not called", method.name);
        let inner = &*self.0;
        inner.retries.call(Instant::now());
        let (backend, link) = inner.link(&options, Avoid::Nobody).await?;
        let answer = inner.attempt(method, request, &options, &backend, &link).await;
        let avoid = match &answer {
            // One that does not serve it says so again, however the others stand.
            Ok(Err(exception)) if exception.not_here() => Avoid::Always(backend.id),
            Err(ChannelError::NotSent { .. }) => Avoid::IfPossible(backend.id),
            Err(ChannelError::Lost { .. }) if method.idempotent => Avoid::IfPossible(backend.id),
            // Of those who were full no other one had a place.
            Ok(_) | Err(_) => return answer,
        };
        // A place first: what cannot be sent again, as to the one server that knew it, takes nothing from the budget.
        let place = inner.place_again(&options, avoid).await;
        let now = Instant::now();
        let (backend, link) = match (place, answer.as_ref().err()) {
            (Ok(place), _) if !options.deadline.is_over(now.into_std()) => place,
            (Err(error), Some(first)) => return Err(error.after(first)),
            (Ok(_) | Err(_), _) => return answer,
        };
        if !inner.retries.take(now) {
            inner.config.observe.over_budget();
            return answer;
        }
        inner.config.observe.repeated();
        let first = answer.err();
        match &first {
            Some(error) => repeated(error),
            None => repeated(&"the server turned the call away"),
        }
        tracing::debug!(method = method.name, error = first.as_ref().map(tracing::field::display), "sent once more");
        let answer = inner.attempt(method, request, &options, &backend, &link).await;
        answer.map_err(|error| match &first {
            Some(first) => error.after(first),
            None => error,
        })
    }

    /// Sends a oneway call. `Ok` says that it was queued on a connection, not that it arrived.
    ///
    /// # Errors
    /// When it could not be queued.
    pub async fn send<Q, R, E>(
        &self,
        method: &Method<Q, R, E>,
        request: &mut Q,
        options: CallOptions,
    ) -> Result<(), ChannelError>
    where
        Q: Outgoing,
    {
        let (_, link) = self.0.link(&options, Avoid::Nobody).await?;
        let frame = self.0.encode(method, request, &options, 0)?;
        link.send_oneway(frame);
        Ok(())
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Channel").field("endpoints", &self.endpoints()).finish()
    }
}

impl Inner {
    async fn attempt<Q, R, E>(
        &self,
        method: &Method<Q, R, E>,
        request: &mut Q,
        options: &CallOptions,
        backend: &Backend,
        link: &Arc<Link>,
    ) -> Result<Result<R, E>, ChannelError>
    where
        Q: Outgoing,
        R: TSerializable,
        E: Exception,
    {
        let endpoint = || backend.label.to_string();
        let mut entry = link.enter().map_err(|denied| match denied {
            Denied::Full => ChannelError::Full { endpoint: endpoint(), limit: self.config.calls_per_connection },
            Denied::Gone(reason) => ChannelError::NotSent { endpoint: endpoint(), reason: reason.to_string() },
        })?;
        let frame = self.encode(method, request, options, entry.number())?;
        let cancel = self.config.cancel.clone().zip(options.call_id);

        let _in_flight = backend.load.enter();
        let began = Instant::now();
        let observe = |outcome| {
            if options.aside && matches!(outcome, Outcome::Answered | Outcome::Declined) {
                return;
            }
            let now = Instant::now();
            if backend.load.observe(outcome, now - began, now) {
                self.config.observe.ejected();
            }
        };
        entry.send(frame, cancel);
        let reply = tokio::time::timeout_at(options.deadline.instant().into(), entry.reply()).await;
        let frame = match reply {
            Ok(Ok(frame)) => frame,
            Ok(Err(gone)) => {
                observe(Outcome::Failed);
                let (endpoint, reason) = (endpoint(), gone.reason.to_string());
                return Err(match gone.sent {
                    true => ChannelError::Lost { endpoint, reason },
                    false => ChannelError::NotSent { endpoint, reason },
                });
            }
            Err(_) => {
                observe(Outcome::TooLate);
                return Err(ChannelError::Deadline { sent: entry.give_up() });
            }
        };
        let answer = Response::parse(frame, &self.config.decode).map_err(ResponseError::from);
        match answer.and_then(|response| response.result::<R, E>()) {
            Ok(Ok(result)) => {
                observe(Outcome::Answered);
                Ok(Ok(result))
            }
            Ok(Err(exception)) => {
                observe(match &exception {
                    exception if exception.turned_away() => Outcome::TurnedAway,
                    exception if exception.not_here() => Outcome::NotHere,
                    exception if exception.failed() => Outcome::Broke,
                    _ => Outcome::Declined,
                });
                Ok(Err(exception))
            }
            Err(error) => {
                observe(Outcome::Failed);
                Err(match error {
                    ResponseError::Application { kind, message } => ChannelError::Application { kind, message },
                    other => ChannelError::Protocol(other.to_string()),
                })
            }
        }
    }

    /// Encodes a call with what is left of its deadline.
    fn encode<Q: Outgoing, R, E>(
        &self,
        method: &Method<Q, R, E>,
        request: &mut Q,
        options: &CallOptions,
        number: i32,
    ) -> Result<Frame, ChannelError> {
        let now = Instant::now().into_std();
        if options.deadline.is_over(now) {
            return Err(ChannelError::Deadline { sent: false });
        }
        request.stamp(options.deadline.left(now));
        let limit = self.config.frames().bytes();
        let frame =
            wire::encode_call(self.config.protocol, method.name, number, method.kind(), request).map_err(|error| {
                match error {
                    wire::WireError::TooLarge { bytes } => ChannelError::TooLarge { bytes, limit },
                    other => ChannelError::Protocol(format!("request of {}: {other}", method.name)),
                }
            })?;
        match frame.payload_len() {
            bytes if bytes > limit => Err(ChannelError::TooLarge { bytes, limit }),
            _ => Ok(frame),
        }
    }

    /// A connection for a call, waiting for one while there is hope.
    async fn link(&self, options: &CallOptions, avoid: Avoid) -> Result<(Arc<Backend>, Arc<Link>), ChannelError> {
        let came = Instant::now();
        match self.choose(options, avoid, came) {
            Choice::Go(backend, link) => return Ok((backend, link)),
            Choice::Down(reason) => return Err(self.unreachable(options, reason)),
            Choice::Wait | Choice::Stale(_) => {}
        }
        let mut changed = self.changed.clone();
        let wait = async {
            loop {
                // Mark first, look second: a change in between is then not missed.
                changed.mark_unchanged();
                match self.choose(options, avoid, came) {
                    Choice::Go(backend, link) => return Ok((backend, link)),
                    Choice::Down(reason) => return Err(self.unreachable(options, reason)),
                    Choice::Wait => {
                        if changed.changed().await.is_ok() {
                            continue;
                        }
                    }
                    Choice::Stale(reason) => {
                        self.want(options);
                        match tokio::time::timeout_at(came + MOMENT, changed.changed()).await {
                            Ok(Ok(())) => continue,
                            Ok(Err(_)) => {}
                            Err(_) => return Err(self.unreachable(options, reason)),
                        }
                    }
                }
                return Err(self.unreachable(options, "the channel was dropped".to_owned()));
            }
        };
        tokio::time::timeout_at(options.deadline.instant().into(), wait)
            .await
            .unwrap_or(Err(ChannelError::Deadline { sent: false }))
    }

    /// Where a call can be sent once more. For another endpoint than the one that turned it away only a moment is waited, as for one
    /// that is just being connected: when servers are started again one after the other, the last one may be back and not found yet
    /// when the next one leaves.
    async fn place_again(
        &self,
        options: &CallOptions,
        avoid: Avoid,
    ) -> Result<(Arc<Backend>, Arc<Link>), ChannelError> {
        let place = self.link(options, avoid);
        match avoid {
            Avoid::Nobody | Avoid::IfPossible(_) => place.await,
            Avoid::Always(_) => {
                let waited = tokio::time::timeout(MOMENT, place).await;
                waited.unwrap_or(Err(ChannelError::Deadline { sent: false }))
            }
        }
    }

    fn unreachable(&self, options: &CallOptions, reason: String) -> ChannelError {
        let endpoints = if options.endpoint.is_some() { 1 } else { self.members.states().len() };
        ChannelError::Unreachable { endpoints, reason }
    }

    /// Why no server is usable, or that one may be soon.
    fn nobody(&self, mut soon: bool, mut stale: bool, mut down: Option<Arc<str>>, came: Instant) -> Choice {
        for known in self.members.missing() {
            match known {
                Known::Asked => soon = true,
                Known::Failed(reason, at) => {
                    stale |= at < came;
                    down = Some(reason);
                }
                // All that it resolved to is on its way out.
                Known::Resolved => {}
            }
        }
        if soon { Choice::Wait } else { unusable(stale, down, "no endpoint is configured") }
    }

    /// Lets those that pause between two attempts to connect try at once.
    fn want(&self, options: &CallOptions) {
        self.members.want(|backend| options.endpoint.is_none_or(|only| only == backend.id));
    }

    /// `came`: what has failed before is no longer believed.
    fn choose(&self, options: &CallOptions, avoid: Avoid, came: Instant) -> Choice {
        let now = Instant::now();
        let backends = self.members.backends();
        let mut up: Vec<Candidate<'_>> = Vec::with_capacity(backends.len());
        let (mut soon, mut stale, mut down) = (false, false, None);
        for backend in backends.iter() {
            if options.endpoint.is_some_and(|only| only != backend.id)
                || matches!(avoid, Avoid::Always(other) if other == backend.id)
            {
                continue;
            }
            match backend.offer() {
                Offer::Link(link, calls) => {
                    let full = calls >= self.config.calls_per_connection;
                    up.push(Candidate { backend, link, full, standing: backend.load.standing(now) });
                }
                // It is on its way out: nobody waits for it but for what was begun there.
                _ if backend.is_retired() && options.endpoint.is_none() => {}
                Offer::Soon => soon = true,
                Offer::Down(reason, at) => {
                    stale |= at < came;
                    down = Some(reason);
                }
            }
        }
        // What takes no calls, what its name resolves to no more, what fails again and again, what is full, and where the last attempt
        // failed: only when there is nothing else.
        keep_if_any(&mut up, |candidate| !candidate.standing.leaving);
        keep_if_any(&mut up, |candidate| !candidate.backend.is_retired());
        keep_if_any(&mut up, |candidate| !candidate.standing.loading);
        keep_if_any(&mut up, |candidate| !candidate.standing.barred);
        keep_if_any(&mut up, |candidate| !candidate.full);
        if let Avoid::IfPossible(last) = avoid {
            keep_if_any(&mut up, |candidate| candidate.backend.id != last);
        }
        if up.is_empty() && options.endpoint.is_none() {
            drop(up);
            drop(backends);
            return self.nobody(soon, stale, down, came);
        }
        let chosen = match (up.len(), options.affinity) {
            (0, _) if soon => return Choice::Wait,
            (0, _) => return unusable(stale, down, "the server is not there any more"),
            (1, _) => 0,
            (_, Some(key)) => highest(&up, key),
            (count, None) => cheaper_of_two(&up, count),
        };
        let Candidate { backend, link, .. } = up.swap_remove(chosen);
        Choice::Go(Arc::clone(backend), link)
    }
}

fn unusable(stale: bool, down: Option<Arc<str>>, otherwise: &str) -> Choice {
    let reason = down.map_or_else(|| otherwise.to_owned(), |reason| reason.to_string());
    if stale { Choice::Stale(reason) } else { Choice::Down(reason) }
}

/// An endpoint that a call could go to.
struct Candidate<'a> {
    backend: &'a Arc<Backend>,
    link: Arc<Link>,
    full: bool,
    standing: Standing,
}

fn keep_if_any(candidates: &mut Vec<Candidate<'_>>, keep: impl Fn(&Candidate<'_>) -> bool) {
    if candidates.iter().any(&keep) {
        candidates.retain(keep);
    }
}

/// Rendezvous hashing: when an endpoint leaves, only its own keys move.
fn highest(candidates: &[Candidate<'_>], key: u64) -> usize {
    let weight = |index: &usize| {
        // Hashed by address, so that every process with the same list chooses the same; the hasher's keys are fixed.
        let mut hasher = DefaultHasher::new();
        (key, &candidates[*index].backend.address).hash(&mut hasher);
        hasher.finish()
    };
    (0..candidates.len()).max_by_key(weight).unwrap_or_default()
}

/// Power of two choices: nearly as good as asking all of them, and clients do not all run to the same one.
fn cheaper_of_two(candidates: &[Candidate<'_>], count: usize) -> usize {
    let first = fastrand::usize(..count);
    let second = (first + 1 + fastrand::usize(..count - 1)) % count;
    let cost = |index: usize| candidates[index].standing.cost;
    if cost(second) < cost(first) { second } else { first }
}

#[cfg(test)]
mod tests;
