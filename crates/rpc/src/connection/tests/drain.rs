//! Connections in a drain.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_refuses_new_calls_finishes_old_ones_then_closes() {
    let bench = default_bench();
    let (mut raw, task) = bench.connect();
    raw.call("hold", 1, "x").await;
    bench.notes.until(|happened| happened.started == 1).await;
    bench.drain.start();
    raw.call("echo", 2, "late").await;
    assert_eq!(raw.exception().await, (2, "draining".to_owned()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    bench.shared.busy.close();
    assert_eq!(bench.shared.busy.len(), 1, "it holds the drain up");
    bench.notes.open("x");
    assert_eq!(raw.reply().await, (1, "x".to_owned()));
    bench.shared.busy.wait().await;
    raw.call("echo", 3, "later still").await;
    assert_eq!(raw.exception().await, (3, "draining".to_owned()));
    bench.shared.drained.cancel();
    assert_eq!(raw.frame().await, None);
    drop(raw);
    task.await.expect("the connection ends");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_comes_in_a_drain_is_told_so_and_holds_nothing_up() {
    let bench = default_bench();
    let (mut old, _task) = bench.connect();
    old.call("hold", 1, "x").await;
    bench.notes.until(|happened| happened.started == 1).await;
    bench.drain.start();
    let (mut half, _task) = bench.connect();
    half.send(&text_call("health", 1, "")[..10]).await;
    let (mut new, _task) = bench.connect();
    new.call("health", 1, "how are you").await;
    assert_eq!(new.reply().await, (1, "alive".to_owned()));
    new.call("echo", 2, "too late").await;
    assert_eq!(new.exception().await, (2, "draining".to_owned()));
    assert_eq!(bench.stats.refused_total.load(Relaxed), 1, "health was answered, not refused");
    let end = tokio::spawn({
        let shared = Arc::clone(&bench.shared);
        async move {
            shared.busy.close();
            shared.busy.wait().await;
            shared.drained.cancel();
        }
    });
    new.call("health", 3, "still").await;
    assert_eq!(new.reply().await, (3, "alive".to_owned()));
    assert!(!end.is_finished(), "the old call has not ended");
    assert_eq!(bench.shared.busy.len(), 1, "and nothing else is waited for");
    bench.notes.open("x");
    assert_eq!(old.reply().await, (1, "x".to_owned()));
    end.await.expect("nobody else is waited for");
    assert_eq!((old.frame().await, new.frame().await), (None, None));
}

#[tokio::test(start_paused = true)]
async fn oneway_calls_are_heard_in_a_drain_while_something_is_in_flight_beside_them() {
    let bench = default_bench();
    let (mut busy, _task) = bench.connect();
    let (mut idle, _task) = bench.connect();
    busy.call("hold", 1, "x").await;
    bench.notes.until(|happened| happened.started == 1).await;
    bench.drain.start();
    busy.call("noted", 2, "give it up").await;
    bench.notes.until(|happened| happened.noted == ["give it up"]).await;
    idle.call("noted", 1, "what").await;
    idle.call("health", 2, "").await;
    assert_eq!(idle.reply().await.0, 2);
    bench.notes.open("x");
    busy.reply().await;
    busy.call("noted", 3, "nothing is left").await;
    busy.call("health", 4, "").await;
    assert_eq!(busy.reply().await.0, 4);
    assert_eq!(bench.notes.happened().noted, ["give it up"]);
    assert_eq!(bench.stats.refused_total.load(Relaxed), 2);
}
