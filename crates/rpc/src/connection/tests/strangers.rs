//! What is not framed Thrift.

use super::*;

#[tokio::test(start_paused = true)]
async fn what_is_not_framed_thrift_is_told_so_and_closed() {
    let cases: [(&[u8], &[u8]); 5] = [
        (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"HTTP/1.1 400 "),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"\x15\x03"),
        (b"\x80\x01\x00\x01\x00\x00\x00\x04ping\x00\x00\x00\x01\x00", b"\x80\x01\x00\x03"),
        (b"\x82\x21\x01\x04ping\x00", b"\x82"),
        (b"\x00\x00\x00\x10\x00\x00\x00\x04ping\x01\x00\x00\x00\x01\x00\x00\x00", b"\x00\x00\x00"),
    ];
    for (sent, expected) in cases {
        let bench = default_bench();
        let (mut raw, task) = bench.connect();
        raw.send(sent).await;
        let answer = raw.rest().await;
        assert!(answer.starts_with(expected), "{sent:?} was answered with {:?}", String::from_utf8_lossy(&answer));
        drop(raw);
        task.await.expect("the connection ends");
        assert_eq!(bench.stats.sniffed_total.load(Relaxed), 1);
        assert_eq!(bench.notes.happened().started, 0);
    }
}

#[tokio::test(start_paused = true)]
async fn who_may_not_call_is_told_so_by_the_head_of_its_call_and_takes_no_bytes_from_callers() {
    let bench = bench(ServerLimits { frame_bytes: MB, bytes_in_flight: MB, ..ServerLimits::default() });
    for protocol in [Protocol::Binary, Protocol::Compact] {
        let big = call(protocol, "echo", 7, &Note::of(vec![b'b'; 900_000]));
        // One claims all there is and sends no more; the other sends a call's head.
        let (mut silent, _task) = bench.connect_refused("not here");
        silent.send(&big[..6]).await;
        let (mut raw, task) = bench.connect_refused("not here");
        raw.send(&big[..100]).await;
        let response = raw.response().await;
        let Err(ResponseError::Application { kind, message }) = response.result::<Note, Note>() else {
            panic!("no exception of the protocol");
        };
        assert_eq!((response.seqid, kind), (7, ApplicationErrorKind::UnsupportedClientType));
        assert!(message.contains("not here"), "{message}");
        assert_eq!(raw.rest().await, b"");
        assert_eq!(bench.in_flight(), 0);
        drop(raw);
        task.await.expect("the connection ends");

        let (mut good, _task) = bench.connect();
        good.send(&call(protocol, "hold", 1, &Note::of(vec![b'g'; 900_000]))).await;
        bench.notes.until(|happened| happened.started > happened.cancelled).await;
        // Nor is it told that there is no room: it is told why it may not call.
        let (mut raw, _task) = bench.connect_refused("not here");
        raw.send(&big[..100]).await;
        assert_eq!(application_kind(&raw.response().await), ApplicationErrorKind::UnsupportedClientType);
        let cancelled = bench.notes.happened().cancelled;
        drop(good);
        bench.notes.until(|happened| happened.cancelled > cancelled).await;
        tokio::time::sleep(LET_GO).await;
    }
    assert_eq!(bench.notes.happened().started, 2, "no call of theirs was made");
    assert_eq!(bench.stats.limit_hits(Limit::BytesInFlight), 0);
}

#[tokio::test(start_paused = true)]
async fn who_may_not_call_and_sends_no_head_is_closed() {
    let bench = default_bench();
    let (mut raw, task) = bench.connect_refused("not here");
    // A name that does not end within the bytes of any head.
    let name = "n".repeat(2_000);
    let frame = call(Protocol::Binary, &name, 1, &Note::of(vec![0; 100_000]));
    raw.send(&frame[..1_000]).await;
    assert_eq!(raw.rest().await, b"");
    assert_eq!(bench.stats.limit_hits(Limit::FrameTime), 0, "nothing more is waited for");
    drop(raw);
    task.await.expect("the connection ends");
}
