//! A record as it leaves: one object of JSON, or one line of CSV.

use serde::Serialize;
use utoipa::ToSchema;

use crate::day::rfc_3339;
use crate::record::{Record, Score};

/// A class and how sure the model was of it.
#[derive(Serialize, ToSchema)]
pub struct ScoreBody<'a> {
    label: &'a str,
    /// Place among the model's classes.
    index: i32,
    /// 0 to 1.
    score: f64,
}

/// What a person says it really is.
#[derive(Serialize, ToSchema)]
pub struct CorrectionBody<'a> {
    label: &'a str,
    /// Who said so.
    by: &'a str,
    /// RFC 3339, by UTC.
    time: String,
}

/// Where the time went, in milliseconds.
#[derive(Serialize, ToSchema)]
pub struct TimesBody {
    /// Bytes to the model's input.
    decode_ms: f64,
    /// Waiting for the model.
    queue_ms: f64,
    /// On the device.
    run_ms: f64,
    /// As the gateway saw it.
    total_ms: f64,
}

/// One picture and its answer.
#[derive(Serialize, ToSchema)]
pub struct RecordBody<'a> {
    #[schema(example = "01931b6e-1c1a-7c3e-9f0a-0123456789ab")]
    id: String,
    /// RFC 3339, by UTC.
    #[schema(example = "2026-11-21T16:45:00.123Z")]
    time: String,
    /// Stands in the logs of every process.
    request_id: &'a str,
    caller: &'a str,
    /// `page` or `api`.
    source: &'static str,
    model: &'a str,
    version: &'a str,
    /// What the sender called it, made safe; empty when it had no name.
    file_name: &'a str,
    /// What the bytes were: `png`, `jpeg`, ...
    format: &'a str,
    bytes: u64,
    sha256: &'a str,
    width: u32,
    height: u32,
    /// Best first.
    results: Vec<ScoreBody<'a>>,
    timing: TimesBody,
    /// `ok`, or the code of the failure.
    outcome: &'a str,
    /// What a person says it really is.
    correction: Option<CorrectionBody<'a>>,
    /// Where the picture is, when it was kept.
    picture: Option<String>,
    /// Where a small JPEG of it is.
    preview: Option<String>,
}

impl<'a> From<&'a Record> for RecordBody<'a> {
    fn from(record: &'a Record) -> Self {
        let millis = |micros: u64| micros as f64 / 1e3;
        let score = |one: &'a Score| ScoreBody {
            label: &one.label,
            index: one.index,
            // More digits are noise of the arithmetic.
            score: (one.score * 1e6).round() / 1e6,
        };
        let times = record.timing;
        Self {
            id: record.id.to_string(),
            time: rfc_3339(record.id.millis()),
            request_id: &record.request_id,
            caller: &record.caller,
            source: record.source.name(),
            model: &record.model,
            version: &record.version,
            file_name: &record.file_name,
            format: &record.format,
            bytes: record.bytes,
            sha256: &record.sha256,
            width: record.width,
            height: record.height,
            results: record.labels.iter().map(score).collect(),
            timing: TimesBody {
                decode_ms: millis(times.decode_us),
                queue_ms: millis(times.queue_us),
                run_ms: millis(times.run_us),
                total_ms: millis(times.total_us),
            },
            outcome: &record.outcome,
            correction: record.correction.as_ref().map(|correction| CorrectionBody {
                label: &correction.label,
                by: &correction.by,
                time: rfc_3339(correction.at_ms),
            }),
            picture: record.has_picture().then(|| format!("/v1/history/{}/picture", record.id)),
            preview: record.has_preview.then(|| format!("/v1/history/{}/preview", record.id)),
        }
    }
}

/// The first line of CSV.
pub const CSV_HEAD: &str = "id,time,request_id,caller,source,model,version,file_name,format,bytes,sha256,width,height,\
                            label,score,outcome,correction,corrected_by,corrected_at";

/// One line of CSV by RFC 4180, without its end. A text that a spreadsheet would take for a formula gets an apostrophe in front:
/// a file's name is a stranger's text.
#[must_use]
pub fn csv(record: &Record) -> String {
    let first = record.labels.first();
    let correction = record.correction.as_ref();
    let fields = [
        record.id.to_string(),
        rfc_3339(record.id.millis()),
        cell(&record.request_id),
        cell(&record.caller),
        record.source.name().to_owned(),
        cell(&record.model),
        cell(&record.version),
        cell(&record.file_name),
        cell(&record.format),
        record.bytes.to_string(),
        record.sha256.clone(),
        record.width.to_string(),
        record.height.to_string(),
        cell(record.label()),
        first.map_or_else(String::new, |one| format!("{:.6}", one.score)),
        cell(&record.outcome),
        correction.map_or_else(String::new, |one| cell(&one.label)),
        correction.map_or_else(String::new, |one| cell(&one.by)),
        correction.map_or_else(String::new, |one| rfc_3339(one.at_ms)),
    ];
    fields.join(",")
}

fn cell(text: &str) -> String {
    // The wide ones are taken for the others where people write Chinese or Japanese.
    const FORMULA: [char; 11] = ['=', '+', '-', '@', '\t', '\r', '\n', '\u{ff1d}', '\u{ff0b}', '\u{ff0d}', '\u{ff20}'];
    let plain = if text.starts_with(FORMULA) { format!("'{text}") } else { text.to_owned() };
    if plain.contains([',', '"', '\n', '\r']) { format!("\"{}\"", plain.replace('"', "\"\"")) } else { plain }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::{Correction, RecordId, Source, Timing};

    fn record() -> Record {
        Record {
            id: RecordId::first_of(1_700_000_000_123),
            request_id: "r-1".to_owned(),
            caller: "anonymous@127.0.0.1".to_owned(),
            source: Source::Page,
            model: "m".to_owned(),
            version: "1".to_owned(),
            file_name: "=1+1, \"x\".png".to_owned(),
            format: "png".to_owned(),
            bytes: 9,
            sha256: "ab".to_owned(),
            width: 2,
            height: 3,
            labels: vec![Score { label: "a,b".to_owned(), index: 1, score: 0.123_456_789 }],
            timing: Timing { decode_us: 1_500, ..Timing::default() },
            outcome: "ok".to_owned(),
            kept_bytes: 9,
            has_preview: false,
            correction: Some(Correction { label: "c".to_owned(), by: "me".to_owned(), at_ms: 0 }),
        }
    }

    #[test]
    fn a_line_of_csv_has_a_field_for_each_of_its_head_and_no_formula() {
        assert_eq!(
            csv(&record()),
            "018bcfe5-687b-7000-8000-000000000000,2023-11-14T22:13:20.123Z,r-1,anonymous@127.0.0.1,page,m,1,\
             \"'=1+1, \"\"x\"\".png\",png,9,ab,2,3,\"a,b\",0.123457,ok,c,me,1970-01-01T00:00:00.000Z"
        );
        let plain = Record { file_name: "x".to_owned(), labels: Vec::new(), correction: None, ..record() };
        assert_eq!(csv(&plain).split(',').count(), CSV_HEAD.split(',').count());
    }

    #[test]
    fn no_text_is_a_formula() {
        for text in ["=1", "+1", "-1", "@a", "\u{ff1d}1", "\u{ff0b}1", "\u{ff0d}1", "\u{ff20}a"] {
            assert_eq!(cell(text), format!("'{text}"));
        }
        for text in ["\n=1", "\r=1"] {
            assert_eq!(cell(text), format!("\"'{text}\""));
        }
        assert_eq!(cell("a=1"), "a=1");
    }

    #[test]
    fn an_object_says_where_the_picture_is() {
        let body = serde_json::to_value(RecordBody::from(&record())).expect("JSON");
        assert_eq!(body["picture"], "/v1/history/018bcfe5-687b-7000-8000-000000000000/picture");
        assert_eq!(body["preview"], serde_json::Value::Null);
        assert_eq!(body["results"][0]["score"], 0.123_457);
        assert_eq!(body["timing"]["decode_ms"], 1.5);
        assert_eq!(body["correction"]["label"], "c");
    }
}
