//! `outboard call infer`.

use idl::inference::InferRequest;
use serde_json::{Value, json};

use crate::args::Target;
use crate::client::Client;
use crate::exit::{Failure, USAGE};
use crate::say::say;
use crate::tensor_text;

pub(super) async fn infer(model: &str, inputs: &[String], outputs: &[String], target: &Target) -> Result<(), Failure> {
    let inputs = inputs.iter().map(|text| tensor_text::parse(text).map_err(|error| Failure::new(USAGE, error)));
    let request = InferRequest {
        model: Some(model.to_owned()),
        inputs: Some(inputs.collect::<Result<_, _>>()?),
        outputs: (!outputs.is_empty()).then(|| outputs.to_vec()),
        ..InferRequest::default()
    };
    let client = Client::new(&target.server, &target.key, &target.tls, target.timeout)?;
    let reply = client.call(&idl::methods::INFER, request).await?;
    let all: Vec<Value> = reply.outputs.iter().flatten().map(tensor_text::to_json).collect();
    if target.json {
        say(format_args!("{}", json!({"outputs": all, "request_id": reply.request_id})));
        return Ok(());
    }
    for one in all {
        say(format_args!(
            "{} {}{}",
            one["name"].as_str().unwrap_or_default(),
            one["type"].as_str().unwrap_or_default(),
            one["shape"]
        ));
        say(format_args!("  {}", one["values"]));
    }
    Ok(())
}
