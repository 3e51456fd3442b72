//! Callers that ask without a pause, and what they saw.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use e2e::{Http, repository, wait_until};

/// Callers, each with one request at a time.
pub(crate) const CALLERS: usize = 8;

/// A request that got no result.
#[derive(Debug)]
pub(crate) struct Failure {
    /// 0: no answer at all.
    pub(crate) status: u16,
    /// `error.code`, or what the client says.
    pub(crate) code: String,
    /// `error.message`.
    pub(crate) message: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.status, self.code, self.message)
    }
}

/// What the callers saw.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    took: Vec<Duration>,
    /// Those without a result.
    pub(crate) failed: Vec<Failure>,
}

impl Seen {
    /// Requests in all.
    pub(crate) fn answered(&self) -> usize {
        self.took.len()
    }

    /// Requests a second, of all callers together, when they ask without a pause.
    pub(crate) fn rate(&self) -> f64 {
        CALLERS as f64 * self.took.len() as f64 / self.took.iter().map(Duration::as_secs_f64).sum::<f64>()
    }

    /// The time within which this share of the requests ended, failed or not.
    pub(crate) fn quantile(&self, share: f64) -> Duration {
        let mut sorted = self.took.clone();
        sorted.sort_unstable();
        sorted[((sorted.len() - 1) as f64 * share).round() as usize]
    }
}

/// The callers.
pub(crate) struct Load {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    seen: Mutex<Seen>,
    answered: AtomicUsize,
    /// The same for each caller.
    each: [AtomicUsize; CALLERS],
    stop: AtomicBool,
    /// Nanoseconds from one request of a caller to its next; 0: without a pause.
    every: AtomicU64,
}

impl Load {
    /// Starts them.
    pub(crate) fn start(address: &str) -> Self {
        let shared = Arc::new(Shared::default());
        let picture = std::fs::read(repository().join("models/testdata/shoe.png")).expect("in the tree");
        let caller = |index: usize| {
            let (shared, http, picture) = (Arc::clone(&shared), Http::new(address), picture.clone());
            std::thread::spawn(move || {
                let mut next = Instant::now();
                while !shared.stop.load(Ordering::Relaxed) {
                    shared.ask(&http, &picture);
                    shared.each[index].fetch_add(1, Ordering::Relaxed);
                    next += Duration::from_nanos(shared.every.load(Ordering::Relaxed));
                    match next.checked_duration_since(Instant::now()) {
                        Some(early) => std::thread::sleep(early),
                        // What was missed is not made up for: that would be another load.
                        None => next = Instant::now(),
                    }
                }
            })
        };
        let threads = (0..CALLERS).map(caller).collect();
        Self { shared, threads }
    }

    /// So many requests a second from now on, of all callers together; none: without a pause.
    pub(crate) fn pace(&self, rate: Option<f64>) {
        let every = rate.map_or(Duration::ZERO, |rate| Duration::from_secs_f64(CALLERS as f64 / rate));
        self.shared.every.store(every.as_nanos() as u64, Ordering::Relaxed);
    }

    /// Requests that have ended so far.
    pub(crate) fn ended(&self) -> usize {
        self.shared.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many further requests have ended.
    pub(crate) fn more(&self, count: usize) {
        let wanted = self.shared.answered.load(Ordering::Relaxed) + count;
        let answered = || (self.shared.answered.load(Ordering::Relaxed) >= wanted).then_some(());
        wait_until("further answers", Duration::from_secs(120), answered);
    }

    /// Waits until every caller's request that is in flight now has ended, and one more.
    pub(crate) fn each(&self) {
        for count in &self.shared.each {
            let wanted = count.load(Ordering::Relaxed) + 2;
            let ended = || (count.load(Ordering::Relaxed) >= wanted).then_some(());
            wait_until("the end of what is in flight", Duration::from_secs(120), ended);
        }
    }

    /// What was seen since the last time. Waits for what is in flight, so that it counts where it belongs.
    pub(crate) fn take(&self) -> Seen {
        self.each();
        std::mem::take(&mut *self.shared.seen.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Ends them.
    pub(crate) fn end(self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no caller panics");
        }
    }
}

impl Shared {
    fn ask(&self, http: &Http, picture: &[u8]) {
        let begin = Instant::now();
        let answer = http.try_post("/v1/classify?model=fashion-mnist", &[("content-type", "image/png")], picture);
        let took = begin.elapsed();
        let failure = match answer {
            Ok(answer) if answer.status == 200 => None,
            Ok(answer) => {
                let message = answer.json()["error"]["message"].to_string();
                Some(Failure { status: answer.status, code: answer.error_code(), message })
            }
            Err(error) => Some(Failure { status: 0, code: error.to_string(), message: String::new() }),
        };
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.took.push(took);
        seen.failed.extend(failure);
        drop(seen);
        self.answered.fetch_add(1, Ordering::Relaxed);
    }
}
