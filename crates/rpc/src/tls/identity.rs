//! Who a certificate says that a peer is.
//!
//! The first of: a URI among its alternative names (SPIFFE's form of a service), a DNS name among them, its common name.
//! The three cannot be mistaken for each other, nor for an address without a certificate: a URI begins with
//! its scheme and a colon, a DNS name has no colon, a common name is written with `CN=` before it.

use tokio_rustls::rustls::pki_types::CertificateDer;
use units::CallerId;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;

/// Longer names would only fill logs.
const LONGEST: usize = 256;

/// # Errors
/// In words, why nobody can be named by it.
pub(crate) fn identity(certificate: &CertificateDer<'_>) -> Result<CallerId, String> {
    let (_, parsed) = X509Certificate::from_der(certificate).map_err(|error| unreadable(&error))?;
    let name = name(&parsed)?;
    if name.len() > LONGEST {
        return Err(format!("the client certificate's name has {} bytes, limit is {LONGEST} bytes", name.len()));
    }
    // Names stand in log lines, and between spaces.
    if name.chars().any(|c| c.is_whitespace() || c.is_control() || is_unseen(c)) {
        return Err(format!("the client certificate's name {name:?} has a space or a control character"));
    }
    Ok(CallerId::verified(&name))
}

fn name(certificate: &X509Certificate<'_>) -> Result<String, String> {
    let alternatives = certificate.subject_alternative_name().map_err(|error| unreadable(&error))?;
    let names = alternatives.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let uri = names.iter().find_map(|name| match name {
        GeneralName::URI(uri) if has_scheme(uri) => Some(*uri),
        _ => None,
    });
    let dns = names.iter().find_map(|name| match name {
        GeneralName::DNSName(dns) if !dns.contains([':', '=', '@']) => Some(*dns),
        _ => None,
    });
    if let Some(name) = uri.or(dns).filter(|name| !name.is_empty()) {
        return Ok(name.to_owned());
    }
    let common = certificate.subject().iter_common_name().find_map(|name| name.as_str().ok());
    // People's names have spaces.
    let common = common.map(|name| name.replace('%', "%25").replace(' ', "%20")).filter(|name| !name.is_empty());
    common.map(|name| format!("CN={name}")).ok_or_else(|| {
        "the client certificate names nobody: it has neither a URI nor a DNS name among its alternative names, nor a common name"
            .to_owned()
    })
}

/// By RFC 3986: letters, digits and `+-.` up to a colon, so neither `=` nor `@`, which other names have there.
fn has_scheme(uri: &str) -> bool {
    uri.split_once(':').is_some_and(|(scheme, _)| {
        scheme.starts_with(|c: char| c.is_ascii_alphabetic())
            && scheme.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.'))
    })
}

/// Characters that show nothing themselves and change what stands around them, such as the direction of a line.
fn is_unseen(c: char) -> bool {
    matches!(c,
        '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
        | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

fn unreadable(error: &dyn std::fmt::Display) -> String {
    format!("the client certificate cannot be read: {error}")
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn named(uri: &[&str], dns: &[&str], common: &str) -> Result<String, String> {
        let mut params = CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        if !common.is_empty() {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        // As they come from authorities: the DNS names first.
        let text = |text: &&str| (*text).try_into().expect("ASCII");
        params.subject_alt_names.extend(dns.iter().map(|name| SanType::DnsName(text(name))));
        params.subject_alt_names.extend(uri.iter().map(|name| SanType::URI(text(name))));
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        identity(certificate.der()).map(|caller| caller.to_string())
    }

    #[test]
    fn a_uri_goes_before_a_dns_name_before_a_common_name() {
        let spiffe = "spiffe://example.org/gateway";
        assert_eq!(named(&[spiffe], &["gateway.internal"], "gateway").as_deref(), Ok(spiffe));
        assert_eq!(named(&[], &["gateway.internal", "other"], "gateway").as_deref(), Ok("gateway.internal"));
        assert_eq!(named(&[], &[], "gateway").as_deref(), Ok("CN=gateway"));
        assert_eq!(named(&[], &[], "Ann B. 100%").as_deref(), Ok("CN=Ann%20B.%20100%25"));
    }

    #[test]
    fn a_name_of_one_kind_cannot_be_taken_for_one_of_another() {
        assert_eq!(named(&[], &[], "spiffe://example.org/admin").as_deref(), Ok("CN=spiffe://example.org/admin"));
        assert_eq!(named(&[], &["anonymous@10.0.0.1"], "x").as_deref(), Ok("CN=x"));
        assert_eq!(named(&[], &["CN=boss"], "x").as_deref(), Ok("CN=x"));
        for uri in ["gateway.internal", "CN=a:b", "anonymous@::1", ":x", "1a:x"] {
            assert_eq!(named(&[uri], &[], "x").as_deref(), Ok("CN=x"), "{uri}");
        }
        assert_eq!(named(&["urn:example:a@b=c"], &[], "x").as_deref(), Ok("urn:example:a@b=c"));
    }

    #[test]
    fn who_is_not_named_or_not_in_a_line_is_nobody() {
        assert!(named(&[], &[], "").is_err_and(|error| error.contains("names nobody")));
        assert!(named(&["spiffe://a b"], &[], "").is_err_and(|error| error.contains("a space")));
        assert!(named(&[], &[], "line\nbreak").is_err_and(|error| error.contains("control character")));
        assert!(named(&[], &[], "right\u{202e}left").is_err_and(|error| error.contains("control character")));
        assert!(named(&[], &[], &"n".repeat(300)).is_err_and(|error| error.contains("303 bytes")));
    }
}
