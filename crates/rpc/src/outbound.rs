//! The answers of one connection on the way to its peer.
//!
//! Why a pace: memory that answers take is not free before their peer has read them, and one that takes a byte now and
//! then must not keep it for ever.
//! Promises: answers leave in the order in which they were pushed; each keeps its charge until its last byte is written,
//! because it may hold slices of its request.
//! Not here: who decides that the pace is too slow (`connection`).

use std::collections::VecDeque;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::time::Instant;
use wire::Batch;

use crate::budget::Charge;
use crate::calls::Answer;

/// What TLS keeps at most of what it was given and the kernel did not take.
pub(crate) const KEPT: usize = 64 << 10;

/// A batch that the kernel took.
pub(crate) struct Written {
    pub(crate) bytes: usize,
    /// Since its first answer was ready.
    pub(crate) took: Duration,
}

pub(crate) struct Outbound {
    batch: Batch,
    /// Where in the stream each charge's answer ends.
    held: VecDeque<(u64, Charge)>,
    queued: u64,
    written: u64,
    /// When the first byte of what waits was ready.
    ready_since: Instant,
    /// How far in the stream the peer must get next, and since when it is to.
    goal: u64,
    goal_since: Instant,
    /// The most that lies between two goals.
    stride: u64,
    /// What was written may not have left: TLS keeps what the kernel does not take.
    unflushed: bool,
}

impl Outbound {
    /// `stride`: so many bytes are asked of the peer at a time, or all that wait.
    pub(crate) fn new(stride: usize, now: Instant) -> Self {
        Self {
            batch: Batch::new(),
            held: VecDeque::new(),
            queued: 0,
            written: 0,
            ready_since: now,
            goal: 0,
            goal_since: now,
            stride: stride as u64,
            unflushed: false,
        }
    }

    /// Bytes that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.batch.remaining() + if self.unflushed { KEPT } else { 0 }
    }

    /// Whether all has left.
    pub(crate) fn is_empty(&self) -> bool {
        self.batch.is_empty() && !self.unflushed
    }

    /// Puts an answer behind those that wait.
    pub(crate) fn push(&mut self, answer: Answer) {
        let Some(reply) = answer.reply else { return };
        let was_empty = self.batch.is_empty();
        self.queued += reply.len() as u64;
        self.batch.push(reply);
        match self.held.back_mut() {
            // Frames of one chunk share their charge: one entry for the whole run of them.
            Some((end, charge)) if Arc::ptr_eq(charge, &answer.charge) => *end = self.queued,
            _ => self.held.push_back((self.queued, answer.charge)),
        }
        if was_empty {
            self.ready_since = Instant::now();
            self.next_goal(self.ready_since);
        }
    }

    /// Puts the answer to something that is no call behind those that wait.
    pub(crate) fn push_bytes(&mut self, bytes: Vec<u8>) {
        let was_empty = self.batch.is_empty();
        self.queued += bytes.len() as u64;
        self.batch.push_bytes(Bytes::from(bytes));
        if was_empty {
            self.ready_since = Instant::now();
            self.next_goal(self.ready_since);
        }
    }

    fn next_goal(&mut self, now: Instant) {
        self.goal = self.queued.min(self.written + self.stride);
        self.goal_since = now;
    }

    /// Since when the peer has not got as far as it was to; none when nothing waits.
    pub(crate) fn behind_since(&self) -> Option<Instant> {
        (!self.is_empty()).then_some(self.goal_since)
    }

    /// Writes once. Only to be called while not all has left.
    pub(crate) fn poll_write<IO>(&mut self, io: &mut IO, cx: &mut Context<'_>) -> Poll<io::Result<Written>>
    where
        IO: AsyncWrite + Unpin,
    {
        if self.batch.is_empty() {
            ready!(Pin::new(io).poll_flush(cx))?;
            self.unflushed = false;
            return Poll::Ready(Ok(Written { bytes: 0, took: Duration::ZERO }));
        }
        let bytes = ready!(pin!(io.write_buf(&mut self.batch)).poll(cx))?;
        if bytes == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        // A plain socket has nothing to flush, and says so at once.
        self.unflushed = Pin::new(io).poll_flush(cx)?.is_pending();
        self.written += bytes as u64;
        while self.held.front().is_some_and(|(end, _)| *end <= self.written) {
            self.held.pop_front();
        }
        let now = Instant::now();
        let took = now - self.ready_since;
        self.ready_since = now;
        if self.written >= self.goal {
            self.next_goal(now);
        }
        Poll::Ready(Ok(Written { bytes, took }))
    }

    /// Writes all that waits.
    pub(crate) async fn write_all<IO: AsyncWrite + Unpin>(&mut self, io: &mut IO) -> io::Result<()> {
        io.write_all_buf(&mut self.batch).await
    }

    /// Whether memory could be given back when nothing waits.
    pub(crate) fn is_holding(&self) -> bool {
        self.batch.is_holding()
    }

    /// Gives the buffers back, unless something waits in them.
    pub(crate) fn let_go(&mut self) {
        self.batch.let_go();
        self.held.shrink_to_fit();
    }
}
