//! The key that `outboard` shows to servers that ask for one.

use std::process::Command;

use keys::Secret;

use crate::fake::Fake;

/// The key that the server saw, and how the command ended.
fn call(fake: &Fake, arguments: &[&str], variables: &[(&str, &str)]) -> (Option<String>, Option<i32>, String) {
    let before = fake.seen.lock().unwrap().embedded.len();
    let ended = Command::new(env!("CARGO_BIN_EXE_outboard"))
        .args(["call", "embed", "a text", "--model", "m", "--server", &fake.address])
        .args(arguments)
        .env_remove("OUTBOARD_KEY")
        .env_remove("OUTBOARD_KEY_FILE")
        .envs(variables.iter().copied())
        .output()
        .unwrap();
    let error = String::from_utf8(ended.stderr).unwrap();
    let seen = fake.seen.lock().unwrap();
    let call = seen.embedded[before..].first();
    (call.and_then(|call| call.base.as_ref()?.key.clone()), ended.status.code(), error)
}

#[test]
fn it_comes_from_a_file_or_the_environment_and_the_file_counts_more() {
    let fake = Fake::serving();
    let [in_file, in_variable] = [0; 2].map(|_| Secret::generate().unwrap().expose().to_owned());
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{in_file}\n")).unwrap();
    let path = file.to_str().unwrap();

    assert_eq!(call(&fake, &[], &[]), (None, Some(0), String::new()));
    let variable = ("OUTBOARD_KEY", in_variable.as_str());
    assert_eq!(call(&fake, &[], &[variable]).0.as_ref(), Some(&in_variable));
    assert_eq!(call(&fake, &["--key-file", path], &[variable]).0.as_ref(), Some(&in_file));
    assert_eq!(call(&fake, &[], &[("OUTBOARD_KEY_FILE", path)]).0.as_ref(), Some(&in_file));
}

#[test]
fn what_is_no_key_is_wrong_usage_and_is_not_sent() {
    let fake = Fake::serving();
    for (arguments, variables, says) in [
        (&[][..], &[("OUTBOARD_KEY", "password")][..], "OUTBOARD_KEY: this is no key of Outboard"),
        (&["--key-file", "/no/such/key"], &[], "--key-file: /no/such/key"),
        (&["--key-file", "/dev/null"], &[], "--key-file: /dev/null: this is no key of Outboard"),
    ] {
        let (sent, status, error) = call(&fake, arguments, variables);
        assert_eq!((sent, status), (None, Some(2)), "{error}");
        assert!(error.starts_with(says) && !error.contains("password"), "{error}");
    }
}
