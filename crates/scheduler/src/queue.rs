//! What waits for the workers of one model.
//!
//! First come, first served. Priority classes and shares of callers belong between [`Queue::push`] and [`Queue::next`]:
//! the order of `waiting` is the only place that says who is next.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::curve::Curve;

/// Names what was pushed, for as long as it waits. Later pushes have greater tickets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Work that waits.
#[derive(Debug)]
pub struct Entry<T> {
    /// Its name.
    pub ticket: Ticket,
    /// What the workers need.
    pub payload: T,
    /// Rows of the batch that it takes; an entry is never split.
    pub rows: usize,
    /// May share a run with others of its kind.
    pub joins: bool,
    /// After this nobody wants the answer.
    pub deadline: Instant,
    /// When it was pushed.
    pub since: Instant,
}

/// Why work is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// As much waits as may.
    Full {
        /// Rows that wait.
        waiting: usize,
        /// Rows that may.
        limit: usize,
        /// When there should be room.
        retry_after: Duration,
    },
    /// It would not be done in time.
    TooLate {
        /// How long it would have to wait before its run begins.
        wait: Duration,
        /// How long its run takes.
        run: Duration,
        /// What is left.
        left: Duration,
    },
}

/// Bounds of one model's queue.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Rows that may wait, those on their way included.
    pub queue_rows: usize,
    /// Rows in one run.
    pub max_rows: usize,
    /// How long an idle worker waits for company.
    pub max_wait: Duration,
    /// Workers that take from the queue.
    pub workers: usize,
}

/// What a worker is to do.
#[derive(Debug)]
pub enum Next<T> {
    /// Run these together. At least one.
    Batch(Vec<Entry<T>>),
    /// Look again at this time, or when something is pushed.
    WaitUntil(Instant),
    /// Nothing waits.
    Empty,
}

/// What waits for the workers of one model.
#[derive(Debug)]
pub struct Queue<T> {
    waiting: VecDeque<Entry<T>>,
    rows: usize,
    /// Rows that have been promised room and are still being made.
    reserved: usize,
    next_ticket: u64,
    limits: Limits,
    curve: Curve,
}

impl<T> Queue<T> {
    /// An empty queue.
    #[must_use]
    pub fn new(limits: Limits, curve: Curve) -> Self {
        Self { waiting: VecDeque::new(), rows: 0, reserved: 0, next_ticket: 0, limits, curve }
    }

    /// Entries that wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Whether nothing waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Rows that wait.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The measured cost of runs.
    #[must_use]
    pub fn curve(&self) -> &Curve {
        &self.curve
    }

    /// Tells what a run took.
    pub fn observe(&mut self, rows: usize, took: Duration) {
        self.curve.observe(rows, took);
    }

    /// How many rows of one caller to run together when at most `rows` can be: what a call of many is to be cut into.
    #[must_use]
    pub fn together(&self, rows: usize) -> usize {
        let share = rows.div_ceil(self.limits.workers.max(1));
        self.curve.best(share.min(self.limits.max_rows))
    }

    /// How many rows of one caller are worth having here at the same time: a run for each worker and one to follow, and no more
    /// than leaves room for others.
    #[must_use]
    pub fn window(&self) -> usize {
        let runs = 2 * self.limits.workers.max(1) * self.together(usize::MAX);
        runs.min(self.limits.queue_rows / 2).max(1)
    }

    /// How long `rows` will keep the workers busy.
    fn backlog(&self, rows: usize) -> Duration {
        if rows == 0 {
            return Duration::ZERO;
        }
        let together = self.curve.best(rows.min(self.limits.max_rows));
        let runs = rows.div_ceil(together).div_ceil(self.limits.workers.max(1));
        self.curve.estimate(together) * u32::try_from(runs).unwrap_or(u32::MAX)
    }

    fn has_room(&self, rows: usize) -> Result<(), Refusal> {
        let waiting = self.rows + self.reserved;
        // One that is larger than the whole queue is taken when nothing else is there.
        if waiting == 0 || waiting + rows <= self.limits.queue_rows {
            return Ok(());
        }
        let retry_after = self.backlog(waiting).max(Duration::from_millis(1));
        Err(Refusal::Full { waiting, limit: self.limits.queue_rows, retry_after })
    }

    fn is_in_time(&self, run: Duration, ahead: usize, deadline: Instant, now: Instant) -> Result<(), Refusal> {
        let wait = self.backlog(ahead);
        let left = deadline.saturating_duration_since(now);
        // With nothing ahead it may try: the estimate only moves when something runs, so one that was too high once would
        // refuse for ever.
        if left.is_zero() || (ahead > 0 && wait + run > left) {
            Err(Refusal::TooLate { wait, run, left })
        } else {
            Ok(())
        }
    }

    /// Promises room for rows that are still to be made, or refuses them before any work goes into them; they may then come in
    /// several pushes. What is promised must be given back, with [`Queue::redeem`] or, when nothing comes of it, with
    /// [`Queue::release`].
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn reserve(&mut self, rows: usize, deadline: Instant, now: Instant) -> Result<(), Refusal> {
        self.has_room(rows)?;
        self.is_in_time(self.backlog(rows), self.rows + self.reserved, deadline, now)?;
        self.reserved += rows;
        Ok(())
    }

    /// Whether rows that will come bit by bit, after `behind` others of the same caller that wait elsewhere, would be in time.
    ///
    /// # Errors
    /// The [`Refusal`]; full when that caller has more behind than may wait.
    pub fn expect(&self, rows: usize, behind: usize, deadline: Instant, now: Instant) -> Result<(), Refusal> {
        if behind > 0 && behind + rows > self.limits.queue_rows {
            let retry_after = self.backlog(behind).max(Duration::from_millis(1));
            return Err(Refusal::Full { waiting: behind, limit: self.limits.queue_rows, retry_after });
        }
        self.is_in_time(self.backlog(rows), self.rows + self.reserved + behind, deadline, now)
    }

    /// Gives back what [`Queue::reserve`] promised.
    pub fn release(&mut self, rows: usize) {
        self.reserved = self.reserved.saturating_sub(rows);
    }

    /// Takes work, or refuses it at once.
    ///
    /// # Errors
    /// The payload comes back with the [`Refusal`].
    pub fn push(
        &mut self,
        payload: T,
        rows: usize,
        joins: bool,
        deadline: Instant,
        now: Instant,
    ) -> Result<Ticket, (T, Refusal)> {
        match self.has_room(rows) {
            Ok(()) => {
                self.reserved += rows;
                self.redeem(payload, rows, joins, deadline, now)
            }
            Err(refusal) => Err((payload, refusal)),
        }
    }

    /// As [`Queue::push`], with room that [`Queue::reserve`] promised.
    ///
    /// # Errors
    /// The payload comes back when it would be late by now; the promise is gone all the same.
    pub fn redeem(
        &mut self,
        payload: T,
        rows: usize,
        joins: bool,
        deadline: Instant,
        now: Instant,
    ) -> Result<Ticket, (T, Refusal)> {
        self.release(rows);
        if let Err(refusal) = self.is_in_time(self.curve.estimate(rows), self.rows, deadline, now) {
            return Err((payload, refusal));
        }
        let ticket = Ticket(self.next_ticket);
        self.next_ticket += 1;
        self.rows += rows;
        self.waiting.push_back(Entry { ticket, payload, rows, joins, deadline, since: now });
        Ok(ticket)
    }

    /// Withdraws work that still waits.
    pub fn remove(&mut self, ticket: Ticket) -> Option<T> {
        let at = self.waiting.binary_search_by_key(&ticket, |entry| entry.ticket).ok()?;
        self.take_at(at).map(|entry| entry.payload)
    }

    fn take_at(&mut self, at: usize) -> Option<Entry<T>> {
        let entry = self.waiting.remove(at)?;
        self.rows -= entry.rows;
        Some(entry)
    }

    /// What a free worker is to do, `free` workers being free, itself included. Work whose deadline has passed goes to
    /// `expired` instead.
    pub fn next(&mut self, now: Instant, free: usize, expired: &mut Vec<Entry<T>>) -> Next<T> {
        while self.waiting.front().is_some_and(|entry| entry.deadline <= now) {
            expired.extend(self.take_at(0));
        }
        let Some(first) = self.waiting.front() else { return Next::Empty };
        if !first.joins {
            return self.take_at(0).map_or(Next::Empty, |entry| Next::Batch(vec![entry]));
        }
        // What waits is shared among those who are free: a batch for one must not leave the others idle.
        let share = self.rows.div_ceil(free.max(1)).min(self.limits.max_rows);
        let wanted = self.curve.best(share);
        if !self.limits.max_wait.is_zero() {
            let full = self.curve.best(self.limits.max_rows);
            let until = (first.since + self.limits.max_wait).min(first.deadline);
            if self.rows < full && now < until {
                return Next::WaitUntil(until);
            }
        }
        let (mut batch, mut rows) = (Vec::new(), 0);
        while let Some(entry) = self.waiting.front() {
            let late = entry.deadline <= now;
            if !late && !batch.is_empty() && (!entry.joins || rows + entry.rows > wanted) {
                break;
            }
            let Some(entry) = self.take_at(0) else { break };
            if late {
                expired.push(entry);
            } else {
                rows += entry.rows;
                batch.push(entry);
            }
        }
        Next::Batch(batch)
    }

    /// Takes everything that waits, as when the model is gone.
    pub fn drain(&mut self) -> Vec<Entry<T>> {
        self.rows = 0;
        self.waiting.drain(..).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const LIMITS: Limits = Limits { queue_rows: 64, max_rows: 8, max_wait: Duration::ZERO, workers: 2 };

    fn millis(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    fn batch(next: Next<u32>) -> Vec<u32> {
        match next {
            Next::Batch(entries) => entries.into_iter().map(|entry| entry.payload).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_comes_bit_by_bit_is_measured_by_what_its_caller_has_waiting() {
        let now = Instant::now();
        let mut queue: Queue<u32> = Queue::new(LIMITS, Curve::new(vec![(1, millis(10)), (8, millis(10))]));
        let late = now + Duration::from_secs(60);
        assert_eq!(queue.expect(1_000, 0, late, now), Ok(()), "its caller has nothing else");
        assert!(matches!(queue.expect(60, 5, late, now), Err(Refusal::Full { waiting: 5, limit: 64, .. })));
        assert_eq!(queue.expect(60, 4, late, now), Ok(()));
        // 16 rows are one run of 8 for each of the two workers.
        assert!(matches!(queue.expect(16, 16, now + millis(15), now), Err(Refusal::TooLate { .. })));
        assert_eq!(queue.expect(16, 16, now + millis(25), now), Ok(()));
        assert!(queue.push(1, 8, true, late, now).is_ok() && queue.rows() == 8, "nothing was held");
    }

    #[test]
    fn what_waits_is_shared_among_the_free_workers() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS, Curve::new([(1, millis(1)), (8, millis(1))]));
        for payload in 0..4 {
            queue.push(payload, 1, true, now + millis(1000), now).expect("room");
        }
        assert_eq!(batch(queue.next(now, 2, &mut Vec::new())), [0, 1]);
        assert_eq!(batch(queue.next(now, 1, &mut Vec::new())), [2, 3]);
        assert!(matches!(queue.next(now, 2, &mut Vec::new()), Next::Empty));
    }

    #[test]
    fn work_that_joins_nobody_runs_alone_and_in_its_turn() {
        let now = Instant::now();
        let mut queue = Queue::new(LIMITS, Curve::default());
        for (payload, joins) in [(0, true), (1, true), (2, false), (3, true)] {
            queue.push(payload, 1, joins, now + millis(1000), now).expect("room");
        }
        assert_eq!(batch(queue.next(now, 1, &mut Vec::new())), [0, 1]);
        assert_eq!(batch(queue.next(now, 1, &mut Vec::new())), [2]);
        assert_eq!(batch(queue.next(now, 1, &mut Vec::new())), [3]);
    }

    #[test]
    fn an_idle_worker_waits_for_company_only_when_told_to_and_only_so_long() {
        let now = Instant::now();
        let curve = Curve::new([(1, millis(10)), (8, millis(11))]);
        let mut queue = Queue::new(Limits { max_wait: millis(5), ..LIMITS }, curve);
        queue.push(0, 1, true, now + millis(1000), now).expect("room");
        let Next::WaitUntil(until) = queue.next(now, 2, &mut Vec::new()) else { panic!("it runs at once") };
        assert_eq!(until, now + millis(5));
        assert_eq!(batch(queue.next(until, 2, &mut Vec::new())), [0]);
        for payload in 0..8 {
            queue.push(payload, 1, true, now + millis(1000), now).expect("room");
        }
        assert_eq!(batch(queue.next(now, 1, &mut Vec::new())).len(), 8);
    }

    #[test]
    fn what_cannot_be_done_in_time_is_refused_at_once() {
        let now = Instant::now();
        let mut queue = Queue::new(Limits { workers: 1, ..LIMITS }, Curve::new([(1, millis(100)), (8, millis(800))]));
        for payload in 0..5 {
            queue.push(payload, 1, true, now + millis(5000), now).expect("in time");
        }
        let (payload, refusal) = queue.push(9, 1, true, now + millis(400), now).expect_err("500 ms wait before it");
        assert_eq!(payload, 9);
        assert_eq!(refusal, Refusal::TooLate { wait: millis(500), run: millis(100), left: millis(400) });
        let (_, over) = Queue::new(LIMITS, Curve::default()).push(0, 1, true, now, now).expect_err("over");
        assert!(matches!(over, Refusal::TooLate { .. }));
    }

    #[test]
    fn what_nothing_is_ahead_of_may_try_whatever_runs_took_before() {
        let now = Instant::now();
        let mut queue = Queue::new(Limits { workers: 1, ..LIMITS }, Curve::new([(1, millis(100))]));
        queue.reserve(1, now + millis(50), now).expect("nothing is ahead");
        queue.redeem(0, 1, true, now + millis(50), now).expect("nothing is ahead");
        assert!(queue.push(1, 1, true, now + millis(150), now).is_err(), "one is ahead");
        assert_eq!(queue.rows(), 1);
    }

    #[test]
    fn a_full_queue_says_how_full_and_until_when() {
        let now = Instant::now();
        let mut queue = Queue::new(Limits { queue_rows: 2, ..LIMITS }, Curve::new([(1, millis(10))]));
        for payload in 0..2 {
            queue.push(payload, 1, true, now + millis(5000), now).expect("room");
        }
        let (_, refusal) = queue.push(2, 1, true, now + millis(5000), now).expect_err("full");
        let Refusal::Full { waiting, limit, retry_after } = refusal else { panic!("{refusal:?}") };
        assert_eq!((waiting, limit), (2, 2));
        assert!(retry_after >= millis(1));
    }

    #[test]
    fn rows_on_their_way_have_their_room_and_count_for_those_behind() {
        let now = Instant::now();
        let limits = Limits { queue_rows: 4, workers: 1, ..LIMITS };
        let mut queue = Queue::<u32>::new(limits, Curve::new([(1, millis(100))]));
        queue.reserve(3, now + millis(5000), now).expect("room");
        let late = queue.reserve(1, now + millis(350), now).expect_err("three rows are ahead");
        assert_eq!(late, Refusal::TooLate { wait: millis(300), run: millis(100), left: millis(350) });
        let full = queue.push(9, 2, true, now + millis(5000), now).expect_err("the room is promised").1;
        assert!(matches!(full, Refusal::Full { waiting: 3, limit: 4, .. }), "{full:?}");
        queue.release(3);
        queue.push(1, 3, true, now + millis(5000), now).expect("its own room");
        queue.push(2, 1, true, now + millis(5000), now).expect("the last place");
        assert!(matches!(queue.reserve(1, now + millis(5000), now), Err(Refusal::Full { .. })));
    }

    #[test]
    fn a_call_of_many_is_cut_so_that_all_workers_have_a_part() {
        let alone_is_best = Queue::<u32>::new(LIMITS, Curve::new([(1, millis(10)), (8, millis(100))]));
        assert_eq!(alone_is_best.together(16), 1);
        let flat = Queue::<u32>::new(LIMITS, Curve::new([(1, millis(10)), (8, millis(11))]));
        assert_eq!((flat.together(16), flat.together(6), flat.together(1)), (8, 3, 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(usize),
        Push { rows: usize, joins: bool, left: u64 },
        Remove(usize),
        Next { free: usize },
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (1..=4_usize, any::<bool>(), 0..200_u64).prop_map(|(rows, joins, left)| Step::Push { rows, joins, left }),
            1 => (0..64_usize).prop_map(Step::Remove),
            2 => (1..=3_usize).prop_map(|free| Step::Next { free }),
            1 => (1..=4_usize).prop_map(Step::Reserve),
            1 => (0..80_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn nothing_is_lost_doubled_late_out_of_order_or_too_much(steps in proptest::collection::vec(step(), 1..200)) {
            let mut now = Instant::now();
            let mut queue = Queue::new(LIMITS, Curve::new([(1, millis(1)), (8, millis(4))]));
            let (mut open, mut pushed) = (Vec::<(Ticket, u32, usize)>::new(), 0_u32);
            let (mut last_run, mut reserved) = (None, 0);
            for step in steps {
                match step {
                    Step::Push { rows, joins, left } => {
                        if let Ok(ticket) = queue.push(pushed, rows, joins, now + millis(left), now) {
                            open.push((ticket, pushed, rows));
                        }
                        pushed += 1;
                    }
                    Step::Remove(at) if !open.is_empty() => {
                        let (ticket, payload, _) = open.remove(at % open.len());
                        prop_assert_eq!(queue.remove(ticket), Some(payload));
                        prop_assert_eq!(queue.remove(ticket), None);
                    }
                    Step::Remove(_) => {}
                    Step::Next { free } => {
                        let mut expired = Vec::new();
                        let next = queue.next(now, free, &mut expired);
                        for entry in expired {
                            prop_assert!(entry.deadline <= now);
                            let at = open.iter().position(|one| one.0 == entry.ticket);
                            prop_assert!(at.is_some(), "given out twice");
                            open.remove(at.unwrap_or(0));
                        }
                        if let Next::Batch(entries) = next {
                            prop_assert!(!entries.is_empty());
                            prop_assert!(entries.iter().map(|entry| entry.rows).sum::<usize>() <= LIMITS.max_rows);
                            prop_assert!(entries.len() == 1 || entries.iter().all(|entry| entry.joins));
                            for entry in entries {
                                prop_assert!(entry.deadline > now);
                                prop_assert!(last_run < Some(entry.ticket), "out of order");
                                last_run = Some(entry.ticket);
                                let at = open.iter().position(|one| one.0 == entry.ticket);
                                prop_assert!(at.is_some(), "given out twice");
                                open.remove(at.unwrap_or(0));
                            }
                        }
                    }
                    Step::Reserve(rows) => {
                        if reserved > 0 {
                            queue.release(reserved);
                            reserved = 0;
                        } else if queue.reserve(rows, now + millis(1000), now).is_ok() {
                            reserved = rows;
                        }
                    }
                    Step::Pass(time) => now += millis(time),
                }
                prop_assert_eq!(queue.rows(), open.iter().map(|one| one.2).sum::<usize>());
                prop_assert_eq!(queue.len(), open.len());
                prop_assert!(queue.rows() + reserved <= LIMITS.queue_rows);
            }
        }
    }
}
