//! `/history`: what was kept, for people. Complete without JavaScript.

use actix_web::http::header::LOCATION;
use actix_web::{HttpRequest, HttpResponse, web};
use fault::Fault;
use history::{Record, RecordId, rfc_3339};
use minijinja::value::Serde;
use minijinja::{Value, context};
use serde::{Deserialize, Serialize};

use crate::ask::Ask;
use crate::body;
use crate::history_api::{Query, fault, id_of, note, of, record, remove, set_correction};
use crate::metrics::Route;
use crate::origin;
use crate::pages::{self, page_head};
use crate::problem::{Problem, unreadable};
use crate::query;
use crate::site::Site;

/// Pictures of a page: rows of two, three and four are full.
const PAGE: usize = 24;
/// A form with a label.
const FORM: usize = 4 << 10;

/// What the address of the list says.
#[derive(Clone, Default, Deserialize, Serialize)]
struct Wish {
    #[serde(default)]
    model: String,
    #[serde(default)]
    label: String,
    #[serde(default)]
    day: String,
    #[serde(default)]
    cursor: String,
}

#[derive(Serialize)]
struct ScoreView {
    label: String,
    percent: f64,
}

#[derive(Serialize)]
struct RecordView {
    id: String,
    time: String,
    /// For people: without the seconds' fraction.
    moment: String,
    model: String,
    version: String,
    file_name: String,
    format: String,
    width: u32,
    height: u32,
    bytes: u64,
    sha256: String,
    caller: String,
    source: &'static str,
    request_id: String,
    outcome: String,
    failed: bool,
    label: String,
    labels: Vec<ScoreView>,
    correction: Option<String>,
    corrected_by: String,
    total_ms: String,
    /// The address of what a browser can show.
    shown: Option<String>,
    /// The address of the picture as it was sent.
    picture: Option<String>,
}

impl From<&Record> for RecordView {
    fn from(record: &Record) -> Self {
        let time = rfc_3339(record.id.millis());
        let address = |part: &str| format!("/v1/history/{}/{part}", record.id);
        let picture = record.has_picture().then(|| address("picture"));
        let label = match record.label() {
            "" if record.outcome == "ok" => "no label".to_owned(),
            "" => record.outcome.replace('_', " "),
            label => label.to_owned(),
        };
        Self {
            id: record.id.to_string(),
            moment: format!("{} {} UTC", &time[..10], &time[11..16]),
            time,
            model: record.model.clone(),
            version: record.version.clone(),
            file_name: record.file_name.clone(),
            format: record.format.to_uppercase(),
            width: record.width,
            height: record.height,
            bytes: record.bytes,
            sha256: record.sha256.clone(),
            caller: record.caller.clone(),
            source: record.source.name(),
            request_id: record.request_id.clone(),
            outcome: record.outcome.clone(),
            failed: record.outcome != "ok",
            label,
            labels: record
                .labels
                .iter()
                .take(5)
                .map(|one| ScoreView { label: one.label.clone(), percent: (one.score * 1e3).round() / 10.0 })
                .collect(),
            correction: record.correction.as_ref().map(|correction| correction.label.clone()),
            corrected_by: record.correction.as_ref().map(|correction| correction.by.clone()).unwrap_or_default(),
            total_ms: format!("{:.1}", record.timing.total_us as f64 / 1e3),
            shown: if record.has_preview { Some(address("preview")) } else { picture.clone() },
            picture,
        }
    }
}

/// `GET /history`.
pub(crate) async fn list(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = list_page(&request, &site, &ask).await;
    pages::finish(&mut ask, &site, result)
}

async fn list_page(request: &HttpRequest, site: &web::Data<Site>, ask: &Ask) -> Result<HttpResponse, Problem> {
    let wish: Wish = query::read(request)?;
    let asked: Query = query::read(request)?;
    let (filter, cursor, _) = asked.read()?;
    let history = of(site)?;
    let filtered = filter != history::Filter::default();
    // Without the store the page says so, and that nothing is lost.
    let (page, head, unreachable) = match history.page(filter, cursor, PAGE).await {
        Ok(page) => (page, HttpResponse::Ok(), None),
        Err(error) => {
            let problem = Problem::from(fault(error));
            let none = history::Page { records: Vec::new(), next: None };
            (none, problem.head(), Some(problem.message()))
        }
    };
    let records: Vec<RecordView> = page.records.iter().map(RecordView::from).collect();
    let state = history.state();
    let waiting = (state.trouble.is_some() && state.waiting_bytes > 0).then(|| size(state.waiting_bytes));
    let text = ask.page(
        "history.html",
        context! {
            records => Value::from(Serde(&records)),
            wish => Value::from(Serde(&wish)),
            filtered,
            later => !wish.cursor.is_empty(),
            next => page.next.map(|next| next.to_string()),
            unreachable,
            waiting,
        },
    )?;
    Ok(page_head(head).body(text))
}

/// Bytes for people.
fn size(bytes: u64) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{} kB", bytes / 1_000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

/// `GET /history/{id}`.
pub(crate) async fn one(request: HttpRequest, site: web::Data<Site>, id: web::Path<String>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = record_page(&site, &ask, &id, "record.html").await;
    pages::finish(&mut ask, &site, result)
}

/// `GET /history/{id}/delete`: asks once more.
pub(crate) async fn ask_delete(request: HttpRequest, site: web::Data<Site>, id: web::Path<String>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = record_page(&site, &ask, &id, "delete.html").await;
    pages::finish(&mut ask, &site, result)
}

async fn record_page(site: &web::Data<Site>, ask: &Ask, id: &str, template: &str) -> Result<HttpResponse, Problem> {
    let view = RecordView::from(&record(site, id_of(id)?).await?);
    let text = ask.page(template, context! { record => Value::from(Serde(&view)) })?;
    Ok(page_head(HttpResponse::Ok()).body(text))
}

/// `POST /history/{id}/delete`.
pub(crate) async fn delete(
    request: HttpRequest,
    payload: web::Payload,
    site: web::Data<Site>,
    id: web::Path<String>,
) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = async {
        body::discard(&mut payload.into_inner(), &site.process).await;
        origin::own_page(&request)?;
        remove(&site, id_of(&id)?).await?;
        Ok::<_, Problem>(see("/history".to_owned()))
    };
    let result = result.await;
    pages::finish(&mut ask, &site, result)
}

#[derive(Deserialize)]
struct Right {
    #[serde(default)]
    label: String,
    /// The button that takes the correction back.
    #[serde(default)]
    take_back: Option<String>,
}

/// `POST /history/{id}/correct`.
pub(crate) async fn correct(
    request: HttpRequest,
    payload: web::Payload,
    site: web::Data<Site>,
    id: web::Path<String>,
) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = corrected(&request, payload, &site, &ask, &id).await;
    pages::finish(&mut ask, &site, result)
}

async fn corrected(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
    ask: &Ask,
    id: &str,
) -> Result<HttpResponse, Problem> {
    let (text, _share) = body::read(request, payload, FORM, "the form", &site.process).await?;
    origin::own_page(request)?;
    let id: RecordId = id_of(id)?;
    let text = std::str::from_utf8(&text).map_err(|_| Fault::invalid_input("the form is not UTF-8"))?;
    // A form's fields have the form of a query.
    let right = web::Query::<Right>::from_query(text).map_err(|error| unreadable("the form", &error))?;
    if right.take_back.is_some() {
        set_correction(site, id, None).await?;
    } else {
        note(site, ask, id, &right.label).await?;
    }
    Ok(see(format!("/history/{id}")))
}

/// So that loading the page again does not send the form again.
fn see(address: String) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, address)).finish()
}
