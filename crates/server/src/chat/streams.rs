//! The streams of this process: which there are, whose they are, and how long.
//!
//! Promises: an id cannot be guessed and names the process; the same key of the same caller is the same stream; a stream that has
//! ended is forgotten when nobody has asked for so long as ends one that goes on. What is kept of ended ones is bounded by what
//! can be generated in that time.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use engine::Answers;
use fault::Fault;
use parking_lot::Mutex;
use prometheus_client::metrics::gauge::Gauge;
use rpc::{Drain, Peer};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use super::stream::{Opening, Stream};
use super::tally::Tally;
use crate::record::Origin;

/// When a caller that has too many streams is to try again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What streams may take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// A stream that nobody reads for so long is ended.
    pub(crate) reader_gone: Duration,
    /// Bytes of unacknowledged pieces of one stream.
    pub(crate) kept: usize,
    /// Streams of one caller that have not ended.
    pub(crate) per_caller: usize,
}

type Key = (String, [u8; 16]);

/// All streams.
#[derive(Clone)]
pub(crate) struct Streams(Arc<Shared>);

struct Shared {
    /// Names this process.
    instance: String,
    limits: Limits,
    drain: Drain,
    /// The time of the drain is nearly over: what still goes on ends now.
    cut: CancellationToken,
    open: Gauge,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_id: HashMap<String, Arc<Stream>>,
    /// Set once the stream is there; until then several that start it wait for one of them.
    by_key: HashMap<Key, Arc<OnceCell<Arc<Stream>>>>,
    /// Streams that have not ended, by caller.
    open: HashMap<String, usize>,
}

/// What still goes on when the drain's time is over is told.
pub(super) fn drained() -> Fault {
    Fault::unavailable("the server is stopping, and the answer was not whole in time")
}

impl Streams {
    pub(crate) fn new(instance: String, limits: Limits, drain: Drain, open: Gauge) -> Self {
        let held = Mutex::default();
        Self(Arc::new(Shared { instance, limits, drain, cut: CancellationToken::new(), open, held }))
    }

    /// Ends everything that goes on, each with a last piece.
    pub(crate) fn cut_all(&self) {
        self.0.cut.cancel();
    }

    /// Resolves when everything is to end.
    pub(super) async fn cut(&self) {
        self.0.cut.cancelled().await;
    }

    /// # Errors
    /// NotFound; it names the process that the id belongs to when it is another one.
    pub(super) fn find(&self, id: Option<&str>) -> Result<Arc<Stream>, Fault> {
        let id = id.unwrap_or_default();
        if let Some(stream) = self.0.held.lock().by_id.get(id) {
            return Ok(Arc::clone(stream));
        }
        let ours = &self.0.instance;
        let message = match id.split_once('.') {
            Some((instance, _)) if instance != ours => {
                format!("the stream belongs to server instance `{instance}`, this is `{ours}`")
            }
            _ => "no such stream: it has ended and was forgotten, or there never was one".to_owned(),
        };
        Err(Fault::not_found(message).with_param("stream_id"))
    }

    /// The stream that this caller has started with this key, or the one that `make` opens now.
    ///
    /// # Errors
    /// Those of `make`; Overloaded when the caller has too many.
    pub(super) async fn start<W>(
        &self,
        caller: String,
        key: [u8; 16],
        bound: Option<Arc<Peer>>,
        make: impl FnOnce(Seat) -> W,
    ) -> Result<Arc<Stream>, Fault>
    where
        W: Future<Output = Result<Arc<Stream>, Fault>>,
    {
        let key = (caller, key);
        let cell = Arc::clone(self.0.held.lock().by_key.entry(key.clone()).or_default());
        let _unused = Unused { shared: &self.0, key: &key, cell: &cell };
        let open = async || make(self.seat(&key)?).await;
        let stream = cell.get_or_try_init(open).await?;
        if let Some(peer) = bound {
            stream.bind(peer);
        }
        Ok(Arc::clone(stream))
    }

    fn seat(&self, key: &Key) -> Result<Seat, Fault> {
        let (caller, limit) = (&key.0, self.0.limits.per_caller);
        let mut held = self.0.held.lock();
        let open = held.open.entry(caller.clone()).or_default();
        if *open >= limit {
            let message = format!("{open} streams of this caller are open, which is the limit");
            return Err(Fault::overloaded(message).with_retry_after(TRY_AGAIN));
        }
        *open += 1;
        self.0.open.inc();
        Ok(Seat { shared: Arc::clone(&self.0), key: key.clone() })
    }

    /// Opens a stream over `answers`, which goes on by itself from here.
    pub(super) fn open(&self, opening: Opening, answers: Answers, origin: Origin, seat: Seat) -> Arc<Stream> {
        let shared = Arc::clone(&self.0);
        let id = format!("{}.{}", shared.instance, uuid::Uuid::new_v4().simple());
        let opening = Opening { stream_id: id.clone(), ..opening };
        let tally = Tally::new(origin.received, opening.prompt_tokens, answers.count());
        let stream = Arc::new(Stream::new(opening, shared.limits.kept, shared.drain.hold()));
        shared.held.lock().by_id.insert(id.clone(), Arc::clone(&stream));
        let running = Arc::clone(&stream);
        tokio::spawn(async move {
            // Forgets it also when it panics.
            let forget = Forget { shared: Arc::clone(&shared), id, key: seat.key.clone() };
            let limit = shared.limits.reader_gone;
            let ended = running.run(answers, tally, limit, &shared.cut).await;
            drop(seat);
            origin.tell("stream", ended.fault.as_ref(), &ended.talked);
            if ended.with_connection {
                // Nobody has the answer of `start`, so the same key may begin anew.
                forget.key();
            }
            running.unread(limit).await;
        });
        stream
    }
}

/// One stream of the number that a caller may have open.
pub(super) struct Seat {
    shared: Arc<Shared>,
    key: Key,
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.shared.open.dec();
        let mut held = self.shared.held.lock();
        if let Some(open) = held.open.get_mut(&self.key.0) {
            *open -= 1;
            if *open == 0 {
                held.open.remove(&self.key.0);
            }
        }
    }
}

/// Takes a stream out of the maps when dropped.
struct Forget {
    shared: Arc<Shared>,
    id: String,
    key: Key,
}

impl Forget {
    /// Forgets the key, when it still leads to this stream.
    fn key(&self) {
        let mut held = self.shared.held.lock();
        let leads_here =
            |cell: &Arc<OnceCell<Arc<Stream>>>| cell.get().is_some_and(|stream| stream.opening.stream_id == self.id);
        if held.by_key.get(&self.key).is_some_and(leads_here) {
            held.by_key.remove(&self.key);
        }
    }
}

impl Drop for Forget {
    fn drop(&mut self) {
        self.key();
        self.shared.held.lock().by_id.remove(&self.id);
    }
}

/// Takes a key out again whose stream was never opened, unless somebody else is about to.
struct Unused<'a> {
    shared: &'a Shared,
    key: &'a Key,
    cell: &'a Arc<OnceCell<Arc<Stream>>>,
}

impl Drop for Unused<'_> {
    fn drop(&mut self) {
        let mut held = self.shared.held.lock();
        // The map's and ours: taken under the lock, so nobody joins meanwhile.
        let is_last = Arc::strong_count(self.cell) <= 2;
        let is_there = held.by_key.get(self.key).is_some_and(|cell| Arc::ptr_eq(cell, self.cell));
        if is_there && is_last && !self.cell.initialized() {
            held.by_key.remove(self.key);
        }
    }
}

/// How long before the end of a drain what still goes on is ended, so that its last word arrives.
pub(crate) fn before_the_end(drain: Duration) -> Duration {
    drain.saturating_sub(Duration::from_secs(2).min(drain / 2))
}
