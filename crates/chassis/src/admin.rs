//! The operator's listener: metrics, and health by HTTP. Nothing else, and not for the street.
//!
//! Health is told to everyone who can connect, because orchestrators have no keys; metrics need one where keys are asked for.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::{ALLOW, AUTHORIZATION, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use keys::{Refusal, Scope};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tracing::debug;

use crate::keyring::Keyring;
use crate::metrics::Metrics;

/// What a health page says: whether it is well, and one sentence.
pub type Health = Arc<dyn Fn() -> (bool, String) + Send + Sync>;

/// What the listener shows.
#[derive(Clone)]
pub struct Pages {
    /// `/metrics`.
    pub metrics: Metrics,
    /// `/health/ready`.
    pub ready: Health,
    /// `/health/live`.
    pub live: Health,
    /// Metrics need a key of these with the scope `admin`; `None` asks nobody.
    pub keys: Option<Arc<Keyring>>,
}

/// Connections at the same time. Metrics and probes are a handful; one more waits for one of these to end.
const CONNECTIONS: usize = 64;

/// One connection brings one request, and both are over after this: peers that say nothing, or take nothing, cannot keep
/// the listener from others.
const EXCHANGE: Duration = Duration::from_secs(10);

/// What every page is asked for with.
const ALLOWED: &str = "GET, HEAD";

/// Listens on `address` and serves until the process ends.
///
/// # Errors
/// That of `bind`, naming the address.
pub async fn start(address: SocketAddr, pages: Pages) -> Result<SocketAddr, String> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address} (`admin`): {error}"))?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    tokio::spawn(serve(listener, pages, CONNECTIONS, EXCHANGE));
    Ok(bound)
}

async fn serve(listener: TcpListener, pages: Pages, connections: usize, exchange: Duration) {
    let places = Arc::new(Semaphore::new(connections));
    loop {
        let place = Arc::clone(&places).acquire_owned().await.expect("the semaphore is never closed");
        let Ok((stream, _)) = listener.accept().await else {
            // For want of files: a pause, or the loop spins.
            tokio::time::sleep(Duration::from_millis(100)).await;
            continue;
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let answer = answer(&pages, &request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let mut http = http1::Builder::new();
            // Hyper's own limit on the head; the one below is on everything.
            http.keep_alive(false).timer(TokioTimer::new()).header_read_timeout(exchange);
            match tokio::time::timeout(exchange, http.serve_connection(TokioIo::new(stream), service)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => debug!(%error, "admin connection"),
                Err(_) => debug!("admin connection took too long"),
            }
            drop(place);
        });
    }
}

fn answer(pages: &Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let health = |health: &Health| {
        let (well, sentence) = health();
        (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text, format!("{sentence}\n"))
    };
    // An answer to HEAD is the same; hyper leaves its body out.
    let allowed = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, body) = match request.uri().path() {
        _ if !allowed => (StatusCode::METHOD_NOT_ALLOWED, text, format!("only {ALLOWED}\n")),
        "/metrics" => match refusal(pages, request) {
            Some((status, why)) => (status, text, format!("{why}\n")),
            None => {
                (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", pages.metrics.page())
            }
        },
        "/health/ready" => health(&pages.ready),
        "/health/live" => health(&pages.live),
        _ => (StatusCode::NOT_FOUND, text, "there are /metrics, /health/ready and /health/live\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    if status == StatusCode::UNAUTHORIZED {
        response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"outboard\""));
    }
    if !allowed {
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(ALLOWED));
    }
    response
}

/// Why a request may not see the metrics.
fn refusal(pages: &Pages, request: &Request<Incoming>) -> Option<(StatusCode, String)> {
    let keyring = pages.keys.as_ref()?;
    let header = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let sent =
        header.and_then(|value| value.split_once(' ')).filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    let Some((_, key)) = sent else {
        let message = "a key for admin is needed here, as `Authorization: Bearer KEY`";
        return Some((StatusCode::UNAUTHORIZED, message.to_owned()));
    };
    let refused = keyring.keys().admit(key.trim(), Some(Scope::Admin), SystemTime::now()).err()?;
    let status = match refused {
        Refusal::Scope { .. } => StatusCode::FORBIDDEN,
        Refusal::Malformed(_) | Refusal::Unknown | Refusal::Expired { .. } => StatusCode::UNAUTHORIZED,
    };
    Some((status, refused.to_string()))
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    use super::*;

    fn pages() -> Pages {
        Pages {
            metrics: Metrics::new("test", "1"),
            ready: Arc::new(|| (false, "model x is loading".to_owned())),
            live: Arc::new(|| (true, "live".to_owned())),
            keys: None,
        }
    }

    async fn ask(address: SocketAddr, line: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("listens");
        stream.write_all(format!("{line} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()).await.expect("is read");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer, then the end");
        answer
    }

    #[tokio::test]
    async fn each_page_has_its_status_and_says_why() {
        let address = start(SocketAddr::from(([127, 0, 0, 1], 0)), pages()).await.expect("a free port");
        for (line, status, says) in [
            ("GET /metrics", "200", "outboard_build_info"),
            ("GET /health/ready?x=y", "503", "model x is loading"),
            ("GET /health/live", "200", "live"),
            ("GET /", "404", "/metrics"),
            ("POST /metrics", "405", "only GET, HEAD"),
        ] {
            let answer = ask(address, line).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(says), "{line}: {answer}");
        }
    }

    #[tokio::test]
    async fn head_is_answered_like_get_without_the_body_and_other_methods_are_told_so() {
        let address = start(SocketAddr::from(([127, 0, 0, 1], 0)), pages()).await.expect("a free port");
        let head = ask(address, "HEAD /health/ready").await;
        assert!(head.starts_with("HTTP/1.1 503 ") && head.ends_with("\r\n\r\n"), "{head}");
        let other = ask(address, "DELETE /metrics").await;
        assert!(other.to_lowercase().contains("\r\nallow: get, head\r\n"), "{other}");
    }

    #[tokio::test]
    async fn metrics_are_for_keys_with_the_scope_admin_where_keys_are_asked_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.toml");
        let new = |name: &str, scope| {
            let secret = keys::Secret::generate().expect("random numbers");
            let added =
                keys::change(&file, |keys| keys.add(name, &secret, [scope].into(), SystemTime::UNIX_EPOCH, None));
            added.expect("a good name");
            secret.expose().to_owned()
        };
        let (prometheus, ann) = (new("prometheus", Scope::Admin), new("ann", Scope::Infer));
        let unknown = keys::Secret::generate().expect("random numbers");
        let keys = Keyring::open(&file).expect("a good file");
        let pages = Pages { keys, ..pages() };
        let address = start(SocketAddr::from(([127, 0, 0, 1], 0)), pages).await.expect("a free port");
        for (sent, status, says) in [
            (format!("Bearer {prometheus}"), "200", "outboard_build_info"),
            (format!("bearer  {prometheus}"), "200", "outboard_build_info"),
            (format!("Bearer {ann}"), "403", "the key `ann` is not for admin, it is for infer"),
            (format!("Bearer {}", unknown.expose()), "401", "not known here"),
            ("Bearer 123".to_owned(), "401", "no key of Outboard"),
            (format!("Basic {prometheus}"), "401", "as `Authorization: Bearer KEY`"),
        ] {
            let line = format!("GET /metrics HTTP/1.1\r\nauthorization: {sent}\r\nx-rest:");
            let answer = ask(address, &line).await;
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")) && answer.contains(says), "{sent}: {answer}");
            let challenged = answer.to_lowercase().contains("www-authenticate: bearer");
            assert_eq!(challenged, status == "401", "{answer}");
        }
        let none = ask(address, "GET /metrics").await;
        assert!(none.starts_with("HTTP/1.1 401 ") && !none.contains("outboard_build_info"), "{none}");
        for page in ["/health/live", "/health/ready"] {
            assert!(!ask(address, &format!("GET {page}")).await.starts_with("HTTP/1.1 401 "), "{page}");
        }
    }

    #[tokio::test]
    async fn peers_that_say_nothing_do_not_keep_others_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        tokio::spawn(serve(listener, pages(), 2, Duration::from_millis(50)));
        let mut silent = Vec::new();
        for _ in 0..6 {
            silent.push(TcpStream::connect(address).await.expect("listens"));
        }
        assert!(ask(address, "GET /health/live").await.contains("live"));
    }

    #[tokio::test]
    async fn a_taken_port_names_the_address_and_the_setting() {
        let holder = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = holder.local_addr().expect("bound");
        let error = start(address, pages()).await.expect_err("taken");
        assert!(error.contains(&address.to_string()) && error.contains("`admin`"), "{error}");
    }
}
