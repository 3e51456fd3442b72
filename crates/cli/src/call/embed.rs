//! `outboard call embed`.

use idl::inference::{EmbedReply, EmbedRequest};
use serde_json::{Value, json};

use super::text;
use crate::args::Target;
use crate::client::Client;
use crate::exit::{Failure, NO};
use crate::say::say;

pub(super) async fn embed(texts: &[String], model: &str, truncate: bool, target: &Target) -> Result<(), Failure> {
    let client = Client::new(&target.server, &target.key, &target.tls, target.timeout)?;
    let request = EmbedRequest {
        model: Some(model.to_owned()),
        texts: Some(texts.to_vec()),
        truncate: truncate.then_some(true),
        ..EmbedRequest::default()
    };
    let reply = client.call(&idl::methods::EMBED, request).await?;
    let vectors = vectors(&reply, texts.len())?;
    let tokens = reply.token_counts.as_deref().unwrap_or_default();
    if target.json {
        say(result_json(&reply, texts, &vectors));
        return Ok(());
    }
    say(format_args!("{:>8}  {:>6}  text ({} numbers each)", "cosine", "tokens", vectors[0].len()));
    for ((at, vector), written) in vectors.iter().enumerate().zip(texts) {
        let tokens = tokens.get(at).copied().unwrap_or_default();
        say(format_args!("{:>8.4}  {tokens:>6}  {written}", cosine(&vectors[0], vector)));
    }
    Ok(())
}

/// The vectors, when there is one of each text.
fn vectors(reply: &EmbedReply, count: usize) -> Result<Vec<Vec<f32>>, Failure> {
    let bytes = reply.vectors.as_deref().unwrap_or_default();
    let numbers = reply.dimensions.and_then(|numbers| usize::try_from(numbers).ok()).unwrap_or_default();
    if numbers == 0 || bytes.len() != count * numbers * size_of::<f32>() {
        let message = format!("the server sent {} bytes for {count} vectors of {numbers} numbers", bytes.len());
        return Err(Failure::new(NO, message));
    }
    let floats: Vec<f32> = bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk)).collect();
    Ok(floats.chunks_exact(numbers).map(<[f32]>::to_vec).collect())
}

/// How alike two texts are: 1 is the same, 0 unrelated.
fn cosine(one: &[f32], other: &[f32]) -> f64 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>();
    dot(one, other) / (dot(one, one) * dot(other, other)).sqrt()
}

fn result_json(reply: &EmbedReply, texts: &[String], vectors: &[Vec<f32>]) -> Value {
    let tokens = reply.token_counts.as_deref().unwrap_or_default();
    let one = |(at, (written, vector)): (usize, (&String, &Vec<f32>))| json!({"text": written, "tokens": tokens.get(at), "vector": vector});
    let timing = reply.timing.clone().unwrap_or_default();
    json!({
        "results": texts.iter().zip(vectors).enumerate().map(one).collect::<Vec<_>>(),
        "model": reply.model, "version": reply.version,
        "timing_us": {"decode": timing.decode_us, "queue": timing.queue_us, "run": timing.run_us, "total": timing.total_us},
        "request_id": text(&reply.request_id),
    })
}
