//! Stopping without breaking calls.
//!
//! Promises: from [`DrainHandle::start`] on new calls are refused, on old connections and on new ones, which are still
//! accepted so that everybody can ask how the server is; calls in flight finish and their answers are delivered. Work that
//! is more than one call holds the end back as well ([`Drain::hold`]), and its calls are let in ([`crate::Service::continues`]);
//! a call that was in flight at the start may still begin such work.
//! When none of them is left, or the limit has passed and the rest was cut, nobody is accepted any more, what is still
//! connected is closed, and [`DrainHandle::drained`] resolves. What came after the start never prolongs it.

use std::time::Duration;

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// Starts a drain, and waits for its end. Clones are the same handle.
#[derive(Clone, Debug)]
pub struct DrainHandle {
    start: CancellationToken,
    servers: TaskTracker,
}

/// What a server watches; clones let one handle stop several servers.
#[derive(Clone, Debug)]
pub struct Drain {
    start: CancellationToken,
    servers: TaskTracker,
    /// Work that outlives its calls.
    work: TaskTracker,
    limit: Duration,
}

impl Drain {
    /// The longest a drain takes by default: above the longest answer that a caller gets without asking for more.
    pub const LIMIT: Duration = Duration::from_secs(150);

    /// A handle and what it controls. Calls that still run `limit` after the start are dropped.
    #[must_use]
    pub fn new(limit: Duration) -> (DrainHandle, Self) {
        let handle = DrainHandle { start: CancellationToken::new(), servers: TaskTracker::new() };
        let drain =
            Self { start: handle.start.clone(), servers: handle.servers.clone(), work: TaskTracker::new(), limit };
        (handle, drain)
    }

    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Counts as a running server until dropped.
    pub(crate) fn register(&self) -> TaskTrackerToken {
        self.servers.token()
    }

    /// Holds the end of the drain back until dropped, never longer than its limit: for work that goes on between calls.
    pub fn hold(&self) -> TaskTrackerToken {
        self.work.token()
    }

    /// Resolves when nothing is held any more; to be asked once the drain has started.
    pub(crate) async fn let_go(&self) {
        self.work.close();
        self.work.wait().await;
    }

    pub(crate) fn is_held(&self) -> bool {
        !self.work.is_empty()
    }

    pub(crate) fn is_started(&self) -> bool {
        self.start.is_cancelled()
    }

    pub(crate) fn started(&self) -> WaitForCancellationFutureOwned {
        self.start.clone().cancelled_owned()
    }
}

impl DrainHandle {
    /// Starts the drain; again changes nothing.
    pub fn start(&self) {
        self.start.cancel();
        self.servers.close();
    }

    /// Whether it was started.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.start.is_cancelled()
    }

    /// Resolves once the drain was started and every server under it has ended.
    pub async fn drained(&self) {
        self.start.cancelled().await;
        self.servers.wait().await;
    }
}
