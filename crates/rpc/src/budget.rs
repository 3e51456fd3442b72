//! The bytes that the whole process may hold for its peers.
//!
//! Promises: who waits is served in order, so that a big frame is not starved by small ones; what was taken comes back
//! when the last holder of its [`Charge`] is gone; answers, whose size nobody knows beforehand, are counted even when
//! there is no room ([`Owed`]), and until there is, nobody is granted anything.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use tokio::sync::Semaphore;

use crate::Observe;

/// `Semaphore` takes permits by `u32`; a gigabyte of requests in flight is beyond any use.
const MOST: usize = 1 << 30;

/// Room for one connection's largest chunk.
const LEAST: usize = 128 << 10;

pub(crate) struct Budget {
    total: usize,
    free: Semaphore,
    /// Bytes that are held beyond the total: what comes back pays them first. A return at the moment in which it grows
    /// can leave it beside free bytes until the next one; the difference of the two is right at any time.
    overdrawn: AtomicUsize,
    observe: Arc<dyn Observe>,
}

/// Bytes taken from the budget. Clones share it.
pub(crate) type Charge = Arc<Taken>;

/// A wait for the budget's bytes.
pub(crate) type Wait = Pin<Box<dyn Future<Output = Charge> + Send>>;

pub(crate) struct Taken {
    bytes: usize,
    /// None for the few bytes that every connection owns.
    from: Option<Arc<Budget>>,
}

/// Bytes that are held already, and counted whether there is room for them or not.
pub(crate) struct Owed {
    bytes: usize,
    to: Arc<Budget>,
}

impl Budget {
    pub(crate) fn new(bytes: usize, largest: usize, observe: Arc<dyn Observe>) -> Arc<Self> {
        let total = bytes.max(largest).clamp(LEAST, MOST);
        Arc::new(Self { total, free: Semaphore::new(total), overdrawn: AtomicUsize::new(0), observe })
    }

    pub(crate) fn total(&self) -> usize {
        self.total
    }

    /// The bytes, if they are there and nobody waits.
    pub(crate) fn try_take(self: &Arc<Self>, bytes: usize) -> Option<Charge> {
        self.free.try_acquire_many(self.permits(bytes)).ok()?.forget();
        Some(self.taken(bytes))
    }

    /// The bytes, when it is this waiter's turn.
    pub(crate) fn take(self: &Arc<Self>, bytes: usize) -> Wait {
        let budget = Arc::clone(self);
        Box::pin(async move {
            let permits = budget.free.acquire_many(budget.permits(bytes)).await;
            permits.expect("the semaphore is never closed").forget();
            budget.taken(bytes)
        })
    }

    fn permits(&self, bytes: usize) -> u32 {
        debug_assert!(bytes <= self.total, "a frame is never larger than the budget");
        bytes.min(self.total) as u32
    }

    fn taken(self: &Arc<Self>, bytes: usize) -> Charge {
        let bytes = bytes.min(self.total);
        self.observe.bytes_taken(bytes);
        Arc::new(Taken { bytes, from: Some(Arc::clone(self)) })
    }

    fn overdraw(&self, bytes: usize) {
        let free = self.free.forget_permits(bytes);
        self.overdrawn.fetch_add(bytes - free, Relaxed);
        self.observe.bytes_taken(bytes);
    }

    fn give_back(&self, bytes: usize) {
        let mut rest = bytes;
        if self.overdrawn.load(Relaxed) > 0 {
            let pay = |overdrawn: usize| Some(overdrawn.saturating_sub(bytes));
            rest -= self.overdrawn.fetch_update(Relaxed, Relaxed, pay).map_or(0, |before| before.min(bytes));
        }
        self.free.add_permits(rest);
        self.observe.bytes_released(bytes);
    }
}

impl Taken {
    /// Bytes that a connection owns without asking.
    pub(crate) fn own(bytes: usize) -> Charge {
        Arc::new(Self { bytes, from: None })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        if let Some(budget) = &self.from {
            budget.give_back(self.bytes);
        }
    }
}

impl Owed {
    /// Nothing yet.
    pub(crate) fn to(budget: &Arc<Budget>) -> Self {
        Self { bytes: 0, to: Arc::clone(budget) }
    }

    /// Counts `bytes` from now on.
    pub(crate) fn set(&mut self, bytes: usize) {
        if bytes > self.bytes {
            self.to.overdraw(bytes - self.bytes);
        } else if bytes < self.bytes {
            self.to.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use parking_lot::Mutex;

    use super::*;
    use crate::ServerStats;

    /// Hears of each return only after the next one, as when a thread is held up between the two.
    struct HeldUp {
        stats: Arc<ServerStats>,
        first: Mutex<Option<mpsc::Receiver<()>>>,
    }

    impl Observe for HeldUp {
        fn bytes_taken(&self, bytes: usize) {
            self.stats.bytes_taken(bytes);
        }

        fn bytes_released(&self, bytes: usize) {
            let first = self.first.lock().take();
            if let Some(second) = first {
                second.recv().expect("the second return");
            }
            self.stats.bytes_released(bytes);
        }
    }

    /// A gauge that was set to what was free a moment ago stayed wrong when threads overtook each other.
    #[test]
    fn the_gauge_is_right_whoever_is_heard_first() {
        let stats = Arc::new(ServerStats::default());
        let (tell, told) = mpsc::channel();
        let observe = Arc::new(HeldUp { stats: Arc::clone(&stats), first: Mutex::new(Some(told)) });
        let budget = Budget::new(MOST, 0, Arc::clone(&observe) as _);
        let [first, second, third] = [1_000, 2_000, 3_000].map(|bytes| budget.try_take(bytes).expect("it is there"));
        assert_eq!(stats.bytes_in_flight.load(Relaxed), 6_000);
        let held_up = std::thread::spawn(move || drop(first));
        while observe.first.lock().is_some() {
            assert!(!held_up.is_finished(), "it is never heard");
            std::thread::yield_now();
        }
        drop(second);
        assert_eq!(stats.bytes_in_flight.load(Relaxed), 4_000);
        tell.send(()).expect("the first waits");
        held_up.join().expect("no panic");
        assert_eq!(stats.bytes_in_flight.load(Relaxed), 3_000);
        drop(third);
        assert_eq!(stats.bytes_in_flight.load(Relaxed), 0);
    }

    #[test]
    fn what_is_owed_counts_beyond_the_total_and_is_paid_before_anybody_is_granted_anything() {
        let stats = Arc::new(ServerStats::default());
        let budget = Budget::new(LEAST, 0, Arc::clone(&stats) as _);
        let taken = budget.try_take(LEAST - 1_000).expect("it is there");
        let mut owed = Owed::to(&budget);
        owed.set(2_000);
        assert_eq!(stats.bytes_in_flight.load(Relaxed), LEAST + 1_000);
        assert!(budget.try_take(1).is_none());
        owed.set(1_001);
        assert!(budget.try_take(1).is_none(), "still a byte too much");
        owed.set(999);
        let last = budget.try_take(1).expect("one byte is free");
        drop(taken);
        assert!(budget.try_take(LEAST - 999).is_none());
        drop((owed, last));
        assert!(budget.try_take(LEAST).is_some());
        assert_eq!(stats.bytes_in_flight.load(Relaxed), 0);
    }
}
