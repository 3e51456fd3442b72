//! Every limit, from the side of a peer that runs into it.

use super::*;

#[tokio::test(start_paused = true)]
async fn calls_over_the_limit_of_a_connection_are_refused_until_one_ends() {
    let bench = bench(ServerLimits { calls_per_connection: 2, ..ServerLimits::default() });
    let (mut raw, _task) = bench.connect();
    raw.call("hold", 1, "a").await;
    raw.call("hold", 2, "b").await;
    raw.call("echo", 3, "c").await;
    assert_eq!(raw.exception().await, (3, "calls_per_connection".to_owned()));
    assert_eq!(bench.stats.limit_hits(Limit::CallsPerConnection), 1);
    bench.notes.open("a");
    assert_eq!(raw.reply().await, (1, "a".to_owned()));
    raw.call("echo", 4, "d").await;
    assert_eq!(raw.reply().await, (4, "d".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_frame_over_the_limit_is_answered_with_both_numbers_and_ends_the_connection() {
    for earlier in [0, 1] {
        let bench = bench(ServerLimits { frame_bytes: 1_000, ..ServerLimits::default() });
        let (mut raw, task) = bench.connect();
        for _ in 0..earlier {
            raw.call("echo", 1, "fits").await;
            raw.reply().await;
        }
        raw.send(&call(Protocol::Compact, "echo", 2, &Note::of(vec![0; 1_000]))).await;
        let response = raw.response().await;
        let Err(ResponseError::Application { message, .. }) = response.result::<Note, Note>() else {
            panic!("expected an application exception")
        };
        assert_eq!(response.seqid, 2);
        assert!(message.contains("limit of 1000 bytes"), "{message}");
        assert_eq!(raw.frame().await, None);
        drop(raw);
        task.await.expect("the connection ends");
        assert_eq!(bench.stats.limit_hits(Limit::FrameBytes), 1);
    }
}

/// Apache's client in Rust sends the length of a frame by itself; what came with it decided whether there was an answer.
#[tokio::test(start_paused = true)]
async fn a_frame_over_the_limit_is_answered_however_its_head_comes() {
    let note = Note::of(vec![0; 70_000]);
    let calls = [Protocol::Binary, Protocol::Compact].map(|protocol| call(protocol, "echo", 2, &note));
    for frame in [&calls[0][..], &calls[1], &in_ttheader(&calls[0], 2_000)] {
        for pieces in [&[4, 30, 2_600][..], &[3, 10, 1, 700, 2_000], &[5_000]] {
            for earlier in [0, 1] {
                let bench = bench(ServerLimits { frame_bytes: 60_000, ..ServerLimits::default() });
                let (mut raw, task) = bench.connect();
                for _ in 0..earlier {
                    raw.call("echo", 1, "fits").await;
                    raw.reply().await;
                }
                let mut rest = frame;
                for bytes in pieces {
                    let (piece, later) = rest.split_at(*bytes);
                    raw.send(piece).await;
                    rest = later;
                    // The server sees the pieces apart.
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    if task.is_finished() {
                        break;
                    }
                }
                // It lingers for as long as the peer does.
                raw.io.shutdown().await.expect("half of it closes");
                let answer = raw.rest().await;
                let told = b"limit of 60000 bytes";
                assert!(answer.windows(told.len()).any(|part| part == told), "{pieces:?}: {answer:02x?}");
                task.await.expect("the connection ends");
                assert_eq!(bench.stats.limit_hits(Limit::FrameBytes), 1);
                assert_eq!(bench.stats.sniffed_total.load(Relaxed), 1 - earlier);
                assert_eq!(bench.in_flight(), 0);
            }
        }
    }
}

/// A header longer than half a kilobyte ended the connection, and with it the other calls on it.
#[tokio::test(start_paused = true)]
async fn a_call_with_a_long_header_is_refused_for_want_of_bytes_as_any_other() {
    let bench = bench(ServerLimits { frame_bytes: MB, bytes_in_flight: MB, ..ServerLimits::default() });
    let (mut holder, _task) = bench.connect();
    holder.send(&call(Protocol::Binary, "hold", 1, &Note::of(vec![b'h'; 900_000]))).await;
    bench.notes.until(|happened| happened.started == 1).await;

    let (mut raw, _task) = bench.connect();
    raw.call("hold", 1, "x").await;
    let big = in_ttheader(&call(Protocol::Binary, "echo", 5, &Note::of(vec![b'b'; 600_000])), 3_000);
    let (first, rest) = big.split_at(1_000);
    raw.send(first).await;
    tokio::time::sleep(bench.shared.limits.frame_time + Duration::from_millis(1)).await;
    let (second, rest) = rest.split_at(2_200);
    raw.send(second).await;
    let refused = raw.frame().await.expect("an answer, not the end");
    let told = b"bytes_in_flight";
    assert!(refused.starts_with(&[0x10, 0]) && refused.windows(told.len()).any(|part| part == told), "{refused:02x?}");
    raw.send(rest).await;
    bench.notes.open("x");
    assert_eq!(raw.reply().await, (1, "x".to_owned()), "it goes on");
}

/// The frame in a TTHeader with a token of so many bytes.
fn in_ttheader(frame: &[u8], token: usize) -> Vec<u8> {
    let mut header = vec![0, 0, 0x11];
    header.extend((token as u16).to_be_bytes());
    header.resize(header.len() + token, b't');
    header.resize(header.len().next_multiple_of(4), 0);
    let mut payload = vec![0x10, 0, 0, 0, 0, 0, 0, 9];
    payload.extend((header.len() as u16 / 4).to_be_bytes());
    payload.extend(header);
    payload.extend(&frame[4..]);
    [&(payload.len() as u32).to_be_bytes(), &payload[..]].concat()
}

#[tokio::test(start_paused = true)]
async fn a_claim_of_two_gigabytes_allocates_nothing_and_ends_the_connection() {
    let bench = default_bench();
    let (mut raw, task) = bench.connect();
    raw.send(&[0x7f, 0xff, 0xff, 0xff, 0x80, 0x01, 0x00, 0x01]).await;
    assert_eq!(raw.frame().await, None);
    drop(raw);
    task.await.expect("the connection ends");
    assert_eq!(bench.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_started_frame_must_be_complete_in_time() {
    for sent in [3, 4, 20, 50_000] {
        let bench = default_bench();
        let (mut raw, task) = bench.connect();
        raw.send(&call(Protocol::Binary, "echo", 1, &Note::of(vec![0; 60_000]))[..sent]).await;
        let began = Instant::now();
        assert_eq!(raw.frame().await, None, "{sent} bytes");
        assert_eq!(began.elapsed().as_secs(), bench.shared.limits.frame_time.as_secs());
        task.await.expect("the connection ends");
        assert_eq!(bench.stats.limit_hits(Limit::FrameTime), 1);
        assert_eq!(bench.in_flight(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_frame_that_trickles_in_is_not_kept_alive_by_its_bytes() {
    let bench = default_bench();
    let (mut raw, task) = bench.connect();
    let bytes = text_call("echo", 1, "hello");
    for byte in bytes.chunks(1) {
        if raw.io.write_all(byte).await.is_err() {
            break;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    task.await.expect("the connection ends");
    assert_eq!(bench.stats.limit_hits(Limit::FrameTime), 1);
}

/// Whoever sent it behind a complete one, and read slowly, lost its connection: its time was that of the read before the pause.
#[tokio::test(start_paused = true)]
async fn a_frame_that_began_before_a_pause_has_its_whole_time_after_it() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    let swell = Note { left_ms: 2 * MB as i64, ..Note::of("x") };
    let (first, second) = (call(Protocol::Binary, "swell", 1, &swell), text_call("echo", 2, "second"));
    let third = text_call("echo", 3, "third");
    let (begun, rest) = third.split_at(10);
    // Answered at once, so that so much waits before the second is taken.
    bench.notes.open("x");
    raw.send(&[&first[..], &second, begun].concat()).await;
    tokio::time::sleep(bench.shared.limits.frame_time * 3 / 2).await;
    assert_eq!(raw.reply().await.0, 1);
    assert_eq!(raw.reply().await, (2, "second".to_owned()));
    tokio::time::sleep(bench.shared.limits.frame_time / 2).await;
    raw.send(rest).await;
    assert_eq!(raw.reply().await, (3, "third".to_owned()));
    assert_eq!(bench.stats.limit_hits(Limit::FrameTime), 0);
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_is_closed_and_one_with_calls_is_not() {
    let bench = default_bench();
    let idle = bench.shared.limits.idle;
    let (mut never_spoke, _task) = bench.connect();
    let (mut busy, _task) = bench.connect();
    busy.call("hold", 1, "x").await;
    let began = Instant::now();
    assert_eq!(never_spoke.frame().await, None);
    assert_eq!(began.elapsed().as_secs(), idle.as_secs());
    assert_eq!(bench.stats.limit_hits(Limit::Idle), 1);
    tokio::time::sleep(3 * idle).await;
    bench.notes.open("x");
    assert_eq!(busy.reply().await, (1, "x".to_owned()));
    let answered = Instant::now();
    assert_eq!(busy.frame().await, None);
    assert_eq!(answered.elapsed().as_secs(), idle.as_secs());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_reads_is_bounded_then_cut_and_stalls_nobody() {
    let bench = default_bench();
    let (raw, task) = bench.connect();
    let (_read, mut write) = tokio::io::split(raw.io);
    let flood = tokio::spawn(async move {
        let bytes = call(Protocol::Binary, "echo", 1, &Note::of(vec![0; 10_000]));
        let mut sent = 0;
        while write.write_all(&bytes).await.is_ok() {
            sent += bytes.len();
        }
        sent
    });
    let (mut other, _task) = bench.connect();
    other.call("echo", 1, "still here").await;
    assert_eq!(other.reply().await, (1, "still here".to_owned()));
    task.await.expect("the connection ends");
    assert_eq!(bench.stats.limit_hits(Limit::WriteStall), 1);
    // Two pipes, what waits to be written, one chunk on either side.
    let sent = flood.await.expect("the flood ends");
    assert!(sent < OUT_ENOUGH + BATCH + 4 * PIPE, "{sent} bytes were taken");
    assert_eq!(bench.in_flight(), 0);
}

/// One byte now and then kept a connection, and everything it was owed, for ever.
#[tokio::test(start_paused = true)]
async fn a_peer_that_reads_a_byte_now_and_then_is_cut() {
    let bench = default_bench();
    let (mut raw, task) = bench.connect();
    let request = Note { left_ms: 300_000, ..Note::of("x") };
    raw.send(&call(Protocol::Binary, "swell", 1, &request)).await;
    bench.notes.open("x");
    let stall = bench.shared.limits.write_stall;
    for byte in 1.. {
        raw.io.read_exact(&mut [0]).await.expect("what was written before can be read");
        tokio::time::sleep(stall - Duration::from_secs(1)).await;
        if task.is_finished() {
            break;
        }
        assert!(byte < 3, "a byte keeps it");
    }
    task.await.expect("the connection ends");
    assert_eq!(bench.stats.limit_hits(Limit::WriteStall), 1);
    assert_eq!(bench.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_everything() {
    let bench = default_bench();
    let (raw, _task) = bench.connect();
    let (read, mut write) = tokio::io::split(raw.io);
    let sender = tokio::spawn(async move {
        for seqid in 1..=400 {
            let bytes = call(Protocol::Binary, "echo", seqid, &Note::of(vec![0; 10_000]));
            write.write_all(&bytes).await.expect("the server reads");
        }
        write
    });
    let mut raw = Raw::over(tokio::io::join(read, tokio::io::sink()));
    // As slowly as may be: what waits, a megabyte, takes nearly all the time that there is.
    let pause = bench.shared.limits.write_stall / 125;
    for seqid in 1..=400 {
        tokio::time::sleep(pause).await;
        assert_eq!(raw.response().await.seqid, seqid);
    }
    assert_eq!(bench.stats.limit_hits(Limit::WriteStall), 0);
    let _write = sender.await.expect("the sender does not panic");
}

#[tokio::test(start_paused = true)]
async fn bytes_in_flight_are_waited_for_in_time_refused_after_it_and_come_back() {
    let bench = bench(ServerLimits { frame_bytes: MB, bytes_in_flight: MB, ..ServerLimits::default() });
    let (mut holder, _task) = bench.connect();
    let held = Note::of(vec![b'h'; 900_000]);
    holder.send(&call(Protocol::Binary, "hold", 1, &held)).await;
    bench.notes.until(|happened| happened.started == 1).await;
    assert!(bench.in_flight() >= 900_000);

    // Another big one waits, then is refused, and its connection goes on.
    let (raw, _task) = bench.connect();
    let (read, mut write) = tokio::io::split(raw.io);
    let big = call(Protocol::Compact, "echo", 5, &Note::of(vec![b'b'; 600_000]));
    let began = Instant::now();
    let sender = tokio::spawn(async move {
        write.write_all(&big).await.expect("it is skipped");
        write.write_all(&text_call("echo", 6, "small")).await.expect("it is read");
        write
    });
    let mut raw = Raw::over(tokio::io::join(read, tokio::io::sink()));
    assert_eq!(raw.exception().await, (5, "bytes_in_flight".to_owned()));
    assert_eq!(began.elapsed().as_secs(), bench.shared.limits.frame_time.as_secs());
    assert_eq!(bench.stats.limit_hits(Limit::BytesInFlight), 1);
    assert_eq!(raw.reply().await, (6, "small".to_owned()), "small frames still find room");
    let mut write = sender.await.expect("the sender does not panic");

    // When the holder has its answer, the same call is served.
    drop(holder);
    bench.notes.until(|happened| happened.cancelled == 1).await;
    let sender = tokio::spawn(async move {
        write.write_all(&call(Protocol::Compact, "echo", 7, &Note::of(vec![b'b'; 600_000]))).await.expect("it is read");
        write
    });
    assert_eq!(raw.reply().await.0, 7);
    let _write = sender.await.expect("the sender does not panic");
    tokio::time::sleep(2 * LET_GO + Duration::from_millis(10)).await;
    assert_eq!(bench.in_flight(), 0);
}

/// Answers were in no budget: each connection could let a thousand of them wait.
#[tokio::test(start_paused = true)]
async fn answers_that_wait_are_bytes_in_flight_and_keep_others_from_starting() {
    let limits = ServerLimits { frame_bytes: MB, bytes_in_flight: MB, ..ServerLimits::default() };
    let bench = bench(limits);
    let (mut slow, task) = bench.connect();
    for seqid in 1..=8 {
        let request = Note { left_ms: 500_000, ..Note::of("x") };
        slow.send(&call(Protocol::Binary, "swell", seqid, &request)).await;
    }
    bench.notes.until(|happened| happened.started == 8).await;
    let before = bench.in_flight();
    for answered in 1..=8 {
        bench.notes.open("x");
        bench.notes.until(|happened| happened.answered == answered).await;
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert_eq!(bench.stats.calls.load(Relaxed), 0, "what has finished is taken, however much waits");
    assert!(bench.in_flight() - before > 8 * 500_000 - 2 * PIPE, "{} after {before}", bench.in_flight());

    let (mut other, _task) = bench.connect();
    let big = call(Protocol::Binary, "echo", 1, &Note::of(vec![0; 40_000]));
    other.send(&big).await;
    assert_eq!(other.exception().await, (1, "bytes_in_flight".to_owned()));
    // Until the answers have gone, with their peer or without it.
    task.await.expect("it takes nothing");
    assert_eq!(bench.stats.limit_hits(Limit::WriteStall), 1);
    other.send(&big).await;
    assert_eq!(other.reply().await.0, 1);
    tokio::time::sleep(2 * LET_GO).await;
    assert_eq!(bench.in_flight(), 0);
}

/// Refusals behind a running call with the same number were taken without limit.
#[tokio::test(start_paused = true)]
async fn answers_behind_a_running_call_with_their_number_are_bounded() {
    let bench = bench(ServerLimits { calls_per_connection: 4, ..ServerLimits::default() });
    let (raw, _task) = bench.connect();
    let (read, mut write) = tokio::io::split(raw.io);
    write.write_all(&text_call("hold", 0, "x")).await.expect("the server reads");
    let sender = tokio::spawn(async move {
        for _ in 0..10_000 {
            write.write_all(&text_call("echo", 0, "next")).await.expect("the server reads");
        }
        write
    });
    tokio::time::sleep(3 * bench.shared.limits.frame_time).await;
    assert_eq!(bench.stats.frames_total.load(Relaxed), 5, "the one that runs and four that wait for it");
    bench.notes.open("x");
    let mut raw = Raw::over(tokio::io::join(read, tokio::io::sink()));
    assert_eq!(raw.reply().await, (0, "x".to_owned()));
    for _ in 0..10_000 {
        assert_eq!(raw.response().await.seqid, 0);
    }
    let _write = sender.await.expect("the sender does not panic");
}

/// The time that a frame may take ran on while its rest was not read.
#[tokio::test(start_paused = true)]
async fn a_frame_that_waited_for_this_side_is_not_late() {
    let bench = default_bench();
    let (mut raw, task) = bench.connect();
    let request = Note { left_ms: 2 * MB as i64, ..Note::of("x") };
    raw.send(&call(Protocol::Binary, "swell", 1, &request)).await;
    let next = text_call("echo", 2, "complete in the end");
    let (first, rest) = next.split_at(10);
    raw.send(first).await;
    bench.notes.until(|happened| happened.started == 1).await;
    bench.notes.open("x");
    let patience = bench.shared.limits.frame_time;
    tokio::time::sleep(patience + patience / 2).await;
    assert_eq!(raw.response().await.seqid, 1);
    tokio::time::sleep(patience / 2).await;
    raw.send(rest).await;
    assert_eq!(raw.reply().await, (2, "complete in the end".to_owned()));
    // From then on it runs as ever.
    raw.send(first).await;
    task.await.expect("the connection ends");
    assert_eq!(bench.stats.limit_hits(Limit::FrameTime), 1);
}

#[tokio::test(start_paused = true)]
async fn a_big_frame_gets_the_bytes_that_others_release() {
    let bench = bench(ServerLimits { frame_bytes: MB, bytes_in_flight: MB, ..ServerLimits::default() });
    let (mut holder, _task) = bench.connect();
    holder.send(&call(Protocol::Binary, "echo", 1, &Note::of(vec![b'h'; 900_000]))[..800_000]).await;
    let (mut waits, _task) = bench.connect();
    let call = call(Protocol::Binary, "echo", 2, &Note::of(vec![b'w'; 500_000]));
    let waiter = tokio::spawn(async move {
        waits.send(&call).await;
        waits.reply().await.0
    });
    tokio::time::sleep(Duration::from_secs(1)).await;
    drop(holder);
    assert_eq!(waiter.await.expect("it is answered"), 2);
    assert_eq!(bench.stats.limit_hits(Limit::BytesInFlight), 0);
}

#[tokio::test(start_paused = true)]
async fn what_calls_in_flight_keep_in_memory_is_charged() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    for seqid in 1..=500 {
        raw.send(&call(Protocol::Binary, "hold", seqid, &Note::of(vec![0; 1_000]))).await;
    }
    bench.notes.until(|happened| happened.started == 500).await;
    // All but the bytes that every connection owns.
    assert!(bench.in_flight() >= 500 * 1_000 - 2 * crate::inbound::OWN, "{}", bench.in_flight());
    assert!(bench.in_flight() < 2 * 500 * 1_000, "{}", bench.in_flight());
    drop(raw);
    bench.notes.until(|happened| happened.cancelled == 500).await;
    tokio::task::yield_now().await;
    assert_eq!(bench.in_flight(), 0);
}

#[tokio::test(start_paused = true)]
async fn nesting_and_containers_over_the_limit_are_errors_of_their_call_only() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    // A chain of structs, by hand: 3: struct { 3: struct { ...
    let mut deep = vec![0x0c, 0, 1];
    deep.extend([0x0c, 0, 3].repeat(10_000));
    deep.extend([0].repeat(10_002));
    // 4: list<i64> of 2^31-1 elements, in a few bytes.
    let claims = [0x0c, 0, 1, 0x0f, 0, 4, 0x0a, 0x7f, 0xff, 0xff, 0xff, 0, 0];
    // The same field with a million elements and one, all of them there.
    let mut long = vec![0x0c, 0, 1, 0x0f, 0, 4, 0x0a];
    long.extend(1_000_001_u32.to_be_bytes());
    long.resize(long.len() + 8 * 1_000_001 + 2, 0);
    for (seqid, args) in [(1, &deep[..]), (2, &claims[..]), (3, &long[..])] {
        let mut payload = b"\x80\x01\x00\x01\x00\x00\x00\x04echo\x00\x00\x00".to_vec();
        payload.push(seqid);
        payload.extend(args);
        raw.send(&(payload.len() as u32).to_be_bytes()).await;
        raw.send(&payload).await;
        let response = raw.response().await;
        assert_eq!(response.seqid, i32::from(seqid));
        assert_eq!(application_kind(&response), ApplicationErrorKind::ProtocolError);
    }
    raw.call("echo", 4, "goes on").await;
    assert_eq!(raw.reply().await, (4, "goes on".to_owned()));
    // A claim that its frame does not hold is a mistake, and no limit.
    assert_eq!([Limit::Depth, Limit::Container].map(|limit| bench.stats.limit_hits(limit)), [1, 1]);
}

#[tokio::test(start_paused = true)]
async fn bytes_that_are_no_message_end_the_connection() {
    for frame in [&b"\x00\x00\x00\x00"[..], b"\x00\x00\x00\x05hello", b"\x00\x00\x00\x06\x80\x01\x00\x02\x00\x00"] {
        let bench = default_bench();
        let (mut raw, task) = bench.connect();
        raw.call("echo", 1, "fine").await;
        raw.reply().await;
        raw.send(frame).await;
        assert_eq!(raw.frame().await, None, "{frame:?}");
        drop(raw);
        task.await.expect("the connection ends");
    }
}
