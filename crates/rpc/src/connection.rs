//! One connection: reads frames, runs their calls, writes the answers, all on one task.
//!
//! Why one task: a call that finishes at once is answered without waking anybody, and everything that one read brought
//! leaves in one write. Reading, calls and writing are polled side by side, so none waits for another: a peer that
//! sends without reading finds its own calls slowed down and nobody else's.
//! Promises: when the peer leaves, the futures of its calls are dropped at once (or, while it is not read because answers
//! wait for it in amounts, as soon as the next of them cannot be written); every limit in `ServerLimits` that concerns a
//! connection holds; in a drain, calls in flight finish, and what connected later prolongs nothing.
//! Not here: bytes that come in (`inbound`) and go out (`outbound`), the order of answers (`calls`).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, Sleep};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tokio_util::task::task_tracker::TaskTrackerToken;
use wire::{ApplicationErrorKind, FrameError, FrameLimits, MessageKind, Request, Sniffed};

use crate::budget::{Charge, Owed, Taken, Wait};
use crate::calls::{Answer, Calls, Finished, Running, panic_reply};
use crate::inbound::{Arrived, Inbound, Need, must_hold_head};
use crate::outbound::Outbound;
use crate::server::Shared;
use crate::{CallContext, Instead, Limit, Peer, Refusal, Service};

/// With so many bytes of answers waiting, no further frames are taken: a slow reader costs this much, and what the calls
/// answer that were in flight already. All of it is counted as bytes in flight.
const OUT_ENOUGH: usize = 1 << 20;

/// One turn answers at most so much before it writes.
const BATCH: usize = 256 << 10;

/// A connection without anything in flight gives its buffers back after this time.
const LET_GO: Duration = Duration::from_secs(1);

/// So long, and for so many bytes, a closed connection is read on: closing with unread bytes would reset it, and the
/// last answer would be lost on the way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 << 20;

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

struct Waiting {
    need: Need,
    grant: Wait,
    until: Instant,
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
            // Past the time limit, or when the peer resets: it has been told what there was to tell.
            let _ = tokio::time::timeout(LINGER, linger(&mut self.io, &mut self.out)).await;
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

    // Answers

    fn answers_waiting(&self) -> usize {
        self.out.waiting() + self.calls.parked_bytes()
    }

    /// Takes what has finished, however much waits already: only here it is counted.
    fn finish_calls(&mut self, cx: &mut Context<'_>) -> bool {
        let mut moved = false;
        while let Poll::Ready(Some(finished)) = self.calls.poll_finished(cx) {
            moved = true;
            self.settle(finished);
        }
        if moved {
            self.active = Instant::now();
        }
        moved
    }

    fn settle(&mut self, finished: Finished) {
        if finished.panicked {
            self.tell_panic();
        }
        let Self { calls, out, .. } = self;
        calls.settle(finished, |answer| out.push(answer));
    }

    fn tell_panic(&self) {
        self.shared.observe.handler_panicked();
        tracing::error!(peer = %self.peer.address, "a handler panicked, its caller got an internal error");
    }

    fn write(&mut self, cx: &mut Context<'_>) -> Step {
        if self.out.is_empty() {
            return Step::Idle;
        }
        match self.out.poll_write(&mut self.io, cx) {
            Poll::Pending => Step::Idle,
            Poll::Ready(Err(_)) => Step::End(End::Gone),
            Poll::Ready(Ok(written)) => {
                // 0: what TLS had kept has left.
                if written.bytes > 0 {
                    self.shared.observe.batch_written(written.bytes, written.took);
                }
                Step::Moved
            }
        }
    }

    // Frames

    /// Whether so much waits for the peer that nothing more is taken from it. Answers behind a call with the same number
    /// count: they cost the same.
    fn owes_enough(&self) -> bool {
        self.answers_waiting() >= OUT_ENOUGH || self.calls.parked() >= self.shared.limits.calls_per_connection
    }

    fn read(&mut self, cx: &mut Context<'_>) -> Step {
        if self.owes_enough() {
            self.paused = true;
            // Whoever does not read on should not stand in line for bytes, nor hold what it was granted.
            self.waiting = None;
            return Step::Idle;
        }
        if std::mem::take(&mut self.paused) {
            // Meanwhile the rest of a started frame lay in the socket, through no fault of its sender's.
            self.inbound.restart(Instant::now());
        }
        let mut now = self.active;
        let shared = Arc::clone(&self.shared);
        loop {
            // Frames that are here already go first.
            match self.take_frames(&shared, now, cx) {
                Step::Idle => {}
                step => return step,
            }
            if let Some(waiting) = &mut self.waiting {
                let Poll::Ready(charge) = waiting.grant.as_mut().poll(cx) else { return Step::Idle };
                self.inbound.grant(waiting.need, charge);
                self.inbound.restart(Instant::now());
                self.waiting = None;
            }
            // Whoever may not call gets none of the bytes that are for callers: the head is enough to answer it.
            if let Err(need) = self.inbound.prepare(self.starved || self.refused.is_some()) {
                match self.shared.budget.try_take(need.bytes()) {
                    Some(charge) => self.inbound.grant(need, charge),
                    None => {
                        let grant = self.shared.budget.take(need.bytes());
                        let until = Instant::now() + self.shared.limits.frame_time;
                        self.waiting = Some(Waiting { need, grant, until });
                        continue;
                    }
                }
            }
            match self.inbound.poll_read(&mut self.io, cx) {
                Poll::Pending => return Step::Idle,
                // Also a peer that only closed its sending side: nobody is there to cancel or to ask on.
                Poll::Ready(Err(_) | Ok(0)) => return Step::End(End::Gone),
                Poll::Ready(Ok(_)) => {
                    now = Instant::now();
                    self.active = now;
                    self.inbound.arrived(now);
                }
            }
        }
    }

    /// Runs the calls whose frames are complete. `Moved`: there is something to write first.
    fn take_frames(&mut self, shared: &Shared<S>, now: Instant, cx: &mut Context<'_>) -> Step {
        if !self.sniffed {
            match self.sniff() {
                Step::Idle => {}
                step => return step,
            }
        }
        let before = self.out.waiting();
        loop {
            if self.out.waiting() >= before + BATCH || self.owes_enough() {
                return Step::Moved;
            }
            match self.inbound.take(now) {
                Ok(Some(arrived)) => {
                    if let Step::End(end) = self.start(shared, arrived, now, cx) {
                        return Step::End(end);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.close_on(error),
            }
        }
        if (self.starved || self.refused.is_some())
            && let Step::End(end) = self.refuse_unfinished()
        {
            return Step::End(end);
        }
        if self.out.waiting() > before { Step::Moved } else { Step::Idle }
    }

    /// Looks at the first bytes of the connection.
    fn sniff(&mut self) -> Step {
        let received = self.inbound.unread();
        let what = wire::sniff(received, self.limits.bytes());
        match what {
            Sniffed::NeedMore => return Step::Idle,
            what if what.is_served() => {
                self.sniffed = true;
                return Step::Idle;
            }
            _ => {}
        }
        self.shared.observe.sniffed(what);
        let Some(refusal) = what.refusal(received) else { return Step::End(End::Gone) };
        if let Sniffed::TooLargeFrame(bytes) = what {
            return self.close_on(FrameError::TooLarge { bytes: bytes as usize, limit: self.limits.bytes() });
        }
        if self.shared.notices.is_due(Some(self.peer.address.ip())) {
            tracing::warn!(peer = %self.peer.address, what = refusal.log, "connection refused");
        }
        self.out.push_bytes(refusal.bytes);
        Step::End(End::Polite)
    }

    fn close_on(&mut self, error: FrameError) -> Step {
        if let FrameError::TooLarge { limit, .. } = error {
            self.shared.observe.limit(Limit::FrameBytes);
            if let Some(answer) = wire::too_large(self.inbound.unread(), limit) {
                self.out.push_bytes(answer);
            }
        }
        self.tell_closed(&error);
        Step::End(End::Polite)
    }

    fn tell_closed(&self, error: &dyn std::fmt::Display) {
        if self.shared.notices.is_due(Some(self.peer.address.ip())) {
            tracing::warn!(peer = %self.peer.address, %error, "connection closed");
        }
    }

    // Calls

    fn start(&mut self, shared: &Shared<S>, arrived: Arrived, now: Instant, cx: &mut Context<'_>) -> Step {
        let Arrived { mut payload, mut charge, read } = arrived;
        shared.observe.frame_read(payload.len(), read);
        if self.starved
            && let Some(granted) = shared.budget.try_take(payload.len())
        {
            self.starved = false;
            // Out of the chunk, for which nobody has paid.
            payload = Bytes::copy_from_slice(&payload);
            charge = granted;
        }
        let request = match Request::parse(payload.clone(), &shared.limits.decode()) {
            Ok(request) => request,
            Err(error) => {
                self.tell_closed(&error);
                return Step::End(End::Polite);
            }
        };
        if self.turn_away(&request) {
            return Step::End(End::Polite);
        }
        if let Some(why) = self.refusal(&request) {
            self.refuse(&request, why, charge);
            return Step::Idle;
        }
        self.peer.protocol.get_or_init(|| request.protocol);
        if self.draining && self.busy.is_none() {
            // It was let in, so its answer is to arrive.
            self.busy = Some(shared.busy.token());
        }

        let context =
            CallContext { peer: Arc::clone(&self.peer), received: now.into_std(), read, frame_bytes: payload.len() };
        let (seqid, oneway) = (request.seqid, request.kind == MessageKind::Oneway);
        shared.observe.call_started();
        // Most calls of cheap methods are answered by the first poll and never become a task of their own.
        let first = catch_unwind(AssertUnwindSafe(|| {
            let mut future = shared.service.call(request, context);
            match future.as_mut().poll(cx) {
                Poll::Ready(reply) => Ok(reply),
                Poll::Pending => Err(future),
            }
        }));
        let reply = match first {
            Ok(Err(future)) => {
                self.calls.push(Running::new(future, payload, charge, seqid, oneway));
                return Step::Idle;
            }
            Ok(Ok(reply)) => reply,
            Err(_) => {
                self.tell_panic();
                panic_reply(&payload)
            }
        };
        shared.observe.call_ended();
        if !oneway && let Some(answer) = self.calls.pass(seqid, Answer { reply, charge }) {
            self.out.push(answer);
        }
        Step::Idle
    }

    /// Tells who may not call why, as the answer to its first call; `false` when it may.
    fn turn_away(&mut self, request: &Request) -> bool {
        let Some(why) = &self.refused else { return false };
        let answer = request.application_error(ApplicationErrorKind::UnsupportedClientType, why);
        self.out.push_bytes(answer.to_bytes().to_vec());
        true
    }

    fn refusal(&self, request: &Request) -> Option<Refusal> {
        let limits = &self.shared.limits;
        // Who is told to stop still wants to hear which of its calls are given up.
        let concerns_old_calls = request.kind == MessageKind::Oneway && self.calls.is_awaited();
        if self.draining && !concerns_old_calls && !self.shared.service.continues(request) {
            Some(Refusal::Draining)
        } else if self.starved {
            Some(Refusal::BytesInFlight { limit: self.shared.budget.total() })
        } else if self.calls.len() >= limits.calls_per_connection {
            self.shared.observe.limit(Limit::CallsPerConnection);
            Some(Refusal::CallsPerConnection { limit: limits.calls_per_connection })
        } else {
            None
        }
    }

    fn refuse(&mut self, request: &Request, why: Refusal, charge: Charge) {
        let instead = match request.kind {
            MessageKind::Oneway => Instead::Refused(None),
            _ => catch_unwind(AssertUnwindSafe(|| self.shared.service.refuse(request, why))).unwrap_or_else(|_| {
                self.tell_panic();
                Instead::Refused(None)
            }),
        };
        let reply = match instead {
            Instead::Answered(reply) => Some(reply),
            Instead::Refused(reply) => {
                self.shared.observe.call_refused(why);
                reply
            }
        };
        if let Some(answer) = self.calls.pass(request.seqid, Answer { reply, charge }) {
            self.out.push(answer);
        }
    }

    /// Refuses a frame of which only the beginning is here, and skips the rest, or ends the connection that may not call.
    fn refuse_unfinished(&mut self) -> Step {
        let unread = self.inbound.unread();
        let Ok(Some(claimed)) = wire::claimed(unread, &self.limits) else { return Step::Idle };
        if self.refused.is_none()
            && let Some(charge) = self.shared.budget.try_take(claimed.max(1))
        {
            drop(charge);
            self.starved = false;
            return Step::Idle;
        }
        match Request::parse(Bytes::copy_from_slice(&unread[4..]), &self.shared.limits.decode()) {
            Ok(request) => {
                if self.turn_away(&request) {
                    return Step::End(End::Polite);
                }
                self.inbound.skip_frame();
                let why = Refusal::BytesInFlight { limit: self.shared.budget.total() };
                self.refuse(&request, why, Taken::own(0));
                Step::Idle
            }
            Err(error) if must_hold_head(unread) => {
                self.tell_closed(&error);
                Step::End(End::Polite)
            }
            Err(_) => Step::Idle,
        }
    }

    // Time

    /// The next moment at which something is over; none when only calls are waited for.
    fn due(&self) -> Option<Instant> {
        let limits = &self.shared.limits;
        let stall = self.out.behind_since().map(|since| since + limits.write_stall);
        let reading = if self.paused {
            // Frames lie in the socket because this side does not take them; that is no fault of their sender's.
            None
        } else if let Some(waiting) = &self.waiting {
            Some(waiting.until)
        } else if let Some(started) = self.inbound.started() {
            Some(started + limits.frame_time)
        } else if self.calls.len() > 0 || !self.out.is_empty() {
            None
        } else if self.is_holding() {
            Some(self.active + LET_GO.min(limits.idle))
        } else {
            Some(self.active + limits.idle)
        };
        match (stall, reading) {
            (Some(stall), Some(reading)) => Some(stall.min(reading)),
            (stall, reading) => stall.or(reading),
        }
    }

    fn check_time(&mut self, cx: &mut Context<'_>) -> Step {
        loop {
            let Some(due) = self.due() else { return Step::Idle };
            // A timer that is set too early only wakes once too often; moving it at every call would cost more.
            if due < self.timer_at {
                self.set_timer(due);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Step::Idle;
            }
            let now = Instant::now();
            if now >= due {
                return self.expire(now);
            }
            self.set_timer(due);
        }
    }

    fn set_timer(&mut self, at: Instant) {
        self.timer.as_mut().reset(at);
        self.timer_at = at;
    }

    /// Does what is due. Afterwards something else is, later.
    fn expire(&mut self, now: Instant) -> Step {
        let limits = self.shared.limits;
        let hit = |limit: Limit| {
            self.shared.observe.limit(limit);
            tracing::debug!(peer = %self.peer.address, limit = limit.name(), "limit hit");
        };
        if self.out.behind_since().is_some_and(|since| now >= since + limits.write_stall) {
            hit(Limit::WriteStall);
            return Step::End(End::Gone);
        }
        if self.waiting.is_some() {
            hit(Limit::BytesInFlight);
            self.waiting = None;
            self.starved = true;
            self.inbound.restart(now);
            return Step::Moved;
        }
        if self.inbound.started().is_some() && !self.paused {
            hit(Limit::FrameTime);
            return Step::End(End::Gone);
        }
        if now >= self.active + limits.idle {
            hit(Limit::Idle);
            return Step::End(End::Polite);
        }
        self.inbound.let_go();
        self.out.let_go();
        self.calls.let_go();
        Step::Moved
    }

    /// Whether memory could be given back while the connection rests.
    fn is_holding(&self) -> bool {
        self.inbound.is_holding() || self.out.is_holding() || self.calls.is_holding()
    }
}

impl<IO, S> Drop for Connection<IO, S> {
    fn drop(&mut self) {
        self.shared.observe.connection_closed();
    }
}

/// Writes what waits, says goodbye, and reads on until the peer has taken notice.
async fn linger<IO: AsyncRead + AsyncWrite + Unpin>(io: &mut IO, out: &mut Outbound) -> std::io::Result<()> {
    out.write_all(io).await?;
    io.shutdown().await?;
    tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await?;
    Ok(())
}

#[cfg(test)]
mod tests;
