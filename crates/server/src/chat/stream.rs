//! One streamed chat: its pieces, who reads them, and what ends it.

use std::sync::Arc;
use std::time::Duration;

use engine::{Answers, Said};
use fault::Fault;
use idl::chat::{FinishReason, Piece};
use parking_lot::Mutex;
use rpc::Peer;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::convert;
use super::pieces::{Behind, Pieces, broken};
use super::streams::drained;
use super::tally::{Talked, Tally};

/// How long a stream whose last piece was acknowledged is kept: a question that was sent twice still finds it.
const ASKED_AGAIN: Duration = Duration::from_secs(1);

/// What `start` answers.
#[derive(Clone)]
pub(super) struct Opening {
    pub(super) stream_id: String,
    pub(super) model: String,
    pub(super) version: String,
    pub(super) request_id: String,
    pub(super) prompt_tokens: usize,
}

/// Who reads, and since when nobody does.
#[derive(Clone, Copy)]
struct Reading {
    readers: usize,
    since: Instant,
}

/// What ends a stream before its answers do.
enum Interrupt {
    Stopped,
    ConnectionLost,
    ReaderGone(Duration),
    Drained,
}

/// One streamed chat.
pub(crate) struct Stream {
    pub(super) opening: Opening,
    pieces: Mutex<Pieces>,
    /// Something was added.
    changed: Notify,
    reading: watch::Sender<Reading>,
    /// The connection whose loss ends it.
    bound: watch::Sender<Option<Arc<Peer>>>,
    stop: CancellationToken,
    /// All pieces were acknowledged, and nothing comes any more.
    acknowledged: CancellationToken,
    /// It has ended and must make room.
    displaced: CancellationToken,
    /// Keeps the process from ending until the last piece was read.
    hold: Mutex<Option<TaskTrackerToken>>,
}

/// How a stream ended.
pub(super) struct Ended {
    pub(super) fault: Option<Fault>,
    pub(super) talked: Talked,
    /// Its connection was lost, so whoever started it may start anew.
    pub(super) with_connection: bool,
}

impl Stream {
    pub(super) fn new(opening: Opening, kept: usize, hold: TaskTrackerToken) -> Self {
        Self {
            opening,
            pieces: Mutex::new(Pieces::new(kept)),
            changed: Notify::new(),
            reading: watch::Sender::new(Reading { readers: 0, since: Instant::now() }),
            bound: watch::Sender::new(None),
            stop: CancellationToken::new(),
            acknowledged: CancellationToken::new(),
            displaced: CancellationToken::new(),
            hold: Mutex::new(Some(hold)),
        }
    }

    /// From now on the stream ends with this connection; of several the last one counts.
    pub(super) fn bind(&self, peer: Arc<Peer>) {
        self.bound.send_replace(Some(peer));
    }

    /// False when it had ended before, or was being stopped.
    pub(super) fn stop(&self) -> bool {
        let ended = self.pieces.lock().is_ended() || self.stop.is_cancelled();
        self.stop.cancel();
        !ended
    }

    /// The pieces from `from` on, and whether those are all there will be. Waits for the first new one.
    ///
    /// # Errors
    /// InvalidInput when `from` was acknowledged before, or is beyond what there is.
    pub(super) async fn next(&self, from: i64, wait: Duration) -> Result<(Vec<Piece>, bool), Fault> {
        let _reader = self.reader();
        let until = Instant::now() + wait;
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            // Before looking, so that no change falls between.
            changed.as_mut().enable();
            let (pieces, ended) = {
                let mut pieces = self.pieces.lock();
                (pieces.since(from)?, pieces.is_ended())
            };
            if ended {
                // The last piece is on its way; the connection sees to it that it arrives.
                self.hold.lock().take();
                if pieces.is_empty() {
                    self.acknowledged.cancel();
                }
            }
            let waits = pieces.is_empty() && !ended;
            if !waits || tokio::time::timeout_at(until, changed).await.is_err() {
                return Ok((pieces, ended));
            }
        }
    }

    fn reader(&self) -> Reader<'_> {
        self.reading.send_modify(|reading| reading.readers += 1);
        Reader(self)
    }

    /// A stream that has ended makes room.
    pub(super) fn displace(&self) {
        self.displaced.cancel();
    }

    /// Resolves when a stream that has ended need not be kept any more: questions after its end do not prolong that.
    pub(super) async fn unwanted(&self, until: std::time::Instant) {
        let known = async {
            self.acknowledged.cancelled().await;
            tokio::time::sleep(ASKED_AGAIN).await;
        };
        tokio::select! {
            () = known => {}
            () = tokio::time::sleep_until(until.into()) => {}
            () = self.displaced.cancelled() => {}
        }
    }

    /// Resolves when nobody has read for so long.
    async fn unread(&self, limit: Duration) {
        let mut reading = self.reading.subscribe();
        loop {
            let now = *reading.borrow_and_update();
            let changed = reading.changed();
            // The sender lives as long as `self`.
            if now.readers > 0 {
                let _ = changed.await;
            } else if tokio::time::timeout_at(now.since + limit, changed).await.is_err() {
                return;
            }
        }
    }

    async fn connection_lost(&self) {
        let mut bound = self.bound.subscribe();
        loop {
            let peer = bound.borrow_and_update().clone();
            let changed = bound.changed();
            match peer {
                None => {
                    let _ = changed.await;
                }
                Some(peer) => tokio::select! {
                    // First, so that a stream that was started again elsewhere lives on.
                    biased;
                    _ = changed => {}
                    () = peer.closed() => return,
                },
            }
        }
    }

    async fn interrupted(&self, reader_gone: Duration, cut: &CancellationToken) -> Interrupt {
        tokio::select! {
            () = self.stop.cancelled() => Interrupt::Stopped,
            () = self.connection_lost() => Interrupt::ConnectionLost,
            () = self.unread(reader_gone) => Interrupt::ReaderGone(reader_gone),
            () = cut.cancelled() => Interrupt::Drained,
        }
    }

    /// Takes what the answers say until they have ended or something ends them; then the last piece is there, in any case.
    pub(super) async fn run(
        &self,
        mut answers: Answers,
        mut tally: Tally,
        reader_gone: Duration,
        cut: &CancellationToken,
    ) -> Ended {
        // Declared first, so that a panic leaves a last piece.
        let _last = Last(self);
        let interrupted = self.interrupted(reader_gone, cut);
        tokio::pin!(interrupted);
        loop {
            let said = tokio::select! {
                // A chat that was told to stop says nothing more.
                biased;
                interrupt = &mut interrupted => {
                    drop(answers);
                    return self.cut(interrupt, &tally);
                }
                said = answers.next() => said,
            };
            match said {
                Ok(Some(said)) => {
                    tally.count(&said);
                    if let Some(end) = self.tell(said, &tally) {
                        return end;
                    }
                }
                // Told of with the end of the last answer.
                Ok(None) => return Ended { fault: None, talked: tally.talked("ok"), with_connection: false },
                Err(fault) => return self.fail(fault, &tally),
            }
        }
    }

    /// Adds what was said; `Some` when the stream has ended with it.
    fn tell(&self, said: Said, tally: &Tally) -> Option<Ended> {
        let piece = match said {
            Said::Piece { text, token: None, .. } if text.is_empty() => return None,
            Said::Piece { answer, text, token, .. } => Piece {
                index: i32::try_from(answer).ok(),
                text: Some(text),
                logprobs: token.map(|token| vec![convert::logprob(token)]),
                ..Piece::default()
            },
            Said::Finished { answer, finish, .. } => {
                let piece = finished(answer, convert::finish(&finish));
                if tally.open().next().is_none() {
                    let talked = tally.talked(name(convert::finish(&finish)));
                    self.end(last(piece, &talked));
                    return Some(Ended { fault: None, talked, with_connection: false });
                }
                piece
            }
        };
        let pushed = self.pieces.lock().push(piece);
        self.changed.notify_waiters();
        // It is ended and not paused: a slot that waits for a slow reader would be kept from those who read.
        pushed.err().map(|Behind { limit }| {
            let message = format!("the reader has not acknowledged {limit} bytes of the stream, which is the limit");
            self.fail(Fault::too_large(message), tally)
        })
    }

    fn cut(&self, interrupt: Interrupt, tally: &Tally) -> Ended {
        let fault = match interrupt {
            Interrupt::Stopped => {
                let talked = tally.talked("stopped");
                let mut open = tally.open().peekable();
                while let Some(answer) = open.next() {
                    let piece = finished(answer, FinishReason::CANCELLED);
                    if open.peek().is_none() {
                        self.end(last(piece, &talked));
                    } else if let Err(Behind { .. }) = self.pieces.lock().push(piece) {
                        // The last one has room always; these have no text, so this does not happen.
                        break;
                    }
                }
                return Ended { fault: None, talked, with_connection: false };
            }
            Interrupt::ConnectionLost => Fault::cancelled("the connection that started the stream was lost"),
            Interrupt::ReaderGone(limit) => {
                Fault::cancelled(format!("nobody asked for the stream's pieces for {} ms", limit.as_millis()))
            }
            Interrupt::Drained => drained(),
        };
        let with_connection = matches!(interrupt, Interrupt::ConnectionLost);
        let unread = with_connection || matches!(interrupt, Interrupt::ReaderGone(_));
        let ended = self.fail(fault, tally);
        if unread {
            // Nobody is there to wait for.
            self.hold.lock().take();
        }
        Ended { with_connection, ..ended }
    }

    fn fail(&self, fault: Fault, tally: &Tally) -> Ended {
        self.end(broken(&fault));
        Ended { talked: tally.talked(fault.code()), fault: Some(fault), with_connection: false }
    }

    fn end(&self, piece: Piece) {
        self.pieces.lock().end(piece);
        self.changed.notify_waiters();
    }
}

fn finished(answer: usize, finish: FinishReason) -> Piece {
    Piece { index: i32::try_from(answer).ok(), text: Some(String::new()), finish: Some(finish), ..Piece::default() }
}

fn last(piece: Piece, talked: &Talked) -> Piece {
    Piece { usage: Some(convert::usage(talked)), timing: Some(convert::timing(talked)), ..piece }
}

fn name(finish: FinishReason) -> &'static str {
    if finish == FinishReason::LENGTH { "length" } else { "stop" }
}

/// A call of `next_pieces` that has not ended.
struct Reader<'a>(&'a Stream);

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        self.0.reading.send_modify(|reading| {
            reading.readers -= 1;
            reading.since = Instant::now();
        });
    }
}

/// Sees to a last piece whatever happens: after any other it does nothing.
struct Last<'a>(&'a Stream);

impl Drop for Last<'_> {
    fn drop(&mut self) {
        self.0.end(broken(&Fault::internal("the stream broke, the log says why")));
    }
}
