use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::{ApplicationErrorKind, MessageKind};

use super::*;
use crate::testing::{ECHO, FAIL, HOLD, NOTED, Note, Notes, Raw, Running, UNKNOWN, serve, serve_at};
use crate::{ChannelStats, Pong, ServerLimits};

fn soon() -> CallOptions {
    within(Duration::from_secs(30))
}

fn within(time: Duration) -> CallOptions {
    CallOptions::new(Deadline::after(std::time::Instant::now(), time))
}

fn channel(addresses: &[SocketAddr]) -> Channel {
    channel_with(addresses, ChannelConfig::default())
}

fn channel_with(addresses: &[SocketAddr], config: ChannelConfig) -> Channel {
    Channel::new(addresses.iter().copied().map(Endpoint::from).collect(), config)
}

/// Counts what becomes of its calls.
fn counting() -> (ChannelConfig, Arc<ChannelStats>) {
    let stats = Arc::new(ChannelStats::default());
    (ChannelConfig { observe: Arc::clone(&stats) as _, ..ChannelConfig::default() }, stats)
}

async fn echo(channel: &Channel, text: &'static str) -> Result<Bytes, ChannelError> {
    let answer = channel.call(&ECHO, &mut Note::of(text), soon()).await?;
    Ok(answer.expect("echo throws nothing").data)
}

async fn any_port() -> TcpListener {
    TcpListener::bind("127.0.0.1:0").await.expect("a free port")
}

/// A port on which nobody listens.
async fn dead_port() -> SocketAddr {
    any_port().await.local_addr().expect("it is bound")
}

async fn accept(listener: &TcpListener) -> Raw<tokio::net::TcpStream> {
    Raw::over(listener.accept().await.expect("the channel connects").0)
}

/// Waits until the channel's endpoints are as wanted.
async fn until(channel: &Channel, wanted: impl Fn(&[EndpointState]) -> bool) {
    let mut changed = channel.0.changed.clone();
    loop {
        changed.mark_unchanged();
        if wanted(&channel.endpoints()) {
            return;
        }
        changed.changed().await.expect("the channel lives");
    }
}

#[tokio::test]
async fn many_calls_share_a_connection_and_each_gets_its_own_answer() {
    let server = serve(ServerLimits::default()).await;
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let channel = channel_with(&[server.address], ChannelConfig { protocol, ..ChannelConfig::default() });
        let calls = (0..500_usize).map(|index| {
            let channel = channel.clone();
            tokio::spawn(async move {
                let data = vec![index as u8; if index % 50 == 0 { 200_000 } else { index }];
                let answer = channel.call(&ECHO, &mut Note::of(data.clone()), soon()).await;
                answer.expect("it arrives").expect("a result").data == data
            })
        });
        for call in calls.collect::<Vec<_>>() {
            assert!(call.await.expect("no panic"));
        }
        assert_eq!(channel.endpoints()[0].in_flight, 0);
    }
    assert!(server.stats.connections_total.load(Relaxed) <= 2);
}

#[tokio::test]
async fn what_is_left_of_the_deadline_is_written_when_the_call_is_sent() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[server.address]);
    let answer = channel.call(&ECHO, &mut Note::default(), within(Duration::from_secs(5))).await;
    let left = answer.expect("it arrives").expect("a result").left_ms;
    assert!((1..=5_000).contains(&left), "{left}");
}

#[tokio::test]
async fn exceptions_and_application_errors_are_told_apart() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[server.address]);
    let answer = channel.call(&FAIL, &mut Note::of("no"), soon()).await;
    assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "no");
    let answer = channel.call(&UNKNOWN, &mut Note::default(), soon()).await;
    let kind = ApplicationErrorKind::UnknownMethod;
    assert_eq!(answer, Err(ChannelError::Application { kind, message: "no method unknown".to_owned() }));
}

#[tokio::test]
async fn oneway_calls_arrive() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[server.address]);
    channel.send(&NOTED, &mut Note::of("psst"), soon()).await.expect("it is queued");
    server.notes.until(|happened| happened.noted == ["psst"]).await;
}

#[tokio::test]
async fn nobody_listening_is_told_at_once() {
    let (first, second) = (dead_port().await, dead_port().await);
    let channel = channel(&[first, second]);
    let error = echo(&channel, "x").await.expect_err("nobody is there");
    assert!(
        matches!(&error, ChannelError::Unreachable { endpoints: 2, reason } if reason.contains("refused")),
        "{error}"
    );
    let error = echo(&Channel::new(Vec::new(), ChannelConfig::default()), "x").await.expect_err("nobody is meant");
    assert!(matches!(error, ChannelError::Unreachable { endpoints: 0, .. }));
}

#[tokio::test]
async fn a_server_that_is_back_is_found_again() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[server.address]);
    echo(&channel, "before").await.expect("it is up");
    server.drain.start();
    server.drain.drained().await;
    server.task.await.expect("the server ends");
    until(&channel, |endpoints| endpoints[0].reason.is_some()).await;
    assert!(matches!(echo(&channel, "between").await, Err(ChannelError::Unreachable { .. })));
    let _server = serve_at(server.address, ServerLimits::default(), Notes::default()).await;
    until(&channel, |endpoints| endpoints[0].connected).await;
    assert_eq!(echo(&channel, "after").await.expect("it is up again"), "after");
}

#[tokio::test]
async fn a_call_waits_for_the_first_connection_but_not_past_its_deadline() {
    // Takes connections in the kernel, answers nothing.
    let listener = any_port().await;
    let address = listener.local_addr().expect("it is bound");
    let channel = channel(&[address]);
    let options = within(Duration::from_millis(30));
    let answer = channel.call(&ECHO, &mut Note::default(), options).await;
    assert_eq!(answer, Err(ChannelError::Deadline { sent: true }));
    let over = CallOptions::new(Deadline::at(std::time::Instant::now()));
    assert_eq!(channel.call(&ECHO, &mut Note::default(), over).await, Err(ChannelError::Deadline { sent: false }));
}

#[tokio::test]
async fn a_late_answer_is_nobody_elses() {
    let listener = any_port().await;
    let channel = channel(&[listener.local_addr().expect("it is bound")]);
    let mut note = Note::of("late");
    let late = channel.call(&ECHO, &mut note, within(Duration::from_millis(30)));
    let (late, mut raw) = tokio::join!(late, accept(&listener));
    assert_eq!(late, Err(ChannelError::Deadline { sent: true }));
    let next = tokio::spawn({
        let channel = channel.clone();
        async move { echo(&channel, "next").await }
    });
    for _ in 0..2 {
        let request = wire::Request::parse(raw.frame().await.expect("a call"), &DecodeLimits::default());
        let request = request.expect("a call");
        let note: Note = request.args().expect("a note");
        raw.send(&request.reply(&note).to_bytes()).await;
    }
    assert_eq!(next.await.expect("no panic"), Ok(Bytes::from_static(b"next")));
}

#[tokio::test]
async fn a_lost_connection_loses_calls_that_may_have_run() {
    let listener = any_port().await;
    let channel = channel(&[listener.local_addr().expect("it is bound")]);
    let mut note = Note::of("x");
    let call = channel.call(&HOLD, &mut note, soon());
    let server = async {
        let mut raw = accept(&listener).await;
        raw.frame().await.expect("the call");
    };
    let (answer, ()) = tokio::join!(call, server);
    let error = answer.expect_err("the server closed");
    assert!(matches!(&error, ChannelError::Lost { .. }), "{error}");
    assert!(!error.never_started());
}

#[tokio::test]
async fn an_idempotent_call_is_sent_once_more_and_only_once() {
    let listener = any_port().await;
    let (config, stats) = counting();
    let channel = channel_with(&[listener.local_addr().expect("it is bound")], config);
    let mut note = Note::of("x");
    let server = async {
        for _ in 0..2 {
            let mut raw = accept(&listener).await;
            raw.frame().await.expect("the call");
        }
    };
    let mut told = Vec::new();
    let call = channel.call_telling(&ECHO, &mut note, soon(), |reason| told.push(reason.to_string()));
    let (answer, ()) = tokio::join!(call, server);
    assert!(matches!(answer, Err(ChannelError::Lost { .. })), "{answer:?}");
    assert_eq!((stats.repeated.load(Relaxed), stats.over_budget.load(Relaxed)), (1, 0));
    assert!(matches!(&told[..], [reason] if reason.contains("127.0.0.1")), "why it was sent once more: {told:?}");
}

#[tokio::test]
async fn an_idempotent_call_survives_the_loss_of_one_server() {
    let listener = any_port().await;
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[listener.local_addr().expect("it is bound"), server.address]);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let mut raw = accept(&listener).await;
    // Its affinity sends the call to the fake server.
    let fake = channel.endpoints()[0].id;
    let key = (0..).find(|key| channel.choose(&soon().with_affinity(*key)) == Some(fake)).expect("some key");
    let mut note = Note::of("x");
    let call = channel.call(&ECHO, &mut note, soon().with_affinity(key));
    let leaves = async {
        raw.frame().await.expect("the call");
        drop(raw);
        drop(listener);
    };
    let (answer, ()) = tokio::join!(call, leaves);
    assert_eq!(answer.expect("the other server answers").expect("a result").data, "x");
}

#[tokio::test]
async fn a_call_that_was_never_written_is_sent_again_though_not_idempotent() {
    let listener = any_port().await;
    let channel = channel(&[listener.local_addr().expect("it is bound")]);
    let raw = accept(&listener).await;
    // More than the kernel takes without a reader: what comes behind it stays here.
    let spawn = |data: Vec<u8>| {
        let channel = channel.clone();
        tokio::spawn(async move { channel.call(&HOLD, &mut Note::of(data), soon()).await })
    };
    let big = spawn(vec![0; 16_000_000]);
    raw.io.readable().await.expect("the big one is on its way");
    let small = spawn(b"small".to_vec());
    while channel.endpoints()[0].in_flight < 2 {
        tokio::task::yield_now().await;
    }
    drop(raw);
    let mut raw = accept(&listener).await;
    let request = wire::Request::parse(raw.frame().await.expect("the small call"), &DecodeLimits::default());
    let request = request.expect("a call");
    let note: Note = request.args().expect("a note");
    assert_eq!(note.data, "small");
    raw.send(&request.reply(&note).to_bytes()).await;
    assert_eq!(small.await.expect("no panic").expect("it is answered").expect("a result").data, "small");
    assert!(matches!(big.await.expect("no panic"), Err(ChannelError::Lost { .. })));
}

/// After the second attempt the error said that nothing had run, although the first may have.
#[tokio::test]
async fn a_call_that_may_have_run_is_not_said_to_have_never_started() {
    let listener = any_port().await;
    let (config, stats) = counting();
    let channel = channel_with(&[listener.local_addr().expect("it is bound")], config);
    let mut note = Note::of("x");
    let server = async {
        let mut raw = accept(&listener).await;
        raw.frame().await.expect("the call");
        // Nobody is there for the second attempt.
        drop(listener);
        drop(raw);
    };
    let (answer, ()) = tokio::join!(channel.call(&ECHO, &mut note, soon()), server);
    let error = answer.expect_err("nobody answers");
    assert!(!error.never_started(), "{error}");
    assert!(error.to_string().contains("; once more: "), "{error}");
    assert_eq!(error.to_string().matches("once more").count(), 1, "{error}");
    assert_eq!(stats.repeated.load(Relaxed), 0, "there was nobody to send it to");
}

/// They went on until no call could be repeated any more, and what another server would have answered failed with them.
#[tokio::test]
async fn calls_for_one_lost_server_alone_leave_the_repetitions_to_others() {
    let listener = any_port().await;
    let server = serve(ServerLimits::default()).await;
    let (config, stats) = counting();
    let channel = channel_with(&[listener.local_addr().expect("it is bound"), server.address], config);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let mut raw = accept(&listener).await;
    let (only, key) = (soon().with_endpoint(channel.endpoints()[0].id), key_of(&channel, 0));
    let spawn = |options: CallOptions| {
        let channel = channel.clone();
        tokio::spawn(async move { channel.call(&ECHO, &mut Note::of("x"), options).await })
    };
    let bound: Vec<_> = (0..100).map(|_| spawn(only)).collect();
    let free: Vec<_> = (0..20).map(|_| spawn(soon().with_affinity(key))).collect();
    for _ in 0..bound.len() + free.len() {
        raw.frame().await.expect("a call");
    }
    drop(listener);
    drop(raw);
    for call in bound {
        let answer = call.await.expect("no panic");
        assert!(matches!(answer, Err(ChannelError::Lost { .. })), "{answer:?}");
    }
    for call in free {
        call.await.expect("no panic").expect("the other server answers").expect("a result");
    }
    assert_eq!((stats.repeated.load(Relaxed), stats.over_budget.load(Relaxed)), (20, 0));
}

#[tokio::test]
async fn a_short_deadline_does_not_take_a_server_out_of_choice() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[server.address]);
    echo(&channel, "it is up").await.expect("it is");
    for _ in 0..20 {
        let answer = channel.call(&HOLD, &mut Note::of("x"), within(Duration::from_millis(2))).await;
        assert!(matches!(answer, Err(ChannelError::Deadline { .. })), "{answer:?}");
    }
    assert!(!channel.endpoints()[0].ejected);
}

/// A server that is told to stop: a call of its own keeps it from ending.
async fn draining() -> (Running, Raw<tokio::net::TcpStream>) {
    let server = serve(ServerLimits::default()).await;
    let mut busy = Raw::connect(server.address).await;
    busy.call("hold", 1, "never opened").await;
    server.notes.until(|happened| happened.started == 1).await;
    server.drain.start();
    (server, busy)
}

#[tokio::test]
async fn a_draining_server_costs_no_call_while_another_serves() {
    let (leaving, _busy) = draining().await;
    // Slower than the other one refuses: that must not draw the calls.
    let slow = Notes::slow(Duration::from_millis(3));
    let staying = serve_at("127.0.0.1:0".parse().expect("an address"), ServerLimits::default(), slow).await;
    let channel = channel(&[leaving.address, staying.address]);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    for _ in 0..100 {
        let answer = channel.call(&HOLD, &mut Note::of("x"), soon()).await.expect("it arrives");
        assert_eq!(answer.expect("a result").data, "x");
    }
    assert!(leaving.stats.refused_total.load(Relaxed) < 10, "it is hardly tried");
    // Whoever belongs to it by its key is served all the same.
    let gone = channel.endpoints()[0].id;
    for key in 0..20 {
        let answer = channel.call(&HOLD, &mut Note::of("y"), soon().with_affinity(key)).await;
        answer.expect("it arrives").expect("a result");
    }
    // Who wants this one and no other is told.
    let answer = channel.call(&ECHO, &mut Note::of("z"), soon().with_endpoint(gone)).await;
    assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "draining");
}

#[tokio::test]
async fn where_nobody_else_serves_a_draining_server_is_asked_once() {
    let (leaving, _busy) = draining().await;
    let channel = channel(&[leaving.address]);
    let answer = channel.call(&ECHO, &mut Note::of("x"), soon()).await;
    assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "draining");
    assert_eq!(leaving.stats.refused_total.load(Relaxed), 1);
}

#[tokio::test]
async fn what_one_server_does_not_serve_yet_is_asked_of_another_and_the_server_stays_in_choice() {
    let (first, second) = (serve(ServerLimits::default()).await, serve(ServerLimits::default()).await);
    let channel = channel(&[first.address, second.address]);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let answer = channel.call(&FAIL, &mut Note::of("loading"), soon()).await;
    assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "loading");
    for server in [&first, &second] {
        server.notes.until(|happened| happened.started == 1).await;
    }
    // What is no matter of where is asked once.
    let answer = channel.call(&FAIL, &mut Note::of("too large"), soon()).await;
    assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "too large");
    let started = [&first, &second].map(|server| server.notes.happened().started);
    assert_eq!(started.iter().sum::<usize>(), 3);
    let loading = channel.endpoints()[0].id;
    for _ in 0..20 {
        let only = soon().with_endpoint(loading);
        let answer = channel.call(&FAIL, &mut Note::of("loading"), only).await;
        assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "loading");
    }
    assert!(!channel.endpoints()[0].ejected, "what else it has is served");
}

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

/// Pings often, and counts.
fn pinging() -> (ChannelConfig, Arc<ChannelStats>) {
    pinging_every(Duration::from_millis(100))
}

fn pinging_every(every: Duration) -> (ChannelConfig, Arc<ChannelStats>) {
    let stats = Arc::new(ChannelStats::default());
    let health: Method<Note, Note, Note> = Method::new("health", true);
    let leaves = |note: Note| if note.data == "alive" { Pong::Leaves } else { Pong::Serves };
    let ping = Ping::new(every, health, Note::default, leaves);
    (ChannelConfig { ping: Some(ping), observe: Arc::clone(&stats) as _, ..ChannelConfig::default() }, stats)
}

/// A call's key that leads to this endpoint.
fn key_of(channel: &Channel, place: usize) -> u64 {
    let id = channel.endpoints()[place].id;
    (0..).find(|key| channel.choose(&soon().with_affinity(*key)) == Some(id)).expect("some key")
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
    while hanging.notes.happened().answered < before + 5 {
        let answer = channel.call(&ECHO, &mut Note::of("x"), soon().with_affinity(key)).await;
        answer.expect("it arrives").expect("a result");
    }
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
    server.notes.until(|happened| happened.started == 3).await;
    assert_eq!(server.stats.connections_total.load(Relaxed), 2, "it was asked on a new connection");
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

#[tokio::test]
async fn a_server_that_says_that_it_leaves_gets_no_calls_while_another_serves() {
    let (leaving, _busy) = draining().await;
    let staying = serve(ServerLimits::default()).await;
    let (config, _) = pinging();
    let channel = channel_with(&[leaving.address, staying.address], config);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    assert!(channel.endpoints()[0].leaving && !channel.endpoints()[1].leaving);
    for key in 0..50 {
        echo(&channel, "x").await.expect("the other one answers");
        let answer = channel.call(&ECHO, &mut Note::of("x"), soon().with_affinity(key)).await;
        answer.expect("it arrives").expect("a result");
    }
    assert_eq!(leaving.stats.refused_total.load(Relaxed), 0, "the pings alone went there");
}

/// The repetition came back to the server that loads, because the other one had failed before.
#[tokio::test]
async fn what_one_server_does_not_serve_yet_is_asked_of_one_that_was_ejected() {
    let (ejected, loading) = (serve(ServerLimits::default()).await, serve(ServerLimits::default()).await);
    let channel = channel(&[ejected.address, loading.address]);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    channel
        .0
        .members
        .backends()
        .iter()
        .next()
        .expect("there are two")
        .load
        .eject(Instant::now() + Duration::from_secs(60));
    assert!(channel.endpoints()[0].ejected);
    let answer = channel.call(&FAIL, &mut Note::of("loading"), soon()).await;
    assert_eq!(answer.expect("it arrives").expect_err("the exception").data, "loading");
    for server in [&ejected, &loading] {
        assert_eq!(server.notes.happened().started, 1);
    }
}

/// The second of two servers left when the first was back, but not every thread had found it.
#[tokio::test]
async fn a_call_that_was_turned_away_waits_for_a_server_that_is_just_back() {
    let (leaving, _busy) = draining().await;
    let back = dead_port().await;
    let channel = channel(&[leaving.address, back]);
    until(&channel, |endpoints| endpoints[0].connected && endpoints[1].reason.is_some()).await;
    let _back = serve_at(back, ServerLimits::default(), Notes::default()).await;
    assert!(!channel.endpoints()[1].connected, "it is in its pause");
    assert_eq!(echo(&channel, "x").await.expect("the other one answers"), "x");
    assert_eq!(leaving.stats.refused_total.load(Relaxed), 1);
}

/// A worker of a gateway that paused after a refused connection answered Unavailable, while another was connected.
#[tokio::test]
async fn a_call_ends_the_pause_after_a_refused_connection() {
    let address = dead_port().await;
    let channel = channel(&[address]);
    until(&channel, |endpoints| endpoints[0].reason.is_some()).await;
    assert!(matches!(echo(&channel, "nobody").await, Err(ChannelError::Unreachable { .. })));
    let _server = serve_at(address, ServerLimits::default(), Notes::default()).await;
    assert!(!channel.endpoints()[0].connected, "it is in its pause");
    assert_eq!(echo(&channel, "x").await.expect("the call waits for the connection"), "x");
}

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
        let (zone, stats) = (self.0.clone(), Arc::new(ChannelStats::default()));
        let lookup: Lookup = Arc::new(move |host, port| {
            assert_eq!((host, port), ("servers.test", 9090));
            let found = zone.lock().clone();
            Box::pin(async move {
                match found.is_empty() {
                    true => Err(std::io::Error::other("no such name")),
                    false => Ok(found),
                }
            })
        });
        let config = ChannelConfig { lookup, resolve, observe: Arc::clone(&stats) as _, ..ChannelConfig::default() };
        (Channel::new(vec![Endpoint::parse("servers.test:9090").expect("it is one")], config), stats)
    }
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
    while servers[1].notes.happened().started == 0 {
        echo(&channel, "x").await.expect("one of them answers");
    }

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
    while servers[0].stats.connections.load(Relaxed) > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
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

#[tokio::test]
async fn names_are_resolved_by_the_system() {
    let server = serve(ServerLimits::default()).await;
    let endpoint = Endpoint::parse(&format!("localhost:{}", server.address.port())).expect("it is one");
    let channel = Channel::new(vec![endpoint], ChannelConfig::default());
    assert_eq!(echo(&channel, "x").await.expect("it answers"), "x");
}

fn cancels() -> ChannelConfig {
    let cancel: CancelCall = Arc::new(|id: CallId| {
        let note = Note::of(id.0.to_vec());
        wire::encode_call(Protocol::Binary, "noted", 0, MessageKind::Oneway, &note).ok()
    });
    ChannelConfig { cancel: Some(cancel), ..ChannelConfig::default() }
}

#[tokio::test]
async fn a_call_given_up_after_it_was_sent_is_cancelled_by_name() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel_with(&[server.address], cancels());
    let id = CallId([7; 16]);
    let mut note = Note::of("x");
    {
        let call = channel.call(&HOLD, &mut note, soon().with_call_id(id));
        tokio::select! {
            answer = call => panic!("nobody opened it: {answer:?}"),
            () = server.notes.until(|happened| happened.started == 1) => {}
        }
    }
    server.notes.until(|happened| happened.noted == [&id.0[..]]).await;
    assert_eq!(channel.endpoints()[0].in_flight, 0);
    echo(&channel, "the connection goes on").await.expect("it does");
    assert_eq!(server.notes.happened().noted.len(), 1, "answered calls are not cancelled");
}

#[tokio::test]
async fn requests_over_the_frame_limit_are_not_sent() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel_with(&[server.address], ChannelConfig { frame_bytes: 1_000, ..ChannelConfig::default() });
    let answer = channel.call(&ECHO, &mut Note::of(vec![0; 1_000]), soon()).await;
    assert!(matches!(answer, Err(ChannelError::TooLarge { bytes: 1_001.., limit: 1_000 })), "{answer:?}");
    assert_eq!(server.stats.calls_total.load(Relaxed), 0);
}

#[tokio::test]
async fn calls_over_the_limit_of_a_connection_are_refused_here() {
    let server = serve(ServerLimits::default()).await;
    let channel =
        channel_with(&[server.address], ChannelConfig { calls_per_connection: 1, ..ChannelConfig::default() });
    let held = tokio::spawn({
        let channel = channel.clone();
        async move { channel.call(&HOLD, &mut Note::of("x"), soon()).await }
    });
    server.notes.until(|happened| happened.started == 1).await;
    assert!(matches!(echo(&channel, "y").await, Err(ChannelError::Full { limit: 1, .. })));
    server.notes.open("x");
    held.await.expect("no panic").expect("it arrives").expect("a result");
    echo(&channel, "z").await.expect("there is room again");
}

#[tokio::test]
async fn the_quicker_of_two_servers_gets_most_calls() {
    let slow = Notes::slow(Duration::from_millis(10));
    let quick = Notes::slow(Duration::from_millis(1));
    let address = "127.0.0.1:0".parse().expect("an address");
    let slow = serve_at(address, ServerLimits::default(), slow).await;
    let quick = serve_at(address, ServerLimits::default(), quick).await;
    let channel = channel(&[slow.address, quick.address]);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    for _ in 0..60 {
        channel.call(&HOLD, &mut Note::of("x"), soon()).await.expect("it arrives").expect("a result");
    }
    let started = |server: &Running| server.notes.happened().started;
    assert!(started(&quick) > 3 * started(&slow), "quick {}, slow {}", started(&quick), started(&slow));
    assert!(started(&slow) > 0, "it was tried");
}

#[tokio::test]
async fn an_affinity_stays_where_it_is_and_others_go_elsewhere() {
    let servers = [serve(ServerLimits::default()).await, serve(ServerLimits::default()).await];
    let channel = channel(&[servers[0].address, servers[1].address]);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let choose = |key| channel.choose(&soon().with_affinity(key)).expect("both are up");
    let chosen: Vec<EndpointId> = (0..100).map(choose).collect();
    assert_eq!(chosen, (0..100).map(choose).collect::<Vec<_>>());
    let first = chosen.iter().filter(|id| id.0 == 0).count();
    assert!((20..80).contains(&first), "{first} of 100 go to the first");
    let only = soon().with_endpoint(EndpointId(1)).with_affinity(0);
    assert_eq!(channel.choose(&only), Some(EndpointId(1)));
}

#[tokio::test]
async fn a_dropped_channel_closes_its_connections() {
    let server = serve(ServerLimits::default()).await;
    let mut connections = 0;
    let channel = channel_with(&[server.address], ChannelConfig { connections: 2, ..ChannelConfig::default() });
    while connections < 2 {
        echo(&channel, "x").await.expect("it is up");
        connections = server.stats.connections.load(Relaxed);
    }
    drop(channel);
    while server.stats.connections.load(Relaxed) > 0 {
        tokio::task::yield_now().await;
    }
}
