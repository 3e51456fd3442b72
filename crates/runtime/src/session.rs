//! One worker's way to run a model.
//!
//! Promises: inputs are checked against the model first, so that ONNX Runtime sees only what fits; a failure says whose it
//! is (the caller's, ours, memory's) and names no local path; whatever happens, the session can run again.
//! Memory: a batch leaves its intermediate results' memory in the process's arena. Every [`SHRINK_EVERY`]th run of a session
//! hands free memory back; the other runs do not pay for it.

use std::collections::BTreeMap;
use std::ffi::CStr;
use std::fmt;
use std::sync::Arc;

use ort::ErrorCode;
use ort::memory::MemoryInfo;
use ort::session::{RunOptions, Session as Graph};

use crate::blueprint::{Loaded, Origin, Port};
use crate::device::{Chosen, Device};
use crate::dtype::DType;
use crate::message;
use crate::raw::{self, Value, View};
use crate::spec::{Shape, TensorSpec};
use crate::stop::Stop;
use crate::tensor::Tensor;

/// Runs between two that hand free arena memory back. Handing it back at each run costs a 224x224 network 8 % CPU.
const SHRINK_EVERY: u32 = 64;

/// Why a run gave no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RunError {
    /// An input is missing, unknown or does not fit the model: the caller's fault.
    #[error("input {name}: {reason}")]
    Input {
        /// The input.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// An output was asked for that the model does not have: the caller's fault.
    #[error("output {name}: {reason}")]
    Output {
        /// The output.
        name: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The outputs are bigger than an answer may be ([`crate::SessionOptions::max_output_bytes`]).
    #[error("the outputs have {bytes} bytes, the limit is {limit} bytes")]
    OutputTooLarge {
        /// Bytes of the wanted outputs.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// A node of the model refused the values, as an index out of its table: most likely the caller's fault.
    #[error("the model refused the input: {0}")]
    Refused(String),
    /// [`Stop::stop`] ended it.
    #[error("the run was stopped")]
    Stopped,
    /// It needed more memory than there is, or than models may take.
    #[error("the run needs more memory than it may take (limit for all models: {limit} bytes): {reason}")]
    OutOfMemory {
        /// The limit on CPU memory.
        limit: u64,
        /// ONNX Runtime's words.
        reason: String,
    },
    /// The device or the library failed: our fault.
    #[error("the model failed: {0}")]
    Failed(String),
}

/// What the model file says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelMetadata {
    /// The program that wrote it.
    pub producer: String,
    /// The graph's name.
    pub graph: String,
    /// Its domain, as a reversed host name.
    pub domain: String,
    /// What it does.
    pub description: String,
    /// Its version, if it has one.
    pub version: Option<i64>,
    /// Everything else.
    pub custom: BTreeMap<String, String>,
}

/// One float output of [`Session::run_rows`], borrowed.
#[derive(Clone, Copy, Debug)]
pub struct RowsOut<'a> {
    /// Size of each dimension.
    pub shape: &'a [i64],
    /// The elements, last dimension fastest.
    pub data: &'a [f32],
}

/// A loaded model for one worker: one run at a time. Moves between threads freely.
pub struct Session {
    loaded: Arc<Loaded>,
    memory: MemoryInfo<'static>,
    plain: Arc<RunOptions>,
    shrinking: Arc<RunOptions>,
    runs: u32,
    limits: Limits,
    origin: Origin,
    input_specs: Vec<TensorSpec>,
    output_specs: Vec<TensorSpec>,
}

/// Most bytes that a run may use and give.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    /// CPU memory for all models together.
    pub(crate) memory: u64,
    /// The outputs of one run.
    pub(crate) output: u64,
}

impl Session {
    pub(crate) fn new(loaded: Arc<Loaded>, limits: Limits, origin: Origin) -> ort::Result<Self> {
        let mut shrinking = RunOptions::new()?;
        let arenas = match loaded.chosen.device {
            Device::Cpu => "cpu:0".to_owned(),
            Device::Cuda(number) => format!("cpu:0;gpu:{number}"),
        };
        shrinking.set("memory.enable_memory_arena_shrinkage", arenas)?;
        let specs = |ports: &[Port]| ports.iter().map(|port| port.spec.clone()).collect();
        Ok(Self {
            input_specs: specs(&loaded.inputs),
            output_specs: specs(&loaded.outputs),
            memory: raw::cpu_memory()?,
            plain: Arc::new(RunOptions::new()?),
            shrinking: Arc::new(shrinking),
            runs: 0,
            limits,
            origin,
            loaded,
        })
    }

    pub(crate) fn loaded(&self) -> &Arc<Loaded> {
        &self.loaded
    }

    /// The model's inputs in its order; those that may be left out come last.
    #[must_use]
    pub fn inputs(&self) -> &[TensorSpec] {
        &self.input_specs
    }

    /// The model's outputs in its order, without those of a type that is not served.
    #[must_use]
    pub fn outputs(&self) -> &[TensorSpec] {
        &self.output_specs
    }

    /// What the model file says about itself.
    #[must_use]
    pub fn metadata(&self) -> &ModelMetadata {
        &self.loaded.metadata
    }

    /// The device, and why it is this one.
    #[must_use]
    pub fn chosen(&self) -> &Chosen {
        &self.loaded.chosen
    }

    /// How many nodes each execution provider took, by ONNX Runtime's own record at load (before it fused any).
    #[must_use]
    pub fn placement(&self) -> Vec<(String, usize)> {
        let mut counts = BTreeMap::new();
        for (provider, _) in &self.loaded.nodes {
            *counts.entry(provider.clone()).or_insert(0) += 1;
        }
        counts.into_iter().collect()
    }

    /// Execution provider and operator of each node, from the same record as [`Self::placement`].
    #[must_use]
    pub fn nodes(&self) -> &[(String, String)] {
        &self.loaded.nodes
    }

    /// Runs the model once. `wanted` names the outputs and their order; empty means all. Inputs are borrowed (elements that
    /// lie unaligned are copied), outputs are copied out.
    ///
    /// # Errors
    /// [`RunError`].
    pub fn run(
        &mut self,
        inputs: &[(&str, &Tensor)],
        wanted: &[&str],
        stop: &Stop,
    ) -> Result<Vec<(String, Tensor)>, RunError> {
        let loaded = Arc::clone(&self.loaded);
        let ports = match_inputs(&loaded.inputs, inputs.iter().map(|(name, _)| *name))?;
        for (port, (_, tensor)) in ports.iter().zip(inputs) {
            port.spec.check(tensor).map_err(|reason| input_error(port, reason))?;
        }
        let outputs = match_outputs(&loaded.outputs, wanted)?;
        let mut values = Vec::with_capacity(inputs.len());
        for (port, (_, tensor)) in ports.iter().zip(inputs) {
            let value = Value::from_tensor(&self.memory, tensor);
            values.push(value.map_err(|error| input_error(port, message::plain(error.message())))?);
        }
        let named: Vec<(&CStr, &Value<'_>)> =
            ports.iter().zip(&values).map(|(port, value)| (port.name.as_c_str(), value)).collect();
        let results = self.execute(&named, &outputs, stop)?;
        // Before anything is copied: the size of an output can be the caller's choice.
        let mut bytes = 0_u64;
        for value in &results {
            bytes = bytes.saturating_add(value.byte_len().map_err(|error| self.error(&error))? as u64);
        }
        if bytes > self.limits.output {
            return Err(RunError::OutputTooLarge { bytes, limit: self.limits.output });
        }
        let mut answers = Vec::with_capacity(results.len());
        for (port, value) in outputs.iter().zip(&results) {
            answers.push((port.spec.name.clone(), value.to_tensor().map_err(|error| self.error(&error))?));
        }
        Ok(answers)
    }

    /// Runs a model of one float input on `rows` rows of `row_shape` and hands the outputs to `f`, in the order of
    /// `outputs` (empty means all), which must be float, too. Nothing is copied in or out.
    ///
    /// # Errors
    /// [`RunError`]; `f` is then not called.
    #[expect(
        clippy::too_many_arguments,
        reason = "the batch is a slice of a bigger buffer, its parts belong together here alone"
    )]
    pub fn run_rows<R>(
        &mut self,
        input: &str,
        rows: usize,
        row_shape: &[usize],
        data: &[f32],
        outputs: &[&str],
        stop: &Stop,
        f: impl FnOnce(&[RowsOut<'_>]) -> R,
    ) -> Result<R, RunError> {
        let loaded = Arc::clone(&self.loaded);
        let ports = match_inputs(&loaded.inputs, std::iter::once(input))?;
        let port = ports.first().ok_or_else(|| RunError::Failed("the model has no input".to_owned()))?;
        let shape: Vec<i64> =
            std::iter::once(&rows).chain(row_shape).map(|size| i64::try_from(*size).unwrap_or(i64::MAX)).collect();
        if port.spec.dtype != DType::F32 {
            return Err(input_error(port, format!("element type is f32, the model takes {}", port.spec.dtype)));
        }
        port.spec.check_shape(&shape).map_err(|reason| input_error(port, reason))?;
        let elements = crate::spec::elements(&shape).map_err(|reason| input_error(port, reason))?;
        if elements != data.len() {
            let shape = Shape(&shape);
            return Err(input_error(port, format!("has {} elements, shape {shape} takes {elements}", data.len())));
        }
        let outputs = match_outputs(&loaded.outputs, outputs)?;
        if let Some(port) = outputs.iter().find(|port| port.spec.dtype != DType::F32) {
            let reason = format!("is {}, only f32 can be read as rows", port.spec.dtype);
            return Err(RunError::Output { name: port.spec.name.clone(), reason });
        }
        let value = Value::from_f32(&self.memory, &shape, data).map_err(|error| self.error(&error))?;
        let results = self.execute(&[(port.name.as_c_str(), &value)], &outputs, stop)?;
        let mut slices = Vec::with_capacity(results.len());
        for result in &results {
            let read = result.type_and_shape().and_then(|(_, shape)| Ok(RowsOut { shape, data: result.floats()? }));
            slices.push(read.map_err(|error| self.error(&error))?);
        }
        Ok(f(&slices))
    }

    fn execute<'v>(
        &mut self,
        inputs: &[(&CStr, &'v Value<'v>)],
        outputs: &[&Port],
        stop: &Stop,
    ) -> Result<Vec<Value<'v>>, RunError> {
        let outputs: Vec<(&CStr, Option<&View<'_>>)> =
            outputs.iter().map(|port| (port.name.as_c_str(), None)).collect();
        self.execute_into(inputs, &outputs, stop)
    }

    /// Runs, writing into the outputs that come with memory and returning the others.
    pub(crate) fn execute_into<'v>(
        &mut self,
        inputs: &[(&CStr, &'v Value<'v>)],
        outputs: &[(&CStr, Option<&View<'_>>)],
        stop: &Stop,
    ) -> Result<Vec<Value<'v>>, RunError> {
        self.runs = self.runs.wrapping_add(1);
        let options = if self.runs.is_multiple_of(SHRINK_EVERY) { &self.shrinking } else { &self.plain };
        let result = {
            let Some(_watched) = stop.watch(options) else { return Err(RunError::Stopped) };
            raw::run(&self.loaded.graph, options, inputs, outputs)
        };
        // A run that failed while it was being stopped failed because of it; the library's code does not tell.
        result.map_err(|error| if stop.is_stopped() { RunError::Stopped } else { self.error(&error) })
    }

    /// What another session like it is made with.
    pub(crate) fn origin(&self) -> &Origin {
        &self.origin
    }

    /// How the library describes CPU memory.
    pub(crate) fn memory(&self) -> &MemoryInfo<'static> {
        &self.memory
    }

    pub(crate) fn error(&self, error: &ort::Error) -> RunError {
        let text = error.message();
        let reason = message::plain(text);
        if message::is_out_of_memory(text) {
            return RunError::OutOfMemory { limit: self.limits.memory, reason };
        }
        let device = message::is_device_failure(text)
            || matches!(error.code(), ErrorCode::ExecutionProviderFailure | ErrorCode::DeviceReset);
        let node = text.contains("status code returned while running");
        if !device && (node || error.code() == ErrorCode::InvalidArgument) {
            RunError::Refused(reason)
        } else {
            RunError::Failed(reason)
        }
    }
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("inputs", &self.input_specs)
            .field("outputs", &self.output_specs)
            .field("chosen", &self.loaded.chosen)
            .finish_non_exhaustive()
    }
}

impl ModelMetadata {
    pub(crate) fn read(graph: &Graph) -> ort::Result<Self> {
        let read = graph.metadata()?;
        let custom =
            read.custom_keys()?.into_iter().filter_map(|key| read.custom(&key).map(|value| (key, value))).collect();
        Ok(Self {
            producer: read.producer().unwrap_or_default(),
            graph: read.name().unwrap_or_default(),
            domain: read.domain().unwrap_or_default(),
            description: read.description().unwrap_or_default(),
            // A model that has none reads as the greatest number.
            version: read.version().filter(|version| *version != i64::MAX),
            custom,
        })
    }
}

/// The ports of the named inputs, in the caller's order; every one of the model's that has no value of its own is there.
fn match_inputs<'l, 'n>(
    ports: &'l [Port],
    names: impl Iterator<Item = &'n str> + Clone,
) -> Result<Vec<&'l Port>, RunError> {
    let mut matched: Vec<&Port> = Vec::with_capacity(ports.len());
    for name in names {
        let Some(port) = ports.iter().find(|port| port.spec.name == name) else {
            return Err(RunError::Input { name: shortened(name), reason: format!("the model takes {}", list(ports)) });
        };
        if matched.iter().any(|known| std::ptr::eq(*known, port)) {
            return Err(input_error(port, "is there twice".to_owned()));
        }
        matched.push(port);
    }
    let missing =
        ports.iter().find(|port| !port.spec.optional && !matched.iter().any(|known| std::ptr::eq(*known, *port)));
    match missing {
        Some(port) => Err(input_error(port, format!("is missing, the model takes {}", port.spec))),
        None => Ok(matched),
    }
}

fn match_outputs<'l>(ports: &'l [Port], wanted: &[&str]) -> Result<Vec<&'l Port>, RunError> {
    if wanted.is_empty() {
        return Ok(ports.iter().collect());
    }
    let mut matched: Vec<&Port> = Vec::with_capacity(wanted.len());
    for name in wanted {
        let error = |reason: String| RunError::Output { name: shortened(name), reason };
        let port = ports.iter().find(|port| port.spec.name == *name);
        let port = port.ok_or_else(|| error(format!("the model gives {}", list(ports))))?;
        if matched.iter().any(|known| std::ptr::eq(*known, port)) {
            return Err(error("is asked for twice".to_owned()));
        }
        matched.push(port);
    }
    Ok(matched)
}

/// A name from outside, which may be of any length, for a message.
fn shortened(name: &str) -> String {
    let mut kept: String = name.chars().take(64).collect();
    if kept.len() < name.len() {
        kept.push('…');
    }
    kept
}

fn list(ports: &[Port]) -> String {
    ports.iter().map(|port| port.spec.name.as_str()).collect::<Vec<_>>().join(", ")
}

fn input_error(port: &Port, reason: String) -> RunError {
    RunError::Input { name: port.spec.name.clone(), reason }
}
