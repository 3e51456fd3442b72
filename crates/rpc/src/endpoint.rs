//! One server as a channel sees it: its address, its connections, and the tasks that keep them up.
//!
//! Promises: an endpoint is always connected or being connected, one attempt at a time for each connection, with
//! growing jittered pauses of at most a second, so that a server that is back is noticed within about one.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::net::TcpStream;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::ChannelConfig;
use crate::link::Link;
use crate::load::Load;
use crate::socket::{self, Stream};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_millis(800);

/// A connection that lived shorter than this counts as a failed attempt: a server at its limit accepts and closes.
const SHORT_LIFE: Duration = Duration::from_secs(1);

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint `{0}` is not host:port")]
pub struct EndpointError(String);

/// Where a server listens. A name is resolved anew at each attempt to connect.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    host: Arc<str>,
    port: u16,
}

impl Endpoint {
    /// `host:port`, with an IPv6 address in brackets.
    ///
    /// # Errors
    /// When there is no host or the port is not a number from 1 to 65535.
    pub fn parse(text: &str) -> Result<Self, EndpointError> {
        let wrong = || EndpointError(text.to_owned());
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let host = match host.strip_prefix('[') {
            Some(rest) => rest.strip_suffix(']').ok_or_else(wrong)?,
            None if host.contains(':') => return Err(wrong()),
            None => host,
        };
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        if host.is_empty() || host.contains(|c: char| c.is_whitespace() || c == '/') {
            return Err(wrong());
        }
        Ok(Self { host: Arc::from(host), port })
    }
}

impl From<SocketAddr> for Endpoint {
    fn from(address: SocketAddr) -> Self {
        Self { host: Arc::from(address.ip().to_string()), port: address.port() }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        Self::parse(text)
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// An endpoint's place in its channel's list.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub(crate) usize);

/// How an endpoint is doing.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// To address calls to it, see [`CallOptions::endpoint`](crate::CallOptions).
    pub id: EndpointId,
    /// `host:port` as configured.
    pub address: String,
    /// Whether at least one connection is up.
    pub connected: bool,
    /// Why not, when an attempt has failed.
    pub reason: Option<String>,
    /// Calls in flight.
    pub in_flight: usize,
    /// Peak-sensitive average latency.
    pub ewma: Duration,
    /// Whether it is left out of choice after failures in a row.
    pub ejected: bool,
}

/// The state of one connection.
#[derive(Clone)]
enum State {
    /// No attempt has ended since it was last up.
    Connecting,
    Up(Arc<Link>),
    Down(Arc<str>),
}

pub(crate) struct Backend {
    pub(crate) id: EndpointId,
    pub(crate) endpoint: Endpoint,
    pub(crate) load: Load,
    links: Vec<Mutex<State>>,
}

/// What an endpoint can offer a call.
pub(crate) enum Offer {
    Link(Arc<Link>),
    /// An attempt to connect is under way and none has failed yet.
    Soon,
    /// The last attempt failed.
    Down(Arc<str>),
}

impl Backend {
    /// Starts to connect. `changed` is told of every change, `stop` ends it all.
    pub(crate) fn start(
        id: EndpointId,
        endpoint: Endpoint,
        config: &ChannelConfig,
        changed: &Arc<watch::Sender<()>>,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let links = (0..config.connections.max(1)).map(|_| Mutex::new(State::Connecting)).collect();
        let backend = Arc::new(Self { id, endpoint, load: Load::new(), links });
        for slot in 0..backend.links.len() {
            let keeper = Keeper {
                backend: Arc::clone(&backend),
                slot,
                config: config.clone(),
                changed: Arc::clone(changed),
                stop: stop.clone(),
            };
            tokio::spawn(keeper.run());
        }
        backend
    }

    /// The connection with the fewest calls, or why there is none.
    pub(crate) fn offer(&self) -> Offer {
        let mut best: Option<(usize, Arc<Link>)> = None;
        let mut soon = false;
        let mut down = None;
        for slot in &self.links {
            match &*slot.lock() {
                State::Up(link) if !link.is_gone() => {
                    let calls = link.in_flight();
                    if best.as_ref().is_none_or(|(least, _)| calls < *least) {
                        best = Some((calls, Arc::clone(link)));
                    }
                }
                State::Up(_) | State::Connecting => soon = true,
                State::Down(reason) => down = Some(Arc::clone(reason)),
            }
        }
        match (best, soon, down) {
            (Some((_, link)), ..) => Offer::Link(link),
            (None, false, Some(reason)) => Offer::Down(reason),
            (None, ..) => Offer::Soon,
        }
    }

    pub(crate) fn state(&self, now: Instant) -> EndpointState {
        let offer = self.offer();
        EndpointState {
            id: self.id,
            address: self.endpoint.to_string(),
            connected: matches!(offer, Offer::Link(_)),
            reason: if let Offer::Down(reason) = offer { Some(reason.to_string()) } else { None },
            in_flight: self.load.in_flight(),
            ewma: self.load.latency(now),
            ejected: self.load.is_ejected(now),
        }
    }
}

/// Keeps one connection up.
struct Keeper {
    backend: Arc<Backend>,
    slot: usize,
    config: ChannelConfig,
    changed: Arc<watch::Sender<()>>,
    stop: CancellationToken,
}

impl Keeper {
    async fn run(self) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_up()).await;
        let last = std::mem::replace(&mut *self.backend.links[self.slot].lock(), State::Connecting);
        if let State::Up(link) = last {
            link.close("the channel was dropped");
        }
    }

    async fn keep_up(&self) {
        let mut failures = 0;
        loop {
            let reason = match self.connect().await {
                Ok(stream) => {
                    let began = Instant::now();
                    let link = Link::open(stream, self.config.frames(), self.config.calls_per_connection);
                    self.set(State::Up(Arc::clone(&link)));
                    link.closed().await;
                    if began.elapsed() >= SHORT_LIFE {
                        failures = 0;
                        self.set(State::Connecting);
                        continue;
                    }
                    Arc::from("closed by the server right after connecting")
                }
                Err(reason) => reason,
            };
            // The first short life may be a restart: go again at once, and let calls wait for it.
            let goes_again = failures == 0 && matches!(&*self.backend.links[self.slot].lock(), State::Up(_));
            self.set(if goes_again { State::Connecting } else { State::Down(reason) });
            if !goes_again {
                tokio::time::sleep(pause(failures)).await;
            }
            failures += 1;
        }
    }

    fn set(&self, state: State) {
        *self.backend.links[self.slot].lock() = state;
        self.changed.send_replace(());
    }

    /// Tries the addresses of the name in turn, from a random one on, within the time for connecting.
    async fn connect(&self) -> Result<Stream, Arc<str>> {
        let limit = self.config.connect_timeout;
        match tokio::time::timeout(limit, self.connect_any()).await {
            Ok(Ok(stream)) => Ok(stream),
            Ok(Err(error)) => Err(Arc::from(format!("{}: {error}", self.backend.endpoint))),
            Err(_) => {
                let millis = limit.as_millis();
                Err(Arc::from(format!("{}: no connection within {millis} ms", self.backend.endpoint)))
            }
        }
    }

    async fn connect_any(&self) -> std::io::Result<Stream> {
        let Endpoint { host, port } = &self.backend.endpoint;
        let mut addresses: Vec<SocketAddr> = tokio::net::lookup_host((&**host, *port)).await?.collect();
        if !addresses.is_empty() {
            let first = fastrand::usize(..addresses.len());
            addresses.rotate_left(first);
        }
        let mut last = std::io::Error::new(std::io::ErrorKind::NotFound, "name has no address");
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    socket::tune(&stream)?;
                    return Ok(Stream::Plain(stream));
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Doubled for each failure, from half to the whole of it, so that many clients do not come back in step.
fn pause(failures: u32) -> Duration {
    let longest = FIRST_PAUSE.saturating_mul(1 << failures.min(10)).min(LONGEST_PAUSE);
    longest.mul_f64(0.5 + fastrand::f64() / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn endpoints_are_host_and_port() {
        for text in ["localhost:9090", "127.0.0.1:1", "[::1]:9090", "gpu-1.internal:65535"] {
            assert_eq!(Endpoint::parse(text).map(|endpoint| endpoint.to_string()), Ok(text.to_owned()));
        }
        for text in ["", "localhost", ":9090", "localhost:0", "localhost:65536", "::1:9090", "http://h:1", "[::1:9090"]
        {
            assert!(Endpoint::parse(text).is_err(), "{text}");
        }
        let address: SocketAddr = "[::1]:9090".parse().expect("an address");
        assert_eq!(Endpoint::from(address).to_string(), "[::1]:9090");
    }

    #[test]
    fn pauses_grow_to_less_than_a_second() {
        for failures in 0..100 {
            let pause = pause(failures);
            assert!(pause >= FIRST_PAUSE / 2 && pause <= LONGEST_PAUSE, "{failures}: {pause:?}");
        }
        assert!(pause(10) >= LONGEST_PAUSE / 2);
    }
}
