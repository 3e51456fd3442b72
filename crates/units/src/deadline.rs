//! The moment by which a request must be answered.
//!
//! Why an instant: a duration can be restarted half-way down the stack by accident, an instant cannot. Durations travel
//! only between processes, whose clocks differ.

use std::time::{Duration, Instant};

/// The latest a caller may ask for. Source: the service's table of limits.
pub const LONGEST: Duration = Duration::from_secs(600);

/// An instant after which the answer is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(Instant);

impl Deadline {
    /// A deadline at `at`.
    #[must_use]
    pub const fn at(at: Instant) -> Self {
        Self(at)
    }

    /// A deadline `left` from `now`, at most [`LONGEST`] away.
    #[must_use]
    pub fn after(now: Instant, left: Duration) -> Self {
        Self(now + left.min(LONGEST))
    }

    /// The deadline that a caller's `timeout_ms` means: `default` when absent or zero, never beyond `longest`.
    #[must_use]
    pub fn from_millis(now: Instant, millis: Option<i64>, default: Duration, longest: Duration) -> Self {
        let left = match millis {
            Some(millis) if millis > 0 => Duration::from_millis(millis.unsigned_abs()),
            // A budget that is already used up: refuse at the first check, with the same fault as any other.
            Some(millis) if millis < 0 => Duration::ZERO,
            _ => default,
        };
        Self::after(now, left.min(longest))
    }

    /// The instant.
    #[must_use]
    pub const fn instant(self) -> Instant {
        self.0
    }

    /// What is left at `now`; zero when it has passed.
    #[must_use]
    pub fn left(self, now: Instant) -> Duration {
        self.0.saturating_duration_since(now)
    }

    /// Whether it has passed at `now`.
    #[must_use]
    pub fn is_over(self, now: Instant) -> bool {
        now >= self.0
    }

    /// The earlier of the two.
    #[must_use]
    pub fn earlier(self, other: Self) -> Self {
        Self(self.0.min(other.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEFAULT: Duration = Duration::from_secs(10);

    #[test]
    fn absent_and_zero_timeouts_mean_the_default() {
        let now = Instant::now();
        for millis in [None, Some(0)] {
            assert_eq!(Deadline::from_millis(now, millis, DEFAULT, LONGEST).left(now), DEFAULT);
        }
    }

    #[test]
    fn a_huge_timeout_is_cut_to_the_longest() {
        let now = Instant::now();
        assert_eq!(Deadline::from_millis(now, Some(i64::MAX), DEFAULT, LONGEST).left(now), LONGEST);
    }

    #[test]
    fn a_negative_timeout_is_over_at_once() {
        let now = Instant::now();
        for millis in [-1, i64::MIN] {
            assert!(Deadline::from_millis(now, Some(millis), DEFAULT, LONGEST).is_over(now));
        }
    }

    #[test]
    fn left_never_goes_below_zero() {
        let now = Instant::now();
        assert_eq!(Deadline::at(now).left(now + DEFAULT), Duration::ZERO);
    }
}
