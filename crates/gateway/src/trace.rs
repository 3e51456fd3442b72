//! What ties the log lines, answers and calls of one request together: its id, and where it stands in a trace.
//!
//! Promises: a request without a `traceparent`, or with one that the standard does not allow, begins a trace; of a trace that is
//! not kept nothing is told and nothing remembered.

use std::time::Instant;

use actix_web::http::header::{HeaderMap, HeaderName, HeaderValue};
use chassis::traces::{Event, Place, Span, Traces};
use idl::base::Base;
use units::{CallId, RequestId, TraceId, TraceParent, TraceState};

use crate::server_key::ServerKey;

pub(crate) const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
const TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// The names of a request.
#[derive(Clone)]
pub(crate) struct Names {
    pub(crate) request_id: RequestId,
    place: Place,
    state: Option<TraceState>,
    traces: Traces,
}

impl Names {
    pub(crate) fn new(request_id: RequestId, headers: &HeaderMap, traces: &Traces) -> Self {
        let text = |value: &HeaderValue| value.to_str().ok().map(str::to_owned);
        // Several are none: nobody knows which one is meant.
        let mut parents = headers.get_all(TRACEPARENT);
        let parent = match (parents.next().map(HeaderValue::to_str), parents.next()) {
            (Some(Ok(only)), None) => TraceParent::parse(only.trim_matches([' ', '\t'])),
            _ => None,
        };
        // Without its parent a state belongs to nothing, and a part of it is not the whole.
        let states = parent.and_then(|_| headers.get_all(TRACESTATE).map(text).collect::<Option<Vec<String>>>());
        let state = states.and_then(|states| TraceState::parse(states.iter().map(String::as_str)));
        Self { request_id, place: traces.place(parent), state, traces: traces.clone() }
    }

    pub(crate) fn trace_id(&self) -> TraceId {
        self.place.own.trace_id()
    }

    /// The header of the answer.
    pub(crate) fn traceparent(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.place.own.to_string()).ok()
    }

    /// What calls carry that have no span of their own.
    pub(crate) fn base(&self, key: &ServerKey, call_id: CallId) -> Base {
        self.base_at(self.place.own, key, call_id)
    }

    fn base_at(&self, own: TraceParent, key: &ServerKey, call_id: CallId) -> Base {
        Base {
            traceparent: Some(own.to_string()),
            tracestate: self.state.as_ref().map(|state| state.as_str().to_owned()),
            ..key.base(&self.request_id, call_id)
        }
    }

    /// A call to a server that begins now.
    pub(crate) fn calling(&self, method: &'static str) -> Calling<'_> {
        let own = self.place.told().map_or(self.place.own, TraceParent::child);
        Calling { names: self, method, own, began: Instant::now(), events: Vec::new(), ended: false }
    }

    /// The request has ended; `known` adds what is known of it.
    pub(crate) fn end(
        &self,
        name: &'static str,
        began: Instant,
        failure: Option<&str>,
        known: impl FnOnce(Span) -> Span,
    ) {
        if self.place.told().is_some() {
            let span = Span::server(name, &self.place, began, Instant::now()).with_failure(failure);
            self.traces.tell([known(span)]);
        }
    }
}

/// A call to a server. Dropped before its end, the client has left.
pub(crate) struct Calling<'a> {
    names: &'a Names,
    method: &'static str,
    own: TraceParent,
    began: Instant,
    events: Vec<Event>,
    ended: bool,
}

impl Calling<'_> {
    /// What the call carries.
    pub(crate) fn base(&self, key: &ServerKey, call_id: CallId) -> Base {
        self.names.base_at(self.own, key, call_id)
    }

    /// It is sent once more.
    pub(crate) fn repeated(&mut self, reason: &dyn std::fmt::Display) {
        if self.names.place.told().is_some() {
            let attributes = vec![("reason", reason.to_string().as_str().into())];
            self.events.push(Event { name: "retry", at: Instant::now(), attributes });
        }
    }

    pub(crate) fn end(mut self, failure: Option<&dyn std::fmt::Display>) {
        self.tell(failure);
    }

    fn tell(&mut self, failure: Option<&dyn std::fmt::Display>) {
        self.ended = true;
        let Some(parent) = self.names.place.told() else { return };
        let failure = failure.map(ToString::to_string);
        let span = Span::client(self.method, self.own, parent, self.began, Instant::now());
        let span = span.with_events(std::mem::take(&mut self.events)).with_failure(failure.as_deref());
        self.names.traces.tell([span]);
    }
}

impl Drop for Calling<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.tell(Some(&"the client left, or it was too late"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn names(headers: &[(HeaderName, &str)]) -> Names {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(name.clone(), HeaderValue::from_str(value).expect("a value"));
        }
        Names::new(RequestId::generate(), &map, &Traces::off())
    }

    fn base(names: &Names) -> Base {
        names.calling("classify").base(&ServerKey::None, CallId([0; 16]))
    }

    #[test]
    fn what_came_is_handed_on_and_answered() {
        let names = names(&[(TRACEPARENT, PARENT), (TRACESTATE, "foo=1"), (TRACESTATE, "bar=2")]);
        let base = base(&names);
        assert_eq!((base.traceparent.as_deref(), base.tracestate.as_deref()), (Some(PARENT), Some("foo=1,bar=2")));
        assert_eq!(names.traceparent().expect("a header"), PARENT);
        assert_eq!(names.trace_id().to_string(), PARENT[3..35]);
        assert_eq!(names.base(&ServerKey::None, CallId([0; 16])).traceparent.as_deref(), Some(PARENT));
    }

    #[test]
    fn what_is_no_parent_is_replaced_and_its_state_forgotten() {
        let state = (TRACESTATE, "foo=1");
        for headers in [
            vec![state.clone()],
            vec![(TRACEPARENT, "00-1-2-3"), state.clone()],
            // Twice the same is still twice.
            vec![(TRACEPARENT, PARENT), (TRACEPARENT, PARENT), state.clone()],
        ] {
            let base = base(&names(&headers));
            let begun = base.traceparent.expect("a trace is begun");
            assert!(TraceParent::parse(&begun).is_some() && begun[..35] != PARENT[..35], "{begun}");
            assert_eq!(base.tracestate, None);
        }
        let wrong_state = names(&[(TRACEPARENT, PARENT), (TRACESTATE, "foo")]);
        let base = base(&wrong_state);
        assert_eq!((base.traceparent.as_deref(), base.tracestate), (Some(PARENT), None));
    }
}
