//! Whose turn it is to work on a thread: as many as there are cores, each waits no longer than its deadline.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout_at;
use units::Deadline;

/// Turns at one kind of work.
pub(crate) struct Turns(Arc<Semaphore>);

/// One turn, which the thread holds: a caller that leaves does not end the work.
pub(crate) type Turn = OwnedSemaphorePermit;

/// As many threads as can work at the same time.
pub(crate) fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

impl Turns {
    pub(crate) fn new(count: usize) -> Self {
        Self(Arc::new(Semaphore::new(count)))
    }

    /// `None` when the deadline passes first.
    pub(crate) async fn take(&self, deadline: Deadline) -> Option<Turn> {
        let turn = timeout_at(deadline.instant().into(), Arc::clone(&self.0).acquire_owned()).await.ok()?;
        Some(turn.expect("turns are never closed"))
    }

    /// How many are free.
    pub(crate) fn free(&self) -> usize {
        self.0.available_permits()
    }
}
