//! One request of OTLP over HTTP.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::header::{CONTENT_TYPE, HOST, USER_AGENT};
use hyper::{Request, StatusCode, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse};
use prost::Message as _;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// How long the collector may take for one request, connecting included: OpenTelemetry's own limit.
const PATIENCE: Duration = Duration::from_secs(10);

/// It answers with a few bytes, and a sentence when something is wrong.
const ANSWER: usize = 64 << 10;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Why spans were not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A moment later they may be.
    #[error("{0}")]
    ForNow(String),
    /// They never will be.
    #[error("{0}")]
    ForGood(String),
}

pub(super) struct Collector {
    address: Uri,
}

impl Collector {
    pub(super) fn new(address: Uri) -> Self {
        Self { address }
    }

    /// Sends spans; how many of them the collector threw away.
    pub(super) async fn take(&self, request: &ExportTraceServiceRequest) -> Result<u64, Refused> {
        let asked = tokio::time::timeout(PATIENCE, self.ask(request.encode_to_vec().into())).await;
        let (status, body) = match asked {
            Err(_) => return Err(Refused::ForNow(format!("no answer from {} in {PATIENCE:?}", self.address))),
            Ok(Err(error)) => return Err(Refused::ForNow(format!("{}: {error}", self.address))),
            Ok(Ok(answer)) => answer,
        };
        if status.is_success() {
            // A collector that answers something else has taken them all the same.
            let answer = ExportTraceServiceResponse::decode(body).unwrap_or_default();
            let rejected = answer.partial_success.map_or(0, |partial| partial.rejected_spans);
            return Ok(u64::try_from(rejected).unwrap_or_default());
        }
        let said = format!("{} answered {status}", self.address);
        // The list is the protocol's.
        Err(match status {
            StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT => Refused::ForNow(said),
            _ => Refused::ForGood(said),
        })
    }

    /// On a connection of its own: a request a second is not worth one that is kept.
    async fn ask(&self, body: Bytes) -> Result<(StatusCode, Bytes), Failure> {
        let authority = self.address.authority().ok_or("it has no host")?;
        let host = authority.host().trim_matches(['[', ']']);
        let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let request = Request::post(self.address.path_and_query().map_or("/", |path| path.as_str()))
            .header(HOST, authority.as_str())
            .header(CONTENT_TYPE, "application/x-protobuf")
            .header(USER_AGENT, concat!("OTel-OTLP-Exporter-Outboard/", env!("CARGO_PKG_VERSION")))
            .body(Full::new(body))?;
        // Ended when this is dropped.
        let mut connections = JoinSet::new();
        connections.spawn(connection);
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
        Ok((head.status, body))
    }
}
