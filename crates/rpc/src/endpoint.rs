//! One server as a channel sees it: its address, its connections, and what they can offer a call.
//!
//! Not here: keeping the connections up (`keeper`), what speaks for one server and against another (`load`).

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::channel::ChannelConfig;
use crate::keeper::Keeper;
use crate::link::Link;
use crate::load::Load;

/// Why a text is not an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("endpoint `{0}` is not host:port")]
pub struct EndpointError(String);

/// Where a server listens. A name stands for as many servers as it has addresses, and is resolved again and again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
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

/// Names an endpoint of a channel. Addresses have the places in the list that the channel was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EndpointId(pub(crate) usize);

/// How an endpoint is doing.
#[derive(Clone, Debug)]
pub struct EndpointState {
    /// To address calls to it, see [`CallOptions::endpoint`](crate::CallOptions).
    pub id: EndpointId,
    /// `host:port` as configured, of a name with the address that is meant.
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
    /// Whether it says that it takes no new calls, as while it drains.
    pub leaving: bool,
}

impl EndpointState {
    /// Whether new calls go there.
    #[must_use]
    pub fn takes_calls(&self) -> bool {
        self.connected && !self.ejected && !self.leaving
    }
}

/// The state of one connection.
#[derive(Clone)]
pub(crate) enum State {
    /// No attempt has ended since it was last up.
    Connecting,
    Up(Arc<Link>),
    /// The last attempt failed, at this moment.
    Down(Arc<str>, Instant),
}

/// The place of one connection.
pub(crate) struct Slot {
    pub(crate) state: Mutex<State>,
    /// A call waits for it: its pause is over.
    pub(crate) wanted: Notify,
}

pub(crate) struct Backend {
    pub(crate) id: EndpointId,
    /// As configured: a name, perhaps.
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    /// What it is called in messages.
    pub(crate) label: Arc<str>,
    pub(crate) load: Load,
    pub(crate) slots: Vec<Slot>,
    membership: watch::Sender<Membership>,
    /// Lookups in a row in which its name did not resolve to it.
    absences: AtomicU32,
    /// Keepers that have not ended.
    keepers: AtomicUsize,
    /// To be told when it cannot be reached.
    pub(crate) lost: Arc<Notify>,
}

/// Whether a server's name stands for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Membership {
    Member,
    /// It resolves to it no more: it gets calls only while there is no other, and ends when it was not used for a while.
    Retired,
    /// A connection of it has ended for that, so that it does not come back.
    Ending,
}

/// So many lookups in a row must miss an address before its server leaves: there are name servers that answer with a part of what
/// they know, another one each time, and answers that were cut on the way.
const ABSENCES: u32 = 3;

/// Where a server is.
pub(crate) struct Location {
    /// As configured: a name, perhaps.
    pub(crate) endpoint: Endpoint,
    pub(crate) address: SocketAddr,
    /// Is told when it cannot be reached.
    pub(crate) lost: Arc<Notify>,
}

/// What an endpoint can offer a call.
pub(crate) enum Offer {
    /// So many calls are in flight on it.
    Link(Arc<Link>, usize),
    /// An attempt to connect is under way and none has failed yet.
    Soon,
    /// The last attempt failed, at this moment.
    Down(Arc<str>, Instant),
}

impl Backend {
    /// Starts to connect. `changed` is told of every change, `stop` ends it all.
    pub(crate) fn start(
        id: EndpointId,
        at: Location,
        config: &ChannelConfig,
        changed: &Arc<watch::Sender<()>>,
        stop: &CancellationToken,
    ) -> Arc<Self> {
        let slot = |_| Slot { state: Mutex::new(State::Connecting), wanted: Notify::new() };
        let slots: Vec<Slot> = (0..config.connections.max(1)).map(slot).collect();
        let Location { endpoint, address, lost } = at;
        let label = match Endpoint::from(address) == endpoint {
            true => endpoint.to_string(),
            false => format!("{endpoint} ({})", address.ip()),
        };
        let backend = Arc::new(Self {
            id,
            endpoint,
            address,
            label: Arc::from(label),
            load: Load::new(config.ejection, config.ping.as_ref().map(|ping| ping.every)),
            keepers: AtomicUsize::new(slots.len()),
            slots,
            membership: watch::Sender::new(Membership::Member),
            absences: AtomicU32::new(0),
            lost,
        });
        for slot in 0..backend.slots.len() {
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
        let mut down: Option<(Arc<str>, Instant)> = None;
        for slot in &self.slots {
            match &*slot.state.lock() {
                State::Up(link) if !link.is_gone() => {
                    let calls = link.in_flight();
                    if best.as_ref().is_none_or(|(least, _)| calls < *least) {
                        best = Some((calls, Arc::clone(link)));
                    }
                }
                State::Up(_) | State::Connecting => soon = true,
                // The oldest, so that what is said of all of them is true.
                State::Down(reason, at) => {
                    if down.as_ref().is_none_or(|(_, oldest)| at < oldest) {
                        down = Some((Arc::clone(reason), *at));
                    }
                }
            }
        }
        match (best, soon, down) {
            (Some((calls, link)), ..) => Offer::Link(link, calls),
            (None, false, Some((reason, at))) => Offer::Down(reason, at),
            (None, ..) => Offer::Soon,
        }
    }

    /// Its name did not resolve to it; whether it leaves for that.
    pub(crate) fn missed(&self) -> bool {
        self.absences.fetch_add(1, Relaxed) + 1 >= ABSENCES
            && self.membership.send_if_modified(|membership| {
                let leaves = *membership == Membership::Member;
                if leaves {
                    *membership = Membership::Retired;
                }
                leaves
            })
    }

    /// Its name resolves to it: it stays, or comes back with all that is known of it, unless it is ending. What it was before.
    pub(crate) fn found(&self) -> Membership {
        self.absences.store(0, Relaxed);
        let mut before = Membership::Member;
        self.membership.send_if_modified(|membership| {
            before = *membership;
            if before == Membership::Retired {
                *membership = Membership::Member;
            }
            before == Membership::Retired
        });
        before
    }

    /// Lets it end; not when it has come back.
    pub(crate) fn end(&self) -> bool {
        self.membership.send_if_modified(|membership| {
            let ends = *membership != Membership::Member;
            if ends {
                *membership = Membership::Ending;
            }
            ends
        })
    }

    pub(crate) fn is_retired(&self) -> bool {
        *self.membership.borrow() != Membership::Member
    }

    /// Resolves when it is retired.
    pub(crate) async fn retired(&self) {
        // It has its own sender.
        let _ = self.membership.subscribe().wait_for(|membership| *membership != Membership::Member).await;
    }

    /// Notes the end of a keeper.
    pub(crate) fn kept_no_more(&self) {
        self.keepers.fetch_sub(1, Relaxed);
    }

    /// Whether it has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.keepers.load(Relaxed) == 0
    }

    /// Lets the next attempts to connect begin now.
    pub(crate) fn want(&self) {
        for slot in &self.slots {
            slot.wanted.notify_one();
        }
    }

    pub(crate) fn state(&self, now: Instant) -> EndpointState {
        let offer = self.offer();
        EndpointState {
            id: self.id,
            address: self.label.to_string(),
            connected: matches!(offer, Offer::Link(..)),
            reason: if let Offer::Down(reason, _) = offer { Some(reason.to_string()) } else { None },
            in_flight: self.load.in_flight(),
            ewma: self.load.latency(now),
            ejected: self.load.is_ejected(now),
            leaving: self.load.standing(now).leaving,
        }
    }
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
}
