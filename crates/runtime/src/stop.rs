//! Ending a run from another thread.
//!
//! Why: the callers of a batch may all leave while it computes, and a model may never end by itself.
//! Promises: [`Stop::stop`] may come before, during or after the run; a run that has not begun will not begin, one that
//! computes ends at its next node, one that has ended is not changed, and the session stays usable.
//! Not here: hard limits. A single node is never interrupted; ONNX Runtime looks at the flag between nodes only (and at
//! each round of a `Loop`).

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ort::session::RunOptions;

/// A handle shared with whoever may end a run. Cheap to make and to clone; needs no library.
#[derive(Clone, Default)]
pub struct Stop(Arc<State>);

#[derive(Default)]
struct State {
    stopped: AtomicBool,
    /// The runs in progress under this handle: none or one, in the ordinary case.
    running: Mutex<Vec<Arc<RunOptions>>>,
}

impl Stop {
    /// A handle for one run, not stopped.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the run at its next node, and keeps one that has not begun from beginning. Never waits for the run.
    pub fn stop(&self) {
        self.0.stopped.store(true, Ordering::SeqCst);
        for options in self.0.running().iter() {
            if let Err(error) = options.terminate() {
                tracing::warn!(%error, "a run could not be told to stop");
            }
        }
    }

    /// Whether [`Self::stop`] was called.
    #[must_use]
    pub fn is_stopped(&self) -> bool {
        self.0.stopped.load(Ordering::SeqCst)
    }

    /// Makes `options` the run that `stop` ends, until the guard goes; `None` when it is stopped already.
    pub(crate) fn watch(&self, options: &Arc<RunOptions>) -> Option<Watched<'_>> {
        let mut running = self.0.running();
        // Under the lock: a stop after this point finds the options in the list.
        if self.is_stopped() {
            return None;
        }
        running.push(Arc::clone(options));
        Some(Watched { stop: self, options: Arc::clone(options) })
    }
}

impl fmt::Debug for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stop").field("stopped", &self.is_stopped()).finish_non_exhaustive()
    }
}

impl State {
    fn running(&self) -> MutexGuard<'_, Vec<Arc<RunOptions>>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A run in progress; takes the run options back in order when dropped, so that they can serve the next run.
pub(crate) struct Watched<'a> {
    stop: &'a Stop,
    options: Arc<RunOptions>,
}

impl Drop for Watched<'_> {
    fn drop(&mut self) {
        self.stop.0.running().retain(|options| !Arc::ptr_eq(options, &self.options));
        // Nobody can set the flag any more; left set, it would fail every later run with these options.
        if self.stop.is_stopped()
            && let Err(error) = self.options.unterminate()
        {
            tracing::warn!(%error, "run options could not be reset");
        }
    }
}
