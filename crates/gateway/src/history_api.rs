//! `/v1/history`: what was kept, for programs.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_DISPOSITION, CONTENT_SECURITY_POLICY, ContentType, DispositionParam, DispositionType,
    ExtendedValue, HeaderName,
};
use actix_web::http::header::{Charset, ContentDisposition};
use actix_web::{HttpRequest, HttpResponse, web};
use fault::Fault;
use history::export::RecordBody;
use history::{Correction, Day, Filter, History, Kind, LARGEST_PAGE, Record, RecordId, StoreError};
use serde::{Deserialize, Serialize};
use tracing::warn;
use utoipa::ToSchema;

use crate::ask::Ask;
use crate::body;
use crate::keeping::now_ms;
use crate::leaving::Leaving;
use crate::metrics::Route;
use crate::problem::{ErrorBody, Problem, start_of, unreadable};
use crate::query;
use crate::site::{InFlight, Site};

/// Records of a page, when nobody says how many.
const PAGE: usize = 50;
/// A correction's body: a label and what is around it.
const CORRECTION: usize = 4 << 10;
/// A label, in bytes; longer ones are no labels.
const LABEL: usize = 200;

/// Which records are wanted.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Query {
    model: Option<String>,
    label: Option<String>,
    day: Option<String>,
    cursor: Option<String>,
    limit: Option<usize>,
}

/// A part of the history, the newest first.
#[derive(Serialize, ToSchema)]
pub(crate) struct HistoryBody<'a> {
    /// Always `list`.
    object: &'static str,
    data: Vec<RecordBody<'a>>,
    /// Give it as `cursor` to go on; null at the end.
    #[schema(value_type = Option<String>)]
    next_cursor: Option<RecordId>,
    /// Bytes of this gateway that wait for the store and are not in the list yet.
    waiting_bytes: u64,
}

/// What a person says it really is.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct CorrectionWish {
    /// The right label, at most 200 bytes.
    label: String,
}

/// The history, or why there is none.
///
/// # Errors
/// NotFound where nothing is kept.
pub(crate) fn of(site: &web::Data<Site>) -> Result<&History, Fault> {
    let none = || Fault::not_found("this gateway keeps no history (`history.store` is \"none\")");
    site.process.history.as_deref().ok_or_else(none)
}

/// The driver's words stay in the log: they name hosts.
pub(crate) fn fault(error: StoreError) -> Fault {
    match error {
        StoreError::Away { store, reason } => {
            warn!(store, reason, "the history could not be asked");
            Fault::unavailable(format!(
                "the history's {store} cannot be reached now; what is uploaded is kept and follows"
            ))
        }
        StoreError::Version { .. } => Fault::unavailable(error.to_string()),
        StoreError::Broken { store, reason } => {
            warn!(store, reason, "the history's store failed");
            Fault::internal(format!("the history's {store} failed"))
        }
    }
}

/// # Errors
/// InvalidInput that names what is none.
pub(crate) fn id_of(text: &str) -> Result<RecordId, Fault> {
    RecordId::parse(text).map_err(|error| {
        let text = start_of(text, 64);
        Fault::invalid_input(format!("{text:?}: {error}")).with_param("id")
    })
}

/// The record, or NotFound.
pub(crate) async fn record(site: &web::Data<Site>, id: RecordId) -> Result<Record, Fault> {
    let found = of(site)?.get(id).await.map_err(fault)?;
    found.ok_or_else(|| unknown(id))
}

fn unknown(id: RecordId) -> Fault {
    Fault::not_found(format!("there is no record {id} in the history"))
}

impl Query {
    /// # Errors
    /// InvalidInput that names the parameter and the value.
    pub(crate) fn read(self) -> Result<(Filter, Option<RecordId>, usize), Fault> {
        // A form's field that was left empty is none.
        let some = |text: Option<String>| text.map(|text| text.trim().to_owned()).filter(|text| !text.is_empty());
        let day = some(self.day).map(|text| {
            let bad = || {
                let text = start_of(&text, 32);
                Fault::invalid_input(format!("day is {text:?}, expected one such as 2026-11-21")).with_param("day")
            };
            Day::parse(&text).ok_or_else(bad)
        });
        let cursor = some(self.cursor).map(|text| {
            RecordId::parse(&text).map_err(|_| {
                let text = start_of(&text, 64);
                Fault::invalid_input(format!("cursor is {text:?}, expected the next_cursor of an answer"))
                    .with_param("cursor")
            })
        });
        let limit = self.limit.unwrap_or(PAGE);
        if !(1..=LARGEST_PAGE).contains(&limit) {
            let message = format!("limit is {limit}, allowed is 1 to {LARGEST_PAGE}");
            return Err(Fault::invalid_input(message).with_param("limit"));
        }
        let filter = Filter { model: some(self.model), label: some(self.label), day: day.transpose()? };
        Ok((filter, cursor.transpose()?, limit))
    }
}

/// Lists what was kept.
#[utoipa::path(
    get, path = "/v1/history", tag = "history",
    params(
        ("model" = Option<String>, Query, description = "Only answers of this model"),
        ("label" = Option<String>, Query, description = "Only those with this best label"),
        ("day" = Option<String>, Query, description = "Only those of this day by UTC, such as 2026-11-21"),
        ("limit" = Option<i32>, Query, description = "How many, 1 to 200; 50 when absent"),
        ("cursor" = Option<String>, Query, description = "The next_cursor of the answer before"),
    ),
    responses(
        (status = 200, description = "The newest first", body = HistoryBody),
        (status = 400, description = "invalid_input: another parameter, or another value", body = ErrorBody),
        (status = 404, description = "not_found: nothing is kept here", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away", body = ErrorBody),
    ),
)]
pub(crate) async fn list(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    let result = async {
        let (filter, cursor, limit) = query::read::<Query>(&request)?.read()?;
        let history = of(&site)?;
        let page = history.page(filter, cursor, limit).await.map_err(fault)?;
        let body = HistoryBody {
            object: "list",
            data: page.records.iter().map(RecordBody::from).collect(),
            next_cursor: page.next,
            waiting_bytes: history.state().waiting_bytes,
        };
        Ok::<_, Problem>(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(body))
    };
    let result = result.await;
    ask.answer(result)
}

/// Shows one record.
#[utoipa::path(
    get, path = "/v1/history/{id}", tag = "history",
    params(("id" = String, Path, description = "The record's id")),
    responses(
        (status = 200, description = "The record", body = RecordBody),
        (status = 404, description = "not_found", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away", body = ErrorBody),
    ),
)]
pub(crate) async fn one(request: HttpRequest, site: web::Data<Site>, id: web::Path<String>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    let result = async {
        let found = record(&site, id_of(&id)?).await?;
        Ok::<_, Problem>(HttpResponse::Ok().insert_header((CACHE_CONTROL, "no-store")).json(RecordBody::from(&found)))
    };
    let result = result.await;
    ask.answer(result)
}

/// Gives the picture as it was sent.
#[utoipa::path(
    get, path = "/v1/history/{id}/picture", tag = "history",
    params(("id" = String, Path, description = "The record's id")),
    responses(
        (status = 200, description = "Its bytes", body = Vec<u8>, content_type = "image/*"),
        (status = 404, description = "not_found: no such record, or its picture was not kept", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away; overloaded: too many pictures are on their way", body = ErrorBody),
    ),
)]
pub(crate) async fn picture(request: HttpRequest, site: web::Data<Site>, id: web::Path<String>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    let result = bytes(&site, &id, Kind::Picture).await;
    ask.answer(result)
}

/// Gives a small JPEG of it.
#[utoipa::path(
    get, path = "/v1/history/{id}/preview", tag = "history",
    params(("id" = String, Path, description = "The record's id")),
    responses(
        (status = 200, description = "Its bytes", body = Vec<u8>, content_type = "image/jpeg"),
        (status = 404, description = "not_found: no such record, or it has no preview", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away; overloaded: too many pictures are on their way", body = ErrorBody),
    ),
)]
pub(crate) async fn preview(request: HttpRequest, site: web::Data<Site>, id: web::Path<String>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    let result = bytes(&site, &id, Kind::Preview).await;
    ask.answer(result)
}

async fn bytes(site: &web::Data<Site>, id: &str, kind: Kind) -> Result<HttpResponse, Problem> {
    let id = id_of(id)?;
    // Asked first, so that what was deleted cannot be had any more, whatever a store of pictures still has.
    let found = record(site, id).await?;
    let mut share = site.process.leaving.share();
    // One that was kept under a larger limit has all of this one for itself.
    share.grow((found.stored_bytes(kind) as usize).min(share.limit()))?;
    let bytes = of(site)?.picture(id, kind).await.map_err(fault)?;
    let none = || Fault::not_found(format!("the record {id} has no such picture"));
    let bytes = bytes.ok_or_else(none)?;
    let mut head = HttpResponse::Ok();
    head.content_type(content_type(&found, kind));
    head.insert_header((CACHE_CONTROL, "private, max-age=60"));
    // A stranger's bytes: whatever they are, they are no page and no script.
    head.insert_header((HeaderName::from_static("x-content-type-options"), "nosniff"));
    head.insert_header((CONTENT_SECURITY_POLICY, "default-src 'none'; sandbox"));
    if kind == Kind::Picture && !found.file_name.is_empty() {
        let name = ExtendedValue {
            charset: Charset::Ext("UTF-8".to_owned()),
            language_tag: None,
            value: found.file_name.clone().into_bytes(),
        };
        let disposition = ContentDisposition {
            disposition: DispositionType::Inline,
            parameters: vec![DispositionParam::FilenameExt(name)],
        };
        head.insert_header((CONTENT_DISPOSITION, disposition));
    }
    Ok(head.body(Leaving::new(bytes, share, InFlight::begin(&site.process))))
}

fn content_type(record: &Record, kind: Kind) -> ContentType {
    let name = match (kind, record.format.as_str()) {
        (Kind::Preview, _) | (_, "jpeg") => "image/jpeg",
        (_, "png") => "image/png",
        (_, "gif") => "image/gif",
        (_, "webp") => "image/webp",
        (_, "bmp") => "image/bmp",
        (_, "tiff") => "image/tiff",
        (_, "ico") => "image/x-icon",
        _ => "application/octet-stream",
    };
    name.parse().map_or_else(|_| ContentType::octet_stream(), ContentType)
}

/// Deletes a record and its picture.
#[utoipa::path(
    delete, path = "/v1/history/{id}", tag = "history",
    params(("id" = String, Path, description = "The record's id")),
    responses(
        (status = 204, description = "It is gone for good"),
        (status = 404, description = "not_found", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away", body = ErrorBody),
    ),
)]
pub(crate) async fn delete(
    request: HttpRequest,
    payload: web::Payload,
    site: web::Data<Site>,
    id: web::Path<String>,
) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    body::discard(&mut payload.into_inner(), &site.process).await;
    let result = async {
        remove(&site, id_of(&id)?).await?;
        Ok::<_, Problem>(HttpResponse::NoContent().finish())
    };
    let result = result.await;
    ask.answer(result)
}

/// Says what it really is: kept beside the answer, and exported.
#[utoipa::path(
    put, path = "/v1/history/{id}/correction", tag = "history",
    params(("id" = String, Path, description = "The record's id")),
    request_body(content((CorrectionWish = "application/json"))),
    responses(
        (status = 204, description = "It is noted"),
        (status = 400, description = "invalid_input", body = ErrorBody),
        (status = 404, description = "not_found", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away", body = ErrorBody),
    ),
)]
pub(crate) async fn correct(
    request: HttpRequest,
    payload: web::Payload,
    site: web::Data<Site>,
    id: web::Path<String>,
) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    let result = async {
        let (text, _share) = body::read(&request, payload, CORRECTION, "the correction", &site.process).await?;
        let wish: CorrectionWish =
            serde_json::from_slice(&text).map_err(|error| unreadable("the JSON body", &error))?;
        note(&site, &ask, id_of(&id)?, &wish.label).await?;
        Ok::<_, Problem>(HttpResponse::NoContent().finish())
    };
    let result = result.await;
    ask.answer(result)
}

/// Takes a correction back.
#[utoipa::path(
    delete, path = "/v1/history/{id}/correction", tag = "history",
    params(("id" = String, Path, description = "The record's id")),
    responses(
        (status = 204, description = "It is gone"),
        (status = 404, description = "not_found", body = ErrorBody),
        (status = 503, description = "unavailable: the store is away", body = ErrorBody),
    ),
)]
pub(crate) async fn take_back(
    request: HttpRequest,
    payload: web::Payload,
    site: web::Data<Site>,
    id: web::Path<String>,
) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::History);
    body::discard(&mut payload.into_inner(), &site.process).await;
    let result = async {
        set_correction(&site, id_of(&id)?, None).await?;
        Ok::<_, Problem>(HttpResponse::NoContent().finish())
    };
    let result = result.await;
    ask.answer(result)
}

/// Notes a correction.
///
/// # Errors
/// InvalidInput for a label that is none; NotFound.
pub(crate) async fn note(site: &web::Data<Site>, ask: &Ask, id: RecordId, label: &str) -> Result<(), Fault> {
    let label = label.trim();
    let bad = label.is_empty() || label.len() > LABEL || label.chars().any(char::is_control);
    if bad {
        let shown = start_of(label, 64);
        let message = format!("label is {shown:?}, allowed are 1 to {LABEL} bytes without control characters");
        return Err(Fault::invalid_input(message).with_param("label"));
    }
    let correction = Correction { label: label.to_owned(), by: ask.caller(), at_ms: now_ms() };
    set_correction(site, id, Some(correction)).await
}

/// Puts a correction in the place of the one before; none takes it back.
///
/// # Errors
/// NotFound.
pub(crate) async fn set_correction(
    site: &web::Data<Site>,
    id: RecordId,
    correction: Option<Correction>,
) -> Result<(), Fault> {
    let found = of(site)?.correct(id, correction).await.map_err(fault)?;
    found.then_some(()).ok_or_else(|| unknown(id))
}

/// Deletes the record.
///
/// # Errors
/// NotFound.
pub(crate) async fn remove(site: &web::Data<Site>, id: RecordId) -> Result<(), Fault> {
    let found = of(site)?.delete(id).await.map_err(fault)?;
    found.then_some(()).ok_or_else(|| unknown(id))
}
