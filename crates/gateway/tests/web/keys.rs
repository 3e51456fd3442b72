//! A gateway with a file of keys: who is let in, how, and for what.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use keys::{Scope, Secret};
use serde_json::json;
use tempfile::TempDir;

use crate::client::{Answer, ask, get, wait_until};
use crate::gateway::Gateway;
use crate::server::FakeServer;

const CHAT: &str = "/v1/chat/completions";
pub(crate) const FORM: (&str, &str) = ("content-type", "application/x-www-form-urlencoded");
pub(crate) const JSON: (&str, &str) = ("content-type", "application/json");

/// A gateway whose callers need keys, and the file of them.
pub(crate) struct Guarded {
    server: FakeServer,
    pub(crate) gateway: Gateway,
    folder: TempDir,
}

impl Guarded {
    fn start() -> Self {
        Self::start_with(&[])
    }

    /// With these settings besides.
    pub(crate) fn start_with(settings: &[&str]) -> Self {
        let (server, folder) = (FakeServer::start(), TempDir::new().expect("a folder"));
        let file = folder.path().join("keys.toml");
        keys::change(&file, |_| Ok(())).expect("an empty file");
        let setting = format!("keys={}", file.display());
        let gateway = Gateway::start(&server.address.to_string(), &[&[setting.as_str()], settings].concat());
        Self { server, gateway, folder }
    }

    fn file(&self) -> PathBuf {
        self.folder.path().join("keys.toml")
    }

    /// A key that the gateway knows by the time that this returns.
    pub(crate) fn key(&self, name: &str, scopes: &[Scope], expires: Option<SystemTime>) -> Secret {
        let secret = Secret::generate().expect("random numbers");
        let scopes: BTreeSet<_> = scopes.iter().copied().collect();
        let made = keys::change(&self.file(), |keys| keys.add(name, &secret, scopes, SystemTime::UNIX_EPOCH, expires));
        made.expect("a new key");
        self.follows();
        secret
    }

    /// Waits until the gateway has the file as it is.
    fn follows(&self) {
        let count = keys::read(&self.file()).expect("a good file").entries().len();
        let expected = format!("outboard_gateway_keys {count}\n");
        wait_until("the keys", || get(&self.gateway.admin, "/metrics").text().contains(&expected).then_some(()));
    }

    pub(crate) fn ask(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Answer {
        ask(&self.gateway.address, method, path, headers, body)
    }

    pub(crate) fn with_key(&self, method: &str, path: &str, key: &str, body: &[u8]) -> Answer {
        self.ask(method, path, &[("authorization", &format!("Bearer {key}")), JSON], body)
    }

    fn counts(&self, reason: &str, count: usize) -> bool {
        let line = format!("outboard_gateway_refused_total{{reason=\"{reason}\"}} {count}\n");
        get(&self.gateway.admin, "/metrics").text().contains(&line)
    }

    /// The cookie and the token of somebody who has signed in.
    pub(crate) fn sign_in(&self, key: &Secret) -> (String, String) {
        let answer = self.ask("POST", "/login", &[FORM], format!("key={}&next=/chat", key.expose()).as_bytes());
        assert_eq!((answer.status, answer.header("location")), (303, Some("/chat")), "{}", answer.text());
        let cookie = answer.header("set-cookie").expect("a cookie").to_owned();
        for there in ["HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=43200"] {
            assert!(cookie.contains(there), "{cookie}");
        }
        assert!(!cookie.contains(&key.expose()[3..]) && !cookie.contains("Secure"), "{cookie}");
        let cookie = cookie.split(';').next().expect("its value").to_owned();
        let page = self.ask("GET", "/chat", &[("cookie", &cookie)], b"").text();
        let token = page.split("csrf-token\" content=\"").nth(1).and_then(|rest| rest.split('"').next());
        (cookie, token.expect("the page has it").to_owned())
    }
}

fn hello() -> Vec<u8> {
    json!({"model": "words", "messages": [{"role": "user", "content": "hi"}]}).to_string().into_bytes()
}

#[test]
fn without_a_key_nothing_is_answered_but_health_and_the_description() {
    let guarded = Guarded::start();
    for path in ["/health/live", "/health/ready", "/openapi.json", "/docs", "/login", "/favicon.ico"] {
        assert_eq!(guarded.ask("GET", path, &[], b"").status, 200, "{path}");
    }
    for (method, path) in [
        ("POST", CHAT),
        ("POST", "/v1/classify"),
        ("POST", "/v1/embeddings"),
        ("GET", "/v1/models"),
        ("GET", "/v1/nothing"),
        ("POST", "/v1/%63hat/completions"),
    ] {
        for headers in
            [&[JSON][..], &[JSON, ("authorization", "Bearer none")], &[JSON, ("authorization", "Basic eDp5")]]
        {
            let answer = guarded.ask(method, path, headers, b"{}");
            assert_eq!(answer.status, 401, "{method} {path}: {}", answer.text());
            let error = answer.error();
            assert_eq!((&error["type"], &error["code"]), (&json!("authentication_error"), &json!("invalid_api_key")));
            assert!(answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer")));
        }
    }
    // Nor a body read into memory: it is thrown away, and the answer comes all the same.
    assert_eq!(guarded.ask("POST", CHAT, &[JSON], &vec![b' '; 1 << 20]).status, 401);
    assert!(guarded.server.talker.requests().is_empty());
    assert!(guarded.counts("unknown_key", 6), "{}", get(&guarded.gateway.admin, "/metrics").text());
}

#[test]
fn a_key_opens_what_its_scopes_say_and_names_the_caller() {
    let guarded = Guarded::start();
    let photo = guarded.key("photo-team", &[Scope::Infer], None);
    let reader = guarded.key("reader", &[Scope::HistoryRead], None);
    let answer = guarded.with_key("POST", CHAT, photo.expose(), &hello());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(guarded.server.talker.callers(), ["gateway for photo-team"]);
    let event = guarded.gateway.event(answer.header("x-request-id").expect("an id"));
    assert_eq!(event["caller"], "photo-team");
    assert!(!guarded.gateway.log().contains(&photo.expose()[3..]), "no key stands in the log");
    assert_eq!(guarded.with_key("GET", "/v1/models", reader.expose(), b"").status, 200, "any key may list");
    for path in [CHAT, "/v1/%63hat/completions", "/v1/classify", "/v1/completions", "/v1/embeddings"] {
        let refused = guarded.with_key("POST", path, reader.expose(), &hello());
        assert_eq!(refused.status, 403, "{path}: {}", refused.text());
        let error = refused.error();
        assert_eq!((&error["type"], &error["code"]), (&json!("permission_error"), &json!("forbidden")));
        assert_eq!(error["message"], "the key `reader` is not for infer, it is for history.read");
    }
    assert!(guarded.counts("scope", 5));
}

#[test]
fn the_file_is_followed_and_a_broken_one_locks_nobody_out() {
    let guarded = Guarded::start();
    let (ann, bob) = (guarded.key("ann", &[Scope::Infer], None), guarded.key("bob", &[Scope::Infer], None));
    let over = guarded.key("over", &[Scope::Infer], Some(SystemTime::now() - Duration::from_secs(60)));
    let status = |key: &Secret| guarded.with_key("GET", "/v1/models", key.expose(), b"").status;
    assert_eq!((status(&ann), status(&bob), status(&over)), (200, 200, 401));
    keys::change(&guarded.file(), |keys| keys.revoke("ann")).expect("revoked");
    wait_until("the key to be refused", || (status(&ann) == 401).then_some(()));
    std::fs::write(guarded.file(), "no keys").expect("written");
    wait_until("the mistake to be counted", || {
        get(&guarded.gateway.admin, "/metrics").text().contains("key_file_errors_total 1\n").then_some(())
    });
    wait_until("the mistake to be told", || {
        let mut events = guarded.gateway.events().into_iter();
        events.any(|event| event["level"] == "WARN" && event["error"].is_string()).then_some(())
    });
    assert_eq!((status(&ann), status(&bob)), (401, 200));
}

#[test]
fn people_sign_in_and_their_forms_carry_a_token() {
    let guarded = Guarded::start();
    let key = guarded.key("ann", &[Scope::Infer], None);
    // The page asks for a key where it was asked for.
    let door = guarded.ask("GET", "/upload?model=mnist", &[], b"");
    assert_eq!(door.status, 401);
    assert!(door.text().contains("name=\"next\" value=\"&#x2f;upload?model=mnist\""), "{}", door.text());
    let wrong = guarded.ask("POST", "/login", &[FORM], b"key=ob_nonsense");
    assert!(wrong.status == 401 && wrong.text().contains("this is no key of Outboard"), "{}", wrong.text());
    let foreign = guarded.ask("POST", "/login", &[FORM, ("origin", "http://evil.example")], b"key=x");
    assert_eq!(foreign.status, 403, "{}", foreign.text());
    let (cookie, token) = guarded.sign_in(&key);
    let cookie = ("cookie", cookie.as_str());
    let page = guarded.ask("GET", "/upload", &[cookie], b"").text();
    assert!(page.contains("Sign out") && page.contains(&format!("/upload?csrf={token}")), "{page}");
    // A form, and what scripts send.
    let said = b"model=words&message=hi";
    for path in ["/chat".to_owned(), "/chat?csrf=x".to_owned(), format!("/chat?csrf={}", &cookie.1[17..])] {
        let refused = guarded.ask("POST", &path, &[FORM, cookie], said);
        assert!(refused.status == 403 && refused.text().contains("token of your session"), "{}", refused.text());
    }
    let with_token = format!("/chat?csrf={token}");
    assert_eq!(guarded.ask("POST", &with_token, &[FORM, cookie], said).status, 200);
    let refused = guarded.ask("POST", &with_token, &[FORM, cookie, ("origin", "http://evil.example")], said);
    assert_eq!(refused.status, 403, "{}", refused.text());
    assert_eq!(guarded.ask("POST", CHAT, &[JSON, cookie], &hello()).code(), "forbidden");
    assert_eq!(guarded.ask("POST", CHAT, &[JSON, cookie, ("x-csrf-token", &token)], &hello()).status, 200);
    assert!(guarded.counts("token", 4) && guarded.counts("origin", 1));
    // The cookie is no key.
    assert_eq!(guarded.with_key("GET", "/v1/models", &format!("ob_{}", &cookie.1[17..]), b"").status, 401);
    let out = guarded.ask("POST", &format!("/logout?csrf={token}"), &[cookie], b"");
    assert!(out.status == 303 && out.header("set-cookie").is_some_and(|set| set.contains("Max-Age=0")), "{out:?}");
    // A key that is gone takes its sessions with it.
    keys::change(&guarded.file(), |keys| keys.revoke("ann")).expect("revoked");
    wait_until("the session to end", || (guarded.ask("GET", "/chat", &[cookie], b"").status == 401).then_some(()));
}

#[test]
fn behind_tls_the_cookie_leaves_by_tls_only() {
    let guarded = Guarded::start();
    let key = guarded.key("ann", &[Scope::Infer], None);
    let headers = [FORM, ("x-forwarded-proto", "https")];
    let answer = guarded.ask("POST", "/login", &headers, format!("key={}", key.expose()).as_bytes());
    assert!(answer.header("set-cookie").is_some_and(|cookie| cookie.ends_with("; Secure")), "{answer:?}");
    // Without a word where to go, and never to another site.
    assert_eq!(answer.header("location"), Some("/upload"));
}

#[test]
fn keys_open_a_listener_and_a_file_that_is_not_there_ends_the_start() {
    let refused = Gateway::refused(&["--listen", "0.0.0.0:0"]);
    assert!(refused.contains("a file of `keys` lets in only those who have one"), "{refused}");
    let refused = Gateway::refused(&["--set", "keys=/no/such/keys.toml"]);
    assert!(refused.contains("`keys`: /no/such/keys.toml"), "{refused}");
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("keys.toml");
    keys::change(&file, |_| Ok(())).expect("an empty file");
    let flags = ["--listen", "0.0.0.0:0", "--admin", "0.0.0.0:0", "--servers", "127.0.0.1:1"];
    let gateway = Gateway::start_with(&flags, &[&format!("keys={}", file.display())]);
    assert!(gateway.address.starts_with("0.0.0.0:"));
    let metrics = get(&gateway.admin, "/metrics");
    assert_eq!(metrics.status, 401, "metrics are for operators: {}", metrics.text());
    assert_eq!(get(&gateway.admin, "/health/live").status, 200);
}
