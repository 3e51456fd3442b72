//! The client's side.

use std::convert::Infallible;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use followed::{Followed, Source};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::client::Resumption;
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ALL_VERSIONS, ClientConfig, Error};

use super::server::mismatch;
use super::{TlsChange, TlsError, pem, provider, reason};

/// Whom a client trusts, and what it shows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientTlsSettings {
    /// Certificates in PEM, one of which must have issued the server's; `None`: the system's.
    pub ca: Option<PathBuf>,
    /// What is shown when the server asks: the files of a chain and of its key, in PEM.
    pub certificate: Option<(PathBuf, PathBuf)>,
    /// Whom the server's certificate must be for; `None`: the host of its endpoint.
    pub server_name: Option<String>,
}

/// What a client needs for TLS. Clones are the same.
#[derive(Clone)]
pub struct ClientTls(Arc<Followed<ClientTlsSettings>>);

/// What was made of the files; to others it has neither name nor fields.
pub struct Made {
    config: Arc<ClientConfig>,
    expires: Option<SystemTime>,
}

impl Made {
    pub(super) fn connector(&self) -> TlsConnector {
        TlsConnector::from(Arc::clone(&self.config))
    }
}

impl ClientTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub fn new(settings: ClientTlsSettings) -> Result<Self, TlsError> {
        if let Some(name) = &settings.server_name {
            server_name(name).map_err(|_| TlsError::ServerName(name.clone()))?;
        }
        Followed::new(settings).map(|followed| Self(Arc::new(followed)))
    }

    /// When this side's certificate ends, or one of its chain; `None` when it has none.
    #[must_use]
    pub fn expires(&self) -> Option<SystemTime> {
        self.0.now().expires
    }

    /// Follows the files, for ever, and tells of every change. Without it what was there at first is used.
    pub async fn follow(self, mut tell: impl FnMut(TlsChange)) -> Infallible {
        self.0.follow(|read| tell(TlsChange::of(read.map(|made| made.expires)))).await
    }

    /// Shakes hands with the server at `host`.
    pub(crate) async fn connect(&self, stream: TcpStream, host: &str) -> io::Result<TlsStream<TcpStream>> {
        let name = self.0.source().server_name.as_deref().unwrap_or(host);
        let name = server_name(name)
            .map_err(|_| io::Error::new(io::ErrorKind::InvalidInput, TlsError::ServerName(name.to_owned())))?;
        self.0
            .now()
            .connector()
            .connect(name, stream)
            .await
            .map_err(|error| io::Error::new(error.kind(), reason(&error)))
    }
}

fn server_name(text: &str) -> Result<ServerName<'static>, ()> {
    ServerName::try_from(text.to_owned()).map_err(|_| ())
}

impl fmt::Debug for ClientTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ClientTls").field(self.0.source()).finish()
    }
}

impl Source for ClientTlsSettings {
    type Made = Made;
    type Error = TlsError;

    fn files(&self) -> Vec<&Path> {
        let (certificate, key) = self.certificate.as_ref().map(|(certificate, key)| (certificate, key)).unzip();
        [self.ca.as_ref(), certificate, key].into_iter().flatten().map(PathBuf::as_path).collect()
    }

    fn make(&self) -> Result<Made, TlsError> {
        let roots = match &self.ca {
            Some(file) => pem::roots(file)?,
            None => pem::system_roots()?,
        };
        let builder = ClientConfig::builder_with_provider(provider())
            .with_protocol_versions(ALL_VERSIONS)
            .expect("ring speaks every version")
            .with_root_certificates(roots);
        let (mut config, expires) = match &self.certificate {
            None => (builder.with_no_client_auth(), None),
            Some((certificate, key)) => {
                let chain = pem::chain(certificate)?;
                let config = builder.with_client_auth_cert(chain.certificates, pem::key(key)?);
                (config.map_err(|error: Error| mismatch(certificate, key, &error))?, Some(chain.expires))
            }
        };
        config.resumption = Resumption::disabled();
        Ok(Made { config: Arc::new(config), expires })
    }
}
