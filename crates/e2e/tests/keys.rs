//! Keys as an operator makes them and OpenAI's package sends them, through nginx.

use std::process::Command;
use std::time::Duration;

use e2e::{Parts, Stand, browse, python, target_folder, tiny_chat_model, wait_until};
use serde_json::{Value, json};
use tempfile::TempDir;

/// `outboard keys`, with what it printed.
fn keys(folder: &TempDir, arguments: &[&str]) -> String {
    let mut command = Command::new(target_folder().join("outboard"));
    command.arg("keys").args(arguments).arg("--file").arg(folder.path().join("keys.toml"));
    let output = command.output().expect("outboard starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8").trim().to_owned()
}

fn client(stand: &Stand, arguments: &[&str]) -> Value {
    let base_url = format!("http://{}/v1", stand.web_address());
    let mut command = python("openai_keys.py");
    let output = command.args([&base_url, "tiny-llama"]).args(arguments).output().expect("the client starts");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("the client prints JSON")
}

/// An installation with a tiny chat model that asks for the keys of this folder.
fn guarded(models: &TempDir, folder: &TempDir) -> Stand {
    Stand::start(Parts {
        models: vec![models.path().to_owned()],
        only: Vec::new(),
        gateway: vec![format!("keys={}", folder.path().join("keys.toml").display())],
        ..Parts::default()
    })
}

#[test]
fn openais_package_is_let_in_by_its_key_alone() {
    let (models, folder) = (tiny_chat_model(), TempDir::new().expect("a folder"));
    let key = keys(&folder, &["new", "ci", "--expires", "1h"]);
    let reader = keys(&folder, &["new", "reader", "--scope", "history.read"]);
    let stand = guarded(&models, &folder);
    let unknown = json!(["AuthenticationError", 401, "invalid_api_key", true]);
    let expected = json!({
        "models": ["tiny-llama"], "whole": 5, "streamed": "length", "none": unknown, "none streamed": unknown,
        "another scope": ["PermissionDeniedError", 403, "forbidden", true], "any key lists": ["tiny-llama"],
    });
    assert_eq!(client(&stand, &["open", &key, &reader]), expected);
    // The log knows who it was, and not by which key.
    let log = stand.gateway.as_ref().expect("it runs").log();
    assert!(log.contains("\"caller\":\"ci\""), "{log}");
    assert!(!log.contains(&key[3..]));
    // nginx's knows it, too, by a header that went no further.
    let authorization = format!("Bearer {key}");
    let headers = [("authorization", authorization.as_str()), ("x-request-id", "asked-with-a-key")];
    let answer = stand.http().post("/v1/completions", &headers, b"x");
    assert_eq!((answer.status, answer.header("x-outboard-caller")), (415, None), "{}", answer.text());
    let headers = [("x-request-id", "asked-without-one"), ("x-outboard-caller", "ci")];
    assert_eq!(stand.http().post("/v1/completions", &headers, b"x").status, 401);
    for (id, caller) in [("asked-with-a-key", "ci"), ("asked-without-one", "anonymous@127.0.0.1")] {
        let line = wait_until("the line in nginx's log", Duration::from_secs(20), || {
            let log = std::fs::read_to_string(stand.folder().join("nginx/logs/access.log")).unwrap_or_default();
            log.lines().find(|line| line.contains(id)).map(str::to_owned)
        });
        assert!(line.contains(&format!("\"caller\":\"{caller}\"")), "{line}");
        assert!(!line.contains(&key[3..]), "{line}");
    }
    keys(&folder, &["revoke", "ci"]);
    assert_eq!(client(&stand, &["gone", &key]), json!({"revoked": unknown}));
}

#[test]
fn a_person_signs_in_chats_and_signs_out() {
    let (models, folder) = (tiny_chat_model(), TempDir::new().expect("a folder"));
    let key = keys(&folder, &["new", "ann"]);
    let stand = guarded(&models, &folder);
    let seen = browse("keys.mjs", [stand.http().base(), &key]);
    for way in ["scripted", "plain"] {
        let found = &seen[way];
        assert!(found["wrong"].as_str().is_some_and(|text| text.contains("this is no key of Outboard")), "{found}");
        let expected = json!({
            "door": 401, "wrong": found["wrong"], "back": "/chat", "visitor": "ann",
            "cookie": [["outboard_session", true, "Lax", false]],
            "turns": 2, "problems": 0, "out": "/login", "after": 401,
        });
        assert_eq!(*found, expected, "{way}");
    }
}
