//! What is sent once more, where, and what is not.

use super::*;

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
    in_time(async {
        while channel.endpoints()[0].in_flight < 2 {
            tokio::task::yield_now().await;
        }
    })
    .await;
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
