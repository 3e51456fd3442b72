//! Who asks, and whether they may: API keys of programs, and the sessions of people's pages that stand for one.
//!
//! Promises: with a file of keys nothing but health, the description of the API, the files of pages and the door itself is answered
//! without a key; what is not known here needs one, too. A request that a browser sent because of a cookie changes nothing
//! without the token that only our own pages have. The answer has the form of what was asked for.
//! Not here: the file (`keys`), looking at it again and again (`chassis`), signing in and out (`session`).

pub(crate) mod session;

use std::sync::Arc;
use std::time::SystemTime;

use actix_web::body::BoxBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::Method;
use actix_web::http::header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE};
use actix_web::middleware::Next;
use actix_web::{HttpMessage as _, HttpRequest, web};
use fault::{Fault, Kind};
use keys::{Scope, Session};

use crate::ask::Ask;
use crate::metrics::{Refused, Route};
use crate::problem::Problem;
use crate::site::Site;
use crate::{body, origin, pages};

/// The header in which scripts send the token of their page; forms have it in their address.
const TOKEN: &str = "x-csrf-token";

/// Whose key it is; an extension of every request that has one.
#[derive(Clone)]
pub(crate) struct Visitor {
    pub(crate) name: Arc<str>,
    /// Came by a cookie.
    session: Option<Session>,
}

impl Visitor {
    /// What a page's forms must carry, where a cookie says who it is.
    pub(crate) fn token(&self) -> Option<String> {
        self.session.map(|session| session.token())
    }
}

/// What a path needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Need {
    Nothing,
    /// Any key.
    Key,
    Scope(Scope),
}

/// Why nobody is let in.
struct Refusal {
    fault: Fault,
    reason: Refused,
}

impl Refusal {
    fn new(reason: Refused, message: impl Into<std::borrow::Cow<'static, str>>) -> Self {
        let kind = match reason {
            Refused::NoKey | Refused::UnknownKey | Refused::ExpiredKey => Kind::Unauthenticated,
            Refused::Scope | Refused::Token | Refused::Origin => Kind::Forbidden,
        };
        Self { fault: Fault::new(kind, message), reason }
    }
}

/// Lets a request through, or answers it.
pub(crate) async fn check(
    request: ServiceRequest,
    next: Next<BoxBody>,
) -> Result<ServiceResponse<BoxBody>, actix_web::Error> {
    let Some(site) = request.app_data::<web::Data<Site>>().cloned() else { return next.call(request).await };
    // As the router sees it: `%63` is a `c` for it.
    let (need, is_page) = need(request.method(), request.match_info().as_str());
    let refusal = match visitor(request.request(), &site, need) {
        Ok(visitor) => {
            if let Some(visitor) = visitor {
                request.extensions_mut().insert(visitor);
            }
            return next.call(request).await;
        }
        Err(refusal) => refusal,
    };
    site.process.metrics.refused(refusal.reason);
    let (request, mut payload) = request.into_parts();
    body::discard(&mut payload, &site.process).await;
    let mut ask = Ask::new(&request, &site, if is_page { Route::Page } else { Route::Unknown });
    let problem = Problem::Fault(refusal.fault);
    let mut response = match (is_page, problem.status()) {
        (false, _) => ask.answer(Err(problem)),
        (true, 401) => session::ask_for_key(&mut ask, &request, problem, refusal.reason),
        (true, _) => pages::finish(&mut ask, &site, Err(problem)),
    };
    if response.status() == 401 {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outboard\""));
    }
    Ok(ServiceResponse::new(request, response))
}

/// What a path needs, and whether people see its answer.
fn need(method: &Method, path: &str) -> (Need, bool) {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let below = |folder: &str| path.strip_prefix(folder).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    let is_page = !below("/v1") && !below("/health");
    let need = match path {
        "/" | "/login" | "/docs" | "/openapi.json" | "/favicon.ico" => Need::Nothing,
        "/upload" | "/chat" | "/v1/classify" | "/v1/chat/completions" | "/v1/completions" | "/v1/embeddings" => {
            Need::Scope(Scope::Infer)
        }
        _ if below("/health") || below("/assets") => Need::Nothing,
        _ if below("/history") || below("/v1/history") => {
            // A correction is somebody's word beside the record; whoever reads it may say and unsay one.
            let corrects = path.ends_with("/correction") || path.ends_with("/correct");
            let removes = !reads && !corrects;
            Need::Scope(if removes { Scope::HistoryDelete } else { Scope::HistoryRead })
        }
        _ => Need::Key,
    };
    (need, is_page)
}

fn visitor(request: &HttpRequest, site: &Site, need: Need) -> Result<Option<Visitor>, Refusal> {
    let Some(keyring) = &site.process.keyring else { return Ok(None) };
    let keys = keyring.keys();
    let now = SystemTime::now();
    let entry = match (bearer(request), session::of(request)) {
        (Some(text), _) => keys.admit(text, None, now).map_err(refusal).map(|entry| (entry, None)),
        (None, Some(session)) => keys.of_session(&session, now).map_err(refusal).map(|entry| (entry, Some(session))),
        (None, None) => Err(Refusal::new(Refused::NoKey, "a key is needed here, as `Authorization: Bearer KEY`")),
    };
    let (entry, session) = match (entry, need) {
        (Ok(found), _) => found,
        (Err(_), Need::Nothing) => return Ok(None),
        (Err(refusal), _) => return Err(refusal),
    };
    if let Need::Scope(scope) = need {
        entry.check(scope).map_err(refusal)?;
    }
    if let Some(session) = session
        && !matches!(*request.method(), Method::GET | Method::HEAD)
        && need != Need::Nothing
    {
        origin::own_page(request).map_err(|fault| Refusal { fault, reason: Refused::Origin })?;
        if !token(request).is_some_and(|token| session.has_token(&token)) {
            let message = "the form has not the token of your session: load its page again and send it from there";
            return Err(Refusal::new(Refused::Token, message));
        }
    }
    Ok(Some(Visitor { name: Arc::from(entry.name.as_str()), session }))
}

fn refusal(why: keys::Refusal) -> Refusal {
    let reason = match why {
        keys::Refusal::Malformed(_) | keys::Refusal::Unknown => Refused::UnknownKey,
        keys::Refusal::Expired { .. } => Refused::ExpiredKey,
        keys::Refusal::Scope { .. } => Refused::Scope,
    };
    Refusal::new(reason, why.to_string())
}

/// The key of the header. Other schemes are somebody else's, such as a proxy's.
fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

fn token(request: &HttpRequest) -> Option<String> {
    if let Some(value) = request.headers().get(TOKEN) {
        return value.to_str().ok().map(str::to_owned);
    }
    let query = web::Query::<Vec<(String, String)>>::from_query(request.query_string()).ok()?;
    query.into_inner().into_iter().find(|(name, _)| name == "csrf").map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_its_scope_and_what_is_not_known_needs_a_key() {
        let (get, post, delete) = (&Method::GET, &Method::POST, &Method::DELETE);
        let (infer, read, remove) = (Scope::Infer, Scope::HistoryRead, Scope::HistoryDelete);
        for (method, path, expected, page) in [
            (get, "/health/ready", Need::Nothing, false),
            (get, "/assets/0123/style.css", Need::Nothing, true),
            (get, "/login", Need::Nothing, true),
            (get, "/openapi.json", Need::Nothing, true),
            (get, "/upload", Need::Scope(infer), true),
            (post, "/chat", Need::Scope(infer), true),
            (post, "/v1/chat/completions", Need::Scope(infer), false),
            (post, "/v1/embeddings", Need::Scope(infer), false),
            (get, "/v1/models/a/b", Need::Key, false),
            (get, "/history", Need::Scope(read), true),
            (get, "/v1/history/7/picture", Need::Scope(read), false),
            (delete, "/v1/history/7", Need::Scope(remove), false),
            (post, "/history/7/delete", Need::Scope(remove), true),
            (post, "/history/7/correct", Need::Scope(read), true),
            (delete, "/v1/history/7/correction", Need::Scope(read), false),
            (post, "/v1/history/export", Need::Scope(remove), false),
            (get, "/healthy", Need::Key, true),
            (post, "/logout", Need::Key, true),
            (get, "/v1/new", Need::Key, false),
        ] {
            assert_eq!(need(method, path), (expected, page), "{method} {path}");
        }
    }
}
