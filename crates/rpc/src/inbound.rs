//! Turns what a peer sends into frames, within the budget.
//!
//! Why two kinds of buffer: many small frames come in one read and share a chunk, of which each is a slice; a big frame
//! is read straight into a buffer of its own, of its size, and begins in it where its big field will lie aligned.
//! Promises: nothing is allocated for a claimed size before the budget has granted it, and memory for what comes in that
//! nobody paid for is at most [`OWN`] bytes a connection (and 7 for the place of a big frame). A connection that has never sent anything, or that has let go
//! of what it had, has no buffer at all.
//! Not here: waiting for the budget, and what happens when it grants nothing (`connection`).

use std::cell::RefCell;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, ReadBuf};
use tokio::time::Instant;
use wire::{FrameError, FrameLimits, Request};

use crate::budget::{Charge, Taken};

/// What every connection may hold without asking the budget.
pub(crate) const OWN: usize = 4 * 1024;

/// The length in front of each frame.
const PREFIX: usize = 4;

/// A busy connection's chunk: room for some eighty frames of a kilobyte in one system call.
const LARGEST_CHUNK: usize = 64 * 1024;

/// From this payload length on a frame has a buffer of its own.
const BIG: usize = 32 * 1024;

/// The big field of a big frame begins at a multiple of it, so that a model can read any of its numbers in place.
const ALIGN: usize = 8;

/// A read of less is not worth the system call.
const LEAST_ROOM: usize = 512;

/// Where only heads are taken, so much of one is asked for at a time.
const HEAD_BYTES: usize = 512;

thread_local! {
    /// Where bytes go first while a connection has no buffer, and last when they are to be skipped.
    static SCRATCH: RefCell<Vec<u8>> = RefCell::new(vec![0; LARGEST_CHUNK]);
}

/// What has to be granted before reading can go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Need {
    /// A chunk of so many bytes.
    Chunk(usize),
    /// A buffer for a frame of so many bytes.
    Body(usize),
}

impl Need {
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Chunk(bytes) | Self::Body(bytes) => bytes,
        }
    }
}

/// A complete frame.
pub(crate) struct Arrived {
    pub(crate) payload: Bytes,
    pub(crate) charge: Charge,
    /// From its first byte to its last.
    pub(crate) read: Duration,
}

struct Body {
    buffer: BytesMut,
    want: usize,
    charge: Charge,
}

pub(crate) struct Inbound {
    limits: FrameLimits,
    chunk: BytesMut,
    /// Who pays for the chunk: each frame cut from it holds a clone.
    charge: Charge,
    /// Pays for the [`OWN`] bytes; a clone beyond ours (and `charge`) means that a call still uses them.
    own: Charge,
    /// Size of the next chunk: grows with what arrives in one read.
    size: usize,
    body: Option<Body>,
    /// Bytes of a refused frame that are still to come.
    skip: usize,
    started: Option<Instant>,
}

impl Inbound {
    pub(crate) fn new(limits: FrameLimits) -> Self {
        let own = Taken::own(OWN);
        let charge = Arc::clone(&own);
        Self { limits, chunk: BytesMut::new(), charge, own, size: OWN, body: None, skip: 0, started: None }
    }

    /// Since when the frame that is not complete yet has been arriving.
    pub(crate) fn started(&self) -> Option<Instant> {
        self.started
    }

    /// The bytes that arrived and are not taken, from a frame's prefix on (empty inside a big frame).
    pub(crate) fn unread(&self) -> &[u8] {
        if self.skip > 0 { &[] } else { &self.chunk }
    }

    /// Takes the next complete frame.
    pub(crate) fn take(&mut self, now: Instant) -> Result<Option<Arrived>, FrameError> {
        if let Some(body) = self.body.take_if(|body| body.buffer.len() == body.want) {
            let arrived = Arrived { payload: body.buffer.freeze(), charge: body.charge, read: self.age(now) };
            self.started = None;
            return Ok(Some(arrived));
        }
        if self.body.is_some() || self.skip > 0 {
            return Ok(None);
        }
        let Some(bytes) = wire::claimed(&self.chunk, &self.limits)? else { return Ok(None) };
        let whole = PREFIX + bytes;
        if self.chunk.len() < whole {
            return Ok(None);
        }
        let mut frame = self.chunk.split_to(whole);
        frame.advance(PREFIX);
        let payload = frame.freeze();
        let arrived = Arrived { payload, charge: Arc::clone(&self.charge), read: self.age(now) };
        // The frame behind it came with these bytes, unless its time was started anew since: `now` may be earlier than that.
        self.started = (!self.chunk.is_empty()).then(|| self.started.map_or(now, |started| started.max(now)));
        Ok(Some(arrived))
    }

    fn age(&self, now: Instant) -> Duration {
        self.started.map_or(Duration::ZERO, |started| now.saturating_duration_since(started))
    }

    /// Makes room for the next read. `starved`: the budget grants nothing, so room is made for a frame's head only.
    pub(crate) fn prepare(&mut self, starved: bool) -> Result<(), Need> {
        // No buffer yet: the first bytes go through the scratch buffer.
        if self.body.is_some() || self.skip > 0 || self.is_bare() {
            return Ok(());
        }
        let mut lacking = wire::needed(&self.chunk);
        match wire::claimed(&self.chunk, &self.limits) {
            // Nor is more than the head of use in a frame over the limit.
            Err(_) => lacking = lacking.min(HEAD_BYTES),
            Ok(_) if starved => lacking = lacking.min(HEAD_BYTES),
            Ok(Some(claimed)) if claimed >= BIG => return Err(Need::Body(claimed)),
            Ok(_) => {}
        }
        let room = self.chunk.capacity() - self.chunk.len();
        let least = lacking.max(LEAST_ROOM);
        if room >= least {
            return Ok(());
        }
        let size = self.size.max(self.chunk.len() + least);
        let paid = self.charge.bytes();
        if paid >= size && self.is_unshared() && self.chunk.try_reclaim(size - self.chunk.len()) {
            return Ok(());
        }
        let own_is_free = Arc::strong_count(&self.own) <= 1 + usize::from(self.is_on_own());
        if starved || (size <= OWN && own_is_free) {
            // A starved connection's frames are refused at once, so they never hold what was not paid for.
            let own = Arc::clone(&self.own);
            self.move_to(own, OWN);
            return Ok(());
        }
        Err(Need::Chunk(size))
    }

    /// Goes on with what [`Inbound::prepare`] needed.
    pub(crate) fn grant(&mut self, need: Need, charge: Charge) {
        match need {
            Need::Chunk(size) => self.move_to(charge, size),
            Need::Body(want) => {
                // An incomplete frame is the last in its chunk, so the rest of the chunk belongs to it.
                let buffer = placed(&self.chunk[PREFIX..], want);
                self.chunk.clear();
                self.body = Some(Body { buffer, want, charge });
            }
        }
    }

    fn move_to(&mut self, charge: Charge, size: usize) {
        let mut chunk = BytesMut::with_capacity(size);
        chunk.extend_from_slice(&self.chunk);
        self.chunk = chunk;
        self.charge = charge;
    }

    fn is_bare(&self) -> bool {
        self.chunk.is_empty() && self.chunk.capacity() == 0 && self.is_on_own()
    }

    fn is_on_own(&self) -> bool {
        Arc::ptr_eq(&self.charge, &self.own)
    }

    /// Whether no call uses the chunk.
    fn is_unshared(&self) -> bool {
        Arc::strong_count(&self.charge) == 1 + usize::from(self.is_on_own())
    }

    /// Leaves the rest of the incomplete frame unread: it was refused.
    pub(crate) fn skip_frame(&mut self) {
        self.skip = wire::needed(&self.chunk);
        self.chunk.clear();
    }

    /// Reads once. `Ok(0)` is the end.
    pub(crate) fn poll_read<IO>(&mut self, io: &mut IO, cx: &mut Context<'_>) -> Poll<io::Result<usize>>
    where
        IO: AsyncRead + Unpin,
    {
        if let Some(body) = &mut self.body {
            let missing = body.want - body.buffer.len();
            return pin!(io.read_buf(&mut (&mut body.buffer).limit(missing))).poll(cx);
        }
        if self.skip > 0 {
            let read = ready!(read_scratch(io, cx, self.skip, |_| {}))?;
            self.skip -= read;
            return Poll::Ready(Ok(read));
        }
        if self.is_bare() {
            let chunk = &mut self.chunk;
            return read_scratch(io, cx, OWN, |bytes| {
                *chunk = BytesMut::with_capacity(OWN);
                chunk.extend_from_slice(bytes);
            });
        }
        let room = self.chunk.capacity() - self.chunk.len();
        let read = ready!(pin!(io.read_buf(&mut self.chunk)).poll(cx))?;
        if read == room && self.size < LARGEST_CHUNK {
            self.size *= 2;
        }
        Poll::Ready(Ok(read))
    }

    /// Notes that bytes have arrived.
    pub(crate) fn arrived(&mut self, now: Instant) {
        let between_frames = self.body.is_none() && self.skip == 0 && self.chunk.is_empty();
        self.started = if between_frames { None } else { self.started.or(Some(now)) };
    }

    /// Starts the time of the incomplete frame anew: the wait for the budget was this side's, not its sender's.
    pub(crate) fn restart(&mut self, now: Instant) {
        self.started = self.started.map(|_| now);
    }

    /// Whether memory could be given back while nothing comes.
    pub(crate) fn is_holding(&self) -> bool {
        self.body.is_none() && self.chunk.is_empty() && !self.is_bare()
    }

    /// Gives the chunk back. To be called only while no call is in flight.
    pub(crate) fn let_go(&mut self) {
        if self.is_holding() {
            self.chunk = BytesMut::new();
            self.charge = Arc::clone(&self.own);
            self.size = OWN;
        }
    }
}

/// A buffer for a payload of `want` bytes, which begins with `head`: where it starts depends on where its big field does.
fn placed(head: &[u8], want: usize) -> BytesMut {
    let mut buffer = BytesMut::with_capacity(want + ALIGN - 1);
    let field = wire::large_field(head, want).unwrap_or(0);
    let lead = (buffer.as_ptr().addr() + field).wrapping_neg() % ALIGN;
    buffer.put_bytes(0, lead);
    buffer.advance(lead);
    buffer.extend_from_slice(head);
    buffer
}

fn read_scratch<IO: AsyncRead + Unpin>(
    io: &mut IO,
    cx: &mut Context<'_>,
    most: usize,
    take: impl FnOnce(&[u8]),
) -> Poll<io::Result<usize>> {
    SCRATCH.with_borrow_mut(|scratch| {
        let most = most.min(scratch.len());
        let mut buffer = ReadBuf::new(&mut scratch[..most]);
        ready!(Pin::new(io).poll_read(cx, &mut buffer))?;
        let read = buffer.filled().len();
        if read > 0 {
            take(buffer.filled());
        }
        Poll::Ready(Ok(read))
    })
}

/// Whether the head of the incomplete frame in `unread` must be there by now: also one with a TTHeader, if that is no longer
/// than what a connection owns.
pub(crate) fn must_hold_head(unread: &[u8]) -> bool {
    unread.len() >= OWN || !Request::lacks_head(unread.get(PREFIX..).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};
    use wire::{DecodeLimits, MessageKind, Protocol, encode_call};

    use super::*;
    use crate::testing::Note;

    async fn next(inbound: &mut Inbound, io: &mut DuplexStream) -> Bytes {
        loop {
            let now = Instant::now();
            if let Some(arrived) = inbound.take(now).expect("it is within the limits") {
                return arrived.payload;
            }
            if let Err(need) = inbound.prepare(false) {
                inbound.grant(need, Taken::own(need.bytes()));
            }
            assert_ne!(poll_fn(|cx| inbound.poll_read(io, cx)).await.expect("nothing fails"), 0, "it ends early");
            inbound.arrived(now);
        }
    }

    #[tokio::test]
    async fn a_big_field_lies_where_a_model_can_read_it_however_long_the_name_before_it_is() {
        for protocol in [Protocol::Binary, Protocol::Compact] {
            for name in ["e", "ec", "ech", "echo", "echoe", "echoec", "echoech", "echoecho"] {
                let sent = Note::of(vec![7; BIG]);
                let frame = encode_call(protocol, name, 1, MessageKind::Call, &sent).expect("it can be written");
                let twice = [frame.to_bytes(), frame.to_bytes()].concat();
                // What two reads bring, the second with bytes of the next frame behind the first.
                let (mut writer, mut io) = duplex(BIG);
                let write = tokio::spawn(async move { writer.write_all(&twice).await.map(|()| writer) });
                let mut inbound = Inbound::new(FrameLimits::default());
                for _ in 0..2 {
                    let payload = next(&mut inbound, &mut io).await;
                    let request = Request::parse(payload, &DecodeLimits::default()).expect("a call");
                    let note: Note = request.args().expect("a note");
                    assert_eq!(note, sent);
                    assert_eq!(note.data.as_ptr().addr() % ALIGN, 0, "{protocol:?} {name}");
                }
                write.await.expect("no panic").expect("everything is written");
            }
        }
    }
}
