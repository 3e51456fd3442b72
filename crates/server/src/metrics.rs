//! What is counted and timed, with every handle looked up once.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime};

use chassis::keyring::Keyring;
use chassis::metrics::{Metrics, Seconds};
use chassis::traces::{Span, Traces};
use engine::{Event, Observe, Phase, Ran};
use fault::Kind;
use parking_lot::Mutex;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use rpc::{HandshakeFailure, Limit, Refusal};
use units::ModelName;
use wire::Sniffed;

use crate::chat::Numbers;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    model: String,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ModelLabels {
    pub(crate) model: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    model: String,
    event: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NameLabels {
    name: &'static str,
}

#[derive(Clone)]
struct RowCounts;

impl MetricConstructor<Histogram> for RowCounts {
    fn new_metric(&self) -> Histogram {
        Histogram::new([1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0])
    }
}

/// Methods that are counted by name.
pub(crate) const METHODS: [&str; 10] =
    ["check", "models", "infer", "classify", "embed", "cancel", "complete", "start", "next_pieces", "stop"];

/// The name under which all others are counted.
pub(crate) const OTHER: &str = "other";

/// All of the server's metrics.
pub(crate) struct ServerMetrics {
    phases: Family<PhaseLabels, Histogram, Seconds>,
    rows: Family<ModelLabels, Histogram, RowCounts>,
    events: Family<EventLabels, Counter>,
    pub(crate) waiting: Family<ModelLabels, Gauge>,
    pub(crate) running: Family<ModelLabels, Gauge>,
    first_token: Family<ModelLabels, Histogram, Seconds>,
    slots: Family<ModelLabels, Gauge>,
    prompt_tokens: Family<ModelLabels, Counter>,
    cached_tokens: Family<ModelLabels, Counter>,
    generated_tokens: Family<ModelLabels, Counter>,
    embedded_texts: Family<ModelLabels, Counter>,
    embedded_tokens: Family<ModelLabels, Counter>,
    pub(crate) streams: Numbers,
    calls: HashMap<(&'static str, &'static str), Counter>,
    connections: Gauge,
    connections_total: Counter,
    in_flight: Gauge,
    bytes_in_flight: Gauge<i64, AtomicI64>,
    bytes_in: Counter,
    bytes_out: Counter,
    panics: Counter,
    accept_failures: Counter,
    limits: Family<NameLabels, Counter>,
    sniffed: Family<NameLabels, Counter>,
    refused: Family<NameLabels, Counter>,
    refused_keys: Family<NameLabels, Counter>,
    handshake_failures: Family<NameLabels, Counter>,
    certificate_expiry: Gauge<i64, AtomicI64>,
    certificate_errors: Counter,
    write: Histogram,
    models: Mutex<HashMap<ModelName, Arc<ModelMetrics>>>,
    /// For what only the engine sees.
    traces: Traces,
}

/// The handles of one model.
pub(crate) struct ModelMetrics {
    read: Histogram,
    encode: Histogram,
    decode: Histogram,
    queue: Histogram,
    run: Histogram,
    tokenize: Histogram,
    prefill: Histogram,
    generate: Histogram,
    first_token: Histogram,
    rows: Histogram,
    events: [Counter; 5],
    model: String,
    traces: Traces,
}

const EVENTS: [(Event, &str); 5] = [
    (Event::Full, "refused_full"),
    (Event::TooLate, "refused_too_late"),
    (Event::Expired, "expired"),
    (Event::Cancelled, "cancelled"),
    (Event::Stopped, "run_stopped"),
];

impl ServerMetrics {
    pub(crate) fn new(metrics: &Metrics, keyring: Option<&Keyring>, traces: Traces) -> Arc<Self> {
        let call_family = Family::<CallLabels, Counter>::default();
        let mut calls = HashMap::new();
        let outcomes = Kind::ALL.map(|kind| kind.row().code);
        for method in METHODS.into_iter().chain([OTHER]) {
            for outcome in outcomes.into_iter().chain(["ok"]) {
                let handle = call_family.get_or_create(&CallLabels { method, outcome }).clone();
                calls.insert((method, outcome), handle);
            }
        }
        let phases = Family::<PhaseLabels, Histogram, Seconds>::new_with_constructor(Seconds);
        let write = phases.get_or_create(&PhaseLabels { model: String::new(), phase: "write" }).clone();
        let this = Self {
            phases,
            rows: Family::new_with_constructor(RowCounts),
            events: Family::default(),
            waiting: Family::default(),
            running: Family::default(),
            first_token: Family::new_with_constructor(Seconds),
            slots: Family::default(),
            prompt_tokens: Family::default(),
            cached_tokens: Family::default(),
            generated_tokens: Family::default(),
            embedded_texts: Family::default(),
            embedded_tokens: Family::default(),
            streams: Numbers::default(),
            calls,
            connections: Gauge::default(),
            connections_total: Counter::default(),
            in_flight: Gauge::default(),
            bytes_in_flight: Gauge::default(),
            bytes_in: Counter::default(),
            bytes_out: Counter::default(),
            panics: Counter::default(),
            accept_failures: Counter::default(),
            limits: Family::default(),
            sniffed: Family::default(),
            refused: Family::default(),
            refused_keys: Family::default(),
            handshake_failures: Family::default(),
            certificate_expiry: Gauge::default(),
            certificate_errors: Counter::default(),
            write,
            models: Mutex::new(HashMap::new()),
            traces,
        };
        metrics.register(|registry| {
            let engine = registry.sub_registry_with_prefix("engine");
            engine.register("batch_rows", "Rows in a run", this.rows.clone());
            engine.register("events", "Requests that were refused, expired or withdrawn", this.events.clone());
            engine.register("waiting_requests", "Requests that wait for a worker", this.waiting.clone());
            engine.register("running_rows", "Rows in runs now", this.running.clone());
            let chat = registry.sub_registry_with_prefix("chat");
            chat.register("first_token_seconds", "From a request to the first token", this.first_token.clone());
            chat.register("slots", "Conversations that can be answered at the same time", this.slots.clone());
            chat.register("prompt_tokens", "Tokens of prompts that got a slot", this.prompt_tokens.clone());
            chat.register("cached_tokens", "... that the cache held already", this.cached_tokens.clone());
            chat.register("generated_tokens", "Tokens generated", this.generated_tokens.clone());
            chat.register("streams", "Streams that have not ended", this.streams.open.clone());
            chat.register("ended_streams", "Streams that can still be asked for", this.streams.ended.clone());
            chat.register("displaced_streams", "... that were forgotten to make room", this.streams.displaced.clone());
            let embed = registry.sub_registry_with_prefix("embed");
            embed.register("texts", "Texts made vectors of", this.embedded_texts.clone());
            embed.register("tokens", "Tokens of those texts", this.embedded_tokens.clone());
            let server = registry.sub_registry_with_prefix("server");
            server.register("phase_seconds", "Where the time of requests goes", this.phases.clone());
            server.register("calls", "Calls by method and outcome", call_family);
            server.register("connections", "Open connections", this.connections.clone());
            server.register("connections_opened", "Connections accepted", this.connections_total.clone());
            server.register("calls_in_flight", "Calls being worked on", this.in_flight.clone());
            server.register(
                "bytes_in_flight",
                "Bytes of requests and of answers that wait to be taken",
                this.bytes_in_flight.clone(),
            );
            server.register("bytes_in", "Bytes of frames read", this.bytes_in.clone());
            server.register("bytes_out", "Bytes written", this.bytes_out.clone());
            server.register("panics", "Handlers that panicked", this.panics.clone());
            server.register("accept_failures", "Connections that could not be accepted", this.accept_failures.clone());
            server.register("limit_hits", "How often a limit was hit", this.limits.clone());
            server.register("refused_calls", "Calls refused before they began", this.refused.clone());
            let handshakes = this.handshake_failures.clone();
            server.register("tls_handshake_failures", "Connections that did not get through the handshake", handshakes);
            let expiry = this.certificate_expiry.clone();
            server.register("tls_certificate_expiry_seconds", "Unix time at which the certificate in use ends", expiry);
            let errors = this.certificate_errors.clone();
            server.register("tls_certificate_errors", "Changed files of the certificate that cannot be used", errors);
            server.register("refused_keys", "Calls without the key that they need", this.refused_keys.clone());
            if let Some(keyring) = keyring {
                keyring.register(server);
            }
            server.register("strangers", "Connections that spoke another protocol", this.sniffed.clone());
        });
        Arc::new(this)
    }

    /// A call without the key that it needs, and why.
    pub(crate) fn refused_key(&self, name: &'static str) {
        self.refused_keys.get_or_create(&NameLabels { name }).inc();
    }

    /// The handles of one model; the same ones for the same name.
    pub(crate) fn model(&self, name: &ModelName) -> Arc<ModelMetrics> {
        let mut models = self.models.lock();
        let handles = models.entry(name.clone()).or_insert_with(|| {
            let model = name.to_string();
            let phase = |phase| self.phases.get_or_create(&PhaseLabels { model: model.clone(), phase }).clone();
            let event = |(_, event)| self.events.get_or_create(&EventLabels { model: model.clone(), event }).clone();
            Arc::new(ModelMetrics {
                read: phase("read"),
                encode: phase("encode"),
                decode: phase("decode"),
                queue: phase("queue"),
                run: phase("run"),
                tokenize: phase("tokenize"),
                prefill: phase("prefill"),
                generate: phase("generate"),
                first_token: self.first_token.get_or_create(&ModelLabels { model: model.clone() }).clone(),
                rows: self.rows.get_or_create(&ModelLabels { model: model.clone() }).clone(),
                events: EVENTS.map(event),
                traces: self.traces.clone(),
                model,
            })
        });
        Arc::clone(handles)
    }

    /// What a chat model has in hand and has done.
    pub(crate) fn chat(&self, labels: &ModelLabels, load: &engine::ChatLoad) {
        self.slots.get_or_create(labels).set(load.slots as i64);
        // Counted where it happens; here it is only shown.
        for (counter, value) in [
            (&self.prompt_tokens, load.prompt_tokens),
            (&self.cached_tokens, load.cached_tokens),
            (&self.generated_tokens, load.generated_tokens),
        ] {
            counter.get_or_create(labels).inner().store(value, Ordering::Relaxed);
        }
    }

    /// Texts were made vectors of.
    pub(crate) fn embedded(&self, model: &ModelName, texts: usize, tokens: usize) {
        let labels = ModelLabels { model: model.to_string() };
        self.embedded_texts.get_or_create(&labels).inc_by(texts as u64);
        self.embedded_tokens.get_or_create(&labels).inc_by(tokens as u64);
    }

    /// A call has ended.
    pub(crate) fn call(&self, method: &'static str, outcome: &'static str) {
        if let Some(counter) = self.calls.get(&(method, outcome)) {
            counter.inc();
        }
    }
}

impl Observe for ModelMetrics {
    fn phase(&self, phase: Phase, took: Duration) {
        let histogram = match phase {
            Phase::Read => &self.read,
            Phase::Decode => &self.decode,
            Phase::Queue => &self.queue,
            Phase::Run => &self.run,
            Phase::Tokenize => &self.tokenize,
            Phase::Prefill => &self.prefill,
            Phase::Generate => &self.generate,
            Phase::Encode => &self.encode,
        };
        histogram.observe(took.as_secs_f64());
    }

    fn first_token(&self, took: Duration) {
        self.first_token.observe(took.as_secs_f64());
    }

    fn rows(&self, rows: usize) {
        self.rows.observe(rows as f64);
    }

    fn event(&self, event: Event) {
        if let Some(at) = EVENTS.iter().position(|(known, _)| *known == event) {
            self.events[at].inc();
        }
    }

    fn ran(&self, ran: Ran<'_>) {
        let span = Span::part("batch", ran.calls[0], ran.began, ran.ended).at(ran.own);
        let span = span.with("model", self.model.as_str()).with("rows", ran.rows);
        self.traces.tell([span.with_links(ran.calls.iter().copied())]);
    }
}

impl rpc::Observe for ServerMetrics {
    fn connection_opened(&self) {
        self.connections.inc();
        self.connections_total.inc();
    }

    fn connection_closed(&self) {
        self.connections.dec();
    }

    fn accept_failed(&self) {
        self.accept_failures.inc();
    }

    fn limit(&self, limit: Limit) {
        self.limits.get_or_create(&NameLabels { name: limit.name() }).inc();
    }

    fn sniffed(&self, what: Sniffed) {
        self.sniffed.get_or_create(&NameLabels { name: stranger(what) }).inc();
    }

    fn handshake_failed(&self, why: HandshakeFailure) {
        self.handshake_failures.get_or_create(&NameLabels { name: why.name() }).inc();
    }

    fn certificate(&self, expires: SystemTime) {
        let seconds = expires.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs());
        self.certificate_expiry.set(seconds as i64);
    }

    fn certificate_unusable(&self) {
        self.certificate_errors.inc();
    }

    fn frame_read(&self, bytes: usize, _took: Duration) {
        self.bytes_in.inc_by(bytes as u64);
    }

    fn call_started(&self) {
        self.in_flight.inc();
    }

    fn call_ended(&self) {
        self.in_flight.dec();
    }

    fn call_refused(&self, why: Refusal) {
        self.refused.get_or_create(&NameLabels { name: why.name() }).inc();
    }

    fn handler_panicked(&self) {
        self.panics.inc();
    }

    fn bytes_taken(&self, bytes: usize) {
        self.bytes_in_flight.inc_by(bytes as i64);
    }

    fn bytes_released(&self, bytes: usize) {
        self.bytes_in_flight.dec_by(bytes as i64);
    }

    fn batch_written(&self, bytes: usize, took: Duration) {
        self.bytes_out.inc_by(bytes as u64);
        self.write.observe(took.as_secs_f64());
    }
}

/// What spoke on the Thrift port, as a label.
fn stranger(what: Sniffed) -> &'static str {
    match what {
        Sniffed::Http => "http",
        Sniffed::Http2 => "http2",
        Sniffed::Tls => "tls",
        Sniffed::UnframedBinary | Sniffed::UnframedCompact | Sniffed::UnframedOldBinary | Sniffed::UnframedJson => {
            "unframed_thrift"
        }
        Sniffed::THeader | Sniffed::TTHeader => "theader",
        Sniffed::FramedOldBinary | Sniffed::FramedJson => "framed_other_protocol",
        Sniffed::TooLargeFrame(_) => "too_large_frame",
        Sniffed::FramedBinary | Sniffed::FramedCompact | Sniffed::NeedMore | Sniffed::Unknown => "unknown",
    }
}
