//! Pictures of the history on their way to those who look at them.
//!
//! Why: each is in memory until its reader has it, and readers may be slow, or never read.
//! Promises: all of them together are bounded, by as much as the bodies that come in, and apart from these: who looks at pictures
//! keeps nobody from asking.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;
use fault::Fault;

use crate::site::Process;

/// Handed to the connection at a time: what it writes is a copy.
const PIECE: usize = 64 << 10;

/// A share of the memory for pictures; given back when dropped.
pub(crate) struct Share {
    process: Arc<Process>,
    bytes: usize,
}

impl Share {
    /// # Errors
    /// Overloaded when all of it is taken.
    pub(crate) fn of_picture(process: &Arc<Process>, bytes: usize) -> Result<Self, Fault> {
        let limit = process.settings.limits.bodies.as_u64() as usize;
        let share = Self { process: Arc::clone(process), bytes };
        if process.leaving_bytes.fetch_add(bytes, Ordering::AcqRel) + bytes > limit {
            return Err(Fault::overloaded(format!("pictures on their way reach the limit of {limit} bytes"))
                .with_retry_after(Duration::from_secs(1)));
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.process.leaving_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// The body of an answer.
pub(crate) struct Leaving {
    left: Bytes,
    _share: Share,
}

impl Leaving {
    pub(crate) fn new(bytes: Bytes, share: Share) -> Self {
        Self { left: bytes, _share: share }
    }
}

impl MessageBody for Leaving {
    type Error = Infallible;

    fn size(&self) -> BodySize {
        BodySize::Sized(self.left.len() as u64)
    }

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Bytes, Infallible>>> {
        let left = &mut self.get_mut().left;
        let piece = left.split_to(left.len().min(PIECE));
        Poll::Ready((!piece.is_empty()).then_some(Ok(piece)))
    }
}
