//! What happens inside, for metrics.

use std::time::{Duration, Instant};

use units::TraceParent;

/// A stretch of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// From the first byte of the request to the last: told by whoever serves the engine.
    Read,
    /// Bytes to rows.
    Decode,
    /// Waiting for a worker.
    Queue,
    /// On the device.
    Run,
    /// A conversation to tokens.
    Tokenize,
    /// The tokens of a prompt into a slot, up to the first of the answer.
    Prefill,
    /// From the first token of an answer to the last.
    Generate,
    /// Writing the answer down: told by whoever serves the engine.
    Encode,
}

/// Something that is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// Refused because as much waited as may.
    Full,
    /// Refused because it could not have been done in time.
    TooLate,
    /// Its deadline passed while it waited or ran.
    Expired,
    /// Its caller left.
    Cancelled,
    /// A run was stopped because nobody wanted its answer any more.
    Stopped,
}

/// A run with calls in it of which spans are told.
#[derive(Clone, Copy, Debug)]
pub struct Ran<'a> {
    /// Its own span.
    pub own: TraceParent,
    /// Those of the calls, the first of which it is a part of. Never empty.
    pub calls: &'a [TraceParent],
    /// When it began.
    pub began: Instant,
    /// When it ended.
    pub ended: Instant,
    /// How many rows it had, those of other calls included.
    pub rows: usize,
}

/// Takes what happens to one model. Called on hot paths: must be quick.
pub trait Observe: Send + Sync + 'static {
    /// A stretch was passed.
    fn phase(&self, phase: Phase, took: Duration);
    /// The first token of a chat's answers came so long after its request.
    fn first_token(&self, took: Duration);
    /// A run had so many rows.
    fn rows(&self, rows: usize);
    /// Something happened.
    fn event(&self, event: Event);
    /// A run with traced calls in it has ended. Only called for such.
    fn ran(&self, _ran: Ran<'_>) {}
}

/// Takes no notice.
pub struct Silent;

impl Observe for Silent {
    fn phase(&self, _: Phase, _: Duration) {}
    fn first_token(&self, _: Duration) {}
    fn rows(&self, _: usize) {}
    fn event(&self, _: Event) {}
}
