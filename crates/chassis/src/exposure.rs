//! Who may listen where.

use std::net::SocketAddr;

/// Refuses a listener that strangers can reach while nobody checks who calls, unless that was written down.
///
/// # Errors
/// One sentence that names the setting (`key`) and the address.
pub fn check(key: &str, address: SocketAddr, auth: Option<&str>) -> Result<(), String> {
    match auth {
        Some("open") => Ok(()),
        Some(other) => Err(format!("settings: `auth` is {other:?}, allowed is \"open\"")),
        None if address.ip().is_loopback() => Ok(()),
        None => Err(format!(
            "settings: `{key}` is {address}, which others can reach, and callers are not checked: \
             listen on 127.0.0.1, or set auth = \"open\" to serve everyone who can connect"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_needs_no_word() {
        let at = |text: &str| text.parse().expect("an address");
        let check = |address: SocketAddr, auth| check("admin", address, auth);
        assert_eq!(check(at("127.0.0.1:1"), None), Ok(()));
        assert_eq!(check(at("[::1]:1"), None), Ok(()));
        assert_eq!(check(at("0.0.0.0:1"), Some("open")), Ok(()));
        let refused = check(at("0.0.0.0:9090"), None).expect_err("anybody could call");
        assert!(refused.contains("`admin` is 0.0.0.0:9090") && refused.contains("auth = \"open\""), "{refused}");
        assert!(check(at("127.0.0.1:1"), Some("closed")).is_err());
    }
}
