//! What the engine may take, and what it serves.

use std::path::PathBuf;
use std::time::Duration;

use runtime::DeviceWish;
use units::ModelName;

/// Settings of the engine.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Folders with model folders in them. Of two models with one name the first counts.
    pub folders: Vec<PathBuf>,
    /// Only these models; all when empty.
    pub only: Vec<ModelName>,
    /// For every model, instead of what its `model.toml` says.
    pub device: Option<DeviceWish>,
    /// For every model, instead of what its `model.toml` says.
    pub instances: Option<usize>,
    /// Pictures decoded at the same time.
    pub decode_threads: usize,
    /// Bytes of decoded pictures in work at the same time, taken from the pictures' headers before decoding.
    pub decoded_bytes: u64,
    /// Limits on one picture.
    pub pictures: vision::Limits,
    /// Pictures in one call.
    pub pictures_per_call: usize,
    /// Texts in one call of `embed`.
    pub texts_per_call: usize,
    /// Labels in one answer.
    pub top_k: usize,
    /// Longest edge of a preview in pixels.
    pub preview_px: u32,
    /// Bytes of all outputs in one answer of `infer`: what the frame limit of the clients leaves for them.
    pub output_bytes: u64,
    /// A chat whose first token has not come within this is given up.
    pub first_token: Duration,
    /// A run that does not end within this after it was told to stop has wedged its worker: longer than any one node takes.
    pub wedged_after: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            folders: Vec::new(),
            only: Vec::new(),
            device: None,
            instances: None,
            decode_threads: cores,
            decoded_bytes: 1 << 30,
            pictures: vision::Limits::default(),
            pictures_per_call: 16,
            texts_per_call: 2048,
            top_k: 100,
            preview_px: 1024,
            output_bytes: 16_000_000,
            first_token: Duration::from_secs(30),
            wedged_after: Duration::from_secs(30),
        }
    }
}
