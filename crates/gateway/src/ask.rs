//! One request: its id, its deadline, its answer's headers, its log line.

use std::future::Future;
use std::net::IpAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::body::{BodySize, MessageBody as _};
use actix_web::http::ConnectionType;
use actix_web::http::header::{HeaderName, HeaderValue};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, web};
use chassis::logs::Requests;
use fault::Fault;
use minijinja::{Value, context};
use tracing::info;
use units::{CallerId, Deadline, ModelName, RequestId};

use crate::access::Visitor;
use crate::metrics::Route;
use crate::problem::{Problem, start_of};
use crate::site::{InFlight, Site};
use crate::trace::{Names, TRACEPARENT};

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const CALLER: HeaderName = HeaderName::from_static("x-outboard-caller");
const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const REAL_IP: HeaderName = HeaderName::from_static("x-real-ip");
const TIMEOUT: &str = "x-request-timeout-ms";

/// Most bytes of a reason in a log line: what a client wrote stands in it.
const REASON: usize = 1_024;

/// A request on its way to an answer. Dropped without one, its client has left.
pub(crate) struct Ask {
    pub(crate) names: Names,
    pub(crate) received: Instant,
    route: Route,
    process: InFlight,
    /// Whose key it came with, or where it came from.
    caller: Option<CallerId>,
    visitor: Option<Visitor>,
    /// It came through a proxy that is ours.
    by_proxy: bool,
    answered: bool,
    /// For the log line.
    pub(crate) told: Told,
}

/// What the log line says besides how it ended.
#[derive(Default)]
pub(crate) struct Told {
    pub(crate) model: Option<ModelName>,
    pub(crate) bytes_in: usize,
    pub(crate) rows: usize,
    /// Tokens of the prompt, of these from a cache, and of the answer.
    pub(crate) tokens_in: u32,
    pub(crate) tokens_cached: u32,
    pub(crate) tokens_out: u32,
    /// From the request's head to the first token.
    pub(crate) first_token: Option<Duration>,
    pub(crate) server: ServerTimes,
}

/// What the server said of its part.
#[derive(Clone, Copy, Default)]
pub(crate) struct ServerTimes {
    pub(crate) decode: Duration,
    pub(crate) queue: Duration,
    pub(crate) run: Duration,
    pub(crate) total: Duration,
    pub(crate) batch_rows: usize,
}

impl Ask {
    pub(crate) fn new(request: &HttpRequest, site: &web::Data<Site>, route: Route) -> Self {
        let process = InFlight::begin(&site.process);
        let visitor = request.extensions().get::<Visitor>().cloned();
        let caller = match &visitor {
            Some(visitor) => Some(CallerId::verified(&visitor.name)),
            None => address(request, &process.settings.trusted_proxies).map(CallerId::anonymous),
        };
        let by_proxy = peer(request).is_some_and(|peer| process.settings.trusted_proxies.contains(&peer));
        let incoming = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
        Self {
            names: Names::new(RequestId::keep_or_generate(incoming), request.headers(), &process.traces),
            received: Instant::now(),
            route,
            process,
            caller,
            visitor,
            by_proxy,
            answered: false,
            told: Told::default(),
        }
    }

    /// Who asks, as far as it is known.
    pub(crate) fn caller(&self) -> String {
        self.caller.as_ref().map_or_else(String::new, CallerId::to_string)
    }

    /// A page, with what every page shows of who has signed in.
    ///
    /// # Errors
    /// When it cannot be made.
    pub(crate) fn page(&self, name: &str, values: Value) -> Result<String, Problem> {
        self.process.templates.render(name, self.with_visitor(values))
    }

    /// The values of a page, and who has signed in, with the token that forms must carry.
    pub(crate) fn with_visitor(&self, values: Value) -> Value {
        match self.visitor.as_ref().and_then(|visitor| visitor.token().map(|token| (visitor, token))) {
            Some((visitor, token)) => context! { visitor => &*visitor.name, csrf => token, ..values },
            None => values,
        }
    }

    /// The deadline that the client asks for, or the default.
    ///
    /// # Errors
    /// InvalidInput when the header is no number of milliseconds.
    pub(crate) fn deadline(&self, request: &HttpRequest) -> Result<Deadline, Fault> {
        self.deadline_or(request, self.process.settings.limits.deadline)
    }

    /// The same with a default of its own.
    ///
    /// # Errors
    /// InvalidInput when the header is no number of milliseconds.
    pub(crate) fn deadline_or(&self, request: &HttpRequest, default: Duration) -> Result<Deadline, Fault> {
        let limits = &self.process.settings.limits;
        let Some(value) = request.headers().get(TIMEOUT) else {
            return Ok(Deadline::after(self.received, default));
        };
        let millis = value.to_str().ok().and_then(|text| text.parse::<i64>().ok()).filter(|millis| *millis >= 0);
        let millis = millis.ok_or_else(|| {
            let text = String::from_utf8_lossy(value.as_bytes());
            let text = start_of(&text, 32);
            Fault::invalid_input(format!("{TIMEOUT} is {text:?}, allowed is a whole number of milliseconds"))
                .with_param(TIMEOUT)
        })?;
        Ok(Deadline::from_millis(self.received, Some(millis), default, limits.longest_deadline))
    }

    /// As [`Process::in_time`].
    ///
    /// # Errors
    /// As there.
    pub(crate) async fn in_time<T>(&self, work: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
        self.process.in_time(work).await
    }

    /// Finishes the answer: headers, metrics, the log line.
    pub(crate) fn answer(mut self, result: Result<HttpResponse, Problem>) -> HttpResponse {
        let (response, problem) = match result {
            Ok(response) => (response, None),
            Err(problem) => (problem.answer(&self.names), Some(problem)),
        };
        self.finish(response, problem.as_ref())
    }

    /// As [`Ask::answer`], where the body of an error is made already.
    pub(crate) fn finish(&mut self, mut response: HttpResponse, problem: Option<&Problem>) -> HttpResponse {
        self.sign(&mut response);
        let bytes_out = match response.body().size() {
            BodySize::Sized(bytes) => bytes,
            BodySize::None | BodySize::Stream => 0,
        };
        let status = response.status().as_u16();
        self.record(status, status, problem, bytes_out);
        response
    }

    /// The headers that every answer has.
    pub(crate) fn sign(&self, response: &mut HttpResponse) {
        let headers = response.headers_mut();
        if let Ok(id) = HeaderValue::from_str(self.names.request_id.as_str()) {
            headers.insert(REQUEST_ID, id);
        }
        if let Some(place) = self.names.traceparent() {
            headers.insert(TRACEPARENT, place);
        }
        // For the proxy in front, which takes it out: who it was by name.
        if let Some(visitor) = self.visitor.as_ref().filter(|_| self.by_proxy)
            && let Ok(name) = HeaderValue::from_str(&visitor.name)
        {
            headers.insert(CALLER, name);
        }
        if let Ok(timing) = HeaderValue::from_str(&self.server_timing(self.received.elapsed())) {
            headers.insert(SERVER_TIMING, timing);
        }
        if self.process.draining.load(Ordering::Relaxed) {
            response.head_mut().set_connection_type(ConnectionType::Close);
        }
    }

    /// The end of an answer whose head was sent before it was known how it would end.
    pub(crate) fn end(&mut self, problem: Option<&Problem>, bytes_out: u64) {
        self.record(200, problem.map_or(200, Problem::status), problem, bytes_out);
    }

    /// Metrics and the log line. `counted`: the status that says how it ended, where the client saw another one.
    fn record(&mut self, status: u16, counted: u16, problem: Option<&Problem>, bytes_out: u64) {
        self.answered = true;
        let total = self.received.elapsed();
        self.process.metrics.answered(self.route, counted, total.as_secs_f64());
        self.process.metrics.told(&self.told);
        let quiet = matches!(self.route, Route::Health | Route::Asset) && status < 500;
        let all = self.process.settings.log.requests == Requests::All;
        let wanted = problem.is_some() || status >= 500 || (all && !quiet);
        if !quiet {
            self.trace(counted, problem.map_or("ok", Problem::code), problem.map(Problem::message).as_deref());
        }
        if wanted {
            self.log(status, problem.map_or("ok", Problem::code), problem.map(Problem::message), total, bytes_out);
        }
    }

    fn server_timing(&self, total: Duration) -> String {
        use std::fmt::Write as _;
        let millis = |time: Duration| time.as_secs_f64() * 1e3;
        let mut text = String::with_capacity(96);
        let server = &self.told.server;
        // Writing to a string does not fail.
        if server.total > Duration::ZERO {
            let _ = write!(
                text,
                "decode;dur={:.3}, queue;dur={:.3}, run;dur={:.3}, server;dur={:.3}, ",
                millis(server.decode),
                millis(server.queue),
                millis(server.run),
                millis(server.total)
            );
        }
        let _ = write!(text, "total;dur={:.3}", millis(total));
        text
    }

    /// The request's span. What a client did wrong is no failure of the span's, as the conventions have it.
    fn trace(&self, status: u16, outcome: &str, reason: Option<&str>) {
        let failure = reason.filter(|_| status >= 499).map(|reason| start_of(reason, REASON));
        self.names.end(self.route.name(), self.received, failure, |span| {
            let caller = self.caller.as_ref().map_or("", CallerId::as_str);
            let model = self.told.model.as_ref().map_or("", ModelName::as_str);
            span.with("request_id", self.names.request_id.as_str())
                .with("caller", caller)
                .with("model", model)
                .with("outcome", outcome)
                .with("http.response.status_code", usize::from(status))
        });
    }

    fn log(&self, status: u16, outcome: &str, reason: Option<String>, total: Duration, bytes_out: u64) {
        let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
        info!(
            request_id = self.names.request_id.as_str(),
            trace_id = %self.names.trace_id(),
            caller = self.caller.as_ref().map(CallerId::as_str),
            kind = self.route.name(),
            model = self.told.model.as_ref().map_or("", ModelName::as_str),
            status,
            outcome,
            reason = reason.as_deref().map(|reason| start_of(reason, REASON)),
            queue_ms = millis(self.told.server.queue),
            device_ms = millis(self.told.server.run),
            total_ms = millis(total),
            rows = self.told.rows,
            batch_size = self.told.server.batch_rows,
            tokens_in = (self.told.tokens_in > 0).then_some(self.told.tokens_in),
            tokens_cached = (self.told.tokens_in > 0).then_some(self.told.tokens_cached),
            tokens_out = (self.told.tokens_out > 0).then_some(self.told.tokens_out),
            first_token_ms = self.told.first_token.map(millis),
            bytes_in = self.told.bytes_in,
            bytes_out,
            "request"
        );
    }
}

/// The client's address: the peer's own, or what a trusted proxy says of the one before it.
fn address(request: &HttpRequest, trusted: &[IpAddr]) -> Option<IpAddr> {
    let peer = peer(request)?;
    if !trusted.contains(&peer) {
        return Some(peer);
    }
    let told = request.headers().get(REAL_IP).and_then(|value| value.to_str().ok()?.parse().ok());
    told.or(Some(peer))
}

/// Who is connected.
fn peer(request: &HttpRequest) -> Option<IpAddr> {
    // A listener on [::] sees IPv4 peers as ::ffff:a.b.c.d.
    Some(request.peer_addr()?.ip().to_canonical())
}

impl Drop for Ask {
    fn drop(&mut self) {
        if self.answered {
            return;
        }
        // It was told in time that it ends here, and what it was told has not been taken: it is we who go.
        if *self.process.ending.borrow() {
            self.record(503, 503, Some(&Problem::Fault(self.process.cut())), 0);
            return;
        }
        self.process.metrics.left();
        self.process.metrics.told(&self.told);
        self.trace(499, "cancelled", Some("the client left"));
        self.log(499, "cancelled", Some("the client left".to_owned()), self.received.elapsed(), 0);
    }
}
