use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use tempfile::TempDir;

use super::*;

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn add(path: &Path, name: &str, expires: Option<SystemTime>) -> Secret {
    let secret = Secret::generate().expect("random numbers");
    change(path, |keys| keys.add(name, &secret, [Scope::Infer].into(), at(5), expires)).expect("a new key");
    secret
}

#[test]
fn a_key_is_known_until_it_expires_or_is_revoked() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.toml");
    let (ann, bob) = (add(&path, "ann", None), add(&path, "bob", Some(at(100))));
    let keys = read(&path).unwrap();
    assert_eq!(keys.of_secret(&ann, at(1_000)).unwrap().name, "ann");
    assert_eq!(keys.of_session(&bob.session(), at(99)).unwrap().name, "bob");
    assert_eq!(keys.of_secret(&bob, at(100)).err(), Some(Refusal::Expired { name: "bob".to_owned() }));
    assert_eq!(keys.of_secret(&Secret::generate().unwrap(), at(0)).err(), Some(Refusal::Unknown));
    change(&path, |keys| keys.revoke("ann")).unwrap();
    assert_eq!(read(&path).unwrap().of_secret(&ann, at(0)).err(), Some(Refusal::Unknown));
    assert!(change(&path, |keys| keys.revoke("ann")).unwrap_err().to_string().contains("no key `ann`"));
}

#[test]
fn a_file_tells_no_key_and_is_not_for_everyone() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.toml");
    let secret = add(&path, "ann", Some(at(86_400)));
    let text = fs::read_to_string(&path).unwrap();
    assert!(!text.contains(&secret.expose()[3..]) && !text.contains(&secret.session().encode()), "{text}");
    assert!(text.contains("[key.ann]") && text.contains("expires = \"1970-01-02T00:00:00Z\""), "{text}");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    // What an operator has set stays.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
    add(&path, "bob", None);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o640);
    let names: Vec<_> = read(&path).unwrap().entries().iter().map(|entry| entry.name.clone()).collect();
    assert_eq!(names, ["ann", "bob"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "nothing else is left");
}

#[test]
fn what_is_wrong_is_named_and_changes_nothing() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.toml");
    let secret = add(&path, "ann", None);
    let before = fs::read_to_string(&path).unwrap();
    for name in ["ann", "", "two words", "a@b", &"x".repeat(65)] {
        let refused = change(&path, |keys| keys.add(name, &secret, BTreeSet::new(), at(0), None));
        assert!(refused.is_err(), "{name}");
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), before);
    let hash = "0".repeat(64);
    for (text, says) in [
        ("key.a = 5".to_owned(), "expected struct"),
        (
            format!("[key.a]\nsha256 = \"{hash}\"\nscopes = [\"all\"]\ncreated = \"1970-01-01T00:00:00Z\""),
            "unknown variant `all`",
        ),
        (
            "[key.a]\nsha256 = \"00\"\nscopes = []\ncreated = \"1970-01-01T00:00:00Z\"".to_owned(),
            "`key.a.sha256` is not 64",
        ),
        (format!("[key.\"a b\"]\nsha256 = \"{hash}\"\nscopes = []\ncreated = \"1970-01-01T00:00:00Z\""), "\"a b\""),
        (
            format!("[key.a]\nsha256 = \"{hash}\"\nscopes = []\ncreated = \"1970-01-01T00:00:00Z\"\nsecret = \"x\""),
            "unknown field `secret`",
        ),
    ] {
        fs::write(&path, &text).unwrap();
        let error = read(&path).err().expect(says).to_string();
        assert!(error.contains(says) && error.contains("keys.toml"), "{error}");
        assert!(change(&path, |_| Ok(())).is_err(), "a file that cannot be read is not written over");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert!(matches!(read(&folder.path().join("none")), Err(FileError::Io { .. })));
}

#[test]
fn commands_at_the_same_time_wait_for_each_other() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.toml");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let path = &path;
            scope.spawn(move || add(path, &format!("key-{number}"), None));
        }
    });
    assert_eq!(read(&path).unwrap().entries().len(), 8);
}

#[test]
fn a_file_without_a_word_is_no_file_of_keys_and_takes_the_first_one() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("keys.toml");
    for text in ["", " \n"] {
        fs::write(&path, text).unwrap();
        let refused = read(&path).err().expect("written over in place, perhaps").to_string();
        assert!(refused.contains("keys.toml: there is nothing in it"), "{refused}");
    }
    add(&path, "ann", None);
    change(&path, |keys| keys.revoke("ann")).unwrap();
    assert_eq!(read(&path).unwrap().entries().len(), 0, "that is meant");
}

#[test]
fn a_link_stays_one_and_what_it_leads_to_is_changed() {
    let folder = TempDir::new().unwrap();
    let (path, link) = (folder.path().join("keys.toml"), folder.path().join("elsewhere/keys.toml"));
    add(&path, "ann", None);
    fs::create_dir(folder.path().join("elsewhere")).unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    change(&link, |keys| keys.revoke("ann")).unwrap();
    assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
    assert_eq!(read(&path).unwrap().entries().len(), 0, "revoked for all who read it");
}
