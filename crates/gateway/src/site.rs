//! What all requests of one worker thread share.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use chassis::keyring::Keyring;
use chassis::traces::Traces;
use fault::Fault;
use history::History;
use tokio::sync::watch;

use crate::backend::Backend;
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
    /// Bytes of bodies in memory.
    pub(crate) body_bytes: AtomicUsize,
    /// Bytes of the history's pictures that are being read.
    pub(crate) leaving_bytes: AtomicUsize,
    /// Requests without their answer.
    pub(crate) in_flight: AtomicUsize,
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
