//! Finding and loading ONNX Runtime's shared library, once for the process.
//!
//! Why: one binary serves CPU and CUDA hosts, so the library is chosen when the program starts. `ort` panics when it is
//! used before a library is loaded; holding a [`Runtime`] proves that one is.
//! Promises: no call here panics; every error is one sentence that says what is wrong and what to run; after an error
//! another path can be tried.
//! Not here: fetching the library (`scripts/onnxruntime`).

use std::error::Error as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, OnceLock, PoisonError};
use std::{env, fs};

use ort::LoadDynamicError;
use ort::environment::Environment;
use ort::logging::LogLevel;

use crate::memory;

/// The version that `scripts/onnxruntime` fetches.
pub const VERSION: &str = "1.31.1";

/// Where the library comes from.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LibraryChoice {
    /// No setting: the folders that `scripts/onnxruntime` fills, `<cache>/onnxruntime/1.31.1-cuda` before `...-cpu`. The
    /// CUDA build runs models on the CPU, too. `<cache>` is [`cache_folder`].
    #[default]
    Search,
    /// This file, or the one in this folder.
    At(PathBuf),
}

/// Why there is no library to run models with.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LibraryError {
    /// None of the folders holds a library.
    #[error("no ONNX Runtime library in {}: run `scripts/onnxruntime cpu`", folders(.0))]
    NotFound(Vec<PathBuf>),
    /// The setting names a file or folder without a library.
    #[error("there is no ONNX Runtime library at {}: run `scripts/onnxruntime cpu` or correct the setting", .0.display())]
    NotThere(PathBuf),
    /// The system cannot load the file.
    #[error("{} cannot be loaded as the ONNX Runtime library ({reason}): run `scripts/onnxruntime cpu`", path.display())]
    Unloadable {
        /// The file.
        path: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// A library, but another one.
    #[error("{} is not an ONNX Runtime library: run `scripts/onnxruntime cpu`", .0.display())]
    Foreign(PathBuf),
    /// An older ONNX Runtime.
    #[error("{} is ONNX Runtime {version}, this program needs 1.31 or newer: run `scripts/onnxruntime cpu`", path.display())]
    TooOld {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: String,
    },
    /// A process can hold one library.
    #[error("this process has loaded {} already and cannot load {}, too", loaded.display(), wanted.display())]
    AnotherLoaded {
        /// The library in use.
        loaded: PathBuf,
        /// The other one.
        wanted: PathBuf,
    },
    /// The memory limit is too small to load anything.
    #[error("the memory limit for models is {0} bytes, the least is {least} bytes", least = memory::LEAST)]
    MemoryLimit(u64),
    /// The library loaded and did not start.
    #[error("{} did not start ({reason}): run `scripts/onnxruntime cpu`", path.display())]
    NotStarted {
        /// The file.
        path: PathBuf,
        /// The library's words.
        reason: String,
    },
}

/// The loaded library. There is one in a process and it stays.
#[derive(Debug)]
pub struct Runtime {
    environment: Environment,
    path: PathBuf,
    memory_limit: u64,
    cuda_libraries: Once,
}

static LOADED: OnceLock<Runtime> = OnceLock::new();
static LOADING: Mutex<()> = Mutex::new(());

impl Runtime {
    /// Loads the library, or answers with the one that is loaded. Models may take three quarters of the memory that this
    /// process can have.
    ///
    /// # Errors
    /// [`LibraryError`], one sentence each.
    pub fn load(choice: &LibraryChoice) -> Result<&'static Self, LibraryError> {
        Self::load_within(choice, None)
    }

    /// As [`Self::load`]; all models together may take `memory_limit` bytes of CPU memory for weights, intermediate results
    /// and outputs. A run that would need more fails with [`crate::RunError::OutOfMemory`]. The first call in a process
    /// decides.
    ///
    /// # Errors
    /// [`LibraryError`], one sentence each.
    pub fn load_within(choice: &LibraryChoice, memory_limit: Option<u64>) -> Result<&'static Self, LibraryError> {
        let memory_limit = memory_limit.unwrap_or_else(memory::default_limit);
        if memory_limit < memory::LEAST {
            return Err(LibraryError::MemoryLimit(memory_limit));
        }
        let _one_at_a_time = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = LOADED.get() {
            return match choice {
                LibraryChoice::Search => Ok(loaded),
                LibraryChoice::At(path) if in_folder(path).as_ref() == Some(&loaded.path) => Ok(loaded),
                LibraryChoice::At(path) => {
                    Err(LibraryError::AnotherLoaded { loaded: loaded.path.clone(), wanted: path.clone() })
                }
            };
        }
        let path = find(choice)?;
        let runtime = start(&path, memory_limit)?;
        tracing::info!(path = %path.display(), version = runtime.version(), memory_limit, "ONNX Runtime loaded");
        Ok(LOADED.get_or_init(|| runtime))
    }

    /// The library's version as it says itself, as in `1.31.1`.
    #[must_use]
    pub fn version(&self) -> String {
        // The build string begins "ORT Build Info: git-branch=..., " and names no version; the file does.
        let name = self.path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        match name.split_once(".so.") {
            Some((_, version)) if version.contains('.') => version.to_owned(),
            _ => format!("1.{}", ort::MINOR_VERSION),
        }
    }

    /// How the library was built, in its own words.
    #[must_use]
    pub fn build_info(&self) -> &'static str {
        ort::info()
    }

    /// The library file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Most bytes of CPU memory that all models together may take.
    #[must_use]
    pub fn memory_limit(&self) -> u64 {
        self.memory_limit
    }

    pub(crate) fn environment(&self) -> &Environment {
        &self.environment
    }

    pub(crate) fn preload_cuda_libraries(&self) {
        self.cuda_libraries.call_once(|| preload_cuda_libraries(&self.path));
    }
}

/// Loads NVIDIA's libraries from `cuda-libs` beside the ONNX Runtime `library`, where `scripts/onnxruntime cuda
/// --with-cuda-libs` puts them. Where that folder is absent the system's loader finds them, or the session's error names the
/// missing one. Sessions do this by themselves; it is for programs that use the library without a [`Runtime`].
pub fn preload_cuda_libraries(library: &Path) {
    // Each one needs only those before it. cuDNN opens its parts by name later, and finds them loaded.
    const ORDER: [&str; 17] = [
        "libcudart.so.",
        "libnvrtc-builtins.so.",
        "libnvrtc.so.",
        "libcublasLt.so.",
        "libcublas.so.",
        "libcurand.so.",
        "libcufft.so.",
        "libcudnn_graph.so.",
        "libcudnn_engines_precompiled.so.",
        "libcudnn_engines_runtime_compiled.so.",
        "libcudnn_engines_tensor_ir.so.",
        "libcudnn_heuristic.so.",
        "libcudnn_ops.so.",
        "libcudnn_cnn.so.",
        "libcudnn_adv.so.",
        "libcudnn_ext.so.",
        "libcudnn.so.",
    ];
    let Some(folder) = library.parent().map(|folder| folder.join("cuda-libs")) else { return };
    let files: Vec<PathBuf> = fs::read_dir(&folder).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    for prefix in ORDER {
        let is_it = |path: &&PathBuf| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(prefix));
        if let Some(path) = files.iter().find(is_it)
            && let Err(error) = ort::util::preload_dylib(path.as_os_str())
        {
            tracing::warn!(path = %path.display(), %error, "a CUDA library could not be loaded");
        }
    }
}

/// `$OUTBOARD_CACHE`, else `$XDG_CACHE_HOME/outboard`, else `$HOME/.cache/outboard`.
#[must_use]
pub fn cache_folder() -> Option<PathBuf> {
    let set = |key: &str| env::var_os(key).filter(|value| !value.is_empty()).map(PathBuf::from);
    set("OUTBOARD_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|folder| folder.join("outboard")))
        .or_else(|| set("HOME").map(|folder| folder.join(".cache/outboard")))
}

fn find(choice: &LibraryChoice) -> Result<PathBuf, LibraryError> {
    match choice {
        LibraryChoice::At(path) => in_folder(path).ok_or_else(|| LibraryError::NotThere(path.clone())),
        LibraryChoice::Search => {
            let cache = cache_folder().unwrap_or_else(|| PathBuf::from("/var/cache/outboard")).join("onnxruntime");
            let folders = ["cuda", "cpu"].map(|kind| cache.join(format!("{VERSION}-{kind}")));
            folders.iter().find_map(|folder| in_folder(folder)).ok_or_else(|| LibraryError::NotFound(folders.to_vec()))
        }
    }
}

/// The file itself, or the library of a folder; absolute, because the loader looks beside the program first.
fn in_folder(path: &Path) -> Option<PathBuf> {
    let absolute = std::path::absolute(path).ok()?;
    if absolute.is_file() {
        return Some(absolute);
    }
    let exact = absolute.join(format!("libonnxruntime.so.{VERSION}"));
    if exact.is_file() {
        return Some(exact);
    }
    let mut others: Vec<PathBuf> = fs::read_dir(&absolute)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.file_name().is_some_and(|name| name.to_string_lossy().starts_with("libonnxruntime.so")))
        .collect();
    others.sort();
    others.pop()
}

fn start(path: &Path, memory_limit: u64) -> Result<Runtime, LibraryError> {
    // Before anything else of `ort`: all other calls would load a library by its default name, and panic without it.
    let builder = ort::init_from(path).map_err(|error| unusable(path, error))?;
    let not_started = |error: ort::Error| LibraryError::NotStarted { path: path.to_owned(), reason: error.to_string() };
    let logger = std::sync::Arc::new(|level: LogLevel, _: &str, _: &str, place: &str, message: &str| match level {
        LogLevel::Fatal => tracing::error!(target: "onnxruntime", place, "{message}"),
        // A node that fails logs an error besides returning it. Callers can make nodes fail, they must not fill the log.
        LogLevel::Error if place.contains("ExecuteKernel") => {
            tracing::debug!(target: "onnxruntime", place, "{message}")
        }
        LogLevel::Error | LogLevel::Warning => tracing::warn!(target: "onnxruntime", place, "{message}"),
        LogLevel::Info | LogLevel::Verbose => tracing::trace!(target: "onnxruntime", place, "{message}"),
    });
    let environment =
        builder.with_name("outboard").with_telemetry(false).with_logger(logger).build().map_err(not_started)?;
    environment.set_log_level(LogLevel::Warning);
    let limit = usize::try_from(memory_limit).unwrap_or(usize::MAX);
    crate::raw::register_cpu_arena(&environment, limit).map_err(not_started)?;
    Ok(Runtime { environment, path: path.to_owned(), memory_limit, cuda_libraries: Once::new() })
}

fn unusable(path: &Path, error: LoadDynamicError) -> LibraryError {
    let path = path.to_owned();
    match error {
        LoadDynamicError::Dlopen { error, .. } => {
            // Display hides the loader's words, the source has them: "P: file too short".
            let words = error.source().map_or_else(|| error.to_string(), ToString::to_string);
            let reason = words.strip_prefix(&format!("{}: ", path.display())).unwrap_or(&words).to_owned();
            LibraryError::Unloadable { path, reason }
        }
        LoadDynamicError::MissingApi { .. } | LoadDynamicError::InvalidVersionString => LibraryError::Foreign(path),
        LoadDynamicError::BadVersion { version_str, .. } => LibraryError::TooOld { path, version: version_str },
    }
}

fn folders(paths: &[PathBuf]) -> String {
    paths.iter().map(|path| path.display().to_string()).collect::<Vec<_>>().join(" or ")
}
