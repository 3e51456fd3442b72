//! Servers and connections that fall silent.

use super::*;

/// What a [`Gate`] passes on.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Passes {
    All,
    /// What comes over connections that were made since.
    NewOnes,
    /// As a process that was stopped: the kernel goes on taking connections and bytes.
    Nothing,
}

/// Lies before a server.
struct Gate {
    address: SocketAddr,
    passes: watch::Sender<Passes>,
}

impl Gate {
    async fn before(server: SocketAddr) -> Self {
        let listener = any_port().await;
        let address = listener.local_addr().expect("it is bound");
        let passes = watch::Sender::new(Passes::All);
        let state = passes.clone();
        tokio::spawn(async move {
            loop {
                let (client, _) = listener.accept().await.expect("connections can be accepted");
                let state = state.subscribe();
                tokio::spawn(pass(client, server, state));
            }
        });
        Self { address, passes }
    }
}

async fn pass(mut client: tokio::net::TcpStream, server: SocketAddr, mut state: watch::Receiver<Passes>) {
    let is_old = *state.borrow() == Passes::All;
    let may_pass = |passes: &Passes| *passes == Passes::All || (*passes == Passes::NewOnes && !is_old);
    let mut server = tokio::net::TcpStream::connect(server).await.expect("the server listens");
    let (mut ask, mut answer) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let (from, to, bytes) = tokio::select! {
            read = client.read(&mut ask) => (&ask, &mut server, read),
            read = server.read(&mut answer) => (&answer, &mut client, read),
        };
        let Ok(bytes @ 1..) = bytes else { return };
        if state.wait_for(may_pass).await.is_err() || to.write_all(&from[..bytes]).await.is_err() {
            return;
        }
    }
}

#[tokio::test]
async fn calls_at_a_server_that_hangs_go_to_another_one_and_it_is_let_back_when_it_answers() {
    let (hanging, other) = (serve(ServerLimits::default()).await, serve(ServerLimits::default()).await);
    let gate = Gate::before(hanging.address).await;
    let (config, stats) = pinging();
    let config = ChannelConfig {
        // The pauses are not what is looked at here.
        ejection: Ejection { first: Duration::from_millis(50), ..Ejection::default() },
        ..config
    };
    let channel = channel_with(&[gate.address, other.address], config);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let key = key_of(&channel, 0);
    gate.passes.send_replace(Passes::Nothing);
    // Fewer than the failures in a row that would take it out by themselves.
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let channel = channel.clone();
            tokio::spawn(async move { channel.call(&ECHO, &mut Note::of("x"), soon().with_affinity(key)).await })
        })
        .collect();
    // One that may not be made twice.
    let once = channel.call(&HOLD, &mut Note::of("y"), soon().with_affinity(key)).await;
    assert!(matches!(once, Err(ChannelError::Lost { .. })), "{once:?}");
    for call in calls {
        let answer = call.await.expect("no panic");
        assert_eq!(answer.expect("the other one answers").expect("a result").data, "x");
    }
    assert_eq!(stats.hung.load(Relaxed), 1);
    assert_eq!(stats.ejected.load(Relaxed), 1);
    assert_eq!(stats.repeated.load(Relaxed), 3);
    // From now on nobody is sent there: the connection is not made again before it answers.
    assert!(!channel.endpoints()[0].connected);
    for _ in 0..20 {
        let answer = channel.call(&ECHO, &mut Note::of("x"), soon().with_affinity(key)).await;
        answer.expect("it arrives").expect("a result");
    }
    assert_eq!(stats.repeated.load(Relaxed), 3);

    gate.passes.send_replace(Passes::All);
    until(&channel, |endpoints| endpoints[0].connected).await;
    let before = hanging.notes.happened().answered;
    in_time(async {
        while hanging.notes.happened().answered < before + 5 {
            let answer = channel.call(&ECHO, &mut Note::of("x"), soon().with_affinity(key)).await;
            answer.expect("it arrives").expect("a result");
        }
    })
    .await;
}

#[tokio::test]
async fn a_slow_call_is_no_hanging_server() {
    let server = serve(ServerLimits::default()).await;
    let (config, stats) = pinging();
    let channel = channel_with(&[server.address], config);
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(&HOLD, &mut Note::of("x"), soon()).await }
    });
    // Longer than a silent server is given: so many pings are answered only one after the other.
    server.notes.until(|happened| happened.started >= 20).await;
    server.notes.open("x");
    assert_eq!(held.await.expect("no panic").expect("it arrives").expect("a result").data, "x");
    assert_eq!(stats.hung.load(Relaxed), 0);
    assert_eq!(server.stats.connections_total.load(Relaxed), 1);
}

#[tokio::test]
async fn a_connection_that_is_stuffed_is_no_hanging_server() {
    let server = serve(ServerLimits::default()).await;
    let gate = Gate::before(server.address).await;
    // So slowly that there is time to mend it after the question.
    let (config, stats) = pinging_every(Duration::from_millis(400));
    let channel = channel_with(&[gate.address], config);
    let call = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(&HOLD, &mut Note::of("x"), soon()).await }
    });
    // Behind the ping that greeted it.
    server.notes.until(|happened| happened.started == 2).await;
    gate.passes.send_replace(Passes::NewOnes);
    // It is asked on a new connection: not by the count of calls, which one more on the old one adds to where the gate was late.
    in_time(async {
        while server.stats.connections_total.load(Relaxed) < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    gate.passes.send_replace(Passes::All);
    server.notes.open("x");
    assert_eq!(call.await.expect("no panic").expect("it arrives").expect("a result").data, "x");
    assert_eq!(stats.hung.load(Relaxed), 0);
}

/// It was left out of choice although it answered, because it had no memory to read one connection.
#[tokio::test]
async fn a_connection_that_stays_silent_is_given_up_and_its_server_is_not() {
    let server = serve(ServerLimits::default()).await;
    let gate = Gate::before(server.address).await;
    let (config, stats) = pinging();
    let channel = channel_with(&[gate.address], config);
    until(&channel, |endpoints| endpoints[0].connected).await;
    gate.passes.send_replace(Passes::NewOnes);
    let lost = channel.call(&HOLD, &mut Note::of("x"), soon()).await;
    assert!(matches!(lost, Err(ChannelError::Lost { .. })), "{lost:?}");
    assert_eq!((stats.hung.load(Relaxed), stats.ejected.load(Relaxed)), (1, 0));
    echo(&channel, "x").await.expect("it is connected anew");
}

/// Each question stayed, and was a call in flight for ever.
#[tokio::test]
async fn a_server_that_moves_bytes_and_answers_nothing_is_asked_one_thing_at_a_time() {
    let reply = |frame: Bytes| {
        let request = wire::Request::parse(frame, &DecodeLimits::default()).expect("a call");
        request.reply(&Note::default()).to_bytes()
    };
    let to_nobody = reply(text_call("echo", i32::MAX, "x").slice(4..));
    let listener = any_port().await;
    let (config, stats) = pinging();
    let _channel = channel_with(&[listener.local_addr().expect("it is bound")], config);
    let mut first = accept(&listener).await;
    tokio::spawn(async move {
        loop {
            let mut other = accept(&listener).await;
            tokio::spawn(async move {
                while let Some(frame) = other.frame().await {
                    other.send(&reply(frame)).await;
                }
            });
        }
    });
    let greeting = first.frame().await.expect("the greeting");
    first.send(&reply(greeting)).await;
    let mut asked = 0;
    while asked < 3 && first.frame().await.is_some() {
        asked += 1;
        first.send(&to_nobody).await;
    }
    assert_eq!((asked, stats.hung.load(Relaxed)), (1, 1), "it is given up as one that answers on others only");
}

/// The connection stayed open, and two tasks with it, for as long as the server kept it.
#[tokio::test]
async fn a_channel_that_is_dropped_while_a_server_is_greeted_closes_the_connection() {
    let listener = any_port().await;
    // The greeting itself takes no end while the test looks.
    let (config, _) = pinging_every(Duration::from_secs(60));
    let channel = channel_with(&[listener.local_addr().expect("it is bound")], config);
    let mut raw = accept(&listener).await;
    raw.frame().await.expect("the greeting");
    drop(channel);
    assert_eq!(in_time(raw.rest()).await, b"");
}
