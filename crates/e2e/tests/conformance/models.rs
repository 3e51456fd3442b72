//! The models that the cases name: all of them small, so that the server is ready at once.

use std::fs;
use std::path::Path;

use e2e::repository;
use tempfile::TempDir;

/// Where a model lies in the tree, its name here, and its `model.toml` when the folder has none of its own.
const MODELS: [(&str, &str, Option<&str>); 3] = [
    ("models/fashion-mnist", "fashion-mnist", None),
    // Temperature 0: what a random model draws can be over after a token or two.
    (
        "crates/generate/testdata/tiny-llama",
        "tiny-llama",
        Some("task = \"chat\"\n[chat]\nkv_bytes = 4194304\ntemperature = 0.0\n"),
    ),
    ("crates/engine/testdata/tiny-bert", "tiny-bert", Some("task = \"embed\"\n[embed]\nmax_tokens = 40\n")),
];

/// Plain tensor models of one file. A run of `endless` ends only when it is stopped, so it is not warmed up.
const TENSORS: [(&str, &str); 3] =
    [("echo_f32", ""), ("echo_string", ""), ("endless", "instances = 1\nwarm_up = false\n")];

pub(crate) fn folder() -> TempDir {
    let folder = TempDir::with_prefix("outboard-conformance-").expect("a temporary folder can be made");
    for (from, name, card) in MODELS {
        let to = folder.path().join(name);
        copy(&repository().join(from), &to);
        if let Some(card) = card {
            fs::write(to.join("model.toml"), card).expect("a file can be written");
        }
    }
    // As a version's folder, which a Hugging Face export does not have.
    let bert = folder.path().join("tiny-bert");
    fs::create_dir(bert.join("1")).expect("a folder can be made");
    fs::rename(bert.join("model.onnx"), bert.join("1/model.onnx")).expect("a file can be moved");
    for (name, card) in TENSORS {
        let version = folder.path().join(name).join("1");
        fs::create_dir_all(&version).expect("a folder can be made");
        let model = repository().join(format!("crates/runtime/testdata/{name}.onnx"));
        fs::copy(model, version.join("model.onnx")).expect("a file can be copied");
        fs::write(folder.path().join(name).join("model.toml"), card).expect("a file can be written");
    }
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
