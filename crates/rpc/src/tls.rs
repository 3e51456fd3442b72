//! TLS of both sides: certificates in files, followed while the process runs, and who a certificate says that a peer is.
//!
//! Promises: what cannot be used ends the start with the file's name and the reason; later it changes nothing, and is told.
//! A connection keeps what it began with; the next one gets what is in the files then. Nobody resumes a session, so every
//! connection proves anew who is at its ends. One provider of cryptography (ring), named wherever one is needed.
//! Not here: how long a handshake may take and how many there may be (`handshake`), and framing.

mod change;
mod client;
mod identity;
mod pem;
mod reason;
mod server;

pub use change::TlsChange;
pub use client::{ClientTls, ClientTlsSettings};
pub use pem::TlsError;
pub use server::{ServerTls, ServerTlsSettings, TlsVersion, UnknownVersion};

pub(crate) use identity::identity;
pub(crate) use reason::{failure, reason};

use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, ring};

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[cfg(test)]
mod tests;
