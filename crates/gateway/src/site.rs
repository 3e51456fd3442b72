//! What all requests of one worker thread share.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use crate::backend::Backend;
use crate::metrics::GatewayMetrics;
use crate::pages::Templates;
use crate::settings::Settings;

/// What all worker threads share.
pub(crate) struct Process {
    pub(crate) settings: Settings,
    pub(crate) metrics: GatewayMetrics,
    pub(crate) templates: Templates,
    pub(crate) draining: AtomicBool,
    /// Bytes of bodies in memory.
    pub(crate) body_bytes: AtomicUsize,
    /// Requests without their answer.
    pub(crate) in_flight: AtomicUsize,
}

/// One worker thread's: its own connections to the servers, so that a call never changes threads.
pub(crate) struct Site {
    pub(crate) process: Arc<Process>,
    pub(crate) backend: Backend,
}
