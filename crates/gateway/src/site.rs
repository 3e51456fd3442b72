//! What all requests of one worker thread share.

use std::future::Future;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use chassis::keyring::Keyring;
use chassis::traces::Traces;
use fault::Fault;
use history::History;
use tokio::sync::watch;

use crate::backend::Backend;
use crate::memory::Budget;
use crate::metrics::GatewayMetrics;
use crate::pages::Templates;
use crate::settings::Settings;

/// What all worker threads share.
pub(crate) struct Process {
    pub(crate) settings: Settings,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) traces: Traces,
    pub(crate) templates: Templates,
    pub(crate) draining: AtomicBool,
    /// The drain's time is nearly over: what still runs is told so now.
    pub(crate) ending: watch::Sender<bool>,
    /// Who may ask; without it nobody is asked for a key.
    pub(crate) keyring: Option<Arc<Keyring>>,
    /// What was answered; without it nothing is kept.
    pub(crate) history: Option<Arc<History>>,
    /// Memory for bodies that come in.
    pub(crate) bodies: Arc<Budget>,
    /// Memory for the history's pictures that are on their way to who looks at them.
    pub(crate) leaving: Arc<Budget>,
    /// Requests without their answer, and answers that are on their way for long.
    pub(crate) in_flight: AtomicUsize,
}

/// Something that a drain waits for, until it is dropped.
pub(crate) struct InFlight(Arc<Process>);

impl InFlight {
    pub(crate) fn begin(process: &Arc<Process>) -> Self {
        process.in_flight.fetch_add(1, Ordering::AcqRel);
        process.metrics.in_flight.inc();
        Self(Arc::clone(process))
    }
}

impl Deref for InFlight {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.0
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
        self.0.metrics.in_flight.dec();
    }
}

impl Process {
    /// What comes of `work`, while there is time for it.
    ///
    /// # Errors
    /// Unavailable when a drain comes to its end before; those of `work`.
    pub(crate) async fn in_time<T, E: From<Fault>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        let mut ending = self.ending.subscribe();
        tokio::select! {
            // What is ready is not thrown away.
            biased;
            result = work => result,
            _ = ending.wait_for(|ending| *ending) => Err(self.cut().into()),
        }
    }

    /// Why something has no end of its own.
    pub(crate) fn cut(&self) -> Fault {
        let drain = self.settings.drain;
        Fault::unavailable(format!("the gateway stops, and this was not complete when its drain of {drain:?} ended"))
    }
}

/// One worker thread's: its own connections to the servers, so that a call never changes threads.
pub(crate) struct Site {
    pub(crate) process: Arc<Process>,
    pub(crate) backend: Backend,
}
