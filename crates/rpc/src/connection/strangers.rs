//! What is not framed Thrift, or no frame that is taken: it is told so where that is possible, and the connection ends.

use tokio::io::{AsyncRead, AsyncWrite};
use wire::{FrameError, Sniffed};

use super::{Connection, End, Step};
use crate::inbound::must_hold_head;
use crate::{Limit, Service};

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    /// Looks at the first bytes of the connection.
    pub(super) fn sniff(&mut self) -> Step {
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
        if let Sniffed::TooLargeFrame(bytes) = what {
            let step = self.close_on(FrameError::TooLarge { bytes: bytes as usize, limit: self.limits.bytes() });
            if let Step::End(_) = step {
                self.shared.observe.sniffed(what);
            }
            return step;
        }
        self.shared.observe.sniffed(what);
        let Some(refusal) = what.refusal(received) else { return Step::End(End::Gone) };
        if self.shared.notices.is_due(Some(self.peer.address.ip())) {
            tracing::warn!(peer = %self.peer.address, what = refusal.log, "connection refused");
        }
        self.out.push_bytes(refusal.bytes);
        Step::End(End::Polite)
    }

    /// Ends the connection for a frame that is not taken; `Idle`: once its head has come, which the answer needs.
    pub(super) fn close_on(&mut self, error: FrameError) -> Step {
        if let FrameError::TooLarge { limit, .. } = error {
            let unread = self.inbound.unread();
            match wire::too_large(unread, limit) {
                Some(answer) => self.out.push_bytes(answer),
                // Some clients send a frame's length by itself.
                None if !must_hold_head(unread) => return Step::Idle,
                None => {}
            }
            self.shared.observe.limit(Limit::FrameBytes);
        }
        self.tell_closed(&error);
        Step::End(End::Polite)
    }

    pub(super) fn tell_closed(&self, error: &dyn std::fmt::Display) {
        if self.shared.notices.is_due(Some(self.peer.address.ip())) {
            tracing::warn!(peer = %self.peer.address, %error, "connection closed");
        }
    }
}
