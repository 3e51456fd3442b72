//! Where the repository, the built programs and the tools of other languages are.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The root of the repository.
#[must_use]
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).expect("crates/e2e lies two folders down").to_owned()
}

/// The folder with the programs built together with this test.
#[must_use]
pub fn target_folder() -> PathBuf {
    let test = std::env::current_exe().expect("a running test has a path");
    test.ancestors().nth(2).expect("tests lie in TARGET/PROFILE/deps").to_owned()
}

/// The folder into which `models/import/run` puts models that are too big for the repository.
#[must_use]
pub fn model_cache() -> PathBuf {
    let cache = std::env::var_os("OUTBOARD_CACHE").map(PathBuf::from).unwrap_or_else(|| {
        let base = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
        base.unwrap_or_else(|| PathBuf::from(std::env::var_os("HOME").unwrap_or_default()).join(".cache"))
            .join("outboard")
    });
    cache.join("models")
}

/// A Python with the client packages, running a script of `crates/e2e/clients`.
///
/// # Panics
/// When `scripts/setup test` has not made the virtual environment.
#[must_use]
pub fn python(script: &str) -> Command {
    let python = repository().join(".venv/bin/python");
    assert!(python.exists(), "{} is missing: run scripts/setup test", python.display());
    let mut command = Command::new(python);
    command.arg(repository().join("crates/e2e/clients").join(script)).current_dir(repository());
    command
}

/// Node with the client packages, running a script of `crates/e2e/clients`.
///
/// # Panics
/// When `scripts/setup test` has not installed them.
#[must_use]
pub fn node(script: &str) -> Command {
    let folder = repository().join("crates/e2e/clients");
    assert!(folder.join("node_modules/openai").exists(), "the Node clients are missing: run scripts/setup test");
    let mut command = Command::new("node");
    command.arg(folder.join(script)).current_dir(folder);
    command
}

/// What a script of `browser/` has seen in Chromium, after checking that it came to its end and that no page had a problem: no error
/// in the console, nothing asked of another host.
///
/// # Panics
/// When it did not, or `scripts/setup test` has not installed the driver.
#[must_use]
pub fn browse<A: AsRef<OsStr>>(script: &str, arguments: impl IntoIterator<Item = A>) -> Value {
    let folder = repository().join("crates/e2e/browser");
    assert!(
        folder.join("node_modules/playwright-core").exists(),
        "the browser driver is missing: run scripts/setup test"
    );
    let output = Command::new("node").arg(folder.join(script)).args(arguments).current_dir(&folder).output();
    let output = output.expect("node runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let seen: Value = serde_json::from_slice(&output.stdout).expect("the script prints JSON");
    assert_eq!(seen["problems"], Value::Array(Vec::new()), "{seen}");
    seen
}

/// The same for a page that takes pictures: the script gets its address, a shoe, a cup of coffee, and a folder for screenshots.
///
/// # Panics
/// As [`browse`].
#[must_use]
pub fn browse_with_pictures(script: &str, base: &str) -> Value {
    let pictures = repository().join("models/testdata");
    let files = [pictures.join("shoe.png"), pictures.join("coffee.jpg"), target_folder().join("screenshots")];
    browse(script, std::iter::once(OsStr::new(base)).chain(files.iter().map(|file| file.as_os_str())))
}
