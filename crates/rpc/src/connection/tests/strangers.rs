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
