//! What an error of TLS means, in one sentence for the one who has to mend it.

use std::io;
use std::time::{Duration, UNIX_EPOCH};

use tokio_rustls::rustls::pki_types::UnixTime;
use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, InvalidMessage};

use crate::HandshakeFailure;
use crate::link::CLOSED;

/// What ended a connection, in words; "it" is the other side.
pub(crate) fn reason(error: &io::Error) -> String {
    match (tls(error), error.kind()) {
        (Some(error), _) => words(error),
        (None, io::ErrorKind::UnexpectedEof) => CLOSED.to_owned(),
        (None, _) => error.to_string(),
    }
}

/// Why a handshake failed, as it is counted.
pub(crate) fn failure(error: &io::Error) -> HandshakeFailure {
    match tls(error) {
        Some(Error::NoCertificatesPresented) => HandshakeFailure::NoCertificate,
        Some(Error::InvalidCertificate(_)) => HandshakeFailure::Certificate,
        Some(Error::AlertReceived(_)) => HandshakeFailure::Refused,
        Some(_) => HandshakeFailure::Protocol,
        None => HandshakeFailure::Left,
    }
}

fn tls(error: &io::Error) -> Option<&Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref::<Error>())
}

fn words(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::NoCertificatesPresented => "it shows no certificate, which is required here".to_owned(),
        Error::AlertReceived(alert) => refused(*alert),
        Error::InvalidMessage(InvalidMessage::InvalidContentType) => "what it speaks is not TLS".to_owned(),
        other => other.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "its certificate is of an issuer that is not trusted here".to_owned(),
        CertificateError::NotValidForNameContext { expected, presented } => {
            let names = if presented.is_empty() { "no name".to_owned() } else { presented.join(", ") };
            format!("its certificate is for {names}, not for {}", expected.to_str())
        }
        CertificateError::ExpiredContext { not_after, .. } => {
            format!("its certificate has expired at {}", time(*not_after))
        }
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is not valid before {}", time(*not_before))
        }
        CertificateError::InvalidPurposeContext { required, presented } => {
            let presented: Vec<_> = presented.iter().map(ToString::to_string).collect();
            format!("its certificate is for {}, not for {required} (extendedKeyUsage)", presented.join(", "))
        }
        CertificateError::BadSignature => "its certificate's signature is wrong".to_owned(),
        other => format!("its certificate cannot be used: {other}"),
    }
}

fn refused(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => "it wants a client certificate".to_owned(),
        AlertDescription::UnknownCA => "it does not trust the issuer of this side's certificate".to_owned(),
        AlertDescription::CertificateExpired => "it says that this side's certificate has expired".to_owned(),
        AlertDescription::UnsupportedCertificate => {
            "it says that this side's certificate is for another purpose (extendedKeyUsage)".to_owned()
        }
        AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => {
            format!("it does not accept this side's certificate ({alert:?})")
        }
        AlertDescription::ProtocolVersion => "it speaks no version of TLS that is spoken here".to_owned(),
        AlertDescription::HandshakeFailure => {
            "it ended the handshake: it speaks no TLS, or has nothing in common with this side".to_owned()
        }
        other => format!("it ended the connection ({other:?})"),
    }
}

fn time(at: UnixTime) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(at.as_secs())).to_string()
}
