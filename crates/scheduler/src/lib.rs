//! This crate knows who runs when.
//!
//! Why: a device is quickest at some batch sizes, callers have deadlines, and memory has a bound. What follows from these
//! is decided here, by pure functions of what waits and what time it is, so that it can be tested exhaustively.
//! Promises: what waits is bounded by rows; a batch never exceeds its rows; work past its deadline or withdrawn is never
//! handed out; nothing is lost and nothing is handed out twice; work that cannot be done in time is refused at once.
//! Not here: threads, clocks, sessions (`engine`).

mod curve;
mod queue;

pub use curve::Curve;
pub use queue::{Entry, Limits, Next, Queue, Refusal, Ticket};
