//! Accepts connections, as many as allowed, until the drain.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::Poll;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::budget::Budget;
use crate::connection::Connection;
use crate::{Drain, Limit, Observe, Peer, ServerLimits, ServerStats, Service, socket};

/// Pause after `accept` failed for want of file descriptors or memory, doubled up to [`LONGEST_PAUSE`]: without it the
/// loop would spin, because the connection stays in the backlog.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Framed Thrift on one or more listeners.
pub struct Server {
    listeners: Vec<TcpListener>,
    limits: ServerLimits,
    observe: Arc<dyn Observe>,
}

/// What all connections of one server share.
pub(crate) struct Shared<S> {
    pub(crate) service: Arc<S>,
    pub(crate) limits: ServerLimits,
    pub(crate) budget: Arc<Budget>,
    pub(crate) observe: Arc<dyn Observe>,
    pub(crate) drain: Drain,
    pub(crate) notices: Notices,
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
        Self { listeners, limits, observe: Arc::new(ServerStats::default()) }
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
        let Self { listeners, limits, observe } = self;
        let shared = Arc::new(Shared {
            service,
            limits,
            budget: Budget::new(limits.bytes_in_flight, limits.frame().bytes(), Arc::clone(&observe)),
            observe,
            drain,
            notices: Notices::default(),
        });
        let mut connections = JoinSet::new();
        accept_until_drain(&listeners, &shared, &mut connections).await;
        drop(listeners);

        let limit = shared.drain.limit();
        let all_ended = async { while connections.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all_ended).await.is_err() {
            tracing::warn!(connections = connections.len(), "drain took too long, the rest is cut");
            connections.shutdown().await;
        }
    }
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server").field("listeners", &self.listeners).field("limits", &self.limits).finish()
    }
}

async fn accept_until_drain<S: Service>(
    listeners: &[TcpListener],
    shared: &Arc<Shared<S>>,
    connections: &mut JoinSet<()>,
) {
    let mut draining = pin!(shared.drain.started());
    let mut pause = None;
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut draining => return,
            Some(ended) = connections.join_next() => {
                if ended.is_err_and(|error| error.is_panic()) {
                    tracing::error!("connection task panicked");
                }
                continue;
            }
            accepted = accept(listeners, pause) => accepted,
        };
        match accepted {
            Ok((stream, address)) => {
                pause = None;
                admit(stream, address, shared, connections);
            }
            Err(error) if concerns_one_connection(&error) => {}
            Err(error) => {
                let next = pause.map_or(FIRST_PAUSE, |last: Duration| (last * 2).min(LONGEST_PAUSE));
                pause = Some(next);
                shared.observe.accept_failed();
                if shared.notices.is_due(None) {
                    tracing::warn!(%error, "accept failed, clients wait in the backlog");
                }
            }
        }
    }
}

/// The next connection of any listener, after the pause.
async fn accept(listeners: &[TcpListener], pause: Option<Duration>) -> io::Result<(TcpStream, SocketAddr)> {
    if let Some(pause) = pause {
        tokio::time::sleep(pause).await;
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
    let peer = Arc::new(Peer::new(address, NEXT.fetch_add(1, Relaxed)));
    connections.spawn(Connection::new(stream, peer, Arc::clone(shared)).run());
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
