//! Certificates, keys and roots, as they lie in files.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::RootCertStore;
use tokio_rustls::rustls::pki_types::pem::{Error as PemError, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use x509_parser::certificate::X509Certificate;
use x509_parser::prelude::FromDer;

/// Why files cannot be used for TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// It cannot be read.
    #[error("{}: {error}", file.display())]
    Read {
        /// Which.
        file: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// It holds something else.
    #[error("{}: {reason}", file.display())]
    Unusable {
        /// Which.
        file: PathBuf,
        /// In words.
        reason: String,
    },
    /// Certificate and key do not belong together, or cannot be used with each other.
    #[error("{}: is not the key of the certificate in {}{reason}", key.display(), certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// More, when there is more to say.
        reason: String,
    },
    /// No file of roots was named, and the system has none.
    #[error("no certificate authority is named, and the system's could not be found: {0}")]
    NoSystemRoots(String),
    /// It is no name that a certificate could be for.
    #[error("{0:?} is neither a name nor an address that a certificate could be for")]
    ServerName(String),
}

impl TlsError {
    pub(super) fn unusable(file: &Path, reason: impl ToString) -> Self {
        Self::Unusable { file: file.to_owned(), reason: reason.to_string() }
    }
}

fn read(file: &Path) -> Result<Vec<u8>, TlsError> {
    fs::read(file).map_err(|error| TlsError::Read { file: file.to_owned(), error })
}

/// A chain, the owner's certificate first, and when the first of it ends.
pub(super) struct Chain {
    pub(super) certificates: Vec<CertificateDer<'static>>,
    pub(super) expires: SystemTime,
}

pub(super) fn chain(file: &Path) -> Result<Chain, TlsError> {
    let certificates = certificates(file)?;
    let mut expires = None;
    for certificate in &certificates {
        let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| TlsError::unusable(file, error))?;
        let end = UNIX_EPOCH + Duration::from_secs(parsed.validity().not_after.timestamp().max(0).unsigned_abs());
        expires = Some(expires.map_or(end, |earliest: SystemTime| earliest.min(end)));
    }
    let expires = expires.ok_or_else(|| TlsError::unusable(file, "holds no certificate in PEM"))?;
    Ok(Chain { certificates, expires })
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let text = read(file)?;
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let all = all.map_err(|error| TlsError::unusable(file, format!("is no PEM: {error}")))?;
    if all.is_empty() {
        return Err(TlsError::unusable(file, "holds no certificate in PEM"));
    }
    Ok(all)
}

pub(super) fn key(file: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        PemError::NoItemsFound if text.windows(9).any(|part| part == b"ENCRYPTED") => {
            TlsError::unusable(file, "holds a private key with a password, which nobody could type at a restart")
        }
        PemError::NoItemsFound => TlsError::unusable(file, "holds no private key in PEM"),
        other => TlsError::unusable(file, format!("is no PEM: {other}")),
    })
}

pub(super) fn roots(file: &Path) -> Result<Arc<RootCertStore>, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| TlsError::unusable(file, error))?;
    }
    Ok(Arc::new(roots))
}

pub(super) fn system_roots() -> Result<Arc<RootCertStore>, TlsError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    // Systems ship some that are too old to be read, which nobody needs.
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let why = found.errors.first().map_or_else(|| "there is none".to_owned(), ToString::to_string);
        return Err(TlsError::NoSystemRoots(why));
    }
    Ok(Arc::new(roots))
}
