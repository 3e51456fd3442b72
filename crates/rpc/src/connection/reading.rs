//! Takes frames from the peer, as far as there is room for what they bring.
//!
//! Not here: what becomes of a frame (`calling`, `refusing`), and what is no frame (`strangers`).

use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Connection, End, Step};
use crate::Service;
use crate::budget::Wait;
use crate::inbound::Need;
use crate::server::Shared;

/// With so many bytes of answers waiting, no further frames are taken: a slow reader costs this much, and what the calls
/// answer that were in flight already. All of it is counted as bytes in flight.
pub(super) const OUT_ENOUGH: usize = 1 << 20;

/// One turn answers at most so much before it writes.
pub(super) const BATCH: usize = 256 << 10;

/// Stands in line for the budget's bytes.
pub(super) struct Waiting {
    need: Need,
    grant: Wait,
    pub(super) until: Instant,
}

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    /// Whether so much waits for the peer that nothing more is taken from it. Answers behind a call with the same number
    /// count: they cost the same.
    fn owes_enough(&self) -> bool {
        self.answers_waiting() >= OUT_ENOUGH || self.calls.parked() >= self.shared.limits.calls_per_connection
    }

    pub(super) fn read(&mut self, cx: &mut Context<'_>) -> Step {
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
                Err(error) => match self.close_on(error) {
                    Step::Idle => break,
                    step => return step,
                },
            }
        }
        if (self.starved || self.refused.is_some())
            && let Step::End(end) = self.refuse_unfinished()
        {
            return Step::End(end);
        }
        if self.out.waiting() > before { Step::Moved } else { Step::Idle }
    }
}
