//! The server's side.

use std::convert::Infallible;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;
use std::time::SystemTime;

use followed::{Followed, Source};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::{ALL_VERSIONS, Error, ServerConfig, SupportedProtocolVersion, version::TLS13};

use super::{TlsChange, TlsError, pem, provider};

const ONLY_13: &[&SupportedProtocolVersion] = &[&TLS13];

/// The lowest version that is spoken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TlsVersion {
    /// 1.2, and 1.3 with who can.
    #[default]
    Tls12,
    /// 1.3 alone.
    Tls13,
}

/// A text that is no version of TLS.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("version of TLS is {0:?}, allowed is \"1.2\" or \"1.3\"")]
pub struct UnknownVersion(String);

impl FromStr for TlsVersion {
    type Err = UnknownVersion;

    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        match text {
            "1.2" => Ok(Self::Tls12),
            "1.3" => Ok(Self::Tls13),
            other => Err(UnknownVersion(other.to_owned())),
        }
    }
}

impl TlsVersion {
    fn and_later(self) -> &'static [&'static SupportedProtocolVersion] {
        match self {
            Self::Tls12 => ALL_VERSIONS,
            Self::Tls13 => ONLY_13,
        }
    }
}

/// What a server shows, and what it asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServerTlsSettings {
    /// Its certificate in PEM, and those up to the root's behind it.
    pub certificate: PathBuf,
    /// The key of the first of them, in PEM.
    pub key: PathBuf,
    /// Mutual: each client must show a certificate that one of these has issued.
    pub client_ca: Option<PathBuf>,
    /// The lowest version.
    pub min_version: TlsVersion,
}

/// A server's certificate, key and demands. Clones are the same.
#[derive(Clone)]
pub struct ServerTls(Arc<Followed<ServerTlsSettings>>);

/// What was made of the files; to others it has neither name nor fields.
pub struct Made {
    config: Arc<ServerConfig>,
    expires: SystemTime,
}

impl ServerTls {
    /// Reads the files.
    ///
    /// # Errors
    /// Which of them cannot be used, and why.
    pub fn new(settings: ServerTlsSettings) -> Result<Self, TlsError> {
        Followed::new(settings).map(|followed| Self(Arc::new(followed)))
    }

    /// Whether clients must show a certificate.
    #[must_use]
    pub fn is_mutual(&self) -> bool {
        self.0.source().client_ca.is_some()
    }

    /// When the certificate in use ends, or one of its chain.
    #[must_use]
    pub fn expires(&self) -> SystemTime {
        self.0.now().expires
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.now().config))
    }

    pub(crate) async fn follow(self, mut tell: impl FnMut(TlsChange)) -> Infallible {
        self.0.follow(|read| tell(TlsChange::of(read.map(|made| Some(made.expires))))).await
    }
}

impl fmt::Debug for ServerTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ServerTls").field(self.0.source()).finish()
    }
}

impl Source for ServerTlsSettings {
    type Made = Made;
    type Error = TlsError;

    fn files(&self) -> Vec<&Path> {
        [Some(&self.certificate), Some(&self.key), self.client_ca.as_ref()]
            .into_iter()
            .flatten()
            .map(PathBuf::as_path)
            .collect()
    }

    fn make(&self) -> Result<Made, TlsError> {
        let chain = pem::chain(&self.certificate)?;
        let key = pem::key(&self.key)?;
        let unusable = |error: Error| TlsError::unusable(&self.certificate, error);
        let builder = ServerConfig::builder_with_provider(provider())
            .with_protocol_versions(self.min_version.and_later())
            .map_err(unusable)?;
        let builder = match &self.client_ca {
            None => builder.with_no_client_auth(),
            Some(file) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(pem::roots(file)?, provider()).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| TlsError::unusable(file, error))?)
            }
        };
        let config = builder.with_single_cert(chain.certificates, key);
        let mut config = config.map_err(|error| mismatch(&self.certificate, &self.key, &error))?;
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(Made { config: Arc::new(config), expires: chain.expires })
    }
}

/// What it means that a certificate and a key were not taken together.
pub(super) fn mismatch(certificate: &Path, key: &Path, error: &Error) -> TlsError {
    let reason = match error {
        Error::InconsistentKeys(_) => String::new(),
        other => format!(": {other}"),
    };
    TlsError::Mismatch { certificate: certificate.to_owned(), key: key.to_owned(), reason }
}
