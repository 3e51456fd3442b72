//! Spans on their way to the collector: a bounded queue, and a thread that empties it.
//!
//! Why a thread with a runtime of its own: the gateway's workers have one each and the server's have better things to do; a collector
//! that hangs holds up nobody here.

use std::sync::{Mutex, mpsc as std_mpsc};
use std::time::Duration;

use hyper::Uri;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout_at};
use tracing::{debug, warn};

use super::Settings;
use super::collector::{Collector, Refused};
use super::span::{Clock, Span, attribute};
use crate::metrics::Metrics;

/// Spans that leave together, at most: what OpenTelemetry's own exporters send.
const TOGETHER: usize = 512;

/// After a request: what comes meanwhile leaves together.
const PAUSE: Duration = Duration::from_secs(1);

/// Before each further try of what the collector did not take for now. With what a try may take this is less than a minute; the
/// queue holds what comes meanwhile, as far as it goes.
const AGAIN: [Duration; 3] = [Duration::from_secs(1), Duration::from_secs(2), Duration::from_secs(4)];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

/// What became of spans.
#[derive(Clone)]
struct Counts {
    sent: Counter,
    /// The queue was full.
    dropped: Counter,
    /// The collector did not take them.
    failed: Counter,
}

impl Counts {
    fn new(metrics: &Metrics) -> Self {
        let spans = Family::<Outcome, Counter>::default();
        let of = |outcome| spans.get_or_create(&Outcome { outcome }).clone();
        let this = Self { sent: of("sent"), dropped: of("queue_full"), failed: of("failed") };
        metrics.register(|registry| registry.register("trace_spans", "Spans by what became of them", spans.clone()));
        this
    }
}

/// The queue's end on this side.
pub(super) struct Outbox {
    spans: mpsc::Sender<Span>,
    counts: Counts,
    /// Set at the end of the process.
    closing: watch::Sender<bool>,
    /// The thread has ended.
    closed: Mutex<std_mpsc::Receiver<()>>,
}

impl Outbox {
    /// # Errors
    /// One sentence when the system gives no thread.
    pub(super) fn open(
        address: Uri,
        settings: &Settings,
        program: &str,
        version: &str,
        metrics: &Metrics,
    ) -> Result<Self, String> {
        let no_thread = |error: std::io::Error| format!("the thread of traces could not be started: {error}");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(no_thread)?;
        let (spans, queue) = mpsc::channel(settings.queue);
        let closing = watch::Sender::new(false);
        let (ended, closed) = std_mpsc::channel();
        let counts = Counts::new(metrics);
        let service = if settings.service.is_empty() { program } else { &settings.service };
        let sending = Sending {
            queue,
            closing: closing.subscribe(),
            collector: Collector::new(address),
            envelope: Envelope::new(service, version),
            counts: counts.clone(),
        };
        let thread = std::thread::Builder::new().name("traces".to_owned());
        let run = move || {
            runtime.block_on(sending.run());
            // An error means that nobody waits for it.
            let _ = ended.send(());
        };
        thread.spawn(run).map_err(no_thread)?;
        Ok(Self { spans, counts, closing, closed: Mutex::new(closed) })
    }

    pub(super) fn put(&self, span: Span) {
        if self.spans.try_send(span).is_err() {
            self.counts.dropped.inc();
        }
    }

    pub(super) fn close(&self, patience: Duration) {
        self.closing.send_replace(true);
        let Ok(closed) = self.closed.lock() else { return };
        if closed.recv_timeout(patience).is_err() {
            warn!("the last spans were not sent: the collector does not answer");
        }
    }
}

/// What each request to the collector says besides its spans.
struct Envelope {
    resource: Resource,
    scope: InstrumentationScope,
}

impl Envelope {
    fn new(service: &str, version: &str) -> Self {
        let attributes = vec![
            attribute("service.name", service.into()),
            attribute("service.version", version.into()),
            attribute("process.pid", (std::process::id() as usize).into()),
        ];
        let resource = Resource { attributes, ..Resource::default() };
        let (name, version) = ("outboard".to_owned(), version.to_owned());
        Self { resource, scope: InstrumentationScope { name, version, ..InstrumentationScope::default() } }
    }

    fn around(&self, spans: Vec<Span>) -> ExportTraceServiceRequest {
        let clock = Clock::now();
        let spans = spans.into_iter().map(|span| span.into_proto(&clock)).collect();
        let scope_spans = vec![ScopeSpans { scope: Some(self.scope.clone()), spans, ..ScopeSpans::default() }];
        let resource = Some(self.resource.clone());
        ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans { resource, scope_spans, ..ResourceSpans::default() }],
        }
    }
}

/// The thread's work.
struct Sending {
    queue: mpsc::Receiver<Span>,
    closing: watch::Receiver<bool>,
    collector: Collector,
    envelope: Envelope,
    counts: Counts,
}

impl Sending {
    async fn run(mut self) {
        loop {
            let mut spans = Vec::new();
            let mut closing = self.closing.clone();
            tokio::select! {
                biased;
                received = self.queue.recv_many(&mut spans, TOGETHER) => if received == 0 { return },
                // An error means that the other side is gone, which is an end as well.
                _ = closing.wait_for(|closing| *closing) => return,
            }
            self.fill(&mut spans, Instant::now() + PAUSE).await;
            self.send(spans).await;
        }
    }

    /// Waits for more to leave with it, until there is enough, the time is over, or the process ends.
    async fn fill(&mut self, spans: &mut Vec<Span>, until: Instant) {
        while spans.len() < TOGETHER {
            let mut closing = self.closing.clone();
            let more = TOGETHER - spans.len();
            tokio::select! {
                biased;
                received = timeout_at(until, self.queue.recv_many(spans, more)) => if !matches!(received, Ok(1..)) { return },
                _ = closing.wait_for(|closing| *closing) => return,
            }
        }
    }

    async fn send(&self, spans: Vec<Span>) {
        let count = spans.len() as u64;
        let request = self.envelope.around(spans);
        let mut pauses = AGAIN.into_iter();
        loop {
            let refused = match self.collector.take(&request).await {
                Ok(refused) => {
                    let refused = refused.min(count);
                    self.counts.failed.inc_by(refused);
                    self.counts.sent.inc_by(count - refused);
                    return;
                }
                Err(refused) => refused,
            };
            let pause = match refused {
                Refused::ForNow(_) if !*self.closing.borrow() => pauses.next(),
                Refused::ForNow(_) | Refused::ForGood(_) => None,
            };
            let Some(pause) = pause else {
                self.counts.failed.inc_by(count);
                warn!(spans = count, error = %refused, "the collector did not take spans");
                return;
            };
            debug!(error = %refused, "the collector is asked again");
            let mut closing = self.closing.clone();
            tokio::select! {
                () = sleep(pause) => {}
                _ = closing.wait_for(|closing| *closing) => {}
            }
        }
    }
}
