//! What is over when: frames that do not end, answers that are not taken, rest, and memory while it lasts.

use std::task::Context;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::{Connection, End, Step};
use crate::{Limit, Service};

/// A connection without anything in flight gives its buffers back after this time.
pub(super) const LET_GO: Duration = Duration::from_secs(1);

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
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

    pub(super) fn check_time(&mut self, cx: &mut Context<'_>) -> Step {
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
    pub(super) fn is_holding(&self) -> bool {
        self.inbound.is_holding() || self.out.is_holding() || self.calls.is_holding()
    }
}
