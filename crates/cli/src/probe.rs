//! `outboard probe`.

use std::time::Duration;

use bytes::Bytes;
use idl::chat::ChatRequest;
use idl::health::{CheckRequest, ServingStatus};
use idl::inference::{
    ClassifyRequest, DataType, EmbedRequest, InferRequest, ModelInfo, ModelState, ModelsRequest, Task, Tensor,
    TensorSpec,
};

use crate::args::Probe;
use crate::client::{Client, block_on};
use crate::exit::{Failure, NO, SILENT, UNREACHABLE, USAGE};
use crate::say::say;
use crate::tensor_text::{bytes_of, name_of};

/// A gray picture of 8x8 px, so that a probe needs no file.
const PICTURE: &[u8] = include_bytes!("probe.png");

/// What language models and embedding models are asked.
const TEXT: &str = "Are you there?";

/// Most bytes of one input of `--deep`: what a server takes in one message by default.
const MOST_ZEROS: usize = 16 << 20;

/// Prints one line when all is well.
pub(crate) fn run(probe: &Probe) -> Result<(), Failure> {
    if probe.address.starts_with("http://") || probe.address.starts_with("https://") {
        return over_http(probe);
    }
    let told = block_on(over_thrift(probe)).map_err(|failure| match failure.status {
        // A fault is an answer: the server is there and does not serve this.
        _ if failure.is_deadline() => Failure::new(SILENT, failure.message),
        UNREACHABLE | USAGE | NO => failure,
        _ => Failure::new(NO, failure.message),
    })?;
    say(told);
    Ok(())
}

async fn over_thrift(probe: &Probe) -> Result<String, Failure> {
    let client = Client::with_one_deadline(&probe.address, &probe.key, &probe.tls, probe.timeout)?;
    let request = CheckRequest { base: None, model: probe.model.clone() };
    let reply = client.call(&idl::methods::CHECK, request).await?;
    let name = match reply.status {
        Some(ServingStatus::SERVING) => "SERVING",
        Some(ServingStatus::NOT_SERVING) => "NOT_SERVING",
        Some(ServingStatus::LOADING) => "LOADING",
        Some(ServingStatus::DRAINING) => "DRAINING",
        _ => "UNKNOWN",
    };
    let reason = reply.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let load = reply.load.map_or(0.0, |load| load.0);
    let line = format!("{name} {} load {load:.2}{reason}", probe.address);
    let well = if probe.live { reply.live.unwrap_or(true) } else { name == "SERVING" };
    if !well {
        let hangs = if probe.live { " (a worker hangs, only a restart helps)" } else { "" };
        return Err(Failure::new(NO, format!("{line}{hangs}")));
    }
    if probe.deep {
        deep(&client, probe).await?;
    }
    Ok(line)
}

/// One real inference on every model.
async fn deep(client: &Client, probe: &Probe) -> Result<(), Failure> {
    let request = ModelsRequest { base: None, model: probe.model.clone(), with_labels: Some(false) };
    let models = client.call(&idl::methods::MODELS, request).await?.models.unwrap_or_default();
    for model in models.iter().filter(|model| model.state == Some(ModelState::READY)) {
        let name = model.name.clone().unwrap_or_default();
        let asked = Some(name.clone());
        let ran = match model.task {
            Some(Task::CLASSIFY) => {
                let images = Some(vec![Bytes::from_static(PICTURE)]);
                let request = ClassifyRequest { model: asked, images, ..ClassifyRequest::default() };
                client.call(&idl::methods::CLASSIFY, request).await.map(|_| ())
            }
            Some(Task::EMBED) => {
                let texts = Some(vec![TEXT.to_owned()]);
                let request = EmbedRequest { model: asked, texts, ..EmbedRequest::default() };
                client.call(&idl::methods::EMBED, request).await.map(|_| ())
            }
            Some(Task::CHAT) => {
                let (prompt, max_tokens) = (Some(TEXT.to_owned()), Some(1));
                let request = ChatRequest { model: asked, prompt, max_tokens, ..ChatRequest::default() };
                client.call(&idl::methods::COMPLETE, request).await.map(|_| ())
            }
            _ => {
                let inputs = Some(zeros(model)?);
                let request = InferRequest { model: asked, inputs, ..InferRequest::default() };
                client.call(&idl::methods::INFER, request).await.map(|_| ())
            }
        };
        ran.map_err(|failure| Failure::new(failure.status, format!("model {name}: {}", failure.message)))?;
    }
    Ok(())
}

/// Zeros for every input that the model needs, one element along each free axis.
fn zeros(model: &ModelInfo) -> Result<Vec<Tensor>, Failure> {
    let needed = model.inputs.iter().flatten().filter(|spec| spec.has_default != Some(true));
    needed.map(zero).collect()
}

fn zero(spec: &TensorSpec) -> Result<Tensor, Failure> {
    let shape: Vec<i64> = spec.shape.iter().flatten().map(|size| if *size < 0 { 1 } else { *size }).collect();
    let data_type = spec.data_type.unwrap_or(DataType::F32);
    let is_text = name_of(data_type) == Some("string");
    // The sizes come from the server: they are not believed before they are known to fit.
    let elements = shape.iter().try_fold(1_usize, |all, size| all.checked_mul(usize::try_from(*size).ok()?));
    let bytes_each = if is_text { size_of::<String>() } else { bytes_of(data_type) };
    let fits = |elements: &usize| elements.checked_mul(bytes_each.max(1)).is_some_and(|bytes| bytes <= MOST_ZEROS);
    let elements = elements.filter(fits).ok_or_else(|| {
        let name = spec.name.as_deref().unwrap_or_default();
        Failure::new(
            NO,
            format!("input {name} has shape {shape:?}, zeros for a probe are limited to {MOST_ZEROS} bytes"),
        )
    })?;
    Ok(Tensor {
        name: spec.name.clone(),
        data_type: Some(data_type),
        shape: Some(shape),
        data: (!is_text).then(|| Bytes::from(vec![0; elements * bytes_of(data_type)])),
        strings: is_text.then(|| vec![String::new(); elements]),
    })
}

fn over_http(probe: &Probe) -> Result<(), Failure> {
    if probe.model.is_some() || probe.deep {
        return Err(Failure::new(
            USAGE,
            "--model and --deep ask a server over Thrift: give HOST:PORT, not a web address",
        ));
    }
    let rest = probe.address.split_once("://").map_or("", |(_, rest)| rest);
    let page = if probe.live { "/health/live" } else { "/health/ready" };
    let url = if rest.trim_end_matches('/').contains('/') {
        probe.address.clone()
    } else {
        format!("{}{page}", probe.address.trim_end_matches('/'))
    };
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        // A probe is about this very address, and a proxy named in the environment is not it.
        .proxy(None)
        .timeout_global(Some(probe.timeout.max(Duration::from_millis(1))))
        .build();
    let agent = ureq::Agent::from(config);
    let failed = |error| match error {
        ureq::Error::Timeout(_) => Failure::new(SILENT, format!("{url}: no answer within {:?}", probe.timeout)),
        ureq::Error::TlsRequired => {
            Failure::new(USAGE, format!("{url}: outboard speaks no TLS, give an http:// address"))
        }
        ureq::Error::Http(reason) => Failure::new(USAGE, format!("{} is no web address: {reason}", probe.address)),
        ureq::Error::BadUri(reason) => Failure::new(USAGE, format!("{url}: {reason}")),
        other => Failure::new(UNREACHABLE, format!("{url}: {other}")),
    };
    let mut answer = agent.get(&url).call().map_err(failed)?;
    let body = answer.body_mut().read_to_string().map_err(failed)?;
    let line = format!("{} {url}: {}", answer.status().as_u16(), body.trim());
    if !answer.status().is_success() {
        return Err(Failure::new(NO, line));
    }
    say(line);
    Ok(())
}
