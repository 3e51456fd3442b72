//! The calls in flight on one connection, and the order of their answers.
//!
//! Why order at all: some clients send the sequence number 0 with every call, and take the first answer for their first
//! call. Calls with different numbers are answered as they finish.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use futures_util::stream::{FuturesUnordered, StreamExt};
use wire::{ApplicationErrorKind, DecodeLimits, Exceeded, MessageKind, Reply, Request};

use crate::budget::Charge;
use crate::{CallFuture, Limit, Observe};

/// What a call came to. The charge is held until the reply is written, which may contain slices of the request.
pub(crate) struct Answer {
    pub(crate) reply: Option<Reply>,
    pub(crate) charge: Charge,
}

impl Answer {
    fn bytes(&self) -> usize {
        self.reply.as_ref().map_or(0, Reply::len)
    }
}

/// A call that has not finished.
pub(crate) struct Running {
    pub(crate) future: CallFuture,
    /// The request's frame: should the handler panic, its answer is made from this.
    pub(crate) frame: Bytes,
    pub(crate) charge: Charge,
    pub(crate) seqid: i32,
    pub(crate) oneway: bool,
    ticket: u64,
}

impl Running {
    pub(crate) fn new(future: CallFuture, frame: Bytes, charge: Charge, seqid: i32, oneway: bool) -> Self {
        Self { future, frame, charge, seqid, oneway, ticket: 0 }
    }
}

impl Future for Running {
    type Output = Finished;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Finished> {
        let running = &mut *self;
        let polled = catch_unwind(AssertUnwindSafe(|| running.future.as_mut().poll(cx)));
        let (reply, panicked) = match polled {
            Ok(polled) => (ready!(polled), false),
            Err(_) => (panic_reply(&running.frame), true),
        };
        let answer = Answer { reply, charge: Arc::clone(&running.charge) };
        Poll::Ready(Finished { seqid: running.seqid, ticket: running.ticket, oneway: running.oneway, panicked, answer })
    }
}

/// A call that has finished.
pub(crate) struct Finished {
    pub(crate) panicked: bool,
    pub(crate) answer: Answer,
    seqid: i32,
    ticket: u64,
    oneway: bool,
}

/// What the caller of a handler that panicked is told.
pub(crate) fn panic_reply(frame: &Bytes) -> Option<Reply> {
    let request = Request::parse(frame.clone(), &DecodeLimits::default()).ok()?;
    let text = "the call failed inside the server, its log says why";
    (request.kind == MessageKind::Call).then(|| request.application_error(ApplicationErrorKind::InternalError, text))
}

/// Calls with one sequence number, oldest first. The first of them is running; the others run or wait for it.
struct Line {
    first: u64,
    behind: VecDeque<(u64, Option<Answer>)>,
}

pub(crate) struct Calls {
    running: FuturesUnordered<Running>,
    lines: HashMap<i32, Line>,
    /// Answers that wait in a line, and their bytes.
    parked: usize,
    parked_bytes: usize,
    tickets: u64,
    observe: Arc<dyn Observe>,
}

impl Calls {
    pub(crate) fn new(observe: Arc<dyn Observe>) -> Self {
        Self {
            running: FuturesUnordered::new(),
            lines: HashMap::new(),
            parked: 0,
            parked_bytes: 0,
            tickets: 0,
            observe,
        }
    }

    /// Calls in flight: running, or finished and waiting for their turn.
    pub(crate) fn len(&self) -> usize {
        self.running.len() + self.parked
    }

    /// Answers that wait for one before them.
    pub(crate) fn parked(&self) -> usize {
        self.parked
    }

    /// Bytes of these answers.
    pub(crate) fn parked_bytes(&self) -> usize {
        self.parked_bytes
    }

    /// Whether a call that will be answered is in flight.
    pub(crate) fn is_awaited(&self) -> bool {
        !self.lines.is_empty()
    }

    /// Whether memory could be given back when nothing is in flight.
    pub(crate) fn is_holding(&self) -> bool {
        self.lines.capacity() > 0
    }

    /// Gives that memory back. To be called only while nothing is in flight.
    pub(crate) fn let_go(&mut self) {
        self.lines.shrink_to_fit();
    }

    /// Adds a call that did not finish when it was first polled.
    pub(crate) fn push(&mut self, mut running: Running) {
        self.tickets += 1;
        running.ticket = self.tickets;
        if !running.oneway {
            match self.lines.get_mut(&running.seqid) {
                Some(line) => line.behind.push_back((running.ticket, None)),
                None => {
                    let line = Line { first: running.ticket, behind: VecDeque::new() };
                    self.lines.insert(running.seqid, line);
                }
            }
        }
        self.running.push(running);
    }

    /// The answer of a call that finished at once: back again to be sent now, unless an older one must go first.
    pub(crate) fn pass(&mut self, seqid: i32, answer: Answer) -> Option<Answer> {
        self.look_at(&answer);
        if self.lines.is_empty() || answer.reply.is_none() {
            return Some(answer);
        }
        match self.lines.get_mut(&seqid) {
            None => Some(answer),
            Some(line) => {
                self.tickets += 1;
                self.parked += 1;
                self.parked_bytes += answer.bytes();
                line.behind.push_back((self.tickets, Some(answer)));
                None
            }
        }
    }

    /// Tells of a call that was over a limit on what it may hold.
    fn look_at(&self, answer: &Answer) {
        match answer.reply.as_ref().and_then(Reply::exceeded) {
            None => {}
            Some(Exceeded::Depth) => self.observe.limit(Limit::Depth),
            Some(Exceeded::Container) => self.observe.limit(Limit::Container),
        }
    }

    /// The next call that finishes. `None`: none is running.
    pub(crate) fn poll_finished(&mut self, cx: &mut Context<'_>) -> Poll<Option<Finished>> {
        if self.running.is_empty() {
            return Poll::Ready(None);
        }
        let finished = ready!(self.running.poll_next_unpin(cx));
        if finished.is_some() {
            self.observe.call_ended();
        }
        Poll::Ready(finished)
    }

    /// Hands every answer that may be sent now to `send`, in order.
    pub(crate) fn settle(&mut self, finished: Finished, mut send: impl FnMut(Answer)) {
        let Finished { seqid, ticket, oneway, answer, .. } = finished;
        self.look_at(&answer);
        if oneway {
            return;
        }
        let line = self.lines.get_mut(&seqid).expect("a running call stands in its line");
        if line.first != ticket {
            let place = line.behind.iter_mut().find(|(place, _)| *place == ticket);
            self.parked += 1;
            self.parked_bytes += answer.bytes();
            place.expect("a running call stands in its line").1 = Some(answer);
            return;
        }
        send(answer);
        while let Some((ticket, answer)) = line.behind.pop_front() {
            match answer {
                Some(answer) => {
                    self.parked -= 1;
                    self.parked_bytes -= answer.bytes();
                    send(answer);
                }
                None => {
                    line.first = ticket;
                    return;
                }
            }
        }
        self.lines.remove(&seqid);
    }
}

impl Drop for Calls {
    fn drop(&mut self) {
        for _ in 0..self.running.len() {
            self.observe.call_ended();
        }
    }
}
