//! A failure as an HTTP answer, in the one form that every route has.

use std::fmt;

use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::{ALLOW, CACHE_CONTROL, RETRY_AFTER};
use fault::{Fault, Kind};
use serde::Serialize;
use utoipa::ToSchema;

use crate::trace::Names;

/// Why a request has no better answer.
#[derive(Debug)]
pub(crate) enum Problem {
    /// A row of the fault table.
    Fault(Fault),
    /// The path is right, the method is not.
    Method { allowed: &'static str },
}

impl From<Fault> for Problem {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// The body of every error: the form of OpenAI's API, with the request's id.
#[derive(Serialize, ToSchema)]
pub(crate) struct ErrorBody<'a> {
    error: ErrorDetail<'a>,
}

/// What went wrong.
#[derive(Serialize, ToSchema)]
struct ErrorDetail<'a> {
    /// One sentence that names the thing, the value and the limit.
    message: &'a str,
    /// The family, as OpenAI's clients know it.
    #[schema(example = "invalid_request_error")]
    r#type: &'static str,
    /// The parameter at fault.
    param: Option<&'a str>,
    /// For programs: each kind of failure has its own.
    #[schema(example = "model_not_found")]
    code: &'static str,
    /// Stands in the logs of every process.
    request_id: &'a str,
    /// The same, in the form of W3C Trace Context.
    #[schema(example = "0af7651916cd43dd8448eb211c80319c")]
    trace_id: &'a str,
}

impl Problem {
    pub(crate) fn status(&self) -> u16 {
        match self {
            Self::Fault(fault) => fault.kind.row().http,
            Self::Method { .. } => 405,
        }
    }

    pub(crate) fn code(&self) -> &'static str {
        match self {
            Self::Fault(fault) => fault.code(),
            Self::Method { .. } => "method_not_allowed",
        }
    }

    pub(crate) fn message(&self) -> String {
        match self {
            Self::Fault(fault) => fault.message.clone().into_owned(),
            Self::Method { allowed } => format!("this path takes {allowed}"),
        }
    }

    /// What a person can do about it.
    pub(crate) fn advice(&self) -> &'static str {
        let Self::Fault(fault) = self else { return "Go back and use the form." };
        match fault.kind {
            Kind::UnsupportedMedia => "Send a JPEG, PNG, GIF, WebP, BMP, TIFF or ICO picture.",
            Kind::TooLarge => "Send a smaller picture.",
            Kind::InvalidInput | Kind::NotFound => "Check what was sent and try again.",
            Kind::Overloaded | Kind::QuotaExceeded => "Many requests are waiting. Try again in a moment.",
            Kind::Unavailable => "The model server cannot be reached or is starting. Try again in a moment.",
            Kind::DeadlineExceeded => "It took too long. Try again, or with a smaller picture.",
            Kind::Unauthenticated | Kind::Forbidden => "Ask the operator for access.",
            Kind::Cancelled => "The answer was ended by the server. Try again.",
            Kind::Internal => "This is a defect of the service. Please report it with the request id.",
        }
    }

    /// Seconds for `Retry-After`, where trying again makes sense.
    fn retry_after(&self) -> Option<u64> {
        let Self::Fault(fault) = self else { return None };
        let told = fault.retry_after.map(|after| after.as_secs_f64().ceil() as u64);
        if fault.kind.row().retry.is_advised() { Some(told.unwrap_or(1).max(1)) } else { told }
    }

    /// The answer with the headers that belong to the failure.
    pub(crate) fn head(&self) -> actix_web::HttpResponseBuilder {
        // 499 has no name; every status of the table is a valid number.
        let status = StatusCode::from_u16(self.status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut head = HttpResponse::build(status);
        // It may be another answer a moment later.
        head.insert_header((CACHE_CONTROL, "no-store"));
        if let Some(seconds) = self.retry_after() {
            head.insert_header((RETRY_AFTER, seconds));
        }
        if let Self::Method { allowed } = self {
            head.insert_header((ALLOW, *allowed));
        }
        head
    }

    /// The error object.
    pub(crate) fn answer(&self, names: &Names) -> HttpResponse {
        self.with_body(names, |body| self.head().json(body))
    }

    /// The error object as the last event of a stream.
    pub(crate) fn event(&self, names: &Names, out: &mut Vec<u8>) {
        self.with_body(names, |body| {
            out.extend_from_slice(b"data: ");
            serde_json::to_writer(&mut *out, body).expect("texts are always JSON");
            out.extend_from_slice(b"\n\n");
        });
    }

    fn with_body<T>(&self, names: &Names, write: impl FnOnce(&ErrorBody<'_>) -> T) -> T {
        let (kind, param) = match self {
            Self::Fault(fault) => (fault.kind.row().openai_type, fault.param.as_deref()),
            Self::Method { .. } => ("invalid_request_error", None),
        };
        let message = self.message();
        let trace_id = names.trace_id().to_string();
        let (code, request_id) = (self.code(), names.request_id.as_str());
        let detail = ErrorDetail { message: &message, r#type: kind, param, code, request_id, trace_id: &trace_id };
        write(&ErrorBody { error: detail })
    }
}

/// Something that a client wrote and that cannot be read. The reason can quote it, so it is cut.
pub(crate) fn unreadable(what: &str, error: &dyn fmt::Display) -> Fault {
    let reason = error.to_string();
    let short = start_of(&reason, 200);
    let dots = if short.len() < reason.len() { " ..." } else { "" };
    Fault::invalid_input(format!("{what} cannot be read: {short}{dots}"))
}

/// As much of the beginning as fits into `most` bytes and is whole characters.
pub(crate) fn start_of(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
mod tests {
    use actix_web::body::to_bytes;
    use actix_web::http::header::{HeaderMap, HeaderValue};
    use chassis::traces::Traces;
    use fault::Retry;
    use units::RequestId;

    use super::*;
    use crate::trace::TRACEPARENT;

    fn names() -> Names {
        let parent = HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01");
        let headers = HeaderMap::from_iter([(TRACEPARENT, parent)]);
        Names::new(RequestId::parse("request-1").expect("an id"), &headers, &Traces::off())
    }

    #[actix_web::test]
    async fn every_row_of_the_fault_table_leaves_with_its_status_type_and_code() {
        for kind in Kind::ALL {
            let row = kind.row();
            let problem = Problem::Fault(Fault::new(kind, "no").with_param("top_k"));
            let answer = problem.answer(&names());
            assert_eq!(answer.status().as_u16(), row.http);
            let retry = matches!(row.retry, Retry::Later | Retry::Backoff);
            assert_eq!(answer.headers().contains_key(RETRY_AFTER), retry, "{kind}");
            let body = to_bytes(answer.into_body()).await.expect("a body in memory");
            let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
            let expected = serde_json::json!({"error": {
                "message": "no", "type": row.openai_type, "param": "top_k", "code": row.code, "request_id": "request-1",
                "trace_id": "0af7651916cd43dd8448eb211c80319c",
            }});
            assert_eq!(body, expected);
        }
    }

    #[test]
    fn what_cannot_be_read_is_cut_between_characters() {
        let long = "\u{e9}".repeat(101);
        assert_eq!(unreadable("x", &long).message, format!("x cannot be read: {} ...", &long[..200]));
        assert_eq!(unreadable("x", &&long[..200]).message, format!("x cannot be read: {}", &long[..200]));
        assert_eq!(start_of(&long, 3), "\u{e9}");
    }

    #[actix_web::test]
    async fn a_wrong_method_names_the_right_ones() {
        let answer = Problem::Method { allowed: "POST" }.answer(&names());
        assert_eq!(answer.status(), 405);
        assert_eq!(answer.headers().get(ALLOW).and_then(|value| value.to_str().ok()), Some("POST"));
    }
}
