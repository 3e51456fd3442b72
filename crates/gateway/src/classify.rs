//! `POST /v1/classify`: pictures to labels, in three forms of request.

use std::borrow::Cow;
use std::fmt;
use std::time::Duration;

use actix_web::http::header::CONTENT_TYPE;
use actix_web::{HttpRequest, HttpResponse, web};
use base64::Engine as _;
use bytes::Bytes;
use fault::Fault;
use history::Source;
use idl::inference::{Classification, ClassifyReply, Label, Timing};
use serde::de::{IgnoredAny, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use units::{Deadline, ModelName, NameError};
use utoipa::ToSchema;

use crate::ask::{Ask, ServerTimes};
use crate::backend::Classify;
use crate::body;
use crate::form;
use crate::keeping::{Keeping, KeptBody};
use crate::memory::Share;
use crate::metrics::Route;
use crate::pages::PREVIEW;
use crate::problem::{ErrorBody, Problem, start_of, unreadable};
use crate::query;
use crate::settings::MOST_PICTURES;
use crate::site::Site;

/// What stands in the address; the same names as in a form or in JSON.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    model: Option<String>,
    top_k: Option<String>,
    keep: Option<String>,
}

/// A request in JSON. Give `image` or `images`.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct ClassifyBody<'a> {
    /// The model's name; may stand in the address instead.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, example = "fashion-mnist")]
    model: Option<Text<'a>>,
    /// One picture: base64, or a `data:` URL.
    #[serde(borrow)]
    #[schema(value_type = Option<String>)]
    image: Option<Text<'a>>,
    /// Several pictures.
    #[serde(borrow)]
    #[schema(value_type = Option<Vec<String>>)]
    images: Option<Texts<'a>>,
    /// How many labels, best first; 5 when absent.
    top_k: Option<i32>,
    /// Keep pictures and answers in the history, and wait until they can no longer be lost.
    keep: Option<bool>,
}

/// A text of the body, copied only where it has escapes in it.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// A list of texts. Those beyond what any setting allows in one call are counted and not kept: a body of a few bytes an item
/// would otherwise take many times its size.
struct Texts<'a> {
    first: Vec<Text<'a>>,
    count: usize,
}

impl<'de: 'a, 'a> Deserialize<'de> for Texts<'a> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Texts<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of pictures in base64")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MOST_PICTURES {
                    let Some(text) = list.next_element()? else {
                        return Ok(Texts { count: first.len(), first });
                    };
                    first.push(text);
                }
                let mut count = first.len();
                while list.next_element::<IgnoredAny>()?.is_some() {
                    count += 1;
                }
                Ok(Texts { first, count })
            }
        }
        from.deserialize_seq(Reader)
    }
}

/// A class and how sure the model is of it.
#[derive(Serialize, ToSchema)]
struct ResultBody<'a> {
    label: &'a str,
    /// Position among the model's classes.
    index: i32,
    /// 0 to 1.
    score: f64,
}

/// What one picture shows.
#[derive(Serialize, ToSchema)]
struct PictureBody<'a> {
    /// Best first.
    results: Vec<ResultBody<'a>>,
    /// Pixels, upright.
    width: i32,
    height: i32,
    /// What the bytes were, whatever they were called.
    #[schema(example = "png")]
    format: &'a str,
}

/// Where the time went, in milliseconds.
#[derive(Serialize, ToSchema)]
struct TimingBody {
    /// Bytes to pixels to the model's input.
    decode_ms: f64,
    /// Waiting for the model.
    queue_ms: f64,
    /// On the device.
    run_ms: f64,
    /// All of the server's part.
    server_ms: f64,
    /// All of it, as the gateway saw it.
    total_ms: f64,
    /// Pictures that shared the run.
    batch_rows: i32,
}

/// The answer for one picture.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassifyAnswer<'a> {
    model: &'a str,
    version: &'a str,
    #[serde(flatten)]
    picture: PictureBody<'a>,
    timing: TimingBody,
    /// Its record in the history, when it was kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KeptBody>,
    request_id: &'a str,
}

/// The answer for several pictures.
#[derive(Serialize, ToSchema)]
pub(crate) struct ClassifyManyAnswer<'a> {
    model: &'a str,
    version: &'a str,
    /// One for each, in order.
    pictures: Vec<PictureBody<'a>>,
    timing: TimingBody,
    /// Their records in the history, when they were kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<KeptBody>,
    request_id: &'a str,
}

/// A request, whatever form it came in.
pub(crate) struct Wanted {
    pub(crate) model: String,
    pub(crate) images: Vec<Bytes>,
    pub(crate) top_k: Option<i32>,
    /// What the pictures are called, as far as they came with names.
    pub(crate) names: Vec<String>,
    /// What is said about keeping them.
    pub(crate) keep: Option<bool>,
    /// Several pictures were sent, or one in a list: the answer is a list as well.
    many: bool,
    /// The memory that the pictures take.
    pub(crate) share: Share,
}

/// Says what pictures show.
#[utoipa::path(
    post, path = "/v1/classify", tag = "pictures",
    params(
        ("model" = Option<String>, Query, description = "The model's name, unless the body has it"),
        ("top_k" = Option<i32>, Query, description = "How many labels, 1 to 100; 5 when absent"),
        ("keep" = Option<bool>, Query, description = "Keep picture and answer in the history; the answer then has `kept`"),
        ("x-request-id" = Option<String>, Header, description = "8 to 64 of A-Z a-z 0-9 . _ -; kept in every log and answer"),
        ("x-request-timeout-ms" = Option<i64>, Header, description = "How long an answer is of use; 10,000 when absent, at most 600,000"),
    ),
    request_body(
        description = "The picture itself (image/*, application/octet-stream), a form with one or several `image` files, or JSON",
        content((Vec<u8> = "image/*"), (ClassifyBody = "application/json"), (String = "multipart/form-data")),
    ),
    responses(
        (status = 200, description = "What the picture shows; with several pictures the form has `pictures`", body = ClassifyAnswer),
        (status = 400, description = "invalid_input: the request or the picture is broken", body = ErrorBody),
        (status = 404, description = "model_not_found", body = ErrorBody),
        (status = 413, description = "too_large: bytes, pixels or number of pictures", body = ErrorBody),
        (status = 415, description = "unsupported_media: not a picture that is read here", body = ErrorBody),
        (status = 503, description = "overloaded, or unavailable", body = ErrorBody),
        (status = 504, description = "deadline_exceeded", body = ErrorBody),
    ),
)]
pub(crate) async fn post(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Classify);
    let result = site.process.in_time(answer(&request, payload, &site, &mut ask)).await;
    ask.answer(result)
}

async fn answer(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
    ask: &mut Ask,
) -> Result<HttpResponse, Problem> {
    let deadline = match ask.deadline(request) {
        Ok(deadline) => deadline,
        Err(fault) => {
            body::discard(&mut payload.into_inner(), &site.process).await;
            return Err(fault.into());
        }
    };
    let wanted = read(request, payload, site).await?;
    let many = wanted.many;
    let keeping = Keeping::of(site, &wanted, Source::Api);
    // The list of the history shows it.
    let preview = keeping.as_ref().map(|_| PREVIEW);
    let reply = run(wanted, site, ask, deadline, preview).await;
    let kept = keeping.map(|keeping| keeping.answered(site, ask, &reply));
    let reply = reply?;
    let kept = match kept {
        Some(kept) => Some(kept.acknowledged(site.process.settings.history.acknowledge).await),
        None => None,
    };
    let total = ask.received.elapsed();
    let body = json(&reply, many, total, kept, ask.names.request_id.as_str());
    Ok(HttpResponse::Ok().content_type("application/json").body(body))
}

/// Sends the request to a server, and notes what the log line says of it.
///
/// # Errors
/// What is wrong with the model's name; the server's faults.
pub(crate) async fn run(
    wanted: Wanted,
    site: &web::Data<Site>,
    ask: &mut Ask,
    deadline: Deadline,
    preview_px: Option<i32>,
) -> Result<ClassifyReply, Fault> {
    let Wanted { model, images, top_k, share, .. } = wanted;
    ask.told.model = Some(checked(&model)?);
    ask.told.rows = images.len();
    ask.told.bytes_in = images.iter().map(Bytes::len).sum();
    let call = Classify { model, images, top_k, preview_px };
    let reply = site.backend.classify(call, &ask.names, deadline).await;
    drop(share);
    let reply = reply?;
    if let Some(timing) = &reply.timing {
        ask.told.server = server_times(timing);
    }
    Ok(reply)
}

/// A name that no model can have does not travel on: neither to a server nor, however long it is, into a log.
pub(crate) fn checked(name: &str) -> Result<ModelName, Fault> {
    ModelName::parse(name).map_err(|error| match error {
        NameError::Length(_) => Fault::invalid_input(error.to_string()).with_param("model"),
        NameError::Character(_) | NameError::Part(_) => Fault::model_not_found(name),
    })
}

pub(crate) fn server_times(timing: &Timing) -> ServerTimes {
    let micros = |value: Option<i64>| Duration::from_micros(value.unwrap_or(0).max(0).unsigned_abs());
    ServerTimes {
        decode: micros(timing.decode_us),
        queue: micros(timing.queue_us),
        run: micros(timing.run_us),
        total: micros(timing.total_us),
        batch_rows: timing.batch_rows.unwrap_or(0).max(0) as usize,
    }
}

/// Reads a request in any of its forms.
async fn read(request: &HttpRequest, payload: web::Payload, site: &web::Data<Site>) -> Result<Wanted, Fault> {
    let limits = &site.process.settings.limits;
    let kind = request.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let query = match query::read::<Query>(request) {
        Ok(query) => query,
        Err(fault) => {
            body::discard(&mut payload.into_inner(), &site.process).await;
            return Err(fault);
        }
    };
    let mut wanted = match essence.as_str() {
        "multipart/form-data" => form::read(request, payload, site).await?,
        "application/json" => {
            let limit = limits.json.as_u64() as usize;
            let (body, share) = body::read(request, payload, limit, "the JSON body", &site.process).await?;
            from_json(&body, share, limits.pictures_per_call)?
        }
        other if other.is_empty() || other.starts_with("image/") || other == "application/octet-stream" => {
            let limit = limits.picture.as_u64() as usize;
            let (image, share) = body::read(request, payload, limit, "the picture", &site.process).await?;
            if image.is_empty() {
                return Err(Fault::invalid_input("the body is empty, expected a picture").with_param("image"));
            }
            Wanted { many: false, ..Wanted::from_form(String::new(), vec![image], None, share) }
        }
        other => {
            body::discard(&mut payload.into_inner(), &site.process).await;
            let other = start_of(other, 64);
            return Err(Fault::unsupported_media(format!(
                "content type is {other:?}, allowed are image/*, application/octet-stream, multipart/form-data and \
                 application/json"
            )));
        }
    };
    if let Some(model) = query.model {
        wanted.model = model;
    }
    if let Some(top_k) = query.top_k {
        wanted.top_k = Some(number("top_k", &top_k)?);
    }
    if let Some(keep) = query.keep {
        wanted.keep = Some(truth("keep", &keep)?);
    }
    if wanted.model.is_empty() {
        return Err(Fault::invalid_input("no model is named: add ?model=NAME").with_param("model"));
    }
    Ok(wanted)
}

/// # Errors
/// InvalidInput that names the parameter and the value.
pub(crate) fn number(name: &'static str, text: &str) -> Result<i32, Fault> {
    text.trim().parse().map_err(|_| {
        let text = start_of(text, 32);
        Fault::invalid_input(format!("{name} is {text:?}, allowed is a whole number")).with_param(name)
    })
}

/// # Errors
/// InvalidInput that names the parameter and the value.
pub(crate) fn truth(name: &'static str, text: &str) -> Result<bool, Fault> {
    text.trim().parse().map_err(|_| {
        let text = start_of(text, 32);
        Fault::invalid_input(format!("{name} is {text:?}, allowed are true and false")).with_param(name)
    })
}

impl Wanted {
    pub(crate) fn from_form(model: String, images: Vec<Bytes>, top_k: Option<i32>, share: Share) -> Self {
        let many = images.len() > 1;
        Self { model, images, top_k, names: Vec::new(), keep: None, many, share }
    }
}

fn from_json(body: &[u8], mut share: Share, limit: usize) -> Result<Wanted, Fault> {
    let body: ClassifyBody<'_> = serde_json::from_slice(body).map_err(|error| unreadable("the JSON body", &error))?;
    let (texts, many) = match (body.image, body.images) {
        (Some(one), None) => (Texts { first: vec![one], count: 1 }, false),
        (None, Some(several)) => (several, true),
        (Some(_), Some(_)) => {
            return Err(
                Fault::invalid_input("both `image` and `images` are there, expected one of them").with_param("image")
            );
        }
        (None, None) => return Err(Fault::invalid_input("there is neither `image` nor `images`").with_param("image")),
    };
    if texts.count == 0 {
        return Err(Fault::invalid_input("`images` is empty").with_param("images"));
    }
    // Before anything is decoded.
    let have = texts.count;
    if have > limit {
        return Err(Fault::too_large(format!("{have} pictures in one call, the limit is {limit}")).with_param("images"));
    }
    let mut images = Vec::with_capacity(have);
    for (number, Text(text)) in texts.first.iter().enumerate() {
        let place = if many { format!("images[{number}]") } else { "image".to_owned() };
        let copied = if matches!(text, Cow::Owned(_)) { text.len() } else { 0 };
        share.grow(text.len() / 4 * 3 + copied)?;
        images.push(picture(text, &place)?);
    }
    let model = body.model.map_or_else(String::new, |Text(model)| model.into_owned());
    Ok(Wanted { keep: body.keep, many, ..Wanted::from_form(model, images, body.top_k, share) })
}

/// A picture in base64, with or without the head of a `data:` URL.
fn picture(text: &str, place: &str) -> Result<Bytes, Fault> {
    let bad = |message: String| Fault::invalid_input(message).with_param(place.to_owned());
    let encoded = match text.strip_prefix("data:") {
        None => text,
        Some(rest) => {
            let (head, data) =
                rest.split_once(',').ok_or_else(|| bad(format!("`{place}` is a data: URL without a comma")))?;
            if !head.ends_with(";base64") {
                return Err(bad(format!("`{place}` is a data: URL that is not base64")));
            }
            data
        }
    };
    let encoded = encoded.trim_ascii();
    if encoded.is_empty() {
        return Err(bad(format!("`{place}` is empty")));
    }
    let decoded = base64::engine::general_purpose::STANDARD.decode(encoded);
    decoded.map(Bytes::from).map_err(|error| bad(format!("`{place}` is not base64: {error}")))
}

/// The answer as JSON. Scores have six digits: more is noise of the arithmetic.
fn json(reply: &ClassifyReply, many: bool, total: Duration, kept: Option<KeptBody>, request_id: &str) -> Vec<u8> {
    let micros = |value: Option<i64>| value.unwrap_or(0) as f64 / 1e3;
    let timing = reply.timing.clone().unwrap_or_default();
    let timing = TimingBody {
        decode_ms: micros(timing.decode_us),
        queue_ms: micros(timing.queue_us),
        run_ms: micros(timing.run_us),
        server_ms: micros(timing.total_us),
        total_ms: (total.as_secs_f64() * 1e6).round() / 1e3,
        batch_rows: timing.batch_rows.unwrap_or(0),
    };
    let (model, version) = (text(&reply.model), text(&reply.version));
    let mut pictures: Vec<PictureBody<'_>> =
        reply.results.as_deref().unwrap_or_default().iter().map(picture_body).collect();
    let mut out = Vec::with_capacity(512);
    let written = if many || pictures.len() != 1 {
        serde_json::to_writer(&mut out, &ClassifyManyAnswer { model, version, pictures, timing, kept, request_id })
    } else {
        let picture = pictures.remove(0);
        serde_json::to_writer(&mut out, &ClassifyAnswer { model, version, picture, timing, kept, request_id })
    };
    written.expect("plain structs with finite numbers are always JSON");
    out
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or_default()
}

fn picture_body(one: &Classification) -> PictureBody<'_> {
    PictureBody {
        results: one.labels.as_deref().unwrap_or_default().iter().map(result_body).collect(),
        width: one.width.unwrap_or(0),
        height: one.height.unwrap_or(0),
        format: text(&one.format),
    }
}

fn result_body(one: &Label) -> ResultBody<'_> {
    let score = one.score.map_or(0.0, |score| (score.0 * 1e6).round() / 1e6);
    ResultBody { label: text(&one.label), index: one.index.unwrap_or(0), score }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_taken_plain_and_as_a_data_url() {
        for text in ["aGVsbG8=", "data:image/png;base64,aGVsbG8=", "  aGVsbG8=\n"] {
            assert_eq!(picture(text, "image").expect(text), "hello");
        }
    }

    #[test]
    fn what_is_wrong_with_a_picture_in_json_is_named() {
        for (text, says) in [
            ("@@@@", "not base64: Invalid symbol 64, offset 0"),
            ("aGVsbG8", "not base64"),
            ("", "is empty"),
            ("data:image/png,abc", "not base64"),
            ("data:image/png", "without a comma"),
        ] {
            let fault = picture(text, "images[3]").expect_err(text);
            assert!(fault.message.contains(says) && fault.message.contains("images[3]"), "{text}: {fault}");
            assert_eq!(fault.param.as_deref(), Some("images[3]"));
        }
    }

    #[test]
    fn numbers_are_named_when_they_are_none() {
        assert_eq!(number("top_k", " 7 "), Ok(7));
        let fault = number("top_k", "many").expect_err("no number");
        assert_eq!(fault.message, "top_k is \"many\", allowed is a whole number");
    }
}
