//! A stretch of a request's way, and its form in OTLP.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::trace::v1::span::{self as proto, SpanKind};
use opentelemetry_proto::tonic::trace::v1::{Span as Proto, SpanFlags, Status, status::StatusCode};
use units::TraceParent;

/// What a span is to those on its other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A request that came from outside.
    Server,
    /// A call to another process.
    Client,
    /// Something inside.
    Internal,
}

/// What is known of a span.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// A text.
    Text(String),
    /// A number.
    Number(i64),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<usize> for Value {
    fn from(number: usize) -> Self {
        Self::Number(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

/// Something that happened at one moment of a span.
#[derive(Clone, Debug)]
pub struct Event {
    /// What.
    pub name: &'static str,
    /// When.
    pub at: Instant,
    /// What is known of it.
    pub attributes: Vec<(&'static str, Value)>,
}

/// A span that has ended.
#[derive(Clone, Debug)]
pub struct Span {
    name: &'static str,
    kind: Kind,
    own: TraceParent,
    parent: Option<TraceParent>,
    /// The parent is in another process.
    remote: bool,
    began: Instant,
    ended: Instant,
    attributes: Vec<(&'static str, Value)>,
    events: Vec<Event>,
    links: Vec<TraceParent>,
    failure: Option<String>,
}

impl Span {
    /// A request that came from outside, where it stands.
    #[must_use]
    pub fn server(name: &'static str, place: &super::Place, began: Instant, ended: Instant) -> Self {
        Self { remote: true, ..Self::new(name, Kind::Server, place.own, place.parent, began, ended) }
    }

    /// A call to another process, which stands at `own`.
    #[must_use]
    pub fn client(name: &'static str, own: TraceParent, parent: TraceParent, began: Instant, ended: Instant) -> Self {
        Self::new(name, Kind::Client, own, Some(parent), began, ended)
    }

    /// A part of `parent`.
    #[must_use]
    pub fn part(name: &'static str, parent: TraceParent, began: Instant, ended: Instant) -> Self {
        Self::new(name, Kind::Internal, parent.child(), Some(parent), began, ended)
    }

    fn new(
        name: &'static str,
        kind: Kind,
        own: TraceParent,
        parent: Option<TraceParent>,
        began: Instant,
        ended: Instant,
    ) -> Self {
        let (attributes, events, links) = (Vec::new(), Vec::new(), Vec::new());
        Self { name, kind, own, parent, remote: false, began, ended, attributes, events, links, failure: None }
    }

    /// The same with a name of its own that others know already.
    #[must_use]
    pub fn at(self, own: TraceParent) -> Self {
        Self { own, ..self }
    }

    /// A part of this one.
    #[must_use]
    pub fn part_of(&self, name: &'static str, began: Instant, ended: Instant) -> Self {
        Self::part(name, self.own, began, ended)
    }

    /// The same, ended later.
    #[must_use]
    pub fn until(self, ended: Instant) -> Self {
        Self { ended, ..self }
    }

    /// The same with something that is known of it.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Into<Value>) -> Self {
        self.attributes.push((name, value.into()));
        self
    }

    /// The same with what happened meanwhile.
    #[must_use]
    pub fn with_events(mut self, events: impl IntoIterator<Item = Event>) -> Self {
        self.events.extend(events);
        self
    }

    /// The same with other spans that it has to do with.
    #[must_use]
    pub fn with_links(mut self, links: impl IntoIterator<Item = TraceParent>) -> Self {
        self.links.extend(links);
        self
    }

    /// The same, failed for a reason, when there is one.
    #[must_use]
    pub fn with_failure(self, failure: Option<&str>) -> Self {
        Self { failure: failure.map(str::to_owned), ..self }
    }

    pub(super) fn into_proto(self, clock: &Clock) -> Proto {
        let remote = if self.remote { SpanFlags::ContextIsRemoteMask as u32 } else { 0 };
        let flags = 1 | SpanFlags::ContextHasIsRemoteMask as u32 | remote;
        let kind = match self.kind {
            Kind::Server => SpanKind::Server,
            Kind::Client => SpanKind::Client,
            Kind::Internal => SpanKind::Internal,
        };
        let events = self.events.into_iter().map(|event| proto::Event {
            time_unix_nano: clock.unix_nanos(event.at),
            name: event.name.to_owned(),
            attributes: attributes(event.attributes),
            dropped_attributes_count: 0,
        });
        let links = self.links.into_iter().map(|link| proto::Link {
            trace_id: link.trace_id().bytes().to_vec(),
            span_id: link.span_bytes().to_vec(),
            flags: 1,
            ..proto::Link::default()
        });
        Proto {
            trace_id: self.own.trace_id().bytes().to_vec(),
            span_id: self.own.span_bytes().to_vec(),
            parent_span_id: self.parent.map(|parent| parent.span_bytes().to_vec()).unwrap_or_default(),
            flags,
            name: self.name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: clock.unix_nanos(self.began),
            end_time_unix_nano: clock.unix_nanos(self.ended),
            attributes: attributes(self.attributes),
            events: events.collect(),
            links: links.collect(),
            status: self.failure.map(|message| Status { message, code: StatusCode::Error.into() }),
            ..Proto::default()
        }
    }
}

pub(super) fn attribute(name: &str, value: Value) -> KeyValue {
    let value = match value {
        Value::Text(text) => any_value::Value::StringValue(text),
        Value::Number(number) => any_value::Value::IntValue(number),
    };
    KeyValue { key: name.to_owned(), value: Some(AnyValue { value: Some(value) }), ..KeyValue::default() }
}

fn attributes(known: Vec<(&'static str, Value)>) -> Vec<KeyValue> {
    known.into_iter().map(|(name, value)| attribute(name, value)).collect()
}

/// What time of day an instant was: a pair of looks at both clocks, taken when spans leave.
pub(super) struct Clock {
    instant: Instant,
    time: SystemTime,
}

impl Clock {
    pub(super) fn now() -> Self {
        Self { instant: Instant::now(), time: SystemTime::now() }
    }

    fn unix_nanos(&self, at: Instant) -> u64 {
        let time = match self.instant.checked_duration_since(at) {
            Some(ago) => self.time.checked_sub(ago),
            None => self.time.checked_add(at.duration_since(self.instant)),
        };
        let since = time.and_then(|time| time.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
    }
}
