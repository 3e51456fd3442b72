//! Frames waiting to be written by one connection.
//!
//! Why: at many small replies the system call is the cost; one vectored write takes them all. Small frames are copied
//! into one piece, because a slice for each would cost the kernel more than the copy.

use std::collections::VecDeque;
use std::io::IoSlice;

use bytes::{Buf, Bytes, BytesMut};

use crate::{BY_REFERENCE, Frame};

/// A queue of encoded frames that a vectored write can drain: `bytes::Buf`, in pieces.
#[derive(Debug, Default)]
pub struct Batch {
    ready: VecDeque<Bytes>,
    /// Small frames that came last.
    tail: BytesMut,
    remaining: usize,
    /// Whether anything was pushed since the buffers were given back. Their capacity does not tell: what has been
    /// written is cut off the front of it, while the memory stays.
    holds: bool,
}

impl Batch {
    /// An empty batch.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Puts a frame behind the ones that wait.
    pub fn push(&mut self, frame: Frame) {
        self.holds = true;
        self.remaining += frame.len();
        match frame.as_one() {
            Some(small) if small.len() < BY_REFERENCE => self.tail.extend_from_slice(small),
            _ => {
                self.seal();
                frame.append(&mut self.ready);
            }
        }
    }

    /// Puts bytes behind the ones that wait, such as the answer to something that is not Thrift.
    pub fn push_bytes(&mut self, bytes: Bytes) {
        if bytes.is_empty() {
            return;
        }
        self.seal();
        self.holds = true;
        self.remaining += bytes.len();
        self.ready.push_back(bytes);
    }

    /// Whether everything has been written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.remaining == 0
    }

    /// Whether it has buffers, which it keeps for the next frames when all is written.
    #[must_use]
    pub fn is_holding(&self) -> bool {
        self.holds
    }

    /// Gives the buffers back, unless something waits in them.
    pub fn let_go(&mut self) {
        if self.is_empty() {
            *self = Self::new();
        }
    }

    fn seal(&mut self) {
        if !self.tail.is_empty() {
            self.ready.push_back(self.tail.split().freeze());
        }
    }
}

impl Buf for Batch {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        self.ready.front().map_or(&self.tail, |first| first)
    }

    fn advance(&mut self, mut count: usize) {
        assert!(count <= self.remaining, "cannot advance {count} bytes, {} are waiting", self.remaining);
        self.remaining -= count;
        while let Some(first) = self.ready.front_mut() {
            if count < first.len() {
                return first.advance(count);
            }
            count -= first.len();
            self.ready.pop_front();
        }
        self.tail.advance(count);
    }

    fn chunks_vectored<'a>(&'a self, out: &mut [IoSlice<'a>]) -> usize {
        let tail = (!self.tail.is_empty()).then_some(&self.tail[..]);
        let pieces = self.ready.iter().map(|piece| &piece[..]).chain(tail);
        let mut filled = 0;
        for (place, piece) in out.iter_mut().zip(pieces) {
            *place = IoSlice::new(piece);
            filled += 1;
        }
        filled
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{MessageKind, Protocol};

    fn frame(bytes: usize) -> Frame {
        Frame::encode(Protocol::Binary, MessageKind::Reply, b"echo", 1, |output| output.write_bytes(&vec![0; bytes]))
            .expect("it fits")
    }

    #[test]
    fn what_is_written_keeps_its_buffers_until_they_are_given_back() {
        for bytes in [10, 1_000, BY_REFERENCE + 1] {
            let mut batch = Batch::new();
            assert!(!batch.is_holding());
            batch.push(frame(bytes));
            batch.let_go();
            let waiting = batch.remaining();
            assert!(waiting > bytes, "what waits stays");
            batch.advance(waiting);
            assert!(batch.is_holding(), "{bytes} bytes");
            batch.let_go();
            assert!(!batch.is_holding());
            assert_eq!(batch.tail.capacity() + batch.ready.capacity(), 0, "{bytes} bytes");
        }
    }
}
