//! Parts of a program that are no longer heard in its log.

use std::fmt;
use std::sync::{Arc, OnceLock};

use tracing::{Event, Subscriber};
use tracing_log::NormalizeEvent as _;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// A target whose events are no longer written, from some moment on: a library may complain of what was done on purpose.
#[derive(Clone, Default)]
pub struct Silence(Arc<OnceLock<&'static str>>);

impl Silence {
    /// From now on. The first target stays.
    pub fn on(&self, target: &'static str) {
        let _ = self.0.set(target);
    }

    fn covers(&self, event: &Event<'_>) -> bool {
        self.0.get().is_some_and(|silent| {
            // An event that comes from the `log` crate has its true metadata among its fields.
            let normalized = event.normalized_metadata();
            normalized.as_ref().unwrap_or_else(|| event.metadata()).target() == *silent
        })
    }
}

/// A format that writes nothing of what is silent.
pub(crate) struct Heard<F> {
    pub(crate) format: F,
    pub(crate) silence: Silence,
}

impl<S, N, F> FormatEvent<S, N> for Heard<F>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
    F: FormatEvent<S, N>,
{
    fn format_event(&self, context: &FmtContext<'_, S, N>, writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        if self.silence.covers(event) { Ok(()) } else { self.format.format_event(context, writer, event) }
    }
}
