//! One connection of a channel: many calls at once.
//!
//! Promises: each answer goes to the call with its number; a call that is given up leaves nothing behind but a cancel
//! message, when there is one to send; when the connection is lost, every call learns whether it may have started.
//! Frames are written whole and in one place, so that giving up a call never cuts a frame in two.
//! Not here: connecting (`endpoint`), choosing among connections (`channel`).

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use bytes::{Buf, Bytes};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::{Notify, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use units::CallId;
use wire::{Batch, Frame, FrameLimits, Response};

use crate::CancelCall;
use crate::budget::Taken;
use crate::inbound::Inbound;
use crate::socket::Stream;
use crate::tls;

/// A server that takes nothing for so long is given up.
const WRITE_STALL: Duration = Duration::from_secs(20);

/// Frames are taken from the queue while less than this waits for the kernel.
const BATCH: usize = 64 * 1024;

/// Pieces handed to one system call.
const SLICES: usize = 64;

/// What is said of a connection that the server has closed, orderly or not.
pub(crate) const CLOSED: &str = "closed by the server";

/// The connection is gone.
#[derive(Clone, Debug)]
pub(crate) struct Gone {
    pub(crate) reason: Arc<str>,
    /// Whether the call had been given to the kernel.
    pub(crate) sent: bool,
}

/// Why a call of the channel's own has no answer.
#[derive(Debug)]
pub(crate) struct Unanswered(pub(crate) Arc<str>);

/// Why a call cannot use this connection.
#[derive(Debug)]
pub(crate) enum Denied {
    Full,
    Gone(Arc<str>),
}

struct Waiter {
    reply: oneshot::Sender<Result<Bytes, Gone>>,
    sent: bool,
}

#[derive(Default)]
struct Waiters {
    by_number: HashMap<i32, Waiter>,
    last: i32,
    gone: Option<Arc<str>>,
}

struct Queued {
    /// None: nobody waits for an answer, so it is written in any case.
    number: Option<i32>,
    frame: Frame,
}

pub(crate) struct Link {
    /// None: the writing task has it, because TLS may keep some of what it took, to be flushed later.
    direct: Option<OwnedWriteHalf>,
    waiters: Mutex<Waiters>,
    queue: Mutex<Vec<Queued>>,
    /// What is being written; held by whoever writes, never across an await.
    batch: Mutex<Batch>,
    has_work: Notify,
    closed: CancellationToken,
    calls_limit: usize,
    /// Whether something has moved since the last look: the server is there.
    heard: AtomicBool,
    /// Whether a caller has sent something since the last look.
    used: AtomicBool,
}

/// A call's place on a link. Dropping it gives the call up.
pub(crate) struct Entry {
    link: Arc<Link>,
    number: i32,
    reply: oneshot::Receiver<Result<Bytes, Gone>>,
    /// Sent when the call is given up after it was written.
    cancel: Option<(CancelCall, CallId)>,
    over: bool,
}

impl Link {
    /// Starts the reading and the writing task of a connection.
    pub(crate) fn open(stream: Stream, frames: FrameLimits, calls_limit: usize) -> Arc<Self> {
        match stream {
            Stream::Plain(stream) => {
                let (read, write) = stream.into_split();
                let link = Arc::new(Self::new(Some(write), calls_limit));
                tokio::spawn(Arc::clone(&link).read(read, frames));
                tokio::spawn(Arc::clone(&link).write());
                link
            }
            Stream::Secure(stream) => {
                let (read, write) = tokio::io::split(stream);
                let link = Arc::new(Self::new(None, calls_limit));
                tokio::spawn(Arc::clone(&link).read(read, frames));
                tokio::spawn(Arc::clone(&link).write_to(write));
                link
            }
        }
    }

    fn new(direct: Option<OwnedWriteHalf>, calls_limit: usize) -> Self {
        Self {
            direct,
            waiters: Mutex::default(),
            queue: Mutex::default(),
            batch: Mutex::default(),
            has_work: Notify::new(),
            closed: CancellationToken::new(),
            calls_limit,
            heard: AtomicBool::new(false),
            used: AtomicBool::new(false),
        }
    }

    /// Resolves when the connection is gone.
    pub(crate) async fn closed(&self) {
        self.closed.cancelled().await;
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.waiters.lock().by_number.len()
    }

    /// Why it is gone.
    pub(crate) fn reason(&self) -> Option<Arc<str>> {
        self.waiters.lock().gone.clone()
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Whether the server has moved something since the last call of this.
    pub(crate) fn take_heard(&self) -> bool {
        self.heard.swap(false, Relaxed)
    }

    /// The same, without forgetting it.
    pub(crate) fn was_heard(&self) -> bool {
        self.heard.load(Relaxed)
    }

    /// Whether callers have used it since the last call of this, or do now. What the channel asks for itself is no use.
    pub(crate) fn take_used(&self) -> bool {
        self.used.swap(false, Relaxed) || self.in_flight() > 0
    }

    /// Makes a call of the channel's own, over the limit of calls if need be, and waits for the answer without an end.
    pub(crate) async fn ask(self: &Arc<Self>, call: impl FnOnce(i32) -> Option<Frame>) -> Result<Bytes, Unanswered> {
        let mut entry = self.enter_within(usize::MAX).map_err(|denied| match denied {
            Denied::Gone(reason) => Unanswered(reason),
            Denied::Full => Unanswered(Arc::from("too many calls")),
        })?;
        let frame = call(entry.number()).ok_or_else(|| Unanswered(Arc::from("the ping cannot be encoded")))?;
        entry.send(frame, None);
        entry.reply().await.map_err(|gone| Unanswered(gone.reason))
    }

    /// Takes a number for a call.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<Entry, Denied> {
        self.used.store(true, Relaxed);
        self.enter_within(self.calls_limit)
    }

    fn enter_within(self: &Arc<Self>, calls_limit: usize) -> Result<Entry, Denied> {
        let (sender, reply) = oneshot::channel();
        let mut waiters = self.waiters.lock();
        if let Some(reason) = &waiters.gone {
            return Err(Denied::Gone(Arc::clone(reason)));
        }
        if waiters.by_number.len() >= calls_limit {
            return Err(Denied::Full);
        }
        let number = waiters.next_number();
        waiters.by_number.insert(number, Waiter { reply: sender, sent: false });
        Ok(Entry { link: Arc::clone(self), number, reply, cancel: None, over: false })
    }

    /// Sends a message that nobody answers.
    pub(crate) fn send_oneway(&self, frame: Frame) {
        self.used.store(true, Relaxed);
        self.queue.lock().push(Queued { number: None, frame });
        self.has_work.notify_one();
    }

    fn send(&self, number: i32, frame: Frame) {
        self.queue.lock().push(Queued { number: Some(number), frame });
        // Alone on the connection, a call saves the way over the writing task. With company it does not, because that
        // task makes one system call for all of them.
        if let Some(direct) = &self.direct
            && self.in_flight() == 1
            && let Some(mut batch) = self.batch.try_lock()
            && let Ok(true) = self.flush(direct, &mut batch)
        {
            return;
        }
        self.has_work.notify_one();
    }

    /// Writes what is queued. `false`: the kernel takes no more at the moment.
    fn flush(&self, direct: &OwnedWriteHalf, batch: &mut Batch) -> io::Result<bool> {
        loop {
            // What stays in the queue has certainly not been sent, so it is not taken before its turn.
            if batch.remaining() < BATCH {
                self.collect(batch);
            }
            if batch.is_empty() {
                return Ok(true);
            }
            let mut slices = [IoSlice::new(&[]); SLICES];
            let filled = batch.chunks_vectored(&mut slices);
            match direct.try_write_vectored(&slices[..filled]) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => batch.advance(written),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
    }

    /// Moves queued frames into the batch, but those whose callers have gone.
    fn collect(&self, batch: &mut Batch) {
        let queued = std::mem::take(&mut *self.queue.lock());
        if queued.is_empty() {
            return;
        }
        let mut waiters = self.waiters.lock();
        for Queued { number, frame } in queued {
            match number.map(|number| waiters.by_number.get_mut(&number)) {
                None => batch.push(frame),
                Some(None) => {}
                Some(Some(waiter)) => {
                    waiter.sent = true;
                    batch.push(frame);
                }
            }
        }
    }

    async fn write(self: Arc<Self>) {
        let Some(direct) = &self.direct else { return };
        let written = tokio::select! {
            () = self.closed.cancelled() => return,
            error = self.write_on(direct) => error,
        };
        self.close(&written);
    }

    async fn write_on(&self, direct: &OwnedWriteHalf) -> String {
        loop {
            self.has_work.notified().await;
            loop {
                let flushed = self.flush(direct, &mut self.batch.lock());
                match flushed {
                    Ok(true) => break,
                    Ok(false) => {}
                    Err(error) => return error.to_string(),
                }
                match tokio::time::timeout(WRITE_STALL, direct.writable()).await {
                    // What is big takes its time, and an answer comes after it.
                    Ok(Ok(())) => self.heard.store(true, Relaxed),
                    Ok(Err(error)) => return error.to_string(),
                    Err(_) => return stalled(),
                }
            }
        }
    }

    /// As [`Link::write`], where only this task may write.
    async fn write_to(self: Arc<Self>, mut write: impl AsyncWrite + Unpin) {
        let written = tokio::select! {
            () = self.closed.cancelled() => return,
            error = self.write_on_to(&mut write) => error,
        };
        self.close(&written);
    }

    async fn write_on_to(&self, write: &mut (impl AsyncWrite + Unpin)) -> String {
        let mut batch = Batch::new();
        loop {
            self.has_work.notified().await;
            loop {
                if batch.remaining() < BATCH {
                    self.collect(&mut batch);
                }
                let step = async {
                    match batch.is_empty() {
                        false => write.write_buf(&mut batch).await.map(|_| false),
                        true => write.flush().await.map(|()| true),
                    }
                };
                match tokio::time::timeout(WRITE_STALL, step).await {
                    Ok(Ok(true)) => break,
                    // More than fits into the buffers on the way: something has moved.
                    Ok(Ok(false)) if !batch.is_empty() => self.heard.store(true, Relaxed),
                    Ok(Ok(false)) => {}
                    Ok(Err(error)) => return tls::reason(&error),
                    Err(_) => return stalled(),
                }
            }
        }
    }

    async fn read(self: Arc<Self>, mut read: impl AsyncRead + Unpin, limits: FrameLimits) {
        let ended = tokio::select! {
            () = self.closed.cancelled() => return,
            error = self.read_on(&mut read, limits) => error,
        };
        self.close(&ended);
    }

    async fn read_on(&self, read: &mut (impl AsyncRead + Unpin), limits: FrameLimits) -> String {
        let mut inbound = Inbound::new(limits);
        loop {
            if let Err(need) = inbound.prepare(false) {
                // No budget here: answers are as many as calls were made, and come from servers of our choice.
                inbound.grant(need, Taken::own(need.bytes()));
            }
            match poll_fn(|cx| inbound.poll_read(read, cx)).await {
                Ok(0) => return CLOSED.to_owned(),
                Ok(_) => self.heard.store(true, Relaxed),
                Err(error) => return tls::reason(&error),
            }
            let now = Instant::now();
            loop {
                let frame = match inbound.take(now) {
                    Ok(Some(arrived)) => arrived.payload,
                    Ok(None) => break,
                    Err(error) => return error.to_string(),
                };
                match Response::peek(&frame) {
                    Ok(head) => self.answer(head.seqid, frame),
                    Err(error) => return error.to_string(),
                }
            }
        }
    }

    fn answer(&self, number: i32, frame: Bytes) {
        let waiter = self.waiters.lock().by_number.remove(&number);
        // None: its caller has given up.
        if let Some(waiter) = waiter {
            let _ = waiter.reply.send(Ok(frame));
        }
    }

    /// Ends the connection and tells every call.
    pub(crate) fn close(&self, reason: &str) {
        let reason: Arc<str> = Arc::from(reason);
        let lost = {
            let mut waiters = self.waiters.lock();
            waiters.gone.get_or_insert_with(|| Arc::clone(&reason));
            std::mem::take(&mut waiters.by_number)
        };
        for waiter in lost.into_values() {
            let _ = waiter.reply.send(Err(Gone { reason: Arc::clone(&reason), sent: waiter.sent }));
        }
        self.queue.lock().clear();
        self.closed.cancel();
    }
}

fn stalled() -> String {
    format!("it took no byte for {} s", WRITE_STALL.as_secs())
}

impl Waiters {
    /// The next number that no call in flight has. Positive, since some servers print it; 0 is what clients without
    /// numbers send.
    fn next_number(&mut self) -> i32 {
        loop {
            self.last = self.last.checked_add(1).unwrap_or(1);
            if !self.by_number.contains_key(&self.last) {
                return self.last;
            }
        }
    }
}

impl Entry {
    pub(crate) fn number(&self) -> i32 {
        self.number
    }

    /// Queues the call's frame. `cancel` makes what goes out if the call is given up afterwards.
    pub(crate) fn send(&mut self, frame: Frame, cancel: Option<(CancelCall, CallId)>) {
        self.cancel = cancel;
        self.link.send(self.number, frame);
    }

    /// The answer. May be polled again when given up half-way.
    pub(crate) async fn reply(&mut self) -> Result<Bytes, Gone> {
        let reply = (&mut self.reply).await;
        self.over = true;
        reply.unwrap_or_else(|_| Err(Gone { reason: Arc::from("connection dropped"), sent: true }))
    }

    /// Gives the call up; whether it may have been written.
    pub(crate) fn give_up(mut self) -> bool {
        self.forget()
    }

    fn forget(&mut self) -> bool {
        if std::mem::replace(&mut self.over, true) {
            return false;
        }
        let waiter = self.link.waiters.lock().by_number.remove(&self.number);
        // None: answered or lost at this very moment, so it had been sent, or nobody knows.
        let Some(waiter) = waiter else { return true };
        if waiter.sent
            && let Some((cancel, id)) = self.cancel.take()
            && let Some(frame) = cancel(id)
        {
            self.link.send_oneway(frame);
        }
        waiter.sent
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.forget();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap_and_skip_those_in_use() {
        let waiter = || Waiter { reply: oneshot::channel().0, sent: false };
        let mut waiters = Waiters { last: i32::MAX - 1, ..Waiters::default() };
        waiters.by_number.extend([(1, waiter()), (2, waiter())]);
        assert_eq!(waiters.next_number(), i32::MAX);
        assert_eq!(waiters.next_number(), 3);
    }
}
