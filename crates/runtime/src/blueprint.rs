//! A model file, and the sessions that workers run it with.
//!
//! Why: loading decides the device and is where most things go wrong; and each worker wants a session of its own, while
//! the weights should be in memory once.
//! Promises: on the CPU all sessions of one blueprint with the same options share one loaded graph (its weights, their
//! packed form and its threads); on CUDA each session is its own. `cuda:N` fails where CUDA cannot be used; `auto` says why
//! it took what it took.
//!
//! Sharing costs nothing at run time and keeps batches bit-equal to single rows, which turning prepacking off (the other
//! way to share weights) does not; see `raw` for why it is sound.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use ort::ep::{self, ArbitrarilyConfigurableExecutionProvider as _};
use ort::session::Session as Graph;
use ort::session::builder::{GraphOptimizationLevel, SessionBuilder};
use ort::value::ValueType;

use crate::device::{Chosen, CudaMissing, Device, DeviceWish};
use crate::dtype::DType;
use crate::library::Runtime;
use crate::message;
use crate::raw::{self, Outlets};
use crate::session::{Limits, ModelMetadata, Session};
use crate::spec::{Dim, TensorSpec};

/// How a session is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// The device to run on.
    pub wish: DeviceWish,
    /// Threads that share the work of one run on the CPU. 1, the default, runs on the caller's thread: several workers with
    /// one thread each get more done than one worker with several. 0 is one for each core.
    pub intra_threads: usize,
    /// Options for the CUDA provider by ONNX Runtime's names, as in `cudnn_conv_algo_search = "HEURISTIC"`. They must be
    /// empty where the wish is the CPU, and are not used where `auto` ends on it.
    pub provider_options: BTreeMap<String, String>,
    /// Most bytes of GPU memory for this session's arena; CPU memory is limited for the process ([`Runtime::load_within`]).
    pub gpu_memory_limit: Option<u64>,
    /// Plans memory once for each shape of inputs. Saves a little where few shapes ever come; the plans of all shapes that
    /// ever came are kept, so it is off by default.
    pub memory_pattern: bool,
    /// Most bytes that the outputs of one [`Session::run`] may have together; 256 MiB by default. What a request makes the
    /// model compute in between is limited by [`Runtime::load_within`].
    pub max_output_bytes: u64,
}

impl Default for SessionOptions {
    fn default() -> Self {
        Self {
            wish: DeviceWish::Auto,
            intra_threads: 1,
            provider_options: BTreeMap::new(),
            gpu_memory_limit: None,
            memory_pattern: false,
            max_output_bytes: 256 << 20,
        }
    }
}

/// Why a model cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// There is no such file.
    #[error("there is no model file {}", .0.display())]
    NoFile(PathBuf),
    /// The file is no model, or one that ONNX Runtime cannot run.
    #[error("{} cannot be loaded: {reason}", path.display())]
    Model {
        /// The model file.
        path: PathBuf,
        /// What is wrong, as in `Fatal error: my.domain:Foo(-1) is not a registered function/op`.
        reason: String,
    },
    /// The wished device cannot be used.
    #[error("{wish} is asked for, but {missing}")]
    Device {
        /// The device of the settings.
        wish: DeviceWish,
        /// What is missing.
        missing: CudaMissing,
    },
    /// An option that does not fit.
    #[error("{0}")]
    Option(String),
    /// The weights do not fit into the memory that models may take.
    #[error("{} does not fit into memory: {reason}", path.display())]
    OutOfMemory {
        /// The model file.
        path: PathBuf,
        /// ONNX Runtime's words.
        reason: String,
    },
}

/// A model file. Sessions are made from it, one for each worker.
pub struct Blueprint {
    runtime: &'static Runtime,
    path: PathBuf,
    /// The graph that CPU sessions share, as long as one of them lives.
    shared: Mutex<Option<(SessionOptions, Weak<Loaded>)>>,
}

/// A graph in memory, and what is known of it.
pub(crate) struct Loaded {
    pub(crate) graph: Graph,
    pub(crate) inputs: Vec<Port>,
    pub(crate) outputs: Vec<Port>,
    pub(crate) metadata: ModelMetadata,
    /// Provider and operator of each node.
    pub(crate) nodes: Vec<(String, String)>,
    pub(crate) chosen: Chosen,
}

/// An input or output with its name as the library takes it.
pub(crate) struct Port {
    pub(crate) spec: TensorSpec,
    pub(crate) name: CString,
}

/// What came of an attempt on one device.
enum Failure {
    Cuda(CudaMissing),
    Load(LoadError),
}

impl Blueprint {
    /// A model file for later; only that it is there is checked now.
    ///
    /// # Errors
    /// [`LoadError::NoFile`].
    pub fn open(runtime: &'static Runtime, path: impl Into<PathBuf>) -> Result<Self, LoadError> {
        let path = path.into();
        if !path.is_file() {
            return Err(LoadError::NoFile(path));
        }
        Ok(Self { runtime, path, shared: Mutex::new(None) })
    }

    /// The model file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A session for one worker. Takes as long as reading and optimising the model, the first time.
    ///
    /// # Errors
    /// [`LoadError`]. Weights outside the model's folder are refused.
    pub fn session(&self, options: &SessionOptions) -> Result<Session, LoadError> {
        let mut shared = self.shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((made_with, loaded)) = shared.as_ref()
            && made_with == options
            && let Some(loaded) = loaded.upgrade()
        {
            return self.worker(loaded, options);
        }
        let loaded = Arc::new(self.load(options)?);
        let Chosen { device, why } = &loaded.chosen;
        tracing::info!(model = %self.path.display(), %device, why, nodes = loaded.nodes.len(), "model loaded");
        if loaded.chosen.device == Device::Cpu {
            *shared = Some((options.clone(), Arc::downgrade(&loaded)));
        }
        drop(shared);
        self.worker(loaded, options)
    }

    fn worker(&self, loaded: Arc<Loaded>, options: &SessionOptions) -> Result<Session, LoadError> {
        let limits = Limits { memory: self.runtime.memory_limit(), output: options.max_output_bytes };
        let origin = Origin { runtime: self.runtime, options: options.clone() };
        Session::new(loaded, limits, origin).map_err(|error| self.error(&error))
    }

    fn load(&self, options: &SessionOptions) -> Result<Loaded, LoadError> {
        let (number, required) = match options.wish {
            DeviceWish::Cpu if options.provider_options.is_empty() => {
                return self
                    .attempt(options, Device::Cpu, "the setting says cpu".to_owned())
                    .map_err(|failure| self.load_error(failure, options));
            }
            DeviceWish::Cpu => {
                let names: Vec<&str> = options.provider_options.keys().map(String::as_str).collect();
                return Err(LoadError::Option(format!(
                    "provider options ({}) are for cuda, the device is cpu",
                    names.join(", ")
                )));
            }
            DeviceWish::Cuda(number) => (number, true),
            DeviceWish::Auto => (0, false),
        };
        let why = if required { format!("the setting says cuda:{number}") } else { "CUDA can be used".to_owned() };
        match self.attempt(options, Device::Cuda(number), why) {
            Err(Failure::Cuda(missing)) if !required => self
                .attempt(options, Device::Cpu, format!("no CUDA: {missing}"))
                .map_err(|failure| self.load_error(failure, options)),
            other => other.map_err(|failure| self.load_error(failure, options)),
        }
    }

    fn attempt(&self, options: &SessionOptions, device: Device, why: String) -> Result<Loaded, Failure> {
        let graph = self.graph(options, device).map_err(|error| match device {
            Device::Cuda(number) => CudaMissing::from_message(error.message(), number)
                .map_or_else(|| Failure::Load(self.error(&error)), Failure::Cuda),
            Device::Cpu => Failure::Load(self.error(&error)),
        })?;
        self.describe(graph, Chosen { device, why }).map_err(Failure::Load)
    }

    fn graph(&self, options: &SessionOptions, device: Device) -> ort::Result<Graph> {
        Origin { runtime: self.runtime, options: options.clone() }.builder(device)?.commit_from_file(&self.path)
    }

    /// Reads everything that is later asked of a graph.
    fn describe(&self, graph: Graph, chosen: Chosen) -> Result<Loaded, LoadError> {
        let failed = |error: ort::Error| self.error(&error);
        let mut inputs = Vec::new();
        for (at, outlet) in graph.inputs().iter().enumerate() {
            let declared = raw::has_shape(&graph, Outlets::Inputs, at).map_err(failed)?;
            inputs.push(self.input(outlet.name(), outlet.dtype(), declared, false)?);
        }
        for (at, initializer) in graph.overridable_initializers().iter().enumerate() {
            let declared = raw::has_shape(&graph, Outlets::Overridable, at).map_err(failed)?;
            inputs.push(self.input(initializer.name(), initializer.dtype(), declared, true)?);
        }
        let mut outputs = Vec::new();
        for (at, outlet) in graph.outputs().iter().enumerate() {
            let declared = raw::has_shape(&graph, Outlets::Outputs, at).unwrap_or(false);
            match port(outlet.name(), outlet.dtype(), declared, false) {
                Some(port) => outputs.push(port),
                None => tracing::warn!(
                    model = %self.path.display(), output = outlet.name(), kind = %outlet.dtype(),
                    "an output is left out, its type is not served"
                ),
            }
        }
        if outputs.is_empty() {
            return Err(self.refused("none of its outputs is a tensor of a type that is served".to_owned()));
        }
        let metadata = ModelMetadata::read(&graph).map_err(failed)?;
        let nodes = raw::placement(&graph).map_err(failed)?;
        Ok(Loaded { graph, inputs, outputs, metadata, nodes, chosen })
    }

    fn input(&self, name: &str, ty: &ValueType, declared: bool, optional: bool) -> Result<Port, LoadError> {
        port(name, ty, declared, optional)
            .ok_or_else(|| self.refused(format!("input {name} is a {ty}, only tensors of the usual types are served")))
    }

    fn refused(&self, reason: String) -> LoadError {
        LoadError::Model { path: self.path.clone(), reason }
    }

    fn load_error(&self, failure: Failure, options: &SessionOptions) -> LoadError {
        match failure {
            Failure::Cuda(missing) => LoadError::Device { wish: options.wish, missing },
            Failure::Load(error) => error,
        }
    }

    fn error(&self, error: &ort::Error) -> LoadError {
        let text = error.message();
        let prefix = format!("Load model from {} failed:", self.path.display());
        let reason = message::with_paths(text.strip_prefix(&prefix).unwrap_or(text));
        if message::is_out_of_memory(text) {
            LoadError::OutOfMemory { path: self.path.clone(), reason }
        } else if text.starts_with("Unknown provider option") || text.contains("Failed to parse provider option") {
            LoadError::Option(reason)
        } else {
            self.refused(reason)
        }
    }
}

/// Where a session comes from: what is needed to make another one like it.
#[derive(Clone)]
pub(crate) struct Origin {
    runtime: &'static Runtime,
    options: SessionOptions,
}

impl Origin {
    fn builder(&self, device: Device) -> ort::Result<SessionBuilder> {
        let threads = threads(self.options.intra_threads);
        let mut builder = SessionBuilder::new(self.runtime.environment())?
            .with_optimization_level(GraphOptimizationLevel::All)?
            .with_intra_threads(threads)?
            // Threads that share a run wait awake for its next node: to sleep and be woken at each of a hundred nodes costs more
            // time, and more CPU, than that (a photograph's run on two cores: 3.6 ms instead of 2.8). When the run has ended
            // they sleep at once; without the second entry they would burn CPU for some 30 ms more.
            .with_intra_op_spinning(threads > 1)?
            .with_config_entry("session.force_spinning_stop", "1")?
            .with_inter_op_spinning(false)?
            .with_flush_to_zero()?
            .with_memory_pattern(self.options.memory_pattern)?
            // The process's one arena, which has the memory limit.
            .with_env_allocators()?
            .with_config_entry("session.record_ep_graph_assignment_info", "1")?;
        if let Device::Cuda(number) = device {
            self.runtime.preload_cuda_libraries();
            let mut cuda = ep::CUDA::default()
                .with_device_id(i32::try_from(number).unwrap_or(i32::MAX))
                .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested)
                // The default tries every algorithm for each new shape, which takes seconds.
                .with_conv_algorithm_search(ep::cuda::ConvAlgorithmSearch::Heuristic)
                // Full f32, so that answers agree with the CPU's; `use_tf32 = "1"` in the options turns it on.
                .with_tf32(false);
            if let Some(limit) = self.options.gpu_memory_limit {
                cuda = cuda.with_memory_limit(usize::try_from(limit).unwrap_or(usize::MAX));
            }
            for (key, value) in &self.options.provider_options {
                cuda = cuda.with_arbitrary_config(key, value);
            }
            builder = builder.with_execution_providers([cuda.build().error_on_failure()])?;
        }
        Ok(builder)
    }

    /// A graph that is given as bytes, on a device.
    pub(crate) fn graph_of(&self, device: Device, model: &[u8]) -> ort::Result<Graph> {
        self.builder(device)?.commit_from_memory(model)
    }
}

impl fmt::Debug for Blueprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Blueprint").field("path", &self.path).finish_non_exhaustive()
    }
}

/// `None` for what is no tensor, or one of a type that is not served.
fn port(name: &str, ty: &ValueType, declared: bool, optional: bool) -> Option<Port> {
    let ValueType::Tensor { ty, shape, dimension_symbols } = ty else { return None };
    let dtype = DType::from_element(*ty)?;
    let dims = shape.iter().zip(dimension_symbols.iter()).map(|(size, symbol)| match u64::try_from(*size) {
        Ok(fixed) => Dim::Fixed(fixed),
        Err(_) => Dim::Free((!symbol.is_empty()).then(|| symbol.clone())),
    });
    let shape = declared.then(|| dims.collect());
    let spec = TensorSpec { name: name.to_owned(), dtype, shape, optional };
    Some(Port { spec, name: CString::new(name).ok()? })
}

/// How many threads share a run. 0 is not handed on: for it the library pins each of its threads to a core, and where the thread
/// that starts the runs happens to be on the same one, both take turns on it for as long as the scheduler leaves it there (two of
/// six starts on two cores); and it counts the host's cores where a container has fewer.
fn threads(wanted: usize) -> usize {
    match wanted {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        wanted => wanted,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::library::{LibraryChoice, VERSION, cache_folder};

    fn model(name: &str) -> Blueprint {
        let folder = cache_folder().expect("HOME is set").join(format!("onnxruntime/{VERSION}-cpu"));
        let runtime = Runtime::load(&LibraryChoice::At(folder)).unwrap_or_else(|error| panic!("{error}"));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata").join(name);
        Blueprint::open(runtime, path).expect("there")
    }

    fn cpu() -> SessionOptions {
        SessionOptions { wish: DeviceWish::Cpu, ..SessionOptions::default() }
    }

    #[test]
    fn sessions_with_the_same_options_hold_the_weights_once() {
        let model = model("batch_free.onnx");
        let (first, second) = (model.session(&cpu()).expect("loads"), model.session(&cpu()).expect("loads"));
        assert!(Arc::ptr_eq(first.loaded(), second.loaded()));
        let other = model.session(&SessionOptions { intra_threads: 2, ..cpu() }).expect("loads");
        assert!(!Arc::ptr_eq(first.loaded(), other.loaded()), "other options are another graph");
    }

    #[test]
    fn the_weights_go_with_the_last_session() {
        let model = model("batch_free.onnx");
        let session = model.session(&cpu()).expect("loads");
        let held = Arc::downgrade(session.loaded());
        drop(session);
        assert!(held.upgrade().is_none());
    }

    #[test]
    fn an_unknown_provider_option_is_not_taken_for_a_missing_device() {
        let model = model("batch_free.onnx");
        let message = ort::Error::new("Unknown provider option: \"bogus\"");
        assert_eq!(model.error(&message), LoadError::Option("Unknown provider option: \"bogus\"".to_owned()));
    }
}
