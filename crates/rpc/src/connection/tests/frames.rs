//! Frames in pieces of any size, and many in one.

use super::*;

/// Several frames of both protocols, and the texts that must come back.
fn stream(sizes: &[usize]) -> (Vec<u8>, Vec<Note>) {
    let mut bytes = Vec::new();
    let mut notes = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let note = Note { left_ms: index as i64, ..Note::of(vec![index as u8; *size]) };
        let protocol = if index % 2 == 0 { Protocol::Binary } else { Protocol::Compact };
        bytes.extend_from_slice(&call(protocol, "echo", index as i32 + 1, &note));
        notes.push(note);
    }
    (bytes, notes)
}

async fn expect_echoes(raw: &mut Raw<DuplexStream>, notes: &[Note]) {
    for (index, note) in notes.iter().enumerate() {
        let response = raw.response().await;
        assert_eq!(response.seqid, index as i32 + 1);
        assert_eq!(response.result::<Note, Note>(), Ok(Ok(note.clone())));
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_cut_at_any_point_gives_the_same_calls() {
    let (bytes, notes) = stream(&[0, 3, 40, 1, 300]);
    for cut in 0..=bytes.len() {
        let bench = default_bench();
        let (mut raw, _task) = bench.connect();
        raw.send(&bytes[..cut]).await;
        // The server sees the pieces apart: it runs dry before the second comes.
        tokio::time::sleep(Duration::from_millis(1)).await;
        raw.send(&bytes[cut..]).await;
        expect_echoes(&mut raw, &notes).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_stream_of_all_sizes_in_random_pieces_gives_the_same_calls() {
    let seed = fastrand::u64(..);
    let mut random = fastrand::Rng::with_seed(seed);
    for round in 0..20 {
        let sizes: Vec<usize> = (0..12)
            .map(|_| match random.u8(..4) {
                0 => random.usize(..100),
                1 => random.usize(3_900..4_200),
                2 => random.usize(32_000..33_500),
                _ => random.usize(60_000..400_000),
            })
            .collect();
        let (bytes, notes) = stream(&sizes);
        let bench = default_bench();
        let (raw, _task) = bench.connect();
        let (mut read, mut write) = tokio::io::split(raw.io);
        let mut pieces = random.fork();
        let sender = tokio::spawn(async move {
            let mut rest = &bytes[..];
            while !rest.is_empty() {
                let most = if pieces.bool() { 10 } else { 70_000 };
                let (piece, later) = rest.split_at(pieces.usize(1..=most).min(rest.len()));
                write.write_all(piece).await.expect("the server reads");
                rest = later;
                tokio::task::yield_now().await;
            }
            write
        });
        let mut raw = Raw::over(tokio::io::join(&mut read, tokio::io::sink()));
        for (index, note) in notes.iter().enumerate() {
            let response = raw.response().await;
            let result = response.result::<Note, Note>();
            assert!(result == Ok(Ok(note.clone())), "seed {seed}, round {round}, frame {index}, sizes {sizes:?}");
        }
        let _write = sender.await.expect("the sender does not panic");
        // Buffers go back soon after the last call.
        tokio::time::sleep(2 * LET_GO + Duration::from_millis(10)).await;
        assert_eq!(bench.in_flight(), 0, "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn many_small_calls_in_one_write_are_all_answered() {
    let bench = default_bench();
    let (mut raw, _task) = bench.connect();
    let calls: Vec<u8> = (1..=500).flat_map(|seqid| text_call("echo", seqid, "hello").to_vec()).collect();
    raw.send(&calls).await;
    for seqid in 1..=500 {
        assert_eq!(raw.reply().await, (seqid, "hello".to_owned()));
    }
}
