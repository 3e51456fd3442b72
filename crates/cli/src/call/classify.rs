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

/// Bytes of pictures in one call, unless a single one is larger: what a server takes in one frame by default (16,384,000)
/// less what stands around them.
const BYTES: usize = 16_000_000;

/// What is asked about each picture.
struct Question<'a> {
    client: Client,
    model: &'a str,
    top_k: i32,
}

pub(super) async fn classify(files: &[PathBuf], model: &str, top_k: i32, target: &Target) -> Result<(), Failure> {
    let question =
        Question { client: Client::new(&target.server, &target.key, &target.tls, target.timeout)?, model, top_k };
    let mut found = Vec::new();
    let done = question.ask_all(files, |file, result, timing, request_id| {
        if target.json {
            found.push(result_json(file, result, timing, request_id));
        } else {
            print_result(file, result, files.len() > 1);
        }
    });
    let done = done.await;
    // What was answered before something failed is not lost.
    if target.json && (done.is_ok() || !found.is_empty()) {
        say(json!(found));
    }
    done
}

impl Question<'_> {
    /// Tells each picture's result, in order, as soon as it is there.
    async fn ask_all(
        &self,
        files: &[PathBuf],
        mut tell: impl FnMut(&Path, &Classification, &Timing, &str),
    ) -> Result<(), Failure> {
        let (mut group, mut images, mut bytes) = (Vec::new(), Vec::new(), 0);
        for file in files {
            let picture = picture(file)?;
            if !group.is_empty() && (group.len() == PICTURES || bytes + picture.len() > BYTES) {
                self.ask(&std::mem::take(&mut group), std::mem::take(&mut images), &mut tell).await?;
                bytes = 0;
            }
            bytes += picture.len();
            images.push(picture);
            group.push(file.as_path());
        }
        self.ask(&group, images, &mut tell).await
    }

    async fn ask(
        &self,
        files: &[&Path],
        images: Vec<Bytes>,
        tell: &mut impl FnMut(&Path, &Classification, &Timing, &str),
    ) -> Result<(), Failure> {
        let request = ClassifyRequest {
            model: Some(self.model.to_owned()),
            images: Some(images),
            top_k: Some(self.top_k),
            ..ClassifyRequest::default()
        };
        let reply = self.client.call(&idl::methods::CLASSIFY, request).await?;
        let timing = reply.timing.unwrap_or_default();
        for (file, result) in files.iter().zip(reply.results.unwrap_or_default()) {
            tell(file, &result, &timing, text(&reply.request_id));
        }
        Ok(())
    }
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
