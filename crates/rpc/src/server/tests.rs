use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::*;
use crate::testing::{Note, Notes, Raw, call, serve, serve_at, text_call};

#[tokio::test]
async fn a_real_socket_in_random_pieces_gives_the_same_calls() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    let server = serve(ServerLimits::default()).await;
    let mut raw = Raw::connect(server.address).await;
    for seqid in 1..=60 {
        let size = if random.bool() { random.usize(..2_000) } else { random.usize(..300_000) };
        let bytes = call(wire::Protocol::Compact, "echo", seqid, &Note::of(vec![seqid as u8; size]));
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(random.usize(1..=40_000).min(rest.len()));
            raw.send(piece).await;
            rest = later;
        }
        let response = raw.response().await;
        let note = response.result::<Note, Note>().expect("it decodes").expect("a result");
        assert!(note.data.len() == size && response.seqid == seqid, "seed {seed}, call {seqid}");
    }
}

#[tokio::test]
async fn one_connection_over_the_limit_is_closed_and_the_others_stay() {
    let server = serve(ServerLimits { connections: 2, ..ServerLimits::default() }).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut raw = Raw::connect(server.address).await;
        raw.call("echo", 1, "x").await;
        raw.reply().await;
        open.push(raw);
    }
    let mut over = Raw::connect(server.address).await;
    assert_eq!(over.rest().await, b"");
    assert_eq!(server.stats.limit_hits(Limit::Connections), 1);
    for raw in &mut open {
        raw.call("echo", 2, "y").await;
        assert_eq!(raw.reply().await.0, 2);
    }
    assert_eq!(server.stats.connections.load(Relaxed), 2);
}

#[tokio::test]
async fn a_peer_that_resets_its_connection_cancels_its_calls() {
    let server = serve(ServerLimits::default()).await;
    let mut raw = Raw::connect(server.address).await;
    raw.call("hold", 1, "x").await;
    server.notes.until(|happened| happened.started == 1).await;
    raw.io.set_zero_linger().expect("the socket takes the option");
    drop(raw);
    server.notes.until(|happened| happened.cancelled == 1).await;
}

#[tokio::test]
async fn a_drained_server_has_answered_its_calls_and_no_longer_listens() {
    let server = serve(ServerLimits::default()).await;
    let mut busy = Raw::connect(server.address).await;
    let mut idle = Raw::connect(server.address).await;
    busy.call("hold", 1, "x").await;
    idle.call("echo", 1, "y").await;
    idle.reply().await;
    server.notes.until(|happened| happened.started == 2).await;
    server.drain.start();
    let mut new = Raw::connect(server.address).await;
    for (raw, seqid) in [(&mut idle, 2), (&mut new, 1)] {
        raw.call("health", seqid, "").await;
        assert_eq!(raw.reply().await, (seqid, "alive".to_owned()));
    }
    new.call("echo", 2, "z").await;
    assert_eq!(new.exception().await, (2, "draining".to_owned()));
    server.notes.open("x");
    assert_eq!(busy.reply().await, (1, "x".to_owned()));
    for raw in [&mut busy, &mut idle, &mut new] {
        assert_eq!(raw.frame().await, None);
    }
    drop((busy, idle, new));
    server.drain.drained().await;
    server.task.await.expect("the server ends");
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn work_that_goes_on_between_calls_holds_a_drain_back_and_its_calls_are_let_in() {
    let notes = Arc::new(Notes::default());
    let (handle, drain) = Drain::new(Drain::LIMIT);
    let work = drain.hold();
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(address, ServerLimits::default()).await.expect("a free port");
    let address = server.local_addr().expect("it is bound");
    let task = tokio::spawn(server.serve(Arc::clone(&notes), drain));
    handle.start();
    // Nothing is in flight, so only the work keeps the server.
    let mut raw = Raw::connect(address).await;
    for seqid in 1..=3 {
        raw.call("more", seqid, "x").await;
        assert_eq!(raw.reply().await, (seqid, "x".to_owned()));
    }
    raw.call("echo", 4, "y").await;
    assert_eq!(raw.exception().await, (4, "draining".to_owned()));
    drop(work);
    assert_eq!(raw.frame().await, None);
    drop(raw);
    handle.drained().await;
    task.await.expect("the server ends");
}

/// Nothing was held when the drain began, and what a call in flight held then was cut with that call's end.
#[tokio::test]
async fn work_that_a_call_in_flight_begins_in_a_drain_holds_it_back_as_well() {
    let notes = Arc::new(Notes::default());
    let (handle, drain) = Drain::new(Drain::LIMIT);
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(address, ServerLimits::default()).await.expect("a free port");
    let address = server.local_addr().expect("it is bound");
    let task = tokio::spawn(server.serve(Arc::clone(&notes), drain.clone()));
    let (mut raw, mut other) = (Raw::connect(address).await, Raw::connect(address).await);
    raw.call("hold", 1, "x").await;
    notes.until(|happened| happened.started == 1).await;
    handle.start();
    // Once it is answered the drain has seen that nothing was held.
    other.call("echo", 1, "y").await;
    assert_eq!(other.exception().await, (1, "draining".to_owned()));
    let work = drain.hold();
    notes.open("x");
    assert_eq!(raw.reply().await, (1, "x".to_owned()));
    for seqid in 2..=50 {
        raw.call("more", seqid, "x").await;
        assert_eq!(raw.reply().await, (seqid, "x".to_owned()));
    }
    drop(work);
    assert_eq!(raw.frame().await, None);
    drop((raw, other));
    handle.drained().await;
    task.await.expect("the server ends");
}

#[tokio::test]
async fn a_drain_over_its_limit_cuts_what_still_runs() {
    let notes = Arc::new(Notes::default());
    let (handle, drain) = Drain::new(Duration::from_millis(50));
    let address = "127.0.0.1:0".parse().expect("an address");
    let server = Server::bind(address, ServerLimits::default()).await.expect("a free port");
    let address = server.local_addr().expect("it is bound");
    tokio::spawn(server.serve(Arc::clone(&notes), drain));
    let mut raw = Raw::connect(address).await;
    raw.call("hold", 1, "never opened").await;
    notes.until(|happened| happened.started == 1).await;
    handle.start();
    handle.drained().await;
    assert_eq!(notes.happened().cancelled, 1);
    assert_eq!(raw.frame().await, None);
}

/// Every connection that ended made the pause after a failed `accept` begin anew.
#[tokio::test(start_paused = true)]
async fn accepting_goes_on_after_a_failure_although_connections_end() {
    // Bound but not listening: each `accept` fails.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.set_nonblocking(true).expect("the socket takes the option");
    let broken = TcpListener::from_std(socket.into()).expect("tokio takes it");
    let stats = Arc::new(ServerStats::default());
    let (_handle, drain) = Drain::new(Drain::LIMIT);
    let notes = Arc::new(Notes::default());
    let shared = Arc::new(Shared::new(notes, ServerLimits::default(), Arc::clone(&stats) as _, drain));
    let mut connections = JoinSet::new();
    for n in 0..1_000 {
        connections.spawn(tokio::time::sleep(n * FIRST_PAUSE / 4));
    }
    let listeners = [broken];
    tokio::select! {
        never = accept_all(&listeners, &shared, &mut connections) => match never {},
        () = tokio::time::sleep(1_000 * FIRST_PAUSE / 4) => {}
    }
    let failures = stats.accept_failures.load(Relaxed);
    assert!((5..20).contains(&failures), "{failures}: it neither stops nor spins");
}

#[tokio::test]
async fn several_listeners_serve_the_same() {
    let listen = || socket::listen("127.0.0.1:0".parse().expect("an address")).expect("a free port");
    let listeners = vec![listen(), listen()];
    let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().expect("it is bound")).collect();
    let (_handle, drain) = Drain::new(Drain::LIMIT);
    tokio::spawn(Server::from_listeners(listeners, ServerLimits::default()).serve(Arc::new(Notes::default()), drain));
    for address in addresses {
        let mut raw = Raw::connect(address).await;
        raw.call("echo", 1, "x").await;
        assert_eq!(raw.reply().await.0, 1);
    }
}

#[tokio::test]
async fn an_oversized_request_gets_its_answer_although_the_rest_is_still_coming() {
    let limits = ServerLimits { frame_bytes: 1 << 20, ..ServerLimits::default() };
    let server = serve_at("127.0.0.1:0".parse().expect("an address"), limits, Notes::default()).await;
    let mut raw = Raw::connect(server.address).await;
    let (mut read, mut write) = raw.io.split();
    let big = call(wire::Protocol::Binary, "echo", 9, &Note::of(vec![0; 8 << 20]));
    let mut answer = Vec::new();
    let receive = tokio::io::AsyncReadExt::read_to_end(&mut read, &mut answer);
    let (sent, received) = tokio::join!(
        async {
            let sent = tokio::io::AsyncWriteExt::write_all(&mut write, &big).await;
            let closed = tokio::io::AsyncWriteExt::shutdown(&mut write).await;
            sent.and(closed)
        },
        receive
    );
    sent.and(received).expect("no reset on the way");
    assert!(String::from_utf8_lossy(&answer).contains("limit of 1048576 bytes"));
}

#[test]
fn a_peer_fills_one_line_of_the_log_a_minute() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(async {
        let notices = Notices::default();
        let peer = |last: u16| Some(IpAddr::from([10, 0, (last >> 8) as u8, last as u8]));
        assert!(notices.is_due(peer(1)) && notices.is_due(peer(2)) && notices.is_due(None));
        assert!(!notices.is_due(peer(1)) && !notices.is_due(None));
        let lines = (3..5_000).filter(|last| notices.is_due(peer(*last))).count();
        assert_eq!(lines, Notices::MOST - 3, "bounded");
        tokio::time::advance(Notices::EVERY).await;
        assert!(notices.is_due(peer(1)));
    });
}

#[tokio::test]
async fn many_idle_connections_hold_no_budget() {
    let server = serve(ServerLimits::default()).await;
    let mut open = Vec::new();
    for _ in 0..300 {
        let mut raw = Raw::connect(server.address).await;
        raw.send(&text_call("echo", 1, "x")).await;
        raw.reply().await;
        open.push(raw);
    }
    assert_eq!(server.stats.bytes_in_flight.load(Relaxed), 0);
    assert_eq!(server.stats.connections.load(Relaxed), 300);
}
