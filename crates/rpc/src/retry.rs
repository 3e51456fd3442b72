//! How many calls may be sent twice.
//!
//! Why a budget: when every call fails, retries double the load on what is already failing. A tenth of the calls of the
//! last ten to twenty seconds may be repeated, and a few always.

use std::time::Duration;

use parking_lot::Mutex;
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(10);

/// One retry for so many calls.
const CALLS_PER_RETRY: u64 = 10;

/// Retries that a channel always has in a window: one with little traffic must survive a restart of its server.
const IN_HAND: u64 = 64;

#[derive(Debug)]
pub(crate) struct RetryBudget(Mutex<Counts>);

#[derive(Debug)]
struct Counts {
    began: Instant,
    calls: u64,
    calls_before: u64,
    retries: u64,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Counts { began: Instant::now(), calls: 0, calls_before: 0, retries: 0 }))
    }

    /// Notes a call.
    pub(crate) fn call(&self, now: Instant) {
        self.0.lock().at(now).calls += 1;
    }

    /// Takes one retry, if one is left.
    pub(crate) fn take(&self, now: Instant) -> bool {
        let mut counts = self.0.lock();
        let counts = counts.at(now);
        let allowed = IN_HAND + (counts.calls + counts.calls_before) / CALLS_PER_RETRY;
        if counts.retries >= allowed {
            return false;
        }
        counts.retries += 1;
        true
    }
}

impl Counts {
    fn at(&mut self, now: Instant) -> &mut Self {
        let age = now.saturating_duration_since(self.began);
        if age >= WINDOW {
            self.calls_before = if age < 2 * WINDOW { self.calls } else { 0 };
            (self.began, self.calls, self.retries) = (now, 0, 0);
        }
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(budget: &RetryBudget, now: Instant) -> u64 {
        (0..).take_while(|_| budget.take(now)).count() as u64
    }

    #[test]
    fn a_quiet_channel_has_some_retries_in_each_window() {
        let (budget, now) = (RetryBudget::new(), Instant::now());
        assert_eq!(taken(&budget, now), IN_HAND);
        assert_eq!(taken(&budget, now + WINDOW / 2), 0);
        assert_eq!(taken(&budget, now + WINDOW), IN_HAND);
    }

    #[test]
    fn a_busy_one_has_a_tenth_of_its_calls_on_top() {
        let (budget, now) = (RetryBudget::new(), Instant::now());
        for _ in 0..5_000 {
            budget.call(now);
        }
        assert_eq!(taken(&budget, now), IN_HAND + 500);
        assert_eq!(taken(&budget, now + WINDOW), IN_HAND + 500, "the window before counts on");
        assert_eq!(taken(&budget, now + 3 * WINDOW), IN_HAND);
    }
}
