//! This crate knows how to read model folders.
//!
//! A model folder is `NAME/model.toml` with `NAME/<version>/model.onnx` beside it, versions being whole numbers, and the
//! labels in a text file, one a line. A folder without `model.toml` is served as plain tensors, a Hugging Face export
//! (`config.json`, `onnx/model.onnx`) by what its own files say.
//! Promises: what is wrong is named with file, key, value and what is allowed; one bad folder never hides another; no file
//! outside the folder is read.
//! Not here: loading a model (`runtime`), serving it (`engine`).

mod error;
mod folder;
mod hugging_face;
mod settings;

pub use error::StoreError;
pub use folder::{ModelFolder, Version, read, scan};
pub use settings::{Activation, Batching, Limits, Output, Settings, Task};
