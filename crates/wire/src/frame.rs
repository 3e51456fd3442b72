//! Length-prefixed frames out of a growing buffer.
//!
//! Promises: memory grows with the bytes that arrived, never with the length that a peer claims.

use bytes::{Buf, Bytes, BytesMut};

use crate::{FrameError, FrameLimits};

const PREFIX: usize = 4;

/// Room for the first read of a big frame.
const STEP: usize = 64 * 1024;

/// Room for any read: several small frames often come at once, and most connections are idle.
const LEAST: usize = 8 * 1024;

/// The payload length that the started frame claims; `None` while the prefix has not arrived.
///
/// # Errors
/// [`FrameError`] when the length is zero or over the limit.
pub fn claimed(buffer: &[u8], limits: &FrameLimits) -> Result<Option<usize>, FrameError> {
    let Some(prefix) = buffer.first_chunk::<PREFIX>() else { return Ok(None) };
    let bytes = u32::from_be_bytes(*prefix) as usize;
    match bytes {
        0 => Err(FrameError::Empty),
        _ if bytes > limits.bytes() => Err(FrameError::TooLarge { bytes, limit: limits.bytes() }),
        _ => Ok(Some(bytes)),
    }
}

/// Takes the payload of the first frame off `buffer` when it is there in full; a slice, not a copy.
///
/// # Errors
/// Those of [`claimed`]: as soon as the prefix is there, before the payload.
pub fn split_frame(buffer: &mut BytesMut, limits: &FrameLimits) -> Result<Option<Bytes>, FrameError> {
    let Some(bytes) = claimed(buffer, limits)? else { return Ok(None) };
    if buffer.len() - PREFIX < bytes {
        return Ok(None);
    }
    buffer.advance(PREFIX);
    Ok(Some(buffer.split_to(bytes).freeze()))
}

/// How many bytes the started frame still lacks: 0 when the buffer is empty or holds a whole frame. Until the prefix
/// is there, what is missing of the prefix.
#[must_use]
pub fn needed(buffer: &[u8]) -> usize {
    match buffer.first_chunk::<PREFIX>() {
        None if buffer.is_empty() => 0,
        None => PREFIX - buffer.len(),
        Some(prefix) => (u32::from_be_bytes(*prefix) as usize + PREFIX).saturating_sub(buffer.len()),
    }
}

/// Makes room for the next read: what the started frame lacks, at least 8 KiB, at most 64 KiB or three times what has
/// arrived of it. A peer that claims much and sends little holds little; a big frame is moved in memory a few times only.
pub fn reserve(buffer: &mut BytesMut) {
    let most = STEP.max(3 * buffer.len());
    buffer.reserve(needed(buffer).clamp(LEAST, most));
}
