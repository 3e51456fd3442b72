//! The operator's listener: metrics, and health by HTTP. Nothing else, and not for the street.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tracing::debug;

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
}

/// Listens on `address` and serves until the process ends.
///
/// # Errors
/// That of `bind`, naming the address.
pub async fn start(address: SocketAddr, pages: Pages) -> Result<SocketAddr, String> {
    let listener =
        TcpListener::bind(address).await.map_err(|error| format!("cannot listen on {address} (`admin`): {error}"))?;
    let bound = listener.local_addr().map_err(|error| error.to_string())?;
    tokio::spawn(async move {
        loop {
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
                http.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10));
                if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
                    debug!(%error, "admin connection");
                }
            });
        }
    });
    Ok(bound)
}

fn answer(pages: &Pages, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let text = "text/plain; charset=utf-8";
    let health = |health: &Health| {
        let (well, sentence) = health();
        (if well { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE }, text, format!("{sentence}\n"))
    };
    let (status, kind, body) = match (request.method(), request.uri().path()) {
        (&Method::GET, "/metrics") => {
            (StatusCode::OK, "application/openmetrics-text; version=1.0.0; charset=utf-8", pages.metrics.page())
        }
        (&Method::GET, "/health/ready") => health(&pages.ready),
        (&Method::GET, "/health/live") => health(&pages.live),
        (&Method::GET, _) => {
            (StatusCode::NOT_FOUND, text, "there are /metrics, /health/ready and /health/live\n".to_owned())
        }
        _ => (StatusCode::METHOD_NOT_ALLOWED, text, "only GET\n".to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(kind));
    response
}
