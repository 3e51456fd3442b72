//! `outboard keys`: a file of keys as an operator makes it.

use tempfile::TempDir;

use crate::{Ended, outboard};

fn keys(folder: &TempDir, arguments: &[&str]) -> Ended {
    let file = folder.path().join("keys.toml");
    outboard(&[&["keys"], arguments, &["--file", file.to_str().unwrap()]].concat())
}

#[test]
fn a_key_is_told_once_listed_without_it_and_revoked() {
    let folder = TempDir::new().unwrap();
    let made = keys(&folder, &["new", "photo-team", "--expires", "90d"]).with(0);
    let key = made.out.trim();
    assert!(key.starts_with("ob_") && key.len() == 46, "alone on standard output: {}", made.out);
    assert!(made.err.contains("not kept"), "{}", made.err);
    let more = ["new", "ann", "--scope", "history.read", "--scope", "infer", "--expires", "2099-01-02T00:00:00Z"];
    let other = keys(&folder, &more).with(0);
    assert_ne!(other.out, made.out);
    let listed = keys(&folder, &["list"]).with(0).out;
    for there in ["ann ", "2099-01-02T00:00:00Z", "infer, history.read", "photo-team"] {
        assert!(listed.contains(there), "{there} is not in {listed}");
    }
    assert!(!listed.contains(&key[3..]), "{listed}");
    let json: serde_json::Value = serde_json::from_str(&keys(&folder, &["list", "--json"]).with(0).out).unwrap();
    assert_eq!(json[0]["name"], "ann");
    assert_eq!(json[1]["scopes"], serde_json::json!(["infer"]));
    assert_eq!(json[1]["expired"], false);
    // It lies in the file as the gateway looks for it.
    let file = keys::read(&folder.path().join("keys.toml")).unwrap();
    let secret = keys::Secret::parse(key).unwrap();
    assert_eq!(file.of_secret(&secret, std::time::SystemTime::now()).unwrap().name, "photo-team");
    keys(&folder, &["revoke", "photo-team", "ann"]).with(0);
    assert!(!keys(&folder, &["list"]).with(0).out.contains("photo-team"));
}

#[test]
fn what_cannot_be_done_is_said_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    keys(&folder, &["new", "ann"]).with(0);
    let before = std::fs::read_to_string(folder.path().join("keys.toml")).unwrap();
    for (arguments, status, says) in [
        (&["new", "ann"][..], 1, "there is a key `ann` already"),
        (&["new", "an n"], 1, "allowed are 1 to 64"),
        (&["revoke", "ann", "bob"], 1, "there is no key `bob`"),
        (&["new", "bob", "--scope", "everything"], 2, "allowed is one of infer, history.read, history.delete, admin"),
        (&["new", "bob", "--expires", "soon"], 2, "or a time as 2027-01-31T00:00:00Z"),
        (&["new", "bob", "--expires", "2001-01-01T00:00:00Z"], 2, "is over already"),
    ] {
        let ended = keys(&folder, arguments).with(status);
        assert!(ended.err.contains(says) && ended.out.is_empty(), "{}", ended.err);
    }
    assert_eq!(std::fs::read_to_string(folder.path().join("keys.toml")).unwrap(), before);
    let none = outboard(&["keys", "list", "--file", "/no/such/file"]).with(1);
    assert!(none.err.contains("/no/such/file"), "{}", none.err);
    outboard(&["keys", "list"]).with(2);
}
