//! Whether a thread gets on: when what it is at began.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Set by one thread, read by others.
#[derive(Debug)]
pub(crate) struct Beat {
    start: Instant,
    /// Nanoseconds from `start`, and one; 0 while there is nothing to do.
    began: AtomicU64,
}

impl Beat {
    pub(crate) fn new() -> Self {
        Self { start: Instant::now(), began: AtomicU64::new(0) }
    }

    /// Something begins now.
    pub(crate) fn begin(&self) {
        let since = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX - 1);
        self.began.store(since + 1, Ordering::Release);
    }

    /// There is nothing to do.
    pub(crate) fn rest(&self) {
        self.began.store(0, Ordering::Release);
    }

    /// When what is going on began.
    pub(crate) fn began(&self) -> Option<Instant> {
        let since = self.began.load(Ordering::Acquire).checked_sub(1)?;
        Some(self.start + Duration::from_nanos(since))
    }
}
