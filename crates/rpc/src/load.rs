//! How busy and how well an endpoint is, as seen from here.
//!
//! Why peak-sensitive: one slow answer counts at once, many quick ones are needed to forget it (peak EWMA, as Finagle
//! and tower have it). Cost is latency x calls in flight. Failures count as slow, else a server that refuses quickly
//! would draw all calls.

use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

/// What is assumed before the first answer.
const FIRST_GUESS: Duration = Duration::from_millis(1);

/// After so long two thirds of an observation are forgotten.
const DECAY: Duration = Duration::from_secs(10);

/// What a failure counts as, at least.
const FAILURE_COST: Duration = Duration::from_secs(1);

/// So many failures without a success between them take an endpoint out of choice.
const FAILURES: u32 = 5;

/// For so long, doubled each time up to the second.
const FIRST_EJECTION: Duration = Duration::from_secs(1);
const LONGEST_EJECTION: Duration = Duration::from_secs(30);

/// How a call ended, as far as load is concerned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// A result came.
    Answered,
    /// A declared exception came: it says nothing good about the latency, since refusals are quick.
    Declined,
    /// It does not serve this now, but perhaps others: while it loads a model, say. Few should come for it, and none for long.
    NotHere,
    /// No answer by the deadline: it says how long was waited, which may be as little as the caller had patience for.
    TooLate,
    /// Lost, unreadable, or turned away by the server as a whole.
    Failed,
}

#[derive(Debug)]
pub(crate) struct Load {
    in_flight: AtomicUsize,
    seen: Mutex<Seen>,
}

#[derive(Debug)]
struct Seen {
    /// Seconds.
    latency: f64,
    at: Instant,
    failures: u32,
    ejections: u32,
    ejected_until: Option<Instant>,
}

/// Counts as a call in flight until dropped.
pub(crate) struct InFlight<'a>(&'a Load);

impl Load {
    pub(crate) fn new() -> Self {
        let seen = Seen {
            latency: FIRST_GUESS.as_secs_f64(),
            at: Instant::now(),
            failures: 0,
            ejections: 0,
            ejected_until: None,
        };
        Self { in_flight: AtomicUsize::new(0), seen: Mutex::new(seen) }
    }

    pub(crate) fn enter(&self) -> InFlight<'_> {
        self.in_flight.fetch_add(1, Relaxed);
        InFlight(self)
    }

    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Relaxed)
    }

    pub(crate) fn latency(&self, now: Instant) -> Duration {
        Duration::from_secs_f64(self.seen.lock().decayed(now))
    }

    pub(crate) fn is_ejected(&self, now: Instant) -> bool {
        self.seen.lock().ejected_until.is_some_and(|until| now < until)
    }

    /// What one more call would cost, in seconds.
    pub(crate) fn cost(&self, now: Instant) -> f64 {
        (self.in_flight() + 1) as f64 * self.seen.lock().decayed(now)
    }

    pub(crate) fn observe(&self, outcome: Outcome, took: Duration, now: Instant) {
        let mut seen = self.seen.lock();
        let latency = match outcome {
            Outcome::Answered => took.as_secs_f64(),
            Outcome::Declined | Outcome::TooLate => took.as_secs_f64().max(seen.latency),
            Outcome::NotHere | Outcome::Failed => took.max(FAILURE_COST).as_secs_f64(),
        };
        seen.latency = if latency > seen.latency {
            latency
        } else {
            let kept = seen.kept(now);
            seen.latency * kept + latency * (1.0 - kept)
        };
        seen.at = now;
        match outcome {
            Outcome::Answered | Outcome::Declined => {
                (seen.failures, seen.ejections, seen.ejected_until) = (0, 0, None);
                return;
            }
            // A short deadline is its caller's choice, and no server's failure.
            Outcome::TooLate if took < FAILURE_COST => return,
            // Other models may be well served there.
            Outcome::NotHere => return,
            Outcome::TooLate | Outcome::Failed => {}
        }
        seen.failures += 1;
        if seen.failures >= FAILURES {
            let long = FIRST_EJECTION.saturating_mul(1 << seen.ejections.min(8)).min(LONGEST_EJECTION);
            seen.ejected_until = Some(now + long);
            seen.ejections += 1;
            // One failure after coming back is enough to go again.
            seen.failures = FAILURES - 1;
        }
    }
}

impl Seen {
    /// The share of the old value that is still believed.
    fn kept(&self, now: Instant) -> f64 {
        (-now.saturating_duration_since(self.at).as_secs_f64() / DECAY.as_secs_f64()).exp()
    }

    /// Decays while nothing is asked, too, else nobody would ever come back.
    fn decayed(&self, now: Instant) -> f64 {
        (self.latency * self.kept(now)).max(1e-6)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn one_slow_answer_counts_at_once_and_fades() {
        let (load, now) = (Load::new(), Instant::now());
        load.observe(Outcome::Answered, 100 * MS, now);
        assert_eq!(load.latency(now).as_millis(), 100);
        load.observe(Outcome::Answered, MS, now + 10 * MS);
        assert!(load.latency(now + 10 * MS) > 99 * MS, "a single quick answer hides it");
        assert!(load.latency(now + Duration::from_secs(60)) < MS);
    }

    #[test]
    fn calls_in_flight_multiply_the_cost() {
        let (load, now) = (Load::new(), Instant::now());
        let idle = load.cost(now);
        let calls = [load.enter(), load.enter(), load.enter()];
        assert!((load.cost(now) / idle - 4.0).abs() < 0.01);
        drop(calls);
        assert_eq!(load.in_flight(), 0);
    }

    #[test]
    fn quick_failures_and_refusals_never_look_fast() {
        let now = Instant::now();
        let failing = Load::new();
        failing.observe(Outcome::Failed, MS, now);
        assert!(failing.latency(now) >= FAILURE_COST);
        let refusing = Load::new();
        refusing.observe(Outcome::Answered, 50 * MS, now);
        refusing.observe(Outcome::Declined, MS / 10, now);
        assert_eq!(refusing.latency(now).as_millis(), 50);
    }

    #[test]
    fn a_short_deadline_counts_as_time_and_a_long_one_as_a_failure() {
        let (load, now) = (Load::new(), Instant::now());
        for _ in 0..10 * FAILURES {
            load.observe(Outcome::TooLate, 30 * MS, now);
        }
        assert!(!load.is_ejected(now));
        assert_eq!(load.latency(now).as_millis(), 30);
        let now = now + DECAY;
        load.observe(Outcome::TooLate, MS, now);
        assert_eq!(load.latency(now).as_millis(), 30, "less patience is no better latency");
        for _ in 0..FAILURES {
            assert!(!load.is_ejected(now));
            load.observe(Outcome::TooLate, FAILURE_COST, now);
        }
        assert!(load.is_ejected(now));
    }

    #[test]
    fn what_is_not_served_yet_costs_as_a_failure_and_ejects_nobody() {
        let (load, now) = (Load::new(), Instant::now());
        for _ in 0..10 * FAILURES {
            load.observe(Outcome::NotHere, MS, now);
        }
        assert!(load.latency(now) >= FAILURE_COST);
        assert!(!load.is_ejected(now));
    }

    #[test]
    fn failures_in_a_row_eject_for_longer_each_time_and_a_success_pardons() {
        let (load, mut now) = (Load::new(), Instant::now());
        for _ in 1..FAILURES {
            load.observe(Outcome::Failed, MS, now);
        }
        assert!(!load.is_ejected(now));
        load.observe(Outcome::Failed, MS, now);
        assert!(load.is_ejected(now));
        now += FIRST_EJECTION;
        assert!(!load.is_ejected(now), "comes back by itself");
        load.observe(Outcome::Failed, MS, now);
        assert!(load.is_ejected(now + FIRST_EJECTION), "twice as long");
        load.observe(Outcome::Answered, MS, now);
        assert!(!load.is_ejected(now));
    }
}
