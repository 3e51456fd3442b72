//! `outboard call`: one server, one method, the answer as a table or as JSON.

use std::path::{Path, PathBuf};

use bytes::Bytes;
use idl::inference::{
    Classification, ClassifyRequest, InferRequest, ModelInfo, ModelState, ModelsRequest, Task, TensorSpec, Timing,
};
use serde_json::{Value, json};

use crate::args::{Call, Target};
use crate::client::{Client, block_on};
use crate::exit::{Failure, USAGE};
use crate::tensor_text;

/// As many pictures as a server takes in one call by default.
const PICTURES: usize = 16;

pub(crate) fn run(call: &Call) -> Result<(), Failure> {
    block_on(async {
        match call {
            Call::Models { address, model, target } => {
                let mut target = target.clone();
                if let Some(address) = address {
                    target.server.clone_from(address);
                }
                models(model.as_deref(), &target).await
            }
            Call::Classify { files, model, top_k, target } => classify(files, model, *top_k, target).await,
            Call::Infer { model, input, output, target } => infer(model, input, output, target).await,
        }
    })
}

async fn models(only: Option<&str>, target: &Target) -> Result<(), Failure> {
    let client = Client::new(&target.server, target.timeout)?;
    let request = ModelsRequest { base: None, model: only.map(str::to_owned), with_labels: None };
    let models = client.call(&idl::methods::MODELS, request).await?.models.unwrap_or_default();
    if target.json {
        let all: Vec<Value> = models.iter().map(model_json).collect();
        println!("{}", json!(all));
        return Ok(());
    }
    println!("{:<28} {:<8} {:<9} {:<9} {:<8} description", "model", "version", "task", "state", "device");
    for model in &models {
        println!(
            "{:<28} {:<8} {:<9} {:<9} {:<8} {}",
            text(&model.name),
            text(&model.version),
            task(model),
            state(model),
            text(&model.device),
            model.reason.as_deref().or(model.description.as_deref()).unwrap_or_default()
        );
    }
    Ok(())
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn task(model: &ModelInfo) -> &'static str {
    match model.task {
        Some(Task::CLASSIFY) => "classify",
        Some(Task::EMBED) => "embed",
        Some(Task::TRANSFORM) => "transform",
        Some(Task::CHAT) => "chat",
        _ => "tensor",
    }
}

fn state(model: &ModelInfo) -> &'static str {
    match model.state {
        Some(ModelState::LOADING) => "loading",
        Some(ModelState::WARMING) => "warming",
        Some(ModelState::READY) => "ready",
        Some(ModelState::FAILED) => "failed",
        Some(ModelState::DRAINING) => "draining",
        _ => "unknown",
    }
}

fn model_json(model: &ModelInfo) -> Value {
    let spec = |spec: &TensorSpec| {
        json!({
            "name": spec.name, "type": spec.data_type.and_then(tensor_text::name_of), "shape": spec.shape,
            "axes": spec.axes, "has_default": spec.has_default.unwrap_or(false),
        })
    };
    let placement = model.placement.iter().flatten().map(|one| json!({"provider": one.provider, "nodes": one.nodes}));
    json!({
        "name": model.name, "version": model.version, "versions": model.versions, "task": task(model),
        "state": state(model), "reason": model.reason, "description": model.description, "licence": model.licence,
        "inputs": model.inputs.iter().flatten().map(spec).collect::<Vec<_>>(),
        "outputs": model.outputs.iter().flatten().map(spec).collect::<Vec<_>>(),
        "labels": model.labels, "classes": model.classes, "device": model.device,
        "device_reason": model.device_reason, "placement": placement.collect::<Vec<_>>(), "max_rows": model.max_rows,
    })
}

async fn classify(files: &[PathBuf], model: &str, top_k: i32, target: &Target) -> Result<(), Failure> {
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
        println!("{}", json!(all));
    }
    Ok(())
}

fn picture(file: &Path) -> Result<Bytes, Failure> {
    let read = std::fs::read(file).map(Bytes::from);
    read.map_err(|error| Failure::new(USAGE, format!("{}: {error}", file.display())))
}

fn print_result(file: &Path, result: &Classification, several: bool) {
    if several {
        println!("{}", file.display());
    }
    for label in result.labels.iter().flatten() {
        println!("{:>7.3} %  {}", label.score.map_or(0.0, |score| score.0 * 100.0), text(&label.label));
    }
}

fn result_json(file: &Path, result: &Classification, timing: &Timing, request_id: &str) -> Value {
    let label =
        |one: &idl::inference::Label| json!({"label": one.label, "index": one.index, "score": one.score.map(|s| s.0)});
    json!({
        "file": file.display().to_string(),
        "results": result.labels.iter().flatten().map(label).collect::<Vec<_>>(),
        "width": result.width, "height": result.height, "format": result.format,
        "timing_us": {"decode": timing.decode_us, "queue": timing.queue_us, "run": timing.run_us, "total": timing.total_us},
        "request_id": request_id,
    })
}

async fn infer(model: &str, inputs: &[String], outputs: &[String], target: &Target) -> Result<(), Failure> {
    let inputs = inputs.iter().map(|text| tensor_text::parse(text).map_err(|error| Failure::new(USAGE, error)));
    let request = InferRequest {
        model: Some(model.to_owned()),
        inputs: Some(inputs.collect::<Result<_, _>>()?),
        outputs: (!outputs.is_empty()).then(|| outputs.to_vec()),
        ..InferRequest::default()
    };
    let client = Client::new(&target.server, target.timeout)?;
    let reply = client.call(&idl::methods::INFER, request).await?;
    let all: Vec<Value> = reply.outputs.iter().flatten().map(tensor_text::to_json).collect();
    if target.json {
        println!("{}", json!({"outputs": all, "request_id": reply.request_id}));
        return Ok(());
    }
    for one in all {
        println!(
            "{} {}{}",
            one["name"].as_str().unwrap_or_default(),
            one["type"].as_str().unwrap_or_default(),
            one["shape"]
        );
        println!("  {}", one["values"]);
    }
    Ok(())
}
