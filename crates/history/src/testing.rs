//! A record for tests.

use crate::record::{Record, RecordId, Source, Timing};

/// One that a model has made just now, of a picture of 9 bytes.
pub(crate) fn record(model: &str) -> Record {
    Record {
        id: RecordId::generate(),
        request_id: "r".to_owned(),
        caller: "c".to_owned(),
        source: Source::Api,
        model: model.to_owned(),
        version: "1".to_owned(),
        file_name: String::new(),
        format: "png".to_owned(),
        bytes: 9,
        sha256: String::new(),
        width: 1,
        height: 1,
        labels: Vec::new(),
        timing: Timing::default(),
        outcome: "ok".to_owned(),
        kept_bytes: 0,
        has_preview: false,
        correction: None,
    }
}
