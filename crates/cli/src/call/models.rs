//! `outboard call models`.

use idl::inference::{ModelInfo, ModelState, ModelsRequest, Task, TensorSpec};
use serde_json::{Value, json};

use super::text;
use crate::args::Target;
use crate::client::Client;
use crate::exit::Failure;
use crate::say::say;
use crate::tensor_text;

pub(super) async fn models(only: Option<&str>, target: &Target) -> Result<(), Failure> {
    let client = Client::new(&target.server, &target.key, &target.tls, target.timeout)?;
    let request = ModelsRequest { base: None, model: only.map(str::to_owned), with_labels: None };
    let models = client.call(&idl::methods::MODELS, request).await?.models.unwrap_or_default();
    if target.json {
        let all: Vec<Value> = models.iter().map(model_json).collect();
        say(format_args!("{}", json!(all)));
        return Ok(());
    }
    say(format_args!("{:<28} {:<8} {:<9} {:<9} {:<8} description", "model", "version", "task", "state", "device"));
    for model in &models {
        say(format_args!(
            "{:<28} {:<8} {:<9} {:<9} {:<8} {}",
            text(&model.name),
            text(&model.version),
            task(model),
            state(model),
            text(&model.device),
            model.reason.as_deref().or(model.description.as_deref()).unwrap_or_default()
        ));
    }
    Ok(())
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
