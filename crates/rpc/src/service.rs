//! What a server serves.

use std::future::Future;
use std::pin::Pin;

use wire::{Reply, Request};

use crate::CallContext;

/// The future of one call. `None`: nothing is to be answered, as for oneway methods.
pub type CallFuture = Pin<Box<dyn Future<Output = Option<Reply>> + Send>>;

/// Why a call does not reach [`Service::call`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// The server is about to stop. Oneway calls are still made on a connection that waits for answers: they may
    /// concern what is in flight on it, as a message that cancels does.
    Draining,
    /// This connection has as many calls in flight as it may.
    CallsPerConnection {
        /// The limit in force.
        limit: usize,
    },
    /// The process has as many bytes of frames in flight as it may.
    BytesInFlight {
        /// The limit in force.
        limit: usize,
    },
}

impl Refusal {
    /// The name for a metric's label.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Draining => "draining",
            Self::CallsPerConnection { .. } => "calls_per_connection",
            Self::BytesInFlight { .. } => "bytes_in_flight",
        }
    }
}

/// What a call that may not start comes to instead.
#[derive(Clone, Debug)]
pub enum Instead {
    /// It is refused with this answer, or with none at all.
    Refused(Option<Reply>),
    /// It has its answer nevertheless, and counts as no refusal.
    Answered(Reply),
}

/// The methods behind a listener.
pub trait Service: Send + Sync + 'static {
    /// Starts a call. The future is polled on its connection's task, at once and for the first time before the next
    /// frame is looked at: it must never block, and CPU work over a millisecond belongs elsewhere.
    ///
    /// Dropping the future is cancellation: it happens when the peer closes its connection, or only its sending side.
    /// That holds for oneway calls as well; work that is to outlive its caller is spawned. A panic is caught and
    /// answered with an internal error. Replies to oneway calls are not sent.
    fn call(&self, request: Request, call: CallContext) -> CallFuture;

    /// Whether a call goes on with work that was begun by an earlier one, so that a drain lets it in. It does not hold the end
    /// back longer than its own answer takes.
    fn continues(&self, request: &Request) -> bool {
        let _ = request;
        false
    }

    /// Answers a call that may not start, at once; not asked for oneway calls. The arguments of a request refused for
    /// `BytesInFlight` may be cut off, so they are not to be decoded. While `Draining`, a service may still answer for
    /// itself here (health).
    fn refuse(&self, request: &Request, why: Refusal) -> Instead;
}
