//! `outboard call classify`.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use idl::inference::{Classification, ClassifyRequest, Label, Timing};
use serde_json::{Value, json};

use super::text;
use crate::args::Target;
use crate::client::Client;
use crate::exit::{Failure, USAGE};
use crate::say::say;

/// As many pictures as a server takes in one call by default.
const PICTURES: usize = 16;

pub(super) async fn classify(files: &[PathBuf], model: &str, top_k: i32, target: &Target) -> Result<(), Failure> {
    let client = Client::new(&target.server, target.timeout)?;
    let mut all = Vec::new();
    for group in files.chunks(PICTURES) {
        let images = group.iter().map(|file| picture(file)).collect::<Result<Vec<_>, _>>()?;
        let request = ClassifyRequest {
            model: Some(model.to_owned()),
            images: Some(images),
            top_k: Some(top_k),
            ..ClassifyRequest::default()
        };
        let reply = client.call(&idl::methods::CLASSIFY, request).await?;
        let timing = reply.timing.unwrap_or_default();
        for (file, result) in group.iter().zip(reply.results.unwrap_or_default()) {
            if target.json {
                all.push(result_json(file, &result, &timing, text(&reply.request_id)));
            } else {
                print_result(file, &result, files.len() > 1);
            }
        }
    }
    if target.json {
        say(format_args!("{}", json!(all)));
    }
    Ok(())
}

fn picture(file: &Path) -> Result<Bytes, Failure> {
    let read = std::fs::read(file).map(Bytes::from);
    read.map_err(|error| Failure::new(USAGE, format!("{}: {error}", file.display())))
}

fn print_result(file: &Path, result: &Classification, several: bool) {
    if several {
        say(format_args!("{}", file.display()));
    }
    for label in result.labels.iter().flatten() {
        say(format_args!("{:>7.3} %  {}", label.score.map_or(0.0, |score| score.0 * 100.0), text(&label.label)));
    }
}

fn result_json(file: &Path, result: &Classification, timing: &Timing, request_id: &str) -> Value {
    let label = |one: &Label| json!({"label": one.label, "index": one.index, "score": one.score.map(|s| s.0)});
    json!({
        "file": file.display().to_string(),
        "results": result.labels.iter().flatten().map(label).collect::<Vec<_>>(),
        "width": result.width, "height": result.height, "format": result.format,
        "timing_us": {"decode": timing.decode_us, "queue": timing.queue_us, "run": timing.run_us, "total": timing.total_us},
        "request_id": request_id,
    })
}
