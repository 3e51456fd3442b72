//! What a client asks for, checked.
//!
//! Promises: every value that is out of its range, and every field that would change the answer and is not supported, is refused
//! by its name; fields that change nothing are passed over.

use fault::Fault;
use idl::chat::{ChatRequest, Format, FormatKind, Sampling};
use units::ModelName;

use super::fields::{Fields, text_of, wrong};
use super::{messages, unsupported};
use crate::classify::checked;

/// Most stop texts, and most bytes of one.
const STOPS: usize = 16;
const STOP_BYTES: usize = 256;
/// Most entries of `logit_bias`.
const BIASES: usize = 300;
/// Most answers to one request.
const ANSWERS: i64 = 16;
/// Most likeliest tokens that are told for each place.
const LIKELIEST: i64 = 20;
/// Most bytes of a JSON schema: it becomes an automaton, at a cost.
const SCHEMA: usize = 64 << 10;
/// The two names for how many tokens the answer may have.
const LENGTH: &str = "max_completion_tokens";
const OLD_LENGTH: &str = "max_tokens";
/// What OpenAI's completions have when nothing is said.
const COMPLETION_TOKENS: i64 = 16;

/// Which of the two APIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// `/v1/chat/completions`.
    Chat,
    /// `/v1/completions`.
    Completion,
}

/// A request that can be sent to a server.
#[derive(Debug)]
pub(super) struct Wanted {
    pub(super) form: Form,
    pub(super) model: ModelName,
    pub(super) request: ChatRequest,
    /// How many answers.
    pub(super) answers: usize,
    pub(super) stream: bool,
    pub(super) include_usage: bool,
    /// What stands in front of the answer's text.
    pub(super) echo: Option<String>,
    /// By which of its names the client says how long the answer may be.
    length: &'static str,
}

impl Wanted {
    /// # Errors
    /// InvalidInput that names the field, the value and what is allowed.
    pub(super) fn read(body: &[u8], form: Form) -> Result<Self, Fault> {
        let fields = Fields::of_body(body)?;
        unsupported::refuse(&fields, form)?;
        let name = fields.text("model")?.ok_or_else(|| fields.missing("model", "the name of a model"))?;
        let model = checked(&name)?;
        let answers = fields.integer("n", 1..=ANSWERS)?.unwrap_or(1);
        let length = if fields.raw(LENGTH).is_some() { LENGTH } else { OLD_LENGTH };
        let mut request = ChatRequest {
            model: Some(model.as_str().to_owned()),
            max_tokens: max_tokens(&fields, form)?,
            sampling: Some(sampling(&fields)?),
            stop: stops(&fields)?,
            format: format(&fields)?,
            n: Some(answers as i32),
            // The client's own name for what has the same beginning.
            conversation: fields.text("prompt_cache_key")?.map(|key| key.into_owned()),
            ..ChatRequest::default()
        };
        let mut echo = None;
        match form {
            Form::Chat => {
                request.messages = Some(messages::read(&fields)?);
                request.logprobs = chat_logprobs(&fields)?;
            }
            Form::Completion => {
                let prompt = prompt(&fields)?;
                request.logprobs = fields.integer("logprobs", 0..=LIKELIEST)?.map(|count| count as i32);
                check_best_of(&fields, answers)?;
                if fields.flag("echo")? {
                    if request.logprobs.is_some() {
                        let message = "echo with logprobs is not supported: the prompt's own are not known";
                        return Err(Fault::invalid_input(message).with_param("echo"));
                    }
                    echo = Some(prompt.clone());
                }
                request.prompt = Some(prompt);
            }
        }
        let stream = fields.flag("stream")?;
        let options = fields.object("stream_options")?;
        let include_usage = options.map(|options| options.flag("include_usage")).transpose()?;
        if include_usage.is_some() && !stream {
            return Err(Fault::invalid_input("stream_options is there, allowed is that only with stream true")
                .with_param("stream_options"));
        }
        let include_usage = include_usage.unwrap_or(false);
        Ok(Self { form, model, request, answers: answers as usize, stream, include_usage, echo, length })
    }

    /// The server names its own fields; the client looks for those that it sent.
    pub(super) fn as_asked(&self, mut fault: Fault) -> Fault {
        match fault.param.as_deref() {
            Some("max_tokens") => fault.param = Some(self.length.into()),
            Some("format") => fault.param = Some("response_format".into()),
            _ => {}
        }
        fault
    }
}

fn max_tokens(fields: &Fields<'_>, form: Form) -> Result<Option<i32>, Fault> {
    let range = 1..=i64::from(i32::MAX);
    let old = fields.integer(OLD_LENGTH, range.clone())?;
    let new = fields.integer(LENGTH, range)?;
    if old.is_some() && new.is_some() {
        let message = "max_tokens and max_completion_tokens are both there, allowed is one of them";
        return Err(Fault::invalid_input(message).with_param("max_tokens"));
    }
    let unsaid = (form == Form::Completion).then_some(COMPLETION_TOKENS);
    Ok(new.or(old).or(unsaid).map(|tokens| tokens as i32))
}

fn sampling(fields: &Fields<'_>) -> Result<Sampling, Fault> {
    // A range that begins above 0.
    let above_zero = f64::from(f32::MIN_POSITIVE);
    let repetition_penalty = fields.decimal("repetition_penalty", 0.0..=10.0)?;
    if repetition_penalty.is_some_and(|value| value < above_zero) {
        return Err(wrong("repetition_penalty", "0", "a number above 0 and up to 10"));
    }
    Ok(Sampling {
        temperature: fields.decimal("temperature", 0.0..=2.0)?.map(Into::into),
        // 0 is allowed in OpenAI's API: the smallest set, which is the likeliest token.
        top_p: fields.decimal("top_p", 0.0..=1.0)?.map(|value| value.max(above_zero).into()),
        top_k: fields.integer("top_k", 0..=i64::from(i32::MAX))?.map(|count| count as i32),
        min_p: fields.decimal("min_p", 0.0..=1.0)?.map(Into::into),
        repetition_penalty: repetition_penalty.map(Into::into),
        presence_penalty: fields.decimal("presence_penalty", -2.0..=2.0)?.map(Into::into),
        frequency_penalty: fields.decimal("frequency_penalty", -2.0..=2.0)?.map(Into::into),
        logit_bias: logit_bias(fields)?.map(|all| all.into_iter().map(|(token, bias)| (token, bias.into())).collect()),
        seed: fields.integer("seed", i64::MIN..=i64::MAX)?,
    })
}

fn logit_bias(fields: &Fields<'_>) -> Result<Option<Vec<(i32, f64)>>, Fault> {
    let Some(biases) = fields.object_of("logit_bias", BIASES)? else { return Ok(None) };
    let mut all = Vec::new();
    for name in biases.names() {
        let token = name.parse::<i32>().ok().filter(|token| *token >= 0);
        let token = token.ok_or_else(|| {
            let shown = format!("{name:?}");
            wrong("logit_bias", &shown, "the numbers of tokens, each with a number from -100 to 100")
        })?;
        all.push((token, biases.decimal(name, -100.0..=100.0)?.unwrap_or_default()));
    }
    Ok(Some(all))
}

fn stops(fields: &Fields<'_>) -> Result<Option<Vec<String>>, Fault> {
    let Some(value) = fields.raw("stop") else { return Ok(None) };
    let items = match value.get().starts_with('"') {
        true => vec![value],
        false => fields.list("stop", STOPS)?.unwrap_or_default(),
    };
    let one = |item: &serde_json::value::RawValue| {
        let text = text_of(item).filter(|text| (1..=STOP_BYTES).contains(&text.len()));
        text.map(|text| text.into_owned())
            .ok_or_else(|| wrong("stop", item.get(), &format!("texts of 1 to {STOP_BYTES} bytes")))
    };
    items.into_iter().map(one).collect::<Result<_, _>>().map(Some)
}

fn chat_logprobs(fields: &Fields<'_>) -> Result<Option<i32>, Fault> {
    let likeliest = fields.integer("top_logprobs", 0..=LIKELIEST)?;
    match (fields.flag("logprobs")?, likeliest) {
        (true, likeliest) => Ok(Some(likeliest.unwrap_or(0) as i32)),
        (false, None | Some(0)) => Ok(None),
        (false, Some(count)) => {
            let message = format!("top_logprobs is {count}, allowed is that only with logprobs true");
            Err(Fault::invalid_input(message).with_param("top_logprobs"))
        }
    }
}

fn prompt(fields: &Fields<'_>) -> Result<String, Fault> {
    let allowed = "a text, or a list of one text";
    let value = fields.raw("prompt").ok_or_else(|| fields.missing("prompt", allowed))?;
    let refused = || wrong("prompt", value.get(), allowed);
    if value.get().starts_with('"') {
        return text_of(value).map(|text| text.into_owned()).ok_or_else(refused);
    }
    match fields.list("prompt", 1).map_err(|_| refused())?.as_deref() {
        Some([one]) => text_of(one).map(|text| text.into_owned()).ok_or_else(refused),
        _ => Err(refused()),
    }
}

/// The best of several is chosen by their log-probabilities, which are not compared here.
fn check_best_of(fields: &Fields<'_>, answers: i64) -> Result<(), Fault> {
    match fields.integer("best_of", 1..=ANSWERS)? {
        Some(count) if count != answers => {
            let message = format!("best_of is {count}, allowed is the same as n, which is {answers}");
            Err(Fault::invalid_input(message).with_param("best_of"))
        }
        _ => Ok(()),
    }
}

fn format(fields: &Fields<'_>) -> Result<Option<Format>, Fault> {
    let Some(format) = fields.object("response_format")? else { return Ok(None) };
    let kinds = "\"text\", \"json_object\" or \"json_schema\"";
    let kind = format.raw("type").ok_or_else(|| format.missing("type", kinds))?;
    let (kind, schema) = match kind.get() {
        "\"text\"" => (FormatKind::TEXT, None),
        "\"json_object\"" => (FormatKind::JSON, None),
        "\"json_schema\"" => (FormatKind::JSON_SCHEMA, Some(schema(&format)?)),
        other => return Err(wrong(&format.place("type"), other, kinds)),
    };
    Ok(Some(Format { kind: Some(kind), schema }))
}

fn schema(format: &Fields<'_>) -> Result<String, Fault> {
    let outer = format.object("json_schema")?;
    let outer = outer.ok_or_else(|| format.missing("json_schema", "an object with a schema"))?;
    let schema = outer.raw("schema").ok_or_else(|| outer.missing("schema", "a JSON schema"))?;
    let (text, place) = (schema.get(), outer.place("schema"));
    if text.len() > SCHEMA {
        let message = format!("{place} is {} bytes, the limit is {SCHEMA} bytes", text.len());
        return Err(Fault::too_large(message).with_param(place));
    }
    if !text.starts_with('{') && text != "true" {
        return Err(wrong(&place, text, "an object"));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
