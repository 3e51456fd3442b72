//! `outboard models check`, with the ONNX Runtime that the machine has.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::outboard;

/// A folder of models named after files in the runtime's test data.
fn store(models: &[&str]) -> TempDir {
    let store = TempDir::new().unwrap();
    for model in models {
        let version = store.path().join(model).join("1");
        std::fs::create_dir_all(&version).unwrap();
        std::fs::copy(testdata().join(format!("{model}.onnx")), version.join("model.onnx")).unwrap();
    }
    store
}

fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../runtime/testdata")
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_good_model_is_described_by_its_folder_or_by_the_folder_above() {
    let store = store(&["batch_free"]);
    for folder in [store.path(), &store.path().join("batch_free")] {
        let out = outboard(&["models", "check", path(folder)]).with(0).out;
        assert!(out.contains("batch_free version 1 (tensor)"), "{out}");
        for part in ["input", "output", "device", "nodes on"] {
            assert!(out.contains(part), "{part}: {out}");
        }
    }
}

#[test]
fn a_bad_model_is_1_and_named_and_the_good_one_is_still_told() {
    let store = store(&["batch_free", "corrupt_text"]);
    let ended = outboard(&["models", "check", path(store.path())]).with(1);
    assert!(ended.out.contains("BAD   corrupt_text:") && ended.out.contains("good  batch_free"), "{}", ended.out);
    assert!(ended.err.contains("1 of 2 models"), "{}", ended.err);
}

#[test]
fn as_many_labels_as_classes() {
    let bundled = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/mnist");
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("digits");
    std::fs::create_dir_all(copy.join("1")).unwrap();
    for file in ["model.toml", "labels.txt", "1/model.onnx"] {
        std::fs::copy(bundled.join(file), copy.join(file)).unwrap();
    }
    let out = outboard(&["models", "check", path(&copy)]).with(0).out;
    assert!(out.contains("10 labels for 10 classes"), "{out}");
    std::fs::write(copy.join("labels.txt"), "zero\none\ntwo\n").unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(1).out;
    assert!(out.contains("3 labels for 10 classes"), "{out}");
}

#[test]
fn a_language_model_is_told_with_its_cache_and_what_it_lacks_is_named() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../generate/testdata/tiny-llama");
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("talk");
    std::fs::create_dir_all(copy.join("onnx")).unwrap();
    for file in ["config.json", "tokenizer.json", "tokenizer_config.json", "onnx/model.onnx", "onnx/model.onnx_data"] {
        std::fs::copy(from.join(file), copy.join(file)).unwrap();
    }
    std::fs::write(copy.join("model.toml"), "task = \"chat\"").unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(0).out;
    for there in [
        "talk version 1 (chat)",
        "context of 256 tokens, prompt and answer together (`chat.max_context` is 2048, trained for 256)",
        "room for 256 conversations at once: 128.00 KiB each, `chat.kv_bytes` is 1.00 GiB",
        "has a chat template",
        "when a request does not say: temperature 1\n",
        "device ",
    ] {
        assert!(out.contains(there), "{there} is not in {out}");
    }
    let settings =
        "task = \"chat\"\ndescription = \"Talks\"\n[chat]\ntemperature = 0.25\ntop_p = 0.5\nkv_bytes = 131072";
    std::fs::write(copy.join("model.toml"), settings).unwrap();
    std::fs::remove_file(copy.join("tokenizer_config.json")).unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(0).out;
    for there in [
        "      Talks\n",
        "room for 1 conversation at once",
        "temperature 0.25, top_p 0.5",
        "no chat template: only plain",
    ] {
        assert!(out.contains(there), "{there} is not in {out}");
    }
    std::fs::write(copy.join("tokenizer.json"), "{}").unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(1).out;
    assert!(
        out.contains("BAD   talk: ") && out.contains("tokenizer.json"),
        "what cannot be read cannot be served: {out}"
    );
    std::fs::copy(from.join("tokenizer.json"), copy.join("tokenizer.json")).unwrap();
    std::fs::write(copy.join("model.toml"), "task = \"chat\"\n[chat]\nkv_bytes = 131071").unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(1).out;
    assert!(out.contains("BAD   talk: `chat.kv_bytes` is 131071"), "{out}");
    std::fs::remove_file(copy.join("tokenizer.json")).unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(1).out;
    assert!(out.contains("tokenizer.json"), "{out}");
}

#[test]
fn a_model_of_texts_is_told_with_their_length_and_needs_its_tokenizer() {
    let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/testdata/tiny-bert");
    let folder = TempDir::new().unwrap();
    let copy = folder.path().join("sentences");
    std::fs::create_dir_all(copy.join("1")).unwrap();
    std::fs::copy(from.join("model.onnx"), copy.join("1/model.onnx")).unwrap();
    std::fs::copy(from.join("tokenizer.json"), copy.join("tokenizer.json")).unwrap();
    std::fs::write(copy.join("model.toml"), "task = \"embed\"\n[embed]\nmax_tokens = 40\npooling = \"cls\"").unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(0).out;
    assert!(out.contains("sentences version 1 (embed)") && out.contains("up to 40 tokens"), "{out}");
    assert!(out.contains("that of the first token (`embed.pooling` is cls), scaled to length 1"), "{out}");
    assert!(out.contains(" numbers from last_hidden_state"), "{out}");
    std::fs::remove_file(copy.join("tokenizer.json")).unwrap();
    let out = outboard(&["models", "check", path(&copy)]).with(1).out;
    assert!(out.contains("BAD   sentences: there is no tokenizer.json"), "{out}");
}

#[test]
fn a_card_without_its_model_is_no_fault_of_the_others() {
    let store = store(&["batch_free"]);
    std::fs::create_dir(store.path().join("card")).unwrap();
    std::fs::write(store.path().join("card/model.toml"), "").unwrap();
    let out = outboard(&["models", "check", path(store.path())]).with(0).out;
    assert!(out.contains("none  card: there is no model beside its settings"), "{out}");
    // By itself it is what was asked about.
    let out = outboard(&["models", "check", path(&store.path().join("card"))]).with(1).out;
    assert!(out.contains("no version"), "{out}");
}

#[test]
fn nothing_there_is_1() {
    let folder = TempDir::new().unwrap();
    outboard(&["models", "check", path(folder.path())]).with(1);
    let out = outboard(&["models", "check", path(&folder.path().join("absent"))]).with(1).out;
    assert!(out.contains("absent"), "{out}");
}

#[test]
fn a_library_that_is_not_there_is_1_and_named() {
    let folder = TempDir::new().unwrap();
    let missing = folder.path().join("libnothing.so");
    let err = outboard(&["models", "check", path(folder.path()), "--onnxruntime", path(&missing)]).with(1).err;
    assert!(err.contains("libnothing.so"), "{err}");
}
