//! Style, script and icon, compiled in. Their address has a digest of their content in it, so they may be kept for ever.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::LazyLock;

use actix_web::http::header::{CACHE_CONTROL, ContentType, HeaderName};
use actix_web::{HttpRequest, HttpResponse, web};
use fault::Fault;

use crate::ask::Ask;
use crate::metrics::Route;
use crate::site::Site;

const STYLE: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const ICON: (&str, &str, &str) = ("favicon.svg", "image/svg+xml", include_str!("../assets/favicon.svg"));

/// The scripts of the chat page name each other without the folder, so they come from the same digest.
const FILES: [(&str, &str, &str); 10] = [
    ICON,
    ("style.css", STYLE, include_str!("../assets/style.css")),
    ("upload.js", SCRIPT, include_str!("../assets/upload.js")),
    ("chat.css", STYLE, include_str!("../assets/chat.css")),
    ("chat.js", SCRIPT, include_str!("../assets/chat.js")),
    ("completion.js", SCRIPT, include_str!("../assets/completion.js")),
    ("conversations.js", SCRIPT, include_str!("../assets/conversations.js")),
    ("markdown.js", SCRIPT, include_str!("../assets/markdown.js")),
    ("talks.js", SCRIPT, include_str!("../assets/talks.js")),
    ("turns.js", SCRIPT, include_str!("../assets/turns.js")),
];

/// For an address that names its content.
const FOR_EVER: &str = "public, max-age=31536000, immutable";
/// For one that does not.
const A_DAY: &str = "public, max-age=86400";

static PREFIX: LazyLock<String> = LazyLock::new(|| {
    let mut digest = DefaultHasher::new();
    FILES.hash(&mut digest);
    format!("/assets/{:08x}", digest.finish() as u32)
});

/// The folder of all assets, as it stands in pages.
pub(crate) fn prefix() -> &'static str {
    &PREFIX
}

/// `/assets/{digest}/{file}`. Another digest is another program's file: while gateways are replaced one after the other, a page
/// of the new one may ask the old one, and whoever got the old file under the new address would keep it for a year.
pub(crate) async fn file(
    request: HttpRequest,
    site: web::Data<Site>,
    path: web::Path<(String, String)>,
) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Asset);
    let ours = prefix().strip_prefix("/assets/") == Some(path.0.as_str());
    let found = FILES.iter().find(|(name, ..)| ours && *name == path.1);
    let result = found
        .map(|(_, kind, text)| response(kind, text, FOR_EVER))
        .ok_or_else(|| Fault::not_found("no such file").into());
    ask.answer(result)
}

/// `/favicon.ico`, which browsers ask for by themselves.
pub(crate) async fn icon(request: HttpRequest, site: web::Data<Site>) -> HttpResponse {
    let ask = Ask::new(&request, &site, Route::Asset);
    let (_, kind, text) = ICON;
    ask.answer(Ok(response(kind, text, A_DAY)))
}

fn response(kind: &'static str, text: &'static str, keep: &'static str) -> HttpResponse {
    let mut head = HttpResponse::Ok();
    head.insert_header(ContentType(kind.parse().unwrap_or(actix_web::mime::TEXT_PLAIN)));
    head.insert_header((CACHE_CONTROL, keep));
    head.insert_header((HeaderName::from_static("x-content-type-options"), "nosniff"));
    head.body(text)
}
