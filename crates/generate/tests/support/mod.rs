//! The tiny models of `testdata`.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::{Path, PathBuf};

use runtime::{Blueprint, CachePlace, Decoder, DeviceWish, LibraryChoice, Runtime, SessionOptions, VERSION};
use serde::Deserialize;

#[derive(Deserialize)]
pub(crate) struct Golden {
    pub(crate) prompt: String,
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) answer: Vec<u32>,
    /// How far the next token's logit is from each of the answer's; empty where all have to be equal.
    #[serde(default)]
    pub(crate) gaps: Vec<f32>,
}

pub(crate) const MODELS: [&str; 2] = ["tiny-llama", "tiny-qwen2"];

pub(crate) fn folder(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(model)
}

pub(crate) fn golden(model: &str) -> Vec<Golden> {
    let text = std::fs::read_to_string(folder(model).join("golden.json")).expect("is in the tree");
    serde_json::from_str(&text).expect("as make.py writes it")
}

pub(crate) fn library() -> &'static Runtime {
    let cache = runtime::cache_folder().expect("HOME is set");
    let choice = LibraryChoice::At(cache.join(format!("onnxruntime/{VERSION}-cpu")));
    // The message says to run scripts/onnxruntime cpu.
    Runtime::load(&choice).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn decoder(model: &str, slots: usize) -> Decoder {
    decoder_with(model, slots, CachePlace::Pages)
}

pub(crate) fn decoder_with(model: &str, slots: usize, place: CachePlace) -> Decoder {
    let blueprint = Blueprint::open(library(), folder(model).join("onnx/model.onnx")).expect("is in the tree");
    let options = SessionOptions { wish: DeviceWish::Cpu, intra_threads: 2, ..SessionOptions::default() };
    Decoder::with_cache(blueprint.session(&options).expect("loads"), slots, 256, place).expect("is a decoder")
}

/// The folder of the chat model that `models/import/run` makes.
pub(crate) fn bundled() -> PathBuf {
    let cache = runtime::cache_folder().expect("HOME is set");
    let folder = cache.join("models/smollm2-135m-instruct");
    assert!(folder.is_dir(), "{} is missing: run models/import/run", folder.display());
    folder
}
