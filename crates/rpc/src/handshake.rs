//! TLS handshakes of a server's connections: how long one may take, and how they end.
//!
//! Promises: whoever sends nothing, or no end of it, is cut; whoever speaks without TLS is answered in what it speaks; one
//! that fails is told why by an alert that arrives. What failed is counted, and told once for an address. Until a connection
//! is through, or has been told why it is not, it takes one of the places that there are for such, whatever it sends.
//! Not here: how many places there are for whom (`handshake::places`).

mod places;

use std::io::ErrorKind;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;
use units::CallerId;

pub(crate) use places::{Handshakes, Place};

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

/// A place for a connection that was just accepted; none, when it has to be closed at once.
pub(crate) fn admit<S>(peer: &Peer, shared: &Shared<S>) -> Option<Place> {
    let limit = shared.limits.handshakes;
    let (place, full) = match shared.handshakes.enter(peer.address.ip(), limit) {
        Ok((place, None)) => return Some(place),
        Ok((place, Some(full))) => (Some(place), full),
        Err(full) => (None, full),
    };
    shared.observe.limit(Limit::Handshakes);
    if shared.notices.is_due(None) {
        let (address, connections) = full.most;
        tracing::warn!(limit, %address, connections, "too many TLS handshakes, most of them with this address");
    }
    place
}

/// Shakes hands with a connection that has a place.
pub(crate) async fn open<S>(
    stream: TcpStream,
    tls: &ServerTls,
    peer: &Peer,
    shared: &Shared<S>,
    place: &Place,
) -> Opened {
    let until = Instant::now() + shared.limits.handshake_time;
    let shaken = tokio::select! {
        biased;
        () = shared.drained.cancelled() => return Opened::Closed,
        () = place.lost() => return Opened::Closed,
        shaken = tokio::time::timeout_at(until, shake(stream, tls, place)) => shaken,
    };
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
    let _ = tokio::time::timeout(LINGER, place.keep(linger)).await;
    Opened::Closed
}

/// Counts a failure, and writes one line for an address.
fn tell<S>(why: HandshakeFailure, reason: &str, peer: &Peer, shared: &Shared<S>) {
    shared.observe.handshake_failed(why);
    if shared.notices.is_due(Some(peer.address.ip())) {
        tracing::warn!(peer = %peer.address, reason, "TLS handshake failed");
    }
}

pub(crate) struct Failed {
    why: HandshakeFailure,
    pub(crate) reason: String,
    stream: TcpStream,
}

async fn shake(stream: TcpStream, tls: &ServerTls, place: &Place) -> Result<Opened, Failed> {
    let mut first = [0];
    match stream.peek(&mut first).await {
        // Also what only looks whether the port is open: nothing has failed.
        Ok(0) | Err(_) => return Ok(Opened::Closed),
        Ok(_) => place.spoke(),
    }
    if first[0] != HANDSHAKE_RECORD {
        return Ok(Opened::Plain(stream, WANTS_TLS.to_owned()));
    }
    let stream = accept(stream, tls).await?;
    let certificate = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
    Ok(match certificate.map(tls::identity).transpose() {
        Ok(caller) => Opened::Secure(Box::new(stream), caller),
        Err(why) => Opened::Nameless(Box::new(stream), why),
    })
}

/// The handshake itself.
pub(crate) async fn accept(stream: TcpStream, tls: &ServerTls) -> Result<TlsStream<TcpStream>, Failed> {
    let shaken = tls.acceptor().accept(stream).into_fallible().await;
    shaken.map_err(|(error, stream)| {
        let why = tls::failure(&error);
        let reason = match (why, error.kind()) {
            (HandshakeFailure::Left, ErrorKind::UnexpectedEof) => "it left".to_owned(),
            (HandshakeFailure::Left, _) => format!("it left: {error}"),
            _ => tls::reason(&error),
        };
        Failed { why, reason, stream }
    })
}
