//! What every store promises, on every store: SQLite and a folder always; Cassandra and an S3-compatible store where
//! `scripts/test cassandra` and `scripts/test s3` have started them.

mod pictures;
mod pictures_tls;
mod records;

use history::{Record, RecordId, Score, Source, Timing};

/// Where nobody listens: the port is of a service that nobody has any more.
const NOBODY: &str = "127.0.0.1:1";

/// A record of this id, as good as any.
fn record(id: RecordId, model: &str, label: &str) -> Record {
    Record {
        id,
        request_id: format!("request-{id}"),
        caller: "anonymous@127.0.0.1".to_owned(),
        source: Source::Api,
        model: model.to_owned(),
        version: "1".to_owned(),
        file_name: "Größe 42 \u{9774}.png".to_owned(),
        format: "png".to_owned(),
        bytes: 1_234,
        sha256: "00".repeat(32),
        width: 28,
        height: 28,
        labels: vec![
            Score { label: label.to_owned(), index: 9, score: 0.75 },
            Score { label: "o'ther \"label\"".to_owned(), index: 7, score: 0.125 },
        ],
        timing: Timing { decode_us: 1, queue_us: 2, run_us: 3, total_us: 4 },
        outcome: "ok".to_owned(),
        kept_bytes: 2_000,
        has_preview: true,
        correction: None,
    }
}
