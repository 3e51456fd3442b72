//! `POST /v1/embeddings`: texts to vectors, in OpenAI's form.
//!
//! Promises: fields that would change the vectors and are not supported are refused by name; numbers leave as the shortest
//! decimals that read back as the same 32-bit floats.

use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use fault::Fault;
use idl::inference::{EmbedReply, EmbedRequest, TokenIds};
use serde::{Serialize, Serializer};
use serde_json::value::RawValue;
use units::ModelName;
use utoipa::ToSchema;

use super::description::{Refused, RequestHeaders};
use super::fields::{Fields, text_of, wrong};
use crate::ask::Ask;
use crate::classify::{checked, server_times};
use crate::metrics::Route;
use crate::problem::Problem;
use crate::site::Site;

/// Most items of a list, read before the server's own limits are known: what a body of some megabytes can hold.
const MOST: usize = 1 << 17;

/// Writing more numbers than this as decimals takes longer than a moment.
const INLINE_NUMBERS: usize = 1 << 14;

/// Fields of other servers that speak OpenAI's API, which would change the vectors.
const UNSUPPORTED: [&str; 10] = [
    "add_special_tokens",
    "embedding_type",
    "embedding_types",
    "input_type",
    "instruction",
    "output_dtype",
    "prompt",
    "prompt_name",
    "task",
    "truncate_prompt_tokens",
];

/// Texts to embed.
#[derive(ToSchema)]
#[allow(dead_code, reason = "only described, never made")]
pub(crate) struct EmbeddingsBody {
    /// The model's name.
    #[schema(example = "all-minilm-l6-v2")]
    model: String,
    input: AskedInput,
    /// `float` (when absent) or `base64`: 32-bit floats, little-endian.
    encoding_format: Option<String>,
    /// Keep only so many of the first numbers.
    dimensions: Option<i32>,
    /// Cut a text that is too long instead of refusing it. Not in OpenAI's API.
    truncate: Option<bool>,
    /// Scale the vectors to length 1; as the model says when absent. Not in OpenAI's API.
    normalize: Option<bool>,
}

/// A text, a list of up to 2048 texts, the tokens of a text, or a list of those.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described, never made")]
enum AskedInput {
    Text(String),
    Texts(Vec<String>),
    Tokens(Vec<i32>),
    TokenLists(Vec<Vec<i32>>),
}

/// A vector of each text.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsAnswer {
    /// `list`
    object: &'static str,
    data: Vec<Embedding>,
    model: String,
    usage: EmbeddingsUsage,
}

/// The vector of one text.
#[derive(Serialize, ToSchema)]
pub(crate) struct Embedding {
    /// `embedding`
    object: &'static str,
    index: usize,
    #[schema(value_type = ToldVector)]
    embedding: Vector,
}

/// A list of numbers, or a text in base64.
#[derive(Serialize, ToSchema)]
#[serde(untagged)]
#[allow(dead_code, reason = "only described, never made")]
enum ToldVector {
    Floats(Vec<f32>),
    Base64(String),
}

/// What was read.
#[derive(Serialize, ToSchema)]
pub(crate) struct EmbeddingsUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// The bytes of a vector, in the form in which they leave.
enum Vector {
    Floats(Bytes),
    Base64(Bytes),
}

impl Serialize for Vector {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Floats(bytes) => to.collect_seq(bytes.as_chunks().0.iter().map(|chunk| f32::from_le_bytes(*chunk))),
            Self::Base64(bytes) => to.serialize_str(&BASE64_STANDARD.encode(bytes)),
        }
    }
}

/// Makes vectors of texts.
#[utoipa::path(
    post, path = "/v1/embeddings", tag = "embeddings",
    params(RequestHeaders),
    request_body(content = EmbeddingsBody),
    responses(
        (status = 200, description = "A vector of each text, in order", body = EmbeddingsAnswer),
        Refused,
    ),
)]
pub(crate) async fn post(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Embeddings);
    let result = site.process.in_time(answer(&request, payload, &site, &mut ask)).await;
    ask.answer(result.map_err(Problem::from))
}

async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
    ask: &mut Ask,
) -> Result<HttpResponse, Fault> {
    let (bytes, mut share) = super::body_of(request, payload, site, ask).await?;
    let deadline = ask.deadline(request)?;
    // The texts are as large as the body, and there until the answer is.
    share.grow(bytes.len())?;
    let Wanted { model, request, base64, count } = Wanted::read(&bytes)?;
    drop(bytes);
    ask.told.model = Some(model.clone());
    ask.told.rows = count;
    let reply = site.backend.embed(request, &ask.caller(), &ask.names, deadline).await.map_err(as_asked)?;
    if let Some(timing) = &reply.timing {
        ask.told.server = server_times(timing);
    }
    let numbers = reply.vectors.as_ref().map_or(0, Bytes::len) / size_of::<f32>();
    let answer = EmbeddingsAnswer::new(reply, model.as_str(), count, base64)?;
    ask.told.tokens_in = answer.usage.prompt_tokens;
    let write = move || serde_json::to_vec(&answer).expect("plain structs with finite numbers are always JSON");
    let body = if base64 || numbers <= INLINE_NUMBERS {
        write()
    } else {
        web::block(write).await.map_err(|_| Fault::internal("writing the answer was given up"))?
    };
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// The server names its own fields.
fn as_asked(mut fault: Fault) -> Fault {
    if matches!(fault.param.as_deref(), Some("texts" | "tokens")) {
        fault.param = Some("input".into());
    }
    fault
}

/// A request that can be sent to a server.
#[derive(Debug)]
struct Wanted {
    model: ModelName,
    request: EmbedRequest,
    base64: bool,
    count: usize,
}

impl Wanted {
    /// # Errors
    /// InvalidInput that names the field, the value and what is allowed.
    fn read(body: &[u8]) -> Result<Self, Fault> {
        let fields = Fields::of_body(body)?;
        if let Some(name) = fields.names().find(|name| UNSUPPORTED.contains(name)) {
            let message = format!("{name} is not supported here, and the vectors would be others with it");
            return Err(Fault::invalid_input(message).with_param(name.to_owned()));
        }
        let name = fields.text("model")?.ok_or_else(|| fields.missing("model", "the name of a model"))?;
        let model = checked(&name)?;
        let base64 = match fields.text("encoding_format")?.as_deref() {
            None | Some("float") => false,
            Some("base64") => true,
            Some(other) => return Err(wrong("encoding_format", &format!("{other:?}"), "\"float\" or \"base64\"")),
        };
        let (texts, tokens) = input(&fields)?;
        let count = texts.as_ref().map_or(0, Vec::len) + tokens.as_ref().map_or(0, Vec::len);
        let normalise = fields.raw("normalize").map(|_| fields.flag("normalize")).transpose()?;
        let request = EmbedRequest {
            model: Some(model.as_str().to_owned()),
            texts,
            tokens,
            normalise,
            dimensions: fields.integer("dimensions", 1..=i64::from(i32::MAX))?.map(|count| count as i32),
            truncate: fields.raw("truncate").map(|_| fields.flag("truncate")).transpose()?,
            ..EmbedRequest::default()
        };
        Ok(Self { model, request, base64, count })
    }
}

/// A text, texts, the tokens of a text, or those of several.
type Input = (Option<Vec<String>>, Option<Vec<TokenIds>>);

const ALLOWED: &str = "a text, a list of texts, a list of tokens, or a list of such lists";

fn input(fields: &Fields<'_>) -> Result<Input, Fault> {
    let value = fields.raw("input").ok_or_else(|| fields.missing("input", ALLOWED))?;
    if let Some(text) = text_of(value) {
        return Ok((Some(vec![text.into_owned()]), None));
    }
    if !value.get().starts_with('[') {
        return Err(wrong("input", value.get(), ALLOWED));
    }
    let items = fields.list("input", MOST)?.unwrap_or_default();
    let Some(first) = items.first() else {
        return Err(wrong("input", "[]", "at least one text"));
    };
    let place = |number: usize| format!("input[{number}]");
    let numbered = items.iter().enumerate();
    match first.get().as_bytes().first() {
        Some(b'"') => {
            let text = |(number, item): (usize, &&RawValue)| {
                let text =
                    text_of(item).ok_or_else(|| wrong(&place(number), item.get(), "a text, as the first one is"));
                text.map(|text| text.into_owned())
            };
            Ok((Some(numbered.map(text).collect::<Result<_, _>>()?), None))
        }
        Some(b'[') => {
            let ids = |(number, item): (usize, &&RawValue)| {
                // No token is copied before its list is known to be one of numbers.
                let ids: Option<Vec<i32>> = serde_json::from_str(item.get()).ok();
                ids.map(|ids| TokenIds { ids: Some(ids) })
                    .ok_or_else(|| wrong(&place(number), item.get(), "a list of tokens, as the first one is"))
            };
            Ok((None, Some(numbered.map(ids).collect::<Result<_, _>>()?)))
        }
        _ => {
            let id = |(number, item): (usize, &&RawValue)| {
                item.get().parse::<i32>().map_err(|_| wrong(&place(number), item.get(), "a token, a whole number"))
            };
            let ids = numbered.map(id).collect::<Result<_, _>>()?;
            Ok((None, Some(vec![TokenIds { ids: Some(ids) }])))
        }
    }
}

impl EmbeddingsAnswer {
    /// # Errors
    /// Internal when the server sent something else than a vector of each text.
    fn new(reply: EmbedReply, asked: &str, count: usize, base64: bool) -> Result<Self, Fault> {
        let vectors = reply.vectors.unwrap_or_default();
        let each = usize::try_from(reply.dimensions.unwrap_or_default()).unwrap_or_default() * size_of::<f32>();
        if each == 0 || vectors.len() != count * each {
            let bytes = vectors.len();
            return Err(Fault::internal(format!("the server sent {bytes} bytes for {count} vectors of {each}")));
        }
        // JSON has no such numbers.
        if vectors.as_chunks().0.iter().any(|chunk| !f32::from_le_bytes(*chunk).is_finite()) {
            return Err(Fault::internal("the server sent vectors that are no numbers"));
        }
        let vector = |index: usize| {
            let bytes = vectors.slice(index * each..(index + 1) * each);
            let embedding = if base64 { Vector::Base64(bytes) } else { Vector::Floats(bytes) };
            Embedding { object: "embedding", index, embedding }
        };
        let tokens = reply.token_counts.iter().flatten().map(|count| count.max(&0).unsigned_abs()).sum();
        Ok(Self {
            object: "list",
            data: (0..count).map(vector).collect(),
            model: reply.model.unwrap_or_else(|| asked.to_owned()),
            usage: EmbeddingsUsage { prompt_tokens: tokens, total_tokens: tokens },
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(more: serde_json::Value) -> Result<Wanted, Fault> {
        let mut body = json!({"model": "m"});
        body.as_object_mut().expect("an object").extend(more.as_object().cloned().unwrap_or_default());
        Wanted::read(body.to_string().as_bytes())
    }

    #[test]
    fn input_comes_in_four_forms() {
        let texts = |input| read(json!({ "input": input })).expect("good").request.texts;
        assert_eq!(texts(json!("a")), Some(vec!["a".to_owned()]));
        assert_eq!(
            texts(json!(["a", "\u{e9}\n", ""])),
            Some(vec!["a".to_owned(), "\u{e9}\n".to_owned(), String::new()])
        );
        let tokens = |input| {
            let wanted = read(json!({ "input": input })).expect("good");
            assert_eq!(wanted.request.texts, None);
            (wanted.count, wanted.request.tokens.expect("tokens").into_iter().map(|one| one.ids).collect::<Vec<_>>())
        };
        assert_eq!(tokens(json!([1, 2])), (1, vec![Some(vec![1, 2])]));
        assert_eq!(tokens(json!([[1], [2, 3]])), (2, vec![Some(vec![1]), Some(vec![2, 3])]));
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (more, param, says) in [
            (json!({}), "input", "input is missing"),
            (json!({"input": 5}), "input", "input is 5, allowed is a text"),
            (json!({"input": []}), "input", "allowed is at least one text"),
            (json!({"input": ["a", 5]}), "input[1]", "input[1] is 5, allowed is a text, as the first one is"),
            (json!({"input": [1, "a"]}), "input[1]", "allowed is a token"),
            (json!({"input": [1.5]}), "input[0]", "allowed is a token"),
            (json!({"input": [[1], ["a"]]}), "input[1]", "a list of tokens"),
            (json!({"input": [{}]}), "input[0]", "allowed is a token"),
            (json!({"input": "a", "encoding_format": "int8"}), "encoding_format", "\"float\" or \"base64\""),
            (json!({"input": "a", "dimensions": 0}), "dimensions", "dimensions is 0"),
            (json!({"input": "a", "truncate": "END"}), "truncate", "true or false"),
            (json!({"input": "a", "input_type": "query"}), "input_type", "input_type is not supported here"),
            (json!({"input": "a", "model": ""}), "model", "model"),
        ] {
            let fault = read(more.clone()).expect_err(says);
            assert_eq!(fault.param.as_deref(), Some(param), "{more}: {fault}");
            assert!(fault.message.contains(says), "{more}: {fault}");
        }
    }

    #[test]
    fn numbers_leave_short_and_read_back_the_same() {
        let values = [0.1_f32, -1.0 / 3.0, 1e-8];
        let bytes: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
        let text = serde_json::to_string(&Vector::Floats(bytes.clone().into())).expect("JSON");
        assert_eq!(text, "[0.1,-0.33333334,1e-8]");
        let base64 = serde_json::to_string(&Vector::Base64(bytes.into())).expect("JSON");
        assert_eq!(base64, "\"zczMPauqqr53zCsy\"");
    }

    #[test]
    fn a_server_that_sends_something_else_is_not_passed_on() {
        let reply = |vectors: Vec<u8>, dimensions| EmbedReply {
            vectors: Some(vectors.into()),
            dimensions: Some(dimensions),
            ..EmbedReply::default()
        };
        assert!(EmbeddingsAnswer::new(reply(vec![0; 8], 1), "m", 2, false).is_ok());
        for (bytes, dimensions) in [(vec![0; 8], 2), (vec![0; 7], 1), (vec![], 0), (vec![0; 8], -1), (vec![0xff; 8], 1)]
        {
            assert!(EmbeddingsAnswer::new(reply(bytes, dimensions), "m", 2, false).is_err(), "{dimensions}");
        }
    }
}
