//! Memory that a decoder reads as past and writes as present: keys or values of one layer, in slots.
//!
//! In CPU memory it is pages that become real where they are written, by 4 KiB: with huge pages, the first words in a slot would wait
//! until all of it is zeroed, which takes some hundred milliseconds. On a device it comes from the allocator of the session that
//! runs there; nothing of it is ever copied to the CPU. Slots are then copied and zeroed by a graph of one node on the same
//! device ([`Copier`]): ONNX Runtime has no call for that which its built-in providers serve.

use std::ffi::c_void;
use std::marker::PhantomData;
use std::ptr;
use std::sync::Arc;

use memmap2::{MmapMut, MmapRaw};
use ort::AsPointer;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::ortsys;
use ort::session::{RunOptions, Session as Graph};

use super::{Value, cpu_memory, run};
use crate::blueprint::{Loaded, Origin};
use crate::device::Device;
use crate::dtype::DType;

/// A tensor over memory that the library may write.
pub(crate) struct View<'a>(Value<'a>);

impl<'a> View<'a> {
    /// The same as an input.
    pub(crate) fn value(&self) -> &Value<'a> {
        &self.0
    }
}

/// Copies whole slots on the device of a session.
pub(crate) struct Copier {
    graph: Graph,
    options: RunOptions,
}

impl Copier {
    pub(crate) fn new(origin: &Origin, device: Device, dtype: DType) -> ort::Result<Self> {
        Ok(Self { graph: origin.graph_of(device, &identity(dtype))?, options: RunOptions::new()? })
    }

    /// Runs are over when they return: the library waits for the device at their end.
    fn copy(&self, from: &Value<'_>, to: &View<'_>) -> ort::Result<()> {
        run(&self.graph, &self.options, &[(c"x", from)], &[(c"y", Some(to))]).map(drop)
    }
}

/// An ONNX model of one node: y is x, of any shape.
fn identity(dtype: DType) -> Vec<u8> {
    // Protocol buffers: a field is its number and kind, then its bytes with their count in front, or a number below 128.
    let bytes = |field: u8, content: &[u8]| [&[field << 3 | 2, content.len() as u8], content].concat();
    let number = |field: u8, value: u8| vec![field << 3, value];
    // TensorProto.DataType; caches are of these two.
    let element = if dtype == DType::F16 { 10 } else { 1 };
    let tensor_type = bytes(1, &number(1, element));
    let port = |name: &[u8]| [bytes(1, name), bytes(2, &tensor_type)].concat();
    let node = [bytes(1, b"x"), bytes(2, b"y"), bytes(4, b"Identity")].concat();
    let graph = [bytes(1, &node), bytes(2, b"copy"), bytes(11, &port(b"x")), bytes(12, &port(b"y"))].concat();
    let opset = number(2, 17);
    [number(1, 8), bytes(7, &graph), bytes(8, &opset)].concat()
}

/// Where a cache lies.
enum Memory {
    // The library writes here through the pointers of views while `Cache` is borrowed: hence no reference, but a raw mapping.
    Pages(MmapRaw),
    Allocated(Block),
}

/// Memory of a session's own allocator.
struct Block {
    start: *mut c_void,
    allocator: Allocator,
    // The allocator is only good as long as its session lives.
    _session: Arc<Loaded>,
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: it came from this allocator, whose session still lives, and is freed once.
        unsafe { self.allocator.free(self.start) };
    }
}

/// `[slots, heads, context, size]` elements, zero at first.
pub(crate) struct Cache {
    memory: Memory,
    description: MemoryInfo<'static>,
    bytes: usize,
    dtype: DType,
    element: usize,
    heads: usize,
    context: usize,
    size: usize,
}

// SAFETY: the memory is written by runs that a `Cache`'s owner starts and by `copy`, which takes it mutably. Whoever owns it
// (`Decoder`) starts runs with itself borrowed mutably, so that no two threads touch it at the same time.
unsafe impl Send for Cache {}

impl Cache {
    /// In CPU memory. `shape` is slots, heads, context, size.
    pub(crate) fn in_pages(dtype: DType, shape: [usize; 4]) -> ort::Result<Self> {
        let (element, bytes) = extent(dtype, shape)?;
        let pages =
            MmapMut::map_anon(bytes.max(1)).map_err(|error| ort::Error::new(format!("{bytes} bytes: {error}")))?;
        // Where this is not known the pages are as the system has them.
        #[cfg(target_os = "linux")]
        let _ = pages.advise(memmap2::Advice::NoHugePage);
        let [_, heads, context, size] = shape;
        let (memory, description) = (Memory::Pages(pages.into()), cpu_memory()?);
        Ok(Self { memory, description, bytes, dtype, element, heads, context, size })
    }

    /// In memory of the device that a session runs on, by the session's allocator and within its limit.
    pub(crate) fn of_session(
        session: &Arc<Loaded>,
        dtype: DType,
        shape: [usize; 4],
        copier: &Copier,
    ) -> ort::Result<Self> {
        let (element, bytes) = extent(dtype, shape)?;
        let description = match session.chosen.device {
            Device::Cpu => cpu_memory()?,
            Device::Cuda(number) => {
                let number = i32::try_from(number).unwrap_or(i32::MAX);
                MemoryInfo::new(AllocationDevice::CUDA, number, AllocatorType::Device, MemoryType::Default)?
            }
        };
        let allocator = Allocator::new(&session.graph, description.clone())?;
        let start = allocator.alloc::<u8>(bytes)?.into_raw();
        let memory = Memory::Allocated(Block { start, allocator, _session: Arc::clone(session) });
        let [slots, heads, context, size] = shape;
        let cache = Self { memory, description, bytes, dtype, element, heads, context, size };
        // What lies beyond a conversation's end is read by some kernels and multiplied by zero: it must be a number.
        let zeros = vec![0_u8; cache.slot_bytes()];
        let host = cpu_memory()?;
        let zeros = Value::from_bytes(&host, dtype, &[1, heads as i64, context as i64, size as i64], &zeros)?;
        for slot in 0..slots {
            copier.copy(&zeros, &cache.view(slot, 1)?)?;
        }
        Ok(cache)
    }

    fn slot_bytes(&self) -> usize {
        self.heads * self.context * self.size * self.element
    }

    fn base(&self) -> *mut u8 {
        match &self.memory {
            Memory::Pages(pages) => pages.as_mut_ptr(),
            Memory::Allocated(block) => block.start.cast(),
        }
    }

    /// The slots from `first` on, `count` of them, as a tensor over this memory: for an input and an output of one run.
    ///
    /// # Panics
    /// When there are no such slots: the caller's defect.
    pub(crate) fn view(&self, first: usize, count: usize) -> ort::Result<View<'_>> {
        let bytes = count * self.slot_bytes();
        assert!((first + count) * self.slot_bytes() <= self.bytes, "slots outside the cache");
        let shape = [count, self.heads, self.context, self.size].map(|size| size as i64);
        let mut value = ptr::null_mut();
        // SAFETY: the range was checked, the memory outlives the value (borrowed for its lifetime) and no reference of Rust's points into it,
        // so that writing through the pointer is allowed; it lies where its description says. Alignment is that of a page or of the
        // allocator's blocks. A size that does not fit is refused.
        ortsys![unsafe CreateTensorWithDataAsOrtValue(
            self.description.ptr(),
            self.base().add(first * self.slot_bytes()).cast(),
            bytes,
            shape.as_ptr(),
            shape.len(),
            self.dtype.element().into(),
            &mut value
        )?];
        Ok(View(Value { ptr: value, _moved: None, _elements: PhantomData }))
    }

    /// Copies the first `tokens` positions of one slot to another; with a `copier` all of it, on the device.
    ///
    /// # Panics
    /// As [`Cache::view`].
    pub(crate) fn copy(&mut self, from: usize, to: usize, tokens: usize, copier: Option<&Copier>) -> ort::Result<()> {
        assert!((from.max(to) + 1) * self.slot_bytes() <= self.bytes, "slots outside the cache");
        assert!(tokens <= self.context && from != to, "a copy within a slot or beyond its end");
        if let Some(copier) = copier {
            return copier.copy(self.view(from, 1)?.value(), &self.view(to, 1)?);
        }
        if matches!(self.memory, Memory::Allocated(_)) {
            return Err(ort::Error::new("memory of a device is copied on the device"));
        }
        let head = self.context * self.size * self.element;
        let bytes = tokens * self.size * self.element;
        for at in 0..self.heads {
            // SAFETY: both ranges lie in their slots (checked above), in different ones, and nothing else runs on this cache
            // while it is borrowed mutably.
            unsafe {
                let source = self.base().add(from * self.slot_bytes() + at * head);
                let target = self.base().add(to * self.slot_bytes() + at * head);
                ptr::copy_nonoverlapping(source, target, bytes);
            }
        }
        Ok(())
    }
}

/// Bytes of an element and of all.
fn extent(dtype: DType, shape: [usize; 4]) -> ort::Result<(usize, usize)> {
    let element = dtype.byte_size().ok_or_else(|| ort::Error::new("a cache of elements without a size"))?;
    let bytes = shape.into_iter().try_fold(element, usize::checked_mul);
    let bytes = bytes.filter(|bytes| isize::try_from(*bytes).is_ok());
    Ok((
        element,
        bytes
            .ok_or_else(|| ort::Error::new(format!("{} slots of {} tokens cannot be addressed", shape[0], shape[2])))?,
    ))
}
