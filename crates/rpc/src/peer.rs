//! Who is at the other end of a connection, and what is known of a call besides its bytes.

use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio_util::sync::{CancellationToken, DropGuard, WaitForCancellationFutureOwned};
use units::CallerId;
use wire::Protocol;

/// The other end of one connection.
#[derive(Debug)]
pub struct Peer {
    /// Where it connects from.
    pub address: SocketAddr,
    /// Number of the connection, unique in this process: tells two connections from one address apart.
    pub connection: u64,
    pub(crate) protocol: OnceLock<Protocol>,
    /// As its certificate says.
    pub(crate) identity: Option<CallerId>,
    closed: CancellationToken,
}

impl Peer {
    pub(crate) fn new(address: SocketAddr, connection: u64) -> Self {
        Self { address, connection, protocol: OnceLock::new(), identity: None, closed: CancellationToken::new() }
    }

    /// Tells [`Peer::closed`] when it is dropped.
    pub(crate) fn closing(&self) -> DropGuard {
        self.closed.clone().drop_guard()
    }

    /// Resolves when the connection is lost or closed: for work that goes on between its calls.
    pub fn closed(&self) -> WaitForCancellationFutureOwned {
        self.closed.clone().cancelled_owned()
    }

    /// The protocol of its first message; later ones may differ, a reply always uses its request's.
    #[must_use]
    pub fn protocol(&self) -> Option<Protocol> {
        self.protocol.get().copied()
    }

    /// Whether a certificate says who it is.
    #[must_use]
    pub fn is_identified(&self) -> bool {
        self.identity.is_some()
    }

    /// Who is calling: as its certificate says where one was asked for, else the address stands for the caller.
    #[must_use]
    pub fn caller(&self) -> CallerId {
        self.identity.clone().unwrap_or_else(|| CallerId::anonymous(self.address.ip()))
    }
}

/// What came with a call besides its bytes.
#[derive(Clone, Debug)]
pub struct CallContext {
    /// The other end of the connection.
    pub peer: Arc<Peer>,
    /// When the frame was complete: deadlines count from here.
    pub received: Instant,
    /// From the frame's first byte to its last.
    pub read: Duration,
    /// Payload bytes of the frame.
    pub frame_bytes: usize,
}
