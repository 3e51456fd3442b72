//! The meeting place of callers and workers of one model: queue, runs in progress, and the way out for callers that leave.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use fault::Fault;
use parking_lot::{Condvar, Mutex, MutexGuard};
use runtime::Stop;
use scheduler::{Curve, Entry, Limits, Next, Queue, Refusal, Ticket};
use tokio::sync::oneshot;
use units::Deadline;

use crate::CallScope;
use crate::job::{Answer, Job, Work};
use crate::observe::{Event, Observe, Phase, Ran};

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
    /// When the first worker died.
    lost: Option<Instant>,
    closed: bool,
}

/// The queue of one model and what its workers are at.
pub(crate) struct Lane {
    inside: Mutex<Inside>,
    pushed: Condvar,
    workers: usize,
    observer: Arc<dyn Observe>,
    /// What its rows are, in messages.
    unit: &'static str,
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
    pub(crate) fn new(limits: Limits, curve: Curve, observer: Arc<dyn Observe>, unit: &'static str) -> Self {
        let inside = Inside {
            queue: Queue::new(limits, curve),
            running: HashMap::new(),
            running_rows: 0,
            free: 0,
            lost: None,
            closed: false,
        };
        Self { inside: Mutex::new(inside), pushed: Condvar::new(), workers: limits.workers, observer, unit }
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

    /// What is broken inside, and since when: a run that was told to stop and went on for longer than `limit`, or a worker that
    /// is no more.
    pub(crate) fn trouble(&self, limit: Duration) -> Option<(&'static str, Instant)> {
        let inside = self.inside.lock();
        let stopped = inside.running.values().filter_map(|running| *running.stopped.lock()).min();
        if let Some(since) = stopped.filter(|since| since.elapsed() >= limit) {
            return Some(("hangs in a run that was told to stop", since + limit));
        }
        inside.lost.map(|since| ("lost a worker", since))
    }

    /// A worker ended though it should not have.
    pub(crate) fn lose_worker(&self) {
        self.inside.lock().lost.get_or_insert_with(Instant::now);
    }

    /// Takes no more work; workers end when what waits is done.
    pub(crate) fn close(&self) {
        self.inside.lock().closed = true;
        self.pushed.notify_all();
    }

    /// How many of a call's `rows` are to run together.
    pub(crate) fn together(&self, rows: usize) -> usize {
        self.inside.lock().queue.together(rows)
    }

    /// How many rows of one caller are to be here at the same time: a run for each worker, and what follows it.
    pub(crate) fn window(&self) -> usize {
        self.inside.lock().queue.window()
    }

    /// Refuses `rows` at once that would not be done in time, when they come bit by bit after `behind` others of their caller.
    pub(crate) fn expect(&self, rows: usize, behind: usize, deadline: Deadline) -> Result<(), Fault> {
        let expected = self.inside.lock().queue.expect(rows, behind, deadline.instant(), Instant::now());
        expected.map_err(|refusal| self.refused(refusal))
    }

    /// Room for rows that are still to be made, so that what would be refused is refused before work goes into it.
    pub(crate) fn promise(self: &Arc<Self>, rows: usize, deadline: Deadline) -> Result<Promise, Fault> {
        let reserved = self.inside.lock().queue.reserve(rows, deadline.instant(), Instant::now());
        reserved.map_err(|refusal| self.refused(refusal))?;
        Ok(Promise { lane: Arc::clone(self), rows })
    }

    /// Queues work and waits for its answer until the deadline. Dropping the future withdraws the work.
    pub(crate) async fn submit(
        self: &Arc<Self>,
        work: Work,
        rows: usize,
        joins: bool,
        call: CallScope,
        promise: Option<Promise>,
    ) -> Result<Answer, Fault> {
        let (reply, answer) = oneshot::channel();
        let deadline = call.deadline;
        let pushed = {
            let mut inside = self.inside.lock();
            let promised = promise.map(|mut promise| std::mem::take(&mut promise.rows));
            if inside.closed {
                inside.queue.release(promised.unwrap_or_default());
                return Err(Fault::unavailable("the model is draining").with_retry_after(Duration::from_secs(1)));
            }
            let (job, now) = (Job { work, reply, trace: call.trace }, Instant::now());
            match promised {
                Some(_) => inside.queue.redeem(job, rows, joins, deadline.instant(), now),
                None => inside.queue.push(job, rows, joins, deadline.instant(), now),
            }
        };
        let ticket = pushed.map_err(|(_, refusal)| self.refused(refusal))?;
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
                Fault::overloaded(format!("{waiting} {} wait already, the limit is {limit}", self.unit))
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
                .with_retry_after(wait.max(Duration::from_millis(1)))
            }
        }
    }

    /// A caller went before its answer.
    fn leave(&self, ticket: Ticket) {
        let mut inside = self.inside.lock();
        if let Some(job) = inside.queue.remove(ticket) {
            // Rows of megabytes are freed where nobody waits for the lock.
            drop(inside);
            drop(job);
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
                // Freed before the wait, and where nobody waits for the lock: that ends their callers' wait and frees rows of
                // megabytes. With a batch they are dropped after the lock, on return.
                _ if !expired.is_empty() => MutexGuard::unlocked(&mut inside, || expired.clear()),
                Next::WaitUntil(until) => {
                    self.pushed.wait_until(&mut inside, until);
                }
                Next::Empty if inside.closed => return None,
                Next::Empty => self.pushed.wait(&mut inside),
            }
        }
    }

    /// The run of a batch has ended, however; callers gave it `items`. `learn` when its time says what such a run costs.
    pub(crate) fn done(&self, tickets: &[Ticket], rows: usize, items: usize, took: Duration, learn: bool) {
        let mut inside = self.inside.lock();
        for ticket in tickets {
            inside.running.remove(ticket);
        }
        inside.running_rows -= rows;
        if learn {
            inside.queue.observe(rows, took);
        }
        drop(inside);
        self.observer.rows(items);
        self.observer.phase(Phase::Run, took);
    }

    /// The same run for the traces of its calls.
    pub(crate) fn traced(&self, ran: Ran<'_>) {
        self.observer.ran(ran);
    }

    pub(crate) fn waited(&self, queue: Duration) {
        self.observer.phase(Phase::Queue, queue);
    }
}

/// Room in the queue for rows on their way, given back when dropped.
pub(crate) struct Promise {
    lane: Arc<Lane>,
    rows: usize,
}

impl Promise {
    /// Takes a part of it off.
    pub(crate) fn split(&mut self, rows: usize) -> Self {
        let rows = rows.min(self.rows);
        self.rows -= rows;
        Self { lane: Arc::clone(&self.lane), rows }
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        // None are left when the rows came: the queue is locked then.
        if self.rows > 0 {
            self.lane.inside.lock().queue.release(self.rows);
        }
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

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;
    use crate::job::Outcome;
    use crate::observe::Silent;

    fn lane(curve: Curve) -> Arc<Lane> {
        let limits = Limits { queue_rows: 4, max_rows: 4, max_wait: Duration::ZERO, workers: 1 };
        Arc::new(Lane::new(limits, curve, Arc::new(Silent), "rows"))
    }

    fn work() -> Work {
        Work::Tensors { inputs: Vec::new(), outputs: Vec::new() }
    }

    fn within(time: Duration) -> CallScope {
        let now = tokio::time::Instant::now().into_std();
        CallScope { received: now, deadline: Deadline::after(now, time), trace: None }
    }

    fn soon() -> CallScope {
        within(Duration::from_secs(60))
    }

    fn answer(lane: &Lane, batch: Batch) {
        let tickets: Vec<Ticket> = batch.entries.iter().map(|entry| entry.ticket).collect();
        lane.done(&tickets, batch.rows, batch.rows, Duration::ZERO, false);
        for entry in batch.entries {
            let outcome = Ok(Outcome::Tensors(Vec::new()));
            let batch_rows = batch.rows;
            let _ = entry.payload.reply.send(Answer {
                outcome,
                queue: Duration::ZERO,
                run: Duration::ZERO,
                batch_rows,
                began: Instant::now(),
                batch: None,
                lonely: true,
            });
        }
    }

    #[tokio::test]
    async fn a_run_is_stopped_when_the_last_of_its_callers_leaves_and_not_before() {
        let lane = lane(Curve::default());
        let mut first = Box::pin(lane.submit(work(), 1, true, soon(), None));
        let mut second = Box::pin(lane.submit(work(), 1, true, soon(), None));
        assert!((&mut first).now_or_never().is_none() && (&mut second).now_or_never().is_none());
        let batch = lane.take().expect("a batch");
        assert_eq!(batch.entries.len(), 2);
        drop(first);
        assert!(!batch.running.stop.is_stopped(), "one still waits for it");
        assert_eq!(lane.trouble(Duration::ZERO), None);
        drop(second);
        assert!(batch.running.stop.is_stopped());
        assert_eq!(lane.trouble(Duration::from_secs(3600)), None, "it has time to stop");
        assert_eq!(lane.trouble(Duration::ZERO).map(|(what, _)| what), Some("hangs in a run that was told to stop"));
        answer(&lane, batch);
        assert_eq!(lane.trouble(Duration::ZERO), None, "it ended after all");
        assert_eq!(lane.load().1, 0);
    }

    #[tokio::test]
    async fn a_caller_that_leaves_the_queue_takes_its_work_along() {
        let lane = lane(Curve::default());
        let mut call = Box::pin(lane.submit(work(), 1, false, soon(), None));
        assert!((&mut call).now_or_never().is_none());
        assert_eq!(lane.load().0, 1);
        drop(call);
        assert_eq!(lane.load().0, 0);
        lane.close();
        assert!(lane.take().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn each_caller_of_a_run_learns_of_its_deadline_at_its_own_moment() {
        let lane = lane(Curve::default());
        let short = within(Duration::from_millis(50));
        let mut early = Box::pin(lane.submit(work(), 1, true, short, None));
        let mut late = Box::pin(lane.submit(work(), 1, true, soon(), None));
        assert!((&mut early).now_or_never().is_none() && (&mut late).now_or_never().is_none());
        let batch = lane.take().expect("a batch");
        let fault = early.await.err().expect("the run goes on");
        assert_eq!(fault.kind, fault::Kind::DeadlineExceeded);
        assert!(!batch.running.stop.is_stopped(), "the other one still waits");
        answer(&lane, batch);
        assert_eq!(late.await.expect("its answer").batch_rows, 2);
    }

    #[tokio::test]
    async fn a_promise_holds_its_room_until_it_is_kept_or_dropped() {
        let lane = lane(Curve::default());
        let promise = lane.promise(3, soon().deadline).expect("room");
        let full = lane.submit(work(), 2, true, soon(), None).await.err().expect("three rows are promised");
        assert_eq!(full.kind, fault::Kind::Overloaded);
        assert!(full.retry_after.is_some());
        let mut kept = Box::pin(lane.submit(work(), 3, true, soon(), Some(promise)));
        assert!((&mut kept).now_or_never().is_none());
        drop(kept);
        drop(lane.promise(4, soon().deadline).expect("all is free"));
        assert!(lane.promise(4, soon().deadline).is_ok(), "a promise that was dropped holds nothing");
    }

    #[tokio::test]
    async fn a_promise_of_more_than_the_queue_holds_is_kept_in_parts() {
        let lane = lane(Curve::default());
        let mut whole = lane.promise(10, soon().deadline).expect("nothing else is there");
        let mut calls: Vec<_> =
            [4, 4, 2].map(|rows| Box::pin(lane.submit(work(), rows, true, soon(), Some(whole.split(rows))))).into();
        for call in &mut calls {
            assert!(call.now_or_never().is_none(), "it waits");
        }
        assert!(lane.promise(1, soon().deadline).is_err(), "ten rows wait");
        drop((calls, whole));
        assert!(lane.promise(4, soon().deadline).is_ok(), "nothing is held any more");
    }

    #[tokio::test]
    async fn a_closed_lane_takes_nothing_and_finishes_what_it_has() {
        let lane = lane(Curve::default());
        let mut call = Box::pin(lane.submit(work(), 1, true, soon(), None));
        assert!((&mut call).now_or_never().is_none());
        lane.close();
        let refused = lane.submit(work(), 1, true, soon(), None).await.err().expect("closed");
        assert_eq!(refused.kind, fault::Kind::Unavailable);
        answer(&lane, lane.take().expect("what it has"));
        assert!(call.await.is_ok());
        assert!(lane.take().is_none());
    }

    #[test]
    fn a_worker_that_died_is_trouble() {
        let lane = lane(Curve::default());
        lane.lose_worker();
        assert_eq!(lane.trouble(Duration::from_secs(3600)).map(|(what, _)| what), Some("lost a worker"));
    }
}
