//! Pictures of the history on their way to those who look at them.
//!
//! Why: each is in memory until its reader has it, and readers may be slow, or never read.
//! Promises: all of them together are bounded, by as much as the bodies that come in, and apart from these: who looks at pictures
//! keeps nobody from asking.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use actix_web::body::{BodySize, MessageBody};
use bytes::Bytes;

use crate::memory::Share;
use crate::site::InFlight;

/// Handed to the connection at a time: what it writes is a copy.
const PIECE: usize = 64 << 10;

/// The body of an answer.
pub(crate) struct Leaving {
    left: Bytes,
    _share: Share,
    /// A drain waits for it.
    _in_flight: InFlight,
}

impl Leaving {
    pub(crate) fn new(bytes: Bytes, share: Share, in_flight: InFlight) -> Self {
        Self { left: bytes, _share: share, _in_flight: in_flight }
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
