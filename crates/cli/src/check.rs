//! `outboard models check`: what would be served, without serving it.

use std::path::{Path, PathBuf};

use generate::{Template, Vocabulary};
use indicatif::HumanBytes;
use model_store::{Chat, Embed, ModelFolder, Pooling, StoreError, Task};
use runtime::{Blueprint, Decoder, DeviceWish, Dim, LibraryChoice, Runtime, Session, SessionOptions, TensorSpec};

use crate::exit::{Failure, NO};
use crate::say::say;

/// A server answers no more conversations of one model at once, whatever room there is.
const MOST_CONVERSATIONS: u64 = 256;

pub(crate) fn run(folders: &[PathBuf], library: Option<&Path>) -> Result<(), Failure> {
    let choice = library.map_or(LibraryChoice::Search, |path| LibraryChoice::At(path.to_owned()));
    let runtime = Runtime::load(&choice).map_err(|error| Failure::new(NO, error.to_string()))?;
    let (mut good, mut bad) = (0, 0);
    for folder in folders {
        // `models/mnist/` and `.` have a name only once they are made absolute.
        let folder = folder.canonicalize().unwrap_or_else(|_| folder.clone());
        for one in find(&folder) {
            let checked = match one {
                // A card whose model is made or fetched elsewhere. A server says nothing of it either.
                Err(StoreError::NoVersion { path }) if path != folder => {
                    say(format_args!("none  {}: there is no model beside its settings", name_of(&path)));
                    continue;
                }
                Err(error) => Err(error.to_string()),
                Ok(model) => check(&model, runtime),
            };
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
    match model_store::read(folder) {
        Ok(Some(model)) => vec![Ok(model)],
        Ok(None) => match model_store::scan(folder) {
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
    match settings.task {
        Task::Chat => return check_talker(model, &session).map_err(named),
        Task::Embed => return check_embedder(model, &session).map_err(named),
        _ => {}
    }
    let classes = classes(model, session.outputs());
    let labels = model.labels.len();
    if let Some(classes) = classes.filter(|classes| labels > 0 && *classes != labels as u64) {
        return Err(named(format!("{labels} labels for {classes} classes")));
    }
    good(model);
    for spec in session.inputs() {
        say(format_args!("      input  {}: {spec}{}", spec.name, if spec.optional { ", may be left out" } else { "" }));
    }
    for spec in session.outputs() {
        say(format_args!("      output {}: {spec}", spec.name));
    }
    where_it_runs(&session);
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

/// The line that begins what is said of a model that can be served.
fn good(model: &ModelFolder) {
    say(format_args!("good  {} version {} ({})", model.name, model.newest().number, task(model.settings.task)));
    if let Some(description) = &model.settings.description {
        say(format_args!("      {description}"));
    }
}

fn where_it_runs(session: &Session) {
    say(format_args!("      device {} ({})", session.chosen().device, session.chosen().why));
    for (provider, nodes) in session.placement() {
        say(format_args!("      {nodes} nodes on {provider}"));
    }
}

/// A language model: what its graph must be, the files without which nobody can talk to it, and how many can at once.
fn check_talker(model: &ModelFolder, session: &Session) -> Result<(), String> {
    let spec = Decoder::spec_of(session)?;
    needs_tokenizer(model)?;
    let vocabulary = Vocabulary::open(&model.path).map_err(|error| error.to_string())?;
    let template = Template::open(&model.path).map_err(|error| error.to_string())?;
    let tokens = vocabulary.tokens().bytes.len();
    if tokens > spec.vocabulary {
        return Err(format!("tokenizer.json has {tokens} tokens, the graph has logits for {}", spec.vocabulary));
    }
    let trained = model.trained_context().map_err(|error| error.to_string())?;
    let chat = &model.settings.chat;
    let context = trained.map_or(chat.max_context, |trained| trained.min(chat.max_context));
    let bytes = spec.token_bytes().saturating_mul(context) as u64;
    if bytes > chat.kv_bytes {
        return Err(format!(
            "`chat.kv_bytes` is {}, one conversation of {context} tokens (`chat.max_context`) takes {bytes} bytes",
            chat.kv_bytes
        ));
    }
    good(model);
    let could = trained.map_or_else(String::new, |trained| format!(", trained for {trained}"));
    say(format_args!(
        "      context of {context} tokens, prompt and answer together (`chat.max_context` is {}{could})",
        chat.max_context
    ));
    say(format_args!(
        "      room for {} at once: {} each, `chat.kv_bytes` is {}",
        counted((chat.kv_bytes / bytes.max(1)).min(MOST_CONVERSATIONS), "conversation"),
        size(bytes),
        size(chat.kv_bytes)
    ));
    match template {
        Some(_) => say("      has a chat template: /v1/chat/completions and the chat page work"),
        None => say(
            "      no chat template: only plain prompts (/v1/completions) are answered; put chat_template.jinja beside it",
        ),
    }
    say(format_args!("      when a request does not say: {}", sampling(chat)));
    say(format_args!("      {} layers, {} tokens in its vocabulary", spec.layers, tokens));
    where_it_runs(session);
    Ok(())
}

/// A model of sentence vectors: what it gives, and of how long texts.
fn check_embedder(model: &ModelFolder, session: &Session) -> Result<(), String> {
    needs_tokenizer(model)?;
    let embed = &model.settings.embed;
    let output = vectors(embed, session.outputs()).ok_or_else(|| match &embed.output {
        Some(name) => format!("`embed.output` is {name:?}, the graph has no such output"),
        None => "the graph has no output".to_owned(),
    })?;
    good(model);
    let numbers = match output.shape.as_deref().and_then(|shape| shape.last()) {
        Some(Dim::Fixed(numbers)) => format!("vectors of {numbers} numbers"),
        _ => "vectors".to_owned(),
    };
    let pooled = match (output.shape.as_deref().map(<[Dim]>::len), embed.pooling) {
        (Some(2), _) => "one of each text".to_owned(),
        (_, Pooling::Mean) => "the mean of all tokens (`embed.pooling`)".to_owned(),
        (_, Pooling::Cls) => "that of the first token (`embed.pooling` is cls)".to_owned(),
    };
    let length = if embed.normalise { "scaled to length 1" } else { "as long as they come" };
    say(format_args!("      {numbers} from {}: {pooled}, {length} (`embed.normalise`)", output.name));
    say(format_args!(
        "      texts of up to {} tokens (`embed.max_tokens`); longer ones are refused, or cut when asked",
        embed.max_tokens
    ));
    where_it_runs(session);
    Ok(())
}

/// The output that vectors are taken from.
fn vectors<'s>(embed: &Embed, outputs: &'s [TensorSpec]) -> Option<&'s TensorSpec> {
    let named = |name: &str| outputs.iter().find(|output| output.name == name);
    match &embed.output {
        Some(name) => named(name),
        None => named("last_hidden_state").or_else(|| outputs.first()),
    }
}

/// What differs from taking every token by its probability.
fn sampling(chat: &Chat) -> String {
    let mut all = vec![format!("temperature {}", chat.temperature)];
    for (name, value, neutral) in [
        ("top_p", chat.top_p, 1.0),
        ("min_p", chat.min_p, 0.0),
        ("repetition_penalty", chat.repetition_penalty, 1.0),
        ("presence_penalty", chat.presence_penalty, 0.0),
        ("frequency_penalty", chat.frequency_penalty, 0.0),
    ] {
        if value != neutral {
            all.push(format!("{name} {value}"));
        }
    }
    if chat.top_k > 0 {
        all.push(format!("top_k {}", chat.top_k));
    }
    all.join(", ")
}

fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}

/// Bytes as people read them.
fn size(bytes: u64) -> String {
    HumanBytes(bytes).to_string()
}

fn name_of(path: &Path) -> String {
    path.file_name().map_or_else(|| path.display().to_string(), |name| name.to_string_lossy().into_owned())
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
