//! `/openapi.json`, made from the code, and `/docs`, made from it.

use std::sync::LazyLock;

use actix_web::http::header::HOST;
use actix_web::{HttpRequest, HttpResponse, web};
use minijinja::context;
use serde::Serialize;
use serde_json::Value;
use utoipa::OpenApi;

use crate::ask::Ask;
use crate::metrics::Route;
use crate::pages;
use crate::site::Site;

/// Pictures to labels, chats with language models, and texts to vectors over HTTP.
///
/// Every answer carries `x-request-id` and `traceparent` (W3C Trace Context), whose ids stand in the logs of all processes; every error
/// has the form `{"error": {"message", "type", "param", "code", "request_id", "trace_id"}}`.
#[derive(OpenApi)]
#[openapi(
    info(title = "Outboard", license(name = "Apache-2.0")),
    paths(
        crate::classify::post,
        crate::openai::chat,
        crate::openai::completions,
        crate::openai::embeddings::post,
        crate::history_api::list,
        crate::history_api::one,
        crate::history_api::delete,
        crate::history_api::picture,
        crate::history_api::preview,
        crate::history_api::correct,
        crate::history_api::take_back,
        crate::models::list,
        crate::models::one,
        crate::health::live,
        crate::health::ready,
    ),
    components(schemas(crate::classify::ClassifyManyAnswer))
)]
struct Api;

static TEXT: LazyLock<String> = LazyLock::new(|| Api::openapi().to_json().expect("the description is plain data"));

/// The description as JSON text.
#[cfg(test)]
pub(crate) fn text_of_all() -> &'static str {
    &TEXT
}

/// `/openapi.json`.
pub(crate) async fn openapi(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Page);
    ask.answer(Ok(HttpResponse::Ok().content_type("application/json").body(TEXT.as_str())))
}

#[derive(Serialize)]
struct Parameter {
    name: String,
    place: String,
    required: bool,
    description: String,
}

#[derive(Serialize)]
struct Response {
    status: String,
    description: String,
}

#[derive(Serialize)]
struct Operation {
    method: String,
    path: String,
    summary: String,
    description: String,
    parameters: Vec<Parameter>,
    bodies: Vec<String>,
    responses: Vec<Response>,
}

/// `/docs`.
pub(crate) async fn docs(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let api: Value = serde_json::from_str(&TEXT).expect("it was written as JSON");
    let values = context! {
        // Its characters need no escaping, and a slash that is escaped cannot be copied from the page's source.
        here => minijinja::Value::from_safe_string(here(&request)),
        title => text(&api["info"]["title"]),
        description => text(&api["info"]["description"]),
        version => text(&api["info"]["version"]),
        operations => minijinja::Value::from(minijinja::value::Serde(operations(&api))),
    };
    let page = ask.page("docs.html", values);
    let result = page.map(|page| pages::page_head(HttpResponse::Ok()).body(page));
    pages::finish(&mut ask, &site, result)
}

/// The address by which this page was asked for, as far as it can be told; it ends up in a shell, so it is letters and digits.
fn here(request: &HttpRequest) -> String {
    let host = request.headers().get(HOST).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let connection = request.connection_info();
    let safe = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let scheme = if connection.scheme() == "https" { "https" } else { "http" };
    if host.is_empty() || host.len() > 255 || !host.chars().all(safe) {
        return "http://127.0.0.1:8080".to_owned();
    }
    format!("{scheme}://{host}")
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn operations(api: &Value) -> Vec<Operation> {
    let mut all = Vec::new();
    for (path, methods) in api["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let parameters = operation["parameters"].as_array().into_iter().flatten();
            let bodies = operation["requestBody"]["content"].as_object().into_iter().flatten();
            let responses = operation["responses"].as_object().into_iter().flatten();
            all.push(Operation {
                method: method.to_uppercase(),
                path: path.clone(),
                summary: text(&operation["summary"]),
                description: text(&operation["description"]),
                parameters: parameters
                    .map(|one| Parameter {
                        name: text(&one["name"]),
                        place: text(&one["in"]),
                        required: one["required"].as_bool().unwrap_or(false),
                        description: text(&one["description"]),
                    })
                    .collect(),
                bodies: bodies.map(|(kind, _)| kind.clone()).collect(),
                responses: responses
                    .map(|(status, one)| Response { status: status.clone(), description: text(&one["description"]) })
                    .collect(),
            });
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use utoipa::ToSchema;
    use utoipa::openapi::{RefOr, Schema};

    use super::*;

    /// A type and all that it is made of.
    fn parts<T: ToSchema>() -> Vec<(String, RefOr<Schema>)> {
        let mut all = vec![(T::name().into_owned(), T::schema())];
        T::schemas(&mut all);
        all
    }

    /// The last one of a name would describe them all.
    #[test]
    fn no_two_types_share_a_name() {
        use crate::{classify, health, history_api, models, openai, problem};
        let all = [
            parts::<classify::ClassifyBody<'_>>(),
            parts::<classify::ClassifyAnswer<'_>>(),
            parts::<classify::ClassifyManyAnswer<'_>>(),
            parts::<openai::ChatBody>(),
            parts::<openai::ChatAnswer<'_>>(),
            parts::<openai::ChatChunk<'_>>(),
            parts::<openai::CompletionBody>(),
            parts::<openai::CompletionAnswer<'_>>(),
            parts::<openai::embeddings::EmbeddingsBody>(),
            parts::<openai::embeddings::EmbeddingsAnswer>(),
            parts::<models::ModelsBody>(),
            parts::<history_api::HistoryBody<'_>>(),
            parts::<history_api::CorrectionWish>(),
            parts::<health::HealthBody>(),
            parts::<problem::ErrorBody<'_>>(),
        ];
        let mut seen = BTreeMap::new();
        for (name, schema) in all.into_iter().flatten() {
            let schema = serde_json::to_value(schema).expect("JSON");
            let before = seen.insert(name.clone(), schema.clone());
            assert!(before.is_none_or(|before| before == schema), "two types are called {name}");
        }
        let api: Value = serde_json::from_str(&TEXT).expect("JSON");
        for name in api["components"]["schemas"].as_object().expect("schemas").keys() {
            assert!(seen.contains_key(name), "{name} is not looked at here");
        }
    }

    #[test]
    fn what_can_be_written_in_several_ways_is_described_so() {
        let api: Value = serde_json::from_str(&TEXT).expect("JSON");
        let schemas = &api["components"]["schemas"];
        for (name, ways) in [("Stop", 2), ("Prompt", 2), ("Content", 2), ("AskedInput", 4), ("ToldVector", 2)] {
            assert_eq!(schemas[name]["oneOf"].as_array().map(Vec::len), Some(ways), "{name}: {}", schemas[name]);
        }
        let message = &schemas["AskedMessage"]["properties"];
        assert!(text(&message["role"]["description"]).contains("user"), "{message}");
    }

    #[test]
    fn every_documented_path_is_described_with_its_errors() {
        let api: Value = serde_json::from_str(&TEXT).expect("JSON");
        for path in [
            "/v1/classify",
            "/v1/chat/completions",
            "/v1/completions",
            "/v1/embeddings",
            "/v1/history",
            "/v1/history/{id}",
            "/v1/history/{id}/picture",
            "/v1/history/{id}/correction",
            "/v1/models",
            "/v1/models/{model}",
            "/health/live",
            "/health/ready",
        ] {
            assert!(api["paths"][path].is_object(), "{path}");
        }
        let classify = &api["paths"]["/v1/classify"]["post"];
        for kind in ["image/*", "application/json", "multipart/form-data"] {
            assert!(classify["requestBody"]["content"][kind].is_object(), "{kind}");
        }
        for status in ["200", "400", "404", "413", "415", "503", "504"] {
            assert!(classify["responses"][status].is_object(), "{status}");
        }
        assert_eq!(operations(&api).len(), 15);
    }
}
