//! Which servers a channel has: those named by address, and those that its names resolve to, again and again.
//!
//! Promises: each address of a name is an endpoint of its own; one that is new joins within the interval; one that several lookups in
//! a row have missed gets no new calls from then on, unless there is no other, and its connections are closed when nothing has been
//! in flight on them for a while; until then it comes back as it was. A name that does not resolve for the moment keeps the servers
//! that it had.
//! Not here: how a name is looked up (`resolver`), the connections (`keeper`), the choice among the servers (`channel`).

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use crate::channel::ChannelConfig;
use crate::endpoint::{Backend, Location, Membership};
use crate::keeper;
use crate::{Endpoint, EndpointId, EndpointState};

/// A resolver that says nothing for so long has failed.
const LONGEST_LOOKUP: Duration = Duration::from_secs(5);

/// When a server of a name cannot be reached, the name is resolved again so soon; each further time after twice as long, up to the
/// usual interval: what has not moved by then may be gone for long.
const LEAST_INTERVAL: Duration = Duration::from_secs(1);

/// More addresses of one name are left out, the same ones each time: each costs connections of every thread.
const MOST_ADDRESSES: usize = 256;

pub(crate) struct Members {
    config: ChannelConfig,
    changed: Arc<watch::Sender<()>>,
    stop: CancellationToken,
    list: RwLock<List>,
    names: Vec<Name>,
}

struct List {
    backends: Vec<Arc<Backend>>,
    next_id: usize,
}

/// An endpoint that is no address.
pub(crate) struct Name {
    id: EndpointId,
    endpoint: Endpoint,
    known: Mutex<Known>,
    /// A call waits for it, or one of its servers cannot be reached: it may have moved.
    wanted: Arc<Notify>,
}

/// What is known of a name.
#[derive(Clone)]
pub(crate) enum Known {
    /// Nothing yet.
    Asked,
    Resolved,
    /// The last attempt failed, at this moment.
    Failed(Arc<str>, Instant),
}

impl Members {
    /// Starts to connect to the addresses and to resolve the names.
    pub(crate) fn start(
        endpoints: Vec<Endpoint>,
        config: ChannelConfig,
        changed: Arc<watch::Sender<()>>,
        stop: CancellationToken,
    ) -> Arc<Self> {
        let mut list = List { backends: Vec::new(), next_id: 0 };
        let mut names = Vec::new();
        for endpoint in endpoints {
            match endpoint.host.parse::<IpAddr>() {
                Ok(ip) => {
                    let address = SocketAddr::new(ip, endpoint.port);
                    let id = list.id();
                    let at = Location { endpoint, address, lost: Arc::default() };
                    list.backends.push(Backend::start(id, at, &config, &changed, &stop));
                }
                Err(_) => names.push(Name {
                    id: list.id(),
                    endpoint,
                    known: Mutex::new(Known::Asked),
                    wanted: Arc::default(),
                }),
            }
        }
        let members = Arc::new(Self { config, changed, stop: stop.clone(), list: RwLock::new(list), names });
        for index in 0..members.names.len() {
            let (members, stop) = (Arc::clone(&members), stop.clone());
            tokio::spawn(async move { stop.run_until_cancelled(members.follow(&members.names[index])).await });
        }
        members
    }

    /// The servers. Held only while choosing: whoever joins or leaves waits for it.
    pub(crate) fn backends(&self) -> Backends<'_> {
        Backends(self.list.read())
    }

    /// What is known of the names that have no server.
    pub(crate) fn missing(&self) -> Vec<Known> {
        let backends = self.backends();
        self.names.iter().filter(|name| !backends.of(name)).map(|name| name.known.lock().clone()).collect()
    }

    /// Lets all that pause between two attempts try at once.
    pub(crate) fn want(&self, meant: impl Fn(&Backend) -> bool) {
        self.backends().iter().filter(|backend| meant(backend)).for_each(|backend| backend.want());
        self.names.iter().for_each(|name| name.wanted.notify_one());
    }

    pub(crate) fn states(&self) -> Vec<EndpointState> {
        let now = Instant::now();
        let backends = self.backends();
        let there = backends.iter().filter(|backend| !backend.is_retired()).map(|backend| backend.state(now));
        let missing = self.names.iter().filter(|name| !backends.of(name)).map(Name::state);
        there.chain(missing).collect()
    }

    /// Resolves a name as long as the channel is there.
    async fn follow(&self, name: &Name) {
        let (mut failures, mut early) = (0, 0_u32);
        loop {
            let tried = Instant::now();
            let reason =
                match timeout(LONGEST_LOOKUP, (self.config.lookup)(&name.endpoint.host, name.endpoint.port)).await {
                    Ok(Ok(found)) if !found.is_empty() => {
                        if self.resolved(name, found) {
                            early = 0;
                        }
                        failures = 0;
                        let soonest = LEAST_INTERVAL.saturating_mul(1 << early.min(16));
                        let mut wanted = false;
                        let moved = async {
                            name.wanted.notified().await;
                            wanted = true;
                            tokio::time::sleep_until(tried + soonest).await;
                        };
                        // Not in step with the other threads and processes. Past the time: it is due.
                        let _ = timeout(self.config.resolve.mul_f64(0.75 + fastrand::f64() / 2.0), moved).await;
                        early = if wanted { early + 1 } else { 0 };
                        continue;
                    }
                    Ok(Ok(_)) => "the name has no address".to_owned(),
                    Ok(Err(error)) => error.to_string(),
                    Err(_) => format!("the name did not resolve within {} s", LONGEST_LOOKUP.as_secs()),
                };
            let reason = Arc::from(format!("{}: {reason}", name.endpoint));
            let keeps = self.backends().of(name);
            if keeps && failures == 0 {
                tracing::warn!(%reason, "a name of servers does not resolve, its servers are kept");
            }
            *name.known.lock() = Known::Failed(reason, Instant::now());
            self.changed.send_replace(());
            match keeps {
                true => tokio::time::sleep(self.config.resolve).await,
                false => keeper::pause(tried, failures, keeper::FIRST_PAUSE, &name.wanted).await,
            }
            failures += 1;
        }
    }

    /// Whether servers have joined or left.
    fn resolved(&self, name: &Name, found: Vec<SocketAddr>) -> bool {
        // Resolvers answer in any order.
        let found: BTreeSet<SocketAddr> = found.into_iter().collect();
        let mut addresses: BTreeSet<SocketAddr> = found.into_iter().take(MOST_ADDRESSES).collect();
        let mut list = self.list.write();
        let mut changed = false;
        list.backends.retain(|backend| !backend.is_over());
        for backend in list.backends.iter().filter(|backend| backend.endpoint == name.endpoint) {
            if !addresses.contains(&backend.address) {
                if backend.missed() {
                    tracing::info!(server = %backend.label, "server has left, its name resolves to it no more");
                    self.config.observe.left();
                    changed = true;
                }
                continue;
            }
            match backend.found() {
                Membership::Member => {}
                Membership::Retired => {
                    tracing::info!(server = %backend.label, "server is back");
                    self.config.observe.joined();
                    changed = true;
                }
                // Another one begins beside it.
                Membership::Ending => continue,
            }
            addresses.remove(&backend.address);
        }
        changed |= !addresses.is_empty();
        for address in addresses {
            let at = Location { endpoint: name.endpoint.clone(), address, lost: Arc::clone(&name.wanted) };
            let backend = Backend::start(list.id(), at, &self.config, &self.changed, &self.stop);
            tracing::info!(server = %backend.label, "server has joined");
            self.config.observe.joined();
            list.backends.push(backend);
        }
        drop(list);
        *name.known.lock() = Known::Resolved;
        self.changed.send_replace(());
        changed
    }
}

/// The servers at this moment.
pub(crate) struct Backends<'a>(RwLockReadGuard<'a, List>);

impl Backends<'_> {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Arc<Backend>> {
        self.0.backends.iter()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.backends.len()
    }

    /// Whether a name has a server.
    fn of(&self, name: &Name) -> bool {
        self.iter().any(|backend| name.has(backend))
    }
}

impl List {
    fn id(&mut self) -> EndpointId {
        self.next_id += 1;
        EndpointId(self.next_id - 1)
    }
}

impl Name {
    fn has(&self, backend: &Backend) -> bool {
        backend.endpoint == self.endpoint && !backend.is_retired()
    }

    fn state(&self) -> EndpointState {
        let reason = match &*self.known.lock() {
            Known::Failed(reason, _) => Some(reason.to_string()),
            Known::Asked | Known::Resolved => None,
        };
        EndpointState {
            id: self.id,
            address: self.endpoint.to_string(),
            connected: false,
            reason,
            in_flight: 0,
            ewma: Duration::ZERO,
            ejected: false,
            leaving: false,
        }
    }
}
