//! Traces: spans that are told when they have ended, and sent by OTLP over HTTP to a collector when one is configured.
//!
//! Why no spans of `tracing`: they would cost something on the way of every request. Here a span is made when its end is known, and
//! only of a trace that is kept; all others cost a comparison.
//! Promises: telling never waits: what the collector does not take in time is dropped and counted. The end of the process waits for
//! it no longer than [`FAREWELL`].
//! Not here: what the headers look like (`units`), which spans there are (`server`, `gateway`).

mod collector;
mod outbox;
mod settings;
mod span;

use std::sync::Arc;
use std::time::Duration;

use units::TraceParent;

use self::outbox::Outbox;
pub use self::settings::{Sampler, Settings};
pub use self::span::{Event, Kind, Span, Value};
use crate::metrics::Metrics;

/// How long the end of the process waits for the last spans to be taken.
pub const FAREWELL: Duration = Duration::from_secs(3);

/// Decides which traces are kept, and has the way to the collector when there is one. Clones are the same.
#[derive(Clone)]
pub struct Traces {
    sampler: Sampler,
    ratio: f64,
    outbox: Option<Arc<Outbox>>,
}

/// Where one request stands.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    /// Where its caller stands, when it has said so.
    pub parent: Option<TraceParent>,
    /// Where it stands itself: what it hands on. Its own span when that is told, else as it came.
    pub own: TraceParent,
    /// Its span is told.
    told: bool,
}

impl Traces {
    /// Begins to send when an endpoint is configured. `program` is the service's name when the settings have none.
    ///
    /// # Errors
    /// One sentence when the settings cannot be used.
    pub fn start(settings: &Settings, program: &str, version: &str, metrics: &Metrics) -> Result<Self, String> {
        settings.check().map_err(|error| error.to_string())?;
        let outbox = match settings.collector().map_err(|error| error.to_string())? {
            None => None,
            Some(address) => Some(Arc::new(Outbox::open(address, settings, program, version, metrics)?)),
        };
        Ok(Self { sampler: settings.sampler, ratio: settings.ratio, outbox })
    }

    /// Traces that go nowhere.
    #[must_use]
    pub fn off() -> Self {
        Self { sampler: Sampler::default(), ratio: 1.0, outbox: None }
    }

    /// Where a request stands that came with `parent`, or without: then it begins a trace.
    #[must_use]
    pub fn place(&self, parent: Option<TraceParent>) -> Place {
        let begun = parent.unwrap_or_else(TraceParent::begin);
        let sampled = self.sampler.keeps(self.ratio, parent, begun);
        let told = sampled && self.outbox.is_some();
        let own = begun.with_sampled(sampled);
        // Without a span of its own it stands where its caller does, so that those below hang together.
        let own = if told && parent.is_some() { own.child() } else { own };
        Place { parent, own, told }
    }

    /// The same for those who begin no trace of their own unless it is told.
    #[must_use]
    pub fn place_below(&self, parent: Option<TraceParent>) -> Option<Place> {
        (parent.is_some() || self.outbox.is_some()).then(|| self.place(parent))
    }

    /// Sends spans that have ended. Never waits.
    pub fn tell(&self, spans: impl IntoIterator<Item = Span>) {
        if let Some(outbox) = &self.outbox {
            spans.into_iter().for_each(|span| outbox.put(span));
        }
    }

    /// Sends what is left. Blocks for [`FAREWELL`] at most; what is told afterwards is dropped.
    pub fn end(&self) {
        if let Some(outbox) = &self.outbox {
            outbox.close(FAREWELL);
        }
    }
}

impl Place {
    /// Where it stands, when its spans are to be told.
    #[must_use]
    pub fn told(&self) -> Option<TraceParent> {
        self.told.then_some(self.own)
    }
}

#[cfg(test)]
mod tests;
