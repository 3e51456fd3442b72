//! The bytes of frames that the whole process may hold.
//!
//! Promises: who waits is served in order, so that a big frame is not starved by small ones; what was taken comes back
//! when the last holder of its [`Charge`] is gone.

use std::pin::Pin;
use std::sync::Arc;

use tokio::sync::Semaphore;

use crate::Observe;

/// `Semaphore` takes permits by `u32`; a gigabyte of requests in flight is beyond any use.
const MOST: usize = 1 << 30;

/// Room for one connection's largest chunk.
const LEAST: usize = 128 << 10;

pub(crate) struct Budget {
    total: usize,
    free: Semaphore,
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

impl Budget {
    pub(crate) fn new(bytes: usize, largest: usize, observe: Arc<dyn Observe>) -> Arc<Self> {
        let total = bytes.max(largest).clamp(LEAST, MOST);
        Arc::new(Self { total, free: Semaphore::new(total), observe })
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
        self.tell();
        Arc::new(Taken { bytes: bytes.min(self.total), from: Some(Arc::clone(self)) })
    }

    fn tell(&self) {
        self.observe.bytes_in_flight(self.total - self.free.available_permits().min(self.total));
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
            budget.free.add_permits(self.bytes);
            budget.tell();
        }
    }
}
