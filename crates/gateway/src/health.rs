//! `/health/live` and `/health/ready`.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use actix_web::{HttpRequest, HttpResponse, web};
use serde::{Deserialize, Serialize};
use units::Deadline;
use utoipa::ToSchema;

use crate::ask::Ask;
use crate::metrics::Route;
use crate::problem::ErrorBody;
use crate::query;
use crate::site::Site;

/// A server that does not answer within this is not ready: shorter than orchestrators' own second.
const PATIENCE: Duration = Duration::from_millis(800);

/// Whether requests are answered now.
#[derive(Serialize, ToSchema)]
pub(crate) struct HealthBody {
    /// `ready`, `not_ready` or `draining`.
    status: &'static str,
    /// Why it is not ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// Why records of the history wait on this gateway's disk: requests are answered all the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    degraded: Option<String>,
}

/// A mistyped one is refused: a probe that asked for something else than was meant would take the gateways away one day.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Query {
    scope: Option<Scope>,
}

#[derive(Deserialize)]
enum Scope {
    /// This gateway alone.
    #[serde(rename = "self")]
    Gateway,
}

/// Whether the process runs.
#[utoipa::path(get, path = "/health/live", tag = "health", responses((status = 200, description = "It runs")))]
pub(crate) async fn live(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Health);
    ask.answer(Ok(HttpResponse::Ok().json(HealthBody { status: "live", reason: None, degraded: None })))
}

/// Whether a request would be answered now.
#[utoipa::path(
    get, path = "/health/ready", tag = "health",
    params(("scope" = Option<String>, Query, description = "`self`: this gateway alone, whatever its servers do")),
    responses(
        (status = 200, description = "A server was reached and serves", body = HealthBody),
        (status = 400, description = "invalid_input: another parameter, or another scope", body = ErrorBody),
        (status = 503, description = "Not ready, with the reason", body = HealthBody),
    ),
)]
pub(crate) async fn ready(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Health);
    let scope = match query::read::<Query>(&request) {
        Ok(query) => query.scope,
        Err(fault) => return ask.answer(Err(fault.into())),
    };
    let history = site.process.history.as_ref();
    let degraded =
        history.and_then(|history| history.state().trouble).map(|_| "the history's store is away".to_owned());
    let (ready, body) = if site.process.draining.load(Ordering::Acquire) {
        (false, HealthBody { status: "draining", reason: Some("the gateway is draining".to_owned()), degraded })
    } else if let Some(Scope::Gateway) = scope {
        (true, HealthBody { status: "ready", reason: None, degraded })
    } else {
        match site.backend.check(&ask.names, Deadline::after(Instant::now(), PATIENCE)).await {
            Ok(_) => (true, HealthBody { status: "ready", reason: None, degraded }),
            Err(reason) => (false, HealthBody { status: "not_ready", reason: Some(reason), degraded }),
        }
    };
    let mut head = if ready { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() };
    ask.answer(Ok(head.json(body)))
}
