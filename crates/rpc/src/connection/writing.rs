//! Hands the answers that wait to the peer, and says goodbye to it.
//!
//! Not here: their bytes, and the pace that is asked of the peer (`outbound`).

use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Connection, End, Step};
use crate::Service;

/// So long, and for so many bytes, a closed connection is read on: closing with unread bytes would reset it, and the
/// last answer would be lost on the way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 << 20;

impl<IO, S> Connection<IO, S>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send,
    S: Service,
{
    pub(super) fn answers_waiting(&self) -> usize {
        self.out.waiting() + self.calls.parked_bytes()
    }

    pub(super) fn write(&mut self, cx: &mut Context<'_>) -> Step {
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

    /// Writes what waits, says goodbye, and reads on until the peer has taken notice.
    pub(super) async fn say_goodbye(&mut self) {
        let Self { io, out, .. } = self;
        let linger = async {
            out.write_all(io).await?;
            io.shutdown().await?;
            tokio::io::copy(&mut io.take(LINGER_BYTES), &mut tokio::io::sink()).await
        };
        // Past the time limit, or when the peer resets: it has been told what there was to tell.
        let _ = tokio::time::timeout(LINGER, linger).await;
    }
}
