//! Accepts connections, as many as allowed, until the drain has ended.
//!
//! Why also during it: whoever asks how the server is must find it, or a server that is told to stop looks dead and is
//! killed with its calls in flight.

use std::collections::HashMap;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::budget::Budget;
use crate::connection::Connection;
use crate::handshake::{self, Handshakes, Opened};
use crate::{Drain, Limit, Observe, Peer, ServerLimits, ServerStats, ServerTls, Service, TlsChange, socket};

/// Pause after `accept` failed for want of file descriptors or memory, doubled up to [`LONGEST_PAUSE`]: without it the
/// loop would spin, because the connection stays in the backlog.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Framed Thrift on one or more listeners.
pub struct Server {
    listeners: Vec<TcpListener>,
    limits: ServerLimits,
    tls: Option<ServerTls>,
    observe: Arc<dyn Observe>,
}

/// What all connections of one server share.
pub(crate) struct Shared<S> {
    pub(crate) service: Arc<S>,
    pub(crate) limits: ServerLimits,
    pub(crate) budget: Arc<Budget>,
    pub(crate) observe: Arc<dyn Observe>,
    pub(crate) drain: Drain,
    /// Connections with something in flight that was there when the drain began; before that, all of them.
    pub(crate) busy: TaskTracker,
    /// The drain has ended: whoever is still connected is let go.
    pub(crate) drained: CancellationToken,
    pub(crate) notices: Notices,
    pub(crate) tls: Option<ServerTls>,
    pub(crate) handshakes: Handshakes,
}

impl Server {
    /// Listens on `address`; port 0 lets the system choose, see [`Server::local_addr`].
    ///
    /// # Errors
    /// Those of `bind` and `listen`.
    pub async fn bind(address: SocketAddr, limits: ServerLimits) -> io::Result<Self> {
        Ok(Self::from_listeners(vec![socket::listen(address)?], limits))
    }

    /// Serves listeners that are open already.
    #[must_use]
    pub fn from_listeners(listeners: Vec<TcpListener>, limits: ServerLimits) -> Self {
        Self { listeners, limits, tls: None, observe: Arc::new(ServerStats::default()) }
    }

    /// Speaks TLS, and nothing else, on all listeners.
    #[must_use]
    pub fn secured_by(mut self, tls: ServerTls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Tells everything to `observe`.
    #[must_use]
    pub fn observed_by(mut self, observe: Arc<dyn Observe>) -> Self {
        self.observe = observe;
        self
    }

    /// The address of the first listener.
    ///
    /// # Errors
    /// That of `getsockname`; or when there is no listener.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listeners.first().ok_or(io::ErrorKind::AddrNotAvailable)?.local_addr()
    }

    /// Serves until the drain has ended. Dropping the future drops every connection.
    pub async fn serve<S: Service>(self, service: Arc<S>, drain: Drain) {
        let _running = drain.register();
        let Self { listeners, limits, tls, observe } = self;
        let shared = Arc::new(Shared { tls, ..Shared::new(service, limits, observe, drain) });
        let mut connections = JoinSet::new();
        let in_time = tokio::select! {
            biased;
            in_time = shared.drained_in_time() => in_time,
            never = follow_certificate(&shared) => match never {},
            never = accept_all(&listeners, &shared, &mut connections) => match never {},
        };
        drop(listeners);
        if !in_time {
            tracing::warn!(connections = connections.len(), "drain took too long, the rest is cut");
            connections.shutdown().await;
        }
        // Each takes a moment to say goodbye, and no longer.
        shared.drained.cancel();
        while connections.join_next().await.is_some() {}
    }
}

impl<S> Shared<S> {
    pub(crate) fn new(service: Arc<S>, limits: ServerLimits, observe: Arc<dyn Observe>, drain: Drain) -> Self {
        Self {
            service,
            limits,
            budget: Budget::new(limits.bytes_in_flight, limits.frame().bytes(), Arc::clone(&observe)),
            observe,
            drain,
            busy: TaskTracker::new(),
            drained: CancellationToken::new(),
            notices: Notices::default(),
            tls: None,
            handshakes: Handshakes::default(),
        }
    }

    /// Resolves when nothing is in flight any more that was there when the drain began, or when its time is over.
    async fn drained_in_time(&self) -> bool {
        self.drain.started().await;
        let done = async {
            loop {
                // Before the connections: the last call of such work ends on one.
                self.drain.let_go().await;
                self.busy.close();
                self.busy.wait().await;
                // The last calls in flight may have begun such work.
                if !self.drain.is_held() {
                    break;
                }
            }
        };
        tokio::time::timeout(self.drain.limit(), done).await.is_ok()
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listeners", &self.listeners).field("limits", &self.limits).finish()
    }
}

/// When accepting goes on after failures.
#[derive(Default)]
struct Pause {
    last: Duration,
    until: Option<Instant>,
}

impl Pause {
    fn after_failure(&mut self, now: Instant) {
        self.last = (self.last * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.until = Some(now + self.last);
    }
}

async fn accept_all<S: Service>(
    listeners: &[TcpListener],
    shared: &Arc<Shared<S>>,
    connections: &mut JoinSet<()>,
) -> Infallible {
    let mut pause = Pause::default();
    loop {
        let accepted = tokio::select! {
            biased;
            Some(ended) = connections.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    tracing::error!("connection task panicked");
                }
                continue;
            }
            accepted = accept(listeners, pause.until) => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = Pause::default();
                admit(stream, address, shared, connections);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                pause.after_failure(Instant::now());
                shared.observe.accept_failed();
                if shared.notices.is_due(None) {
                    tracing::warn!(%error, "accept failed, clients wait in the backlog");
                }
            }
        }
    }
}

/// The next connection of any listener, not before `from`: an instant, because the wait begins anew whenever a
/// connection ends.
async fn accept(listeners: &[TcpListener], from: Option<Instant>) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(from) = from {
        tokio::time::sleep_until(from).await;
    }
    let mut first = fastrand::usize(..listeners.len().max(1));
    std::future::poll_fn(move |cx| {
        for _ in 0..listeners.len() {
            first = (first + 1) % listeners.len();
            if let Poll::Ready(accepted) = listeners[first].poll_accept(cx) {
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    })
    .await
}

fn concerns_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(error.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}

fn admit<S: Service>(stream: TcpStream, address: SocketAddr, shared: &Arc<Shared<S>>, connections: &mut JoinSet<()>) {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    if connections.len() >= shared.limits.connections {
        shared.observe.limit(Limit::Connections);
        if shared.notices.is_due(None) {
            tracing::warn!(limit = shared.limits.connections, "connection refused, too many are open");
        }
        return;
    }
    if let Err(error) = socket::tune(&stream) {
        // The peer has left already; the first read will say so.
        tracing::debug!(%error, %address, "socket options not set");
    }
    let peer = Peer::new(address, NEXT.fetch_add(1, Relaxed));
    let closed = peer.closing();
    match &shared.tls {
        None => {
            let connection = Connection::new(stream, Arc::new(peer), Arc::clone(shared));
            connections.spawn(async move {
                let _closed = closed;
                connection.run().await;
            });
        }
        Some(tls) => {
            let (tls, shared) = (tls.clone(), Arc::clone(shared));
            connections.spawn(async move {
                let _closed = closed;
                secure(stream, &tls, peer, shared).await;
            });
        }
    }
}

/// A connection on a listener with TLS, from handshake to end.
async fn secure<S: Service>(stream: TcpStream, tls: &ServerTls, mut peer: Peer, shared: Arc<Shared<S>>) {
    let Some(place) = handshake::admit(&peer, &shared) else { return };
    match handshake::open(stream, tls, &peer, &shared, &place).await {
        Opened::Secure(stream, caller) => {
            drop(place);
            peer.identity = caller;
            Connection::new(*stream, Arc::new(peer), shared).run().await;
        }
        Opened::Nameless(stream, why) => {
            drop(place);
            Connection::refused(*stream, Arc::new(peer), shared, why).run().await;
        }
        Opened::Plain(stream, why) => {
            // One byte must not be the way around the limit on those who say nothing.
            place.keep(Connection::refused(stream, Arc::new(peer), shared, why).run()).await;
        }
        Opened::Closed => {}
    }
}

/// Follows the files of the certificate, if there is one, and tells of it.
async fn follow_certificate<S>(shared: &Shared<S>) -> Infallible {
    let Some(tls) = &shared.tls else { return std::future::pending().await };
    let expires = |at: SystemTime| {
        shared.observe.certificate(at);
        let until = humantime::format_rfc3339_seconds(at);
        if at <= SystemTime::now() {
            tracing::error!(%until, "the certificate in use has expired, clients will refuse it");
        } else {
            tracing::info!(%until, mutual = tls.is_mutual(), "certificate in use");
        }
    };
    expires(tls.expires());
    let tell = |change| match change {
        TlsChange::Used { .. } => expires(tls.expires()),
        TlsChange::Kept(error) => {
            shared.observe.certificate_unusable();
            tracing::error!(%error, "the changed files of the certificate cannot be used, what was there before is");
        }
    };
    tls.clone().follow(tell).await
}

/// Keeps a peer from filling the log: one line a minute for an address, and one for what concerns nobody in particular.
#[derive(Default)]
pub(crate) struct Notices(Mutex<HashMap<Option<IpAddr>, Instant>>);

impl Notices {
    const EVERY: Duration = Duration::from_secs(60);
    const MOST: usize = 1024;

    pub(crate) fn is_due(&self, about: Option<IpAddr>) -> bool {
        let now = Instant::now();
        let mut last = self.0.lock();
        if last.get(&about).is_some_and(|last| now - *last < Self::EVERY) {
            return false;
        }
        if last.len() >= Self::MOST {
            last.retain(|_, last| now - *last < Self::EVERY);
        }
        // Still full: a flood from many addresses, which one line a minute cannot describe anyway.
        if last.len() >= Self::MOST {
            return false;
        }
        last.insert(about, now);
        true
    }
}

#[cfg(test)]
mod tests;
