//! What is counted and timed, with every handle looked up once.

use std::sync::Arc;

use chassis::keyring::Keyring;
use chassis::metrics::{Metrics, Seconds};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor as _};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use rpc::ObserveChannel;

use crate::ask::Told;
use crate::server_tls;

/// What clients ask for; the label of every metric of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(crate) enum Route {
    Classify,
    Chat,
    Completions,
    Embeddings,
    Upload,
    Models,
    History,
    Page,
    Asset,
    Health,
    Unknown,
}

const ROUTES: [&str; 11] = [
    "classify",
    "chat",
    "completions",
    "embeddings",
    "upload",
    "models",
    "history",
    "page",
    "asset",
    "health",
    "unknown",
];
const CLASSES: [&str; 4] = ["2xx", "3xx", "4xx", "5xx"];

impl Route {
    pub(crate) fn name(self) -> &'static str {
        ROUTES[self as usize]
    }
}

/// Why somebody was not let in; the label of a metric.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(usize)]
pub(crate) enum Refused {
    NoKey,
    UnknownKey,
    ExpiredKey,
    Scope,
    Token,
    Origin,
}

const REFUSED: [&str; 6] = ["no_key", "unknown_key", "expired_key", "scope", "token", "origin"];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: &'static str,
}

/// What the threads do about servers that fail.
#[derive(Debug)]
pub(crate) struct ServerEvents {
    ejected: Counter,
    hung: Counter,
    joined: Counter,
    left: Counter,
    repeated: Counter,
    over_budget: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EventLabels {
    event: &'static str,
}

impl ServerEvents {
    fn of(events: &Family<EventLabels, Counter>) -> Self {
        let counter = |event| events.get_or_create(&EventLabels { event }).clone();
        Self {
            ejected: counter("ejected"),
            hung: counter("hung"),
            joined: counter("joined"),
            left: counter("left"),
            repeated: counter("repeated"),
            over_budget: counter("over_budget"),
        }
    }
}

impl ObserveChannel for ServerEvents {
    fn ejected(&self) {
        self.ejected.inc();
    }

    fn hung(&self) {
        self.hung.inc();
    }

    fn joined(&self) {
        self.joined.inc();
    }

    fn left(&self) {
        self.left.inc();
    }

    fn repeated(&self) {
        self.repeated.inc();
    }

    fn over_budget(&self) {
        self.over_budget.inc();
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RouteLabels {
    route: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct AnswerLabels {
    route: &'static str,
    status: &'static str,
}

/// All of the gateway's metrics.
pub(crate) struct GatewayMetrics {
    seconds: Vec<Histogram>,
    answers: Vec<Vec<Counter>>,
    left: Counter,
    refused: [Counter; 6],
    pub(crate) server_events: Arc<ServerEvents>,
    pub(crate) tls: Arc<server_tls::Numbers>,
    first_token: Histogram,
    tokens_in: Counter,
    tokens_out: Counter,
    pub(crate) in_flight: Gauge,
    pub(crate) body_bytes: Gauge,
    pub(crate) leaving_bytes: Gauge,
}

impl GatewayMetrics {
    pub(crate) fn new(metrics: &Metrics, keyring: Option<&Keyring>) -> Self {
        let seconds = Family::<RouteLabels, Histogram, Seconds>::new_with_constructor(Seconds);
        let answers = Family::<AnswerLabels, Counter>::default();
        let refused = Family::<RefusedLabels, Counter>::default();
        let events = Family::<EventLabels, Counter>::default();
        let this = Self {
            seconds: ROUTES.map(|route| seconds.get_or_create(&RouteLabels { route }).clone()).to_vec(),
            answers: ROUTES
                .map(|route| {
                    CLASSES.map(|status| answers.get_or_create(&AnswerLabels { route, status }).clone()).to_vec()
                })
                .to_vec(),
            left: Counter::default(),
            refused: REFUSED.map(|reason| refused.get_or_create(&RefusedLabels { reason }).clone()),
            server_events: Arc::new(ServerEvents::of(&events)),
            tls: Arc::default(),
            first_token: Seconds.new_metric(),
            tokens_in: Counter::default(),
            tokens_out: Counter::default(),
            in_flight: Gauge::default(),
            body_bytes: Gauge::default(),
            leaving_bytes: Gauge::default(),
        };
        metrics.register(|registry| {
            let gateway = registry.sub_registry_with_prefix("gateway");
            gateway.register("request_seconds", "From a request's head to its answer", seconds);
            gateway.register("answers", "Answers by route and class of status", answers);
            gateway.register("clients_left", "Clients that left before their answer", this.left.clone());
            gateway.register("refused", "Requests without the key or the token that they need", refused);
            let expiry = this.tls.expiry.clone();
            gateway.register("tls_certificate_expiry_seconds", "Unix time at which the one for servers ends", expiry);
            let errors = this.tls.errors.clone();
            gateway.register("tls_certificate_errors", "Changed files for TLS that cannot be used", errors);
            gateway.register("server_events", "What was done about servers that fail", events);
            if let Some(keyring) = keyring {
                keyring.register(gateway);
            }
            let first = this.first_token.clone();
            gateway.register("first_token_seconds", "From a request's head to the first token of its answer", first);
            gateway.register("prompt_tokens", "Tokens that models have read", this.tokens_in.clone());
            gateway.register("generated_tokens", "Tokens that models have written", this.tokens_out.clone());
            gateway.register("requests_in_flight", "Requests being worked on", this.in_flight.clone());
            gateway.register("body_bytes", "Bytes of bodies in memory", this.body_bytes.clone());
            gateway.register(
                "leaving_bytes",
                "Bytes of the history's pictures on their way out",
                this.leaving_bytes.clone(),
            );
        });
        this
    }

    pub(crate) fn answered(&self, route: Route, status: u16, seconds: f64) {
        self.seconds[route as usize].observe(seconds);
        let class = usize::from(status / 100).clamp(2, 5) - 2;
        self.answers[route as usize][class].inc();
    }

    /// What an answer had besides its status.
    pub(crate) fn told(&self, told: &Told) {
        if let Some(first) = told.first_token {
            self.first_token.observe(first.as_secs_f64());
        }
        self.tokens_in.inc_by(told.tokens_in.into());
        self.tokens_out.inc_by(told.tokens_out.into());
    }

    pub(crate) fn refused(&self, reason: Refused) {
        self.refused[reason as usize].inc();
    }

    pub(crate) fn left(&self) {
        self.left.inc();
    }
}
