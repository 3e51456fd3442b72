//! The meeting place of callers and workers of one model: queue, runs in progress, and the way out for callers that leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fault::Fault;
use parking_lot::{Condvar, Mutex};
use runtime::Stop;
use scheduler::{Curve, Entry, Limits, Next, Queue, Refusal, Ticket};
use tokio::sync::oneshot;
use units::Deadline;

use crate::job::{Answer, Job, Work};
use crate::observe::{Event, Observe, Phase};

/// A run in progress.
pub(crate) struct Running {
    pub(crate) stop: Stop,
    /// Callers that still want the answer.
    wanted: AtomicUsize,
    /// When it was told to stop.
    stopped: Mutex<Option<Instant>>,
}

struct Inside {
    queue: Queue<Job>,
    running: HashMap<Ticket, Arc<Running>>,
    running_rows: usize,
    /// Workers that wait for something to do.
    free: usize,
    closed: bool,
}

/// The queue of one model and what its workers are at.
pub(crate) struct Lane {
    inside: Mutex<Inside>,
    pushed: Condvar,
    workers: usize,
    observer: Arc<dyn Observe>,
}

/// A batch that a worker has taken. Must be given back to [`Lane::done`].
pub(crate) struct Batch {
    pub(crate) entries: Vec<Entry<Job>>,
    pub(crate) running: Arc<Running>,
    pub(crate) rows: usize,
    /// Nothing else waited when it was taken.
    pub(crate) alone: bool,
}

impl Lane {
    pub(crate) fn new(limits: Limits, curve: Curve, observer: Arc<dyn Observe>) -> Self {
        let inside = Inside {
            queue: Queue::new(limits, curve),
            running: HashMap::new(),
            running_rows: 0,
            free: 0,
            closed: false,
        };
        Self { inside: Mutex::new(inside), pushed: Condvar::new(), workers: limits.workers, observer }
    }

    /// Requests that wait, rows in runs, and the two by what the workers can do at once.
    pub(crate) fn load(&self) -> (usize, usize, f64) {
        let inside = self.inside.lock();
        let busy = self.workers - inside.free.min(self.workers);
        (inside.queue.len(), inside.running_rows, (inside.queue.len() + busy) as f64 / self.workers.max(1) as f64)
    }

    pub(crate) fn curve(&self) -> Vec<(usize, Duration)> {
        self.inside.lock().queue.curve().points().collect()
    }

    /// Whether a run was told to stop and went on for longer than `limit`.
    pub(crate) fn is_wedged(&self, limit: Duration) -> bool {
        let inside = self.inside.lock();
        inside.running.values().any(|running| running.stopped.lock().is_some_and(|since| since.elapsed() > limit))
    }

    /// Takes no more work; workers end when what waits is done.
    pub(crate) fn close(&self) {
        self.inside.lock().closed = true;
        self.pushed.notify_all();
    }

    /// Queues work and waits for its answer until the deadline. Dropping the future withdraws the work.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        work: Work,
        rows: usize,
        joins: bool,
        deadline: Deadline,
    ) -> Result<Answer, Fault> {
        let (reply, answer) = oneshot::channel();
        let ticket = {
            let mut inside = self.inside.lock();
            if inside.closed {
                return Err(Fault::unavailable("the model is draining").with_retry_after(Duration::from_secs(1)));
            }
            let pushed = inside.queue.push(Job { work, reply }, rows, joins, deadline.instant(), Instant::now());
            pushed.map_err(|(_, refusal)| self.refused(refusal))?
        };
        self.pushed.notify_one();
        let mut place = Place { lane: self, ticket, event: Some(Event::Cancelled) };
        match tokio::time::timeout_at(deadline.instant().into(), answer).await {
            Ok(Ok(answer)) => {
                place.event = None;
                Ok(answer)
            }
            Ok(Err(_)) if deadline.is_over(Instant::now()) => {
                place.event = Some(Event::Expired);
                Err(Fault::deadline_exceeded("the deadline passed while the request waited"))
            }
            Ok(Err(_)) => {
                place.event = None;
                Err(Fault::internal("the worker was lost"))
            }
            Err(_) => {
                place.event = Some(Event::Expired);
                Err(Fault::deadline_exceeded("the deadline passed before the model had answered"))
            }
        }
    }

    fn refused(&self, refusal: Refusal) -> Fault {
        match refusal {
            Refusal::Full { waiting, limit, retry_after } => {
                self.observer.event(Event::Full);
                Fault::overloaded(format!("{waiting} rows wait already, the limit is {limit}"))
                    .with_retry_after(retry_after)
            }
            Refusal::TooLate { wait, run, left } => {
                self.observer.event(Event::TooLate);
                let millis = |time: Duration| time.as_secs_f64() * 1e3;
                Fault::deadline_exceeded(format!(
                    "{:.0} ms are left, the request would wait {:.0} ms and run {:.1} ms",
                    millis(left),
                    millis(wait),
                    millis(run)
                ))
            }
        }
    }

    /// A caller went before its answer.
    fn leave(&self, ticket: Ticket) {
        let mut inside = self.inside.lock();
        if inside.queue.remove(ticket).is_some() {
            return;
        }
        if let Some(running) = inside.running.get(&ticket)
            && running.wanted.fetch_sub(1, Ordering::AcqRel) == 1
        {
            *running.stopped.lock() = Some(Instant::now());
            running.stop.stop();
            self.observer.event(Event::Stopped);
        }
    }

    /// The next batch for a worker; waits for one. `None` when the lane is closed and empty.
    pub(crate) fn take(&self) -> Option<Batch> {
        let mut expired = Vec::new();
        let mut inside = self.inside.lock();
        inside.free += 1;
        loop {
            let free = inside.free;
            let next = inside.queue.next(Instant::now(), free, &mut expired);
            // Their callers' own timers tell them; dropping the sender would only tell them twice.
            expired.clear();
            match next {
                Next::Batch(entries) => {
                    inside.free -= 1;
                    let rows = entries.iter().map(|entry| entry.rows).sum();
                    let running = Arc::new(Running {
                        stop: Stop::new(),
                        wanted: AtomicUsize::new(entries.len()),
                        stopped: Mutex::new(None),
                    });
                    for entry in &entries {
                        inside.running.insert(entry.ticket, Arc::clone(&running));
                    }
                    inside.running_rows += rows;
                    let alone = inside.queue.is_empty();
                    // Another worker may be asleep while there is still something to do.
                    if !alone && inside.free > 0 {
                        self.pushed.notify_one();
                    }
                    return Some(Batch { entries, running, rows, alone });
                }
                Next::WaitUntil(until) => {
                    self.pushed.wait_until(&mut inside, until);
                }
                Next::Empty if inside.closed => return None,
                Next::Empty => self.pushed.wait(&mut inside),
            }
        }
    }

    /// The run of a batch has ended, however.
    pub(crate) fn done(&self, tickets: &[Ticket], rows: usize, took: Option<Duration>) {
        let mut inside = self.inside.lock();
        for ticket in tickets {
            inside.running.remove(ticket);
        }
        inside.running_rows -= rows;
        if let Some(took) = took {
            inside.queue.observe(rows, took);
        }
        drop(inside);
        self.observer.rows(rows);
        if let Some(took) = took {
            self.observer.phase(Phase::Run, took);
        }
    }

    pub(crate) fn waited(&self, queue: Duration) {
        self.observer.phase(Phase::Queue, queue);
    }
}

/// A caller's place in the queue or in a run, given up when dropped.
struct Place<'a> {
    lane: &'a Lane,
    ticket: Ticket,
    /// What it means when this is dropped; `None` when the answer was taken.
    event: Option<Event>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        if let Some(event) = self.event {
            self.lane.observer.event(event);
            self.lane.leave(self.ticket);
        }
    }
}
