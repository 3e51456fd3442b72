//! Why a folder is no model.

use std::path::PathBuf;

use thiserror::Error;
use units::NameError;

/// Why a model folder cannot be used.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The folder or a file in it cannot be read.
    #[error("{}: {error}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// The folder's name cannot be a model's.
    #[error("{}: {error}", path.display())]
    Name {
        /// The folder.
        path: PathBuf,
        /// What is wrong with its name.
        error: NameError,
    },
    /// `model.toml` has a key or a value that is not allowed.
    #[error("{}: {reason}", path.display())]
    Settings {
        /// The file.
        path: PathBuf,
        /// Line, key and what is allowed.
        reason: String,
    },
    /// There is a `model.toml`, and no `<number>/model.onnx` beside it.
    #[error("{}: no version, expected a file such as 1/model.onnx", path.display())]
    NoVersion {
        /// The folder.
        path: PathBuf,
    },
    /// A path in `model.toml` leads out of the folder.
    #[error("{}: `{key}` is {value:?}, which is not a file in the model's own folder", path.display())]
    Outside {
        /// `model.toml`.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The path that stands there.
        value: String,
    },
}
