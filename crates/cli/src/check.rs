//! `outboard models check`: what would be served, without serving it.

use std::path::{Path, PathBuf};

use model_store::{ModelFolder, StoreError, Task};
use runtime::{Blueprint, Decoder, DeviceWish, Dim, LibraryChoice, Runtime, Session, SessionOptions, TensorSpec};

use crate::exit::{Failure, NO};
use crate::say::say;

pub(crate) fn run(folders: &[PathBuf], library: Option<&Path>) -> Result<(), Failure> {
    let choice = library.map_or(LibraryChoice::Search, |path| LibraryChoice::At(path.to_owned()));
    let runtime = Runtime::load(&choice).map_err(|error| Failure::new(NO, error.to_string()))?;
    let (mut good, mut bad) = (0, 0);
    for folder in folders {
        for one in find(folder) {
            let checked = one.map_err(|error| error.to_string()).and_then(|model| check(&model, runtime));
            match checked {
                Ok(()) => good += 1,
                Err(reason) => {
                    bad += 1;
                    say(format_args!("BAD   {reason}"));
                }
            }
        }
    }
    match (good, bad) {
        (0, 0) => Err(Failure::new(NO, "no model there: expected folders such as NAME/1/model.onnx")),
        (_, 0) => Ok(()),
        _ => Err(Failure::new(NO, format!("{bad} of {} models cannot be served", good + bad))),
    }
}

/// The model in the folder itself, or those in the folders in it.
fn find(folder: &Path) -> Vec<Result<ModelFolder, StoreError>> {
    // `models/mnist/` and `.` have a name only once they are made absolute.
    let folder = folder.canonicalize().unwrap_or_else(|_| folder.to_owned());
    match model_store::read(&folder) {
        Ok(Some(model)) => vec![Ok(model)],
        Ok(None) => match model_store::scan(&folder) {
            Ok(found) => found.into_iter().map(|one| one.map_err(|rejected| rejected.error)).collect(),
            Err(error) => vec![Err(error)],
        },
        Err(error) => vec![Err(error)],
    }
}

fn check(model: &ModelFolder, runtime: &'static Runtime) -> Result<(), String> {
    let named = |reason: String| format!("{}: {reason}", model.name);
    let settings = &model.settings;
    let wish = settings.device.parse::<DeviceWish>().map_err(|error| named(error.to_string()))?;
    let blueprint = Blueprint::open(runtime, &model.newest().model).map_err(|error| named(error.to_string()))?;
    let options = SessionOptions { wish, provider_options: settings.provider.clone(), ..SessionOptions::default() };
    let session = blueprint.session(&options).map_err(|error| named(error.to_string()))?;
    if settings.task == Task::Chat {
        return check_talker(model, &session).map_err(named);
    }
    if settings.task == Task::Embed {
        needs_tokenizer(model).map_err(named)?;
    }
    let classes = classes(model, session.outputs());
    let labels = model.labels.len();
    if let Some(classes) = classes.filter(|classes| labels > 0 && *classes != labels as u64) {
        return Err(named(format!("{labels} labels for {classes} classes")));
    }
    say(format_args!("good  {} version {} ({})", model.name, model.newest().number, task(settings.task)));
    for spec in session.inputs() {
        say(format_args!("      input  {}: {spec}{}", spec.name, if spec.optional { ", may be left out" } else { "" }));
    }
    for spec in session.outputs() {
        say(format_args!("      output {}: {spec}", spec.name));
    }
    say(format_args!("      device {} ({})", session.chosen().device, session.chosen().why));
    for (provider, nodes) in session.placement() {
        say(format_args!("      {nodes} nodes on {provider}"));
    }
    if settings.task == Task::Embed {
        let embed = &settings.embed;
        let (most, pooling) = (embed.max_tokens, format!("{:?}", embed.pooling).to_lowercase());
        say(format_args!("      texts of up to {most} tokens (`embed.max_tokens`), pooled by {pooling}"));
    }
    match (model.labels.first(), classes) {
        (Some(first), Some(classes)) => {
            say(format_args!("      {labels} labels for {classes} classes, the first is {first:?}"))
        }
        (Some(first), None) => {
            say(format_args!("      {labels} labels, the first is {first:?}; the model does not tell its classes"))
        }
        (None, Some(classes)) => say(format_args!("      no labels for {classes} classes")),
        (None, None) => {}
    }
    Ok(())
}

/// A language model: what its graph must be, and the file without which nobody can talk to it.
fn check_talker(model: &ModelFolder, session: &Session) -> Result<(), String> {
    let spec = Decoder::spec_of(session)?;
    needs_tokenizer(model)?;
    let trained = model.trained_context().map_err(|error| error.to_string())?;
    let chat = &model.settings.chat;
    let context = trained.map_or(chat.max_context, |trained| trained.min(chat.max_context));
    let bytes = spec.token_bytes().saturating_mul(context);
    if bytes as u64 > chat.kv_bytes {
        return Err(format!(
            "`chat.kv_bytes` is {}, one conversation of {context} tokens (`chat.max_context`) takes {bytes} bytes",
            chat.kv_bytes
        ));
    }
    say(format_args!("good  {} version {} (chat)", model.name, model.newest().number));
    say(format_args!(
        "      {} layers, {} tokens, {} bytes of cache a token",
        spec.layers,
        spec.vocabulary,
        spec.token_bytes()
    ));
    say(format_args!(
        "      one conversation of {context} tokens takes {bytes} bytes, `chat.kv_bytes` is {}",
        chat.kv_bytes
    ));
    say(format_args!("      device {} ({})", session.chosen().device, session.chosen().why));
    Ok(())
}

fn needs_tokenizer(model: &ModelFolder) -> Result<(), String> {
    if model.path.join("tokenizer.json").is_file() {
        return Ok(());
    }
    Err("there is no tokenizer.json, so no text can be made tokens of".to_owned())
}

/// How many classes a classifier says it has: the last axis of its scores.
fn classes(model: &ModelFolder, outputs: &[TensorSpec]) -> Option<u64> {
    if model.settings.task != Task::Classify {
        return None;
    }
    let scores = match (&model.settings.output.scores, outputs) {
        (Some(name), outputs) => outputs.iter().find(|output| output.name == *name)?,
        (None, [only]) => only,
        (None, _) => return None,
    };
    match scores.shape.as_deref()?.last()? {
        Dim::Fixed(classes) => Some(*classes),
        Dim::Free(_) => None,
    }
}

fn task(task: Task) -> &'static str {
    match task {
        Task::Tensor => "tensor",
        Task::Classify => "classify",
        Task::Embed => "embed",
        Task::Transform => "transform",
        Task::Chat => "chat",
    }
}
