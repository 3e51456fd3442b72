//! Pages: a key is asked for once, then a cookie stands for it.
//!
//! Promises: the cookie is not the key, scripts cannot read it, other sites' pages do not send it with forms, and it opens
//! nothing once the key is revoked; every gateway with the same file of keys takes it.

use std::time::{Duration, SystemTime};

use actix_web::http::header::{COOKIE, LOCATION, SET_COOKIE};
use actix_web::{HttpRequest, HttpResponse, web};
use fault::{Fault, Kind};
use keys::{Secret, Session};
use minijinja::context;

use crate::ask::Ask;
use crate::metrics::{Refused, Route};
use crate::pages::{self, page_head};
use crate::problem::{Problem, unreadable};
use crate::site::Site;
use crate::{body, origin};

const NAME: &str = "outboard_session";
/// After this a browser forgets it: a working day.
const LIFE: Duration = Duration::from_secs(12 * 60 * 60);
/// Most bytes of the form: a key, and where to go.
const MOST_FORM: usize = 8 << 10;
/// Most characters of an address to go back to.
const MOST_NEXT: usize = 512;

/// The session of a request's cookie.
pub(super) fn of(request: &HttpRequest) -> Option<Session> {
    let all = request.headers().get_all(COOKIE).filter_map(|value| value.to_str().ok());
    let mut each = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    each.find_map(|(name, value)| if name == NAME { Session::decode(value) } else { None })
}

/// The page that asks for a key, in the place of the one that was asked for.
pub(super) fn ask_for_key(ask: &mut Ask, request: &HttpRequest, problem: Problem, reason: Refused) -> HttpResponse {
    let here = match (request.method().as_str(), request.uri().path_and_query()) {
        ("GET" | "HEAD", Some(here)) => here.as_str(),
        _ => request.path(),
    };
    // Who has not been here before has done nothing wrong.
    let message = if reason == Refused::NoKey { None } else { Some(problem.message()) };
    door(ask, local(here), message, problem)
}

fn door(ask: &mut Ask, next: &str, message: Option<String>, problem: Problem) -> HttpResponse {
    match ask.page("login.html", context! { next, message, request_id => ask.names.request_id.as_str() }) {
        Ok(page) => {
            let response = page_head(problem.head()).body(page);
            ask.finish(response, Some(&problem))
        }
        Err(broken) => {
            let response = broken.answer(&ask.names);
            ask.finish(response, Some(&broken))
        }
    }
}

/// `GET /login`.
pub(crate) async fn form(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    if site.process.keyring.is_none() {
        return ask.answer(Ok(go_to("/upload")));
    }
    let page = ask.page("login.html", context! { next => "/upload" });
    let page = page.map(|page| page_head(HttpResponse::Ok()).body(page));
    pages::finish(&mut ask, &site, page)
}

/// `POST /login`: takes a key, gives a cookie.
pub(crate) async fn log_in(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let mut ask = Ask::new(&request, &site, Route::Page);
    let Some(keyring) = &site.process.keyring else { return ask.answer(Ok(go_to("/upload"))) };
    let (key, next) = match read(&request, payload, &site).await {
        Ok(read) => read,
        Err(fault) => return pages::finish(&mut ask, &site, Err(fault.into())),
    };
    let keys = keyring.keys();
    let found =
        Secret::parse(key.trim()).map_err(|error| (Refused::UnknownKey, error.to_string())).and_then(|secret| {
            let known = keys.of_secret(&secret, SystemTime::now());
            known.map(|_| secret.session()).map_err(|why| (super::refusal(why.clone()).reason, why.to_string()))
        });
    match found {
        Ok(session) => {
            let mut answer = go_to(local(&next));
            set(&mut answer, &request, &session.encode(), LIFE);
            ask.answer(Ok(answer))
        }
        Err((reason, message)) => {
            site.process.metrics.refused(reason);
            let problem = Problem::Fault(Fault::new(Kind::Unauthenticated, message.clone()));
            door(&mut ask, local(&next), Some(message), problem)
        }
    }
}

/// `POST /logout`: the browser forgets the cookie.
pub(crate) async fn log_out(request: HttpRequest, payload: web::Payload, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Page);
    body::discard(&mut payload.into_inner(), &site.process).await;
    let mut answer = go_to("/login");
    set(&mut answer, &request, "", Duration::ZERO);
    ask.answer(Ok(answer))
}

async fn read(request: &HttpRequest, payload: web::Payload, site: &web::Data<Site>) -> Result<(String, String), Fault> {
    // A page of another site could sign its visitor in with a key of its own, and read what they then ask.
    if let Err(fault) = origin::own_page(request) {
        body::discard(&mut payload.into_inner(), &site.process).await;
        return Err(fault);
    }
    let (bytes, _share) = body::read(request, payload, MOST_FORM, "the form", &site.process).await?;
    let text = std::str::from_utf8(&bytes).map_err(|error| unreadable("the form", &error))?;
    let fields = web::Query::<Vec<(String, String)>>::from_query(text);
    let mut fields = fields.map_err(|error| unreadable("the form", &error))?.into_inner();
    let mut take = |wanted: &str| {
        let found = fields.iter_mut().find(|(name, _)| name == wanted);
        found.map(|(_, value)| std::mem::take(value)).unwrap_or_default()
    };
    Ok((take("key"), take("next")))
}

/// A path of ours, or the first page: an address of another site must not be gone to from here.
fn local(next: &str) -> &str {
    let ours = next.starts_with('/') && !next[1..].starts_with(['/', '\\']) && next.len() <= MOST_NEXT;
    let plain = next.bytes().all(|byte| byte.is_ascii_graphic());
    if ours && plain && !next.starts_with("/log") { next } else { "/upload" }
}

fn go_to(path: &str) -> HttpResponse {
    HttpResponse::SeeOther().insert_header((LOCATION, path)).finish()
}

fn set(answer: &mut HttpResponse, request: &HttpRequest, value: &str, life: Duration) {
    // Where it came by TLS it leaves by TLS only.
    let secure = if request.connection_info().scheme() == "https" { "; Secure" } else { "" };
    let life = life.as_secs();
    let cookie = format!("{NAME}={value}; Path=/; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(cookie) = cookie.parse() {
        answer.headers_mut().append(SET_COOKIE, cookie);
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn nobody_is_sent_to_another_site() {
        for (next, goes) in [
            ("/history?day=2026-01-01", "/history?day=2026-01-01"),
            ("//evil.example", "/upload"),
            ("/\\evil.example", "/upload"),
            ("https://evil.example", "/upload"),
            ("/a\r\nset-cookie: x", "/upload"),
            ("/logout", "/upload"),
            ("", "/upload"),
            ("/", "/"),
        ] {
            assert_eq!(local(next), goes);
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let session = Secret::generate().expect("random numbers").session();
        let cookie = format!("a=b; {NAME}={}; c=d", session.encode());
        for headers in [vec![cookie.as_str()], vec!["x=y", &cookie]] {
            let mut request = TestRequest::get();
            for value in headers {
                request = request.append_header((COOKIE, value));
            }
            let found = of(&request.to_http_request()).expect("it is there");
            assert_eq!(found.encode(), session.encode());
        }
        assert!(of(&TestRequest::get().insert_header((COOKIE, "outboard_session=x")).to_http_request()).is_none());
    }
}
