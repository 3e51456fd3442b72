//! Where a form was sent from.
//!
//! Why: a page of any site can send a form here with the visitor's browser; an answer must not be made, nor a page with forged
//! words be shown under our address, because somebody opened such a page.

use actix_web::HttpRequest;
use actix_web::http::header::{HOST, HeaderMap, HeaderName, ORIGIN};
use fault::Fault;

use crate::problem::start_of;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Lets through what our own pages send, and programs, which name no site.
///
/// # Errors
/// Forbidden when the browser says that it is another site's page that sends this.
pub(crate) fn own_page(request: &HttpRequest) -> Result<(), Fault> {
    let headers = request.headers();
    let text = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or("?"));
    // Browsers send it where a page is reached by https or on this machine; the older header comes everywhere.
    let foreign = match (text(FETCH_SITE), text(ORIGIN)) {
        (Some("same-origin" | "none"), _) | (None, None) => return Ok(()),
        (Some(site), origin) => origin.unwrap_or(site),
        (None, Some(origin)) if is_ours(origin, headers) => return Ok(()),
        (None, Some(origin)) => origin,
    };
    let foreign = start_of(foreign, 128);
    Err(Fault::new(fault::Kind::Forbidden, format!("the form was sent from another site: {foreign}")))
}

/// Whether the origin's host is the one that was asked. A proxy in between must leave `Host` as it is.
fn is_ours(origin: &str, headers: &HeaderMap) -> bool {
    let host = headers.get(HOST).and_then(|value| value.to_str().ok());
    let named = origin.strip_prefix("http://").or_else(|| origin.strip_prefix("https://"));
    named.zip(host).is_some_and(|(named, host)| named.eq_ignore_ascii_case(host))
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;

    #[test]
    fn only_another_sites_page_is_turned_away() {
        for (headers, allowed) in [
            (&[][..], true),
            (&[("origin", "http://outboard.example:8080")], true),
            (&[("origin", "https://Outboard.example:8080")], true),
            (&[("sec-fetch-site", "same-origin"), ("origin", "http://outboard.example:8080")], true),
            (&[("sec-fetch-site", "none")], true),
            (&[("origin", "http://evil.example")], false),
            (&[("origin", "http://outboard.example")], false),
            (&[("origin", "null")], false),
            (&[("sec-fetch-site", "cross-site")], false),
            (&[("sec-fetch-site", "same-site"), ("origin", "http://outboard.example:8080")], false),
        ] {
            let mut request = TestRequest::post().insert_header(("host", "outboard.example:8080"));
            for header in headers {
                request = request.insert_header(*header);
            }
            assert_eq!(own_page(&request.to_http_request()).is_ok(), allowed, "{headers:?}");
        }
    }
}
