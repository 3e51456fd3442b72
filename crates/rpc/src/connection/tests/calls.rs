//! Calls of one connection: the order of their answers, cancellation, panics.

use super::*;

#[tokio::test(start_paused = true)]
async fn calls_with_different_numbers_are_answered_as_they_finish() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    raw.call("hold", 1, "slow").await;
    raw.call("hold", 2, "quick").await;
    raw.call("echo", 3, "at once").await;
    assert_eq!(raw.reply().await, (3, "at once".to_owned()));
    bench.notes.open("quick");
    assert_eq!(raw.reply().await, (2, "quick".to_owned()));
    bench.notes.open("slow");
    assert_eq!(raw.reply().await, (1, "slow".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn calls_with_the_same_number_are_answered_in_order() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    raw.call("hold", 0, "first").await;
    raw.call("noted", 0, "oneway calls stand in nobody's way").await;
    raw.call("hold", 0, "second").await;
    raw.call("echo", 0, "third").await;
    raw.call("hold", 7, "another").await;
    bench.notes.open("second");
    bench.notes.open("another");
    assert_eq!(raw.reply().await, (7, "another".to_owned()));
    bench.notes.open("first");
    for text in ["first", "second", "third"] {
        assert_eq!(raw.reply().await, (0, text.to_owned()));
    }
    raw.call("echo", 0, "fourth").await;
    assert_eq!(raw.reply().await, (0, "fourth".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn oneway_calls_are_never_answered() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    raw.call("noted", 1, "a").await;
    raw.call("noted", 2, "b").await;
    raw.call("echo", 3, "c").await;
    assert_eq!(raw.reply().await, (3, "c".to_owned()));
    assert_eq!(bench.notes.happened().noted, ["a", "b"]);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_leaves_cancels_its_calls_and_nobody_elses() {
    let bench = default_bench();
    let (mut leaves, task) = bench.connect();
    let (mut stays, _task) = bench.connect();
    for seqid in 1..=3 {
        leaves.call("hold", seqid, "x").await;
    }
    stays.call("hold", 1, "y").await;
    bench.notes.until(|happened| happened.started == 4).await;
    drop(leaves);
    bench.notes.until(|happened| happened.cancelled == 3).await;
    task.await.expect("the connection ends");
    assert_eq!(bench.stats.calls.load(Relaxed), 1);
    bench.notes.open("y");
    assert_eq!(stays.reply().await, (1, "y".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_sending_has_left() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    raw.call("hold", 1, "x").await;
    bench.notes.until(|happened| happened.started == 1).await;
    raw.io.shutdown().await.expect("half of it closes");
    bench.notes.until(|happened| happened.cancelled == 1).await;
    assert_eq!(raw.frame().await, None);
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_internal_error_of_its_call_only() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    raw.call("hold", 1, "x").await;
    for (seqid, method) in [(2, "panic"), (3, "panic_late")] {
        raw.call(method, seqid, "").await;
        let response = raw.response().await;
        assert_eq!((response.seqid, application_kind(&response)), (seqid, ApplicationErrorKind::InternalError));
    }
    bench.notes.open("x");
    assert_eq!(raw.reply().await, (1, "x".to_owned()));
    assert_eq!(bench.stats.panics_total.load(Relaxed), 2);
}
