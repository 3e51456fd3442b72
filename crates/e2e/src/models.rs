//! Models that tests make themselves.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::tools::{model_cache, repository};

/// A folder with the chat model `tiny-llama` of a few thousand random weights: what it says makes no sense, but it is the same
/// each time at a temperature of 0, and goes on until its context of 256 tokens is full.
///
/// # Panics
/// When the folder cannot be made.
#[must_use]
pub fn tiny_chat_model() -> TempDir {
    tiny_chat_model_with("")
}

/// The same with further lines in its `[chat]` table.
///
/// # Panics
/// When the folder cannot be made.
#[must_use]
pub fn tiny_chat_model_with(chat: &str) -> TempDir {
    with_card(&repository().join("crates/generate/testdata/tiny-llama"), &format!("kv_bytes = 4194304\n{chat}"))
}

/// A folder with a bundled chat model, with other lines in its `[chat]` table.
///
/// # Panics
/// When `models/import/run` has not made it.
#[must_use]
pub fn bundled_chat_model(name: &str, chat: &str) -> TempDir {
    let folder = model_cache().join(name);
    assert!(folder.is_dir(), "{} is missing: run models/import/run {name}", folder.display());
    with_card(&folder, chat)
}

fn with_card(from: &Path, chat: &str) -> TempDir {
    let folder = TempDir::with_prefix("outboard-model-").expect("a temporary folder can be made");
    let to = folder.path().join(from.file_name().expect("a model has a name"));
    copy(from, &to);
    fs::write(to.join("model.toml"), format!("task = \"chat\"\n[chat]\n{chat}")).expect("a file can be written");
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("in the tree") {
        let entry = entry.expect("in the tree");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else if entry.file_name() != "model.toml" {
            // Weights of half a gigabyte need no second copy where one file can have two names.
            fs::hard_link(entry.path(), &target)
                .or_else(|_| fs::copy(entry.path(), &target).map(|_| ()))
                .expect("a file can be copied");
        }
    }
}
