//! A call in its caller's trace: where it stands, and the spans that are told of it.
//!
//! Why spans are made when a call has ended: nothing is done on its way, and of a trace that nobody keeps nothing at all.

use std::ops::Deref;
use std::time::{Duration, Instant};

use chassis::traces::{Place, Span, Traces};
use engine::Timing;
use idl::base::Base;
use rpc::CallContext;
use units::{CallerId, TraceId, TraceParent};

use crate::chat::Talked;

/// Where a call stands, when it is part of a trace.
#[derive(Clone, Copy)]
pub(crate) struct Trace(Option<Place>);

impl Trace {
    pub(crate) fn of(traces: &Traces, base: Option<&Base>) -> Self {
        let parent = base.and_then(|base| base.traceparent.as_deref()).and_then(TraceParent::parse);
        Self(traces.place_below(parent))
    }

    /// The trace's name, for the log and for a fault.
    pub(crate) fn id(&self) -> Option<TraceId> {
        self.0.map(|place| place.own.trace_id())
    }

    /// The call's span, when spans are told of it.
    pub(crate) fn told(&self) -> Option<TraceParent> {
        self.0.and_then(|place| place.told())
    }

    /// The span of the whole call, to which `known` adds what is known of it; none when it is not told.
    pub(crate) fn whole(
        &self,
        name: &'static str,
        began: Instant,
        failure: Option<&str>,
        known: impl FnOnce(Span) -> Span,
    ) -> Option<Span> {
        let place = self.0.filter(|place| place.told().is_some())?;
        Some(known(Span::server(name, &place, began, Instant::now())).with_failure(failure))
    }

    /// Where the time of a call went that went through the queue.
    pub(crate) fn parts(&self, timing: &Timing) -> Vec<Span> {
        let (Some(own), Some(began)) = (self.told(), timing.began) else { return Vec::new() };
        let queued = before(began, timing.queue);
        let decoded = Span::part("decode", own, before(queued, timing.decode), queued);
        let run = Span::part("run", own, began, began + timing.run).with_links(timing.batch);
        let queue = Span::part("queue", own, queued, began);
        let is_decoded = !timing.decode.is_zero();
        is_decoded.then_some(decoded).into_iter().chain([queue, run]).collect()
    }

    /// Where the time of a chat went that was received at `received`, as far as it came.
    pub(crate) fn chat_parts(&self, received: Instant, talked: &Talked) -> Vec<Span> {
        let (Some(own), Some(first)) = (self.told(), talked.first_token) else { return Vec::new() };
        let first = received + first;
        let begun = before(first, talked.timing.prefill);
        vec![
            Span::part("queue", own, before(begun, talked.timing.queue), begun),
            Span::part("prefill", own, begun, first).with("tokens_cached", talked.usage.cached),
            Span::part("stream", own, first, Instant::now()),
        ]
    }
}

fn before(end: Instant, took: Duration) -> Instant {
    end.checked_sub(took).unwrap_or(end)
}

/// A call as its method gets it.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) context: CallContext,
    /// The name of its key, or where it came from.
    pub(crate) caller: CallerId,
    pub(crate) trace: Trace,
}

impl Deref for Call {
    type Target = CallContext;

    fn deref(&self) -> &CallContext {
        &self.context
    }
}
