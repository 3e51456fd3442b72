//! TLS on the way to the servers.
//!
//! Promises: what cannot be used ends the start with setting, file and reason; files that change are used by new connections.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use rpc::{ClientTls, ClientTlsSettings, TlsChange};
use serde::{Deserialize, Serialize};
use tracing::{error, info};

/// The table `channel.tls`. Empty paths and names: none.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    /// Every connection to a server is made by TLS.
    pub(crate) enabled: bool,
    /// Authorities of the servers' certificates; else the system's.
    pub(crate) ca: PathBuf,
    /// What is shown to servers that ask for it.
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Whom the servers' certificates must be for; else the hosts named in `servers`.
    pub(crate) server_name: String,
}

/// What is told of the certificate.
#[derive(Clone, Debug, Default)]
pub(crate) struct Numbers {
    /// Unix time at which it ends.
    pub(crate) expiry: Gauge,
    pub(crate) errors: Counter,
}

fn named(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

impl Settings {
    /// Reads the files; `None` without TLS.
    ///
    /// # Errors
    /// One sentence that names the setting, and the file when it is at fault.
    pub(crate) fn open(&self) -> Result<Option<ClientTls>, String> {
        let Self { enabled, ca, certificate, key, server_name } = self;
        let ca = named(ca);
        let server_name = (!server_name.is_empty()).then(|| server_name.clone());
        let certificate = match (named(certificate), named(key)) {
            (Some(certificate), Some(key)) => Some((certificate, key)),
            (None, None) => None,
            (Some(_), None) => return Err("settings: `channel.tls.certificate` needs its `channel.tls.key`".to_owned()),
            (None, Some(_)) => return Err("settings: `channel.tls.key` needs its `channel.tls.certificate`".to_owned()),
        };
        let tls = ClientTlsSettings { ca, certificate, server_name };
        if *enabled {
            return ClientTls::new(tls).map(Some).map_err(|error| format!("settings: `channel.tls`: {error}"));
        }
        // Whoever names files must not go on without TLS for want of one word.
        if tls != ClientTlsSettings::default() {
            return Err("settings: `channel.tls` has values but not `enabled = true`".to_owned());
        }
        Ok(None)
    }
}

/// Follows the files, for ever.
pub(crate) async fn follow(tls: ClientTls, numbers: Arc<Numbers>) {
    let expires = |at: Option<SystemTime>| {
        let since = at.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        numbers.expiry.set(since.map_or(0, |since| since.as_secs() as i64));
        info!(expires_unix = since.map(|since| since.as_secs()), "TLS to the servers");
    };
    expires(tls.expires());
    let tell = |change| match change {
        TlsChange::Used { expires: at } => expires(at),
        TlsChange::Kept(error) => {
            numbers.errors.inc();
            error!(%error, "the changed files for TLS to the servers cannot be used, what was there before is");
        }
    };
    match tls.follow(tell).await {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_settings_is_refused_by_name() {
        assert!(Settings::default().open().is_ok_and(|tls| tls.is_none()));
        let on = || Settings { enabled: true, ca: "/nowhere/ca.pem".into(), ..Settings::default() };
        for (settings, says) in [
            (Settings { enabled: false, ..on() }, "settings: `channel.tls` has values but not `enabled = true`"),
            (on(), "settings: `channel.tls`: /nowhere/ca.pem: No such file or directory (os error 2)"),
            (
                Settings { certificate: "c.pem".into(), ..on() },
                "settings: `channel.tls.certificate` needs its `channel.tls.key`",
            ),
            (
                Settings { key: "c.key".into(), ..on() },
                "settings: `channel.tls.key` needs its `channel.tls.certificate`",
            ),
            (
                Settings { server_name: "a b".into(), ..on() },
                "settings: `channel.tls`: \"a b\" is neither a name nor an address that a certificate could be for",
            ),
        ] {
            assert_eq!(settings.open().expect_err(says), says);
        }
    }
}
