//! What is told of one call: the log line and the counter, once, however it ends.
//!
//! Why a type of its own: a caller that leaves drops the handler half-way, and what drops is the only one to notice.
//! Promises: nothing that a caller wrote makes a log line or an answer long; the names of `request_id` and `model` are cut
//! or checked, messages of faults are cut.

use std::borrow::Cow;
use std::time::{Duration, Instant};

use chassis::logs::Requests;
use chassis::traces::{Span, Traces};
use fault::{Fault, Kind};
use tracing::info;
use units::RequestId;

use crate::chat::{Talk, Talked};
use crate::methods::Methods;
use crate::trace::{Call, Trace};

/// Most bytes of a fault's message: those of ours have at most a few hundred, and what callers wrote stands in them.
const MESSAGE: usize = 1_024;

/// Most bytes of a name that came from outside: longer than any model's or tensor's that can be served.
const NAME: usize = 128;

/// What a call is about, as far as its request says.
pub(crate) struct About {
    model: String,
    rows: usize,
    /// What it has come to so far, of a call that is a whole chat.
    talk: Option<Talk>,
}

impl About {
    pub(crate) fn new(model: Option<&str>, rows: usize) -> Self {
        let model = model.unwrap_or_default();
        Self { model: model[..model.floor_char_boundary(NAME)].to_owned(), rows, talk: None }
    }

    pub(crate) fn chat(model: Option<&str>, talk: &Talk) -> Self {
        Self { talk: Some(talk.clone()), ..Self::new(model, 1) }
    }
}

/// What a call that went well has to tell.
pub(crate) enum Spent {
    /// Where its time went.
    Run(engine::Timing),
    /// The same, and how many tokens its texts had.
    Texts(engine::Timing, usize),
    /// What its chat came to.
    Chat(Talked),
    /// Nothing: its stream has a line of its own.
    Elsewhere,
}

impl From<engine::Timing> for Spent {
    fn from(timing: engine::Timing) -> Self {
        Self::Run(timing)
    }
}

/// Where a chat came from, for the one line that tells of it.
pub(crate) struct Origin {
    request_id: RequestId,
    caller: String,
    model: String,
    bytes_in: usize,
    requests: Requests,
    traces: Traces,
    trace: Trace,
    pub(crate) received: Instant,
}

impl Origin {
    pub(crate) fn new(methods: &Methods, call: &Call, request_id: RequestId, model: &str) -> Self {
        Self {
            request_id,
            caller: call.caller.to_string(),
            model: model.to_owned(),
            bytes_in: call.frame_bytes,
            requests: methods.requests,
            traces: methods.traces.clone(),
            trace: call.trace,
            received: call.received,
        }
    }

    /// A stream has ended.
    pub(crate) fn tell_stream(&self, fault: Option<&Fault>, talked: &Talked) {
        let span = self.tell("stream", fault, talked);
        self.traces.tell(span);
    }

    /// A chat has ended. Gives back its span, which is still to be told.
    fn tell(&self, kind: &'static str, fault: Option<&Fault>, talked: &Talked) -> Option<Span> {
        self.traces.tell(self.trace.chat_parts(self.received, talked));
        let span = self.trace.whole(kind, self.received, reason(fault), |span| {
            span.with("request_id", self.request_id.as_str())
                .with("caller", self.caller.as_str())
                .with("model", self.model.as_str())
                .with("outcome", fault.map_or("ok", Fault::code))
                .with("finish", talked.finish)
                .with("tokens_in", talked.usage.prompt)
                .with("tokens_cached", talked.usage.cached)
                .with("tokens_out", talked.usage.completion)
        });
        if self.requests == Requests::Failures && fault.is_none() {
            return span;
        }
        info!(
            request_id = self.request_id.as_str(),
            trace_id = self.trace.id().map(tracing::field::display),
            caller = self.caller,
            kind,
            model = self.model,
            outcome = fault.map_or("ok", Fault::code),
            reason = fault.map(|fault| fault.message.as_ref()),
            finish = talked.finish,
            queue_ms = millis(talked.timing.queue),
            prefill_ms = millis(talked.timing.prefill),
            generate_ms = millis(talked.timing.decode),
            first_token_ms = talked.first_token.map(millis),
            total_ms = millis(self.received.elapsed()),
            tokens_in = talked.usage.prompt,
            tokens_cached = talked.usage.cached,
            tokens_out = talked.usage.completion,
            bytes_in = self.bytes_in,
            "chat"
        );
        span
    }
}

fn reason(fault: Option<&Fault>) -> Option<&str> {
    fault.map(|fault| fault.message.as_ref())
}

fn millis(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}

/// A call that has not ended yet. Dropped without [`Record::end`] it was cut: its caller left, or its handler panicked.
pub(crate) struct Record<'a> {
    methods: &'a Methods,
    method: &'static str,
    call: Call,
    request_id: RequestId,
    about: About,
    ended: bool,
}

impl<'a> Record<'a> {
    pub(crate) fn begin(
        methods: &'a Methods,
        method: &'static str,
        call: Call,
        request_id: RequestId,
        about: About,
    ) -> Self {
        Self { methods, method, call, request_id, about, ended: false }
    }

    /// The call has ended, and this is what came of it. Gives back its span, which is still to be told.
    pub(crate) fn end(mut self, spent: Result<&Spent, &Fault>) -> Option<Span> {
        self.ended = true;
        match spent {
            Ok(Spent::Run(timing)) => self.tell(None, timing, None),
            Ok(Spent::Texts(timing, tokens)) => self.tell(None, timing, Some(*tokens)),
            Ok(Spent::Chat(talked)) => self.tell_chat(None, talked),
            Ok(Spent::Elsewhere) => {
                self.methods.metrics.call(self.method, "ok");
                None
            }
            Err(fault) => self.tell_fault(fault),
        }
    }

    fn tell_fault(&self, fault: &Fault) -> Option<Span> {
        match self.about.talk.as_ref().and_then(|talk| talk.talked(fault.code())) {
            Some(talked) => self.tell_chat(Some(fault), &talked),
            None => self.tell(Some(fault), &engine::Timing::default(), None),
        }
    }

    fn tell_chat(&self, fault: Option<&Fault>, talked: &Talked) -> Option<Span> {
        self.methods.metrics.call(self.method, fault.map_or("ok", |fault| fault.kind.row().code));
        let origin = Origin::new(self.methods, &self.call, self.request_id.clone(), &self.about.model);
        origin.tell(self.method, fault, talked)
    }

    fn tell(&self, fault: Option<&Fault>, timing: &engine::Timing, tokens: Option<usize>) -> Option<Span> {
        let methods = self.methods;
        methods.metrics.call(self.method, fault.map_or("ok", |fault| fault.kind.row().code));
        methods.traces.tell(self.call.trace.parts(timing));
        let span = self.call.trace.whole(self.method, self.call.received, reason(fault), |span| {
            span.with("request_id", self.request_id.as_str())
                .with("caller", self.call.caller.as_str())
                .with("model", self.about.model.as_str())
                .with("outcome", fault.map_or("ok", Fault::code))
                .with("rows", self.about.rows)
                .with("batch_size", timing.batch_rows)
        });
        if methods.requests == Requests::Failures && fault.is_none() {
            return span;
        }
        info!(
            request_id = self.request_id.as_str(),
            trace_id = self.call.trace.id().map(tracing::field::display),
            caller = %self.call.caller,
            kind = self.method,
            model = self.about.model,
            outcome = fault.map_or("ok", Fault::code),
            reason = fault.map(|fault| fault.message.as_ref()),
            decode_ms = millis(timing.decode),
            queue_ms = millis(timing.queue),
            device_ms = millis(timing.run),
            total_ms = millis(self.call.received.elapsed()),
            rows = self.about.rows,
            batch_size = timing.batch_rows,
            tokens_in = tokens,
            bytes_in = self.call.frame_bytes,
            "call"
        );
        span
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let why = if std::thread::panicking() {
            Fault::new(Kind::Internal, "the handler panicked")
        } else {
            Fault::new(Kind::Cancelled, "the caller left, or the drain ended")
        };
        let span = self.tell_fault(&why);
        self.methods.traces.tell(span);
    }
}

/// The same fault with a message and a parameter that are short enough to log and to send.
pub(crate) fn bounded(mut fault: Fault) -> Fault {
    shorten(&mut fault.message, MESSAGE);
    if let Some(param) = &mut fault.param {
        shorten(param, NAME);
    }
    fault
}

fn shorten(text: &mut Cow<'static, str>, most: usize) {
    if text.len() > most {
        *text = format!("{} ...", &text[..text.floor_char_boundary(most)]).into();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_callers_write_is_cut_between_characters() {
        assert_eq!(About::new(Some("mnist"), 1).model, "mnist");
        assert_eq!(About::new(Some(&"\u{1f600}".repeat(1_000_000)), 1).model.len(), NAME);
        // Of three bytes each.
        assert_eq!(About::new(Some(&"\u{20ac}".repeat(100)), 1).model.len(), NAME - NAME % 3);
        assert_eq!(About::new(None, 1).model, "");
    }

    #[test]
    fn a_fault_never_answers_megabytes_with_megabytes() {
        let long = "\u{20ac}".repeat(3_000_000);
        let fault = bounded(Fault::invalid_input(format!("no input `{long}`")).with_param(long.clone()));
        assert!(fault.message.len() <= MESSAGE + 4 && fault.message.ends_with(" ..."), "{}", fault.message.len());
        assert!(fault.param.as_deref().is_some_and(|param| param.len() <= NAME + 4));
        let short = Fault::invalid_input("top_k is 0").with_param("top_k");
        assert_eq!(bounded(short.clone()), short);
    }
}
