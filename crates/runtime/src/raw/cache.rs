//! Memory that a decoder reads as past and writes as present: keys or values of one layer, in slots.

use std::cell::UnsafeCell;
use std::marker::PhantomData;
use std::ptr;

use ort::AsPointer;
use ort::memory::MemoryInfo;
use ort::ortsys;

use super::Value;
use crate::dtype::DType;

/// A tensor over memory that the library may write.
pub(crate) struct View<'a>(Value<'a>);

impl<'a> View<'a> {
    /// The same as an input.
    pub(crate) fn value(&self) -> &Value<'a> {
        &self.0
    }
}

/// `[slots, heads, context, size]` elements, zero at first. Lies in CPU memory and is only backed by real memory where it was
/// written.
pub(crate) struct Cache {
    // The library writes here through the pointers of views while `Cache` is borrowed: hence the cells.
    words: Box<[UnsafeCell<u64>]>,
    dtype: DType,
    element: usize,
    heads: usize,
    context: usize,
    size: usize,
}

// SAFETY: the cells are written by runs that a `Cache`'s owner starts and by `copy`, which takes it mutably. Whoever owns it
// (`Decoder`) starts runs with itself borrowed mutably, so that no two threads touch it at the same time.
unsafe impl Send for Cache {}

impl Cache {
    /// `None` when the size overflows, or for an element type that has no size.
    pub(crate) fn new(dtype: DType, slots: usize, heads: usize, context: usize, size: usize) -> Option<Self> {
        let element = dtype.byte_size()?;
        let bytes = [slots, heads, context, size, element].into_iter().try_fold(1_usize, usize::checked_mul)?;
        let words: Box<[u64]> = vec![0; bytes.div_ceil(8)].into_boxed_slice();
        // SAFETY: `UnsafeCell<u64>` has the layout of `u64`; the box is taken over as a whole.
        let words = unsafe { Box::from_raw(Box::into_raw(words) as *mut [UnsafeCell<u64>]) };
        Some(Self { words, dtype, element, heads, context, size })
    }

    fn slot_bytes(&self) -> usize {
        self.heads * self.context * self.size * self.element
    }

    fn base(&self) -> *mut u8 {
        // The pointer of the whole slice, so that it may be used for all of it.
        self.words.as_ptr().cast_mut().cast()
    }

    /// The slots from `first` on, `count` of them, as a tensor over this memory: for an input and an output of one run.
    ///
    /// # Panics
    /// When there are no such slots: the caller's defect.
    pub(crate) fn view(&self, memory: &MemoryInfo<'_>, first: usize, count: usize) -> ort::Result<View<'_>> {
        let bytes = count * self.slot_bytes();
        assert!((first + count) * self.slot_bytes() <= self.words.len() * 8, "slots outside the cache");
        let shape = [count, self.heads, self.context, self.size].map(|size| size as i64);
        let mut value = ptr::null_mut();
        // SAFETY: the range was checked, the memory outlives the value (borrowed for its lifetime) and is in cells, so that
        // writing through the pointer is allowed. Alignment is that of u64. A size that does not fit is refused.
        ortsys![unsafe CreateTensorWithDataAsOrtValue(
            memory.ptr(),
            self.base().add(first * self.slot_bytes()).cast(),
            bytes,
            shape.as_ptr(),
            shape.len(),
            self.dtype.element().into(),
            &mut value
        )?];
        Ok(View(Value { ptr: value, _moved: None, _elements: PhantomData }))
    }

    /// Copies the first `tokens` positions of one slot to another.
    ///
    /// # Panics
    /// As [`Cache::view`].
    pub(crate) fn copy(&mut self, from: usize, to: usize, tokens: usize) {
        assert!((from.max(to) + 1) * self.slot_bytes() <= self.words.len() * 8, "slots outside the cache");
        assert!(tokens <= self.context && from != to, "a copy within a slot or beyond its end");
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
    }
}
