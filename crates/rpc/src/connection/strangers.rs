//! What is not framed Thrift, or no frame that is taken: it is told so where that is possible, and the connection ends.

use tokio::io::{AsyncRead, AsyncWrite};
use wire::{FrameError, Sniffed};

use super::{Connection, End, Step};
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

    pub(super) fn close_on(&mut self, error: FrameError) -> Step {
        if let FrameError::TooLarge { limit, .. } = error {
            self.shared.observe.limit(Limit::FrameBytes);
            if let Some(answer) = wire::too_large(self.inbound.unread(), limit) {
                self.out.push_bytes(answer);
            }
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
