mod choice;
mod hanging;
mod names;
mod repeated;

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::{ApplicationErrorKind, MessageKind};

use super::*;
use crate::testing::{ECHO, FAIL, HOLD, NOTED, Note, Notes, Raw, Running, UNKNOWN, serve, serve_at, text_call};
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
    in_time(async {
        loop {
            changed.mark_unchanged();
            if wanted(&channel.endpoints()) {
                return;
            }
            changed.changed().await.expect("the channel lives");
        }
    })
    .await;
}

/// Ends a wait that would else have no end where a test fails.
async fn in_time<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), wait).await.expect("half a minute is enough")
}

async fn until_connections(server: &Running, wanted: usize) {
    in_time(async {
        while server.stats.connections.load(Relaxed) != wanted {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
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
    let options = within(Duration::from_millis(500));
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
    let late = channel.call(&ECHO, &mut note, within(Duration::from_millis(500)));
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
async fn a_dropped_channel_closes_its_connections() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel_with(&[server.address], ChannelConfig { connections: 2, ..ChannelConfig::default() });
    echo(&channel, "x").await.expect("it is up");
    until_connections(&server, 2).await;
    drop(channel);
    until_connections(&server, 0).await;
}
