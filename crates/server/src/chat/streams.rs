//! The streams of this process: which there are, whose they are, and how long.
//!
//! Promises: an id cannot be guessed and names the process; the same key of the same caller is the same stream; a stream that has
//! ended is forgotten a while after its end, sooner when its last piece was acknowledged or when it must make room: how many of
//! them are kept has a bound, in all and of one caller.

use std::collections::{HashMap, VecDeque};
use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use engine::Answers;
use fault::Fault;
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rpc::{Drain, Peer};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;
use tokio_util::task::task_tracker::TaskTrackerToken;
use units::Deadline;

use super::seats::Seat;
use super::stream::{Opening, Stream};
use super::tally::Tally;
use crate::record::Origin;

/// What streams may take.
#[derive(Clone, Copy)]
pub(crate) struct Limits {
    /// A stream that nobody reads for so long is ended.
    pub(crate) reader_gone: Duration,
    /// Bytes of unacknowledged pieces of one stream.
    pub(crate) kept: usize,
    /// Streams that have ended and are kept; a quarter of them of one caller.
    pub(crate) ended: usize,
}

/// What is told of streams.
#[derive(Clone, Default)]
pub(crate) struct Numbers {
    /// Those that have not ended.
    pub(crate) open: Gauge,
    /// Those that have, and may still be asked for.
    pub(crate) ended: Gauge,
    /// Those that were forgotten to make room.
    pub(crate) displaced: Counter,
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
    numbers: Numbers,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    by_id: HashMap<String, Arc<Stream>>,
    /// Set once the stream is there; until then several that start it wait for one of them.
    by_key: HashMap<Key, Arc<OnceCell<Arc<Stream>>>>,
    /// Ids and keys of the streams that have ended, in the order of their ends.
    ended: VecDeque<(String, Key)>,
}

/// What still goes on when the drain's time is over is told.
pub(super) fn drained() -> Fault {
    Fault::unavailable("the server is stopping, and the answer was not whole in time")
}

impl Streams {
    pub(crate) fn new(instance: String, limits: Limits, drain: Drain, numbers: Numbers) -> Self {
        let held = Mutex::default();
        Self(Arc::new(Shared { instance, limits, drain, cut: CancellationToken::new(), numbers, held }))
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
    /// Those of `make`; DeadlineExceeded, also when it is another call with this key that takes so long.
    pub(super) async fn start<W>(
        &self,
        key: Key,
        bound: Option<Arc<Peer>>,
        deadline: Deadline,
        make: impl FnOnce() -> W,
    ) -> Result<Arc<Stream>, Fault>
    where
        W: Future<Output = Result<Arc<Stream>, Fault>>,
    {
        let cell = Arc::clone(self.0.held.lock().by_key.entry(key.clone()).or_default());
        let _unused = Unused { shared: &self.0, key: &key, cell: &cell };
        let opened = tokio::time::timeout_at(deadline.instant().into(), cell.get_or_try_init(make)).await;
        let overdue = |_| Fault::deadline_exceeded("the deadline passed before the stream was open");
        let stream = opened.map_err(overdue)??;
        if let Some(peer) = bound {
            stream.bind(peer);
        }
        Ok(Arc::clone(stream))
    }

    /// Keeps the process from ending, for a stream that is about to be opened.
    pub(super) fn hold(&self) -> TaskTrackerToken {
        self.0.drain.hold()
    }

    /// Opens a stream over `answers`, which goes on by itself from here.
    pub(super) fn open(
        &self,
        opening: Opening,
        key: Key,
        answers: Answers,
        origin: Origin,
        seat: Seat,
        hold: TaskTrackerToken,
    ) -> Arc<Stream> {
        let shared = Arc::clone(&self.0);
        let id = format!("{}.{}", shared.instance, uuid::Uuid::new_v4().simple());
        let opening = Opening { stream_id: id.clone(), ..opening };
        let tally = Tally::new(origin.received, opening.prompt_tokens, answers.count());
        let stream = Arc::new(Stream::new(opening, shared.limits.kept, hold));
        shared.held.lock().by_id.insert(id.clone(), Arc::clone(&stream));
        let running = Arc::clone(&stream);
        let counted = Counted::new(&shared.numbers.open);
        tokio::spawn(async move {
            // Forgets it also when it panics.
            let forget = Forget { shared: Arc::clone(&shared), id, key };
            let limit = shared.limits.reader_gone;
            let ended = running.run(answers, tally, limit, &shared.cut).await;
            let end = Instant::now();
            shared.keep(&forget.id, &forget.key);
            drop((seat, counted));
            origin.tell_stream(ended.fault.as_ref(), &ended.talked);
            drop(origin);
            if ended.with_connection {
                // Nobody has the answer of `start`, so the same key may begin anew.
                shared.held.lock().free(&forget.id, &forget.key);
            }
            running.unwanted(end + limit).await;
        });
        stream
    }
}

impl Shared {
    /// Keeps a stream that has ended, and forgets the oldest when those are too many.
    fn keep(&self, id: &str, key: &Key) {
        let limit = self.limits.ended;
        let of_one = (limit / 4).max(1);
        let mut held = self.held.lock();
        held.ended.push_back((id.to_owned(), key.clone()));
        let is_theirs = |(_, other): &&(String, Key)| other.0 == key.0;
        let theirs = if held.ended.len() > of_one { held.ended.iter().filter(is_theirs).count() } else { 0 };
        let oldest = if theirs > of_one {
            held.ended.iter().find(is_theirs).cloned()
        } else if held.ended.len() > limit {
            held.ended.front().cloned()
        } else {
            None
        };
        if let Some((id, key)) = oldest {
            let displaced = held.by_id.get(&id).map(Arc::clone);
            held.forget(&id, &key);
            self.numbers.displaced.inc();
            // Its task ends now, and not when its time is over.
            displaced.iter().for_each(|stream| stream.displace());
        }
        self.numbers.ended.set(held.ended.len() as i64);
    }
}

impl Held {
    fn forget(&mut self, id: &str, key: &Key) {
        self.free(id, key);
        self.by_id.remove(id);
        if let Some(at) = self.ended.iter().position(|(known, _)| known == id) {
            self.ended.remove(at);
        }
    }

    /// Forgets the key, when it still leads to this stream.
    fn free(&mut self, id: &str, key: &Key) {
        let leads_here =
            |cell: &Arc<OnceCell<Arc<Stream>>>| cell.get().is_some_and(|stream| stream.opening.stream_id == id);
        if self.by_key.get(key).is_some_and(leads_here) {
            self.by_key.remove(key);
        }
    }
}

/// Counts one until dropped.
struct Counted(Gauge);

impl Counted {
    fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// Takes a stream out of the maps when dropped.
struct Forget {
    shared: Arc<Shared>,
    id: String,
    key: Key,
}

impl Drop for Forget {
    fn drop(&mut self) {
        let mut held = self.shared.held.lock();
        held.forget(&self.id, &self.key);
        self.shared.numbers.ended.set(held.ended.len() as i64);
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
