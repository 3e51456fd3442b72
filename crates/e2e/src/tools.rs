//! Where the repository, the built programs and the tools of other languages are.

use std::path::{Path, PathBuf};
use std::process::Command;

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

/// Node running a script of `crates/e2e/browser`, which drives Chromium.
///
/// # Panics
/// When `scripts/setup test` has not installed the driver.
#[must_use]
pub fn browser(script: &str) -> Command {
    let folder = repository().join("crates/e2e/browser");
    assert!(
        folder.join("node_modules/playwright-core").exists(),
        "the browser driver is missing: run scripts/setup test"
    );
    let mut command = Command::new("node");
    command.arg(folder.join(script)).current_dir(folder);
    command
}
