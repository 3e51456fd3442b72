//! One connection: reads frames, runs their calls, writes the answers, all on one task.
//!
//! Why one task: a call that finishes at once is answered without waking anybody, and everything that one read brought
//! leaves in one write. Reading, calls and writing are polled side by side, so none waits for another: a peer that
//! sends without reading finds its own calls slowed down and nobody else's.
//! Promises: when the peer leaves, the futures of its calls are dropped at once (or, while it is not read because answers
//! wait for it in amounts, as soon as the next of them cannot be written); every limit in `ServerLimits` that concerns a
//! connection holds; in a drain, calls in flight finish, and what connected later prolongs nothing.
//! Here: who is polled when, and how a connection begins and ends. Each of the modules below does one of the things that a
//! connection does, on the same fields.
//! Not here: bytes that come in (`inbound`) and go out (`outbound`), the order of answers (`calls`).

mod calling;
mod reading;
mod refusing;
mod strangers;
mod timing;
mod writing;

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wire::FrameLimits;

use reading::Waiting;

use crate::budget::Owed;
use crate::calls::Calls;
use crate::inbound::Inbound;
use crate::outbound::Outbound;
use crate::server::Shared;
use crate::{Peer, Service};

/// How a connection ends.
enum End {
    /// The peer has left, or does not move: nothing more can be said.
    Gone,
    /// What waits is written, then the connection is closed.
    Polite,
}

/// Whether a step did something.
enum Step {
    Moved,
    Idle,
    End(End),
}

pub(crate) struct Connection<IO, S> {
    io: IO,
    peer: Arc<Peer>,
    shared: Arc<Shared<S>>,
    limits: FrameLimits,
    inbound: Inbound,
    calls: Calls,
    out: Outbound,
    /// Counts the answers that wait.
    owed: Owed,
    waiting: Option<Waiting>,
    /// So much waits for the peer that nothing is read from it.
    paused: bool,
    /// The budget granted nothing in time: frames are refused until it does.
    starved: bool,
    sniffed: bool,
    /// What its first call is told instead of being made.
    refused: Option<String>,
    draining: bool,
    /// The start of the drain, then its end.
    drain: Pin<Box<WaitForCancellationFutureOwned>>,
    /// Holds the end back while something is in flight that was there at the start.
    busy: Option<TaskTrackerToken>,
    /// When a byte last came or a call last ended.
    active: Instant,
    timer: Pin<Box<Sleep>>,
    timer_at: Instant,
}

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    pub(crate) fn new(io: IO, peer: Arc<Peer>, shared: Arc<Shared<S>>) -> Self {
        let now = Instant::now();
        let limits = shared.limits.frame();
        let timer_at = now + shared.limits.idle;
        let draining = shared.drain.is_started();
        shared.observe.connection_opened();
        Self {
            io,
            peer,
            limits,
            inbound: Inbound::new(limits),
            calls: Calls::new(Arc::clone(&shared.observe)),
            out: Outbound::new(shared.limits.stride(), now),
            owed: Owed::to(&shared.budget),
            waiting: None,
            paused: false,
            starved: false,
            sniffed: false,
            refused: None,
            draining,
            drain: Box::pin(if draining { shared.drained.clone().cancelled_owned() } else { shared.drain.started() }),
            busy: (!draining).then(|| shared.busy.token()),
            active: now,
            timer: Box::pin(tokio::time::sleep_until(timer_at)),
            timer_at,
            shared,
        }
    }

    /// A connection that may not call, whose first call is told `why`.
    pub(crate) fn refused(io: IO, peer: Arc<Peer>, shared: Arc<Shared<S>>, why: String) -> Self {
        let mut connection = Self::new(io, peer, shared);
        connection.refused = Some(why);
        connection
    }

    pub(crate) async fn run(mut self) {
        let end = std::future::poll_fn(|cx| self.poll(cx)).await;
        if let End::Polite = end {
            // Their callers would not get the answers.
            self.calls = Calls::new(Arc::clone(&self.shared.observe));
            self.waiting = None;
            self.say_goodbye().await;
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.is_drained(cx) {
            return Poll::Ready(End::Polite);
        }
        loop {
            let mut moved = self.finish_calls(cx);
            for step in [Self::write, Self::read] {
                match step(self, cx) {
                    Step::Moved => moved = true,
                    Step::Idle => {}
                    Step::End(end) => return Poll::Ready(end),
                }
            }
            if moved {
                continue;
            }
            if self.draining && self.is_done() {
                self.busy = None;
            }
            match self.check_time(cx) {
                Step::Moved => {}
                Step::Idle => {
                    // What was written at once has never waited, and costs no accounting.
                    self.owed.set(self.answers_waiting());
                    return Poll::Pending;
                }
                Step::End(end) => return Poll::Ready(end),
            }
        }
    }

    /// Notices the start of the drain, and whether it has ended.
    fn is_drained(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.draining && self.drain.as_mut().poll(cx).is_ready() {
            self.draining = true;
            self.drain = Box::pin(self.shared.drained.clone().cancelled_owned());
        }
        self.draining && self.drain.as_mut().poll(cx).is_ready()
    }

    fn is_done(&self) -> bool {
        self.calls.len() == 0 && self.out.is_empty() && self.inbound.started().is_none()
    }
}

impl<IO, S> Drop for Connection<IO, S> {
    fn drop(&mut self) {
        self.shared.observe.connection_closed();
    }
}

#[cfg(test)]
mod tests;
