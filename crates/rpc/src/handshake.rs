//! TLS handshakes of a server's connections: how long one may take, how many there may be, and how they end.
//!
//! Promises: whoever sends nothing, or no end of it, is cut; whoever speaks without TLS is answered in what it speaks; one
//! that fails is told why by an alert that arrives. What failed is counted, and told once for an address.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use units::CallerId;

use crate::server::Shared;
use crate::{HandshakeFailure, Limit, Peer, ServerTls, tls};

/// The first byte of each TLS connection.
const HANDSHAKE_RECORD: u8 = 0x16;

/// What the log says of who speaks without TLS, and what its callers are told.
const WITHOUT_TLS: &str = "it speaks without TLS";
const WANTS_TLS: &str = "this port speaks TLS: connect with it";

/// So long, and for so many bytes, a connection is read on after its handshake has failed: closing it with unread bytes
/// would reset it, and the alert would be lost on the way.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 64 << 10;

/// Handshakes under way. Clones count together.
#[derive(Clone, Default)]
pub(crate) struct Handshakes(Arc<AtomicUsize>);

/// One of them, until dropped.
struct Place(Arc<AtomicUsize>);

impl Handshakes {
    fn enter(&self, limit: usize) -> Option<Place> {
        let place = Place(Arc::clone(&self.0));
        (self.0.fetch_add(1, Relaxed) < limit).then_some(place)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// What a connection turned out to be.
pub(crate) enum Opened {
    /// Its calls may come; with its name, where certificates are asked for.
    Secure(Box<TlsStream<TcpStream>>, Option<CallerId>),
    /// None of its calls is made, and each is told why: its certificate names nobody.
    Nameless(Box<TlsStream<TcpStream>>, String),
    /// The same: it speaks without TLS.
    Plain(TcpStream, String),
    /// There is nothing more to do.
    Closed,
}

/// Shakes hands with a connection that was just accepted.
pub(crate) async fn open<S>(stream: TcpStream, tls: &ServerTls, peer: &Peer, shared: &Shared<S>) -> Opened {
    let Some(place) = shared.handshakes.enter(shared.limits.handshakes) else {
        shared.observe.limit(Limit::Handshakes);
        if shared.notices.is_due(None) {
            tracing::warn!(limit = shared.limits.handshakes, "connection refused, too many are in a TLS handshake");
        }
        return Opened::Closed;
    };
    let until = Instant::now() + shared.limits.handshake_time;
    let shaken = tokio::select! {
        biased;
        () = shared.drained.cancelled() => return Opened::Closed,
        shaken = tokio::time::timeout_at(until, shake(stream, tls)) => shaken,
    };
    drop(place);
    let failed = match shaken {
        Ok(Ok(opened)) => {
            match &opened {
                Opened::Plain(..) => tell(HandshakeFailure::Plain, WITHOUT_TLS, peer, shared),
                Opened::Nameless(_, why) => tell(HandshakeFailure::Certificate, why, peer, shared),
                Opened::Secure(..) | Opened::Closed => {}
            }
            return opened;
        }
        Ok(Err(failed)) => failed,
        Err(_) => {
            shared.observe.limit(Limit::HandshakeTime);
            tracing::debug!(peer = %peer.address, limit = Limit::HandshakeTime.name(), "limit hit");
            return Opened::Closed;
        }
    };
    tell(failed.why, &failed.reason, peer, shared);
    let mut stream = failed.stream;
    let linger = async {
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Past the time limit, or when the peer resets: it has been told what there was to tell.
    let _ = tokio::time::timeout(LINGER, linger).await;
    Opened::Closed
}

/// Counts a failure, and writes one line for an address.
fn tell<S>(why: HandshakeFailure, reason: &str, peer: &Peer, shared: &Shared<S>) {
    shared.observe.handshake_failed(why);
    if shared.notices.is_due(Some(peer.address.ip())) {
        tracing::warn!(peer = %peer.address, reason, "TLS handshake failed");
    }
}

struct Failed {
    why: HandshakeFailure,
    reason: String,
    stream: TcpStream,
}

async fn shake(stream: TcpStream, tls: &ServerTls) -> Result<Opened, Failed> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        // Also what only looks whether the port is open: nothing has failed.
        Ok(0) | Err(_) => return Ok(Opened::Closed),
        Ok(_) if first[0] != HANDSHAKE_RECORD => return Ok(Opened::Plain(stream, WANTS_TLS.to_owned())),
        Ok(_) => {}
    }
    let shaken = tls.acceptor().accept(stream).into_fallible().await;
    let stream =
        shaken.map_err(|(error, stream)| Failed { why: tls::failure(&error), reason: tls::reason(&error), stream })?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(match certificate.map(tls::identity).transpose() {
        Ok(caller) => Opened::Secure(Box::new(stream), caller),
        Err(why) => Opened::Nameless(Box::new(stream), why),
    })
}
