//! The pages that people see: rendered here, complete without JavaScript.

use actix_web::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, ContentType, HeaderName, LOCATION, REFERRER_POLICY,
};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder, web};
use base64::Engine as _;
use chassis::Size;
use history::Source;
use idl::inference::{Classification, ClassifyReply, ModelInfo, ModelState, Task};
use minijinja::value::Serde;
use minijinja::{Environment, Value, context};
use serde::Serialize;
use units::Deadline;

use crate::ask::Ask;
use crate::assets;
use crate::backend::most_picture_bytes;
use crate::body;
use crate::classify::run;
use crate::form;
use crate::keeping::Keeping;
use crate::metrics::Route;
use crate::origin;
use crate::problem::Problem;
use crate::site::Site;

/// Nothing but our own files, no inline script or style, nobody may frame the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; \
                      connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'";
/// Longest edge of the picture on the result page, and in the history's list.
pub(crate) const PREVIEW: i32 = 480;

/// All templates, compiled once.
pub(crate) struct Templates(Environment<'static>);

impl Templates {
    /// # Panics
    /// When a template that was compiled into the program is broken; a test loads them all.
    pub(crate) fn new() -> Self {
        let mut environment = Environment::new();
        for (name, text) in [
            ("layout.html", include_str!("../templates/layout.html")),
            ("upload.html", include_str!("../templates/upload.html")),
            ("result.html", include_str!("../templates/result.html")),
            ("error.html", include_str!("../templates/error.html")),
            ("docs.html", include_str!("../templates/docs.html")),
            ("chat.html", include_str!("../templates/chat.html")),
            ("history.html", include_str!("../templates/history.html")),
            ("record.html", include_str!("../templates/record.html")),
            ("delete.html", include_str!("../templates/delete.html")),
            ("login.html", include_str!("../templates/login.html")),
        ] {
            environment.add_template(name, text).expect("templates are checked by a test");
        }
        // Safe: letters, digits and slashes, which would be escaped.
        environment.add_global("assets", minijinja::Value::from_safe_string(assets::prefix().to_owned()));
        Self(environment)
    }

    /// Whether every page speaks of the history.
    pub(crate) fn with_history(mut self, kept: bool) -> Self {
        self.0.add_global("history", kept);
        self
    }

    /// The page, or the reason why it could not be made.
    pub(crate) fn render(&self, name: &str, values: minijinja::Value) -> Result<String, Problem> {
        let page = self.0.get_template(name).and_then(|template| template.render(values));
        page.map_err(|error| fault::Fault::internal(format!("page {name}: {error}")).into())
    }
}

/// The head of every page.
pub(crate) fn page_head(mut head: HttpResponseBuilder) -> HttpResponseBuilder {
    head.content_type(ContentType::html());
    head.insert_header((CONTENT_SECURITY_POLICY, POLICY));
    head.insert_header((REFERRER_POLICY, "same-origin"));
    head.insert_header((HeaderName::from_static("x-content-type-options"), "nosniff"));
    head.insert_header((CACHE_CONTROL, "no-store"));
    head
}

/// `/`.
pub(crate) async fn home(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Page);
    // 302: the first page may be another one some day.
    ask.answer(Ok(HttpResponse::Found().insert_header((LOCATION, "/upload")).finish()))
}

/// A model that a page offers.
#[derive(Serialize)]
pub(crate) struct Choice {
    pub(crate) name: String,
    pub(crate) description: String,
}

/// The models for a task that can be used now.
pub(crate) fn choices(models: &[ModelInfo], task: Task) -> Vec<Choice> {
    let usable = |model: &&ModelInfo| model.task == Some(task) && model.state == Some(ModelState::READY);
    let choice = |model: &ModelInfo| Choice {
        name: model.name.clone().unwrap_or_default(),
        description: model.description.clone().unwrap_or_default(),
    };
    models.iter().filter(usable).map(choice).collect()
}

/// `GET /upload`: the form.
pub(crate) async fn upload_form(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let result = form_page(&request, &site, &ask).await;
    finish(&mut ask, &site, result)
}

async fn form_page(request: &HttpRequest, site: &web::Data<Site>, ask: &Ask) -> Result<HttpResponse, Problem> {
    let deadline = ask.deadline(request)?;
    // The page is of use without a server, too: it says so, and the models are back on the next look.
    let (models, notice) = match site.process.in_time(site.backend.models(&ask.names, deadline)).await {
        Ok(models) => (choices(&models, Task::CLASSIFY), None),
        Err(fault) => (Vec::new(), Some(fault.message.into_owned())),
    };
    let selected = web::Query::<std::collections::HashMap<String, String>>::from_query(request.query_string())
        .ok()
        .and_then(|query| query.get("model").cloned());
    let limits = &site.process.settings.limits;
    let page = ask.page(
        "upload.html",
        context! {
            models => Value::from(Serde(&models)),
            selected,
            notice,
            most_pictures => limits.pictures_per_call,
            most_each => limits.picture.to_string(),
            most_together => Size::mib(most_picture_bytes() >> 20).to_string(),
        },
    )?;
    Ok(page_head(HttpResponse::Ok()).body(page))
}

/// `POST /upload`: the result.
pub(crate) async fn upload(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Upload);
    let result = match origin::own_page(&request).and_then(|()| ask.deadline(&request)) {
        Ok(deadline) => site.process.in_time(result_page(&request, payload, &site, &mut ask, deadline)).await,
        Err(fault) => {
            body::discard(&mut payload.into_inner(), &site.process).await;
            Err(fault.into())
        }
    };
    finish(&mut ask, &site, result)
}

#[derive(Serialize)]
struct LabelView {
    label: String,
    percent: f64,
}

#[derive(Serialize)]
struct PictureView {
    /// A data: URL, which needs no escaping.
    preview: Option<Value>,
    width: i32,
    height: i32,
    format: String,
    labels: Vec<LabelView>,
}

async fn result_page(
    request: &HttpRequest,
    payload: web::Payload,
    site: &web::Data<Site>,
    ask: &mut Ask,
    deadline: Deadline,
) -> Result<HttpResponse, Problem> {
    let wanted = form::read(request, payload, site).await?;
    if wanted.model.is_empty() {
        return Err(fault::Fault::invalid_input("no model is chosen").with_param("model").into());
    }
    let keeping = Keeping::of(site, &wanted, Source::Page);
    let reply = run(wanted, site, ask, deadline, Some(PREVIEW)).await;
    // Not waited for: a person does not count on it.
    let kept = keeping.map(|keeping| keeping.answered(site, ask, &reply).ids).unwrap_or_default();
    let reply = reply?;
    let millis = |time: std::time::Duration| format!("{:.1}", time.as_secs_f64() * 1e3);
    let server = ask.told.server;
    let ClassifyReply { results, model, version, .. } = reply;
    let pictures: Vec<PictureView> = results.unwrap_or_default().into_iter().map(picture_view).collect();
    let page = ask.page(
        "result.html",
        context! {
            pictures => Value::from(Serde(&pictures)),
            kept => !kept.is_empty(),
            model,
            version,
            total_ms => millis(ask.received.elapsed()),
            decode_ms => millis(server.decode),
            queue_ms => millis(server.queue),
            run_ms => millis(server.run),
            request_id => ask.names.request_id.as_str(),
        },
    )?;
    Ok(page_head(HttpResponse::Ok()).body(page))
}

fn picture_view(one: Classification) -> PictureView {
    let labels = one.labels.unwrap_or_default().into_iter().map(|label| LabelView {
        label: label.label.unwrap_or_default(),
        percent: label.score.map_or(0.0, |score| (score.0 * 1e3).round() / 10.0),
    });
    let encode = |jpeg| {
        let base64 = base64::engine::general_purpose::STANDARD.encode(jpeg);
        Value::from_safe_string(format!("data:image/jpeg;base64,{base64}"))
    };
    PictureView {
        preview: one.preview.map(encode),
        width: one.width.unwrap_or(0),
        height: one.height.unwrap_or(0),
        format: one.format.unwrap_or_default().to_uppercase(),
        labels: labels.collect(),
    }
}

/// The page, or one that says what went wrong and what to do.
pub(crate) fn finish(ask: &mut Ask, site: &web::Data<Site>, result: Result<HttpResponse, Problem>) -> HttpResponse {
    let problem = match result {
        Ok(response) => return ask.finish(response, None),
        Err(problem) => problem,
    };
    let values = context! {
        status => problem.status(),
        title => if problem.status() < 500 { "That did not work" } else { "The service has a problem" },
        message => problem.message(),
        advice => problem.advice(),
        request_id => ask.names.request_id.as_str(),
    };
    let response = match site.process.templates.render("error.html", ask.with_visitor(values)) {
        Ok(page) => page_head(problem.head()).body(page),
        Err(_) => problem.answer(&ask.names),
    };
    ask.finish(response, Some(&problem))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_template_renders_and_escapes() {
        let templates = Templates::new();
        let evil = "<script>alert(1)</script>";
        let models = vec![Choice { name: evil.to_owned(), description: evil.to_owned() }];
        let picture = PictureView {
            preview: None,
            width: 1,
            height: 1,
            format: "PNG".to_owned(),
            labels: vec![LabelView { label: evil.to_owned(), percent: 12.5 }],
        };
        let kept = || {
            let names = [
                "id",
                "label",
                "model",
                "moment",
                "time",
                "file_name",
                "caller",
                "correction",
                "shown",
                "picture",
                "day",
            ];
            Value::from(Serde(names.map(|name| (name, evil)).into_iter().collect::<BTreeMap<_, _>>()))
        };
        let written = Value::from(Serde(BTreeMap::from([("model", evil), ("system", evil)])));
        for (name, values) in [
            ("upload.html", context! { models => Value::from(Serde(&models)), selected => evil, notice => evil }),
            (
                "result.html",
                context! { pictures => Value::from(Serde(vec![picture])), model => evil, version => "1", request_id => evil },
            ),
            (
                "error.html",
                context! { title => evil, message => evil, advice => evil, request_id => evil, status => 400 },
            ),
            (
                "login.html",
                context! { next => evil, message => evil, request_id => evil, visitor => evil, csrf => evil },
            ),
            (
                "history.html",
                context! { records => vec![kept()], wish => kept(), unreachable => evil, next => evil, csrf => evil },
            ),
            ("record.html", context! { record => kept(), csrf => evil }),
            ("delete.html", context! { record => kept(), csrf => evil }),
            ("docs.html", context! { title => evil, description => evil, operations => Vec::<String>::new() }),
            (
                "chat.html",
                context! {
                    models => Value::from(Serde(&models)),
                    turns => Value::from(Serde(vec![BTreeMap::from([("role", "user"), ("text", evil)])])),
                    written => written.clone(),
                    draft => evil, facts => evil, message => evil, advice => evil,
                },
            ),
            ("chat.html", context! { written => written.clone(), failed => evil, reason => evil }),
            ("chat.html", context! { written => written.clone(), notice => evil }),
            ("chat.html", context! { written => written.clone(), coming => evil }),
        ] {
            let page = templates.render(name, values).unwrap_or_else(|problem| panic!("{problem:?}"));
            assert!(!page.contains(evil), "{name} lets markup through");
            assert!(page.contains("&lt;script&gt;") || name == "docs.html", "{name} shows no value");
            for forbidden in ["<style", "style=", "onclick=", "javascript:"] {
                assert!(!page.contains(forbidden), "{name} has {forbidden}, which the policy forbids");
            }
        }
    }
}
