//! What each caller has of a model that all of them use.
//!
//! Why: the queue is first come, first served, and one call may bring thousands of texts. Only so much of one caller is let into
//! it at the same time; the rest of its work waits outside, where it is in nobody's way.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use units::Deadline;

use crate::turns::{Turn, Turns};

/// The shares of all callers that have something to do.
#[derive(Clone, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<String, Arc<Part>>>>);

struct Part {
    /// Threads that may work for this caller at the same time.
    threads: Turns,
    /// Room in the queue and in runs, of `size`.
    room: Arc<Semaphore>,
    size: usize,
    /// What waits for that room.
    waiting: AtomicUsize,
}

/// The share of one caller, which all its calls have together. Forgotten when the last of them has ended.
pub(crate) struct Share {
    shares: Shares,
    owner: String,
    part: Arc<Part>,
}

/// Something that waits for room, until dropped.
pub(crate) struct Waiting<'a> {
    part: &'a Part,
    size: usize,
}

impl Shares {
    /// The share of `owner`: `size` of the queue and `threads`, when it has none yet.
    pub(crate) fn of(&self, owner: &str, size: usize, threads: usize) -> Share {
        let mut all = self.0.lock();
        let part = all.entry(owner.to_owned()).or_insert_with(|| {
            let size = size.clamp(1, u32::MAX as usize >> 4);
            let room = Arc::new(Semaphore::new(size));
            Arc::new(Part { threads: Turns::new(threads), room, size, waiting: AtomicUsize::new(0) })
        });
        Share { shares: self.clone(), owner: owner.to_owned(), part: Arc::clone(part) }
    }
}

impl Share {
    /// One of this caller's threads; `None` when the deadline passes first.
    pub(crate) async fn thread(&self, deadline: Deadline) -> Option<Turn> {
        self.part.threads.take(deadline).await
    }

    /// How much of this caller waits for room.
    pub(crate) fn waiting(&self) -> usize {
        self.part.waiting.load(Ordering::Relaxed)
    }

    /// Something will want room.
    pub(crate) fn wait(&self, size: usize) -> Waiting<'_> {
        self.part.waiting.fetch_add(size, Ordering::Relaxed);
        Waiting { part: &self.part, size }
    }
}

impl Waiting<'_> {
    /// Room for it, until dropped; what is larger than all there is gets all. `None` when the deadline passes first.
    pub(crate) async fn room(self, deadline: Deadline) -> Option<OwnedSemaphorePermit> {
        let size = self.size.min(self.part.size) as u32;
        let room = Arc::clone(&self.part.room).acquire_many_owned(size);
        let room = timeout_at(deadline.instant().into(), room).await.ok()?;
        Some(room.expect("room is never closed"))
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.part.waiting.fetch_sub(self.size, Ordering::Relaxed);
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let mut all = self.shares.0.lock();
        // The map's and ours: taken under the lock, so nobody joins meanwhile.
        if Arc::strong_count(&self.part) <= 2 {
            all.remove(&self.owner);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_caller_has_no_more_than_its_share_and_another_has_its_own() {
        let shares = Shares::default();
        let soon = Deadline::after(tokio::time::Instant::now().into_std(), Duration::from_secs(60));
        let (one, also_one, other) = (shares.of("a", 4, 1), shares.of("a", 4, 1), shares.of("b", 4, 1));
        let held = one.wait(3).room(soon).await.expect("all is free");
        let mut second = Box::pin(also_one.wait(2).room(soon));
        assert!((&mut second).now_or_never().is_none(), "three of four are taken");
        assert_eq!((one.waiting(), other.waiting()), (2, 0));
        assert!(other.wait(100).room(soon).await.is_some(), "what is larger than all gets all");
        drop(held);
        assert!(second.await.is_some());
        let all = one.wait(4).room(soon).await;
        assert!(one.wait(1).room(soon).await.is_none(), "the deadline passed");
        assert_eq!(one.waiting(), 0);
        drop((all, one, also_one, other));
        assert!(shares.0.lock().is_empty());
    }
}
