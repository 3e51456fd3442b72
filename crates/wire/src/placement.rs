//! Where the one big `binary` field of a message lies.
//!
//! Why: a tensor is used where its frame put it. Elements on an address that suits their size go to the model as they are;
//! others are copied first, half a megabyte of them for a photograph. Who reads a frame into memory of its own chooses the
//! address, if the message's first bytes tell where the field will be.
//! Promises: it is a guess from the given bytes alone; a wrong one costs that copy and nothing else.

use crate::envelope::{u32_at, varint_at};

/// So many bytes at most stand before the field and as many behind it: names, a shape, the call's base. The more, the more
/// other bytes read as a length that would fit.
const BESIDE: usize = 1024;

/// The first byte of a message in the compact protocol.
const COMPACT: u8 = 0x82;

/// Where in a payload of `claimed` bytes, which begins with `head`, the field begins that takes all of it but a kilobyte.
#[must_use]
pub fn large_field(head: &[u8], claimed: usize) -> Option<usize> {
    let head = &head[..head.len().min(BESIDE)];
    let is_compact = head.first() == Some(&COMPACT);
    let length_at =
        |at: usize| if is_compact { varint_at(head, at) } else { u32_at(head, at).map(|length| (length, at + 4)) };
    (0..head.len()).find_map(|at| {
        let (length, begin) = length_at(at)?;
        let behind = claimed.checked_sub(begin)?.checked_sub(length as usize)?;
        (behind <= BESIDE).then_some(begin)
    })
}
