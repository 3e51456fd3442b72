//! Who may listen where.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use crate::keyring::Keyring;

/// What the setting `auth` says when everyone who can connect may ask.
const OPEN: &str = "open";

/// Refuses listeners, each with the key of its setting, that strangers can reach while nobody checks who calls, unless that was
/// written down in the setting `auth`. With a file of `keys` callers are checked.
///
/// # Errors
/// One sentence that names the setting and its value.
pub fn check(auth: &str, keys: &Path, listeners: &[(&str, SocketAddr)]) -> Result<(), String> {
    match auth {
        "" if keys.as_os_str().is_empty() => {}
        "" | OPEN => return Ok(()),
        other => return Err(format!("settings: `auth` is {other:?}, allowed is \"open\" or nothing")),
    }
    match listeners.iter().find(|(_, address)| !address.ip().is_loopback()) {
        None => Ok(()),
        Some((key, address)) => Err(format!(
            "settings: `{key}` is {address}, which others can reach, and callers are not checked: \
             listen on 127.0.0.1, or set auth = \"open\" to serve everyone who can connect; \
             a file of `keys` lets in only those who have one"
        )),
    }
}

/// The keys that the operator's listener asks for: those with the scope `admin`, where others can reach it and `auth` does not open it.
#[must_use]
pub fn operators(auth: &str, admin: SocketAddr, keyring: Option<&Arc<Keyring>>) -> Option<Arc<Keyring>> {
    keyring.filter(|_| auth != OPEN && !admin.ip().is_loopback()).map(Arc::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_word() {
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (four, six, street) = (at("127.0.0.1:1"), at("[::1]:1"), at("0.0.0.0:9091"));
        let none = Path::new("");
        assert_eq!(check("", none, &[("listen", four), ("admin", six)]), Ok(()));
        assert_eq!(check("open", none, &[("listen", street), ("admin", street)]), Ok(()));
        assert_eq!(check("", Path::new("keys.toml"), &[("listen", street), ("admin", street)]), Ok(()));
        for (listen, admin, key) in [(street, four, "listen"), (four, street, "admin")] {
            let refused = check("", none, &[("listen", listen), ("admin", admin)]).expect_err("anybody could call");
            assert!(refused.contains(&format!("`{key}` is 0.0.0.0:9091")), "{refused}");
            assert!(refused.contains("auth = \"open\"") && refused.contains("`keys`"), "{refused}");
        }
        for keys in [none, Path::new("keys.toml")] {
            let unknown = check("closed", keys, &[("listen", four)]).expect_err("no such word");
            assert!(unknown.contains("closed"), "{unknown}");
        }
    }

    #[test]
    fn the_operators_listener_asks_for_keys_where_others_reach_it() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("keys.toml");
        keys::change(&file, |_| Ok(())).expect("an empty file");
        let keyring = Keyring::open(&file).expect("a good file");
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let asks = |auth, admin| operators(auth, at(admin), keyring.as_ref()).is_some();
        assert!(asks("", "0.0.0.0:9091") && asks("", "[::]:9091"));
        assert!(!asks("open", "0.0.0.0:9091") && !asks("", "127.0.0.1:9091") && !asks("", "[::1]:9091"));
        assert!(operators("", at("0.0.0.0:9091"), None).is_none());
    }
}
