//! What the tests of this crate share: the library and the small models.

// Each test binary uses its own part of this.
#![allow(dead_code)]

use std::path::PathBuf;

use runtime::{Blueprint, DeviceWish, LibraryChoice, LoadError, Runtime, Session, SessionOptions, VERSION};

/// The CPU build in the cache folder, whatever else lies there: what is missing for CUDA must be the same on all machines.
pub(crate) fn cpu_library() -> LibraryChoice {
    let cache = runtime::cache_folder().expect("HOME is set");
    LibraryChoice::At(cache.join(format!("onnxruntime/{VERSION}-cpu")))
}

pub(crate) fn load() -> &'static Runtime {
    // The message says to run scripts/onnxruntime cpu.
    Runtime::load(&cpu_library()).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn model(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("testdata").join(format!("{name}.onnx"))
}

pub(crate) fn cpu() -> SessionOptions {
    SessionOptions { wish: DeviceWish::Cpu, ..SessionOptions::default() }
}

pub(crate) fn open(name: &str) -> Result<Session, LoadError> {
    Blueprint::open(load(), model(name))?.session(&cpu())
}

pub(crate) fn session(name: &str) -> Session {
    open(name).unwrap_or_else(|error| panic!("{name}: {error}"))
}
