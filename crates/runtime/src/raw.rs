//! The calls into the C library that `ort` has no safe form for. All `unsafe` of the workspace is here.
//!
//! Why: `ort` makes tensors through generic types and finds names anew for each run; serving needs tensors of any type
//! over borrowed bytes, names made once, and facts that it does not read (unknown rank, placement, the arena's limit).
//! Promises: every function here is safe to call with any arguments; owned C objects are released by `Drop`.
//!
//! Sharing: [`run`] takes the session by shared reference. ONNX Runtime states that `Run` may be called on one session from
//! many threads at once; `ort` takes `&mut` because some providers (CUDA's allocator among them) did not keep that. So
//! `blueprint` shares a session between workers on the CPU only, and a test runs one from four threads.

use std::ffi::{CStr, CString, c_char};
use std::marker::PhantomData;
use std::ptr;

use bytes::Bytes;
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::ortsys;
use ort::session::{RunOptions, Session};
use ort::sys;

use crate::dtype::DType;
use crate::tensor::{Data, Tensor};

mod cache;

pub(crate) use cache::{Cache, Copier, View};

/// An `OrtValue` that may borrow its elements for `'a`.
pub(crate) struct Value<'a> {
    ptr: *mut sys::OrtValue,
    /// Elements that were not aligned for their type, moved to where they are. `u64` has the widest alignment needed.
    _moved: Option<Box<[u64]>>,
    _elements: PhantomData<&'a [u8]>,
}

impl Drop for Value<'_> {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from the library, is owned by this object and released once.
        ortsys![unsafe ReleaseValue(self.ptr)];
    }
}

/// Memory description of the CPU, needed to wrap bytes; made once for each session.
pub(crate) fn cpu_memory() -> ort::Result<MemoryInfo<'static>> {
    MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::Default)
}

impl<'a> Value<'a> {
    /// Wraps elements without copying them, unless they lie unaligned. `shape` must not be negative and its element count
    /// times the type's size must be `bytes.len()`; both are checked by the library again.
    pub(crate) fn from_bytes(
        memory: &MemoryInfo<'_>,
        dtype: DType,
        shape: &[i64],
        bytes: &'a [u8],
    ) -> ort::Result<Self> {
        let align = dtype.byte_size().unwrap_or(1);
        let mut moved = None;
        let mut data = bytes.as_ptr();
        if !data.addr().is_multiple_of(align) {
            let mut words = vec![0_u64; bytes.len().div_ceil(8)].into_boxed_slice();
            // SAFETY: `words` has at least `bytes.len()` bytes, is a different allocation, and any bytes make valid u64s.
            unsafe { ptr::copy_nonoverlapping(data, words.as_mut_ptr().cast::<u8>(), bytes.len()) };
            data = words.as_ptr().cast();
            moved = Some(words);
        }
        let mut value = ptr::null_mut();
        // SAFETY: `data` is valid for `bytes.len()` bytes as long as the value lives (borrowed for 'a, or owned by it and
        // on the heap, so it does not move). The library only reads inputs. A size that does not fit the shape is refused.
        ortsys![unsafe CreateTensorWithDataAsOrtValue(
            memory.ptr(),
            data.cast_mut().cast(),
            bytes.len(),
            shape.as_ptr(),
            shape.len(),
            dtype.element().into(),
            &mut value
        )?];
        Ok(Self { ptr: value, _moved: moved, _elements: PhantomData })
    }

    /// Wraps floats without copying them.
    pub(crate) fn from_f32(memory: &MemoryInfo<'_>, shape: &[i64], values: &'a [f32]) -> ort::Result<Self> {
        // SAFETY: every f32 is four initialised bytes, and the lifetime is kept.
        let bytes = unsafe { std::slice::from_raw_parts(values.as_ptr().cast::<u8>(), size_of_val(values)) };
        Self::from_bytes(memory, DType::F32, shape, bytes)
    }

    /// Copies strings into a tensor. There must be as many as the shape has elements, none with a zero byte inside.
    pub(crate) fn from_strings(shape: &[i64], strings: &[String]) -> ort::Result<Self> {
        let terminated = strings.iter().map(|text| CString::new(text.as_str())).collect::<Result<Vec<_>, _>>()?;
        let pointers: Vec<*const c_char> = terminated.iter().map(|text| text.as_ptr()).collect();
        let allocator = Allocator::default();
        let mut value = ptr::null_mut();
        // SAFETY: the shape is valid for its length; the value is owned from here on and released by Drop.
        ortsys![unsafe CreateTensorAsOrtValue(
            allocator.ptr().cast_mut(),
            shape.as_ptr(),
            shape.len(),
            DType::String.element().into(),
            &mut value
        )?];
        let value = Self { ptr: value, _moved: None, _elements: PhantomData };
        // SAFETY: `pointers` are `strings.len()` terminated texts, alive until the call returns; it copies them and refuses a
        // count that differs from the tensor's.
        ortsys![unsafe FillStringTensor(value.ptr, pointers.as_ptr(), pointers.len())?];
        Ok(value)
    }

    /// Any tensor, its bytes borrowed.
    pub(crate) fn from_tensor(memory: &MemoryInfo<'_>, tensor: &'a Tensor) -> ort::Result<Self> {
        match &tensor.data {
            Data::Bytes(bytes) => Self::from_bytes(memory, tensor.dtype, &tensor.shape, bytes),
            Data::Strings(strings) => Self::from_strings(&tensor.shape, strings),
        }
    }

    /// Type and shape of a tensor; the type is `None` for one that is not served.
    pub(crate) fn type_and_shape(&self) -> ort::Result<(Option<DType>, &[i64])> {
        let mut element = sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED;
        let (mut dims, mut rank) = (ptr::null(), 0_usize);
        // SAFETY: the value lives; the library answers with a pointer into it that is valid as long as the value.
        ortsys![unsafe GetTensorElementTypeAndShapeDataReference(self.ptr, &mut element, &mut dims, &mut rank)?];
        // SAFETY: `dims` points at `rank` sizes inside the value, or is null for a scalar.
        let shape = if rank == 0 { &[] } else { unsafe { std::slice::from_raw_parts(dims, rank) } };
        let dtype = match element {
            sys::ONNXTensorElementDataType::ONNX_TENSOR_ELEMENT_DATA_TYPE_UNDEFINED => None,
            known => DType::from_element(known.into()),
        };
        Ok((dtype, shape))
    }

    /// The elements of a tensor of a fixed-size type. One that lies on a device is refused.
    pub(crate) fn bytes(&self) -> ort::Result<&[u8]> {
        let mut memory = ptr::null();
        // SAFETY: the value lives; what is no tensor is refused. The answer is owned by the value.
        ortsys![unsafe GetTensorMemoryInfo(self.ptr, &mut memory)?];
        let mut device = sys::OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU;
        // SAFETY: `memory` was just handed out.
        ortsys![unsafe MemoryInfoGetDeviceType(memory, &mut device)];
        if device != sys::OrtMemoryInfoDeviceType::OrtMemoryInfoDeviceType_CPU {
            return Err(ort::Error::new("a tensor lies on a device, not in CPU memory"));
        }
        let mut size = 0_usize;
        // SAFETY: the value lives; strings are refused by the library.
        ortsys![unsafe GetTensorSizeInBytes(self.ptr, &mut size)?];
        if size == 0 {
            return Ok(&[]);
        }
        let mut data = ptr::null_mut();
        // SAFETY: as above; nothing writes through the pointer.
        ortsys![unsafe GetTensorMutableData(self.ptr, &mut data)?];
        // SAFETY: `data` are the tensor's own `size` bytes, in CPU memory.
        Ok(unsafe { std::slice::from_raw_parts(data.cast_const().cast::<u8>(), size) })
    }

    /// The elements of a float tensor.
    pub(crate) fn floats(&self) -> ort::Result<&[f32]> {
        let bytes = self.bytes()?;
        // SAFETY: any bytes are valid floats; `align_to` keeps within the slice.
        let (before, floats, after) = unsafe { bytes.align_to::<f32>() };
        // The library aligns to 64 bytes or more; a borrowed input that comes back as an output was aligned by us.
        if before.is_empty() && after.is_empty() {
            Ok(floats)
        } else {
            Err(ort::Error::new("an output lies unaligned"))
        }
    }

    /// The elements of a string tensor of `count` elements, copied; bytes that are no UTF-8 become U+FFFD.
    fn strings(&self, count: usize) -> ort::Result<Vec<String>> {
        let mut total = 0_usize;
        // SAFETY: the value lives; other types are refused by the library.
        ortsys![unsafe GetStringTensorDataLength(self.ptr, &mut total)?];
        let mut text = vec![0_u8; total];
        let mut offsets = vec![0_usize; count];
        // SAFETY: the buffers have the sizes that are passed; sizes that do not fit are refused.
        ortsys![unsafe GetStringTensorContent(self.ptr, text.as_mut_ptr().cast(), total, offsets.as_mut_ptr(), count)?];
        let ends = offsets.iter().skip(1).copied().chain([total]);
        let slices = offsets.iter().zip(ends).map(|(start, end)| text.get(*start..end).unwrap_or_default());
        Ok(slices.map(|slice| String::from_utf8_lossy(slice).into_owned()).collect())
    }

    /// Bytes that a copy of the elements takes; for strings also those of the list itself.
    pub(crate) fn byte_len(&self) -> ort::Result<usize> {
        let (dtype, shape) = self.type_and_shape()?;
        let mut size = 0_usize;
        if dtype == Some(DType::String) {
            // SAFETY: the value lives and holds strings.
            ortsys![unsafe GetStringTensorDataLength(self.ptr, &mut size)?];
            let count = crate::spec::elements(shape).map_err(ort::Error::new)?;
            return Ok(size.saturating_add(count.saturating_mul(size_of::<String>())));
        }
        // SAFETY: the value lives; other kinds are refused by the library.
        ortsys![unsafe GetTensorSizeInBytes(self.ptr, &mut size)?];
        Ok(size)
    }

    /// Copies a tensor out.
    pub(crate) fn to_tensor(&self) -> ort::Result<Tensor> {
        let (dtype, shape) = self.type_and_shape()?;
        let dtype = dtype.ok_or_else(|| ort::Error::new("an output has an element type that is not served"))?;
        let data = if dtype == DType::String {
            let count = crate::spec::elements(shape).map_err(ort::Error::new)?;
            Data::Strings(self.strings(count)?)
        } else {
            Data::Bytes(Bytes::copy_from_slice(self.bytes()?))
        };
        Ok(Tensor { dtype, shape: shape.to_vec(), data })
    }
}

/// Runs the model. `inputs` pairs names with values; outputs that come with memory are written there, the others are returned
/// in the order of `outputs`.
///
/// Where a model's output is its input, the library answers with the borrowed input itself: outputs borrow the inputs.
pub(crate) fn run<'v>(
    session: &Session,
    options: &RunOptions,
    inputs: &[(&CStr, &'v Value<'v>)],
    outputs: &[(&CStr, Option<&View<'_>>)],
) -> ort::Result<Vec<Value<'v>>> {
    let input_names: Vec<*const c_char> = inputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let input_values: Vec<*const sys::OrtValue> = inputs.iter().map(|(_, value)| value.ptr.cast_const()).collect();
    let output_names: Vec<*const c_char> = outputs.iter().map(|(name, _)| name.as_ptr()).collect();
    let mut output_values: Vec<*mut sys::OrtValue> =
        outputs.iter().map(|(_, value)| value.map_or(ptr::null_mut(), |view| view.value().ptr)).collect();
    // SAFETY: names are terminated and alive, the arrays have the lengths that are passed, and an output pointer is null, so
    // that the library makes the value, or a living value over memory that may be written (`View`). `Run` does not change
    // the session in a way that other runs see (module doc).
    let result = ortsys![@ort: unsafe Run(
        session.ptr().cast_mut(),
        options.ptr(),
        input_names.as_ptr(),
        input_values.as_ptr(),
        input_values.len(),
        output_names.as_ptr(),
        output_names.len(),
        output_values.as_mut_ptr()
    ) as Result];
    // Owned before the result is looked at: a failed run may have made some.
    let mut values = Vec::with_capacity(output_values.len());
    let mut missing = false;
    for ((_, given), ptr) in outputs.iter().zip(output_values) {
        if given.is_some() {
            continue;
        }
        if ptr.is_null() {
            missing = true;
        } else {
            values.push(Value { ptr, _moved: None, _elements: PhantomData });
        }
    }
    result?;
    if missing { Err(ort::Error::new("an output was not made")) } else { Ok(values) }
}

/// Which list of a session a name stands in.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Outlets {
    Inputs,
    Overridable,
    Outputs,
}

/// Whether the model declares a shape at all; `ort` shows an undeclared one as a scalar.
pub(crate) fn has_shape(session: &Session, list: Outlets, index: usize) -> ort::Result<bool> {
    let mut info: *mut sys::OrtTypeInfo = ptr::null_mut();
    // SAFETY: the session lives; an index out of range is refused. The info is owned here and released below.
    match list {
        Outlets::Inputs => ortsys![unsafe SessionGetInputTypeInfo(session.ptr(), index, &mut info)?],
        Outlets::Overridable => {
            ortsys![unsafe SessionGetOverridableInitializerTypeInfo(session.ptr(), index, &mut info)?]
        }
        Outlets::Outputs => ortsys![unsafe SessionGetOutputTypeInfo(session.ptr(), index, &mut info)?],
    };
    let mut tensor: *const sys::OrtTensorTypeAndShapeInfo = ptr::null();
    // SAFETY: `info` lives until it is released; the cast gives a pointer into it, or null for what is no tensor.
    let cast = ortsys![@ort: unsafe CastTypeInfoToTensorInfo(info, &mut tensor) as Result];
    // SAFETY: `tensor` is not null and points into `info`, which still lives.
    let known = !tensor.is_null() && ortsys![unsafe TensorTypeAndShape_HasShape(tensor)];
    // SAFETY: released once, after its last use.
    ortsys![unsafe ReleaseTypeInfo(info)];
    cast.map(|()| known)
}

/// The nodes of each execution provider as the session recorded them at load, before fusion: provider and operator.
pub(crate) fn placement(session: &Session) -> ort::Result<Vec<(String, String)>> {
    let mut found = Vec::new();
    let (mut groups, mut count) = (ptr::null(), 0_usize);
    // SAFETY: the session lives and owns everything that is handed out; without a record the library refuses.
    ortsys![unsafe Session_GetEpGraphAssignmentInfo(session.ptr(), &mut groups, &mut count)?];
    for group in 0..count {
        // SAFETY: `groups` points at `count` pointers owned by the session.
        let group = unsafe { *groups.add(group) };
        let mut provider: *const c_char = ptr::null();
        // SAFETY: `group` is such a pointer; the name is owned by the session.
        ortsys![unsafe EpAssignedSubgraph_GetEpName(group, &mut provider)?];
        let (mut nodes, mut node_count) = (ptr::null(), 0_usize);
        // SAFETY: as above.
        ortsys![unsafe EpAssignedSubgraph_GetNodes(group, &mut nodes, &mut node_count)?];
        for node in 0..node_count {
            let mut operator: *const c_char = ptr::null();
            // SAFETY: `nodes` points at `node_count` pointers owned by the session.
            ortsys![unsafe EpAssignedNode_GetOperatorType(*nodes.add(node), &mut operator)?];
            found.push((text(provider), text(operator)));
        }
    }
    Ok(found)
}

/// Copies a text owned by the library.
fn text(pointer: *const c_char) -> String {
    if pointer.is_null() {
        return String::new();
    }
    // SAFETY: the callers pass pointers that the library has just handed out, terminated and alive.
    unsafe { CStr::from_ptr(pointer) }.to_string_lossy().into_owned()
}

/// Gives the process one arena for CPU memory that never holds more than `limit` bytes; sessions made with
/// `session.use_env_allocators` use it.
pub(crate) fn register_cpu_arena(environment: &ort::environment::Environment, limit: usize) -> ort::Result<()> {
    let memory = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Arena, MemoryType::Default)?;
    let keys = [c"max_mem".as_ptr()];
    let values = [limit];
    let mut config: *mut sys::OrtArenaCfg = ptr::null_mut();
    // SAFETY: both arrays have one element; the config is owned here and released below.
    ortsys![unsafe CreateArenaCfgV2(keys.as_ptr(), values.as_ptr(), keys.len(), &mut config)?];
    // SAFETY: environment, description and config live; the library copies what it keeps.
    let registered =
        ortsys![@ort: unsafe CreateAndRegisterAllocator(environment.ptr().cast_mut(), memory.ptr(), config) as Result];
    // SAFETY: released once, after its last use.
    ortsys![unsafe ReleaseArenaCfg(config)];
    registered
}
