//! The end of a process.

use tokio::signal::unix::{SignalKind, signal};
use tracing::{info, warn};

/// Resolves at the first SIGTERM or SIGINT. A second one ends the process at once, with status 130.
///
/// # Errors
/// When the system refuses a signal handler.
pub async fn stop_requested() -> std::io::Result<()> {
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let name = tokio::select! {
        _ = terminate.recv() => "SIGTERM",
        _ = interrupt.recv() => "SIGINT",
    };
    info!(signal = name, "draining; a second signal ends the process at once");
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        warn!("second signal: ending at once");
        std::process::exit(130);
    });
    Ok(())
}
