//! What a connection keeps.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_connection_at_rest_is_small() {
    let bench = default_bench();
    let (_ours, theirs) = tokio::io::duplex(1);
    let peer = Arc::new(Peer::new("192.0.2.1:1".parse().expect("an address"), 0));
    let task = Connection::new(theirs, peer, Arc::clone(&bench.shared)).run();
    // Ten thousand of them: 20 MB. Buffers come with the first bytes and go a second after the last.
    assert!(size_of_val(&task) <= 2_048, "{} bytes", size_of_val(&task));
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_rests_has_given_all_its_buffers_back() {
    let bench = default_bench();
    let (ours, theirs) = tokio::io::duplex(PIPE);
    let peer = Arc::new(Peer::new("192.0.2.1:1".parse().expect("an address"), 0));
    let mut connection = Connection::new(theirs, peer, Arc::clone(&bench.shared));
    let mut raw = Raw::over(ours);
    let client = async {
        // Small answers by the megabyte, answers in line behind others, and large ones by reference.
        for bytes in [10, 5_000, 100_000] {
            raw.send(&call(Protocol::Binary, "hold", 1, &Note::of("x"))).await;
            for _ in 0..10 {
                raw.send(&call(Protocol::Binary, "echo", 1, &Note::of(vec![0; bytes]))).await;
            }
            bench.notes.open("x");
            for _ in 0..11 {
                raw.response().await;
            }
        }
        tokio::time::sleep(2 * LET_GO).await;
    };
    tokio::select! {
        _ = std::future::poll_fn(|cx| connection.poll(cx)) => panic!("the connection ended"),
        () = client => {}
    }
    assert!(!connection.is_holding());
    assert!(!connection.inbound.is_holding() && !connection.out.is_holding() && !connection.calls.is_holding());
    assert_eq!(bench.in_flight(), 0);
}
