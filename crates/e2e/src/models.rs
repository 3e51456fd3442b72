//! Models that tests make themselves.

use std::fs;
use std::path::Path;

use tempfile::TempDir;

use crate::tools::repository;

/// A folder with the chat model `tiny-llama` of a few thousand random weights: what it says makes no sense, but it is the same
/// each time at a temperature of 0, and goes on until its context of 256 tokens is full.
///
/// # Panics
/// When the folder cannot be made.
#[must_use]
pub fn tiny_chat_model() -> TempDir {
    let folder = TempDir::with_prefix("outboard-tiny-").expect("a temporary folder can be made");
    let (from, to) = (repository().join("crates/generate/testdata/tiny-llama"), folder.path().join("tiny-llama"));
    copy(&from, &to);
    let card = "task = \"chat\"\n[chat]\nkv_bytes = 4194304\n";
    fs::write(to.join("model.toml"), card).expect("a file can be written");
    folder
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("in the tree") {
        let entry = entry.expect("in the tree");
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a file can be copied");
        }
    }
}
