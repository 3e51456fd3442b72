//! Who may listen where.

use std::net::SocketAddr;

/// Refuses listeners, each with the key of its setting, that strangers can reach while nobody checks who calls, unless that was
/// written down in the setting `auth`.
///
/// # Errors
/// One sentence that names the setting and its value.
pub fn check(auth: &str, listeners: &[(&str, SocketAddr)]) -> Result<(), String> {
    match auth {
        "" => {}
        "open" => return Ok(()),
        other => return Err(format!("settings: `auth` is {other:?}, allowed is \"open\" or nothing")),
    }
    match listeners.iter().find(|(_, address)| !address.ip().is_loopback()) {
        None => Ok(()),
        Some((key, address)) => Err(format!(
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
        let at = |text: &str| text.parse::<SocketAddr>().expect("an address");
        let (four, six, street) = (at("127.0.0.1:1"), at("[::1]:1"), at("0.0.0.0:9091"));
        assert_eq!(check("", &[("listen", four), ("admin", six)]), Ok(()));
        assert_eq!(check("open", &[("listen", street), ("admin", street)]), Ok(()));
        for (listen, admin, key) in [(street, four, "listen"), (four, street, "admin")] {
            let refused = check("", &[("listen", listen), ("admin", admin)]).expect_err("anybody could call");
            assert!(refused.contains(&format!("`{key}` is 0.0.0.0:9091")), "{refused}");
            assert!(refused.contains("auth = \"open\""), "{refused}");
        }
        let unknown = check("closed", &[("listen", four)]).expect_err("no such word");
        assert!(unknown.contains("closed"), "{unknown}");
    }
}
