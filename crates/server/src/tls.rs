//! What the settings say of TLS.

use std::path::{Path, PathBuf};

use rpc::{ServerTls, ServerTlsSettings};
use serde::{Deserialize, Serialize};

/// The certificate that callers are shown, and theirs. Empty paths: none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Tls {
    pub(crate) certificate: PathBuf,
    pub(crate) key: PathBuf,
    /// Callers must show a certificate that one of these has issued.
    pub(crate) client_ca: PathBuf,
    /// `1.2` or `1.3`.
    pub(crate) min_version: String,
}

impl Default for Tls {
    fn default() -> Self {
        let none = PathBuf::new;
        Self { certificate: none(), key: none(), client_ca: none(), min_version: "1.2".to_owned() }
    }
}

fn named(path: &Path) -> Option<PathBuf> {
    (!path.as_os_str().is_empty()).then(|| path.to_owned())
}

impl Tls {
    /// Reads the files; `None` when none is named.
    ///
    /// # Errors
    /// One sentence that names the setting, and the file when it is at fault.
    pub(crate) fn open(&self) -> Result<Option<ServerTls>, String> {
        let min_version = self.min_version.parse().map_err(|error| format!("settings: `tls.min_version`: {error}"))?;
        let client_ca = named(&self.client_ca);
        let (certificate, key) = match (named(&self.certificate), named(&self.key), &client_ca) {
            (Some(certificate), Some(key), _) => (certificate, key),
            (None, None, None) => return Ok(None),
            (Some(_), None, _) => return Err("settings: `tls.certificate` needs its `tls.key`".to_owned()),
            (None, Some(_), _) => return Err("settings: `tls.key` needs its `tls.certificate`".to_owned()),
            (None, None, Some(_)) => {
                return Err("settings: `tls.client_ca` needs `tls.certificate` and `tls.key`".to_owned());
            }
        };
        let tls = ServerTls::new(ServerTlsSettings { certificate, key, client_ca, min_version });
        tls.map(Some).map_err(|error| format!("settings: `tls`: {error}"))
    }

    /// Whether every caller proves who it is.
    pub(crate) fn is_mutual(&self) -> bool {
        named(&self.client_ca).is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn half_of_the_settings_is_refused_by_name() {
        let path = || PathBuf::from("/nowhere/file.pem");
        let none = Tls::default;
        assert!(none().open().is_ok_and(|tls| tls.is_none()));
        for (tls, says) in [
            (Tls { certificate: path(), ..none() }, "settings: `tls.certificate` needs its `tls.key`"),
            (Tls { key: path(), ..none() }, "settings: `tls.key` needs its `tls.certificate`"),
            (Tls { client_ca: path(), ..none() }, "settings: `tls.client_ca` needs `tls.certificate` and `tls.key`"),
            (
                Tls { min_version: "1.1".to_owned(), ..none() },
                "settings: `tls.min_version`: version of TLS is \"1.1\", allowed is \"1.2\" or \"1.3\"",
            ),
            (
                Tls { certificate: path(), key: path(), ..none() },
                "settings: `tls`: /nowhere/file.pem: No such file or directory (os error 2)",
            ),
        ] {
            assert_eq!(tls.open().expect_err(says), says);
        }
    }
}
