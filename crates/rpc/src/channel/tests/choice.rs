//! Which server a call goes to.

use super::*;

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

/// Whole answers that took longer than their clients waited took one server after the other out of choice.
#[tokio::test]
async fn a_server_that_answers_pings_is_not_out_because_its_callers_wait_no_longer() {
    let server = serve(ServerLimits::default()).await;
    for ((config, stats), ejected) in [(pinging(), 0), (counting(), 1)] {
        let channel = channel_with(&[server.address], config);
        echo(&channel, "it is up").await.expect("it is");
        // Not a short one, as far as a server is concerned that is asked nothing else.
        let call = || async {
            let answer = channel.call(&HOLD, &mut Note::of("x"), within(Duration::from_millis(1_100))).await;
            assert!(matches!(answer, Err(ChannelError::Deadline { .. })), "{answer:?}");
        };
        futures_util::future::join_all((0..10).map(|_| call())).await;
        assert_eq!(stats.ejected.load(Relaxed), ejected);
    }
}

/// One whose device was lost was the quickest, and drew most calls.
#[tokio::test]
async fn a_server_that_fails_at_all_it_is_asked_is_left_out_after_some() {
    let servers = [serve(ServerLimits::default()).await, serve(ServerLimits::default()).await];
    let (config, stats) = counting();
    let long = Duration::from_secs(60);
    let config = ChannelConfig { ejection: Ejection { first: long, longest: long, ..Ejection::default() }, ..config };
    let channel = channel_with(&[servers[0].address, servers[1].address], config);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let (failing, key) = (soon().with_endpoint(channel.endpoints()[0].id), key_of(&channel, 0));
    for _ in 0..Ejection::default().failures {
        assert!(!channel.endpoints()[0].ejected);
        let answer = channel.call(&FAIL, &mut Note::of("failed"), failing).await.expect("it arrives");
        assert_eq!(answer.expect_err("the exception").data, "failed");
    }
    assert!(channel.endpoints()[0].ejected);
    assert_eq!(channel.choose(&soon().with_affinity(key)), Some(channel.endpoints()[1].id));
    assert_eq!((stats.ejected.load(Relaxed), stats.repeated.load(Relaxed)), (1, 0), "what has begun is not repeated");
}

/// Whoever asked for its health now and then kept one in choice that failed at all else.
#[tokio::test]
async fn what_is_asked_aside_speaks_for_nobody() {
    let server = serve(ServerLimits::default()).await;
    let channel = channel(&[server.address]);
    let fail = || async {
        let answer = channel.call(&FAIL, &mut Note::of("failed"), soon()).await.expect("it arrives");
        assert_eq!(answer.expect_err("the exception").data, "failed");
    };
    for _ in 1..Ejection::default().failures {
        fail().await;
    }
    channel.call(&ECHO, &mut Note::of("x"), soon().aside()).await.expect("it arrives").expect("a result");
    let declined = channel.call(&FAIL, &mut Note::of("too large"), soon().aside()).await.expect("it arrives");
    assert_eq!(declined.expect_err("the exception").data, "too large");
    assert!(!channel.endpoints()[0].ejected);
    fail().await;
    assert!(channel.endpoints()[0].ejected);
    channel.call(&ECHO, &mut Note::of("x"), soon().aside()).await.expect("it arrives").expect("a result");
    assert!(channel.endpoints()[0].ejected, "nor does it bring one back");
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

/// A call that found its server full took from the repetitions, and found it full again.
#[tokio::test]
async fn calls_over_the_limit_of_a_connection_go_to_another_server_and_are_refused_here_when_all_are_full() {
    let servers = [serve(ServerLimits::default()).await, serve(ServerLimits::default()).await];
    let (config, stats) = counting();
    let config = ChannelConfig { calls_per_connection: 1, ..config };
    let channel = channel_with(&[servers[0].address, servers[1].address], config);
    until(&channel, |endpoints| endpoints.iter().all(|endpoint| endpoint.connected)).await;
    let key = key_of(&channel, 0);
    let mut held = Vec::new();
    for server in &servers {
        let channel = channel.clone();
        held.push(tokio::spawn(
            async move { channel.call(&HOLD, &mut Note::of("x"), soon().with_affinity(key)).await },
        ));
        server.notes.until(|happened| happened.started == 1).await;
    }
    assert!(matches!(echo(&channel, "y").await, Err(ChannelError::Full { limit: 1, .. })));
    servers.iter().for_each(|server| server.notes.open("x"));
    for call in held {
        call.await.expect("no panic").expect("it arrives").expect("a result");
    }
    echo(&channel, "z").await.expect("there is room again");
    assert_eq!((stats.repeated.load(Relaxed), stats.over_budget.load(Relaxed)), (0, 0));
}

#[tokio::test]
async fn the_quicker_of_two_servers_gets_most_calls() {
    // Far from the other one, whose calls take long, too, on a busy machine.
    let slow = Notes::slow(Duration::from_millis(250));
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
