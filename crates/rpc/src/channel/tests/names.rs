//! Servers that a name stands for.

use super::*;

/// Less than usual, so that it can be waited for.
const LINGER: Duration = Duration::from_secs(3);

/// A name server with one name.
#[derive(Clone, Default)]
struct Zone(Arc<parking_lot::Mutex<Vec<SocketAddr>>>);

impl Zone {
    fn set(&self, addresses: &[SocketAddr]) {
        *self.0.lock() = addresses.to_vec();
    }

    /// A channel to whatever the name stands for.
    fn channel(&self) -> (Channel, Arc<ChannelStats>) {
        self.channel_with(Duration::from_millis(20))
    }

    fn channel_with(&self, resolve: Duration) -> (Channel, Arc<ChannelStats>) {
        let zone = self.0.clone();
        let (channel, stats, _) = following(resolve, move |_| zone.lock().clone());
        (channel, stats)
    }
}

/// A channel to a name that is looked up so often, what becomes of its servers, and how often it was looked up.
fn following(
    resolve: Duration,
    answer: impl Fn(usize) -> Vec<SocketAddr> + Send + Sync + 'static,
) -> (Channel, Arc<ChannelStats>, watch::Receiver<usize>) {
    let (lookups, looked_up) = watch::channel(0);
    let lookup: Lookup = Arc::new(move |host, port| {
        assert_eq!((host, port), ("servers.test", 9090));
        let found = answer(*lookups.borrow());
        lookups.send_modify(|lookups| *lookups += 1);
        Box::pin(async move {
            match found.is_empty() {
                true => Err(std::io::Error::other("no such name")),
                false => Ok(found),
            }
        })
    });
    let stats = Arc::new(ChannelStats::default());
    let observe = Arc::clone(&stats) as _;
    let config = ChannelConfig { lookup, resolve, linger: LINGER, observe, ..ChannelConfig::default() };
    (Channel::new(vec![Endpoint::parse("servers.test:9090").expect("it is one")], config), stats, looked_up)
}

#[tokio::test]
async fn addresses_of_a_name_join_and_leave() {
    let servers = [serve(ServerLimits::default()).await, serve(ServerLimits::default()).await];
    let zone = Zone::default();
    zone.set(&[servers[0].address]);
    let (channel, stats) = zone.channel();
    echo(&channel, "x").await.expect("the first one answers");
    let first = channel.endpoints()[0].clone();
    assert!(first.address.starts_with("servers.test:9090 (127.0.0.1"), "{first:?}");

    zone.set(&[servers[1].address, servers[0].address]);
    until(&channel, |endpoints| endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint.connected)).await;
    assert_eq!(channel.endpoints()[0].id, first.id, "who is there already stays as it is");
    in_time(async {
        while servers[1].notes.happened().started == 0 {
            echo(&channel, "x").await.expect("one of them answers");
        }
    })
    .await;

    let held = tokio::spawn({
        let (channel, only) = (channel.clone(), soon().with_endpoint(first.id));
        async move { channel.call(&HOLD, &mut Note::of("x"), only).await }
    });
    let before = servers[0].notes.happened().started + 1;
    servers[0].notes.until(|happened| happened.started == before).await;
    zone.set(&[servers[1].address]);
    until(&channel, |endpoints| endpoints.len() == 1).await;
    for key in 0..50 {
        let answer = channel.call(&ECHO, &mut Note::of("x"), soon().with_affinity(key)).await;
        answer.expect("it arrives").expect("a result");
    }
    assert_eq!(servers[0].notes.happened().started, before, "new calls go to the other one");
    // What was begun there goes on there.
    let only = soon().with_endpoint(first.id);
    channel.call(&ECHO, &mut Note::of("x"), only).await.expect("it arrives").expect("a result");
    servers[0].notes.open("x");
    assert_eq!(held.await.expect("no panic").expect("it arrives").expect("a result").data, "x");
    until_connections(&servers[0], 0).await;
    let gone = channel.call(&ECHO, &mut Note::of("x"), only).await;
    assert!(matches!(gone, Err(ChannelError::Unreachable { endpoints: 1, .. })), "{gone:?}");
    assert_eq!((stats.joined.load(Relaxed), stats.left.load(Relaxed)), (2, 1));
}

#[tokio::test]
async fn a_name_that_does_not_resolve_keeps_its_servers_and_without_any_says_why() {
    let server = serve(ServerLimits::default()).await;
    let zone = Zone::default();
    let (channel, stats) = zone.channel();
    let error = echo(&channel, "x").await.expect_err("nobody is known");
    assert!(
        matches!(&error, ChannelError::Unreachable { endpoints: 1, reason } if reason.contains("no such name")),
        "{error}"
    );
    zone.set(&[server.address]);
    echo(&channel, "x").await.expect("the call has it looked up again");
    zone.set(&[]);
    for _ in 0..20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        echo(&channel, "x").await.expect("the server is kept");
    }
    assert_eq!((stats.joined.load(Relaxed), stats.left.load(Relaxed)), (1, 0));
}

#[tokio::test]
async fn a_server_that_is_lost_has_its_name_resolved_again() {
    let (first, second) = (serve(ServerLimits::default()).await, serve(ServerLimits::default()).await);
    let zone = Zone::default();
    zone.set(&[first.address]);
    let (channel, _) = zone.channel_with(Duration::from_secs(3_600));
    echo(&channel, "x").await.expect("the first one answers");
    zone.set(&[second.address]);
    first.drain.start();
    first.task.await.expect("the server ends");
    until(&channel, |endpoints| endpoints.iter().any(|endpoint| endpoint.connected)).await;
    echo(&channel, "x").await.expect("the second one answers");
}

/// Each lookup found others, so that servers came and went all the time.
#[tokio::test]
async fn more_addresses_than_are_used_are_the_same_in_any_order() {
    let nobody = |place: usize| SocketAddr::from(([127, 1, (place / 250) as u8, (place % 250) as u8 + 1], 9));
    let answer = move |lookup| (0..400).map(|place| nobody((place + 150 * lookup) % 400)).collect();
    let (channel, stats, mut lookups) = following(Duration::from_millis(5), answer);
    lookups.wait_for(|lookups| *lookups > 8).await.expect("it is followed");
    assert_eq!(channel.endpoints().len(), 256);
    assert_eq!((stats.joined.load(Relaxed), stats.left.load(Relaxed)), (256, 0));
}

/// They were connected anew and trusted anew every few seconds.
#[tokio::test]
async fn servers_of_a_name_that_is_answered_in_part_stay() {
    let servers = [serve(ServerLimits::default()).await, serve(ServerLimits::default()).await];
    let addresses = [servers[0].address, servers[1].address];
    let (channel, stats, mut lookups) = following(Duration::from_millis(5), move |lookup| vec![addresses[lookup % 2]]);
    lookups.wait_for(|lookups| *lookups > 20).await.expect("it is followed");
    assert_eq!((stats.joined.load(Relaxed), stats.left.load(Relaxed)), (2, 0));
    until(&channel, |endpoints| endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint.connected)).await;
    assert!(servers.iter().all(|server| server.stats.connections_total.load(Relaxed) == 1));
}

#[tokio::test]
async fn a_server_that_has_left_and_is_back_is_the_one_that_it_was() {
    let servers = [serve(ServerLimits::default()).await, serve(ServerLimits::default()).await];
    let zone = Zone::default();
    zone.set(&[servers[0].address, servers[1].address]);
    let (channel, stats) = zone.channel();
    until(&channel, |endpoints| endpoints.len() == 2 && endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let leaving = Arc::clone(channel.0.members.backends().iter().next().expect("there are two"));
    let (id, address) = (leaving.id, leaving.address);
    leaving.load.eject(Instant::now() + Duration::from_secs(60));
    let others: Vec<SocketAddr> =
        servers.iter().map(|server| server.address).filter(|other| *other != address).collect();
    zone.set(&others);
    until(&channel, |endpoints| endpoints.len() == 1).await;
    zone.set(&[others[0], address]);
    until(&channel, |endpoints| endpoints.len() == 2).await;
    let back = channel.endpoints().into_iter().find(|endpoint| endpoint.id == id).expect("it is known");
    assert!(back.connected && back.ejected, "{back:?}");
    assert_eq!((stats.joined.load(Relaxed), stats.left.load(Relaxed)), (3, 1));
    // Longer than it would have lived.
    tokio::time::sleep(LINGER + Duration::from_secs(1)).await;
    assert!(servers.iter().all(|server| server.stats.connections_total.load(Relaxed) == 1));
    assert!(servers.iter().all(|server| server.stats.connections.load(Relaxed) == 1));
}

/// A server that its name has left for an address where nobody is.
async fn left_alone() -> (Running, Zone, Channel) {
    let server = serve(ServerLimits::default()).await;
    let zone = Zone::default();
    zone.set(&[server.address]);
    let (channel, stats) = zone.channel();
    echo(&channel, "x").await.expect("it answers");
    zone.set(&[dead_port().await]);
    until(&channel, |endpoints| endpoints.len() == 1 && !endpoints[0].connected).await;
    assert_eq!(stats.left.load(Relaxed), 1);
    (server, zone, channel)
}

/// A wrong answer of a name server took all servers away before any of the new ones could be tried.
#[tokio::test]
async fn servers_that_have_left_serve_while_there_is_no_other() {
    let (server, zone, channel) = left_alone().await;
    echo(&channel, "x").await.expect("it still answers");
    let other = serve(ServerLimits::default()).await;
    zone.set(&[other.address]);
    until(&channel, |endpoints| endpoints.iter().any(|endpoint| endpoint.connected)).await;
    let before = server.notes.happened().started;
    for _ in 0..20 {
        echo(&channel, "x").await.expect("the other one answers");
    }
    assert_eq!(server.notes.happened().started, before);
}

/// Its connections were closed all the same when no call happened to be in flight at the moments of looking.
#[tokio::test]
async fn short_calls_keep_a_server_that_has_left() {
    let (server, _zone, channel) = left_alone().await;
    let left = Instant::now();
    while left.elapsed() < 2 * LINGER {
        echo(&channel, "x").await.expect("it still answers");
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_eq!(server.stats.connections_total.load(Relaxed), 1);
}

/// Every thread asked each second, as long as one server was down.
#[tokio::test(start_paused = true)]
async fn a_server_that_stays_away_has_its_name_resolved_ever_less_often() {
    let nobody = dead_port().await;
    let (_channel, _, lookups) = following(Duration::from_secs(3_600), move |_| vec![nobody]);
    tokio::time::sleep(Duration::from_secs(1_000)).await;
    let lookups = *lookups.borrow();
    assert!((9..=11).contains(&lookups), "after 1, 2, 4 s and so on: {lookups}");
}

#[tokio::test]
async fn names_are_resolved_by_the_system() {
    let server = serve(ServerLimits::default()).await;
    let endpoint = Endpoint::parse(&format!("localhost:{}", server.address.port())).expect("it is one");
    let channel = Channel::new(vec![endpoint], ChannelConfig::default());
    assert_eq!(echo(&channel, "x").await.expect("it answers"), "x");
}
