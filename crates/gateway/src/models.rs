//! `GET /v1/models`: what is served, in OpenAI's form with our fields beside.

use actix_web::{HttpRequest, HttpResponse, web};
use fault::Fault;
use idl::inference::{ModelInfo, ModelState, Task};
use serde::Serialize;
use utoipa::ToSchema;

use crate::ask::Ask;
use crate::metrics::Route;
use crate::problem::{ErrorBody, Problem, start_of};
use crate::site::Site;

/// One model.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelBody {
    /// Its name.
    id: String,
    /// Always `model`.
    object: &'static str,
    /// When the model was written to its folder, in seconds since 1970; 0 when the server does not tell.
    created: i64,
    /// Always `outboard`.
    owned_by: &'static str,
    /// `classify`, `tensor`, ...
    task: &'static str,
    /// `ready`, `loading`, `warming`, `failed` or `draining`.
    state: &'static str,
    /// Why it failed.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    version: String,
    /// What it is for, in a line.
    description: Option<String>,
    licence: Option<String>,
    /// Number of classes.
    classes: Option<i32>,
    /// `cpu` or `cuda:N`.
    device: Option<String>,
}

/// All models.
#[derive(Serialize, ToSchema)]
pub(crate) struct ModelsBody {
    /// Always `list`.
    object: &'static str,
    data: Vec<ModelBody>,
}

/// Lists the models.
#[utoipa::path(
    get, path = "/v1/models", tag = "models",
    responses(
        (status = 200, description = "Every model of the servers", body = ModelsBody),
        (status = 503, description = "unavailable: no server can be reached", body = ErrorBody),
    ),
)]
pub(crate) async fn list(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Models);
    let result = async {
        let deadline = ask.deadline(&request)?;
        let models = site.backend.models(&ask.names, deadline).await?;
        let data = models.iter().map(model_body).collect();
        Ok::<_, Problem>(HttpResponse::Ok().json(ModelsBody { object: "list", data }))
    };
    let result = result.await;
    ask.answer(result)
}

/// Describes one model.
#[utoipa::path(
    get, path = "/v1/models/{model}", tag = "models",
    params(("model" = String, Path, description = "The model's name")),
    responses(
        (status = 200, description = "The model", body = ModelBody),
        (status = 404, description = "model_not_found", body = ErrorBody),
        (status = 503, description = "unavailable: no server can be reached", body = ErrorBody),
    ),
)]
pub(crate) async fn one(request: HttpRequest, site: web::Data<Site>, name: web::Path<String>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Models);
    let result = async {
        let deadline = ask.deadline(&request)?;
        let models = site.backend.models(&ask.names, deadline).await?;
        let found = models.iter().find(|model| model.name.as_deref() == Some(name.as_str()));
        let found = found.ok_or_else(|| Fault::model_not_found(start_of(&name, 128)))?;
        Ok::<_, Problem>(HttpResponse::Ok().json(model_body(found)))
    };
    let result = result.await;
    ask.answer(result)
}

fn model_body(model: &ModelInfo) -> ModelBody {
    let task = match model.task {
        Some(Task::CLASSIFY) => "classify",
        Some(Task::EMBED) => "embed",
        Some(Task::TRANSFORM) => "transform",
        Some(Task::CHAT) => "chat",
        _ => "tensor",
    };
    let state = match model.state {
        Some(ModelState::READY) => "ready",
        Some(ModelState::LOADING) => "loading",
        Some(ModelState::WARMING) => "warming",
        Some(ModelState::FAILED) => "failed",
        Some(ModelState::DRAINING) => "draining",
        _ => "unknown",
    };
    ModelBody {
        id: model.name.clone().unwrap_or_default(),
        object: "model",
        created: model.modified_s.unwrap_or(0),
        owned_by: "outboard",
        task,
        state,
        reason: model.reason.clone(),
        version: model.version.clone().unwrap_or_default(),
        description: model.description.clone(),
        licence: model.licence.clone(),
        classes: model.classes,
        device: model.device.clone(),
    }
}
