//! Memory that requests share: so much of it for one purpose, and no more.
//!
//! Promises: all shares together stay within the limit; a share that is dropped is free again at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fault::Fault;
use prometheus_client::metrics::gauge::Gauge;

/// What may be taken for one purpose.
pub(crate) struct Budget {
    taken: AtomicUsize,
    limit: usize,
    /// What takes it, for those who are told that there is no more.
    what: &'static str,
    shown: Gauge,
}

impl Budget {
    /// `limit` in bytes; `shown` has what is taken of it.
    pub(crate) fn new(limit: usize, what: &'static str, shown: Gauge) -> Arc<Self> {
        Arc::new(Self { taken: AtomicUsize::new(0), limit, what, shown })
    }

    /// A share that has nothing yet.
    pub(crate) fn share(self: &Arc<Self>) -> Share {
        Share { budget: Arc::clone(self), bytes: 0 }
    }
}

/// What one request has of it.
pub(crate) struct Share {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Share {
    /// Takes more.
    ///
    /// # Errors
    /// Overloaded when all of it is taken.
    pub(crate) fn grow(&mut self, bytes: usize) -> Result<(), Fault> {
        let Budget { taken, limit, what, shown } = &*self.budget;
        let more = |before: usize| before.checked_add(bytes).filter(|all| all <= limit);
        if taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, more).is_err() {
            return Err(Fault::overloaded(format!("{what} reach the limit of {limit} bytes"))
                .with_retry_after(Duration::from_secs(1)));
        }
        self.bytes += bytes;
        shown.inc_by(bytes as i64);
        Ok(())
    }

    /// The most that all may have, in bytes.
    pub(crate) fn limit(&self) -> usize {
        self.budget.limit
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes, Ordering::AcqRel);
        self.budget.shown.dec_by(self.bytes as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_is_refused_takes_nothing_from_the_others() {
        let shown = Gauge::default();
        let budget = Budget::new(10, "things", shown.clone());
        let (mut first, mut refused, mut small) = (budget.share(), budget.share(), budget.share());
        assert!(first.grow(8).is_ok());
        let error = refused.grow(5).expect_err("there are two left");
        assert_eq!(error.message, "things reach the limit of 10 bytes");
        assert!(refused.grow(usize::MAX).is_err());
        assert!(small.grow(2).is_ok() && small.grow(1).is_err());
        assert_eq!(shown.get(), 10);
        drop((first, refused));
        assert_eq!(shown.get(), 2);
        assert!(small.grow(8).is_ok());
    }
}
